"""One raster for all genes: which spot every pixel shows, made once; painting a gene is a gather.

Measured against Points and Labels in ``benchmarks/gene_switch.py``: the cost of a switch depends on
the size of the raster, which is bounded, and not on the number of spots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.layers.frame import Frame
from napari_flag.layers.gene_values import Limits
from napari_flag.layers.kept import Kept
from napari_flag.prediction_file import (
    array_coordinates,
    drawn_diameter_px,
    spot_diameter_px,
    stated_lattice,
    um_per_px,
)
from napari_flag.slides.spots import typical_pitch

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Int32Array: TypeAlias = npt.NDArray[np.int32]

LONGEST_PX: Final = 2048
"""Longest side of the raster: sharp on a screen, 16 MB, under every limit of GL textures."""

FINEST_DISC_PX: Final = 96
"""A disc this wide looks round at any zoom a person uses; finer only costs memory."""

STAMPED_AT_ONCE: Final = 30_000
"""Pixels written by one call of numpy; with few spots, a call per pixel of a disc costs more than they do."""

TOUCHING: Final = 0.9
"""Square-lattice spots at least this wide, as a share of the pitch, are bins: drawn as squares."""


@dataclass(frozen=True, slots=True)
class SpotRaster:
    """Which spot every raster pixel shows.

    Parameters
    ----------
    lookup
        (h, w) intp, spot row + 1, and 0 outside every spot; numpy would copy any other type to gather by it.
    matrix
        (3, 3) float64, takes raster (row, column, 1) to level-0 (y, x, 1).
    n_spots
        How many spots the lookup refers to.
    """

    lookup: npt.NDArray[np.intp]
    matrix: FloatArray
    n_spots: int

    @property
    def index(self) -> Int32Array:
        """(h, w) int32, the spot row each pixel shows, -1 outside."""
        return (self.lookup - 1).astype(np.int32)

    def paint(self, values: npt.NDArray[Any]) -> Float32Array:
        """Return `values` (one number per spot) as an (h, w) float32 picture, NaN outside spots."""
        padded = np.empty(self.n_spots + 1, np.float32)
        padded[0] = np.nan
        padded[1:] = values
        # "clip" skips numpy's slower bounds check; the lookup is never out of bounds
        painted: Float32Array = np.take(padded, self.lookup, mode="clip")
        return painted

    def options(self, frame: Frame, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the napari layer options that put the picture onto the slide in `frame`."""
        step, skew = self.matrix[0, 0], self.matrix[0, 1]
        if skew == 0 and step == self.matrix[1, 1] and self.matrix[1, 0] == 0:
            return frame.options(float(step), (self.matrix[1, 2], self.matrix[0, 2]), metadata)
        return frame.affine_options(self.matrix, metadata)

    def spot_at(self, row: float, col: float) -> int | None:
        """Return the spot drawn at raster pixel (row, col), or None; constant time."""
        r, c = round(row), round(col)
        height, width = self.lookup.shape
        if not (0 <= r < height and 0 <= c < width):
            return None
        found = int(self.lookup[r, c])
        return found - 1 if found else None

    def outlines(self) -> npt.NDArray[np.uint8]:
        """Return an (h, w) uint8 picture, 1 on the rim of every spot, else 0."""
        bordered = np.pad(self.lookup, 1)
        centre = bordered[1:-1, 1:-1]
        rim = np.zeros(self.lookup.shape, bool)
        for rows, cols in ((0, 1), (2, 1), (1, 0), (1, 2)):
            height, width = self.lookup.shape
            rim |= bordered[rows : rows + height, cols : cols + width] != centre
        return (rim & (self.lookup > 0)).astype(np.uint8)


_RASTER: Final[Kept["SpotRaster"]] = Kept("raster")


def raster_of(adata: Any) -> SpotRaster:
    """Return the raster of the spots of `adata` (see docs/prediction-file.md), made once."""
    places, diameter, lattice = adata.obsm[keys.SPATIAL], spot_diameter_px(adata), stated_lattice(adata)

    def make() -> SpotRaster:
        xy = np.asarray(places, np.float64)[:, :2]
        drawn = drawn_diameter_px(adata)
        return spot_raster(xy, diameter_px=drawn, lattice=lattice, array=array_coordinates(adata))

    return _RASTER.of(adata, (places, diameter, lattice, um_per_px(adata)), make)


def spot_raster(
    xy: FloatArray,
    *,
    diameter_px: float,
    lattice: str = "none",
    array: npt.NDArray[Any] | None = None,
) -> SpotRaster:
    """Return the raster of spots: discs at their true diameter, or squares for touching bins.

    Parameters
    ----------
    xy
        (n, 2) level-0 px centres.
    diameter_px
        Spot diameter (side, for bins) in level-0 px.
    lattice, array
        As in `Spots`; decide whether the spots are bins of a regular square grid.
    """
    bins = lattice == "square" and diameter_px >= TOUCHING * typical_pitch(xy)
    if bins and array is not None and len(xy) > 3:
        raster = _bin_raster(xy, np.asarray(array, np.int64))
        if raster is not None:
            return raster
    return _stamped_raster(xy, diameter_px, square=bins)


MOST_CELLS: Final = 10**8
"""Of an array, from which its raster takes too much memory: Visium HD has 45 million bins of 1 µm."""


