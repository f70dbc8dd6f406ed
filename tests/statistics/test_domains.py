"""Domains of planted tissue are found, and scikit-learn and leidenalg agree on how good they are."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics import domains
from napari_flag.statistics.neighbours import Neighbours, find_neighbours

SIDE = 16


@pytest.fixture(scope="module")
def neighbours() -> Neighbours:
    array = np.array([(r, c) for r in range(SIDE) for c in range(SIDE)])
    return find_neighbours(array[:, ::-1] * 200.0, array, "square")


def planted(depth: float = 0.0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Four quarters with ten genes of their own each, 60 genes, and a depth that runs across them."""
    rng = np.random.default_rng(0)
    row, col = np.divmod(np.arange(SIDE * SIDE), SIDE)
    quarter = 2 * (row >= SIDE // 2) + (col >= SIDE // 2)
    values = rng.normal(3, noise, (len(quarter), 60))
    for q in range(4):
        values[np.ix_(quarter == q, np.arange(10 * q, 10 * q + 10))] += 1.5
    return values + depth * rng.normal(size=(len(quarter), 1)), quarter


@pytest.mark.parametrize("method", ["leiden", "k-means"])
@pytest.mark.parametrize("depth", [0.0, 3.0])
def test_planted_domains_are_found_whatever_the_depth_of_the_spots(neighbours, method, depth):
    values, quarter = planted(depth)
    chosen = domains.METHODS[method] if method == "leiden" else domains.KMeans(k=4)
    found = finish(chosen.find(values, neighbours, 0))
    assert domains.agreement(found, quarter).ari > 0.9


@pytest.mark.parametrize("method", domains.METHODS)
def test_the_same_seed_finds_the_same_domains_and_the_largest_comes_first(neighbours, method):
    values, _ = planted(noise=2.0)
    found = finish(domains.find_domains(values, neighbours, method=method, seed=3))
    again = finish(domains.find_domains(values, neighbours, method=method, seed=3))
    np.testing.assert_array_equal(found, again)
    sizes = np.bincount(found)
    assert (np.diff(sizes) <= 0).all()
    assert (sizes > 0).all()
    assert found.dtype == np.int64


@pytest.mark.parametrize("method", domains.METHODS)
def test_a_prediction_without_any_structure_still_has_an_answer(neighbours, method):
    found = finish(domains.find_domains(np.full((SIDE * SIDE, 5), 2.0), neighbours, method=method))
    assert len(found) == SIDE * SIDE


@pytest.mark.parametrize("method", domains.METHODS)
def test_noise_on_one_array_has_unrelated_domains(neighbours, method):
    """Or else prediction and truth would agree by the array they share."""
    rng = np.random.default_rng(2)
    drawn = [
        finish(domains.find_domains(rng.normal(size=(SIDE * SIDE, 100)), neighbours, method=method))
        for _ in range(8)
    ]
    pairs = [domains.agreement(first, second).ari for first, second in pairwise(drawn)]
    assert abs(np.mean(pairs)) < 0.03


def test_leiden_reaches_the_modularity_of_leidenalg(neighbours):
    igraph, leidenalg = pytest.importorskip("igraph"), pytest.importorskip("leidenalg")
    values, _ = planted(noise=1.5)
    method = domains.Leiden()
    components = finish(domains.principal_components(values))
    joint = finish(method.joint_graph(components, neighbours.weights))
    upper = sparse.triu(joint).tocoo()
    graph = igraph.Graph(joint.shape[0], list(zip(upper.row.tolist(), upper.col.tolist(), strict=True)))
    weights = upper.data.tolist()
    reference = max(
        graph.modularity(
            leidenalg.find_partition(
                graph, leidenalg.RBConfigurationVertexPartition, weights=weights, seed=seed
            ).membership,
            weights=weights,
        )
        for seed in range(10)
    )
    ours = graph.modularity(finish(method.find(values, neighbours, 0)).tolist(), weights=weights)
    assert ours >= reference - 0.005


def test_the_joint_graph_is_symmetric_and_weighs_both_parts_as_asked(neighbours):
    values, _ = planted()
    components = finish(domains.principal_components(values))
    joint = finish(domains.Leiden(share=0.25).joint_graph(components, neighbours.weights))
    assert joint.sum() == pytest.approx(1.0)
    assert abs(joint - joint.T).max() < 1e-12
    assert joint.diagonal().sum() == 0
    only_space = finish(domains.Leiden(share=1.0).joint_graph(components, neighbours.weights))
    only_space.eliminate_zeros()
    assert (only_space.nonzero()[0] == neighbours.weights.nonzero()[0]).all()


def test_components_are_those_of_the_composition(monkeypatch):
    decomposition = pytest.importorskip("sklearn.decomposition")
    values = planted(depth=2.0)[0].astype(np.float32)
    pure = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    known = decomposition.PCA(20, svd_solver="full").fit_transform(pure)
    found = finish(domains.principal_components(values))
    np.testing.assert_allclose(np.abs(found), np.abs(known), atol=1e-6)
    monkeypatch.setattr(domains, "MOST_GENES", 40)
    monkeypatch.setattr(domains, "SPOTS_AT_ONCE", 50)
    fewer = finish(domains.principal_components(np.concatenate([values, np.full((256, 9), 3.0)], axis=1)))
    assert fewer.shape == (256, 20)


def test_components_in_parts_are_those_of_the_whole_matrix(monkeypatch):
    from scipy.linalg import eigh

    values = planted(depth=2.0)[0].astype(np.float32)
    monkeypatch.setattr(domains, "MOST_GENES", 40)
    whole = values - values.mean(axis=1, dtype=np.float64, keepdims=True)
    whole = whole[:, np.sort(np.argsort(-whole.var(axis=0), kind="stable")[:40])]
    whole -= whole.mean(axis=0)
    known = whole @ eigh(whole.T @ whole)[1][:, :-21:-1]
    for at_once in (7, 500):
        monkeypatch.setattr(domains, "SPOTS_AT_ONCE", at_once)
        found = finish(domains.principal_components(values))
        np.testing.assert_allclose(np.abs(found), np.abs(known), atol=1e-9)


def test_values_are_read_in_parts_and_never_whole(monkeypatch):
    monkeypatch.setattr(domains, "SPOTS_AT_ONCE", 30)
    values = planted()[0]

    class Read:
        shape = values.shape

        def __getitem__(self, spots):
            assert 0 < spots.stop - spots.start <= 30
            return values[spots]

    np.testing.assert_array_equal(
        finish(domains.principal_components(Read())), finish(domains.principal_components(values))
    )


@pytest.mark.parametrize("method", domains.METHODS)
def test_domains_of_many_spots_are_learned_on_a_draw_and_reach_all_of_them(neighbours, method, monkeypatch):
    values, quarter = planted()
    chosen = domains.METHODS[method] if method == "leiden" else domains.KMeans(k=4)
    monkeypatch.setattr(domains, "MOST_SPOTS", 100)
    found = finish(chosen.find(values, neighbours, 0))
    np.testing.assert_array_equal(found, finish(chosen.find(values, neighbours, 0)))
    assert domains.agreement(found, quarter).ari > 0.9
    assert (np.diff(np.bincount(found)) <= 0).all()


def test_spots_drawn_are_neighbours_where_those_around_them_touch():
    line = np.array([(0, c) for c in range(9)])
    weights = find_neighbours(line[:, ::-1] * 1.0, line, "square").weights
    among = domains.neighbours_among(weights, np.array([0, 4, 8]))
    assert (among.toarray() > 0).tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    apart = sparse.csr_array((9, 9))
    assert domains.neighbours_among(apart, np.array([0, 4, 8])).nnz == 0


def test_the_smallest_of_each_row_are_found_in_blocks():
    values = np.random.default_rng(0).normal(size=(20, 3000))
    for width in (3000, 2950, 700):
        found = np.sort(domains.smallest(values[:, :width], 15), axis=1)
        np.testing.assert_array_equal(found, np.sort(np.argsort(values[:, :width], axis=1)[:, :15], axis=1))


def test_agreement_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, rng.integers(1, 8), 90), rng.integers(0, rng.integers(1, 8), 90)
        b[:40] = a[:40]
        found = domains.agreement(a, b)
        assert found.ari == pytest.approx(metrics.adjusted_rand_score(a, b), abs=1e-12)
        assert found.nmi == pytest.approx(metrics.normalized_mutual_info_score(a, b), abs=1e-12)


