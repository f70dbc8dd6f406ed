import numpy as np
import pytest

from napari_flag.statistics import moran as auto
from napari_flag.statistics import neighbours


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
