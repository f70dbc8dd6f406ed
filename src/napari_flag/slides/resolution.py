"""µm per pixel: read from metadata of the file, with its source, and checked for plausibility."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from napari_flag.formatting import TYPED, percent, resolution, whole

PLAUSIBLE: Final = (0.1, 2.0)
"""µm/px of bright-field scans: 80x is about 0.12, 5x about 2."""
AGREE: Final = 0.05
"""Relative difference of two µm/px, one stated and one from the spots' array, up to which they agree."""
TWENTYFOLD: Final = 0.5
"""µm/px of a 20x scan, which pictures that were reduced are compared with."""
FINEST: Final = 0.01
"""µm/px below which a number is no scale of a microscope: light resolves .2 µm."""
SCREEN_SETTING: Final = 10.0
"""µm/px from which a resolution tag is taken for a print or screen setting (2540 dpi and less)."""
SQUARE_WITHIN: Final = 0.01
"""Relative difference of the two µm/px up to which pixels are taken for square."""

MICRONS: Final[Mapping[str, float]] = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
"""µm in one unit, by the names OME-XML and ImageJ use."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a file says of its scale: µm per level-0 pixel (None if unknown), source, notices."""

    mpp: float | None = None
    source: str = ""
    notices: tuple[str, ...] = ()


UNKNOWN: Final = Resolution()


def stated(x: float, y: float, source: str) -> Resolution:
    """Return the resolution of a file that states µm/px along x and y.

    Values that are no resolution of a scan (zero or immeasurably small, not finite, a screen's 72 dpi)
    count as unknown; pixels that are not square get the geometric mean and a notice.
    """
    if not (math.isfinite(x) and math.isfinite(y) and min(x, y) >= FINEST):
        return UNKNOWN
    mpp = x if x == y else math.sqrt(x * y)
    if mpp >= SCREEN_SETTING:
        notice = (
            f"The file states {whole(25400 / mpp)} dpi ({source}), which is a print or screen setting "
            "and not the scanner's, so µm/px counts as unknown."
        )
        return Resolution(notices=(notice,))
    if abs(x / y - 1) <= SQUARE_WITHIN:
        return Resolution(mpp, source)
    notice = (
        f"The pixels are not square ({resolution(x, unit=False)} × {resolution(y, unit=False)} µm, "
        f"{source}); {resolution(mpp)} is used both ways, so distances are off by up to "
        f"{percent(math.sqrt(max(x / y, y / x)) - 1)}."
    )
    return Resolution(mpp, source, (notice,))


def check_mpp(mpp: float, source: str = "", suggested: float | None = None, scale: float = 1.0) -> str | None:
    """Return a sentence when a µm/px is doubtful, or when the picture is a reduced one; else None.

    Parameters
    ----------
    mpp, source
        µm per level-0 pixel, and where that came from.
    suggested
        µm/px that the spots' array suggests; None where it cannot say.
    scale
        Level-0 px per px of the full-resolution slide, for which a person gives the µm/px.
    """
    low, high = PLAUSIBLE
    if suggested is not None and not agrees(mpp, suggested):
        right = resolution(suggested * scale, TYPED, unit=False)
        return (
            f"µm/px is {resolution(mpp * scale, TYPED, unit=False)} ({source or 'as stated'}), but the "
            f"spots' array suggests {right}; if that is right, set µm/px to {right} (Estimate in step 1, "
            "--mpp on the command line)."
        )
    if math.isfinite(mpp) and low <= mpp <= high:
        return None
    if suggested is not None:
        return f"{reduced(mpp)}; open the full-resolution slide." if mpp > high else None
    return (
        f"{resolution(mpp, TYPED)} is outside {resolution(low, unit=False)}–{resolution(high, unit=False)}, "
        "the range of slide scanners, so the number is wrong or this is a reduced picture of the slide; read "
        "the spot table, whose array tells which, or check the scanner's settings."
    )


def unknown_scale(name: str, suggested: float | None = None) -> str:
    """Say why a picture of unknown µm/px is not predicted, and where to give it.

    Parameters
    ----------
    name
        File name of the picture.
    suggested
        µm/px that the spots' array suggests; None where it cannot say.
    """
    unknown = f"{name} does not say how large a pixel is, and guessing would give wrong genes"
    if suggested is not None:
        right = resolution(suggested, TYPED, unit=False)
        return (
            f"{unknown}; the spots' array suggests {right} µm per pixel, so if that is right press "
            f"Estimate in step 1 (--mpp {right} on the command line, mpp={right} in Python)."
        )
    return (
        f"{unknown}; set µm/px in step 1 (--mpp 0.5 on the command line, mpp=0.5 in Python), "
        "which is about 0.5 for most 20× scans."
    )


def agrees(mpp: float, suggested: float) -> bool:
    """Return whether a µm/px is the one that the spots' array suggests, to 5 %."""
    return abs(mpp / suggested - 1) <= AGREE


def reduced(mpp: float) -> str:
    """Say, without an end, that a picture whose µm/px the array confirms is a reduced one."""
    return (
        f"This is a picture of the slide reduced about {whole(mpp / TWENTYFOLD)}-fold from a 20× scan "
        f"({resolution(mpp, TYPED)} agrees with the array's pitch, so the number is right)"
    )


def from_openslide(properties: Mapping[str, str]) -> Resolution:
    """Return the resolution OpenSlide's `properties` state."""
    x, y = _number(properties, "openslide.mpp-x"), _number(properties, "openslide.mpp-y")
    if x is not None or y is not None:
        return stated(x or y or 0.0, y or x or 0.0, "openslide.mpp-x")
    aperio = _number(properties, "aperio.MPP")
    if aperio is not None:
        return stated(aperio, aperio, "aperio.MPP")
    micron = {"inch": 25400.0, "centimeter": 1e4}.get(properties.get("tiff.ResolutionUnit", ""))
    x, y = _number(properties, "tiff.XResolution"), _number(properties, "tiff.YResolution")
    if micron and x:
        return stated(micron / x, micron / (y or x), "TIFF resolution tags")
    power = properties.get("openslide.objective-power")
    if power:
        notice = (
            f"The slide states its magnification ({power}x) but not its µm/px; magnification "
            "alone does not fix it, so ask the scanner's operator or estimate it from the spots."
        )
        return Resolution(notices=(notice,))
    return UNKNOWN


def _number(properties: Mapping[str, str], key: str) -> float | None:
    try:
        value = float(properties.get(key, "").replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
