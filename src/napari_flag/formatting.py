"""How numbers are written wherever a person reads them: docks, hover texts, the report, the command line.

Scores have a leading zero, and two decimals in the windows (proper scores, which differ by little, three),
three in the report and on the command line; counts have a comma at every thousand; a negative number has a
minus sign, not a hyphen; between a number and its unit, "%" too, is a blank.  A number that is not known
(NaN) is a dash, or a word where one is given.
"""

import math
from collections.abc import Sequence
from typing import Final

UNKNOWN: Final = "–"
"""Stands for a number that is not known."""
FINE: Final = 3
"""Decimals of proper scores in the windows."""
MINUS: Final = "−"


def number(value: float, digits: int = 2, unknown: str = UNKNOWN) -> str:
    """Return "0.25" with as many decimals as `digits`; what rounds to nothing is no "-0.00"."""
    if math.isnan(value):
        return unknown
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text.replace("-", MINUS)


def interval(ends: tuple[float, float] | None, digits: int = 2, unknown: str = "") -> str:
    """Return "[0.12, 0.34]", or `unknown` where there is no interval (None or NaN)."""
    if ends is None or math.isnan(ends[0]) or math.isnan(ends[1]):
        return unknown
    return f"[{number(ends[0], digits)}, {number(ends[1], digits)}]"


def probability(value: float, unknown: str = UNKNOWN) -> str:
    """Return a p or q value as people write it: "0.03", "2e-05"."""
    if math.isnan(value):
        return unknown
    if value < 0.00095:  # what would round to 0.001 is written so
        return f"{value:.0e}"
    return f"{value:.3f}" if value < 0.0095 else f"{value:.2f}"


def area(mm2: float, *, unit: bool = True, unknown: str = UNKNOWN) -> str:
    """Return "1.25 mm²", below 1 mm² "0.125 mm²", from 100 mm² on "125 mm²"; or the number alone."""
    if math.isnan(mm2):
        return unknown
    text = number(mm2, 3 if mm2 < 1 else 2 if mm2 < 100 else 0)
    return f"{text} mm²" if unit else text


def whole(value: float, unknown: str = UNKNOWN) -> str:
    """Return "1,204"."""
    return number(value, 0, unknown)


def counted(count: int, what: str) -> str:
    """Return "1,204 spots", "1 spot"."""
    return f"{whole(count)} {what}{'' if count == 1 else 's'}"


def first_of(names: Sequence[str], most: int) -> str:
    """Return "A, B, C", of more than `most` names the first ones and "…"."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def percent(share: float, digits: int = 0, unknown: str = UNKNOWN) -> str:
    """Return "38 %" for .38."""
    return unknown if math.isnan(share) else f"{number(100 * share, digits)} %"


def length(um: float) -> str:
    """Return a length on the slide: "55 µm", "6.5 mm" from 1,000 µm on."""
    return f"{_short(um / 1000)} mm" if um >= 1000 else f"{_short(um)} µm"


def resolution(mpp: float) -> str:
    """Return "0.683 µm/px", "0.5 µm/px"."""
    return f"{number(mpp, 3).rstrip('0').rstrip('.')} µm/px"


def data_size(size: float) -> str:
    """Return a size in bytes, of a file or in memory: "1.2 GB", below a gigabyte "480 MB"."""
    return f"{number(size / 1e9, 1)} GB" if size >= 1e9 else f"{whole(size / 1e6)} MB"


def _short(value: float) -> str:
    """Return at most one decimal: "55", "6.5"."""
    return number(value, 1).removesuffix(".0")
