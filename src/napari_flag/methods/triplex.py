"""TRIPLEX (Chung et al. 2024): a spot's tile, its surroundings and the whole slide, fused.

On features instead of pixels: the target branch has one token, the spot's own features, where the published
one has the 49 of a ResNet18; the surroundings are the 5 × 5 array places around the spot where there is
tissue.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from napari_flag.methods.blocks import Block, Standard, small_read_out
from napari_flag.methods.expected import ExpectingNetwork
from napari_flag.model.graph import Places, SpotGraph

_REACH: Final = 2
_SIDE: Final = 2 * _REACH + 1
BRANCHES: Final = ("fusion", "target", "near", "slide")


@dataclass(frozen=True, slots=True)
class TriplexSizes:
    """Sizes of TRIPLEX.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    width, heads, mlp_ratio, dropout
        Of all transformers.
    near_layers, slide_layers
        Depth of the branches of the surroundings and of the slide.
    """

    features: int
    genes: int
    width: int
    heads: int
    mlp_ratio: float
    dropout: float
    near_layers: int
    slide_layers: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Places (n, 2) on the grid; (n, 25) spots around each and whether there is one."""

    places: Tensor
    around: Tensor
    present: Tensor

    @classmethod
    def of(cls, where: Places, device: torch.device | str = "cpu") -> "Layout":
        """Lay the spots out on their array."""
        places = where.grid
        height, width = places.max(0) + 1
        grid = np.full((height + 2 * _REACH, width + 2 * _REACH), -1)
        grid[places[:, 0] + _REACH, places[:, 1] + _REACH] = np.arange(len(places))
        step = np.arange(_SIDE)
        rows = places[:, 0, None, None] + step[:, None]
        columns = places[:, 1, None, None] + step
        around = torch.from_numpy(grid[rows, columns].reshape(len(places), -1)).to(device)
        return cls(torch.from_numpy(places).to(device), around.clamp_min(0), around >= 0)


class Triplex(ExpectingNetwork):
    """Three branches, fused by cross-attention whose query is the spot in its slide."""

    def __init__(self, config: TriplexSizes) -> None:
        super().__init__(config)
        width, heads, features = config.width, config.heads, config.features
        self.standard = Standard(features)
        self.embed = nn.ModuleDict({name: nn.Linear(features, width) for name in BRANCHES[1:]})
        self.near = nn.ModuleList(_layer(config) for _ in range(config.near_layers))
        self.slide = nn.ModuleList(_layer(config) for _ in range(config.slide_layers))
        self.offset_bias = nn.Parameter(torch.zeros(heads, (2 * _SIDE - 1) ** 2))
        step = torch.arange(_SIDE**2)
        rows, columns = step // _SIDE, step % _SIDE
        apart = (rows[:, None] - rows + _SIDE - 1) * (2 * _SIDE - 1) + columns[:, None] - columns + _SIDE - 1
        self.register_buffer("apart", apart, persistent=False)  # (25, 25)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)  # APEG
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width) for name in BRANCHES})
        self.cross = nn.MultiheadAttention(width, heads, config.dropout, batch_first=True)
        self.read_out = nn.ModuleDict({name: small_read_out(width, config.genes) for name in BRANCHES})

    def forward(self, features: Tensor, layout: Layout) -> dict[str, Tensor]:
        """(n, d) raw features of a slide → branch name → (n, G)."""
        x = self.standard(features)
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

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return what the fusion reads out."""
        out: Tensor = self(features, Layout.of(graph.places, features.device))["fusion"]
        return out

    def read_outs(self) -> list[nn.Linear]:
        """Return the read-out of each branch."""
        return [head for head in self.read_out.values() if isinstance(head, nn.Linear)]

    def _near(self, h: Tensor, layout: Layout) -> Tensor:
        tokens = h[layout.around]  # (n, 25, width)
        bias = self.offset_bias[:, self.get_buffer("apart")]  # (heads, 25, 25)
        mask = bias + h.new_zeros(len(h), 1, 1, 1).masked_fill(~layout.present[:, None, None], -torch.inf)
        for layer in self.near:
            tokens = layer(tokens, mask)
        out: Tensor = self.norm["near"](tokens)
        return out

    def _slide(self, h: Tensor, layout: Layout) -> Tensor:
        rows, columns = layout.places.unbind(1)
        for number, layer in enumerate(self.slide):
            h = layer(h[None])[0]
            if number == 0:
                grid = h.new_zeros(int(rows.max()) + 1, int(columns.max()) + 1, h.shape[1])
                grid = grid.index_put((rows, columns), h).permute(2, 0, 1)
                h = h + self.position(grid)[:, rows, columns].T
        out: Tensor = self.norm["slide"](h)
        return out


def _layer(config: TriplexSizes) -> nn.Module:
    wide = round(config.mlp_ratio * config.width)
    return Block(config.width, config.heads, wide, config.dropout)
