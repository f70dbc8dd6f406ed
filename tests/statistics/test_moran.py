"""Moran's I tested: esda and squidpy compute the same where they define the same."""

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import kstest

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics import moran as auto
from napari_flag.statistics import neighbours
from napari_flag.statistics.multiple_testing import q_values


def square(rows: int, cols: int) -> np.ndarray:
    return np.array([(r, c) for r in range(rows) for c in range(cols)])


def visium(rows: int, cols: int) -> np.ndarray:
    return np.array([(r, 2 * c + r % 2) for r in range(rows) for c in range(cols)])


@pytest.mark.parametrize(("array", "lattice", "ring"), [(square, "square", 4), (visium, "hex", 6)])
def test_an_inner_spot_has_the_whole_first_ring_and_rows_sum_to_one(array, lattice, ring):
    positions = array(5, 5)
    weights = neighbours.array_graph(positions, lattice)
    assert np.diff(weights.indptr)[12] == ring
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    xy = positions[:, ::-1] * 200.0
    assert f"{ring} first-ring" in neighbours.find_neighbours(xy, positions, "none").description


def test_a_spot_alone_on_the_array_has_no_neighbours_and_is_counted():
    array = np.vstack([square(3, 3), [[9, 9]]])
    found = neighbours.find_neighbours(array[:, ::-1] * 200.0, array, "square")
    assert found.isolated == 1
    assert found.weights[[9], :].sum() == 0


def test_the_report_says_which_graph():
    array = square(4, 4)
    xy = array[:, ::-1] * 293.0
    assert neighbours.find_neighbours(xy, array, "none").description == (
        "4 first-ring neighbours on the square array"
    )
    assert neighbours.find_neighbours(xy, None, "hex").description == "6 nearest spots"
    assert neighbours.find_neighbours(xy, None, "none").description == "4 nearest spots"
    apart = neighbours.find_neighbours(xy, array * 10, "square").description
    assert apart == "4 nearest spots, because no two spots touch on the array"
    twice = array.copy()
    twice[0] = twice[1]
    assert "repeat" in neighbours.find_neighbours(xy, twice, "square").description


def test_nearest_does_not_depend_on_the_order_of_the_spots():
    xy = square(6, 7)[:, ::-1] * 200.0
    shuffled = np.random.default_rng(0).permutation(len(xy))
    graph = neighbours.nearest_graph(xy, 4).toarray()
    again = neighbours.nearest_graph(xy[shuffled], 4).toarray()
    np.testing.assert_array_equal(again, graph[np.ix_(shuffled, shuffled)])


def test_nearest_never_takes_the_spot_itself_even_where_two_spots_coincide():
    xy = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    graph = neighbours.nearest_graph(xy, 2)
    assert graph.diagonal().sum() == 0
    assert (np.diff(graph.indptr) == 2).all()


def test_fewer_spots_than_neighbours_are_all_neighbours():
    graph = neighbours.nearest_graph(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), 6)
    assert (np.diff(graph.indptr) == 2).all()


def test_moran_knows_a_checkerboard_a_gradient_and_a_constant():
    array = square(8, 8)
    values = np.column_stack(
        [np.where(array.sum(1) % 2, 1.0, -1.0), array[:, 0].astype(float), np.full(64, 3.0)]
    )
    moran = auto.moran_i(values, neighbours.array_graph(array, "square"))
    assert moran[0] == pytest.approx(-1.0)
    assert moran[1] > 0.8
    assert moran[2] == pytest.approx(-1 / 63)


def test_ssc_is_one_for_truth_zero_for_one_factor_and_unknown_for_two_genes():
    rng = np.random.default_rng(0)
    array = square(8, 8)
    weights = neighbours.array_graph(array, "square")
    mixing = rng.uniform(0, 3, (1, 12))
    moran = auto.moran_i(array[:, :1] * mixing + rng.normal(size=(64, 12)), weights)
    everyone = np.zeros(12, bool)
    assert auto.spatial_structure_correlation(moran, moran, everyone) == pytest.approx(1.0)
    factor = auto.moran_i((array[:, :1] * mixing + 0.3).astype(np.float32), weights)
    assert auto.spatial_structure_correlation(factor, moran, everyone) == 0.0
    two = np.arange(12) > 1
    assert np.isnan(auto.spatial_structure_correlation(moran, moran, two))


@pytest.mark.slow
def test_moran_agrees_with_squidpy_scanpy_and_esda_on_the_real_section(sections):
    """Same definition, three other programs; agreement to 1e-6 on every gene of C5."""
    section = sections["C5"]
    scanpy = pytest.importorskip("scanpy")
    ring = neighbours.array_graph(section.array, "square")
    ours = auto.moran_i(section.y, ring)
    theirs = scanpy.metrics.morans_i(_csr(ring), section.y.T.copy())
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    esda = pytest.importorskip("esda")
    libpysal = pytest.importorskip("libpysal")
    w = libpysal.weights.WSP(_csr(ring)).to_W(silence_warnings=True)
    for gene in (0, 57, 199):
        moran = esda.Moran(section.y[:, gene], w, transformation="r", permutations=0)
        assert pytest.approx(ours[gene], abs=1e-6) == moran.I


