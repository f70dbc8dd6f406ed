"""Spot tables: where the spots of a slide are, and what was measured there, from any technology."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag.errors import UserError
from napari_flag.slides.spots import FloatArray, Spots

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide

TEXT: Final = (".tsv", ".csv", ".txt", ".tsv.gz", ".csv.gz", ".txt.gz")


@dataclass(frozen=True, slots=True)
class SpotTable:
    """Spots of one slide with what came along.

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

    def noticing(self, notice: str) -> "SpotTable":
        """Return the same table with one more notice."""
        return replace(self, notices=(*self.notices, notice))


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
    from napari_flag.slides import annotated, expression, matrix, space_ranger

    path = _existing(path)
    if path.suffix == ".h5ad":
        return annotated.read_h5ad_counts(path)
    if path.suffix == ".h5":
        return matrix.read_10x_h5(path)
    if path.name.endswith((".mtx", ".mtx.gz")) or matrix.is_mex(path):
        return matrix.read_mex(path if path.is_dir() else path.parent)
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
        return expression.read_count_table(path)
    raise _unknown(path)


def refuse_outside(xy: FloatArray, slide: "Slide", path: Path) -> None:
    """Refuse a table whose spots lie outside `slide`: it belongs to another one."""
    width, height = slide.size
    outside = ((xy < 0) | (xy > (width, height))).any(axis=1)
    if outside.any():
        (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
        raise UserError(
            f"{outside.sum()} of {len(xy)} spots of {path.name} (x {left:.0f} to {right:.0f}, "
            f"y {top:.0f} to {bottom:.0f} px) lie outside {slide.path.name} ({width} × {height} "
            "px); choose the table of this slide, or the image the table was made on."
        )


def _read(path: Path, slide: "Slide | None") -> SpotTable:
    from napari_flag.slides import annotated, positions, space_ranger

    if path.suffix == ".h5ad":
        return annotated.read_h5ad(path, slide)
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


def matched(table: SpotTable, measured: "AnnData", source: Path) -> SpotTable:
    """Return `table` with the counts of its spots, saying how many have none."""
    rows = measured.obs_names.get_indexer(list(table.spots.ids))
    missing = int((rows < 0).sum())
    if missing == len(rows) > 0:
        raise UserError(
            f"No spot of the table is in {source.name} (which names them like "
            f"{measured.obs_names[0]!r}, the table like {table.spots.ids[0]!r}); choose the counts "
            "of the same section."
        )
    table = replace(table, measured=measured[rows[rows >= 0]].copy())
    if missing:
        said = f"{missing} of {len(rows)} spots have no counts in {source.name}."
        return table.noticing(said)
    return table


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
