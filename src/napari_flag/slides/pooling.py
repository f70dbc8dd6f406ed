"""Counts at points (transcripts, cells, bins) pooled exactly into spots or grid squares.

A platform's reader gives its counts in batches, so that memory is bounded by a batch and by the result.
Every point is placed in µm on the slide and added to each spot whose disc, or grid square, it lies in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import length, percent, resolution, whole
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.readers import Size
from napari_flag.slides.spots import FloatArray, Image, IntArray, Spots

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.tissue import Tissue


BATCH_POINTS: Final = 250_000
"""Points of one batch: some tens of megabytes, and several batches a second."""
LEAST_ON_TISSUE: Final = 0.5
"""Share of counts on the tissue of the image below which another image or alignment is meant."""
FEW_ON_TISSUE: Final = 0.85
"""Share below which the registration is doubted; ambient transcripts beside tissue are a few percent."""
CLOSED_UM: Final = 30.0
"""Gaps between fields of view that belong to no cell or transcript but were imaged all the same."""
SCALE_SLACK: Final = 0.05
"""Relative difference of µm/px by the alignment and by the image that is worth a sentence."""
ON_GRID: Final = 1e-3
"""Deviation from the slide's own grid, in squares, that rounding explains."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Name and size of an image that is not open."""

    path: Path
    size: Size


@dataclass(frozen=True, slots=True)
class Batch:
    """Counts at some points.

    Parameters
    ----------
    xy
        (n, 2) float64 in the platform's own coordinates.
    counts
        csr (n, genes) of whole numbers: one 1 a row for transcripts.
    field
        (n,) int64, field of view of each point; None where there is but one field.
    read
        Rows of the file read for it, also of those that were left out.
    """

    xy: FloatArray
    counts: Any
    field: IntArray | None
    read: int


@dataclass(frozen=True, slots=True)
class LocatedCounts:
    """Counts at points of a measured section, not read yet.

    Parameters
    ----------
    technology
        As a person calls it.
    noun
        What a point is: "transcripts", "cells", "bins".
    path
        The file or folder they are in.
    genes
        Symbols, unique, in the order of the columns of counts; complete once all batches were read, since
        genes that are in no list of the platform's are added where they are met.
    batches
        Opens the files and yields all points once.
    to_image
        (3, 3) affine from the platform's (x, y) to level-0 px of the image.
    alignment
        One sentence: where `to_image` comes from.
    total
        Rows of the file, for progress; None if unknown.
    um_per_unit
        µm per unit of the platform's coordinates, or None if unknown; only checked, never used to pool.
    fields
        (k, 4, 2) corners of what was measured, or None to take the box around each field's points.
    """

    technology: str
    noun: str
    path: Path
    genes: Sequence[str]
    batches: Callable[[], Iterator[Batch]]
    to_image: FloatArray
    alignment: str
    total: int | None = None
    um_per_unit: float | None = None
    fields: FloatArray | None = None


def pool(
    located: LocatedCounts, spots: Spots, mpp: float, image: Image, tissue: "Tissue | None" = None
) -> Steps[tuple["AnnData", tuple[str, ...]]]:
    """Pool counts at points into spots.

    Parameters
    ----------
    located
        The points.
    spots
        Centres in level-0 px of `image`, with a diameter in µm.  On a square grid laid on the slide whose
        diameter is its pitch, spots are the squares of the grid; all others are discs.
    mpp
        µm per level-0 px.
    image
        The image.
    tissue
        Of the image, to check the registration; None checks none.

    Yields
    ------
    Steps, in rows of the file.

    Returns
    -------
    counts
        csr float32 raw counts of the spots that were imaged whole, in their order.
    notices
        What was pooled, by which alignment, and how much of it lies on tissue.

    Raises
    ------
    UserError
        When spots have no diameter, no spot was imaged, or the points do not lie on the tissue.

    Notes
    -----
    A point is in a disc when its distance to the centre is at most the radius; where discs overlap it counts
    in each.  Squares hold their left and upper edge and not the others, so a point is in exactly one.
    """
    member = _squares(spots, mpp) or _Discs(spots, mpp)
    tally = _Tally(len(spots), len(located.genes))
    done = on_tissue = 0.0
    read = 0
    affine = np.asarray(located.to_image, np.float64)
    _refuse_flat(affine, located)
    yield Step("Pooling counts", 0, located.total, located.noun)
    for batch in located.batches():
        px = batch.xy @ affine[:2, :2].T + affine[:2, 2]
        tally.add(member.of(px * mpp), batch, located.fields is None)
        if tissue is not None:
            weight = np.asarray(batch.counts.sum(axis=1)).ravel()
            done += float(weight.sum())
            on_tissue += float(weight[tissue.contains(px)].sum())
        read += batch.read
        yield Step("Pooling counts", read, located.total, located.noun)
    notices = [f"{located.technology}: {located.alignment}"]
    if tissue is not None:
        notices += _registration(located, image, on_tissue / done if done else 0.0)
    notices += _scale_doubt(located, affine, mpp)
    fields = tally.fields() if located.fields is None else located.fields
    imaged = _imaged(fields, affine, spots, mpp, member.radius_um)
    if not imaged.any():
        raise UserError(
            f"None of the {whole(len(spots))} spots lies in what {located.path.name} measured, so image and "
            "measurement do not belong together; choose the image and alignment file of this section."
        )
    counts = tally.counts(spots, located.genes, np.flatnonzero(imaged))
    out = int((~imaged).sum())
    notices.append(
        f"{whole(float(counts.X.sum(dtype=np.float64)))} counts of {whole(tally.points)} {located.noun} of "
        f"{located.path.name} were pooled into {whole(counts.n_obs)} {member.described}"
        + (f"; {whole(out)} spots that do not lie whole in what was measured have no counts." if out else ".")
    )
    return counts, tuple(notices)


