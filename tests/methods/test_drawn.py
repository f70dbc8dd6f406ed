"""Draws of other methods: the same however they are asked for, and exact where the answer is known."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from napari_flag.methods.drawn import DrawingNetwork, DrawingPredictor, DrawnSlide, normal
from napari_flag.methods.published import Published
from napari_flag.methods.stem import NOISE_STEPS, Stem, StemSizes, kept_shares
from napari_flag.methods.stflow import LN2, StFlow, StFlowSizes, starting_noise
from napari_flag.methods.windowed import WindowSizes
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.published import SIGMA_MAX, sigma_at
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish

SIDE, WIDTH, GENES = 16, 4, ("A", "B", "C")
N = SIDE * SIDE
ROWS = np.arange(N)
MEAN, SD = 5.0, 0.7


@dataclass(frozen=True)
class Sizes:
    features: int = WIDTH
    solver_steps: int = 2
    samples: int = 8


class Normal(DrawingNetwork):
    """Draws log2(count + 1) from N(MEAN, SD²), each spot for itself or in windows of 1 mm."""

    solver = "at once"

    def __init__(self, windows=False):
        super().__init__(Sizes(), len(GENES))
        self.windows, self.place, self.drawn = windows, torch.nn.Parameter(torch.zeros(1)), []

    def see(self, features, places):
        return features

    def together(self, places):
        return places.windows(1000.0) if self.windows else None

    def sample(self, seen, rows, noise):
        yield 0.5
        self.drawn.append(len(rows))
        yield 1.0
        return MEAN + SD * normal(noise("start"), seen)


def encode(network):
    rows, columns = np.divmod(ROWS, SIDE)
    ids = tuple(f"{c}x{r}" for r, c in zip(rows, columns, strict=True))
    places = Places(np.stack([columns, rows], 1) * 200.0, 200.0, ids)
    features = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
    return DrawingPredictor(network.eval(), GENES).encode(features, build_graph(places, features))


def draw(slide, rows=ROWS, **settings):
    return finish(slide.draw(rows, [slide.places.names[r] for r in rows], SamplerSettings(**settings)))


def expect(slide, rows=ROWS):
    return finish(slide.expectation(rows, [slide.places.names[r] for r in rows]))


@pytest.fixture(params=[False, True], ids=["spots", "windows"])
def slide(request):
    return encode(Normal(request.param))


def test_draws_are_counts_and_do_not_depend_on_chunks_order_or_each_other(slide):
    together = draw(slide, draws=8, seed=3)
    counts = np.exp2(together.astype(np.float64)) - 1
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    order = np.random.default_rng(0).permutation(N)
    parts = [draw(slide, part, draws=8, seed=3) for part in np.split(order, [7, 100])]
    np.testing.assert_array_equal(np.concatenate(parts, 1), together[:, order])
    np.testing.assert_array_equal(draw(slide, first=5, seed=3)[0], together[4])
    assert (draw(slide, seed=4)[0] != together[0]).mean() > 0.5


def test_the_expectation_and_its_spread_are_those_of_draws_and_know_no_seed(slide):
    first = expect(slide)
    draw(slide, seed=9, draws=3)
    again = expect(slide, ROWS[::-1].copy())
    np.testing.assert_array_equal(again.mean[::-1], first.mean)
    np.testing.assert_array_equal(again.sd[::-1], first.sd)
    assert float(first.mean.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(np.sqrt((first.sd**2).mean())) == pytest.approx(SD, rel=0.05)


def test_a_window_is_drawn_once_however_many_chunks_ask_for_it():
    network = Normal(windows=True)
    slide = encode(network)
    for part in np.split(np.random.default_rng(0).permutation(N), 8):
        draw(slide, part)
    assert sum(network.drawn) == N


def test_a_known_depth_multiplies_the_counts(slide):
    columns = np.array([0, 2])
    deeper = slide.shifted(np.log(3.0))
    assert deeper.total(ROWS, columns) == pytest.approx(3 * slide.total(ROWS, columns), rel=1e-4)
    assert float(expect(deeper).mean.mean()) == pytest.approx(MEAN + np.log2(3), abs=0.05)


def test_the_share_done_rises_to_one(slide):
    ids = slide.places.names
    for work in (slide.expectation(ROWS, ids), slide.draw(ROWS, ids, SamplerSettings(draws=2))):
        shares = list(work)
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)


class KnownStem(Stem):
    """Stem whose network is the noise expected of N(1, 0.25) in standard units."""

    def forward(self, x, step, tile):
        kept = kept_shares()[step][:, None]
        return (1 - kept).sqrt() * (x - kept.sqrt()) / (kept * 0.25 + 1 - kept)


@pytest.mark.slow
def test_stem_samples_a_normal_distribution_exactly_when_its_noise_is_known():
    network = KnownStem(StemSizes(WIDTH, len(GENES), 8, 2, 1, 2.0, NOISE_STEPS // 2, 2))
    network.standard_genes.get_buffer("mean").fill_(4.0)
    network.standard_genes.get_buffer("spread").fill_(2.0)
    slide = encode(network)
    drawn = np.stack([finish(slide._sampled(ROWS, slide.places.names, 0, k, "")) for k in range(2)])
    assert float(drawn.mean()) == pytest.approx(4 + 2 * 1, abs=0.03)
    assert float(drawn.std()) == pytest.approx(2 * 0.5, rel=0.05)


class HalfwayStFlow(StFlow):
    """STFlow whose network says that every flow ends at half of where it is."""

    def __init__(self, config):
        super().__init__(config)
        self.times = []

    def forward(self, x, time, features, edges):
        self.times.append(time)
        return x / 2


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_stflow_follows_its_flow_by_eulers_method(steps):
    """Of dx/dt = (x/2 − x) / (1 − t), m steps from the end a step multiplies by 1 − 1 / (2m)."""
    network = HalfwayStFlow(StFlowSizes(WIDTH, len(GENES), 8, 2, 1, 0.0, 4, steps, 2))
    slide, uniform = encode(network), np.random.default_rng(0)
    numbers = {what: uniform.random((N, len(GENES))) for what in ("count", "empty")}
    start = starting_noise(*(torch.from_numpy(numbers[what]).float() for what in ("count", "empty")))
    drawn = finish(network.sample(slide.seen, ROWS, lambda what, width=None: numbers[what]))
    left = math.prod(1 - 1 / (2 * m) for m in range(1, steps + 1))
    assert start.abs().max() > 0
    torch.testing.assert_close(drawn, start * left / LN2, rtol=1e-5, atol=1e-6)
    assert network.times == pytest.approx([step / steps for step in range(steps)])


SMALL = {"width": 8, "graph_blocks": 1, "head_width": 4, "gene_hidden": 8, "tokens": 8, "heads": 2}
SMALL |= {"blocks": 1, "tap": 1, "projector": 8, "target": 8, "genes": len(GENES), "features": WIDTH}


def published(steps=60, samples=8):
    return Published(WindowSizes(WIDTH, SMALL, 1000.0, steps, samples))


@pytest.mark.slow
def test_published_flag_solves_its_equation_exactly_when_its_score_is_known():
    """It starts from noise around 0, of which SD / σ is left around the mean at the end."""
    network = published()
    network.network.score = lambda x, t, features: (MEAN - x) / (SD**2 + sigma_at(t) ** 2)
    moments = expect(encode(network))
    left = SD / np.hypot(SD, SIGMA_MAX)
    assert float(moments.mean.mean()) == pytest.approx(MEAN * (1 - left), abs=0.02)
    assert float(np.sqrt((moments.sd**2).mean())) == pytest.approx(SIGMA_MAX * left, rel=0.05)


def test_a_window_of_published_flag_does_not_see_the_others():
    torch.manual_seed(0)
    network = published(2, 2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    slide = encode(network)
    before = draw(slide)
    inside = slide.places.windows(1000.0)[0]
    features = slide.seen.features.clone()
    features[inside] += 3.0
    seen = slide.seen._replace(features=features)
    changed = (draw(DrawnSlide(network, seen, slide.places, slide.groups)) != before).any((0, 2))
    assert set(np.flatnonzero(changed)) <= set(inside)
    assert changed.any()
