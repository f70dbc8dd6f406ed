"""The latents of training spots: which log-rates may have given the counts that were measured.

With μ the log-rate that the image lets one expect, a spot's counts are Poisson around η = μ + δ + r
(`napari_flag.model.observation`).  Neither δ nor r is seen.  δ is taken as the log ratio of the spot's total
count to the total expected, and its distribution is kept slide by slide, for the spots of one slide may
differ far more in depth than those of another; r is normal with a covariance of few factors and a variance
per gene (a Poisson log-normal model, Aitchison & Ho 1989; Chiquet et al. 2018), fitted by
expectation–maximisation around the Laplace approximation of each spot's posterior.  The diffusion then learns
from *draws* of these posteriors, not from their means, which would be too narrow.

Everything is batched over spots and costs genes × factors², so that thousands of genes stay affordable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from napari_flag.model.flag import QUANTILES
from napari_flag.model.observation import HIGHEST, LOWEST, FloatArray, Observation, mixed_quantiles
from napari_flag.progress import Step, Steps

FACTORS: Final = 32
"""Directions along which residuals of genes vary together; beyond them each gene varies by itself."""
_ITERATIONS: Final = 20
_START: Final = 0.1
"""Variance of every gene's composition residual before the first iteration."""
_NEWTON: Final = 3
"""Newton steps of the posterior modes in each iteration, from the modes of the one before."""
_LONGEST: Final = 1.5
"""ln(counts), longest Newton step."""
_SAMPLES: Final = 4
"""Posterior draws per spot in the iterations' moments."""
_LEAST_VARIANCE: Final = 0.02
_SPOTS: Final = 1024
"""Spots computed at once."""
_COUNT: Final = 0.5
"""Count added to a spot's total and to what is expected of it, so that empty spots have a depth."""


@dataclass(frozen=True, slots=True)
class ResidualModel:
    """Distribution of residuals around the expected log-rate.

    Parameters
    ----------
    depth
        (m, q) quantiles of δ on each training slide around its median, at equal steps of probability: a
        shift of all δ is no residual, for μ is what gives the expectation.
    loadings, own
        (G, f) W and (G,) D: the covariance of r is W Wᵀ + diag(D), ln(counts)².
    """

    depth: FloatArray
    loadings: Tensor
    own: Tensor

    @classmethod
    def start(cls, genes: int, slides: int = 1) -> Self:
        """Return what the iterations start from."""
        loadings = torch.zeros(genes, min(FACTORS, genes), dtype=torch.float64)
        nothing = np.zeros((slides, QUANTILES))
        return cls(nothing, loadings, torch.full((genes,), _START, dtype=torch.float64))

    @property
    def variance(self) -> Tensor:
        """(G,) of r."""
        return self.loadings.square().sum(1) + self.own

    def on(self, resemblance: Tensor) -> Self:
        """Return the model on a slide whose residuals come by (m,) `resemblance` from the training slides."""
        return replace(self, depth=mixed_quantiles(self.depth, resemblance.numpy())[None])

    def observation(self) -> Observation:
        """Return the tables of expectation and variance that follow, all slides alike."""
        shares = np.full(len(self.depth), 1 / len(self.depth))
        return Observation.of(mixed_quantiles(self.depth, shares), self.variance.numpy())

    def depths(self, counts: Tensor, latent: Tensor) -> Tensor:
        """Return (n,) δ of spots with (n, G) `counts` where (n, G) `latent` μ was expected."""
        expected = torch.exp((latent + self.variance / 2).clamp_max(HIGHEST)).sum(1)
        return ((counts.sum(1) + _COUNT) / (expected + _COUNT)).log()

    def modes(self, counts: Tensor, offset: Tensor, start: Tensor, steps: int) -> Tensor:
        """Return the (n, G) modes of r given (n, G) `counts`, around (n, G) `offset` = μ + δ."""
        residual = start
        for _ in range(steps):
            rate = _rate(offset + residual)
            working = residual + (counts - rate) / rate
            step = self._smooth(working, 1 / rate) - residual
            residual = residual + step.clamp(-_LONGEST, _LONGEST)
        return residual

    def posterior(self, offset: Tensor, mode: Tensor, generator: torch.Generator) -> Tensor:
        """Draw (n, G) r from the Laplace approximation around their modes (Matheron's rule)."""
        noise = 1 / _rate(offset + mode)
        n, genes = mode.shape
        factors = torch.randn(n, self.loadings.shape[1], generator=generator, dtype=torch.float64)
        prior = factors @ self.loadings.T
        prior = prior + self.own.sqrt() * torch.randn(n, genes, generator=generator, dtype=torch.float64)
        seen = prior + noise.sqrt() * torch.randn(n, genes, generator=generator, dtype=torch.float64)
        return mode + prior - self._smooth(seen, noise)

    def _smooth(self, values: Tensor, noise: Tensor) -> Tensor:
        """Return E[r | r + ε = values] for ε of (n, G) variances `noise`: Σ (Σ + N)⁻¹ values."""
        parts = []
        for first in range(0, len(values), _SPOTS):
            at = slice(first, first + _SPOTS)
            weight = 1 / (self.own + noise[at])  # (b, G)
            weighted = weight[:, :, None] * self.loadings  # (b, G, f)
            inner = torch.eye(self.loadings.shape[1], dtype=torch.float64) + self.loadings.T @ weighted
            projected = torch.linalg.solve(inner, weighted.transpose(1, 2) @ values[at, :, None])  # (b, f, 1)
            left = weight * values[at] - (weighted @ projected)[..., 0]  # (Σ + N)⁻¹ values
            parts.append((left @ self.loadings) @ self.loadings.T + left * self.own)
        return torch.cat(parts)


