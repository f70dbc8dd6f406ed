"""Where a number lies along an axis, and which ticks the axis gets.  Holds no Qt."""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances between ticks that people read easily, times a power of ten."""

MARGIN: Final = 0.05
"""Share of the range left free at either end, so that no point lies on the frame."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a plot.

    Parameters
    ----------
    low, high
        Numbers at its ends, low < high.
    label
        What it shows, with the unit.
    """

    low: float = 0.0
    high: float = 1.0
    label: str = ""

    def fraction(self, values: Any) -> FloatArray:
        """Return where `values` lie between the ends: 0 at `low`, 1 at `high`."""
        return (np.asarray(values, np.float64) - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> tuple[tuple[float, str], ...]:
        """Return (number, text) of at most `most` + 1 ticks inside the axis."""
        return ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int = 5) -> tuple[tuple[float, str], ...]:
    """Return (number, text) of round numbers between `low` and `high`."""
    about = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(about))
    step = next(power * s for s in STEPS if power * s >= about * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if step / power == 2.5:
        digits += 1
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((k * step, f"{k * step:.{digits}f}".replace("-", "−")) for k in range(first, last + 1))


def axis_over(values: FloatArray, label: str = "", *, margin: float = MARGIN) -> Axis:
    """Return an axis with room for all finite `values`."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Axis(label=label)
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5, high + 0.5
    room = margin * (high - low)
    return Axis(low - room, high + room, label)


def bin_edges(values: FloatArray, most: int = 30) -> FloatArray:
    """Return edges of bins of one round width that hold all finite `values`; at most `most` + 1 bins."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    marks = ticks(low, high, most)
    step = marks[1][0] - marks[0][0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    edges: FloatArray = np.arange(first, last + 1, dtype=np.float64) * step
    return edges
