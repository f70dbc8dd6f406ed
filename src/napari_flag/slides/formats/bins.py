"""Visium HD's bins as counts at points: read in order, a batch of bins at a time."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.formatting import counted, length
from napari_flag.slides.formats import space_ranger
from napari_flag.slides.formats.counts import expression_columns, refuse_not_raw
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    csr_of,
    opened_h5,
    reading_parquet,
    refuse_inflated_parquet,
)
from napari_flag.slides.pooling import BATCH_POINTS, Batch, LocatedCounts
from napari_flag.slides.spots import FloatArray, Image, IntArray

if TYPE_CHECKING:
    from napari_flag.slides.formats.counts import ExpressionColumns


BARCODE: Final = re.compile(rb"s_\d{3}um_(\d{5})_(\d{5})-\d+")
"""Space Ranger's name of a bin: its size, array row and array column."""
MOST_ALONG: Final = 20_000
"""Rows or columns of bins; those of 2 µm on the largest capture area (11 mm) are 5,500."""
MOST_BINS: Final = 2**26
"""Bins of one table: those of 2 µm on the largest capture area are 30 million."""
COLUMNS: Final = ("in_tissue", "array_row", "array_col", "pxl_col_in_fullres", "pxl_row_in_fullres")


def bins_of(path: Path) -> Path | None:
    """Return the folder of the finest bins that `path` holds, or None where it holds none.

    Parameters
    ----------
    path
        Space Ranger's ``outs``, its parent, ``binned_outputs``, or the folder of one bin size.
    """
    if re.fullmatch(r"square_\d+um", path.name) and path.is_dir():
        return path
    for folder in (path / "binned_outputs", path / "outs" / "binned_outputs", path):
        sizes = sorted(entry for entry in folder.glob("square_*um") if entry.is_dir())
        if sizes:
            return sizes[0]
    return None


def located_bins(folder: Path, image: Image) -> LocatedCounts:
    """Return the counts of Visium HD bins under tissue, at their centres.

    Parameters
    ----------
    folder
        The folder of one bin size (``square_002um``).
    image
        The full-resolution image, or Space Ranger's small one.

    Raises
    ------
    UserError
        When positions or matrix are missing, or the image is another one.
    """
    found = space_ranger.find_folder(folder)
    matrix = space_ranger.find_matrix(folder)
    if found is None or ending(found.positions) != ".parquet":
        raise UserError(
            f"{folder} holds no spatial/tissue_positions.parquet, so it is not known where its bins are; "
            "copy the folder Space Ranger wrote again."
        )
    if matrix is None or ending(matrix) != ".h5":
        raise UserError(
            f"{folder} holds no filtered_feature_bc_matrix.h5, so there are no counts to pool; copy the "
            "folder Space Ranger wrote again."
        )
    grid = _Grid(found.positions)
    scale, scaled = space_ranger.scaling_of(found).fit(image, grid.corners, folder)
    size, stated = space_ranger.bin_scale(found)
    columns = expression_columns(matrix)
    said = f"bins are placed by Space Ranger's positions in {image.path.name}."
    return LocatedCounts(
        technology="Visium HD" if size is None else f"Visium HD, {length(size)} bins",
        noun="bins",
        path=folder,
        genes=columns.genes,
        batches=lambda: _batches(matrix, columns, grid),
        to_image=np.diag([scale, scale, 1.0]),
        alignment=" ".join((said, *scaled)),
        total=columns.n_barcodes,
        um_per_unit=stated,
        fields=grid.corners[None],
    )