# --- which spots a point is in -------------------------------------------------------------------


class _Discs:
    """Membership in discs, by k nearest centres, with k as many discs as can overlap in a point."""

    def __init__(self, spots: Spots, mpp: float) -> None:
        from scipy.spatial import cKDTree

        if spots.diameter_um is None:
            raise UserError(
                "The diameter of these spots is not known, so no counts can be pooled into them; give it in "
                "µm (--diameter)."
            )
        self.radius_um = spots.diameter_um / 2
        self._xy = spots.xy * mpp
        self._tree = cKDTree(self._xy)
        near = self._tree.query_ball_point(self._xy, spots.diameter_um * (1 + 1e-9), return_length=True)
        self._most = int(np.max(near, initial=1))
        self.described = f"discs of {length(spots.diameter_um)}"

    def of(self, xy_um: FloatArray) -> tuple[IntArray, IntArray]:
        """Return (point, spot) of every membership."""
        bound = self.radius_um * (1 + 1e-6) + 1e-9
        ranks = list(range(1, min(self._most, len(self._xy)) + 1))
        _, found = self._tree.query(xy_um, k=ranks, distance_upper_bound=bound)
        points, rank = np.nonzero(found < len(self._xy))
        spot = found[points, rank]
        offset = xy_um[points] - self._xy[spot]
        inside = (offset**2).sum(axis=1) <= self.radius_um**2
        return points[inside], spot[inside]


class _Squares:
    """Membership in the squares of a grid that is anchored at the image's corner."""

    def __init__(self, array: IntArray, side_um: float) -> None:
        self._side = side_um
        self.radius_um = side_um / 2
        self._low = array.min(axis=0)
        shape = array.max(axis=0) - self._low + 1
        self._row = np.full(tuple(shape), -1, np.int64)
        self._row[tuple((array - self._low).T)] = np.arange(len(array))
        self.described = f"grid squares of {length(side_um)}"

    def of(self, xy_um: FloatArray) -> tuple[IntArray, IntArray]:
        """Return (point, spot) of every point in a square."""
        at = np.floor(xy_um[:, ::-1] / self._side).astype(np.int64) - self._low
        points = np.flatnonzero(((at >= 0) & (at < self._row.shape)).all(axis=1))
        spot = self._row[tuple(at[points].T)]
        return points[spot >= 0], spot[spot >= 0]


def _squares(spots: Spots, mpp: float) -> "_Squares | None":
    """Return the squares that `spots` are; None where they are discs."""
    side, array = spots.pitch_um, spots.array
    if spots.lattice != "square" or array is None or side is None or side != spots.diameter_um:
        return None
    off = np.abs(spots.xy[:, ::-1] * mpp / side - 0.5 - array)
    if off.max(initial=0.0) > ON_GRID:
        raise UserError(
            f"These squares of {length(side)} are not the grid of the image (they are turned or shifted "
            "against it), so other counts cannot be pooled into them exactly; predict a grid without "
            f"--spots (--spacing {side:g} --diameter {side:g}) instead."
        )
    return _Squares(array, side)


# --- sums ----------------------------------------------------------------------------------------


