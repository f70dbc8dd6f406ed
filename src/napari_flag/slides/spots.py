"""Spots: ids, positions, array and diameter; grids over tissue; the table that spots come in."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias
from weakref import finalize

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import counted, counted_of, first_of, length, px, whole
from napari_flag.slides.formats.readers import Size

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.tissue import Tissue


FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Lattice: TypeAlias = Literal["square", "hex", "none"]

MOST_POSITIONS: Final = 5_000_000
"""Grid positions above which a spacing is surely a slip of the pen (1 µm on a whole slide)."""

FARTHEST: Final = 1e9
"""Pixels from the first pixel beyond which nothing lies: five hundred times the longest slide."""

MOST_QUERIED: Final = 50_000
"""Spots whose nearest other is sought for the pitch: a search over a million takes ten seconds."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
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
    laid
        Whether they are a grid laid at the slide's µm/px, which then say nothing of it.
    """

    ids: tuple[str, ...]
    xy: FloatArray
    diameter_um: float | None = None
    pitch_um: float | None = None
    lattice: Lattice = "none"
    array: IntArray | None = field(default=None)
    laid: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be spots."""
        if self.xy.ndim != 2 or self.xy.shape != (len(self.ids), 2):
            raise ValueError(f"xy has shape {self.xy.shape}, expected ({len(self.ids)}, 2)")
        if self.array is not None and self.array.shape != self.xy.shape:
            raise ValueError(f"array has shape {self.array.shape}, expected {self.xy.shape}")
        refuse_repeated(self.ids, "The spot table")
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
    area: "Tissue | Sequence[BaseGeometry]",
    mpp: float,
    spacing_um: float,
    diameter_um: float,
    lattice: Lattice = "hex",
    slide_size: tuple[int, int] | None = None,
) -> Spots:
    """Place a grid of spots on tissue or drawn regions.

    The grid is anchored at the slide's corner, so the same spacing gives the same spots, with the
    same ids ``row_col``, whatever part of the slide is predicted.

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
            f"A grid needs a spacing and a diameter above 0 µm, not {length(spacing_um)} and "
            f"{length(diameter_um)}; give e.g. 100 and 55, as on a Visium slide."
        )
    left, top, right, bottom = _bounds(area)
    width, height = slide_size or (np.inf, np.inf)
    box = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
    array, xy = _lattice_in(box, spacing_um / mpp, lattice)
    kept = inside(area, xy) & (xy < (width, height)).all(axis=1)
    array, xy = array[kept], xy[kept]
    if len(xy) == 0:
        raise UserError(
            f"No spot fits at a spacing of {length(spacing_um)}, because the region is smaller than "
            "that or lies off the slide; draw a larger region or choose a smaller spacing."
        )
    ids = tuple(f"{row}_{col}" for row, col in array.tolist())
    return Spots(ids, xy, diameter_um, spacing_um, lattice, array, laid=True)


def _bounds(area: "Tissue | Sequence[BaseGeometry]") -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of `area` in level-0 pixels."""
    if not isinstance(area, Sequence):
        rows, columns = np.nonzero(area.mask)
        if rows.size == 0:
            raise UserError(
                "No tissue was found on the slide, so there is nowhere to place spots; draw a "
                "region around the tissue, or check that this is an H&E slide."
            )
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        left, top, right, bottom = (box * area.downsample).tolist()
        return left, top, right, bottom
    corners = np.array([p.bounds for p in area if not p.is_empty]).reshape(-1, 4)
    if len(corners) == 0:
        raise UserError("No region is drawn, so there is nowhere to place spots; draw one.")
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


def typical_pitch(xy: FloatArray) -> float:
    """Return the median distance to the nearest other spot, in the unit of `xy`; 1 where there is none.

    Of more than `MOST_QUERIED` spots it is the median over a part of them, spread evenly.
    """
    if len(xy) < 2:
        return 1.0
    if len(xy) < MANY:
        return _median_distance(xy)
    if id(xy) not in _PITCHES:
        _PITCHES[id(xy)] = _median_distance(xy)
        finalize(xy, _PITCHES.pop, id(xy), None)
    return _PITCHES[id(xy)]


MOST_TESTS: Final = 50_000_000
"""Of a spot against a polygon: they take some fifteen seconds."""
MANY: Final = 5_000
_PITCHES: Final[dict[int, float]] = {}
"""Of large arrays that are alive, which are never changed: maps ask again, and 50,000 spots take .05 s."""


