"""How numbers are written wherever a person reads them: docks, hover texts, the report, the command line.

Scores have two decimals in the windows, three in the report and on the command line; a number that is not
known (NaN) is a dash, or a word where one is given.
"""

import math
from typing import Final

UNKNOWN: Final = "–"
"""Stands for a number that is not known."""


def number(value: float, digits: int = 2, unknown: str = UNKNOWN) -> str:
    """Return "0.25" with as many decimals as `digits`; what rounds to nothing is no "-0.00"."""
    if math.isnan(value):
        return unknown
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def interval(ends: tuple[float, float] | None, digits: int = 2, unknown: str = "") -> str:
    """Return "[0.12, 0.34]", or `unknown` where there is no interval (None or NaN)."""
    if ends is None or math.isnan(ends[0]) or math.isnan(ends[1]):
        return unknown
    return f"[{number(ends[0], digits)}, {number(ends[1], digits)}]"


def probability(value: float, unknown: str = UNKNOWN) -> str:
    """Return a p or q value as people write it: "0.03", "2e-05"."""
    if math.isnan(value):
        return unknown
    return f"{value:.0e}" if value < 0.001 else f"{value:.3f}" if value < 0.01 else f"{value:.2f}"


def whole(value: float, unknown: str = UNKNOWN) -> str:
    """Return "1,204"."""
    return unknown if math.isnan(value) else f"{value:,.0f}"
