import numpy as np
import torch

from napari_flag.model.graph import NEIGHBOURS, GraphTensors, build_graph


def square(side=8, pitch=200.0):
    rows, columns = np.divmod(np.arange(side * side), side)
    xy = np.stack([columns, rows], 1) * pitch
    return xy, np.random.default_rng(0).normal(size=(len(xy), 6)).astype(np.float32)


def test_an_inner_spot_of_a_square_array_hears_two_rings():
    xy, features = square()
    graph = build_graph(xy, features, 200.0)
    inner = 3 * 8 + 3
    lengths = np.sort(graph.distance[inner][graph.present[inner]])
    np.testing.assert_allclose(lengths, [1] * 4 + [2**0.5] * 4 + [2] * 4, rtol=1e-6)
    assert inner not in graph.neighbours[inner][graph.present[inner]]


def test_a_lone_spot_has_no_neighbours_and_does_not_fail():
    xy, features = square(2)
    graph = build_graph(np.vstack([xy, [[9000.0, 9000.0]]]), np.vstack([features, features[:1]]), 200.0)
    assert not graph.present[-1].any()
    assert (graph.neighbours[-1] == 4).all()


def test_fewer_spots_than_neighbours_are_padded():
    xy, features = square(2)
    graph = build_graph(xy, features, 200.0)
    assert graph.neighbours.shape == (4, NEIGHBOURS)
    assert graph.present.sum(1).tolist() == [3, 3, 3, 3]


def test_the_graph_does_not_change_when_the_slide_is_turned_or_moved():
    xy, features = square()
    turned = build_graph(xy[:, ::-1] * [1, -1] + 1e4, features, 200.0)
    graph = build_graph(xy, features, 200.0)
    for row in range(len(xy)):
        assert set(turned.neighbours[row]) == set(graph.neighbours[row])


def test_likeness_is_the_cosine_of_standardised_features():
    xy, features = square(4)
    graph = build_graph(xy, features, 200.0)
    framed = (features - features.mean(0)) / features.std(0)
    i, j = 5, graph.neighbours[5, 0]
    cosine = framed[i] @ framed[j] / np.linalg.norm(framed[i]) / np.linalg.norm(framed[j])
    np.testing.assert_allclose(graph.likeness[5, 0], cosine, rtol=1e-4)


def test_a_ring_mean_is_that_of_the_neighbours_within_it_and_a_lone_spots_is_its_own():
    xy, features = square()
    xy[-1] = 1e5
    graph = GraphTensors.of(build_graph(xy, features, 200.0))
    means = graph.ring_mean(torch.from_numpy(features))
    inner = 3 * 8 + 3
    ring = [inner + step for step in (-9, -8, -7, -1, 1, 7, 8, 9)]
    np.testing.assert_allclose(means[inner], features[ring].mean(0), atol=1e-6)
    np.testing.assert_array_equal(means[-1], features[-1])
