"""Calibration: a 90 % prediction interval should contain 90 % of the measured values.

Every array is (n spots, G genes), log2(count + 1).  Counts are whole numbers and often 0, so that many
intervals begin at 0 and hold the truth there with certainty: an honest model covers *at least* the nominal
share.  `Coverage.positive` therefore reports the share over measurements above 0 as well; a share
below the nominal one there is not by itself a fault, because these measurements are chosen by their value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.statistics.accuracy import FloatArray

LEVELS: Final = (0.5, 0.8, 0.95)
"""Nominal shares that reports state."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much truth lies within the intervals of one nominal share.

    Parameters
    ----------
    level
        Nominal share, 0–1.
    share
        Share of all (spot, gene) measurements inside, bounds included.
    below, above
        Shares below the lower and above the upper bound; `share` + `below` + `above` = 1.
    positive
        `share` among measurements above 0; NaN where there is none.
    width
        Mean width of the intervals, in log2(count + 1).
    """

    level: float
    share: float
    below: float
    above: float
    positive: float
    width: float


def normal_coverage(
    mean: npt.NDArray[Any],
    spread: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    levels: Sequence[float] = LEVELS,
) -> tuple[Coverage, ...]:
    """Measure mean ± z · spread, cut off at 0: what a reader of ``X`` and ``layers["sd"]`` would draw.

    Parameters
    ----------
    mean, spread
        (n, G) expectation and standard deviation of one measurement.
    truth
        (n, G).
    levels
        Nominal shares.
    """
    from scipy.special import ndtri

    _check(mean.shape, truth, levels)
    wide, sd = mean.astype(np.float64), spread.astype(np.float64)
    found = []
    for level in levels:
        reach = ndtri((1 + level) / 2) * sd
        found.append(_measure(np.maximum(wide - reach, 0.0), wide + reach, truth, level))
    return tuple(found)


def spread_over_error(mean: npt.NDArray[Any], spread: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Return root mean square spread ÷ root mean square error: 1 is calibrated, below 1 too sure of itself.

    Parameters
    ----------
    mean, spread, truth
        (n, G).
    """
    error = truth.astype(np.float64) - mean.astype(np.float64)
    return float(np.sqrt((spread.astype(np.float64) ** 2).mean() / (error * error).mean()))


def _measure(lower: FloatArray, upper: FloatArray, truth: npt.NDArray[Any], level: float) -> Coverage:
    below, above = truth < lower, truth > upper
    inside = ~(below | above)
    seen = truth > 0
    return Coverage(
        level=level,
        share=float(inside.mean()),
        below=float(below.mean()),
        above=float(above.mean()),
        positive=float(inside[seen].mean()) if seen.any() else float("nan"),
        width=float((upper - lower).mean()),
    )


def _check(shape: tuple[int, ...], truth: npt.NDArray[Any], levels: Sequence[float]) -> None:
    if shape != truth.shape:
        raise ValueError(f"predictions are {shape} but measurements {truth.shape}")
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels are shares between 0 and 1, not {tuple(levels)}")
