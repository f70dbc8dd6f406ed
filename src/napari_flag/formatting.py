"""How numbers are written wherever a person reads them: docks, report, command line, tables of training.

Scores have a leading zero and three decimals, those that differ late four, and their differences four; all
else (expression, correlations of two genes, axes) two. Counts have a comma at every thousand; a negative
number has a minus sign, not a hyphen; between a number and its unit, "%" too, is a blank.  A number that is
not known (NaN) is a dash, or a word where one is given.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

UNKNOWN: Final = "–"
"""Stands for a number that is not known."""
UNDEFINED: Final = "not defined"
"""Stands for a score that its formula does not define here, as a correlation of what does not vary."""
_SCORE: Final = 3
_LATE: Final = 4
"""Decimals of scores that differ late, and of differences of scores."""
_DIFFERING_LATE: Final = ("CRPS", "VS-gene", "VS-space")
_FAIR: Final = " fair"
"""Ends the name of a score of the distribution itself, whatever the number of draws."""
TYPED: Final = 4
"""Decimals of µm/px that a person types, or is asked to type; of all µm/px in one sentence with them."""
MINUS: Final = "−"
_MICROMETRES: Final = re.compile(r"\bum\b")
_HASH: Final = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}$")
MEGABYTE: Final = 10**6


def number(value: float, digits: int = 2, unknown: str = UNKNOWN) -> str:
    """Return "0.25" with as many decimals as `digits`; what rounds to nothing is no "-0.00"."""
    if math.isnan(value):
        return unknown
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text.replace("-", MINUS)


def score(value: float, metric: str, unknown: str = UNKNOWN, *, sd: float = math.nan) -> str:
    """Return a score as every place writes it: "0.704", with a standard deviation "0.704 ± 0.001".

    Parameters
    ----------
    value
        The score, or another measure of likeness, as Moran's I, ARI or AUC.
    metric
        Its name, which settles the decimals: "PCC", "CRPS", "CRPS fair".
    unknown
        What stands for NaN.
    sd
        Its standard deviation, or standard error; NaN where there is none.
    """
    text = number(value, _decimals(metric), unknown)
    return text if math.isnan(value) or math.isnan(sd) else f"{text} ± {number(sd, _decimals(metric))}"


def interval(ends: tuple[float, float] | None, metric: str, unknown: str = "") -> str:
    """Return the interval of a score, "[0.123, 0.345]", or `unknown` where there is none (None or NaN)."""
    if ends is None or math.isnan(ends[0]) or math.isnan(ends[1]):
        return unknown
    return f"[{score(ends[0], metric)}, {score(ends[1], metric)}]"


def difference(
    value: float, ends: tuple[float, float] | None = None, *, error: float = math.nan, unknown: str = UNKNOWN
) -> str:
    """Return one score less another, with its sign: "+0.0123 [−0.0010, +0.0200]", "+0.0123 ± 0.0004"."""
    if math.isnan(value):
        return unknown
    text = _signed(value)
    if not math.isnan(error):
        text += f" ± {number(error, _LATE)}"
    if ends is None or math.isnan(ends[0]) or math.isnan(ends[1]):
        return text
    return f"{text} [{_signed(ends[0])}, {_signed(ends[1])}]"


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


def counted_of(part: int, total: int, what: str) -> str:
    """Return "183 of 1,204 spots"."""
    return f"{whole(part)} of {counted(total, what)}"


LONGEST_NAME: Final = 80
"""Letters of a name in a sentence; an unclosed quote makes one of many lines."""
_NOT_SHOWN: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control and direction marks, halves of characters: what acts on a terminal, or is no character of XML."""


LINE_ENDS: Final = "\n\t"
"""What may stand in a text of several lines."""


def legible(text: str, keep: str = "") -> str:
    """Return a text of a file with a sign in place of each character that is none: "␛" for escape.

    Parameters
    ----------
    text
        A name or a sentence, of whatever source.
    keep
        Characters that stay, such as those that end a line.
    """
    return _NOT_SHOWN.sub(lambda found: found[0] if found[0] in keep else _sign_for(found[0]), text)


def _sign_for(control: str) -> str:
    number = ord(control)
    return chr(0x2400 + number) if number < 0x20 else "\u2421" if number == 0x7F else "\ufffd"


_ACTING: Final = re.compile(
    r"(?P<code>`\w+`)|(?P<reference>&(?=#?\w+;))|(?P<tag><)"
    r"|[\\`*{|]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])"
)
"""What may act in Markdown where no line begins; a word in backquotes, as `X`, does not."""


