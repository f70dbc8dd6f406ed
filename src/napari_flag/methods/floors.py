"""Floors: what is expected of a spot without a deep network, in closed form.

Each is held as tensors, so that it is written, opened and predicted with as the networks are.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from napari_flag.methods.blocks import Standard
from napari_flag.methods.expected import ExpectingNetwork
from napari_flag.model.graph import GraphTensors, SpotGraph

SOFTNESS: Final = 0.3
"""Mean squared feature distance at which a training slide's weight falls to 1/e."""
FEATURE_FLOOR: Final = 0.2
"""Added to spreads of features over one slide, so that what is constant there is not blown up."""
_TOGETHER: Final = 256
"""Spots compared with the bank at once."""


@dataclass(frozen=True, slots=True)
class FloorSizes:
    """Sizes of a floor.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    slides
        Training slides, where each is remembered.
    bank, components, k
        Of kNN: training spots held, principal components compared, neighbours averaged.
    """

    features: int
    genes: int
    slides: int = 0
    bank: int = 0
    components: int = 0
    k: int = 0


class SlideMean(ExpectingNetwork):
    """Every spot the mean of the training spots."""

    def __init__(self, config: FloorSizes) -> None:
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(config.genes))

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return the mean at each spot."""
        return self.get_buffer("mean").expand(len(features), -1)


class Ridge(ExpectingNetwork):
    """Ridge regression on features standardised over the training spots."""

    def __init__(self, config: FloorSizes) -> None:
        super().__init__(config)
        self.standard = Standard(config.features)
        self.register_buffer("weight", torch.zeros(config.features, config.genes))
        self.register_buffer("bias", torch.zeros(config.genes))

    def linear(self, features: Tensor) -> Tensor:
        """Return (n, G) log2(count + 1), which may lie below 0."""
        expected: Tensor = self.standard(features) @ self.get_buffer("weight") + self.get_buffer("bias")
        return expected

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return the linear model's values."""
        return self.linear(features)


class RingRidge(ExpectingNetwork):
    """Ridge on a spot's features and its first ring's mean, in the slide's own frame.

    Stain and library size differ between slides far more than within one, so features are standardised
    over the slide, and expression is relative to the level and spread of the training slides that look most
    alike.  Written apart from `model.normalization`, so that the floor stays where it is while FLAG changes.
    """

    def __init__(self, config: FloorSizes) -> None:
        super().__init__(config)
        self.standard = Standard(config.features)
        self.register_buffer("centres", torch.zeros(config.slides, config.features))
        self.register_buffer("level", torch.zeros(config.slides, config.genes))
        self.register_buffer("scale", torch.ones(config.slides, config.genes))
        self.register_buffer("weight", torch.zeros(2 * config.features, config.genes))

    def design(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return (n, 2 d): features in the slide's frame, and their mean over the first ring."""
        z = self.standard(features)
        framed = (z - z.mean(0)) / (z.std(0, correction=0) + FEATURE_FLOOR)
        return torch.cat([framed, GraphTensors.of(graph, device=features.device).ring_mean(framed)], 1)

    def frame(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (G,) level and spread expected of a slide with these (n, d) features."""
        away = self.get_buffer("centres") - self.standard(features).mean(0)
        weights = torch.softmax(-away.square().mean(1) / SOFTNESS, 0)
        return weights @ self.get_buffer("level"), weights @ self.get_buffer("scale")

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return what the linear model expects, in the frame of this slide."""
        level, scale = self.frame(features)
        return level + scale * (self.design(features, graph) @ self.get_buffer("weight"))


class NearestTiles(ExpectingNetwork):
    """Mean expression of the k training spots whose tiles are most alike (kNN)."""

    def __init__(self, config: FloorSizes) -> None:
        super().__init__(config)
        self.standard = Standard(config.features)
        self.register_buffer("axes", torch.zeros(config.features, config.components))
        self.register_buffer("bank_tiles", torch.zeros(config.bank, config.components))
        self.register_buffer("bank_expression", torch.zeros(config.bank, config.genes))

    def project(self, features: Tensor) -> Tensor:
        """Return (n, components) places of tiles where nearness is measured."""
        projected: Tensor = self.standard(features) @ self.get_buffer("axes")
        return projected

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return the mean of the nearest spots of the bank."""
        expression, bank = self.get_buffer("bank_expression"), self.get_buffer("bank_tiles")
        found = []
        for part in torch.split(self.project(features), _TOGETHER):
            apart = torch.cdist(part, bank, compute_mode="donot_use_mm_for_euclid_dist")
            found.append(expression[apart.topk(self.config.k, largest=False).indices].mean(1))
        return torch.cat(found)
