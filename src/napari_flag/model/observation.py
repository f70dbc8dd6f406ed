"""From a latent log-rate to counts: the observation model of every expectation and every draw.

A measured value is log2(k + 1) of a count k ~ Poisson(exp(η)), and the latent log-rate of gene g in spot s is

    η_sg = μ_sg + δ_s + r_sg

with the *depth residual* δ_s, common to all genes of a spot (how far its total count lies from what the image
lets one expect; on her2st a few spots are nearly empty, so its distribution has heavy tails and is kept as
quantiles), and the *composition residual* r_sg, of variance v_g (Aitchison & Ho 1989 for normal r).  From
these follow, by quadrature, E[log2(k + 1)], which is what ``X`` holds; the μ that has a given expectation;
and var[log2(k + 1)], which ``layers["sd"]`` is the root of.

Counts are drawn by inverse CDF from given uniform numbers, so that a draw is the same count wherever its rate
is the same to rounding.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray: TypeAlias = npt.NDArray[np.float64]

LOWEST: Final = -9.0
"""ln of a rate that counts nothing: one molecule in 8,000 spots."""
HIGHEST: Final = 14.0
"""ln of a million molecules of one gene."""
_BEYOND: Final = 12.0
"""How far below and above that a residual may reach."""
_STEP: Final = 0.05
_NODES: Final = 24
_SERIES: Final = 60.0
"""Rate from which the sum over counts is replaced by a quadrature; its error is below 1e-5 there."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known of the residuals around μ, and the tables that follow from it.

    Parameters
    ----------
    depth
        (q,) quantiles of δ at equal steps of probability, ln; ``[0]`` where the depth of a spot is known.
    variance
        (G,) of r, ln².
    mean, spread
        (G, m) E[log2(k + 1)] and var[log2(k + 1)] on the grid of μ from `LOWEST` to `HIGHEST`.
    """

    depth: FloatArray
    variance: FloatArray
    mean: FloatArray
    spread: FloatArray

    @classmethod
    def of(cls, depth: npt.NDArray[Any], variance: npt.NDArray[Any]) -> "Observation":
        """Tabulate for (q,) `depth` and (G,) `variance`."""
        shifts, own = np.asarray(depth, np.float64), np.asarray(variance, np.float64)
        fine, first, second = _poisson_moments()
        node, weight = np.polynomial.hermite_e.hermegauss(_NODES)
        weight = weight / weight.sum()
        # averaging over δ first: the tables of all genes share it
        shifted = fine[:, None] + shifts
        first, second = (np.interp(shifted, fine, moment).mean(1) for moment in (first, second))
        grid = _grid()
        mean, spread = np.empty((len(own), len(grid))), np.empty((len(own), len(grid)))
        for gene, root in enumerate(np.sqrt(own)):
            at = grid[:, None] + root * node  # (m, nodes)
            mean[gene] = np.interp(at, fine, first) @ weight
            spread[gene] = np.interp(at, fine, second) @ weight - mean[gene] ** 2
        return cls(shifts, own, mean, spread)

    def latent(self, expected: npt.NDArray[Any]) -> FloatArray:
        """Return the (n, G) μ whose expectation is `expected`, (n, G) log2(count + 1) above 0."""
        grid = _grid()
        columns = [np.interp(column, self.mean[gene], grid) for gene, column in enumerate(expected.T)]
        found: FloatArray = np.stack(columns, axis=1)
        return found

    def expected(self, latent: npt.NDArray[Any]) -> FloatArray:
        """Return the (n, G) E[log2(k + 1)] at (n, G) μ."""
        return self._read(self.mean, latent)

    def variance_of(self, latent: npt.NDArray[Any]) -> FloatArray:
        """Return the (n, G) var[log2(k + 1)] at (n, G) μ."""
        return self._read(self.spread, latent)

    def depth_at(self, probability: npt.NDArray[Any]) -> FloatArray:
        """Return δ at (n,) probabilities: its inverse CDF, linear between quantiles."""
        at = (np.arange(len(self.depth)) + 0.5) / len(self.depth)
        found: FloatArray = np.interp(probability, at, self.depth)
        return found

    @staticmethod
    def _read(table: FloatArray, latent: npt.NDArray[Any]) -> FloatArray:
        grid = _grid()
        return np.stack([np.interp(column, grid, table[g]) for g, column in enumerate(latent.T)], axis=1)


def count_at(rate: npt.NDArray[Any], probability: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the Poisson counts of `rate` at `probability`: the least k with CDF(k) ≥ probability.

    Parameters
    ----------
    rate
        Expected counts, any shape.
    probability
        In (0, 1), same shape.
    """
    mean = np.asarray(rate, np.float64)
    wanted = np.asarray(probability, np.float64)
    count = np.ceil(np.maximum(special.pdtrik(wanted, mean), 0.0))
    count = np.where(mean > 0, count, 0.0)
    below = np.maximum(count - 1, 0)
    # the continuous inverse is exact to rounding: look one count down
    count = np.where((count > 0) & (special.pdtr(below, mean) >= wanted), below, count)
    return count.astype(np.int64)


