"""Gene sets: read, scored as scanpy does, and found by the hypergeometric test."""

from itertools import combinations

import numpy as np
import pytest

from napari_flag.errors import UserError
from napari_flag.statistics.gene_sets import bundled, over_representation, read_gmt, score


def test_a_gmt_file_is_read_in_its_order(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("Early response\thttp://example.org\tTFF1\tPGR\tTFF1\n\nOther\t\tA\tB\t\n", "utf-8")
    assert read_gmt(path) == {"Early response": ("TFF1", "PGR"), "Other": ("A", "B")}


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
    with pytest.raises(UserError, match="give a GMT text file"):
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


def test_over_representation_counts_what_a_hand_would():
    universe = [f"G{g}" for g in range(20)]
    sets = {"hit": ["G0", "G1", "G2", "elsewhere"], "miss": ["G10", "G11"], "unknown": ["H1"]}
    table = over_representation(["G1", "G0", "G2", "G3", "G3", "H9"], universe, sets)
    assert list(table.set) == ["hit", "miss"]
    hit = table.iloc[0]
    assert (hit["size"], hit.overlap, hit.expected, hit.genes) == (3, 3, 12 / 20, "G1, G0, G2")
    assert hit.p == pytest.approx((4 * 3 * 2) / (20 * 19 * 18))
    assert table.iloc[1].p == 1.0
    assert hit.q == pytest.approx(2 * hit.p)


def test_over_representation_of_nothing_is_an_empty_or_certain_table():
    assert len(over_representation(["A"], ["A", "B"], {"none": ["Z"]})) == 0
    assert over_representation([], ["A", "B"], {"one": ["A"]}).p.tolist() == [1.0]
