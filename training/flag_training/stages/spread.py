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
from scipy.special import ndtri
from torch import Tensor

from flag_training.cohort import TrainingSlide
from flag_training.stages.latents import ResidualModel, scaled
from napari_flag.model.diffusion import TOGETHER, keyed_uniforms
from napari_flag.model.observation import FloatArray, expression_at
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
    judged = list(zip(slides, expected, strict=True))[::step][:_MOST_SLIDES]
    base = [_scores(model, slide, each, seed) for slide, each in judged]
    scores: dict[float, float] = {}
    for number, composition in enumerate(_COMPOSITION):
        yield Step("Choosing the spread of draws", number, len(_COMPOSITION), "candidates")
        narrowed = scaled(model, composition)
        found = [_scores(narrowed, slide, each, seed) for slide, each in judged]
        ratios = [score / full for score, full in zip(found, base, strict=True)]
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


def draws_of(
    model: ResidualModel, expected: FloatArray, ids: Sequence[str], numbers: Sequence[int], seed: int
) -> list[FloatArray]:
    """Draw (n, G) log2(count + 1) around an expectation, of the Gaussian residuals alone.

    Parameters
    ----------
    model
        The residuals.
    expected
        (n, G) log2(count + 1).
    ids
        Names of the spots; with seed and number they key the noise, the same whatever the model's width.
    numbers
        Of the draws, from 0 (`diffusion.keyed_uniforms`).
    seed
        Of the noise.
    """
    observation, (genes, factors) = model.observation(), model.loadings.shape
    latent = observation.latent(expected)
    loadings, own = model.loadings.numpy(), np.sqrt(model.own.numpy())
    drawn = []
    for number in numbers:
        depth = observation.depth_at(keyed_uniforms(seed, number, ids, 1, "depth")[:, 0])
        shared = ndtri(keyed_uniforms(seed, number, ids, factors, "factors")) @ loadings.T
        alone = ndtri(keyed_uniforms(seed, number, ids, genes, "own")) * own
        chance = keyed_uniforms(seed, number, ids, genes, "counts")
        drawn.append(expression_at(latent + depth[:, None] + shared + alone, chance))
    return drawn


def _scores(model: ResidualModel, slide: TrainingSlide, expected: Tensor, seed: int) -> FloatArray:
    """Return the scores of `_JUDGED` of eight draws of `model`."""
    spots = slide.spots
    drawn = draws_of(model, expected.numpy(), spots.ids, range(TOGETHER), seed)
    graph = find_neighbours(spots.xy, spots.array, spots.lattice).weights
    means = proper_scores(drawn, slide.expression.astype(np.float64), graph).means()
    return np.array([means[name] for name in _JUDGED])
