"""STFlow (Huang et al. 2025): flow matching over all spots of a slide at once.

Facts are those of public ports of its training code; the authors' repository holds a description only.
Starts from zero-inflated negative binomial noise, predicts the end of the flow, and attends over the nearest
spots with edges that no turn or mirroring of the slide changes.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from napari_flag.methods.blocks import Standard, sinusoid, small_read_out
from napari_flag.methods.drawn import DrawingNetwork, Noise, Rows
from napari_flag.model.graph import Places

LN2: Final = float(np.log(2.0))
"""log2(count + 1) · ln 2 = log(count + 1), in which the noise is defined."""
_TIME: Final = 256
_RATE: Final = float(np.exp(0.1))
"""Mean count of the noise: its logit is 0.1, its total count 1."""
_EMPTY: Final = 0.5
"""Share of it that is zero whatever the count."""


@dataclass(frozen=True, slots=True)
class StFlowSizes:
    """Sizes of STFlow.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    width, heads, layers, dropout
        Of the denoiser.
    neighbours
        Nearest spots attended to.
    solver_steps, samples
        Euler steps; draws averaged for X.
    """

    features: int
    genes: int
    width: int
    heads: int
    layers: int
    dropout: float
    neighbours: int
    solver_steps: int
    samples: int


@dataclass(frozen=True, slots=True)
class Edges:
    """(n, k) nearest spots, and (n, k, 4, 3): offset in each of the 4 principal frames, distance."""

    near: Tensor
    frames: Tensor

    @classmethod
    def of(cls, places: Places, k: int, device: torch.device | str = "cpu") -> "Edges":
        """Join each spot with its `k` nearest."""
        place = places.xy_um / places.pitch_um
        near = cKDTree(place).query(place, min(k + 1, len(place)))[1].reshape(len(place), -1)[:, 1:]
        offset = place[near] - place[:, None]
        away = place - place.mean(0)
        axes = np.linalg.eigh(away.T @ away)[1][:, ::-1]  # the longest first
        signs = np.array([(a, b) for a in (1, -1) for b in (1, -1)])
        turned = (offset @ axes)[:, :, None] * signs
        length = np.linalg.norm(offset, axis=2)[:, :, None, None].repeat(4, 2)
        frames = np.concatenate([turned, length], 3).astype(np.float32)
        return cls(torch.from_numpy(near).to(device), torch.from_numpy(frames).to(device))


class _Layer(nn.Module):
    """Attention over the nearest spots whose logits also see edges and genes, then a feed-forward net."""

    def __init__(self, config: StFlowSizes) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norm, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.edge = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.gene = nn.Linear(config.genes, width, bias=False)
        self.logit = nn.Sequential(nn.Linear(4 * width, width), nn.SiLU(), nn.Linear(width, config.heads))
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.gated, self.back = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.drop = nn.Dropout(config.dropout)
        self.read_out = small_read_out(width, config.genes)

    def forward(self, h: Tensor, genes: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """(n, width) states, (n, G) genes → both, updated."""
        n, k = edges.near.shape
        query, key, value = self.query_key_value(self.norm(h)).chunk(3, 1)
        edge = self.edge(edges.frames).mean(2)  # averaged over the frames: (n, k, width)
        signal = self.gene(genes)
        seen = (query[:, None].expand(n, k, -1), key[edges.near], edge, signal[edges.near] - signal[:, None])
        weight = self.drop(self.logit(torch.cat(seen, 2)).softmax(1))  # (n, k, heads)
        both = torch.cat([value[edges.near].view(n, k, self.heads, -1), edge.view(n, k, self.heads, -1)], 3)
        h = h + self.drop(self.out((weight[..., None] * both).sum(1).flatten(1)))
        gate, inner = self.gated(self.norm_out(h)).chunk(2, 1)
        h = h + self.drop(self.back(F.silu(gate) * inner))  # SwiGLU
        return h, self.read_out(h)


def starting_noise(count: Tensor, empty: Tensor) -> Tensor:
    """Return log(1 + ZINB) with total count 1, logit 0.1 and half of it zeros.

    Parameters
    ----------
    count, empty
        Uniform numbers in (0, 1), same shape: of the count by inverse CDF (with total count 1 it is
        geometric), and of whether it is zero anyway.
    """
    counts = torch.floor(torch.log(count) / np.log(_RATE / (1 + _RATE)))
    return torch.log1p(counts * (empty < _EMPTY))


class StFlow(DrawingNetwork):
    """Flow matching with a spatial transformer over nearest spots."""

    solver: ClassVar[str] = "euler"

    def __init__(self, config: StFlowSizes) -> None:
        super().__init__(config, config.genes)
        width = config.width
        self.standard = Standard(config.features)
        self.image = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.features, width))
        self.time = nn.Sequential(nn.Linear(_TIME, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def read_outs(self) -> list[nn.Linear]:
        """Return the head of each layer."""
        return [layer.read_out for layer in self.layers if isinstance(layer, _Layer)]

    def forward(self, x: Tensor, time: float, features: Tensor, edges: Edges) -> Tensor:
        """(n, G) on the way at `time` in [0, 1], (n, d) raw features → (n, G) end of the flow."""
        when = sinusoid(torch.full((1,), 1000 * time, device=x.device), _TIME)
        h, genes = self.image(self.standard(features)) + self.time(when), x
        for layer in self.layers:
            h, genes = layer(h, genes, edges)
        return genes

    def see(self, features: Tensor, places: Places) -> tuple[Tensor, Edges]:
        """Return the features and the edges."""
        return features, Edges.of(places, self.config.neighbours, features.device)

    def together(self, places: Places) -> Sequence[Rows]:
        """All spots of the slide."""
        return [np.arange(len(places))]

    def sample(self, seen: tuple[Tensor, Edges], rows: Rows, noise: Noise) -> Generator[float, None, Tensor]:
        """Follow the flow by Euler's method."""
        features, edges = seen
        uniform = (torch.from_numpy(noise(what)).float().to(features.device) for what in ("count", "empty"))
        x, steps = starting_noise(*uniform), self.config.solver_steps
        for step in range(steps):
            time, left = step / steps, 1 - step / steps
            x = x + (self(x, time, features, edges) - x) / (left * steps)
            yield (step + 1) / steps
        return x / LN2
