"""Local Moran's I: esda computes the same, draw by draw."""

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import kstest

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics import moran as auto
from napari_flag.statistics import neighbours
from napari_flag.statistics.local_moran import CLASSES, count_extreme, local_moran, local_values


def square(rows: int, cols: int) -> np.ndarray:
    return np.array([(r, c) for r in range(rows) for c in range(cols)])


@pytest.fixture(scope="module")
def weights() -> sparse.csr_array:
    return neighbours.array_graph(square(12, 15), "square")


def as_libpysal(weights: sparse.csr_array):
    libpysal = pytest.importorskip("libpysal")
    rows = np.split(weights.indices, weights.indptr[1:-1])
    found = libpysal.weights.W({i: list(map(int, row)) for i, row in enumerate(rows)}, silence_warnings=True)
    found.transform = "r"
    return found


def esda_of(gene: np.ndarray, weights: sparse.csr_array, permutations: int):
    esda = pytest.importorskip("esda")
    return esda.Moran_Local(gene, as_libpysal(weights), permutations=permutations, seed=7)


@pytest.mark.parametrize("place", [3, 60, 151])
def test_values_and_quadrants_are_esdas_on_a_real_section(sections, place):
    section = sections["C5"]
    weights = neighbours.array_graph(section.array, "square")
    known = esda_of(section.y[:, place], weights, permutations=0)
    found = finish(local_moran(section.y[:, place], weights, permutations=9))
    np.testing.assert_allclose(found.I, known.Is, atol=1e-6)
    connected = np.diff(weights.indptr) > 0
    np.testing.assert_array_equal(found.quadrants[connected], known.q[connected])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("place", [3, 60, 151])
def test_conditional_permutations_are_esdas_draw_by_draw(sections, place):
    """Slow for esda's compilation.  Its own p leaves ties out of the lower tail; so we count its draws."""
    section = sections["C5"]
    weights = neighbours.array_graph(section.array, "square")
    gene = section.y[:, place]
    known = esda_of(gene, weights, permutations=199)

    from esda.crand import vec_permutations

    degree = np.diff(weights.indptr)
    draws = vec_permutations(int(degree.max()), len(gene), 199, 7)
    z = gene - gene.mean()
    lag = weights @ z
    tails = [(known.sim >= known.Is - 1e-9).sum(0), (known.sim <= known.Is + 1e-9).sum(0)]
    for size in np.unique(degree[degree > 0]):
        rows = np.flatnonzero(degree == size)
        ours = count_extreme(z, weights, rows, lag[rows], draws)
        np.testing.assert_array_equal(ours, np.minimum(*tails)[rows])


def test_a_hot_corner_is_hh_a_cold_one_ll_and_noise_mostly_neither(weights):
    array = square(12, 15)
    gene = np.random.default_rng(0).normal(0, 0.3, 180)
    hot, cold = (array < 4).all(1), (array[:, 0] > 8) & (array[:, 1] > 10)
    gene[hot] += 4
    gene[cold] -= 4
    found = finish(local_moran(gene, weights))
    names = np.array(CLASSES)[found.classes]
    assert (names[(array < 3).all(1)] == "HH").all()
    assert (names[(array[:, 0] > 9) & (array[:, 1] > 11)] == "LL").all()
    elsewhere = (array[:, 0] > 4) & (array[:, 0] < 8)
    assert (names[elsewhere] != "NS").mean() < 0.15
    assert (found.certain <= (found.p <= 0.05)).all()
    assert found.certain[(array < 3).all(1)].mean() > 0.8


def test_outliers_stand_against_their_neighbours(weights):
    array = square(12, 15)
    gene = np.random.default_rng(1).normal(0, 0.1, 180)
    gene[(array[:, 0] < 6)] += 3
    low_among_high = int(np.flatnonzero((array == (2, 7)).all(1))[0])
    high_among_low = int(np.flatnonzero((array == (9, 7)).all(1))[0])
    gene[[low_among_high, high_among_low]] = 0, 3
    found = finish(local_moran(gene, weights, level=0.2))
    assert CLASSES[found.classes[low_among_high]] == "LH"
    assert CLASSES[found.classes[high_among_low]] == "HL"


@pytest.mark.slow
def test_p_values_of_noise_are_uniform(weights):
    p = [
        finish(local_moran(np.random.default_rng(k).normal(size=180), weights, seed=k, permutations=199)).p[
            90
        ]
        for k in range(200)
    ]
    assert kstest(p, "uniform").pvalue > 1e-3


def test_local_values_are_those_of_the_test_and_sum_to_moran(weights):
    gene = np.random.default_rng(3).normal(size=180)
    found = finish(local_moran(gene, weights, permutations=9))
    np.testing.assert_allclose(local_values(gene, weights), found.I)
    assert found.I.sum() / 179 == pytest.approx(auto.moran_i(gene[:, None], weights)[0])


def test_a_constant_gene_and_a_lonely_spot_are_never_significant(weights):
    flat = finish(local_moran(np.full(180, 2.7), weights))
    assert (flat.p == 1).all()
    assert (flat.I == 0).all()
    assert not flat.classes.any()
    lonely = neighbours.array_graph(np.vstack([square(6, 6), [[20, 20]]]), "square")
    found = finish(local_moran(np.arange(37.0), lonely))
    assert found.p[36] == 1
    assert found.classes[36] == 0


def test_batches_of_spots_change_nothing(weights, monkeypatch):
    gene = np.random.default_rng(4).normal(size=180)
    whole = finish(local_moran(gene, weights, permutations=99))
    monkeypatch.setattr("napari_flag.statistics.local_moran.DRAWS_AT_ONCE", 700)
    np.testing.assert_array_equal(finish(local_moran(gene, weights, permutations=99)).p, whole.p)


def test_too_few_spots_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="at least 4 spots, not 3"):
        finish(local_moran(np.ones(3), sparse.csr_array((3, 3))))
