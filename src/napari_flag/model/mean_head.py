"""The mean head: the expectation of every spot, in closed form.

Two kinds of regression are averaged, because they err differently: a kernel branch in closed form, and
graph branches (`SpatialEncoder`).
"""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from napari_flag.model.config import FlagConfig
from napari_flag.model.graph import REACH, GraphTensors
from napari_flag.model.spatial_encoder import SpatialEncoder

_ROWS: Final = 4096
"""Spots per block of the kernel, so that memory stays bounded on Visium HD."""


def surroundings(features: Tensor, graph: GraphTensors) -> Tensor:
    """Return (n, 3 c): (n, c) `features`, their mean over the first ring, and over all neighbours."""
    return torch.cat([features, graph.ring_mean(features), graph.ring_mean(features, 2 * REACH)], 1)


class KernelBranch(nn.Module):
    """Gaussian-process mean on a spot's features and its rings', on landmarks (Williams & Seeger 2001).

    f(x) = Σ_j (exp(-|x - z_j|² / b) + x·z_j / l) w_j, with landmarks z, bandwidth b, length l and weights
    w in closed form.  With as many landmarks as training spots it is kernel ridge regression.  Far from
    all landmarks the first term falls to nothing; the second keeps what is linear, which is what carries
    over to another patient.
    """

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.zeros(config.landmarks, 3 * config.components))
        self.register_buffer("weights", torch.zeros(config.landmarks, config.genes))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("length", torch.ones(()))

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """Return (n, G) expected normalised expression of (n, c) normalised features."""
        seen = surroundings(features, graph)  # (n, 3 c)
        starts = range(0, len(seen), _ROWS)
        return torch.cat([self.expected(seen[start : start + _ROWS]) for start in starts])

    def expected(self, rows: Tensor) -> Tensor:
        """Return (b, G) expected normalised expression of (b, 3 c) rows of `surroundings`."""
        return self.similarity(rows) @ self.get_buffer("weights")

    def similarity(self, rows: Tensor) -> Tensor:
        """Return the (n, landmarks) kernel between (n, 3 c) `rows` and the landmarks."""
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
        out: Tensor = self.read_out(self.hidden(features, graph))
        return out

    def hidden(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """Return the (n, mean_width) encoded spots that are read out."""
        h: Tensor = self.encoder(features, graph.neighbours, graph.present, graph.distance, graph.likeness)
        return h


class MeanHead(nn.Module):
    """Kernel branch and graph branches, averaged."""

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.graph_share = config.graph_share
        self.kernel = KernelBranch(config)
        self.branches = nn.ModuleList(GraphBranch(config) for _ in range(config.members))

    def forward(self, features: Tensor, lifted: Tensor, graph: GraphTensors, novelty: Tensor) -> Tensor:
        """Return (n, G) expected normalised expression.

        The more a slide is unlike the training slides, the more weight the kernel branch gets: only what is
        linear in it is known to carry over.

        Parameters
        ----------
        features, lifted
            (n, c) normalised features, and the same with their spreads evened out (`Flag.lifted`).
        graph
            Of the same spots.
        novelty
            () how unlike the training slides this one is, 0 to 1.
        """
        return torch.cat([expected for _, expected in self.blocks(features, lifted, graph, novelty)])

    def blocks(
        self, features: Tensor, lifted: Tensor, graph: GraphTensors, novelty: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield what `forward` returns part by part: which spots, and their (b, G) values."""
        seen = surroundings(features, graph)  # (n, 3 c)
        hidden = [branch.hidden(lifted, graph) for branch in self._graph_branches]  # each (n, mean_width)
        share = self.graph_share * (1 - novelty)
        for start in range(0, len(seen), _ROWS):
            rows = slice(start, min(start + _ROWS, len(seen)))
            expected = self.kernel.expected(seen[rows])
            if hidden:
                read = zip(self._graph_branches, hidden, strict=True)
                branches = torch.stack([branch.read_out(h[rows]) for branch, h in read]).mean(0)  # (b, G)
                expected = expected + share * (branches - expected)
            yield rows, expected

    @property
    def _graph_branches(self) -> list[GraphBranch]:
        """The branches that have a share in the expectation."""
        branches = [branch for branch in self.branches if isinstance(branch, GraphBranch)]
        return branches if self.graph_share else []
