"""BLEEP (Xie et al. 2023): tiles and expression in one space; predict by looking up training spots.

The image encoder is frozen here: its features enter in place of a fine-tuned ResNet50's.  The weights hold
the expression of all training spots.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_flag.methods.blocks import Standard
from napari_flag.methods.expected import ExpectingNetwork
from napari_flag.model.graph import SpotGraph

_TOGETHER: Final = 4096
"""Tiles compared with the bank at once."""


@dataclass(frozen=True, slots=True)
class BleepSizes:
    """Sizes of BLEEP.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    width, dropout
        Of both projection heads.
    neighbours
        Training spots averaged.
    bank
        Training spots held.
    """

    features: int
    genes: int
    width: int
    dropout: float
    neighbours: int
    bank: int


class ProjectionHead(nn.Module):
    """Linear, then a residual GELU block under LayerNorm: (b, d) → (b, width)."""

    def __init__(self, features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.block = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the projections of `x`."""
        projected = self.project(x)
        out: Tensor = self.norm(projected + self.block(projected))
        return out


class Bleep(ExpectingNetwork):
    """The mean of the training spots whose expression lies nearest to a tile, by cosine."""

    def __init__(self, config: BleepSizes) -> None:
        super().__init__(config)
        self.standard = Standard(config.features)
        self.image = ProjectionHead(config.features, config.width, config.dropout)
        self.register_buffer("bank_embedding", torch.zeros(config.bank, config.width))
        self.register_buffer("bank_expression", torch.zeros(config.bank, config.genes))

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return the mean of the nearest spots of the bank."""
        bank, expression = self.get_buffer("bank_embedding"), self.get_buffer("bank_expression")
        k = min(self.config.neighbours, len(bank))
        found = []
        for part in torch.split(features, _TOGETHER):
            query = F.normalize(self.image(self.standard(part)), dim=1)
            found.append(expression[(query @ bank.T).topk(k, dim=1).indices].mean(1))
        return torch.cat(found)
