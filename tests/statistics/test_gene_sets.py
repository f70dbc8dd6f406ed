"""Gene sets: read, and scored as scanpy does."""

from itertools import combinations

import numpy as np
import pytest

from napari_flag.errors import UserError
from napari_flag.statistics.gene_sets import bundled, read_gmt, score


def test_a_gmt_file_is_read_in_its_order(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("Early response\thttp://example.org\tTFF1\tPGR\tTFF1\n\nOther\t\tA\tB\t\n", "utf-8")
    assert read_gmt(path) == {"Early response": ("TFF1", "PGR"), "Other": ("A", "B")}


def test_lines_end_at_line_ends_alone(tmp_path):
    (tmp_path / "s.gmt").write_bytes("A\tx\tESR1\r\nB\tx\tTP\x1c53\rC\tx\tKI\u202867\n".encode())
    assert read_gmt(tmp_path / "s.gmt") == {"A": ("ESR1",), "B": ("TP\x1c53",), "C": ("KI\u202867",)}


def test_lines_that_start_with_a_hash_are_comments(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("# made by hand\twith a tab\nOne\t\tA\tB\n", "utf-8")
    assert read_gmt(path) == {"One": ("A", "B")}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("A,B,C\n", "Line 1 of sets.gmt is no gene set"),
        ("A\tx\tG1\nB\tx\n", "Line 2 of sets.gmt is no gene set"),
        ("A\tx\tG1\nA\tx\tG2\n", "names the set A twice"),
        ("\n\n", "holds no gene set"),
    ],
)
def test_a_file_that_is_no_gmt_is_refused_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "sets.gmt"
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=sentence):
        read_gmt(path)


def test_a_missing_or_binary_file_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_gmt(tmp_path / "none.gmt")
    (tmp_path / "picture.gmt").write_bytes(b"\xff\xfe\x00\x99")
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_gmt(tmp_path / "picture.gmt")


def test_bundled_sets_are_small_named_by_us_and_symbols():
    sets = bundled()
    assert len(sets) >= 12
    assert "ERBB2" in sets["HER2 amplicon (17q12)"]
    for name, members in sets.items():
        assert 10 <= len(members) <= 40, name
        assert all(gene == gene.strip().upper() for gene in members), name
    for first, second in combinations(sets, 2):
        smaller = min(len(sets[first]), len(sets[second]))
        assert len(set(sets[first]) & set(sets[second])) < smaller / 2, (first, second)


@pytest.mark.slow
def test_scores_are_scanpys_with_every_other_gene_as_control(sections):
    scanpy, anndata = pytest.importorskip("scanpy"), pytest.importorskip("anndata")
    values = sections["C5"].y
    genes = [f"G{g}" for g in range(values.shape[1])]
    adata = anndata.AnnData(values)
    adata.var_names = genes
    for members in (["G3", "G17", "G90", "not here"], genes[10:40]):
        scanpy.tl.score_genes(adata, [g for g in members if g in genes], ctrl_size=10**6)
        np.testing.assert_allclose(score(values, genes, members), adata.obs["score"], atol=1e-6)


def test_a_score_is_high_where_the_set_is():
    rng = np.random.default_rng(0)
    values, genes = rng.normal(3, 0.2, (50, 100)), [f"G{g}" for g in range(100)]
    values[:20, :8] += 2
    found = score(values, genes, genes[:8])
    assert found[:20].min() > found[20:].max()


def test_a_set_that_is_not_there_or_is_everything_is_refused_in_one_sentence():
    values = np.random.default_rng(0).normal(size=(5, 4))
    with pytest.raises(UserError, match=r"None of the set's 2 genes \(such as X\)"):
        score(values, ["A", "B", "C", "D"], ["X", "Y"])
    with pytest.raises(UserError, match="nothing to hold the set"):
        score(values, ["A", "B", "C", "D"], ["A", "B", "C", "D"])
