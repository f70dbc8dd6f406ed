import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from flag_training.store.panels import PanelRule, moments, select_panel, variable_genes
from napari_flag.errors import UserError
from napari_flag.slides.spot_tables import read_measured

HER2ST = Path(__file__).resolve().parents[4] / "shared" / "data" / "her2st"


def counts(values, genes):
    adata = anndata.AnnData(sparse.csr_matrix(np.asarray(values, np.float32)))
    adata.var_names = list(genes)
    return adata


def graded(n_genes=30, seed=0):
    """Gene i has mean and spread that grow with i, apart from ribosomal and mitochondrial ones."""
    rng = np.random.default_rng(seed)
    names = [f"G{i:02d}" for i in range(n_genes)] + ["MT-CO1", "RPS3", "RPL5"]
    level = np.append(np.linspace(1, 40, n_genes), [99, 98, 97])
    return counts(rng.poisson(level * rng.uniform(0.5, 1.5, (60, 1))), names)


def test_the_highest_by_mean_and_spread_are_chosen_without_housekeeping_genes():
    genes = select_panel({"a": graded(), "b": graded(seed=1)}, PanelRule(genes=6, variable_genes=0))
    assert 3 <= len(genes) <= 6
    assert set(genes) <= {f"G{i:02d}" for i in range(20, 30)}
    assert genes[0] == "G29"


def test_an_exact_panel_has_exactly_as_many():
    slides = {"a": graded(), "b": graded(seed=1)}
    for n in (3, 6, 11):
        assert len(select_panel(slides, PanelRule(genes=n, exact=True, variable_genes=0))) == n


def test_only_genes_that_every_slide_knows_are_chosen():
    one, other = graded(), graded(seed=1)[:, :-4].copy()  # without G29 too
    rule = PanelRule(genes=6, variable_genes=0)
    assert "G29" not in select_panel({"a": one, "b": other}, rule)
    assert "G29" not in select_panel({"a": one}, rule, known=other.var_names)


def test_too_few_genes_are_refused_with_a_sentence():
    with pytest.raises(UserError, match="30 genes"):
        select_panel({"a": graded()}, PanelRule(genes=31, exact=True, variable_genes=0))


def test_mean_and_spread_are_those_over_all_spots_of_all_slides():
    slides = [graded(), graded(seed=1)]
    genes = ["G03", "G17"]
    dense = np.concatenate([np.asarray(s[:, genes].X.todense()) for s in slides]).astype(float)
    mean, spread = moments(slides, genes, on_log_counts=False)
    np.testing.assert_allclose(mean, dense.mean(0))
    np.testing.assert_allclose(spread, dense.std(0))
    mean, spread = moments(slides, genes, on_log_counts=True)
    np.testing.assert_allclose(mean, np.log2(dense + 1).mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread, np.log2(dense + 1).std(0), rtol=1e-6)


def test_variable_genes_are_those_that_differ_between_spots_at_equal_depth():
    rng = np.random.default_rng(0)
    values = rng.poisson(20, (80, 40))
    values[:, 7] = rng.permutation(np.repeat([5, 35], 40))
    values[0] = 0  # an empty spot must not matter
    genes = [f"G{i}" for i in range(40)]
    assert "G7" in variable_genes(counts(values, genes), 3)


FIRST_USE = """
import numpy, torch
from anndata import AnnData
from scipy.sparse import csr_matrix
from flag_training.store.panels import variable_genes

before = torch.get_num_threads()
variable_genes(AnnData(csr_matrix(numpy.random.default_rng(0).poisson(2.0, (80, 40)).astype("float32"))), 3)
print(before, torch.get_num_threads())
"""


def test_choosing_variable_genes_leaves_the_threads_of_pytorch_as_they_were():
    """Two trainings side by side, a thread each, took ten times as long once one had two."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, "-c", FIRST_USE], env=alone, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["1", "1"]


@pytest.mark.slow
@pytest.mark.skipif(not HER2ST.exists(), reason="needs ../shared/data/her2st")
def test_the_panel_of_the_default_weights_is_chosen_again_gene_by_gene():
    """Its rule: five imaged sections, log2(count + 1), exactly 200; see the data's README."""
    slides = {s: read_measured(HER2ST / "counts" / f"{s}.tsv.gz") for s in ("B4", "C2", "C3", "C4", "C5")}
    rule = PanelRule(genes=200, exact=True, on_log_counts=True, variable_genes=0)
    assert list(select_panel(slides, rule)) == (HER2ST / "panel_hmhvg200.txt").read_text().split()
