import numpy as np
import pytest
import torch

from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors, build_graph


def tiny(**sizes):
    torch.manual_seed(0)
    config = FlagConfig(
        features=12,
        genes=7,
        slides=2,
        components=12,
        landmarks=20,
        members=2,
        mean_width=16,
        context_width=16,
        width=16,
        blocks=2,
        **sizes,
    )
    network = Flag(config).eval()
    for parameter in network.parameters():  # no layer may be silent in these tests
        torch.nn.init.normal_(parameter, std=0.1)
    network.get_buffer("axes").copy_(torch.eye(12))
    network.get_buffer("slide_moran").fill_(0.1)
    kernel = network.mean_head.kernel
    torch.nn.init.normal_(kernel.get_buffer("landmarks"))
    torch.nn.init.normal_(kernel.get_buffer("weights"))
    kernel.get_buffer("bandwidth").fill_(10.0)
    return network


@pytest.fixture(scope="module")
def slide():
    rows, columns = np.divmod(np.arange(49), 7)
    features = np.random.default_rng(1).normal(size=(49, 12)).astype(np.float32)
    return np.stack([columns, rows], 1) * 200.0, features


def encode(network, xy, features):
    graph = build_graph(xy, features, 200.0)
    with torch.inference_mode():
        return network.encode(torch.from_numpy(features), GraphTensors.of(graph))


def test_context_does_not_depend_on_the_order_of_spots(slide):
    network, (xy, features) = tiny(), slide
    order = np.random.default_rng(2).permutation(49)
    here, there = encode(network, xy, features), encode(network, xy[order], features[order])
    torch.testing.assert_close(there.spatial, here.spatial[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(there.expected, here.expected[order], atol=1e-4, rtol=1e-4)


def test_context_does_not_know_where_the_slide_lies_or_how_it_is_turned(slide):
    network, (xy, features) = tiny(), slide
    turned = encode(network, xy[:, ::-1] * [-1, 1] + 12_345, features)
    torch.testing.assert_close(turned.spatial, encode(network, xy, features).spatial, atol=1e-4, rtol=1e-4)


def test_distance_and_likeness_reach_the_context(slide):
    network, (xy, features) = tiny(), slide
    graph = GraphTensors.of(build_graph(xy, features, 200.0))
    framed = torch.from_numpy(features)
    expected = torch.zeros(49, 7)
    here = network.spatial(framed, expected, graph)
    for changed in (
        GraphTensors(graph.neighbours, graph.present, graph.distance * 1.4, graph.likeness),
        GraphTensors(graph.neighbours, graph.present, graph.distance, -graph.likeness),
    ):
        assert not torch.allclose(network.spatial(framed, expected, changed), here, atol=1e-4)


def test_slides_side_by_side_do_not_hear_each_other(slide):
    network, (xy, features) = tiny(), slide
    other = features[::-1].copy()
    both = GraphTensors.of(build_graph(xy, features, 200.0), build_graph(xy, other, 200.0))
    values = torch.from_numpy(np.concatenate([features, other]))
    alone = GraphTensors.of(build_graph(xy, features, 200.0))
    torch.testing.assert_close(
        network.spatial(values, torch.zeros(98, 7), both)[:49],
        network.spatial(values[:49], torch.zeros(49, 7), alone),
        atol=1e-5,
        rtol=1e-4,
    )


def test_an_untrained_transformer_leaves_the_gaussian_denoiser():
    torch.manual_seed(0)
    network = Flag(FlagConfig(features=12, genes=7, slides=2, members=2)).eval()
    x, sigma = torch.randn(3, 7), torch.tensor([0.1, 1.0, 9.0])
    found = network.denoise(x, sigma, torch.randn(3, 64), torch.randn(3, 7))
    torch.testing.assert_close(found, network.preconditioner.skip(x, sigma))


def test_permuting_gene_names_and_values_permutes_the_output():
    network = tiny()
    dit, order = network.gene_dit, torch.randperm(7)
    x, values, context = torch.randn(2, 7), torch.randn(2, 7), torch.randn(2, 16)
    before, _ = dit(x, torch.zeros(2), context, values)
    with torch.no_grad():
        dit.name.copy_(dit.name[order])
    after, _ = dit(x[:, order], torch.zeros(2), context, values[:, order])
    torch.testing.assert_close(after, before[:, order], atol=1e-5, rtol=1e-4)


def test_the_ring_mean_takes_first_neighbours_only(slide):
    xy, features = slide
    graph = GraphTensors.of(build_graph(xy, features, 200.0))
    means = graph.ring_mean(torch.from_numpy(features))
    ring = [24 + step for step in (-8, -7, -6, -1, 1, 6, 7, 8)]
    np.testing.assert_allclose(means[24], features[ring].mean(0), atol=1e-5)


def test_predicted_expression_is_never_negative(slide):
    network, (xy, features) = tiny(), slide
    context = encode(network, xy, features)
    rows = torch.arange(49)
    assert (context.expression(torch.full((49, 7), -100.0), rows) == 0).all()


def test_without_the_graph_the_context_does_not_change_with_the_neighbours(slide):
    network, (xy, features) = tiny(spatial_graph=False), slide
    here = encode(network, xy, features)
    apart = encode(network, xy * 50, features)
    torch.testing.assert_close(here.spatial, apart.spatial)
    torch.testing.assert_close(here.expected, apart.expected)
    seeing, moved = tiny(), np.random.default_rng(3).permutation(49)
    there = encode(seeing, xy[moved], features)
    assert not torch.allclose(encode(seeing, xy, features).spatial, there.spatial)


def test_without_diffusion_every_sample_is_the_regression(slide):
    network, (xy, features) = tiny(diffusion=False), slide
    context = encode(network, xy, features)
    noise = torch.randn(49, 7, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        drawn = [
            network.denoise(x, torch.full((49,), sigma), context.spatial, context.expected)
            for x, sigma in ((noise, 20.0), (-noise, 0.02))
        ]
    assert torch.equal(*drawn)
    assert drawn[0].std() > 0.01


def test_only_the_kernel_branch_contributes_on_a_slide_unlike_the_training_slides(slide):
    network, (xy, features) = tiny(), slide
    graph = GraphTensors.of(build_graph(xy, features, 200.0))
    raw = torch.from_numpy(features)
    with torch.inference_mode():
        kernel = network.mean_head.kernel(raw, graph)
        near, far = (network.mean_head(raw, graph, torch.tensor(x)) for x in (0.0, 1.0))
    torch.testing.assert_close(far, kernel)
    assert (near - kernel).abs().max() > 0.1