@pytest.mark.slow
def test_nearest_graph_and_moran_agree_with_squidpy_on_the_real_section(sections):
    squidpy = pytest.importorskip("squidpy", exc_type=ImportError)
    from anndata import AnnData

    section = sections["C5"]
    adata = AnnData(section.y.copy(), obsm={"spatial": section.xy})
    squidpy.gr.spatial_neighbors(adata, coord_type="generic", n_neighs=4, transform=None)
    squidpy.gr.spatial_autocorr(adata, mode="moran", transformation=True, show_progress_bar=False)
    theirs = adata.uns["moranI"]["I"].loc[adata.var_names].to_numpy()
    weights = neighbours.nearest_graph(section.xy, 4)
    np.testing.assert_array_equal(weights.toarray() > 0, adata.obsp["spatial_connectivities"].toarray() > 0)
    np.testing.assert_allclose(auto.moran_i(section.y, weights), theirs, atol=1e-6)


def _csr(weights):
    from scipy.sparse import csr_matrix

    return csr_matrix(weights)


@pytest.fixture(scope="module")
def weights() -> sparse.csr_array:
    return neighbours.array_graph(square(12, 15), "square")


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """Noise, smooth noise, counts with many zeros; 180 spots, 40 genes."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(180, 20))
    smooth = neighbours.array_graph(square(12, 15), "square") @ rng.normal(size=(180, 10))
    return np.concatenate([noise, smooth, np.log2(rng.poisson(0.3, (180, 10)) + 1.0)], axis=1)


def as_libpysal(weights: sparse.csr_array):
    libpysal = pytest.importorskip("libpysal")
    rows = np.split(weights.indices, weights.indptr[1:-1])
    found = libpysal.weights.W({i: list(map(int, row)) for i, row in enumerate(rows)}, silence_warnings=True)
    found.transform = "r"
    return found


def agrees_with_esda(values: np.ndarray, weights: sparse.csr_array) -> None:
    esda = pytest.importorskip("esda")
    table = finish(auto.moran_test(values, weights))
    graph = as_libpysal(weights)
    for gene in range(values.shape[1]):
        known = esda.Moran(values[:, gene], graph, permutations=0, two_tailed=False)
        row = table.iloc[gene]
        assert pytest.approx(known.I, abs=1e-9) == row.I
        assert row.expected_I == pytest.approx(known.EI)
        assert row.variance == pytest.approx(known.VI_norm, rel=1e-9)
        assert row.variance_dealt == pytest.approx(known.VI_rand, rel=1e-9)
        assert row.z == pytest.approx(known.z_norm, abs=1e-6)
        if row.z > 0:  # below, esda turns the tail; ours asks for clustering only
            assert row.p == pytest.approx(known.p_norm, abs=1e-6)
            assert row.p_dealt == pytest.approx(known.p_rand, abs=1e-6)
        else:
            assert row.p == pytest.approx(1 - known.p_norm, abs=1e-6)


def test_moments_and_p_values_are_esdas(values, weights):
    agrees_with_esda(values, weights)


def test_moments_and_p_values_are_esdas_on_a_real_section(sections):
    section = sections["C5"]
    agrees_with_esda(section.y[:, ::10], neighbours.array_graph(section.array, "square"))


def test_a_directed_graph_has_esdas_moments_too(values):
    xy = square(12, 15) + np.random.default_rng(1).normal(0, 0.2, (180, 2))
    agrees_with_esda(values[:, ::8], neighbours.nearest_graph(xy, 5))


@pytest.mark.slow
def test_squidpy_has_the_same_table_on_a_real_section(sections):
    """Slow for squidpy's import."""
    squidpy, anndata = pytest.importorskip("squidpy"), pytest.importorskip("anndata")
    section = sections["C5"]
    weights = neighbours.array_graph(section.array, "square")
    adata = anndata.AnnData(section.y)
    adata.obsp["spatial_connectivities"] = sparse.csr_matrix(weights)
    known = squidpy.gr.spatial_autocorr(adata, mode="moran", copy=True, n_jobs=1, show_progress_bar=False)
    known = known.loc[adata.var_names]
    table = finish(auto.moran_test(section.y, weights))
    np.testing.assert_allclose(table.I, known.I, atol=1e-6)
    np.testing.assert_allclose(table.variance, known.var_norm, atol=1e-6)
    np.testing.assert_allclose(table.p, known.pval_norm, atol=1e-6)
    np.testing.assert_allclose(table.q, known.pval_norm_fdr_bh, atol=1e-6)


