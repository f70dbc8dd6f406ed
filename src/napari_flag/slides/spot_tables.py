"""Spot tables: where the spots of a slide are, and what was measured there, from any technology."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag.errors import UserError
from napari_flag.slides.spots import SpotTable, matched, refuse_outside

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


TEXT: Final = (".tsv", ".csv", ".txt", ".tsv.gz", ".csv.gz", ".txt.gz")


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
        A legacy ST table, a table of positions, a Space Ranger folder, or an ``.h5ad`` file.
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
    if slide is not None:
        refuse_outside(table.spots.xy, slide, path)
    if measured_from is not None:
        table = matched(table, read_measured(measured_from), Path(measured_from))
    return table


def read_measured(path: str | Path) -> "AnnData":
    """Read raw counts; ``obs_names`` are spot ids, ``var_names`` gene symbols.

    Parameters
    ----------
    path
        An ST table of counts (``.tsv``, ``.csv``, also gzipped), a Space Ranger folder or matrix
        (``.h5`` or MEX folder), or an ``.h5ad`` file.
    """
    from napari_flag.slides.formats import counts, h5ad, space_ranger

    path = _existing(path)
    if path.suffix == ".h5ad":
        return h5ad.read_h5ad_counts(path)
    if path.suffix == ".h5":
        return counts.read_10x_h5(path)
    if path.name.endswith((".mtx", ".mtx.gz")) or counts.is_mex(path):
        return counts.read_mex(path if path.is_dir() else path.parent)
    if path.is_dir():
        folder = space_ranger.find_folder(path)
        found = space_ranger.find_matrix(path if folder is None else folder.outs)
        if found is None:
            raise UserError(
                f"{path} holds no count matrix (filtered_feature_bc_matrix.h5); choose the outs "
                "folder of Space Ranger."
            )
        return space_ranger.read_matrix(found)
    if path.name.endswith(TEXT):
        return counts.read_count_table(path)
    raise _unknown(path)


def _read(path: Path, slide: "Slide | None") -> SpotTable:
    from napari_flag.slides.formats import h5ad, positions, space_ranger

    if path.suffix == ".h5ad":
        return h5ad.read_h5ad(path, slide)
    if path.is_dir() or path.suffix in (".h5", ".parquet") or path.name in space_ranger.POSITIONS:
        folder = space_ranger.find_folder(path)
        if folder is None:
            raise UserError(
                f"{path} holds no spot positions (spatial/tissue_positions.csv); choose the outs "
                "folder of Space Ranger."
            )
        return space_ranger.read_space_ranger(folder, slide)
    if path.name.endswith(TEXT):
        return positions.read_positions(path)
    raise _unknown(path)


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"There is no file or folder {path}; check the path.")
    return path


def _unknown(path: Path) -> UserError:
    return UserError(
        f"{path.name} is no spot table napari-flag knows; choose a .tsv or .csv table, a Space "
        "Ranger folder, or an .h5ad file."
    )
