"""Windows of a slide as graphs, and the padded attention against message passing over the same edges."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from flag_training.methods.tissue_windows import batches, cut_windows, geometric, padded
from napari_flag.errors import UserError
from napari_flag.methods.windowed import window_attributes
from napari_flag.model.published import PublishedConfig, PublishedGraph, fourier_features

pytest.importorskip("torch_geometric")
SIZES = {"genes": 5, "features": 8, "width": 16, "graph_blocks": 2, "head_width": 4, "gene_hidden": 0}
CONFIGS = {
    "as FLAG has it": PublishedConfig(**SIZES),
    "as the joint form has it": PublishedConfig(**SIZES, adaptive=True, edge_conditions=2),
}


@pytest.fixture(scope="module")
def graphs(cohort):
    """Windows of 3 × 3 spots and less of a slide that lacks some spots."""
    slide = cohort.slides[0]
    keep = np.delete(np.arange(36), [3, 20, 21])
    slide = replace(slide, spots=slide.spots.take(keep), expression=slide.expression[keep])
    return cut_windows(slide, cohort.features[0][0][keep], window_um=600.0, kernel_um=200.0)


def test_each_spot_is_in_the_one_window_that_its_place_says(graphs):
    assert sorted(torch.cat([graph.rows for graph in graphs]).tolist()) == list(range(33))
    assert sorted(graph.num_nodes for graph in graphs) == [8, 8, 8, 9]


def test_a_window_of_the_same_tissue_is_the_same_at_any_resolution(cohort):
    slide = cohort.slides[0]
    finer = replace(slide, mpp=slide.mpp / 2, spots=replace(slide.spots, xy=slide.spots.xy * 2))
    cut = [cut_windows(each, cohort.features[0][0], 500.0, 150.0) for each in (slide, finer)]
    for coarse, fine in zip(*cut, strict=True):
        assert coarse.rows.tolist() == fine.rows.tolist()
        torch.testing.assert_close(coarse.edge_attr, fine.edge_attr)


def test_padding_keeps_spots_and_edges_where_they_belong(graphs, cohort):
    (batch,) = batches(graphs, 4)
    windows = padded(batch)
    assert windows.present.sum(1).tolist() == [graph.num_nodes for graph in graphs]
    for number, graph in enumerate(graphs):
        n = graph.num_nodes
        torch.testing.assert_close(windows.features[number, :n], graph.x)
        torch.testing.assert_close(windows.expression[number, :n], graph.y)
        assert windows.rows[number].tolist() == graph.rows.tolist() + [-1] * (9 - n)
        xy_um = torch.tensor(cohort.slides[0].spots.xy * 0.683).float()
        kept = np.delete(np.arange(36), [3, 20, 21])[graph.rows]
        known = window_attributes(xy_um[kept], graph.x, 200.0)
        torch.testing.assert_close(windows.attributes[number, :n, :n], known)
        assert not windows.attributes[number, n:].any()
        assert int(windows.pairs[number].sum()) == n * (n - 1)


def test_batches_come_in_the_order_that_is_drawn(graphs):
    def order(seed):
        draws = torch.Generator().manual_seed(seed)
        return [batch.rows.tolist() for batch in batches(graphs, 2, draws)]

    assert order(1) == order(1)
    assert any(order(1) != order(seed) for seed in range(2, 6))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_padded_attention_is_message_passing_over_the_edges(graphs, config):
    from flag_training.methods.message_passing import MessagePassingGraph

    torch.manual_seed(0)
    ours, twin = PublishedGraph(config).double().eval(), MessagePassingGraph(config).double().eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # no layer is zero
    twin.load_state_dict(ours.state_dict())
    (batch,) = batches(graphs, 4)
    for name in ("x", "y", "edge_attr"):
        batch[name] = batch[name].double()
    windows = padded(batch)
    edges = torch.randn(4, 9, 9, dtype=torch.float64)
    time = fourier_features(torch.tensor([0.02, 0.3, 0.6, 1.0], dtype=torch.float64), 16)
    inside = windows.present[:, :, None] & windows.present[:, None]
    with torch.no_grad():
        spots, found = ours(
            windows.expression, edges, time, windows.features, windows.attributes, windows.present
        )
        spots_twin, found_twin = twin.pass_messages(batch.y, edges[inside], time, batch)
    torch.testing.assert_close(spots[windows.present], spots_twin, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[inside], found_twin, rtol=1e-6, atol=1e-6)
    assert spots_twin.std() > 0.1
    assert found_twin.std() > 0.1


def test_without_pytorch_geometric_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(UserError, match=r"napari-flag\[bench\]"):
        geometric()
