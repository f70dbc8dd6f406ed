import tracemalloc

import numpy as np
import torch

from napari_flag import scratch
from napari_flag.model import graph as graph_module
from napari_flag.model.graph import NEIGHBOURS, GraphTensors, Places, build_graph


def square(side=8, pitch=200.0):
    rows, columns = np.divmod(np.arange(side * side), side)
    xy = np.stack([columns, rows], 1) * pitch
    return xy, np.random.default_rng(0).normal(size=(len(xy), 6)).astype(np.float32)


def test_an_inner_spot_of_a_square_array_hears_two_rings():
    xy, features = square()
    graph = build_graph(Places(xy, 200.0), features)
    inner = 3 * 8 + 3
    lengths = np.sort(graph.distance[inner][graph.present[inner]])
    np.testing.assert_allclose(lengths, [1] * 4 + [2**0.5] * 4 + [2] * 4, rtol=1e-6)
    assert inner not in graph.neighbours[inner][graph.present[inner]]


def test_a_lone_spot_has_no_neighbours_and_does_not_fail():
    xy, features = square(2)
    graph = build_graph(
        Places(np.vstack([xy, [[9000.0, 9000.0]]]), 200.0), np.vstack([features, features[:1]])
    )
    assert not graph.present[-1].any()
    assert (graph.neighbours[-1] == 4).all()


def test_fewer_spots_than_neighbours_are_padded():
    xy, features = square(2)
    graph = build_graph(Places(xy, 200.0), features)
    assert graph.neighbours.shape == (4, NEIGHBOURS)
    assert graph.present.sum(1).tolist() == [3, 3, 3, 3]


def test_the_graph_does_not_change_when_the_slide_is_turned_or_moved():
    xy, features = square()
    turned = build_graph(Places(xy[:, ::-1] * [1, -1] + 1e4, 200.0), features)
    graph = build_graph(Places(xy, 200.0), features)
    for row in range(len(xy)):
        assert set(turned.neighbours[row]) == set(graph.neighbours[row])


def test_likeness_is_the_cosine_of_standardised_features():
    xy, features = square(4)
    graph = build_graph(Places(xy, 200.0), features)
    framed = (features - features.mean(0)) / features.std(0)
    i, j = 5, graph.neighbours[5, 0]
    cosine = framed[i] @ framed[j] / np.linalg.norm(framed[i]) / np.linalg.norm(framed[j])
    np.testing.assert_allclose(graph.likeness[5, 0], cosine, rtol=1e-4)


def test_a_ring_mean_is_that_of_the_neighbours_within_it_and_a_lone_spots_is_its_own():
    xy, features = square()
    xy[-1] = 1e5
    graph = GraphTensors.of(build_graph(Places(xy, 200.0), features))
    means = graph.ring_mean(torch.from_numpy(features))
    inner = 3 * 8 + 3
    ring = [inner + step for step in (-9, -8, -7, -1, 1, 7, 8, 9)]
    np.testing.assert_allclose(means[inner], features[ring].mean(0), atol=1e-6)
    np.testing.assert_array_equal(means[-1], features[-1])


def test_spots_without_names_are_named_by_their_rows():
    xy, _ = square(2)
    assert Places(xy, 200.0).names == ("0", "1", "2", "3")
    assert Places(xy, 200.0, ("a", "b", "c", "d")).names == ("a", "b", "c", "d")


def test_a_hexagonal_array_becomes_a_dense_grid_from_zero():
    rows, columns = np.divmod(np.arange(36), 6)
    array = np.stack([rows + 6, 2 * columns + rows % 2 + 6], 1)
    places = Places(np.zeros((36, 2)), 100.0, array=array, lattice="hex")
    np.testing.assert_array_equal(places.grid, np.stack([rows, columns], 1))


def test_without_an_array_the_place_on_the_glass_gives_the_grid():
    rows, columns = np.divmod(np.arange(36), 6)
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, (36, 2))
    places = Places((np.stack([columns, rows], 1) + 3 + jitter) * 200.0, 200.0)
    np.testing.assert_array_equal(places.grid, np.stack([rows, columns], 1))


def test_windows_are_squares_from_the_corner_and_hold_every_spot_once():
    xy = np.array([[10.0, 10.0], [990.0, 990.0], [1000.0, 10.0], [10.0, 2500.0], [500.0, 500.0]])
    windows = [window.tolist() for window in Places(xy, 200.0).windows(1000.0)]
    assert sorted(windows) == [[0, 1, 4], [2], [3]]


def test_likeness_is_that_of_standardised_features_in_memory_bounded_by_its_parts(monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(scratch, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(graph_module, "_ROWS", 100)
    random = np.random.default_rng(0)
    features = random.normal(3, 2, (3000, 300)).astype(np.float32)
    neighbours = random.integers(0, 3000, (3000, 2))
    tracemalloc.start()
    found = graph_module.likeness(features, neighbours, np.ones(neighbours.shape, bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    exact = features.astype(np.float64)
    exact = (exact - exact.mean(0)) / (exact.std(0) + 1e-6)
    exact /= np.linalg.norm(exact, axis=1)[:, None]
    wanted = np.einsum("nd,nkd->nk", exact, exact[neighbours])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert peak < features.nbytes