class _Grid:
    """Centres of all bins by array row and column; 11 million of 2 µm take 180 MB."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as parquet

        try:
            refuse_inflated_parquet(path, MOST_BINS)
            file = parquet.ParquetFile(path)
            lacking = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if lacking:
                raise UserError(
                    f"{path.name} lacks {', '.join(lacking)}; copy the file Space Ranger wrote again."
                )
            with reading_parquet():
                parts = [
                    self._arrays(part) for part in file.iter_batches(BATCH_POINTS, columns=list(COLUMNS))
                ]
        except DAMAGED as error:
            raise UserError(
                f"{path} could not be read ({error}), so it is damaged or incomplete; copy it again."
            ) from error
        ends = np.array([(array.min(axis=0), array.max(axis=0)) for array, _, _ in parts if len(array)])
        if len(ends) == 0 or ends.min() < 0 or ends.max() >= MOST_ALONG:
            raise UserError(
                f"{path} places no bins, or places them outside any array ({ends.min(initial=0)} to "
                f"{ends.max(initial=0)}); copy the file Space Ranger wrote again."
            )
        if odd := sum(int((~np.isfinite(xy)).any(axis=1).sum()) for _, xy, _ in parts):
            raise UserError(
                f"{path} has {counted(odd, 'bin')} without finite pixels, so it is not known where they are; "
                "copy the file Space Ranger wrote again."
            )
        shape = ends[:, 1].max(axis=0) + 1
        self.xy: FloatArray = np.full((*shape, 2), np.nan)
        self.on: npt.NDArray[np.bool_] = np.zeros(tuple(shape), bool)
        for array, xy, on in parts:
            self.xy[tuple(array.T)] = xy
            self.on[tuple(array.T)] = on
        if not np.isfinite(self.corners).all():
            raise UserError(
                f"{path} lacks bins at the corners of its array, so it is not known what was measured; copy "
                "the file Space Ranger wrote again."
            )

    @staticmethod
    def _arrays(part: Any) -> tuple[IntArray, FloatArray, npt.NDArray[np.bool_]]:
        on, row, column, x, y = (part.column(name).to_numpy(zero_copy_only=False) for name in COLUMNS)
        array = np.stack([row, column], axis=1).astype(np.int64)
        return array, np.stack([x, y], axis=1).astype(np.float64), on > 0

    @property
    def corners(self) -> FloatArray:
        """(4, 2) corners of the capture area: half a bin beyond the centres of the outermost bins."""
        rows, columns = np.nonzero(np.isfinite(self.xy[..., 0]))
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        a, b, c, d = (self.xy[at] for at in ((top, left), (top, right), (bottom, right), (bottom, left)))
        across = (b - a) / max(right - left, 1) / 2
        down = (d - a) / max(bottom - top, 1) / 2
        found: FloatArray = np.stack(
            [a - across - down, b + across - down, c + across + down, d - across + down]
        )
        return found


def _batches(matrix: Path, columns: "ExpressionColumns", grid: _Grid) -> Iterator[Batch]:
    try:
        with opened_h5(matrix) as file:
            group = file["matrix"]
            pointer = group["indptr"][:].astype(np.int64)
            seen = np.zeros(grid.on.shape, bool)
            for start in range(0, columns.n_barcodes, BATCH_POINTS):
                stop = min(start + BATCH_POINTS, columns.n_barcodes)
                array = _array(group["barcodes"][start:stop], grid.on.shape, matrix)
                _refuse_seen(array, seen, matrix)
                low, high = pointer[start], pointer[stop]
                parts = group["data"][low:high], group["indices"][low:high], pointer[start : stop + 1] - low
                refuse_not_raw(matrix, np.asarray(parts[0]))
                counts = csr_of(*parts, (stop - start, columns.n_features), group["data"].dtype)
                on = grid.on[tuple(array.T)]
                xy = grid.xy[tuple(array[on].T)]
                yield Batch(xy, counts[on][:, columns.kept], None, stop - start)
    except DAMAGED as error:
        raise UserError(
            f"{matrix} could not be read ({error}), so it is damaged or incomplete; copy it again."
        ) from error


def _refuse_seen(array: IntArray, seen: npt.NDArray[np.bool_], path: Path) -> None:
    """Refuse bins that were there before, in these or in `seen`, which takes them up."""
    again = seen[tuple(array.T)]
    seen[tuple(array.T)] = True
    repeated = int(again.sum()) or len(array) - len(np.unique(array, axis=0))
    if repeated:
        raise UserError(
            f"{path} names {counted(repeated, 'bin')} more than once, so it is not clear which counts are "
            "theirs; copy the folder Space Ranger wrote again."
        )


def _array(barcodes: npt.NDArray[np.bytes_], shape: tuple[int, ...], path: Path) -> IntArray:
    """Return (n, 2) array row and column of bins by their names."""
    names = np.ascontiguousarray(barcodes)
    parts = [BARCODE.fullmatch(name) for name in names.tolist()]
    found = np.array([(-1, -1) if part is None else (int(part[1]), int(part[2])) for part in parts], np.int64)
    if ((found < 0) | (found >= shape)).any():
        odd = names[np.flatnonzero(((found < 0) | (found >= shape)).any(axis=1))[0]]
        raise UserError(
            f"{path} names a bin {odd.decode()!r}, which has no position beside it; copy the folder Space "
            "Ranger wrote again."
        )
    return found