@pytest.mark.slow
def test_squidpys_permutations_move_one_end_of_an_edge_only(weights):
    """As docs/statistics.md says: so that genes without clustering vary half as much as they should."""
    squidpy, anndata = pytest.importorskip("squidpy"), pytest.importorskip("anndata")
    gene = np.random.default_rng(2).normal(size=180)
    adata = anndata.AnnData(gene[:, None])
    adata.obsp["spatial_connectivities"] = sparse.csr_matrix(weights)
    known = squidpy.gr.spatial_autocorr(
        adata, mode="moran", copy=True, n_jobs=1, n_perms=2000, seed=0, show_progress_bar=False
    ).iloc[0]
    z = gene - gene.mean()
    one_end = (weights @ z).var() / z.var() / 179
    assert known.var_sim == pytest.approx(one_end, rel=0.1)
    ours = finish(auto.moran_test(gene[:, None], weights)).variance_dealt[0]
    assert known.var_sim < 0.7 * ours


def test_permutation_p_values_are_those_of_shuffling_by_hand(values, weights):
    table = finish(auto.moran_test(values, weights, permutations=59, seed=4))
    rng = np.random.default_rng(4)
    observed = auto.moran_i(values, weights)
    shuffled = [auto.moran_i(values[rng.permutation(180)], weights) for _ in range(59)]
    by_hand = (1 + (np.array(shuffled) >= observed - 1e-9).sum(0)) / 60
    np.testing.assert_allclose(table.p_permuted, by_hand, atol=1.01 / 60)
    assert (np.abs(table.p_permuted - by_hand) < 1e-12).mean() >= 0.95
    np.testing.assert_allclose(table.q, q_values(table.p_permuted.to_numpy()))


def test_permutations_have_the_moments_of_dealing_at_random(weights):
    """Whose variance squidpy's permutations lack: they move one end of each edge only."""
    gene = np.cumsum(np.random.default_rng(2).normal(size=180))[:, None]
    expected = finish(auto.moran_test(gene, weights)).iloc[0]
    rng = np.random.default_rng(3)
    drawn = np.array([auto.moran_i(gene[rng.permutation(180)], weights)[0] for _ in range(3000)])
    assert drawn.mean() == pytest.approx(expected.expected_I, abs=0.003)
    assert drawn.var() == pytest.approx(expected.variance_dealt, rel=0.08)


def test_p_values_without_clustering_are_uniform(weights):
    noise = np.random.default_rng(5).normal(size=(180, 600))
    table = finish(auto.moran_test(noise, weights, permutations=199))
    for p in (table.p, table.p_dealt, table.p_permuted):
        assert kstest(p, "uniform").pvalue > 1e-3
    assert (table.q <= 0.05).sum() <= 3


def test_blocks_of_genes_and_sparse_values_change_nothing(values, weights, monkeypatch):
    whole = finish(auto.moran_test(values, weights, permutations=30))
    monkeypatch.setattr(auto, "VALUES_AT_ONCE", 180 * 16)
    for given in (values, sparse.csr_matrix(values), sparse.csc_array(values)):
        parts = finish(auto.moran_test(given, weights, permutations=30))
        np.testing.assert_allclose(parts.to_numpy(), whole.to_numpy(), atol=1e-12)


def test_a_gene_in_one_spot_is_no_cluster_wherever_the_spot_lies():
    """On a ring every place is alike, so all permutations tie, whatever rounding does."""
    near = np.arange(40)
    pairs = np.concatenate([np.column_stack([near, (near + d) % 40]) for d in (1, -1)])
    ring = neighbours.row_standardise(pairs, 40)
    once = np.zeros((40, 3))
    once[[3, 17, 30], [0, 1, 2]] = (1.0, 2.585, 9.0)
    table = finish(auto.moran_test(once, ring, permutations=99))
    assert (table.p_permuted == 1.0).all()


def test_constant_genes_and_graphs_without_neighbours_say_nothing(weights):
    same = np.full((180, 2), 3.3, dtype=np.float32)
    table = finish(auto.moran_test(same, weights, permutations=9))
    np.testing.assert_allclose(table.I, -1 / 179)
    assert (table[["p", "p_dealt", "p_permuted", "q"]] == 1.0).all(axis=None)
    empty = sparse.csr_array((180, 180))
    alone = finish(auto.moran_test(np.random.default_rng(0).normal(size=(180, 2)), empty, permutations=9))
    assert alone[["I", "z", "p", "p_permuted", "q"]].isna().all(axis=None)


def test_too_few_spots_are_refused_in_one_sentence():
    graph = neighbours.row_standardise(np.array([[0, 1], [1, 0]]), 3)
    with pytest.raises(UserError, match="on 3 spots; choose at least 4"):
        finish(auto.moran_test(np.ones((3, 2)), graph))


def test_no_genes_make_an_empty_table(weights):
    table = finish(auto.moran_test(np.zeros((180, 0)), weights, permutations=3))
    assert len(table) == 0
    assert {"I", "p", "q", "p_permuted"} <= set(table.columns)


def test_it_tells_how_far_it_is_and_can_be_stopped(values, weights):
    steps = auto.moran_test(values, weights, permutations=200)
    seen = [next(steps) for _ in range(5)]
    steps.close()
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert seen[-1].total == values.shape[1]
    assert seen[-1].done > 0
