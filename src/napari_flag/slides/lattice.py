"""The lattice of an array fitted to its spots: pitch, µm/px, and whether they lie where it puts them."""

from contextlib import suppress
from typing import Final

import numpy as np

from napari_flag.errors import UserError
from napari_flag.formatting import counted, counted_of
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
SAME_PLACE: Final = 0.1
"""Share of spots that lie on another's place, from which the places are wrong."""
FEWEST_PLACED: Final = 6
"""Spots from which their places say anything."""
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
        When the pitch or the array is not known, or the spots do not lie on it.
    """
    if spots.pitch_um is None or spots.array is None:
        what = (
            "the pitch of these spots in µm is" if spots.pitch_um is None else "their places in an array are"
        )
        raise UserError(
            f"µm/px cannot be estimated from the spots because {what} not known; give µm/px by hand (--mpp)."
        )
    return spots.pitch_um / fitted_pitch(spots.array, spots.xy, spots.lattice)


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

    What may well be so (an array that lies mirrored on its image) is said by `mirrored`.
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
    if spots.array is None:
        return None
    written = [f"{column}x{row}" for row, column in spots.array.tolist()]
    turned = [f"{row}x{column}" for row, column in spots.array.tolist()]
    if sum(map(str.__eq__, spots.ids, turned)) > max(sum(map(str.__eq__, spots.ids, written)), n / 2):
        return f"the ids of spots are written row × column ({spots.ids[-1]}), where column × row is meant"
    fitted = _steps(spots.array, spots.xy)
    if fitted is None:
        return None
    steps, residual = fitted
    lattice = lattice_of(spots.array) if spots.lattice == "none" else spots.lattice
    pitch = float(np.sqrt(abs(np.linalg.det(steps)) / CELL[lattice]))
    off = int((residual > max(pitch, 1e-9)).sum())
    if not pitch > 0 or np.median(residual) > LOOSEST * pitch or off > OFF_PLACE * n:
        return (
            f"{counted_of(off, n, 'spot')} do not lie where their array coordinates put them, so ids and "
            "positions are mixed up"
        )
    return None


def mirrored(spots: Spots) -> bool:
    """Return whether the array lies mirrored on the image: x and y may be swapped, or the image flipped."""
    fitted = None if spots.array is None or len(spots) < FEWEST_PLACED else _steps(spots.array, spots.xy)
    return fitted is not None and float(np.linalg.det(fitted[0])) > 0


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
