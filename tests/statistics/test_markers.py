"""Differential genes: scanpy computes the same."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from napari_flag.errors import UserError
from napari_flag.statistics.markers import Overlap, differential_genes, overlap_at, wilcoxon


def scanpys(values: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> pd.DataFrame:
    scanpy, anndata = pytest.importorskip("scanpy"), pytest.importorskip("anndata")
    keep = inside | outside
    adata = anndata.AnnData(values[keep])
    adata.obs["region"] = pd.Categorical(np.where(inside[keep], "in", "out"))
    settings = {"method": "wilcoxon", "tie_correct": True}
    scanpy.tl.rank_genes_groups(adata, "region", groups=["in"], reference="out", **settings)
    return scanpy.get.rank_genes_groups_df(adata, "in").set_index("names").loc[adata.var_names]


def agrees(values: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> None:
    genes = [str(gene) for gene in range(values.shape[1])]
    known = scanpys(values, inside, outside)
    table = differential_genes(values, genes, inside, outside)
    table = table.set_index("gene").loc[genes]
    np.testing.assert_allclose(table.score, known.scores, rtol=1e-6, atol=1e-6)  # scanpy keeps float32
    np.testing.assert_allclose(table.p, known.pvals, atol=1e-6)
    np.testing.assert_allclose(table.q, known.pvals_adj, atol=1e-6)


@pytest.mark.slow
def test_scores_and_p_values_are_scanpys_on_a_real_section(sections):
    """Slow for scanpy's compilation."""
    section = sections["C5"]
    inside = section.array[:, 0] < 12
    agrees(section.y, inside, ~inside)
    agrees(section.y[:, :20], section.array[:, 1] < 12, section.array[:, 1] > 20)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:scanpy")
def test_scores_and_p_values_are_scanpys_where_most_is_zero():
    values = np.log2(np.random.default_rng(0).poisson(0.1, (120, 30)) + 1.0)
    values[:, 4] = 1.5
    agrees(values, np.arange(120) < 40, np.arange(120) >= 40)


def test_p_values_are_scipys(sections):
    section = sections["C5"]
    first, second = section.y[section.array[:, 0] < 12], section.y[section.array[:, 0] >= 12]
    known = mannwhitneyu(first, second, method="asymptotic", use_continuity=False)
    np.testing.assert_allclose(wilcoxon(first, second)[1], known.pvalue, atol=1e-9)


def test_a_planted_marker_comes_first_and_a_missing_one_last():
    rng = np.random.default_rng(1)
    values, inside = rng.normal(2, 0.5, (100, 50)), np.arange(100) < 30
    values[inside, 7] += 2
    values[inside, 9] -= 2
    table = differential_genes(values, [f"G{g}" for g in range(50)], inside)
    assert table.gene.iloc[0] == "G7"
    assert table.gene.iloc[-1] == "G9"
    assert table.difference.iloc[0] == pytest.approx(2, abs=0.4)
    assert table.q.iloc[0] < 1e-6
    assert (table.q.iloc[5:45] > 0.01).all()


def test_blocks_of_genes_change_nothing(monkeypatch):
    values, inside = np.random.default_rng(2).poisson(2, (60, 23)).astype(float), np.arange(60) < 25
    genes = [str(g) for g in range(23)]
    whole = differential_genes(values, genes, inside)
    monkeypatch.setattr("napari_flag.statistics.markers.GENES_AT_ONCE", 4)
    pd.testing.assert_frame_equal(differential_genes(values, genes, inside), whole)


def test_regions_too_small_or_crossing_are_refused_in_one_sentence():
    values, genes = np.ones((10, 2)), ["A", "B"]
    one = np.arange(10) < 1
    with pytest.raises(UserError, match="holds 1 spot and the other 9"):
        differential_genes(values, genes, one)
    with pytest.raises(UserError, match="The regions share 3 spots"):
        differential_genes(values, genes, np.arange(10) < 5, np.arange(10) > 1)


def test_overlap_counts_shared_genes_beside_chance():
    first, second = [f"G{g}" for g in range(100)], [f"G{g}" for g in [3, 1, *range(50, 100), 0, 2]]
    found = overlap_at(first, second, 4)
    assert found == Overlap(2, 4, pytest.approx(16 / 54), ("G1", "G3"))
    assert overlap_at(first, first, 20).shared == 20
    assert overlap_at(["A"], ["B"], 20) == Overlap(0, 0, 0.0, ())


def test_overlap_of_random_rankings_is_the_chance_level():
    rng = np.random.default_rng(3)
    genes = np.array([f"G{g}" for g in range(200)])
    drawn = [overlap_at(rng.permutation(genes), rng.permutation(genes), 50).shared for _ in range(200)]
    assert np.mean(drawn) == pytest.approx(12.5, abs=0.6)
