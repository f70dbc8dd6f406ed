"""How wide the composition residual of draws should be, chosen on sections that were left out.

Residuals are fitted to spots that were left out of part of the training slides; a slide predicted from all of
them is expected better.  How much narrower its residuals are is chosen by proper scores around the
cross-fitted expectation, before any test section is seen.  The scores are fair ones
(`statistics.scoring_rules`): by those of eight draws too narrow a distribution would win
(`docs/results/draw_width.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri
from torch import Tensor

from flag_training.cohort import TrainingSlide
from flag_training.scoring import JUDGED, SCORED
from flag_training.stages.latents import ResidualModel, scaled
from napari_flag.model.diffusion import TOGETHER, keyed_uniforms
from napari_flag.model.observation import FloatArray, expression_at
from napari_flag.progress import Step, Steps, finish
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.scoring_rules import scoring_draws

_COMPOSITION: Final = (0.0, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Factors tried of the composition residual's standard deviation."""
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


@dataclass(frozen=True, slots=True)
class Noise:
    """What one draw is made of.

    Parameters
    ----------
    depth
        (n,) probabilities of the depth residuals.
    residual
        (n, G) composition residuals, ln(counts).
    chance
        (n, G) probabilities of the counts.
    """

    depth: FloatArray
    residual: FloatArray
    chance: FloatArray


def choose_spread(
    slides: Sequence[TrainingSlide],
    model: ResidualModel,
    resemblance: Tensor,
    expected: Sequence[Tensor],
    seed: int,
) -> Steps[Spread]:
    """Choose the factor of the composition residual's standard deviation by fair proper scores.

    Parameters
    ----------
    slides
        Training slides.
    model
        The residuals.
    resemblance
        (m, m) of the slides, as `latents.Slides` has it.
    expected
        Per slide, (n, G) cross-fitted expectation, log2(count + 1).
    seed
        Keys the noise, the same for all candidates.
    """
    step = max(1, len(slides) // _MOST_SLIDES)
    judged = list(zip(slides, resemblance, expected, strict=True))[::step][:_MOST_SLIDES]
    found = np.empty((len(judged), len(_COMPOSITION), len(JUDGED)))
    for place, (slide, seen, each) in enumerate(judged):
        here, spots = model.on(seen), slide.spots
        graph = find_neighbours(spots.xy, spots.array, spots.lattice).weights
        noise = noise_of(here, spots.ids, SCORED, seed)
        truth, expectation = slide.expression.astype(np.float64), each.double().numpy()
        for number, composition in enumerate(_COMPOSITION):
            done = place * len(_COMPOSITION) + number
            yield Step("Choosing the spread of draws", done, len(judged) * len(_COMPOSITION), "candidates")
            drawn = draws_of(here, expectation, noise, composition)
            means = finish(scoring_draws(drawn, truth, graph, block=TOGETHER)).means()
            found[place, number] = [means[name] for name in JUDGED]
    ratios = (found / found[:, -1:]).mean((0, 2))  # to the unnarrowed, the last
    scores = dict(zip(_COMPOSITION, ratios.tolist(), strict=True))
    composition = min(scores, key=scores.__getitem__)
    return Spread(scaled(model, composition), composition, scores)


def sd_factor(residual: Tensor, deviation: Tensor) -> float:
    """Return the factor of (n, G) standard deviations with which they hold 80 % of (n, G) residuals."""
    return float(np.quantile(residual.abs() / deviation.clamp_min(1e-6), _INSIDE) / _Z)


def noise_of(model: ResidualModel, ids: Sequence[str], numbers: Sequence[int], seed: int) -> list[Noise]:
    """Draw the noise of the Gaussian residuals alone.

    Parameters
    ----------
    model
        The residuals.
    ids
        Names of the spots; with seed and number they key the noise.
    numbers
        Of the draws, from 0 (`diffusion.keyed_uniforms`).
    seed
        Of the noise.
    """
    genes, factors = model.loadings.shape
    loadings, own = model.loadings.numpy(), np.sqrt(model.own.numpy())
    found = []
    for number in numbers:
        shared = ndtri(keyed_uniforms(seed, number, ids, factors, "factors")) @ loadings.T
        alone = ndtri(keyed_uniforms(seed, number, ids, genes, "own")) * own
        depth = keyed_uniforms(seed, number, ids, 1, "depth")[:, 0]
        found.append(Noise(depth, shared + alone, keyed_uniforms(seed, number, ids, genes, "counts")))
    return found


def draws_of(
    model: ResidualModel, expected: FloatArray, noise: Sequence[Noise], composition: float
) -> list[FloatArray]:
    """Return draws (n, G), log2(count + 1), around an expectation.

    Parameters
    ----------
    model
        The residuals.
    expected
        (n, G) log2(count + 1).
    noise
        Of each draw, of the residuals as they are.
    composition
        Factor of the composition residual.
    """
    observation = scaled(model, composition).observation()
    latent = observation.latent(expected)
    return [
        expression_at(
            latent + observation.depth_at(each.depth)[:, None] + composition * each.residual, each.chance
        )
        for each in noise
    ]
