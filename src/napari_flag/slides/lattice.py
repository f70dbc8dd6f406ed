"""The lattice of an array fitted to its spots: pitch, µm/px, and whether they lie where it puts them."""

import re
from contextlib import suppress
from typing import Final

import numpy as np

from napari_flag.errors import UserError
from napari_flag.formatting import counted, counted_of, number
from napari_flag.slides.formats.readers import Size
from napari_flag.slides.spots import MANY, FloatArray, IntArray, Lattice, Spots, typical_pitch

TRIMMED: Final = 4.0
"""Residuals beyond this many robust standard deviations are left out of the fit."""
LOOSEST: Final = 0.3
"""Median residual, in pitches, beyond which positions and array do not belong together."""
CELL: Final[dict[Lattice, float]] = {"square": 1.0, "hex": np.sqrt(3) / 4}
"""Area per (row, column) step in squared pitches; in Visium's count a hex step is half a pitch
across and √3/2 down."""
OFF_PLACE: Final = 0.02
"""Share of spots more than a pitch from where their array puts them, from which they are mixed up."""
UNEVEN: Final = 1.1
"""Distance of spots along one axis of their array over that along the other, from which one was scaled:
it is 1.014 at most on 35 sections of her2st."""
SAME_PLACE: Final = 0.1
"""Share of spots that lie on another's place, from which the places are wrong."""
FEWEST_PLACED: Final = 6
"""Spots from which their places say anything."""
FEWEST_IN_LINE: Final = 20
"""Spots from which one line of them is no choice of a row, but a coordinate that is lost."""
ONE_PLACE_PX: Final = 2.0
"""Extent of all spots, along the picture or across their line, within which they lie in one place."""
DEFAULT_FILL: Final = 0.55
"""Spot diameter drawn where none is known, in pitches: Visium's 55 µm at 100 µm."""
ALONE_UM: Final = 55.0
"""The same where all spots are in one place, so that there is no pitch."""
ALONE_SHARE: Final = 0.01
"""The same where µm/px is not known either, as a share of the picture's longest side: a spot that is seen."""
MISPLACED: Final = "The spots look wrong ("
"""How every sentence begins on spots that were used though they are `misplaced`, before why."""
MIRRORED: Final = (
    "The array of spots lies mirrored on the picture; if the picture was not flipped, x and y are swapped in "
    "the table, and all genes stand in other places than they belong."
)


def lattice_of(array: IntArray) -> Lattice:
    """Return "hex" where row + column always has one parity, as Visium counts, else "square"."""
    parity = array.sum(axis=1) % 2
    return "hex" if len(parity) > 1 and (parity == parity[0]).all() else "square"


def estimate_mpp(spots: Spots) -> float:
    """Return µm per level-0 pixel by fitting the array's lattice to the spots.

    Parameters
    ----------
    spots
        With `pitch_um` and `array`.

    Raises
    ------
    UserError
        When the pitch or the array is not known, or the spots do not lie on it, or on one that was skewed.
    """
    if spots.pitch_um is None or spots.array is None:
        what = (
            "the pitch of these spots in µm is" if spots.pitch_um is None else "their places in an array are"
        )
        raise UserError(
            f"µm/px cannot be estimated from the spots because {what} not known; give µm/px by hand (--mpp)."
        )
    pitch = fitted_pitch(spots.array, spots.xy, spots.lattice)
    if (skewed := _skewed(spots, spots.array)) is not None:
        raise UserError(
            f"µm/px cannot be estimated from the spots, since {skewed}; check the table, or give µm/px by "
            "hand (--mpp)."
        )
    return spots.pitch_um / pitch


def pitch_of(spots: Spots, mpp: float) -> float:
    """Return the distance between spots in µm: stated, else that found among them."""
    return spots.pitch_um or pitch_px(spots) * mpp


