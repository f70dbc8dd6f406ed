"""How wide the composition residual of draws should be, chosen on sections that were left out.

Residuals are fitted to spots that were left out of part of the training slides; a slide predicted from all of
them is expected better.  How much narrower its residuals are is chosen by the proper scores of eight draws
around the cross-fitted expectation, before any test section is seen.

Of eight draws these scores favour draws that are too narrow (`docs/statistics.md`), and between a residual of
full width and none they differ by about one per cent; by scores that do not depend on the number of draws a
wider one is best on her2st (`docs/results/draw_width.md`).  So the *widest* residual is taken that scores
next to as well as the best.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import ndtri
from torch import Tensor

from flag_training.cohort import TrainingSlide
from flag_training.stages.latents import ResidualModel, scaled
from napari_flag.model.diffusion import TOGETHER, keyed_uniforms
from napari_flag.model.observation import FloatArray, count_at
from napari_flag.progress import Step, Steps
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.scoring_rules import proper_scores

_COMPOSITION: Final = (0.0, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Factors tried of the composition residual's standard deviation."""
_NEXT_TO: Final = 0.005
"""How much worse than the best, as a share, counts as next to as well."""
_JUDGED: Final = ("ES", "CRPS", "VS-gene", "VS-space")
_MOST_SLIDES: Final = 6
_INSIDE: Final = 0.8
"""Share of left-out values that the standard deviation is matched on; `_Z` deviations hold it."""
_Z: Final = float(ndtri(0.5 + _INSIDE / 2))


@dataclass(frozen=True, slots=True)
class Spread:
    """The widths chosen.

    Parameters
    ----------
    model
        The narrowed residuals.
    composition
        By which factor.
    scores
        Factor → mean over slides and rules of the score over that of the unnarrowed residuals.
    """

    model: ResidualModel
    composition: float
    scores: dict[float, float]


def choose_spread(
    slides: Sequence[TrainingSlide], model: ResidualModel, expected: Sequence[Tensor], seed: int
) -> Steps[Spread]:
    """Choose the factor of the composition residual's standard deviation by the proper scores of eight draws.

    Parameters
    ----------
    slides
        Training slides.
    model
        The residuals.
    expected
        Per slide, (n, G) cross-fitted expectation, log2(count + 1).
    seed
        Keys the noise, the same for all candidates.
    """
    step = max(1, len(slides) // _MOST_SLIDES)
    judged = [
        _Judged.of(slide, each, model, seed)
        for slide, each in list(zip(slides, expected, strict=True))[::step][:_MOST_SLIDES]
    ]
    base = [slide.scores(model) for slide in judged]
    scores: dict[float, float] = {}
    for number, composition in enumerate(_COMPOSITION):
        yield Step("Choosing the spread of draws", number, len(_COMPOSITION), "candidates")
        narrowed = scaled(model, composition)
        ratios = [slide.scores(narrowed) / full for slide, full in zip(judged, base, strict=True)]
        scores[composition] = float(np.mean(ratios))
    good = (1 + _NEXT_TO) * min(scores.values())
    composition = max(factor for factor, score in scores.items() if score <= good)
    return Spread(scaled(model, composition), composition, scores)


def sd_factor(model: ResidualModel, expected: Tensor, expression: Tensor) -> float:
    """Return what the closed-form standard deviation is multiplied by, so that it holds 80 % of (n, G) truth.

    Parameters
    ----------
    model
        The residuals that draws are made with.
    expected, expression
        (n, G) cross-fitted expectation, and truth, log2(count + 1).
    """
    observation = model.observation()
    deviation = np.sqrt(observation.variance_of(observation.latent(expected.numpy())))
    away = np.abs(expression.numpy() - expected.numpy()) / np.maximum(deviation, 1e-6)
    return float(np.quantile(away, _INSIDE) / _Z)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A slide, and the noise of its draws."""

    truth: FloatArray
    expected: FloatArray
    weights: sparse.csr_array
    depth: list[FloatArray]
    factors: list[FloatArray]
    own: list[FloatArray]
    chance: list[npt.NDArray[np.float64]]

    @classmethod
    def of(cls, slide: TrainingSlide, expected: Tensor, model: ResidualModel, seed: int) -> "_Judged":
        spots = slide.spots
        genes, factors = model.loadings.shape

        def noise(width: int, purpose: str) -> list[FloatArray]:
            return [keyed_uniforms(seed, draw, spots.ids, width, purpose) for draw in range(TOGETHER)]

        return cls(
            slide.expression.astype(np.float64),
            expected.numpy(),
            find_neighbours(spots.xy, spots.array, spots.lattice).weights,
            [each[:, 0] for each in noise(1, "depth")],
            [ndtri(each) for each in noise(factors, "factors")],
            [ndtri(each) for each in noise(genes, "own")],
            noise(genes, "counts"),
        )

    def scores(self, model: ResidualModel) -> npt.NDArray[np.float64]:
        """Return the scores of `_JUDGED` of eight draws of `model`."""
        observation = model.observation()
        latent = observation.latent(self.expected)
        loadings, own = model.loadings.numpy(), np.sqrt(model.own.numpy())
        drawn = []
        for depth, factors, alone, chance in zip(
            self.depth, self.factors, self.own, self.chance, strict=True
        ):
            residual = observation.depth_at(depth)[:, None] + factors @ loadings.T + alone * own
            drawn.append(np.log2(count_at(np.exp(latent + residual), chance) + 1.0))
        means = proper_scores(drawn, self.truth, self.weights).means()
        return np.array([means[name] for name in _JUDGED])