@dataclass(frozen=True, slots=True)
class Slides:
    """Training slides as those see them that left them out.

    Parameters
    ----------
    members
        Rows of each slide's spots.
    resemblance
        (m, m) how much each slide (row) was expected to have of the residuals of each (column).
    """

    members: Sequence[Tensor]
    resemblance: Tensor

    @classmethod
    def alike(cls, sizes: Sequence[int]) -> Self:
        """Return slides of so many spots that all resemble each other."""
        ends = np.cumsum(sizes)
        rows = [torch.arange(end - size, end) for size, end in zip(sizes, ends.tolist(), strict=True)]
        return cls(rows, torch.full((len(sizes), len(sizes)), 1 / len(sizes)))

    def latent(self, model: ResidualModel, expected: Tensor) -> Tensor:
        """Return the (n, G) float64 μ that has the (n, G) expectation, log2(count + 1)."""
        return self._read(model, expected, Observation.latent)

    def deviation(self, model: ResidualModel, expected: Tensor) -> Tensor:
        """Return the (n, G) float64 standard deviation of a measurement, log2(count + 1)."""

        def root(seen: Observation, values: FloatArray) -> FloatArray:
            return np.sqrt(seen.variance_of(seen.latent(values)))

        return self._read(model, expected, root)

    def centred(self, depth: Tensor) -> Tensor:
        """Return (n,) δ less the median of each slide."""
        found = torch.empty_like(depth)
        for rows in self.members:
            found[rows] = depth[rows] - float(np.median(depth[rows].numpy()))
        return found

    def _read(
        self,
        model: ResidualModel,
        expected: Tensor,
        read: Callable[[Observation, FloatArray], FloatArray],
    ) -> Tensor:
        found = torch.empty(expected.shape, dtype=torch.float64)
        for rows, resemblance in zip(self.members, self.resemblance, strict=True):
            seen = model.on(resemblance).observation()
            found[rows] = torch.from_numpy(read(seen, expected[rows].double().numpy()))
        return found


@dataclass(frozen=True, slots=True)
class Latents:
    """Latents of training spots.

    Parameters
    ----------
    model
        Their distribution.
    latent
        (n, G) μ.
    depth, centred
        (n,) δ, and δ less the median of its slide, as draws have it.
    residual
        (samples, n, G) float32 posterior draws of r.
    """

    model: ResidualModel
    latent: Tensor
    depth: Tensor
    centred: Tensor
    residual: Tensor


def fit_latents(counts: Tensor, expected: Tensor, slides: Slides, samples: int, seed: int) -> Steps[Latents]:
    """Fit the residual model to training spots, and draw their residuals.

    Parameters
    ----------
    counts
        (n, G) float64 counts.
    expected
        (n, G) expected log2(count + 1), of spots that contributed nothing to their own expectation.
    slides
        Which spots are a slide's, and whose residuals it is expected to have.
    samples
        Posterior draws per spot.
    seed
        Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    model = ResidualModel.start(counts.shape[1], len(slides.members))
    mode = torch.zeros_like(counts)
    for iteration in range(_ITERATIONS):
        yield Step("Fitting the counts", iteration, _ITERATIONS, "rounds")
        latent = slides.latent(model, expected)
        depth = model.depths(counts, latent)
        offset = latent + depth[:, None]
        mode = model.modes(counts, offset, mode, _NEWTON if iteration else 3 * _NEWTON)
        drawn = torch.cat([model.posterior(offset, mode, generator) for _ in range(_SAMPLES)])
        model = _moments(depth, drawn, slides, model.loadings.shape[1])
    latent = slides.latent(model, expected)
    return draw_latents(model, counts, latent, slides, samples, generator, mode)


def draw_latents(
    model: ResidualModel,
    counts: Tensor,
    latent: Tensor,
    slides: Slides,
    samples: int,
    generator: torch.Generator,
    start: Tensor | None = None,
) -> Latents:
    """Draw residuals of spots with (n, G) `counts` around (n, G) `latent`, given the model."""
    depth = model.depths(counts, latent)
    offset = latent + depth[:, None]
    mode = model.modes(counts, offset, torch.zeros_like(counts) if start is None else start, 3 * _NEWTON)
    drawn = torch.stack([model.posterior(offset, mode, generator).float() for _ in range(samples)])
    return Latents(model, latent, depth, slides.centred(depth), drawn)


def scaled(model: ResidualModel, composition: float) -> ResidualModel:
    """Return the model with r narrowed by this factor of its standard deviations."""
    return replace(model, loadings=composition * model.loadings, own=composition**2 * model.own)


def _moments(depth: Tensor, drawn: Tensor, slides: Slides, factors: int) -> ResidualModel:
    """Return the model with the moments of (n,) δ and of (samples n, G) draws of r."""
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    second = drawn.T @ drawn / len(drawn)  # (G, G) about 0: the mean is what the image says
    variance = second.diagonal().clamp_min(_LEAST_VARIANCE)
    spread = variance.sqrt()
    values, vectors = torch.linalg.eigh(second / spread[:, None] / spread)
    least = values[: max(1, len(values) - factors)].mean().clamp(0.05, 0.95)  # what genes vary by themselves
    size = (values[-factors:] - least).clamp_min(0).sqrt()
    loadings = spread[:, None] * vectors[:, -factors:] * size
    own = (variance - loadings.square().sum(1)).clamp_min(_LEAST_VARIANCE * variance)
    around = slides.centred(depth).numpy()
    quantiles = np.stack([np.quantile(around[rows.numpy()], levels) for rows in slides.members])
    return ResidualModel(quantiles, loadings, own)


def _rate(latent: Tensor) -> Tensor:
    return torch.exp(latent.clamp(LOWEST, HIGHEST))