def pitch_px(spots: Spots, mpp: float | None = None) -> float:
    """Return the distance between spots in level-0 px.

    The stated one where µm/px is given, else that of the fitted lattice, else the median distance to the
    nearest: that is too short where spots jitter, by 4 to 7 % on her2st.  Of more than `MANY` spots a part is
    fitted, spread evenly: docks ask at every change.
    """
    if spots.pitch_um and mpp:
        return spots.pitch_um / mpp
    if spots.array is not None and len(spots):
        lattice = lattice_of(spots.array) if spots.lattice == "none" else spots.lattice
        some = slice(None, None, -(-len(spots) // MANY))
        with suppress(UserError):
            return fitted_pitch(spots.array[some], spots.xy[some], lattice)
    return typical_pitch(spots.xy)


def misplaced(spots: Spots) -> str | None:
    """Return why places, array and ids of `spots` cannot all be right; None where nothing is against them.

    What may well be so (an array that lies mirrored on its image) is said by `mirrored`.  Where no array is
    known, ids that are written as places in one (10x13) state it.
    """
    n = len(spots)
    if n < FEWEST_PLACED:
        return None
    shared = n - len(np.unique(spots.xy, axis=0))
    if shared > SAME_PLACE * n:
        return (
            f"{counted_of(shared + 1, n, 'spot')} share their place with another, so the positions are not "
            "theirs"
        )
    if np.ptp(spots.xy, axis=0).max() <= ONE_PLACE_PX:
        return f"all {counted(n, 'spot')} lie within {ONE_PLACE_PX:g} px, so the positions are not pixels"
    array = _stated_array(spots)
    if n >= FEWEST_IN_LINE and _width(spots.xy) <= ONE_PLACE_PX and not _is_line(array):
        return f"all {counted(n, 'spot')} lie on one line, so a coordinate of theirs is lost"
    if array is None:
        return None
    written = [f"{column}x{row}" for row, column in array.tolist()]
    turned = [f"{row}x{column}" for row, column in array.tolist()]
    if sum(map(str.__eq__, spots.ids, turned)) > max(sum(map(str.__eq__, spots.ids, written)), n / 2):
        return f"the ids of spots are written row × column ({spots.ids[-1]}), where column × row is meant"
    found = _off_places(spots, array)
    if found is None:
        return None
    residual, pitch = found
    off = int((residual > max(pitch, 1e-9)).sum())
    if not pitch > 0 or np.median(residual) > LOOSEST * pitch or off > OFF_PLACE * n:
        return (
            f"{counted_of(off, n, 'spot')} do not lie where their array coordinates put them, so ids and "
            "positions are mixed up"
        )
    return _skewed(spots, array)


def astray(spots: Spots) -> str | None:
    """Return a sentence on some spots more than a pitch from where their array puts them; None for none.

    Too few to refuse them all (`misplaced`); of 35 sections of her2st none has one, .4 pitches is the most.
    """
    array = _stated_array(spots)
    found = None if array is None or len(spots) < FEWEST_PLACED else _off_places(spots, array)
    if found is None:
        return None
    residual, pitch = found
    off = np.flatnonzero(residual > max(pitch, 1e-9))
    if not len(off):
        return None
    return (
        f"{counted_of(len(off), len(spots), 'spot')} lie more than a spot from where their array coordinates "
        f"put them (such as {spots.ids[off[0]]}), so their rows may be exchanged; check them in the table."
    )


def _off_places(spots: Spots, array: IntArray) -> tuple[FloatArray, float] | None:
    """Return how many px each spot lies from where its array puts it, and the pitch; None for one line."""
    fitted = _steps(array, spots.xy)
    if fitted is None:
        return None
    steps, residual = fitted
    lattice = lattice_of(array) if spots.lattice == "none" else spots.lattice
    pitch = float(np.sqrt(abs(np.linalg.det(steps)) / CELL[lattice]))
    if spots.array is None:  # ids may count in pixels, of which the lattice has one a step
        pitch = max(pitch, typical_pitch(spots.xy))
    return residual, pitch


def _skewed(spots: Spots, array: IntArray) -> str | None:
    """Return why one axis was scaled, or the array sheared; None where it is as its technology makes it.

    Of an array whose pitch is not stated nobody knows that it is as wide as it is high.
    """
    fitted = None if spots.pitch_um is None else _steps(array, spots.xy)
    if fitted is None:
        return None
    lattice = lattice_of(array) if spots.lattice == "none" else spots.lattice
    step = np.array([[np.sqrt(3) / 2], [0.5]]) if lattice == "hex" else np.ones((2, 1))
    most, least = np.linalg.svd(fitted[0] / step)[1]
    if most <= UNEVEN * least:
        return None
    return (
        f"the spots lie {number(most / least)} times as far apart along one axis as along another, which an "
        "array of this kind does not, so a coordinate was scaled or sheared"
    )


def mirrored(spots: Spots) -> bool:
    """Return whether the array lies mirrored on the image: x and y may be swapped, or the image flipped."""
    array = _stated_array(spots)
    fitted = None if array is None or len(spots) < FEWEST_PLACED else _steps(array, spots.xy)
    return fitted is not None and float(np.linalg.det(fitted[0])) > 0


_BY_PLACE: Final = re.compile(r"(\d{1,6})x(\d{1,6})", re.ASCII)


def _stated_array(spots: Spots) -> IntArray | None:
    """Return the (n, 2) array row and column of spots, else as all of their ids (10x13) state it."""
    if spots.array is not None:
        return spots.array
    parts = [_BY_PLACE.fullmatch(name) for name in spots.ids]
    stated = [(int(part[2]), int(part[1])) for part in parts if part is not None]
    return np.array(stated, np.int64) if len(stated) == len(parts) else None


def _width(xy: FloatArray) -> float:
    """Return the extent of spots across the line that fits them best."""
    centred = xy - xy.mean(axis=0)
    across = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    return float(np.ptp(centred @ across))


def _is_line(array: IntArray | None) -> bool:
    return array is not None and np.linalg.matrix_rank(array - array.mean(axis=0)) < 2


def _steps(array: IntArray, xy: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Fit xy = array @ steps + origin without outliers; return steps and residuals, None for one line."""
    design = np.column_stack([array, np.ones(len(array))]).astype(np.float64)
    keep = np.ones(len(xy), dtype=bool)
    for _ in range(10):
        if np.linalg.matrix_rank(design[keep] - design[keep].mean(axis=0)) < 2:
            return None
        fitted = np.linalg.lstsq(design[keep], xy[keep], rcond=None)[0]
        residual: FloatArray = np.linalg.norm(design @ fitted - xy, axis=1)
        trimmed = residual <= TRIMMED * max(np.median(residual) / 1.18, 1e-9)
        if (trimmed == keep).all():
            break
        keep = trimmed
    steps: FloatArray = np.asarray(fitted[:2], np.float64)
    return steps, residual


def drawn_diameter(spots: Spots, mpp: float | None, size: Size | None = None) -> float:
    """Return the diameter that spots are drawn with, in level-0 px.

    The stated one where µm/px is given; else a share of the pitch, that of the stated diameter where both are
    stated.  One spot alone has no pitch: it is drawn 55 µm wide where µm/px is given, else as a share of the
    picture.  Nothing but what is drawn depends on it.

    Parameters
    ----------
    spots
        The spots.
    mpp
        µm per level-0 px, or None.
    size
        (width, height) of the picture; None takes it to end at the outermost spot.
    """
    if spots.diameter_um and mpp:
        return spots.diameter_um / mpp
    if (spots.pitch_um and mpp) or (len(spots) and np.ptp(spots.xy, axis=0).any()):
        known = spots.diameter_um and spots.pitch_um and spots.diameter_um / spots.pitch_um
        return (known or DEFAULT_FILL) * pitch_px(spots, mpp)
    if mpp:
        return ALONE_UM / mpp
    outermost = float(np.abs(spots.xy).max(initial=0)) if size is None else float(max(size))
    return max(ALONE_SHARE * outermost, 1.0)


def fitted_pitch(array: IntArray, xy: FloatArray, lattice: Lattice) -> float:
    """Return the distance between spots in px of the lattice fitted to them, by the area of its unit cell.

    The whole lattice is fitted (least squares, outliers trimmed): nearest distances are biased when spots
    jitter.

    Raises
    ------
    UserError
        When the spots lie in one line, or not where their array puts them.
    """
    fitted = _steps(array, xy)
    if fitted is None:
        raise UserError(
            f"{counted(len(xy), 'spot')} in one line do not show the array's lattice, so µm/px cannot be "
            "estimated; give it by hand (--mpp)."
        )
    steps, residual = fitted
    cell = CELL[lattice_of(array) if lattice == "none" else lattice]
    pitch = float(np.sqrt(abs(np.linalg.det(steps)) / cell))
    if not pitch > 0 or np.median(residual) > LOOSEST * pitch:
        raise UserError(
            "The spots' positions do not follow their array coordinates, so µm/px cannot be "
            "estimated from them; check the table, or give µm/px by hand (--mpp)."
        )
    return pitch