def test_agreement_takes_names_and_knows_the_same_and_chance():
    labels = np.array(["tumour", "fat", "tumour", "stroma"] * 30)
    assert domains.agreement(labels, labels) == domains.Agreement(1.0, 1.0)
    rng = np.random.default_rng(1)
    dealt = [domains.agreement(labels, rng.permutation(labels)).ari for _ in range(50)]
    assert abs(np.mean(dealt)) < 0.02


def test_relabelled_domains_take_the_numbers_of_what_they_overlap():
    truth = np.array([0] * 10 + [1] * 8 + [2] * 5)
    shuffled = np.array([2] * 10 + [0] * 8 + [1] * 4 + [3])
    np.testing.assert_array_equal(
        domains.relabel(shuffled, truth), np.array([0] * 10 + [1] * 8 + [2] * 4 + [3])
    )


def test_too_few_spots_are_refused_in_one_sentence(neighbours):
    with pytest.raises(UserError, match="in 9 spots; choose at least 10"):
        finish(domains.find_domains(np.ones((9, 4)), neighbours))


@pytest.mark.slow
def test_two_methods_agree_beyond_chance_on_a_real_section(sections):
    section = sections["C5"]
    neighbours = find_neighbours(section.xy, section.array, "square")
    first = finish(domains.find_domains(section.y, neighbours, method="leiden"))
    second = finish(domains.find_domains(section.y, neighbours, method="k-means"))
    assert domains.agreement(first, second).ari > 0.2
