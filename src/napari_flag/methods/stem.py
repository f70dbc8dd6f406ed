"""Stem (Zhu et al. 2025): diffusion of a spot's genes under its tile, spot by spot.

DDPM (Ho et al. 2020) with 1000 linear steps; the network predicts the noise.  The published model also
learns the reverse variance; here it is the posterior's.  Sampling strides through the steps, since 1000
evaluations a sample are out of reach of a CPU.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from napari_flag.methods.blocks import Standard, sinusoid
from napari_flag.methods.drawn import DrawingNetwork, Noise, Rows, normal
from napari_flag.model.gene_dit import GeneBlock, zero_linear
from napari_flag.model.graph import Places

NOISE_STEPS: Final = 1000
_BETAS: Final = (1e-4, 0.02)
_LARGEST: Final = 6.0
"""Clean values are held within so many standard deviations while denoising."""


def kept_shares() -> Tensor:
    """Return (1000,) ᾱ: the share of the clean signal's variance that is left at each step."""
    return torch.cumprod(1 - torch.linspace(*_BETAS, NOISE_STEPS), 0)


@dataclass(frozen=True, slots=True)
class StemSizes:
    """Sizes of Stem.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    width, heads, blocks, mlp_ratio
        Of the transformer.
    solver_steps, samples
        Ancestral steps, evenly among the 1000; samples averaged.
    """

    features: int
    genes: int
    width: int
    heads: int
    blocks: int
    mlp_ratio: float
    solver_steps: int
    samples: int


class Stem(DrawingNetwork):
    """A gene transformer that denoises one spot under one tile."""

    solver: ClassVar[str] = "ancestral"

    def __init__(self, config: StemSizes) -> None:
        super().__init__(config, config.genes)
        width, features = config.width, config.features
        self.standard, self.standard_genes = Standard(features), Standard(config.genes)
        self.name = nn.Parameter(torch.randn(config.genes, width) * 0.02)
        self.value = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.tile = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            GeneBlock(width, config.heads, config.mlp_ratio, 0.0) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 2 * width))
        self.final = zero_linear(width, 1)

    def forward(self, x: Tensor, step: Tensor, tile: Tensor) -> Tensor:
        """(b, G) noisy standardised genes, (b,) step, (b, width) embedded tile → (b, G) noise."""
        tokens = self.name + self.value(x[..., None])
        condition = self.time(sinusoid(step.float(), tile.shape[1])) + tile
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, 2)
        out: Tensor = self.final(self.norm(tokens) * (1 + scale) + shift)[..., 0]
        return out

    def see(self, features: Tensor, places: Places) -> Tensor:
        """Return the (n, width) embedded tiles."""
        tiles: Tensor = self.tile(self.standard(features))
        return tiles

    def together(self, places: Places) -> Sequence[Rows] | None:
        """None: each spot is drawn for itself."""
        return None

    def sample(self, seen: Tensor, rows: Rows, noise: Noise) -> Generator[float, None, Tensor]:
        """Draw ancestrally (Ho et al. 2020, algorithm 2, strided)."""
        tile, kept, steps = seen[rows], kept_shares().to(seen.device), self.config.solver_steps
        stops = torch.linspace(NOISE_STEPS - 1, 0, steps).round().long()
        before = torch.cat([kept[stops[1:]], kept.new_ones(1)])  # ᾱ after each step
        x = normal(noise("start"), seen)
        for number, (stop, later) in enumerate(zip(stops, before, strict=True), start=1):
            now = kept[stop]
            guess = self(x, stop.expand(len(tile)).to(seen.device), tile)
            clean = ((x - (1 - now).sqrt() * guess) / now.sqrt()).clamp(-_LARGEST, _LARGEST)
            alpha = now / later
            x = (later.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - later) * x) / (1 - now)
            if number < steps:  # nothing is added where no noise is left
                spread = ((1 - later) / (1 - now) * (1 - alpha)).sqrt()
                x = x + spread * normal(noise(f"step {number}"), seen)
            yield number / steps
        found: Tensor = self.standard_genes.back(x)
        return found