def expression_at(latent: npt.NDArray[Any], probability: npt.NDArray[Any]) -> FloatArray:
    """Return log2(count + 1) of the counts at `probability` where `latent` is their log-rate, ln(counts).

    Rates end at `HIGHEST`, as expectations do.
    """
    found: FloatArray = np.log2(count_at(np.exp(np.minimum(latent, HIGHEST)), probability) + 1.0)
    return found


def mixed_quantiles(quantiles: npt.NDArray[Any], weights: npt.NDArray[Any]) -> FloatArray:
    """Return (q,) quantiles of a mixture, at the steps of probability of its parts' (m, q) `quantiles`.

    Parameters
    ----------
    quantiles
        At the middles of q equal steps of probability, one part a row.
    weights
        (m,) of the parts, summing to 1.

    Raises
    ------
    FloatingPointError
        When a weight is not a number.
    """
    if not np.isfinite(weights).all():
        raise FloatingPointError("weights of a mixture that are not numbers")
    steps = quantiles.shape[1]
    own = np.repeat(np.asarray(weights, np.float64) / steps, steps)
    order = np.argsort(quantiles, axis=None, kind="stable")
    values, weight = quantiles.ravel()[order].astype(np.float64), own[order]
    seen = weight > 0
    values, weight = values[seen], weight[seen]
    at = np.cumsum(weight) - weight / 2
    found: FloatArray = np.interp((np.arange(steps) + 0.5) / steps, at / weight.sum(), values)
    return found


@cache
def _grid() -> FloatArray:
    return np.arange(LOWEST, HIGHEST, _STEP)


@cache
def _poisson_moments() -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ln(rate) on a fine grid, and E[log2(k + 1)], E[log2(k + 1)²] of Poisson counts there."""
    grid = np.arange(LOWEST - _BEYOND, HIGHEST + _BEYOND, _STEP / 2)
    rate = np.exp(grid)
    few = rate <= _SERIES
    count = np.arange(int(_SERIES + 12 * np.sqrt(_SERIES)))
    log_weight = special.xlogy(count, rate[few, None]) - rate[few, None] - special.gammaln(count + 1)
    value = np.log2(count + 1.0)
    node, weight = np.polynomial.hermite_e.hermegauss(_NODES)
    many = rate[~few, None]
    skewed = node + (node**2 - 1) / (6 * np.sqrt(many))  # Cornish–Fisher; a Poisson's skewness is 1 / √rate
    about = np.log2(np.maximum(many + np.sqrt(many) * skewed, 0) + 1)
    moments = []
    for power in (1, 2):
        found = np.empty_like(rate)
        found[few] = np.exp(log_weight) @ value**power
        found[~few] = about**power @ (weight / weight.sum())
        moments.append(found)
    return grid, moments[0], moments[1]
