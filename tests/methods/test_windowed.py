"""Diffusion over tissue windows: its scales, its sampler where the answer is known, and its weights files."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch

from napari_flag.errors import UserError
from napari_flag.methods.drawn import DrawingPredictor
from napari_flag.methods.predictor import open_method
from napari_flag.methods.published import Published
from napari_flag.methods.windowed import Joint, NodeOnly, Scale, WindowSizes, window_attributes
from napari_flag.model.checkpoint import Checkpoint, save_checkpoint
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.published import SIGMA_MAX, T_MIN, PublishedConfig, sigma_at
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish

GENES = ("A", "B", "C", "D", "E")
FEATURES = 6
GRAPH = PublishedConfig(len(GENES), FEATURES, 8, 1, 4, adaptive=True, edge_conditions=2, gene_hidden=0)
FLAG = PublishedConfig(
    len(GENES), FEATURES, 8, 1, 4, gene_hidden=8, tokens=8, heads=2, blocks=1, tap=1, projector=8, target=1
)
NETWORKS = {"node_only": (NodeOnly, GRAPH), "joint": (Joint, GRAPH), "published": (Published, FLAG)}


def sizes(config, **values):
    given = {"window_um": 600.0, "solver_steps": 3, "samples": 2, "kernel_um": 200.0, "scaled": True}
    return WindowSizes(FEATURES, asdict(config), **given | values)


def places(side=6, pitch=200.0, corner=0.0):
    rows, columns = np.divmod(np.arange(side * side), side)
    ids = tuple(f"{column}x{row}" for row, column in zip(rows, columns, strict=True))
    return Places(np.stack([columns, rows], 1) * pitch + corner, pitch, ids)


def encoded(network, where):
    features = np.random.default_rng(0).normal(3, 2, (len(where), FEATURES)).astype(np.float32)
    return DrawingPredictor(network.eval(), GENES).encode(features, build_graph(where, features))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sampler_is_exact_where_the_score_is_gaussian(name):
    """Spots and edges of known means and spreads: the flow of noise to them has a closed form."""
    kind, config = NETWORKS[name]
    mean, spread = torch.linspace(1, 5, 5), torch.linspace(0.5, 2, 5)
    edge_mean, edge_spread = 0.3, torch.tensor(0.2)
    settled, noise = [], {}

    class Gaussian(kind):
        def scores(self, state, t, windows):
            variance = sigma_at(t).square()[:, None, None]
            spots = -(state[0] - mean) / (spread**2 + variance)
            return (spots, *(-(edges - edge_mean) / (edge_spread**2 + variance) for edges in state[1:]))

        def settle(self, state):
            settled.append(super().settle(state))
            return settled[-1]

        def start(self, uniform, window):
            noise["start"] = super().start(uniform, window)
            return noise["start"]

    slide = encoded(Gaussian(sizes(config, solver_steps=400)), places(3))
    (rows,) = slide.groups
    found = finish(slide._sampled(rows, slide.places.names, 0, 0, ""))

    def exact(start, mean, spread):
        end = sigma_at(torch.tensor(T_MIN)) ** 2
        left = ((spread**2 + end) / (spread**2 + SIGMA_MAX**2)) ** 0.5
        return mean + (start - mean) * left * spread**2 / (spread**2 + end)

    start = noise["start"]
    assert start[0].std().item() == pytest.approx(SIGMA_MAX, rel=0.3)
    np.testing.assert_allclose(found, exact(start[0][0], mean, spread), rtol=2e-3, atol=2e-3)
    if name == "joint":
        off = ~torch.eye(9, dtype=torch.bool)
        drawn = settled[-1][1][0]
        torch.testing.assert_close(start[1], start[1].transpose(1, 2))
        expected = exact(start[1][0], edge_mean, edge_spread)
        torch.testing.assert_close(drawn[off], expected[off], rtol=2e-3, atol=2e-3)
        assert not drawn[~off].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_scaled_draws_of_a_known_gaussian_have_its_mean(name):
    """Noise around 0 instead, as published, would leave a tenth of the mean out here (spread / σ_max)."""
    kind, config = NETWORKS[name]
    mean, spread, edge_mean = torch.linspace(1, 5, 5), torch.tensor(1.0), torch.tensor(4.0)

    class Gaussian(kind):
        def scores(self, state, t, windows):
            sigma = sigma_at(t)
            spots = self.spots.score(torch.zeros_like(state[0]), state[0], sigma)
            edges = [self.edges.score(torch.zeros_like(each), each, sigma) for each in state[1:]]
            return (spots, *edges)

        def settle(self, state):
            self.kept = super().settle(state)
            return self.kept

    network = Gaussian(sizes(config, solver_steps=60, scaled=True))
    network.spots.measure(mean, spread)
    if name == "joint":
        network.edges.measure(edge_mean, spread)
    slide = encoded(network, places())
    (rows, *_) = slide.groups
    drawn = [finish(slide._sampled(rows, slide.places.names, 0, draw, "")) for draw in range(30)]
    np.testing.assert_allclose(np.mean(drawn, (0, 1)), mean, atol=0.15)
    if name == "joint":
        edges = network.kept[1][0]
        off = ~torch.eye(len(edges), dtype=torch.bool)
        assert float(edges[off].mean()) == pytest.approx(float(edge_mean), abs=0.15)


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "as published"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_weights_file_is_opened_and_draws_the_same(name, scaled, tmp_path):
    kind, config = NETWORKS[name]
    torch.manual_seed(1)
    network = kind(sizes(config, scaled=scaled))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if scaled:
        network.standard.measure(np.random.default_rng(1).normal(3, 2, (50, FEATURES)).astype(np.float32))
        network.spots.measure(torch.linspace(1, 3, 5), torch.tensor(1.2))
    path = tmp_path / "weights.safetensors"
    card = {"encoder": {"fingerprint": "f"}}
    save_checkpoint(path, network, {}, encoder="uni", genes=GENES, card=card, method=name)
    opened = open_method(Checkpoint.load(path))
    assert (opened.genes, opened.sampler.name, opened.sampler.steps) == (GENES, "heun", 3)
    ours = encoded(network, places())
    theirs = encoded(opened.network, places())
    rows, settings = np.arange(36), SamplerSettings(draws=2, steps=3)
    drawn = [finish(each.draw(rows, each.places.names, settings)) for each in (ours, theirs)]
    np.testing.assert_array_equal(*drawn)
    assert (drawn[0][0] != drawn[0][1]).any()


@pytest.mark.slow
def test_prediction_knows_nothing_of_pytorch_geometric():
    names = "windowed, napari_flag.methods.published"
    code = f"import napari_flag.methods.{names}, sys; assert 'torch_geometric' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_window_is_the_same_wherever_on_the_slide_it_is():
    near, far = (torch.from_numpy(places(5, 100.0, corner).xy_um) for corner in (0.0, 3e5))
    features = torch.randn(25, FEATURES)
    torch.testing.assert_close(
        window_attributes(near, features, 150.0), window_attributes(far, features, 150.0), rtol=0, atol=1e-6
    )


def test_windows_of_more_spots_than_memory_holds_are_refused_before_anything_is_drawn():
    rng = np.random.default_rng(0)
    dense = Places(rng.uniform(0, 900.0, (300_000, 2)), 2.0)
    with pytest.raises(UserError, match="up to 300,000 spots, which needs about"):
        NodeOnly(sizes(GRAPH, window_um=1000.0)).together(dense)


def test_a_scaled_network_that_answers_nothing_gives_the_score_of_a_gaussian():
    mean, spread, sigma = torch.linspace(1, 3, 5), torch.tensor(1.5), torch.tensor([0.02, 8.0])
    x = mean + torch.randn(2, 50, 5) * (spread**2 + sigma[:, None, None] ** 2).sqrt()
    scale = Scale(True, 5)
    scale.measure(mean, spread)
    assert scale.into(x, sigma).std((1, 2)).tolist() == pytest.approx([1, 1], abs=0.2)
    score = scale.score(torch.zeros_like(x), x, sigma)
    torch.testing.assert_close(score, -(x - mean) / (spread**2 + sigma[:, None, None] ** 2))


def test_as_published_nothing_is_scaled():
    plain, x, sigma = Scale(False, 5), torch.randn(2, 3, 5), torch.tensor([0.1, 9.0])
    assert plain.into(x, sigma) is x
    assert plain.score(x, x, sigma) is x
    assert plain.weight(sigma).tolist() == [1, 1]
    assert not plain.state_dict()
