"""Spot tables: where the spots of a slide are, and what was measured there, from any technology."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag.errors import UserError
from napari_flag.files import ending, refuse_missing, refuse_special
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.stored_anndata import refuse_plain_zarr
from napari_flag.slides.spots import Image, Spots, SpotTable, libraries_among, matched, refuse_outside

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.pooling import LocatedCounts
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.tissue import Tissue


TEXT: Final = (".tsv", ".csv", ".txt", ".tsv.gz", ".csv.gz", ".txt.gz")
MATRIX_MARKET: Final = (".mtx", ".mtx.gz")
SPOT_ENDINGS: Final = (*TEXT, ".h5ad", ".h5", ".parquet")
"""Endings of files that `read_spots` takes; of a matrix (``.h5``) the folder it is in."""
COUNT_ENDINGS: Final = (*TEXT, ".h5ad", ".h5", *MATRIX_MARKET, ".parquet")
"""Endings of files that `measured_at` takes; ``.parquet`` of transcripts or cells."""


def read_spots(
    path: str | Path,
    *,
    slide: "Slide | None" = None,
    measured_from: str | Path | None = None,
) -> SpotTable:
    """Read spots from a table or folder of any technology.

    Parameters
    ----------
    path
        A legacy ST table, a table of positions, a Space Ranger folder, an ``.h5ad`` file, or a SpatialData
        zarr or the folder of one of its tables or shapes.
    slide
        The slide at hand; decides the scale, and spots outside it are refused.
    measured_from
        Where measured counts are, when not in the table itself (see `read_measured`).

    Raises
    ------
    UserError
        When the table cannot be read, lacks columns, has no spots, or belongs to another slide.
    """
    path = _existing(path)
    table = _read(path, slide)
    if len(table.spots) == 0:
        raise UserError(
            f"{path.name} has no spots in use, so there is nothing to predict; check its "
            "selected or in_tissue column, or choose another table."
        )
    if (several := libraries_among(table.spots.ids)) is not None:
        table = table.with_notice(several)
    if slide is not None:
        refuse_outside(table.spots.xy, slide, path)
    if measured_from is not None:
        table = matched(table, read_measured(measured_from), Path(measured_from))
    return table


def count_spots(path: Path) -> int | None:
    """Return how many spots a text table or an ``.h5ad`` has; None where that takes long, or cannot be read.

    Of an ``.h5ad`` spots that are not on the tissue count too.
    """
    from napari_flag.slides.formats import positions
    from napari_flag.slides.formats.stored_arrays import DAMAGED, opened_h5

    try:
        if ending(path) == ".h5ad":
            with opened_h5(path) as file:
                return len(file["obs"][file["obs"].attrs["_index"]])
        return len(positions.read_positions(path).spots) if ending(path) in TEXT else None
    except (UserError, *DAMAGED):
        return None


def read_measured(path: str | Path) -> "AnnData":
    """Read raw counts; ``obs_names`` are spot ids, ``var_names`` gene symbols.

    Parameters
    ----------
    path
        An ST table of counts (``.tsv``, ``.csv``, also gzipped), a Space Ranger folder or matrix
        (``.h5`` or MEX folder), an ``.h5ad`` file, or a SpatialData zarr.
    """
    from napari_flag.slides.formats import counts, h5ad, space_ranger, spatial_data_tables

    path = _existing(path)
    if path.name in space_ranger.POSITIONS:  # the first version has no names of columns to know it by
        raise counts.positions_not_counts(path, "Space Ranger calls them so")
    if _in_zarr(path):
        return spatial_data_tables.read_table_counts(path)
    if ending(path) == ".h5ad":
        return h5ad.read_h5ad_counts(path)
    if ending(path) == ".h5" or counts.is_mex(path):
        matrix = path.parent if path.name in counts.MATRICES and path.is_file() else path
        return space_ranger.with_places(space_ranger.read_matrix(matrix), matrix.parent)
    if path.is_dir():
        folder = space_ranger.find_folder(path)
        found = space_ranger.find_matrix(path if folder is None else folder.outs)
        if found is None:
            raise UserError(
                f"{path} holds no count matrix (filtered_feature_bc_matrix.h5); choose the outs "
                "folder of Space Ranger."
            )
        return space_ranger.with_places(space_ranger.read_matrix(found), found.parent)
    if ending(path) in TEXT:
        return counts.read_count_table(path)
    raise UserError(
        f"{path.name} is no count table napari-flag knows; choose a .tsv or .csv table of counts, a Space "
        "Ranger folder or matrix (.h5, matrix.mtx), or an .h5ad file."
    )


def located_counts(
    path: Path, image: Image, spots: Spots, alignment: str | Path | None = None
) -> "LocatedCounts | None":
    """Return counts that are to be pooled into `spots`; None for counts that are named by spot.

    Parameters
    ----------
    path
        A Visium HD folder, whose finest bins are taken, or the folder of one bin size; bins that are the
        spots themselves are not pooled.  A Xenium or CosMx folder, whose transcripts are taken where they are
        there, or its file of transcripts or cells.
    image
        The image that the spots count in.
    spots
        The spots.
    alignment
        The alignment file, for platforms that measure in coordinates of their own.
    """
    from napari_flag.slides.formats import bins, in_situ

    run = in_situ.find_run(path)
    if run is not None:
        return in_situ.located_run(run, image, alignment)
    folder = bins.bins_of(path)
    if folder is not None:
        names = spots.ids[0].encode() if len(spots) else b""
        return None if bins.BARCODE.fullmatch(names) else bins.located_bins(folder, image)
    if alignment is not None:
        raise unaligned(path)
    return None


def unaligned(path: Path) -> UserError:
    """Return the sentence on an alignment file beside counts that are named by spot."""
    return UserError(
        f"An alignment file places transcripts and cells on the image, and {path.name} names its counts "
        "by spot; leave --alignment out."
    )


def measured_at(
    path: str | Path,
    spots: Spots,
    mpp: float | None,
    image: Image,
    *,
    tissue: "Tissue | None" = None,
    alignment: str | Path | None = None,
) -> Steps[tuple["AnnData", tuple[str, ...]]]:
    """Read raw counts of `spots`, pooling those that are at points of their own.

    Parameters
    ----------
    path
        As `read_measured` and `located_counts` take it.
    spots
        The spots, in level-0 px of `image`.
    mpp
        µm per level-0 px, which pooling needs.
    image
        The image.
    tissue
        Of the image, to check the registration of what is pooled; None checks none.
    alignment
        As `located_counts` takes it.

    Returns
    -------
    counts
        Rows named by spot id.
    notices
        What was pooled and how.

    Raises
    ------
    UserError
        As `read_measured` and `pooling.pool`.
    """
    path = _existing(path)
    yield Step("Reading measured counts", 0)
    located = located_counts(path, image, spots, alignment)
    if located is None:
        return read_measured(path), ()
    from napari_flag.slides.pooling import pool

    if mpp is None:
        raise UserError(
            f"{path.name} is pooled into spots in µm, but the µm/px of {image.path.name} are not known; give "
            "them (--mpp)."
        )
    return (yield from pool(located, spots, mpp, image, tissue))


def needs_pooling(path: str | Path) -> bool:
    """Return whether `path` holds counts at points, which belong to no spots of their own."""
    from napari_flag.slides.formats import bins, in_situ

    path = Path(path).expanduser()
    return bins.bins_of(path) is not None or in_situ.find_run(path) is not None


def _read(path: Path, slide: "Slide | None") -> SpotTable:
    from napari_flag.slides.formats import h5ad, positions, space_ranger, spatial_data_tables

    if _in_zarr(path):
        return spatial_data_tables.read_spot_table(path, slide)
    if ending(path) == ".h5ad":
        return h5ad.read_h5ad(path, slide)
    if path.is_dir() or ending(path) in (".h5", ".parquet") or path.name in space_ranger.POSITIONS:
        folder = space_ranger.find_folder(path)
        if folder is None:
            raise UserError(
                f"{path} holds no spot positions (spatial/tissue_positions.csv); choose the outs "
                "folder of Space Ranger."
            )
        return space_ranger.read_space_ranger(folder, slide)
    if ending(path) in TEXT:
        return positions.read_positions(path)
    raise UserError(
        f"{path.name} is no spot table napari-flag knows; choose a .tsv or .csv table, a Space "
        "Ranger folder, or an .h5ad file."
    )


def _in_zarr(path: Path) -> bool:
    """Return whether a path is a SpatialData zarr, or a table or shapes in one."""
    from napari_flag.slides.formats import spatial_data as sd

    return sd.is_store(path) or sd.element_of(path, sd.TABLES, sd.SHAPES) is not None


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    refuse_missing(path)
    refuse_special(path)
    if not _in_zarr(path):
        refuse_plain_zarr(path)
    return path
