"""TRIPLEX (Chung et al. 2024): a spot's tile, its surroundings and the whole slide, fused.

On features instead of pixels: the target branch has one token, the spot's own features, where the
published one has the 49 of a ResNet18; the surroundings are the 5 × 5 array places around the spot
where there is tissue.  Targets are not smoothed over neighbouring spots, which would be measured as
structure.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import (
    Block,
    Descent,
    Standard,
    descend,
    draw_slide,
    expression_of,
    read_out_from,
)
from flag_training.methods.method import FloatArray, Predictor, pooled
from napari_flag.progress import Steps

_REACH: Final = 2
_SIDE: Final = 2 * _REACH + 1
BRANCHES: Final = ("fusion", "target", "near", "slide")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Places (n, 2) on the grid; (n, 25) spots around each and whether there is one."""

    places: Tensor
    around: Tensor
    present: Tensor

    @classmethod
    def of(cls, slide: TrainingSlide) -> "_Layout":
        places = slide.places.grid
        height, width = places.max(0) + 1
        grid = np.full((height + 2 * _REACH, width + 2 * _REACH), -1)
        grid[places[:, 0] + _REACH, places[:, 1] + _REACH] = np.arange(len(places))
        step = np.arange(_SIDE)
        rows = places[:, 0, None, None] + step[:, None]
        columns = places[:, 1, None, None] + step
        around = torch.from_numpy(grid[rows, columns].reshape(len(places), -1))
        return cls(torch.from_numpy(places), around.clamp_min(0), around >= 0)


class _Network(nn.Module):
    def __init__(self, features: int, values: "Triplex", mean: Tensor) -> None:
        super().__init__()
        width, heads = values.width, values.heads
        self.heads = heads
        self.embed = nn.ModuleDict({name: nn.Linear(features, width) for name in BRANCHES[1:]})
        self.near = nn.ModuleList(_layer(values) for _ in range(values.near_layers))
        self.slide = nn.ModuleList(_layer(values) for _ in range(values.slide_layers))
        self.offset_bias = nn.Parameter(torch.zeros(heads, (2 * _SIDE - 1) ** 2))
        step = torch.arange(_SIDE**2)
        rows, columns = step // _SIDE, step % _SIDE
        apart = (rows[:, None] - rows + _SIDE - 1) * (2 * _SIDE - 1) + columns[:, None] - columns + _SIDE - 1
        self.register_buffer("apart", apart, persistent=False)  # (25, 25)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)  # APEG
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in BRANCHES})
        self.cross = nn.MultiheadAttention(width, heads, values.dropout, batch_first=True)
        self.read_out = nn.ModuleDict({name: read_out_from(width, mean) for name in BRANCHES})

    def forward(self, x: Tensor, layout: _Layout) -> dict[str, Tensor]:
        """(n, d) features of a slide → branch name → (n, G)."""
        target = self.norm["target"](self.embed["target"](x))
        near = self._near(self.embed["near"](x), layout)
        slide = self._slide(self.embed["slide"](x), layout)
        query = slide[:, None]
        fused = self.cross(query, target[:, None], target[:, None], need_weights=False)[0]
        fused = fused + self.cross(query, near, near, ~layout.present, need_weights=False)[0]
        present = layout.present[..., None]
        pooled_near = (near * present).sum(1) / present.sum(1)
        found = {
            "fusion": self.norm["fusion"](fused[:, 0]),
            "target": target,
            "near": pooled_near,
            "slide": slide,
        }
        return {name: self.read_out[name](h) for name, h in found.items()}

    def _near(self, h: Tensor, layout: _Layout) -> Tensor:
        tokens = h[layout.around]  # (n, 25, width)
        bias = self.offset_bias[:, self.get_buffer("apart")]  # (heads, 25, 25)
        mask = bias + torch.zeros(len(h), 1, 1, 1).masked_fill(~layout.present[:, None, None], -torch.inf)
        for layer in self.near:
            tokens = layer(tokens, mask)
        out: Tensor = self.norm["near"](tokens)
        return out

    def _slide(self, h: Tensor, layout: _Layout) -> Tensor:
        rows, columns = layout.places.unbind(1)
        for number, layer in enumerate(self.slide):
            h = layer(h[None])[0]
            if number == 0:
                grid = h.new_zeros(int(rows.max()) + 1, int(columns.max()) + 1, h.shape[1])
                grid = grid.index_put((rows, columns), h).permute(2, 0, 1)
                h = h + self.position(grid)[:, rows, columns].T
        out: Tensor = self.norm["slide"](h)
        return out


def _layer(values: "Triplex") -> nn.Module:
    wide = round(values.mlp_ratio * values.width)
    return Block(values.width, values.heads, wide, values.dropout)


@dataclass(frozen=True, slots=True)
class Triplex:
    """Three branches, fused by cross-attention whose query is the spot in its slide.

    Parameters
    ----------
    width, heads, mlp_ratio, dropout
        Of all transformers.
    near_layers, slide_layers
        Depth of the branches of the surroundings and of the slide.
    distilled
        a: share of each branch's loss that pulls it to the fusion.
    training
        Steps (one slide each) and rates.
    """

    width: int
    heads: int
    mlp_ratio: float
    dropout: float
    near_layers: int
    slide_layers: int
    distilled: float
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Train on whole slides."""
        torch.manual_seed(seed)  # initial weights and dropout know no generator
        features, expression = pooled(cohort)
        standard = Standard.of(features)
        network = _Network(features.shape[1], self, torch.from_numpy(expression).mean(0))
        layouts = [_Layout.of(slide) for slide in cohort.slides]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            y = expression_of(cohort.slides[at])
            found = network(standard(cohort.features[at][view]), layouts[at])
            total, a = F.mse_loss(found["fusion"], y), self.distilled
            for name in BRANCHES[1:]:
                near_fusion = F.mse_loss(found[name], found["fusion"].detach())
                total = total + (1 - a) * F.mse_loss(found[name], y) + a * near_fusion
            return total

        yield from descend(network, loss, self.training, seed, "TRIPLEX")

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            with torch.inference_mode():
                out = network(standard(torch.from_numpy(features)), _Layout.of(slide))["fusion"]
            found: FloatArray = out.clamp_min(0).numpy()
            return found

        return predict
