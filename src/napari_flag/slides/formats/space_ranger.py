"""Space Ranger's output folders: Visium (v1 and v2+) and the bins of Visium HD."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import files, keys
from napari_flag.errors import UserError
from napari_flag.formatting import counted_of, length
from napari_flag.slides.formats.counts import RESOLUTIONS, is_mex, read_10x_h5, read_mex
from napari_flag.slides.formats.positions import numbers
from napari_flag.slides.formats.readers import MOST_SIDE
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    MOST_LISTED,
    reading_parquet,
    refuse_inflated_parquet,
)
from napari_flag.slides.formats.text_tables import SPACE_RANGER_PLACES, frame_of, read_bytes
from napari_flag.slides.resolution import FINEST
from napari_flag.slides.spots import Lattice, Scaling, Spots, SpotTable, array_from, matched, refuse_repeated

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


SPATIAL_FOLDER: Final = "spatial"
"""Folder of a run in which positions, scale factors and small pictures lie."""
VISIUM_DIAMETER_UM: Final = 55.0
VISIUM_PITCH_UM: Final = 100.0
COLUMNS: Final = (
    "barcode", "in_tissue", "array_row", "array_col", *SPACE_RANGER_PLACES,
)  # fmt: skip
"""Columns of a positions file; version 1 writes them without a header.  Row before column."""
POSITIONS: Final = (
    "tissue_positions.parquet",
    "tissue_positions.csv",
    "tissue_positions_list.csv",
)
FACTORS: Final = ("tissue_hires_scalef", "tissue_lowres_scalef", "bin_size_um", "microns_per_pixel")
"""Scale factors that are used."""
MATRICES: Final = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix")


@dataclass(frozen=True, slots=True)
class Folder:
    """A Space Ranger output folder: where its positions are, and the folder of its matrices."""

    positions: Path
    outs: Path

    @property
    def spatial(self) -> Path:
        """The folder of the scale factors and small images."""
        return self.positions.parent


def find_folder(path: Path) -> Folder | None:
    """Return the Space Ranger folder `path` is in or stands for; None when there is none.

    Parameters
    ----------
    path
        ``outs/``, its parent, ``spatial/``, a positions file, or a matrix beside ``spatial/``.
    """
    if path.is_file():
        if path.name in POSITIONS:
            return Folder(path, path.parent.parent)
        return find_folder(path.parent)
    _refuse_choice_of_bins(path)
    for spatial in (path / SPATIAL_FOLDER, path, path / "outs" / SPATIAL_FOLDER):
        for name in POSITIONS:
            if (spatial / name).exists():
                return Folder(spatial / name, spatial.parent)
    return None


def _refuse_choice_of_bins(path: Path) -> None:
    for folder in (path / "binned_outputs", path / "outs" / "binned_outputs", path):
        bins = sorted(p.name for p in folder.glob("square_*um"))
        if bins:
            raise UserError(
                f"{path} holds Visium HD bins of several sizes ({', '.join(bins)}); choose one of "
                f"these folders in {folder}, e.g. {bins[-1]}."
            )


def read_space_ranger(folder: Folder, slide: "Slide | None") -> SpotTable:
    """Read spots on tissue, with their counts where a matrix is there."""
    frame, factors = _positions(folder.positions), _factors(folder.spatial)
    keep = numbers(frame, ("in_tissue",), folder.positions)[:, 0] > 0
    notices: tuple[str, ...] = ()
    if not keep.all():
        notices = (f"{counted_of((~keep).sum(), len(keep), 'spot')} are not on tissue and left out.",)
    frame = frame[keep]
    xy = numbers(frame, ("pxl_col_in_fullres", "pxl_row_in_fullres"), folder.positions)
    scale = 1.0
    if slide is not None:
        scale, scaled = scaling_of(folder).fit(slide, xy, folder.outs)
        notices += scaled
    size = factors.get("bin_size_um")
    lattice: Lattice = "square" if size else "hex"
    spots = Spots(
        tuple(str(barcode) for barcode in frame["barcode"]),
        xy * scale,
        size or VISIUM_DIAMETER_UM,
        size or VISIUM_PITCH_UM,
        lattice,
        array_from(numbers(frame, ("array_row", "array_col"), folder.positions), folder.positions.name),
    )
    stated = factors.get("microns_per_pixel")
    table = SpotTable(
        spots,
        None,
        f"Visium HD, {length(size)} bins" if size else "Visium",
        notices,
        scale,
        stated / scale if stated else None,
        "Space Ranger's microns_per_pixel" if stated else "",
    )
    matrix = find_matrix(folder.outs)
    if matrix is None:
        return table
    if matrix.name.startswith("raw"):
        table = table.with_notice("Only the raw matrix is there; it is used for the spots on tissue.")
    return matched(table, read_matrix(matrix), matrix)


def find_matrix(outs: Path) -> Path | None:
    """Return the count matrix of a folder: filtered before raw, HDF5 before MEX; None without."""
    for name in MATRICES:
        if (outs / f"{name}.h5").exists():
            return outs / f"{name}.h5"
        if is_mex(outs / name):
            return outs / name
    return None


def with_places(counts: "AnnData", outs: Path) -> "AnnData":
    """Give counts the places of their barcodes, where the folder of their matrix has a table of positions.

    They are ``obsm["spatial"]``, (x, y) in full-resolution pixels, NaN for a barcode that the table has not;
    how much smaller copies of that image are is ``uns["resolutions"]``.
    """
    import pandas

    there = [outs / SPATIAL_FOLDER / name for name in POSITIONS if (outs / SPATIAL_FOLDER / name).exists()]
    if not there:
        return counts
    frame = _positions(there[0])
    known = pandas.Index(frame["barcode"].astype(str))
    refuse_repeated(known, there[0].name)
    rows = known.get_indexer(counts.obs_names)
    xy = numbers(frame, ("pxl_col_in_fullres", "pxl_row_in_fullres"), there[0])[rows]
    xy[rows < 0] = np.nan
    counts.obsm[keys.SPATIAL] = xy
    factors = _factors(there[0].parent)
    counts.uns[RESOLUTIONS] = [factors[name] for name in _COPIES if name in factors]
    return counts


_COPIES: Final = ("tissue_hires_scalef", "tissue_lowres_scalef")


def read_matrix(path: Path) -> "AnnData":
    """Read a 10x matrix, HDF5 or MEX."""
    return read_mex(path) if path.is_dir() else read_10x_h5(path)


def _positions(path: Path) -> Any:
    import pandas

    try:
        if files.ending(path) == ".parquet":
            with reading_parquet():
                refuse_inflated_parquet(path, MOST_LISTED, texts=True)
                frame = pandas.read_parquet(path)
        else:
            text = read_bytes(path)
            titled = text.removeprefix(b"\xef\xbb\xbf")[:7].lower() == b"barcode"
            names = None if titled else list(COLUMNS)
            frame = frame_of(path, text, names=names, header=0 if titled else None)
    except DAMAGED as error:
        raise UserError(
            f"{path} could not be read ({error}), so it is damaged or incomplete; copy it again."
        ) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking:
        raise UserError(
            f"{path.name} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}; "
            "copy the file Space Ranger wrote again."
        )
    return frame


def _factors(spatial: Path) -> dict[str, float]:
    """Return the scale factors; without the file, none are known."""
    path = spatial / "scalefactors_json.json"
    if not path.exists():
        return {}
    try:
        content = files.parse_json(files.read_text(path))
        return {name: _factor(name, content[name]) for name in FACTORS if content.get(name) is not None}
    except (OSError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{path} could not be read ({error}), so the scale of positions is unknown; copy it again."
        ) from error


def _factor(name: str, stated: Any) -> float:
    """Return a scale factor that can be one; true, text, zero and infinite are none."""
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise ValueError(f"{name} is no number")
    least = FINEST if name == "microns_per_pixel" else 1 / MOST_SIDE
    if not least <= float(stated) <= MOST_SIDE:
        raise ValueError(f"{name} is {float(stated):g}, which no scale is")
    return float(stated)


def scaling_of(folder: Folder) -> Scaling:
    """Return the smaller copies of the full-resolution image that a folder knows, from their headers.

    Raises
    ------
    UserError
        When the scale factors or an image cannot be read.
    """
    from napari_flag.slides.formats.opening import open_reader

    factors = _factors(folder.spatial)
    names = [name for name in ("hires", "lowres") if f"tissue_{name}_scalef" in factors]
    sizes = {}
    for name in names:
        image = small_image(folder.spatial, name)
        if image.exists():
            reader = open_reader(image)
            sizes[name] = reader.levels[0]
            reader.close()
    return Scaling({name: factors[f"tissue_{name}_scalef"] for name in names}, sizes)


def bin_scale(folder: Folder) -> tuple[float | None, float | None]:
    """Return the bins' size in µm and the µm per full-resolution px that Space Ranger states, None if not."""
    factors = _factors(folder.spatial)
    return factors.get("bin_size_um"), factors.get("microns_per_pixel")


def small_image(spatial: Path, name: str) -> Path:
    """Return where Space Ranger keeps its "hires" or "lowres" image."""
    return spatial / f"tissue_{name}_image.png"