def _bin_raster(xy: FloatArray, array: npt.NDArray[np.int64]) -> SpotRaster | None:
    """One pixel per bin, placed by the affine fit of array to slide coordinates; None without one."""
    first = array.min(axis=0)
    cells = array - first
    if np.prod(cells.max(axis=0) + 1.0) > MOST_CELLS:
        return None
    design = np.column_stack([cells, np.ones(len(cells))])
    solution, *_ = np.linalg.lstsq(design, xy[:, ::-1], rcond=None)
    matrix = np.eye(3)
    matrix[:2] = solution.T
    if abs(np.linalg.det(matrix)) < 1e-6:
        return None
    lookup = np.zeros(cells.max(axis=0) + 1, np.int32)
    lookup[cells[:, 0], cells[:, 1]] = np.arange(1, len(xy) + 1, dtype=np.int32)
    return SpotRaster(lookup.astype(np.intp), matrix, len(xy))


def _stamped_raster(xy: FloatArray, diameter: float, *, square: bool) -> SpotRaster:
    """Stamp a disc or square per spot; where they overlap, the nearest centre wins."""
    if len(xy) == 0:
        return SpotRaster(np.zeros((1, 1), np.intp), np.eye(3), 0)
    low, high = xy.min(axis=0) - diameter / 2, xy.max(axis=0) + diameter / 2
    step = max(float((high - low).max()) / (LONGEST_PX - 2), diameter / FINEST_DISC_PX)
    width, height = (np.ceil((high - low) / step).astype(int) + 1).tolist()
    centres = np.rint((xy - low) / step).astype(np.int64)
    lookup = np.zeros((height, width), np.intp)
    names = np.arange(1, len(xy) + 1)
    offsets = _offsets(diameter / step, square=square)
    together = max(1, STAMPED_AT_ONCE // len(xy))
    for first in range(0, len(offsets), together):
        d_row, d_col = offsets[first : first + together].T[..., None]
        # (offset, spot): of two spots in one place, that of the later and so nearer offset is written last
        rows, cols = centres[:, 1] + d_row, centres[:, 0] + d_col
        inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
        lookup[rows[inside], cols[inside]] = np.broadcast_to(names, rows.shape)[inside]
    matrix = np.array([[step, 0.0, low[1]], [0.0, step, low[0]], [0.0, 0.0, 1.0]])
    return SpotRaster(lookup, matrix, len(xy))


def _offsets(diameter: float, *, square: bool) -> npt.NDArray[np.int64]:
    """(k, 2) row and column offsets of one stamp `diameter` px wide, the outermost first."""
    radius = max(diameter / 2, 0.5)
    reach = int(np.floor(radius))
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(rows, cols)
    keep = np.ones(rows.shape, bool) if square else distance <= radius
    order = np.argsort(-distance[keep], kind="stable")
    return np.column_stack([rows[keep], cols[keep]])[order].astype(np.int64)


COLOURS: Final = 256
THUMBNAIL_PX: Final = 200
"""Longest side; twice what a map is wide in a dock, for screens of double resolution."""
SMALL_MAP_FILL: Final = 1.1
"""Spot diameter as a share of the pitch."""


class Thumbnails:
    """Paints values of spots into small pictures.

    Parameters
    ----------
    xy
        (n, 2) centres of spots, any unit.
    longest
        Longest side of a picture, px.
    """

    def __init__(self, xy: FloatArray, longest: int = THUMBNAIL_PX) -> None:
        from scipy.spatial import cKDTree

        diameter = SMALL_MAP_FILL * typical_pitch(xy)
        low, high = xy.min(axis=0) - diameter / 2, xy.max(axis=0) + diameter / 2
        step = max(float((high - low).max()) / longest, diameter / FINEST_DISC_PX)
        width, height = np.maximum(np.ceil((high - low) / step - 1e-9), 1).astype(int).tolist()
        rows, cols = np.mgrid[0:height, 0:width]
        centres = np.column_stack([cols.ravel(), rows.ravel()]) * step + low + step / 2
        # a pixel larger than a spot still shows the spot nearest to it
        reach = max(diameter / 2, step / np.sqrt(2))
        distance, nearest = cKDTree(xy, balanced_tree=False).query(centres, distance_upper_bound=reach)
        found = np.where(np.isfinite(distance), nearest + 1, 0)
        self._lookup = found.reshape(height, width)

    @classmethod
    def of(cls, adata: Any) -> "Thumbnails":
        """Return the thumbnails of the spots of `adata`, made once."""
        places = adata.obsm[keys.SPATIAL]
        return _THUMBNAILS.of(adata, (places,), lambda: cls(np.asarray(places, np.float64)[:, :2]))

    def paint(
        self, values: npt.NDArray[np.float32], limits: Limits, colours: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """Return an (h, w, 4) uint8 RGBA picture, transparent where there is no spot or no value.

        Parameters
        ----------
        values
            (n,) one number per spot, NaN where unknown.
        limits
            Numbers that get the first and the last colour.
        colours
            (256, 4) uint8 RGBA.
        """
        low, high = limits
        known = np.isfinite(values)
        place = np.clip((np.where(known, values, low) - low) / (high - low), 0.0, 1.0)
        painted = np.zeros(len(values) + 1, np.uint32)  # four bytes a spot: one gather paints them all
        painted[1:] = colours.view(np.uint32)[:, 0][np.rint(place * (COLOURS - 1)).astype(np.int64)]
        painted[1:][~known] = 0
        picture = np.take(painted, self._lookup, mode="clip")
        return picture.view(np.uint8).reshape(*self._lookup.shape, 4)


_THUMBNAILS: Final[Kept[Thumbnails]] = Kept("thumbnails")


@lru_cache(maxsize=16)
def colour_table(name: str) -> npt.NDArray[np.uint8]:
    """Return (256, 4) uint8 RGBA of napari's colour map `name`."""
    from napari.utils.colormaps import ensure_colormap

    rows = ensure_colormap(name).map(np.linspace(0.0, 1.0, COLOURS))
    table: npt.NDArray[np.uint8] = np.rint(np.asarray(rows) * 255).astype(np.uint8)
    return table
