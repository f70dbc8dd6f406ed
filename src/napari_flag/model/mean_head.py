"""The mean head: the expectation of every spot, before anything is drawn.

Two kinds of regression are averaged, because they err differently: a kernel branch in closed form, and
graph branches (`SpatialEncoder`).  Both are smooth; `Sharpening` then gives every gene the spatial
roughness that it has on the training slides.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from napari_flag.model.config import FlagConfig
from napari_flag.model.graph import GraphTensors
from napari_flag.model.spatial_encoder import SpatialEncoder

_ROWS: Final = 4096
"""Spots per block of the kernel, so that memory stays bounded on Visium HD."""
_SHARPEST: Final = 1.0
"""Largest κ: beyond it the difference from the ring outweighs the gene itself."""
_STEPS: Final = 41
"""Values of κ tried, 0.025 apart."""
_FEWEST: Final = 30
"""Spots below which Moran's I is too uncertain to be aimed at; such a slide is left as it is."""
_LEAST: Final = 0.02
"""Moran's I below which a target is noise itself."""
_MOST_NOISE: Final = 4.0
"""Largest variance of added noise, in units of the gene's own variance over the slide."""


class KernelBranch(nn.Module):
    """Gaussian-process mean on own and first-ring features, on landmarks (Williams & Seeger 2001).

    f(x) = Σ_j (exp(-|x - z_j|² / b) + x·z_j / l) w_j, with landmarks z, bandwidth b, length l and weights
    w in closed form.  With as many landmarks as training spots it is kernel ridge regression.  Far from
    all landmarks the first term falls to nothing; the second keeps what is linear, which is what carries
    over to another patient.
    """

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.zeros(config.landmarks, 2 * config.components))
        self.register_buffer("weights", torch.zeros(config.landmarks, config.genes))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("length", torch.ones(()))

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """Return (n, G) expected normalised expression of (n, c) normalised features."""
        both = torch.cat([features, graph.ring_mean(features)], 1)  # (n, 2 c)
        weights = self.get_buffer("weights")
        starts = range(0, len(both), _ROWS)
        return torch.cat([self.similarity(both[i : i + _ROWS]) @ weights for i in starts])

    def similarity(self, rows: Tensor) -> Tensor:
        """Return the (n, landmarks) kernel between (n, 2 c) `rows` and the landmarks."""
        landmarks = self.get_buffer("landmarks")
        distance = torch.cdist(rows, landmarks, compute_mode="use_mm_for_euclid_dist")
        near = torch.exp(-distance.square() / self.get_buffer("bandwidth"))
        return near + rows @ landmarks.T / self.get_buffer("length")


class GraphBranch(nn.Module):
    """A spatial encoder with a linear read-out: (n, c) features → (n, G)."""

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.encoder = SpatialEncoder(
            config.components,
            config.mean_width,
            layers=config.mean_layers,
            dropout=config.mean_dropout,
        )
        self.read_out = nn.Linear(config.mean_width, config.genes)
        nn.init.normal_(self.read_out.weight, std=0.02)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """Return (n, G) expected normalised expression of (n, c) normalised features."""
        h = self.encoder(features, graph.neighbours, graph.present, graph.distance, graph.likeness)
        out: Tensor = self.read_out(h)
        return out


class MeanHead(nn.Module):
    """Kernel branch and graph branches, averaged.

    `lift` (c,) evens out the components' spreads (by half, on a log scale) for the graph branches.
    """

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.graph_share = config.graph_share
        self.kernel = KernelBranch(config)
        self.branches = nn.ModuleList(GraphBranch(config) for _ in range(config.members))
        self.register_buffer("lift", torch.ones(config.components))

    def forward(self, features: Tensor, graph: GraphTensors, novelty: Tensor) -> Tensor:
        """Return (n, G) expected normalised expression of (n, c) normalised features.

        The more a slide is unlike the training slides (() `novelty`, 0 to 1), the more weight the kernel
        branch gets: only what is linear in it is known to carry over.
        """
        expected: Tensor = self.kernel(features, graph)
        if not self.graph_share:
            return expected
        lifted = features * self.get_buffer("lift")
        branches = torch.stack([branch(lifted, graph) for branch in self.branches]).mean(0)  # (n, G)
        return expected + self.graph_share * (1 - novelty) * (branches - expected)


@dataclass(frozen=True, slots=True)
class Sharpening:
    """How rough each gene should be on a slide, as Moran's I on the first ring.

    A regression smooths genes alike, whether their measured pattern is smooth or mostly noise, so
    Moran's I of its predictions hardly tells genes apart.  Here every gene keeps its own: a gene
    expected smoother than `sharp` times its Moran's I on the training slides is passed through
    z + κ (z - mean of z over the first ring), of the same variance, with the least κ in [0, 1] that
    reaches it.  What is still smoother than `rough` times gets that much independent noise, a part of
    the measurement noise that every joint sample shares (`methods.flag.SharedNoise`).

    Parameters
    ----------
    target
        (G,) Moran's I on the training slides, by how alike they look.
    sharp, rough
        Multiples of it.
    """

    target: Tensor
    sharp: float
    rough: float

    def apply(self, expected: Tensor, graph: GraphTensors) -> tuple[Tensor, Tensor]:
        """Return the sharpened (n, G) expectation, and the (G,) variance of noise to add."""
        nothing = torch.zeros_like(self.target)
        if len(expected) < _FEWEST or not self.sharp:
            return expected, nothing
        mean = expected.mean(0)
        centred = expected - mean
        ring = graph.ring_mean(centred, nearest=True)
        factor = _factors(centred, centred - ring, ring, graph, self.sharp * self.target)
        sharpened = centred + factor * (centred - ring)
        sharpened = sharpened - sharpened.mean(0)
        sharpened = sharpened * centred.std(0) / sharpened.std(0).clamp_min(1e-9)
        if not self.rough:
            return mean + sharpened, nothing
        wanted = (self.rough * self.target).clamp_min(_LEAST)
        excess = (moran(sharpened, graph) / wanted - 1).clamp(0, _MOST_NOISE)
        return mean + sharpened, excess * sharpened.var(0)


def moran(values: Tensor, graph: GraphTensors) -> Tensor:
    """Return (G,) Moran's I of (n, G) `values` on the row-standardised first ring."""
    z = values - values.mean(0)
    lag = graph.ring_mean(z, nearest=True)
    return (z * lag).sum(0) / z.square().sum(0).clamp_min(1e-9)


def _factors(z: Tensor, edge: Tensor, ring: Tensor, graph: GraphTensors, target: Tensor) -> Tensor:
    """Return (G,) κ whose z + κ edge has Moran's I nearest to `target`."""
    edge_ring = graph.ring_mean(edge, nearest=True)
    lag = ((z * ring).sum(0), (z * edge_ring + edge * ring).sum(0), (edge * edge_ring).sum(0))
    square = (z.square().sum(0), 2 * (z * edge).sum(0), edge.square().sum(0))
    k = torch.linspace(0, _SHARPEST, _STEPS, device=z.device)[:, None]  # (steps, 1)
    value = (lag[0] + k * lag[1] + k**2 * lag[2]) / (square[0] + k * square[1] + k**2 * square[2]).clamp_min(
        1e-9
    )
    best = (value - target).abs().argmin(0)
    return k[best, 0]