def in_markdown(text: str) -> str:
    """Return a text of a file as it stands in a page of Markdown: on one line, with nothing in it that acts.

    Ordinary names stay as they are, also "her2st_C5", "`X`" and "0.5 [0.4, 0.6]".
    """
    return _ACTING.sub(_not_acting, legible(text))


def _not_acting(found: re.Match[str]) -> str:
    if found["code"]:
        return found["code"]
    return "&amp;" if found["reference"] else "&lt;" if found["tag"] else f"\\{found[0]}"


def as_code(text: str) -> str:
    """Return a text, such as a command, between backquotes of Markdown, on one line and as it is."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, blank = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{blank}{legible(text)}{blank}{fence}"


def first_of(names: Sequence[str], most: int) -> str:
    """Return "A, B, C", of more than `most` names the first ones and "…"; each on one line and cut."""
    shown = [
        legible(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…")
        for name in map(str, names[:most])
    ]
    return ", ".join(shown) + (", …" if len(names) > most else "")


def percent(share: float, digits: int = 0, unknown: str = UNKNOWN) -> str:
    """Return "38 %" for .38."""
    return unknown if math.isnan(share) else f"{number(100 * share, digits)} %"


def percent_reached(share: float, unknown: str = UNKNOWN) -> str:
    """Return the whole per cent that a share of spots reaches: "99 %" for .998, since "100 %" means all."""
    if math.isnan(share):
        return unknown
    reached = math.floor(round(100 * share, 6))  # 100 * .29 is 28.999999999999996
    return percent((reached if share >= 1 else min(reached, 99)) / 100)


def length(um: float) -> str:
    """Return a length on the slide: "55 µm", "6.5 mm" from 1,000 µm on."""
    return f"{_short(um / 1000)} mm" if um >= 1000 else f"{_short(um)} µm"


def resolution(mpp: float, digits: int = 3, *, unit: bool = True) -> str:
    """Return "0.683 µm/px", "0.5 µm/px" with at most `digits` decimals; or the number alone."""
    slip = 0 < mpp < 0.01  # as no slide has: to be seen, and not rounded to 0
    text = f"{mpp:.1g}" if slip else number(mpp, digits).rstrip("0").rstrip(".")
    return f"{text} µm/px" if unit else text


def entry_name(key: str) -> str:
    """Return what an entry of a record is called: "µm per px" for "um_per_px"."""
    return _MICROMETRES.sub("µm", key.replace("_", " "))


def entry(value: object) -> str:
    """Return what a record of settings holds, numbers as they are typed, lists with commas.

    Of hashes in a list the first twelve digits stand for each; the file keeps them whole.
    """
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, Mapping):
        return ", ".join(f"{entry_name(str(key))} {entry(inner)}" for key, inner in listed.items())
    if isinstance(listed, list | tuple):
        return ", ".join(_HASH.sub(r"\1…", entry(each)) for each in listed) or "none"
    if listed is None:
        return "none"
    if isinstance(listed, float) and math.isnan(listed):
        return UNKNOWN
    return f"{listed:g}" if isinstance(listed, float) else str(listed)


def duration(seconds: float) -> str:
    """Return how long something took: "42 s", "6 min 12 s", "2 h 3 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        parts = [(minutes, "min"), (rest, "s")]
    else:
        hours, minutes = divmod(round(seconds / 60), 60)
        parts = [(hours, "h"), (minutes, "min")]
    return " ".join(f"{whole(count)} {unit}" for count, unit in parts if count) or "0 s"


def spread(ascending: Sequence[float], write: Callable[[float], str]) -> str:
    """Return the ends of what values spread over: "100 µm to 200 µm", or the one text of all."""
    ends = dict.fromkeys(map(write, (ascending[0], ascending[-1])))
    return " to ".join(ends)


def px(size: tuple[float, float] | None) -> str:
    """Return the size of an image, (width, height): "9,272 × 9,920 px"."""
    return "unknown size" if size is None else f"{whole(size[0])} × {whole(size[1])} px"


def data_size(size: float) -> str:
    """Return a size in bytes, of a file or in memory: "1.2 GB", "480 MB" or "75 kB"."""
    if size >= 1e9:
        return f"{number(size / 1e9, 1)} GB"
    return f"{whole(size / MEGABYTE)} MB" if size >= MEGABYTE else f"{whole(math.ceil(size / 1e3))} kB"


def _decimals(metric: str) -> int:
    return _LATE if metric.removesuffix(_FAIR) in _DIFFERING_LATE else _SCORE


def _signed(value: float) -> str:
    text = number(value, _LATE)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def _short(value: float) -> str:
    """Return at most one decimal: "55", "6.5"."""
    return number(value, 1).removesuffix(".0")
