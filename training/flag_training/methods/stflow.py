"""STFlow (Huang et al. 2025): flow matching over all spots of a slide at once.

Facts are those of public ports of its training code; the authors' repository holds a description
only.  Starts from zero-inflated negative binomial noise, predicts the end of the flow, and attends
over the nearest spots with edges that no turn or mirroring of the slide changes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import (
    Descent,
    Standard,
    descend,
    draw_slide,
    expression_of,
    read_out_from,
    sinusoid,
)
from flag_training.methods.method import FloatArray, Predictor, pooled
from napari_flag.progress import Steps

_LN2: Final = float(np.log(2.0))
"""log2(count + 1) · ln 2 = log(count + 1), in which the noise is defined."""
_TIME: Final = 256


@dataclass(frozen=True, slots=True)
class _Edges:
    """(n, k) nearest spots, and (n, k, 4, 3): offset in each of the 4 principal frames, distance."""

    near: Tensor
    frames: Tensor

    @classmethod
    def of(cls, slide: TrainingSlide, k: int) -> "_Edges":
        place = slide.spots.xy * slide.mpp / slide.pitch_um  # array pitches
        near = cKDTree(place).query(place, min(k + 1, len(place)))[1][:, 1:]
        offset = place[near] - place[:, None]
        axes = np.linalg.svd(place - place.mean(0), full_matrices=False)[2].T
        signs = np.array([(a, b) for a in (1, -1) for b in (1, -1)])
        turned = (offset @ axes)[:, :, None] * signs
        length = np.linalg.norm(offset, axis=2)[:, :, None, None].repeat(4, 2)
        frames = np.concatenate([turned, length], 3).astype(np.float32)
        return cls(torch.from_numpy(near), torch.from_numpy(frames))


class _Layer(nn.Module):
    """Attention over the nearest spots whose logits also see edges and genes, then a feed-forward net."""

    def __init__(self, values: "StFlow", mean: Tensor) -> None:
        super().__init__()
        width, self.heads = values.width, values.heads
        self.norm, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.edge = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.gene = nn.Linear(len(mean), width, bias=False)
        self.logit = nn.Sequential(nn.Linear(4 * width, width), nn.SiLU(), nn.Linear(width, values.heads))
        self.out = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.gated, self.back = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        self.drop = nn.Dropout(values.dropout)
        self.read_out = read_out_from(width, mean)

    def forward(self, h: Tensor, genes: Tensor, edges: _Edges) -> tuple[Tensor, Tensor]:
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


class _Network(nn.Module):
    def __init__(self, features: int, values: "StFlow", mean: Tensor) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Dropout(values.dropout), nn.Linear(features, values.width))
        self.time = nn.Sequential(
            nn.Linear(_TIME, values.width), nn.SiLU(), nn.Linear(values.width, values.width)
        )
        self.layers = nn.ModuleList(_Layer(values, mean) for _ in range(values.layers))

    def forward(self, x: Tensor, time: float, features: Tensor, edges: _Edges) -> Tensor:
        """(n, G) on the way at `time` in [0, 1] → (n, G) end of the flow."""
        when = sinusoid(torch.full((1,), 1000 * time), _TIME)
        h, genes = self.image(features) + self.time(when), x
        for layer in self.layers:
            h, genes = layer(h, genes, edges)
        return genes


def starting_noise(shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    """Draw log(1 + ZINB) with total count 1, logit 0.1 and half of it zeros."""
    rate = -torch.rand(shape, generator=draws).clamp_min(1e-12).log() * float(np.exp(0.1))  # Gamma(1)
    counts = torch.poisson(rate, generator=draws)
    return torch.log1p(counts * (torch.rand(shape, generator=draws) < 0.5))


@dataclass(frozen=True, slots=True)
class StFlow:
    """Flow matching with a spatial transformer over nearest spots.

    Parameters
    ----------
    width, heads, layers, dropout
        Of the denoiser.
    neighbours
        Nearest spots attended to.
    solver_steps
        Euler steps.
    training
        Steps (one slide each) and rates.
    """

    width: int
    heads: int
    layers: int
    dropout: float
    neighbours: int
    solver_steps: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Train on whole slides: mean squared error of the flow's end."""
        torch.manual_seed(seed)  # initial weights and dropout know no generator
        features, expression = pooled(cohort)
        standard = Standard.of(features)
        network = _Network(features.shape[1], self, torch.from_numpy(expression).mean(0) * _LN2)
        edges = [_Edges.of(slide, self.neighbours) for slide in cohort.slides]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            end = expression_of(cohort.slides[at]) * _LN2
            start, time = (
                starting_noise((end.shape[0], end.shape[1]), draws),
                torch.rand(1, generator=draws).item(),
            )
            x = (1 - time) * start + time * end
            return F.mse_loss(network(x, time, standard(cohort.features[at][view]), edges[at]), end)

        yield from descend(network, loss, self.training, seed, "STFlow")
        genes = expression.shape[1]

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            x = starting_noise((len(features), genes), torch.Generator().manual_seed(seed))
            seen, around = standard(torch.from_numpy(features)), _Edges.of(slide, self.neighbours)
            with torch.inference_mode():
                for step in range(self.solver_steps):
                    time, left = step / self.solver_steps, 1 - step / self.solver_steps
                    x = x + (network(x, time, seen, around) - x) / (left * self.solver_steps)
            found: FloatArray = (x / _LN2).clamp_min(0).numpy()
            return found

        return predict