class _Tally:
    """Sums of counts per spot, and the extent of the points of each field."""

    def __init__(self, n_spots: int, n_genes: int) -> None:
        from scipy import sparse

        self._sum: Any = sparse.csr_matrix((n_spots, n_genes), dtype=np.int64)
        self._boxes: dict[int, FloatArray] = {}
        self.points = 0

    def __len__(self) -> int:
        return int(self._sum.shape[0])

    def add(self, members: tuple[IntArray, IntArray], batch: Batch, extents: bool) -> None:
        """Add a batch whose (point, spot) memberships are known."""
        from scipy import sparse

        points, spot = members
        if batch.counts.shape[1] > self._sum.shape[1]:
            self._sum.resize(len(self), batch.counts.shape[1])
        belongs = sparse.csr_matrix(
            (np.ones(len(points), np.int64), (spot, points)), shape=(len(self), len(batch.xy))
        )
        self._sum = self._sum + belongs @ batch.counts.astype(np.int64)
        self.points += len(batch.xy)
        if extents and len(batch.xy):
            self._widen(batch)

    def _widen(self, batch: Batch) -> None:
        field = np.zeros(len(batch.xy), np.int64) if batch.field is None else batch.field
        order = np.argsort(field, kind="stable")
        names, first = np.unique(field[order], return_index=True)
        low = np.minimum.reduceat(batch.xy[order], first)
        high = np.maximum.reduceat(batch.xy[order], first)
        for name, left_top, right_bottom in zip(names.tolist(), low, high, strict=True):
            box = np.concatenate([left_top, right_bottom])
            known = self._boxes.get(name, box)
            self._boxes[name] = np.concatenate([np.minimum(known, box)[:2], np.maximum(known, box)[2:]])

    def fields(self) -> FloatArray:
        """Return (k, 4, 2) corners of the box around the points of each field."""
        left, top, right, bottom = np.array(list(self._boxes.values()), np.float64).reshape(-1, 4).T
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)

    def counts(self, spots: Spots, genes: Sequence[str], rows: IntArray) -> "AnnData":
        """Return the sums of `rows` as counts."""
        from napari_flag.slides.formats.counts import counts

        return counts([spots.ids[i] for i in rows], list(genes), self._sum[rows])


# --- what was imaged, and whether it lies on the tissue --------------------------------------------


def _imaged(
    fields: FloatArray, affine: FloatArray, spots: Spots, mpp: float, radius_um: float
) -> npt.NDArray[np.bool_]:
    """Return (n,) which spots lie whole in the fields; a disc stands for a square too."""
    import shapely

    placed = (fields @ affine[:2, :2].T + affine[:2, 2]) * mpp
    # mitred, so that corners of a rectangle stay corners
    options: dict[str, Any] = {"join_style": "mitre"}
    area = shapely.union_all(shapely.polygons(placed).tolist())
    area = area.buffer(CLOSED_UM / 2, **options).buffer(-CLOSED_UM / 2 - radius_um, **options).buffer(1e-6)
    shapely.prepare(area)
    xy = spots.xy * mpp
    found: npt.NDArray[np.bool_] = shapely.contains_xy(area, xy[:, 0], xy[:, 1])
    return found


def _registration(located: LocatedCounts, image: Image, share: float) -> list[str]:
    said = f"{percent(share)} of the counts of {located.path.name} lie on the tissue of {image.path.name}"
    if share < LEAST_ON_TISSUE:
        raise UserError(
            f"Only {said}, so image and measurement are not registered ({located.alignment.rstrip('.')}); "
            "choose the image and the alignment file of this section (beside it, or with --alignment)."
        )
    if share < FEW_ON_TISSUE:
        return [f"Only {said}; check the registration before trusting scores."]
    return [f"{said}."]


def _scale_doubt(located: LocatedCounts, affine: FloatArray, mpp: float) -> list[str]:
    """Return a sentence where the alignment scales otherwise than µm/px of image and platform say."""
    if located.um_per_unit is None:
        return []
    implied = located.um_per_unit / float(np.sqrt(abs(np.linalg.det(affine[:2, :2]))))
    if abs(implied / mpp - 1) <= SCALE_SLACK:
        return []
    return [
        f"By its alignment the image has {resolution(implied)}, not {resolution(mpp, unit=False)}, so the "
        "alignment file or µm/px is wrong; check both before trusting scores."
    ]


def _refuse_flat(affine: FloatArray, located: LocatedCounts) -> None:
    if affine.shape != (3, 3) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:2, :2])) < 1e-12:
        raise UserError(
            f"The alignment of {located.path.name} is no affine matrix that can be inverted; export it again."
        )
