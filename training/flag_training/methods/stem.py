"""Stem (Zhu et al. 2025): diffusion of a spot's genes under its tile, spot by spot.

DDPM (Ho et al. 2020) with 1000 linear steps; the network predicts the noise.  The published model also
learns the reverse variance; here it is the posterior's.  Sampling strides through the steps, since
1000 evaluations a sample are out of reach of a CPU.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import Descent, Standard, descend, sinusoid
from flag_training.methods.method import FloatArray, Predictor, pooled
from napari_flag.model.gene_dit import GeneBlock, zero_linear
from napari_flag.progress import Steps

NOISE_STEPS: Final = 1000
_BETAS: Final = (1e-4, 0.02)


class _Network(nn.Module):
    def __init__(self, features: int, genes: int, values: "Stem") -> None:
        super().__init__()
        width = values.width
        self.name = nn.Parameter(torch.randn(genes, width) * 0.02)
        self.value = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.tile = nn.Sequential(nn.Linear(features, features), nn.SiLU(), nn.Linear(features, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            GeneBlock(width, values.heads, values.mlp_ratio, 0.0) for _ in range(values.blocks)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 2 * width))
        self.final = zero_linear(width, 1)

    def forward(self, x: Tensor, step: Tensor, tile: Tensor) -> Tensor:
        """(b, G) noisy genes, (b,) step, (b, width) embedded tile → (b, G) noise."""
        tokens = self.name + self.value(x[..., None])
        condition = self.time(sinusoid(step.float(), tile.shape[1])) + tile
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, 2)
        out: Tensor = self.final(self.norm(tokens) * (1 + scale) + shift)[..., 0]
        return out


@dataclass(frozen=True, slots=True)
class Stem:
    """A gene transformer that denoises one spot under one tile.

    Parameters
    ----------
    width, heads, blocks, mlp_ratio
        Of the transformer.
    batch
        Spots per training step.
    solver_steps, samples
        Ancestral steps, evenly among the 1000; samples averaged.
    training
        Steps and rates.
    """

    width: int
    heads: int
    blocks: int
    mlp_ratio: float
    batch: int
    solver_steps: int
    samples: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Train on spots of all slides and views."""
        torch.manual_seed(seed)  # initial weights know no generator
        features, expression = pooled(cohort)
        standard, genes = Standard.of(features), Standard.of(expression)
        network = _Network(features.shape[1], expression.shape[1], self)
        views, clean = standard(torch.cat(cohort.features, 1)), genes(torch.from_numpy(expression))
        kept = torch.cumprod(1 - torch.linspace(*_BETAS, NOISE_STEPS), 0)  # ᾱ

        def loss(draws: torch.Generator) -> Tensor:
            rows = torch.randint(len(clean), (self.batch,), generator=draws)
            view = torch.randint(len(views), (self.batch,), generator=draws)
            step = torch.randint(NOISE_STEPS, (self.batch,), generator=draws)
            noise = torch.randn(self.batch, clean.shape[1], generator=draws)
            share = kept[step, None]
            x = share.sqrt() * clean[rows] + (1 - share).sqrt() * noise
            return nn.functional.mse_loss(network(x, step, network.tile(views[view, rows])), noise)

        yield from descend(network, loss, self.training, seed, "Stem")

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            draws = torch.Generator().manual_seed(seed)
            with torch.inference_mode():
                tile = network.tile(standard(torch.from_numpy(features)))
                drawn = [self._sample(network, tile, kept, draws) for _ in range(self.samples)]
            found: FloatArray = genes.back(torch.stack(drawn).mean(0)).clamp_min(0).numpy()
            return found

        return predict

    def _sample(self, network: _Network, tile: Tensor, kept: Tensor, draws: torch.Generator) -> Tensor:
        """Draw (n, G) standardised genes, ancestrally (Ho et al. 2020, algorithm 2, strided)."""
        stops = torch.linspace(NOISE_STEPS - 1, 0, self.solver_steps).round().long()
        before = torch.cat([kept[stops[1:]], torch.ones(1)])  # ᾱ after each step
        x = torch.randn(len(tile), len(network.name), generator=draws)
        for stop, later in zip(stops, before, strict=True):
            now = kept[stop]
            noise = network(x, stop.expand(len(tile)), tile)
            clean = ((x - (1 - now).sqrt() * noise) / now.sqrt()).clamp(-6, 6)
            alpha = now / later
            mean = (later.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - later) * x) / (1 - now)
            spread = ((1 - later) / (1 - now) * (1 - alpha)).sqrt()
            x = mean + spread * torch.randn(x.shape, generator=draws)
        return x