def _median_distance(xy: FloatArray) -> float:
    from scipy.spatial import cKDTree

    some = xy[:: -(-len(xy) // MOST_QUERIED)]
    # unbalanced: built several times faster, and as quick to ask for spots that lie evenly
    distance, _ = cKDTree(xy, balanced_tree=False).query(some, k=2)
    return float(np.median(distance[:, 1])) or 1.0


def inside(area: "Tissue | Sequence[BaseGeometry]", xy: FloatArray) -> npt.NDArray[np.bool_]:
    """Return (n,) which of (n, 2) (x, y) level-0 pixels lie in tissue, or in any of several polygons.

    A polygon whose outline crosses itself is repaired first, since its inside is not defined.  On an outline
    is outside, but on an edge that two polygons share.  The polygons are not united, which takes minutes
    where a thousand rings cross.

    Raises
    ------
    UserError
        When more than `MOST_TESTS` times a spot lies in the box around a polygon.
    """
    if not isinstance(area, Sequence):
        return area.contains(xy)
    import shapely

    order = np.argsort(xy[:, 0], kind="stable")
    x, y = xy[order].T
    found, touched, tests = np.zeros(len(xy), bool), np.zeros(len(xy), np.int32), 0
    bounds = shapely.bounds(np.array(area, object)).reshape(-1, 4)  # NaN of empty ones
    first, last = np.searchsorted(x, bounds[:, 0]), np.searchsorted(x, bounds[:, 2], "right")
    for i in np.flatnonzero((first < last) & ~np.isnan(bounds[:, 0])).tolist():
        near = first[i] + np.flatnonzero(
            (y[first[i] : last[i]] >= bounds[i, 1]) & (y[first[i] : last[i]] <= bounds[i, 3])
        )
        near = near[~found[near]]
        tests += len(near)
        if tests > MOST_TESTS:
            raise UserError(
                f"The {whole(len(area))} regions cover each other so often that finding the spots in them "
                f"would take minutes; draw fewer, or unite those that overlap."
            )
        if not len(near):
            continue
        valid = shapely.make_valid(area[i])
        shapely.prepare(valid)
        near = near[shapely.intersects_xy(valid, x[near], y[near])]
        within = shapely.contains_xy(valid, x[near], y[near])
        found[near[within]] = True
        touched[near[~within]] += 1
    unordered = np.empty(len(xy), bool)
    unordered[order] = found | (touched > 1)
    return unordered


OUTERMOST: Final = 10**6
"""Rows or columns of an array from which a coordinate is surely damaged: Visium HD has 6,700 of 1 µm."""


def array_from(values: npt.ArrayLike, source: str) -> IntArray:
    """Return array coordinates, rounded: fractional ones of her2st's tables then join.

    Parameters
    ----------
    values
        (n, 2) row and column, finite.
    source
        The file, as a sentence begins.

    Raises
    ------
    UserError
        When one lies outside any array, which may be too large for a whole number.
    """
    found = np.rint(np.asarray(values, np.float64))
    beyond = np.abs(found) > OUTERMOST
    if beyond.any():
        raise UserError(
            f"{source} has {found[beyond][0]:g} as an array coordinate, where rows and columns up to "
            f"{whole(OUTERMOST)} are possible, so it is damaged or has its columns mixed up; correct the "
            "table, or copy it again."
        )
    return found.astype(np.int64)


ALIKE: Final = 0.03
"""Relative difference of image sizes that rounding and re-exporting explain; copies differ more."""


class Image(Protocol):
    """What a table knows its image by: a `slides.slide.Slide`, or name and size of one that is not open."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def size(self) -> Size:
        """(width, height) in level-0 pixels."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """Smaller copies of the full-resolution image a table counts its pixels in.

    Parameters
    ----------
    factors
        Pixels of the copy per full-resolution pixel, by the copy's name: "hires", "lowres".
    sizes
        (width, height) of the copies whose image is at hand.
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def full_size(self) -> tuple[float, float] | None:
        """(width, height) of the full-resolution image, from its largest copy; None if unknown."""
        known = [name for name in self.sizes if name in self.factors]
        if not known:
            return None
        name = max(known, key=lambda n: self.factors[n])
        width, height = self.sizes[name]
        return width / self.factors[name], height / self.factors[name]

    def matches(self, size: Size, factor: float = 1.0) -> bool:
        """Return whether `size` is that of the full image, reduced by `factor`; False if unknown."""
        full = self.full_size
        if full is None:
            return False
        ratio = np.array(size) / (np.array(full) * factor)
        return bool((abs(ratio - 1) <= ALIKE + 1 / min(size)).all())

    def fit(self, slide: Image, xy: FloatArray, path: Path) -> tuple[float, tuple[str, ...]]:
        """Return px of `slide` per px of the table, and a notice when that is not 1.

        Parameters
        ----------
        slide
            The slide at hand.
        xy
            (n, 2) positions in the table's pixels.
        path
            The table, for messages.

        Raises
        ------
        UserError
            When the slide is none of the images the table knows.
        """
        if not self.factors or len(xy) == 0:
            return 1.0, ()
        candidates = {"full-resolution": 1.0, **self.factors}
        fits = [name for name, factor in candidates.items() if self._fits(slide, xy, factor)]
        if not fits:
            raise self._misfit(slide, xy, path)
        name = max(fits, key=lambda n: candidates[n])
        factor = float(candidates[name])
        if factor == 1.0:
            return 1.0, ()
        notice = (
            f"{slide.path.name} is the {name} image of {path.name}, so positions are scaled by "
            f"{factor:.4g}; the full-resolution image shows more detail."
        )
        return factor, (notice,)

    def _fits(self, slide: Image, xy: FloatArray, factor: float) -> bool:
        if self.full_size is not None:
            return self.matches(slide.size, factor)
        return bool((xy * factor <= slide.size).all() and (xy >= 0).all())

    def _misfit(self, slide: Image, xy: FloatArray, path: Path) -> UserError:
        full = self.full_size
        if full is None:
            expected = f"spots reach to x {_place(xy[:, 0].max())}, y {_place(xy[:, 1].max())} px"
        else:
            expected = f"its full-resolution image is {px(full)}"
        copies = " or ".join(f"{name} ({factor:.4g})" for name, factor in self.factors.items())
        return UserError(
            f"{slide.path.name} ({px(slide.size)}) does not belong to "
            f"{path.name}: {expected}, or a {copies} copy of that; choose the image this table "
            "was made on."
        )


@dataclass(frozen=True, slots=True)
class SpotTable:
    """Spots of one slide with their measured counts, metadata and notices.

    Parameters
    ----------
    spots
        The spots, in pixels of the slide at hand.
    measured
        Raw counts (csr float32) of those spots that have them, in their order; None without any.
    technology
        As a person calls it: "Spatial Transcriptomics", "Visium", "h5ad".
    notices
        Sentences the user should see: spots left out, scale factors used, ...
    image_scale
        Level-0 px of the slide at hand per px of the table; not 1 when the image is Space Ranger's
        hires or lowres one.
    mpp, mpp_source
        µm per level-0 px of the slide at hand as the table states it; None and "" when it does not.
    """

    spots: Spots
    measured: "AnnData | None"
    technology: str
    notices: tuple[str, ...] = ()
    image_scale: float = 1.0
    mpp: float | None = None
    mpp_source: str = ""

    def with_notice(self, notice: str) -> "SpotTable":
        """Return the same table with one more notice."""
        return replace(self, notices=(*self.notices, notice))


def _place(pixel: float) -> str:
    """Return a place as text; one that is on no slide without its hundreds of digits."""
    return whole(pixel) if abs(pixel) < FARTHEST else f"{pixel:.3g}"


def refuse_outside(xy: FloatArray, slide: "Slide", path: Path) -> None:
    """Refuse a table whose spots lie outside `slide`: it belongs to another one."""
    width, height = slide.size
    outside = ((xy < 0) | (xy > (width, height))).any(axis=1)
    if outside.any():
        (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
        raise UserError(
            f"{counted_of(outside.sum(), len(xy), 'spot')} of {path.name} (x {_place(left)} to "
            f"{_place(right)}, y {_place(top)} to {_place(bottom)} px) lie outside {slide.path.name} "
            f"({px(slide.size)}); choose the table of this slide, or the image the table was made on."
        )


def refuse_repeated(ids: Collection[str], what: str, noun: str = "spot") -> None:
    """Refuse ids of `what`, as it begins a sentence, that name a spot (or another `noun`) more than once.

    Raises
    ------
    UserError
        Saying how many, and one of them.
    """
    if len(set(ids)) == len(ids):
        return
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    named = first_of(repeated[:1], 1)
    raise UserError(
        f"{what} names {counted(len(repeated), noun)} more than once (such as {named}), so it is not "
        f"clear which row is meant; make the {noun} ids unique."
    )


_SUFFIX: Final = re.compile(r"(?<=[ACGT]{8})[-_]\w+$")
"""What follows a barcode: Space Ranger writes the number of its library, ``-1``."""


_LIBRARY: Final = re.compile(r"(?<=[ACGT]{8})-(\d{1,4})$", re.ASCII)


def libraries_among(ids: Iterable[str]) -> str | None:
    """Return a sentence where barcodes are of several libraries (…-1 and …-2), so of several sections."""
    found = Counter(library[1] for name in ids if (library := _LIBRARY.search(name)) is not None)
    if len(found) < 2:
        return None
    named = ", ".join(f"-{library} ({whole(times)})" for library, times in found.most_common(4))
    return (
        f"The barcodes are of {whole(len(found))} libraries ({named}), which are several sections in one "
        "file, and one of another may stand for a spot of this one; give this section alone."
    )


def why_none_shared(ids: Sequence[str], measured: "AnnData", genes: Iterable[str] = ()) -> str | None:
    """Return why no spot is among the rows of `measured` though it may be theirs; None where nothing says so.

    Parameters
    ----------
    ids
        Of the spots, of which none is in ``measured.obs_names``.
    measured
        Counts.
    genes
        Genes that are expected as columns.

    Returns
    -------
    The end of a sentence: why, and what to do.
    """
    rows, columns = [str(name) for name in measured.obs_names], {str(name) for name in measured.var_names}
    expected = set(genes)
    turned = next((name for name in rows if name in expected), None)
    if turned or (rows and any(name in columns for name in ids)):
        return (
            f"which has genes (such as {turned or rows[0]}) in its rows and spots in its columns; transpose "
            "it, to a row per spot and a column per gene"
        )
    bare = {_SUFFIX.sub("", name): name for name in rows}
    for name in ids:
        other = bare.get(_SUFFIX.sub("", name))
        if other is not None:
            return (
                f"which names them with another suffix ({other!r}, where the spot is {name!r}); write "
                "barcodes alike in both"
            )
    return None


def matched(table: SpotTable, measured: "AnnData", source: Path) -> SpotTable:
    """Return `table` with the counts of its spots, saying how many have none."""
    refuse_repeated(measured.obs_names, source.name)
    rows = measured.obs_names.get_indexer(list(table.spots.ids))
    missing = int((rows < 0).sum())
    if missing == len(rows) > 0:
        if why := why_none_shared(table.spots.ids, measured):
            raise UserError(f"No spot of the table is in {source.name}, {why}.")
        raise UserError(
            f"No spot of the table is in {source.name} (which names them like "
            f"{measured.obs_names[0]!r}, the table like {table.spots.ids[0]!r}); choose the counts "
            "of the same section."
        )
    table = replace(table, measured=measured[rows[rows >= 0]].copy())
    if doubt := doubt_of_overlap(len(rows) - missing, len(rows), measured.n_obs):
        return table.with_notice(doubt)
    if missing:
        return table.with_notice(f"{counted_of(missing, len(rows), 'spot')} have no counts in {source.name}.")
    return table


SELDOM: Final = 0.1
"""Share of the spots, and of the measured ones, that lack the other, from which they may be two sections': of
one section one of them is, as a rule, a part of the other."""
FEW: Final = 10
"""Spots on either side that may lack the other in any table."""


def doubt_of_overlap(shared: int, spots: int, measured: int) -> str | None:
    """Return a sentence where of `spots` and of `measured` spots more are not shared than is usual."""
    here, there = spots - shared, measured - shared
    if here <= max(FEW, SELDOM * spots) or there <= max(FEW, SELDOM * measured):
        return None
    others = counted_of(there, measured, "measured spot")
    return (
        f"{counted_of(here, spots, 'spot')} have no counts, and {others} are not among them, which is seldom "
        "so of one section; check that the counts are of this slide."
    )
