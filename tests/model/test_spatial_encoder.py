"""What H_spatial may depend on, with either attention."""

import numpy as np
import pytest
import torch

from napari_flag.model.graph import GraphTensors, Places, build_graph
from napari_flag.model.spatial_encoder import ATTENTIONS, SpatialEncoder

N, WIDTH = 49, 8


@pytest.fixture(scope="module")
def features():
    return torch.randn(N, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def graph(features):
    return graph_of(features)


def graph_of(*features):
    rows, columns = np.divmod(np.arange(N), 7)
    xy = np.stack([columns, rows], 1) * 200.0
    return GraphTensors.of(*(build_graph(Places(xy, 200.0), each.numpy()) for each in features))


@pytest.fixture(params=sorted(ATTENTIONS))
def encoder(request):
    return make_encoder(request.param)


def make_encoder(attention, layers=2):
    torch.manual_seed(0)
    encoder = SpatialEncoder(6, WIDTH, heads=2, layers=layers, attention=attention).eval()
    for parameter in encoder.parameters():  # no layer may be silent in these tests
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder


def encoded(encoder, features, graph):
    with torch.no_grad():
        return encoder(features, graph.neighbours, graph.present, graph.distance, graph.likeness)


def columns(graph, order):
    return GraphTensors(*(each[:, order] for each in parts(graph)))


def parts(graph):
    return graph.neighbours, graph.present, graph.distance, graph.likeness


def test_the_order_of_neighbours_changes_nothing(encoder, features, graph):
    order = torch.randperm(graph.neighbours.shape[1], generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        encoded(encoder, features, columns(graph, order)), encoded(encoder, features, graph)
    )


def test_padding_changes_nothing(encoder, features, graph):
    wider = GraphTensors(
        torch.cat([graph.neighbours, torch.randint(0, N, (N, 5))], 1),
        torch.cat([graph.present, torch.zeros(N, 5, dtype=torch.bool)], 1),
        torch.cat([graph.distance, torch.rand(N, 5)], 1),
        torch.cat([graph.likeness, torch.rand(N, 5)], 1),
    )
    torch.testing.assert_close(encoded(encoder, features, wider), encoded(encoder, features, graph))


def test_a_neighbour_that_is_cut_is_no_longer_heard(encoder, features, graph):
    here = encoded(encoder, features, graph.without_edges())
    other = features.clone()
    other[1:] += 1
    torch.testing.assert_close(encoded(encoder, other, graph.without_edges())[0], here[0])
    assert not torch.allclose(encoded(encoder, other, graph)[0], here[0], atol=0.01)


@pytest.mark.parametrize("attribute", ["distance", "likeness"])
def test_what_edges_say_reaches_the_spots(encoder, features, graph, attribute):
    stated = dict(zip(("neighbours", "present", "distance", "likeness"), parts(graph), strict=True))
    stated[attribute] = 0.5 * stated[attribute] + 0.3
    here, there = (encoded(encoder, features, each) for each in (graph, GraphTensors(**stated)))
    assert (here - there).abs().max() > 0.01


def test_slides_side_by_side_do_not_hear_each_other(encoder, features, graph):
    other = features.flip(0)
    both = encoded(encoder, torch.cat([features, other]), graph_of(features, other))
    torch.testing.assert_close(both[:N], encoded(encoder, features, graph), atol=1e-5, rtol=1e-4)


def test_edges_count_for_nothing_before_training_and_for_something_after_a_few_steps(features, graph):
    torch.manual_seed(0)
    encoder = SpatialEncoder(6, WIDTH, heads=2, layers=2, dropout=0, attention="channels")
    longer = GraphTensors(graph.neighbours, graph.present, 1.4 * graph.distance, graph.likeness)

    def moved():
        return (encoded(encoder, features, graph) - encoded(encoder, features, longer)).abs().max()

    assert moved() == 0
    optimiser = torch.optim.Adam(encoder.parameters(), lr=0.05)
    for _ in range(3):
        loss = (encoder(features, *parts(graph)) - torch.ones(WIDTH)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert moved() > 1e-3


def test_channels_weigh_neighbours_each_by_itself(features, graph):
    """With one head all channels of a value are weighed alike by heads, and not by channels."""
    weighed = {}
    for attention in ATTENTIONS:
        torch.manual_seed(0)
        block = ATTENTIONS[attention](WIDTH, 1, 16, 0.0, last=True).eval()
        with torch.no_grad():
            torch.nn.init.normal_(block.query.weight, std=2.0)
            torch.nn.init.eye_(block.out.weight)
            block.key_value.weight[WIDTH:] = 1.0  # every channel of every value is the same
            block.key_value.bias[WIDTH:] = 0.0
            block.feed_forward[-1].weight.zero_()
            block.out.bias.zero_()
            block.feed_forward[-1].bias.zero_()
            h = torch.randn(N, WIDTH)
            block.norm = torch.nn.Identity()
            edges = torch.zeros(*graph.neighbours.shape, 16)
            out, _ = block(h, graph.neighbours, graph.present, edges)
        weighed[attention] = (out - h)[24]
    assert weighed["heads"].std() < 1e-5
    assert weighed["channels"].std() > 0.1


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
@pytest.mark.parametrize("layers", [1, 2])
def test_every_parameter_learns(features, graph, attention, layers):
    """As training in several processes needs."""
    encoder = make_encoder(attention, layers)
    (encoder(features, *parts(graph)) * torch.arange(WIDTH)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_gathering_neighbours_in_blocks_changes_nothing(features, graph, encoder, monkeypatch):
    whole = encoder(features, *parts(graph)).detach()  # gradients are asked for: in one block
    monkeypatch.setattr("napari_flag.model.spatial_encoder._ROWS", 10)
    with torch.no_grad():
        blocks = encoder(features, *parts(graph))
    torch.testing.assert_close(blocks, whole, atol=1e-6, rtol=1e-6)
