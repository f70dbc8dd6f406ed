"""Spots: where on the slide expression is measured or predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError

if TYPE_CHECKING:
    from shapely import Polygon

    from napari_flag.slides.tissue import Tissue

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Lattice: TypeAlias = Literal["square", "hex", "none"]

MOST_POSITIONS: Final = 5_000_000
"""Grid positions above which a spacing is surely a slip of the pen (1 µm on a whole slide)."""


@dataclass(frozen=True, slots=True)
class Spots:
    """Spots of one slide, in the order given.

    Parameters
    ----------
    ids
        One unique name per spot: ``10x21``, a barcode, or ``row_col`` on a grid.
    xy
        (n, 2) float64, (x, y) centres in level-0 pixels.
    diameter_um, pitch_um
        Diameter and centre-to-centre distance on the glass in µm, nominal for the technology
        (legacy ST 100 / 200, Visium 55 / 100) or as chosen for a grid; None if not known.
    lattice
        How the array is laid out; decides which spots are first-ring neighbours.
    array
        (n, 2) int64, (array_row, array_col), or None where the array is not known.
        Square: neighbours differ by (0, ±1), (±1, 0).  Hex: by (0, ±2), (±1, ±1), as Visium counts.
    """

    ids: tuple[str, ...]
    xy: FloatArray
    diameter_um: float | None = None
    pitch_um: float | None = None
    lattice: Lattice = "none"
    array: IntArray | None = field(default=None)

    def __post_init__(self) -> None:
        """Refuse what cannot be spots."""
        if self.xy.ndim != 2 or self.xy.shape != (len(self.ids), 2):
            raise ValueError(f"xy has shape {self.xy.shape}, expected ({len(self.ids)}, 2)")
        if self.array is not None and self.array.shape != self.xy.shape:
            raise ValueError(f"array has shape {self.array.shape}, expected {self.xy.shape}")
        if len(set(self.ids)) != len(self.ids):
            raise UserError(
                "The spot table names some spots twice, so results could not be told apart; "
                "make the spot ids unique."
            )
        if not np.isfinite(self.xy).all():
            raise UserError(
                "Some spots have no position (empty or not a number), so they cannot be placed on "
                "the slide; fill in or remove these rows of the spot table."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, keep: npt.NDArray[np.bool_] | IntArray) -> "Spots":
        """Return the spots that `keep` (boolean mask or positions) selects, in its order."""
        rows = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            xy=self.xy[rows],
            array=None if self.array is None else self.array[rows],
        )


def grid_over(
    area: "Tissue | Sequence[Polygon]",
    mpp: float,
    spacing_um: float,
    diameter_um: float,
    lattice: Lattice = "hex",
    slide_size: tuple[int, int] | None = None,
) -> Spots:
    """Lay a grid of spots over tissue or drawn regions.

    The grid is anchored at the slide's corner, so the same spacing gives the same spots, with the
    same ids ``row_col``, whatever part of the slide is asked for.

    Parameters
    ----------
    area
        Tissue, or polygons in level-0 pixels; a spot belongs to it when its centre lies in it
        (not in a hole).
    mpp
        µm per level-0 pixel.
    spacing_um, diameter_um
        Centre-to-centre distance and diameter in µm.
    lattice
        "hex" (array coordinates as Visium counts them) or "square".
    slide_size
        (width, height) in level-0 pixels; spots of polygons drawn beyond it are left out.

    Raises
    ------
    UserError
        When there is no tissue, no spot fits, or the numbers make no grid.
    """
    if not (spacing_um > 0 and diameter_um > 0 and mpp > 0):
        raise UserError(
            f"A grid needs a spacing and a diameter above 0 µm, not {spacing_um:g} and "
            f"{diameter_um:g}; give e.g. 100 and 55, as on a Visium slide."
        )
    left, top, right, bottom = _bounds(area)
    width, height = slide_size or (np.inf, np.inf)
    box = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
    array, xy = _lattice_in(box, spacing_um / mpp, lattice)
    inside = _inside(area, xy) & (xy < (width, height)).all(axis=1)
    array, xy = array[inside], xy[inside]
    if len(xy) == 0:
        raise UserError(
            f"No spot fits at a spacing of {spacing_um:g} µm, because the region is smaller than "
            "that or lies off the slide; draw a larger region or choose a smaller spacing."
        )
    ids = tuple(f"{row}_{col}" for row, col in array.tolist())
    return Spots(ids, xy, diameter_um, spacing_um, lattice, array)


def estimate_mpp(spots: Spots) -> float:
    """Return µm per level-0 pixel by fitting the array's lattice to the spots.

    The whole lattice is fitted (least squares, outliers trimmed): nearest distances are biased
    when spots jitter.  Without array coordinates the lattice is first found among the spots.

    Parameters
    ----------
    spots
        With `pitch_um`; with `array` where it is known.

    Raises
    ------
    UserError
        When the pitch is unknown, or the spots form no lattice.
    """
    from napari_flag.slides.lattice import fitted_pitch

    if spots.pitch_um is None:
        raise UserError(
            "µm/px cannot be estimated because the pitch of these spots in µm is not known; give "
            "µm/px by hand (--mpp)."
        )
    return spots.pitch_um / fitted_pitch(spots)


def _bounds(area: "Tissue | Sequence[Polygon]") -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of `area` in level-0 pixels."""
    if not isinstance(area, Sequence):
        rows, columns = np.nonzero(area.mask)
        if rows.size == 0:
            raise UserError(
                "No tissue was found on the slide, so there is nowhere to lay spots; draw a "
                "region around the tissue, or check that this is an H&E slide."
            )
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        left, top, right, bottom = (box * area.downsample).tolist()
        return left, top, right, bottom
    corners = np.array([p.bounds for p in area if not p.is_empty]).reshape(-1, 4)
    if len(corners) == 0:
        raise UserError("No region is drawn, so there is nowhere to lay spots; draw one.")
    left, top = corners[:, :2].min(axis=0).tolist()
    right, bottom = corners[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom


def _lattice_in(
    box: tuple[float, float, float, float], pitch: float, lattice: Lattice
) -> tuple[IntArray, FloatArray]:
    """Return array coordinates and (x, y) of the lattice of `pitch` pixels within `box`."""
    if lattice == "none":
        raise ValueError("a grid is square or hex")
    step = np.array([pitch * np.sqrt(3) / 2, pitch / 2] if lattice == "hex" else [pitch, pitch])
    origin = step / 2
    left, top, right, bottom = box
    first = np.ceil((np.array([top, left]) - origin) / step).astype(np.int64)
    last = np.floor((np.array([bottom, right]) - origin) / step).astype(np.int64)
    if np.prod((last - first + 1).clip(0).astype(np.float64)) > MOST_POSITIONS:
        raise UserError(f"A spacing of {pitch:.3g} px would give millions of spots; choose a larger spacing.")
    rows, cols = (np.arange(a, b + 1) for a, b in zip(first, last, strict=True))
    array = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    if lattice == "hex":
        array = array[array.sum(axis=1) % 2 == 0]
    xy: FloatArray = (array * step + origin)[:, ::-1].copy()
    return array, xy


def _inside(area: "Tissue | Sequence[Polygon]", xy: FloatArray) -> npt.NDArray[np.bool_]:
    if not isinstance(area, Sequence):
        return area.contains(xy)
    import shapely

    union = shapely.union_all([shapely.make_valid(polygon) for polygon in area])
    shapely.prepare(union)
    inside: npt.NDArray[np.bool_] = shapely.contains_xy(union, xy[:, 0], xy[:, 1])
    return inside
