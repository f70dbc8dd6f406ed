"""Predictions that other programs wrote, read into the layout of our own.

A prediction is a table with positions and expression: an AnnData (``.h5ad``), a table of a SpatialData zarr
with the shapes it annotates, or shapes whose columns are genes, as LazySlide writes them.  What is read is
the AnnData of `prediction_file`, in log2(count + 1), and everything after it treats both alike.  The file
itself is never changed.  Its unit is read where it is written and else asked for, never guessed from how
large the numbers are.
"""

import math
from collections.abc import Callable, Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.formatting import counted_of, number, whole
from napari_flag.prediction_file import (
    LOG2,
    PICTURED,
    is_prediction,
    layer_of,
    odd_pictures,
    read_prediction,
    refuse_fault,
)
from napari_flag.slides.formats import spatial_data
from napari_flag.slides.formats.h5ad import array_of, gene_names, positions_of
from napari_flag.slides.formats.readers import Size
from napari_flag.slides.formats.stored_anndata import (
    H5ad,
    are_counts,
    refuse_plain_zarr,
    starts_with_counts,
    with_file,
)
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    opened_h5,
    reading_parquet,
    refuse_inflated_parquet,
)
from napari_flag.slides.formats.stored_zarr import refuse_unsafe
from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spots import FloatArray, typical_pitch

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_flag.slides.spots import Spots


T = TypeVar("T")

SHAPES_FILE: Final = "shapes.parquet"
"""File of the shapes of a SpatialData zarr."""
FEWEST_GENES: Final = 10
"""Columns of numbers from which shapes are a prediction, and not spots with a few properties."""
UNITS: Final = {
    "log2p1": "log2(count + 1)",
    "log1p": "ln(count + 1)",
    "counts": "counts",
}
"""What a file may hold: the word for it (``--unit``), and what it means."""
_WRITTEN: Final = {
    **{word: word for word in UNITS},
    **{meaning: word for word, meaning in UNITS.items()},
    "log2(counts + 1)": "log2p1",
    "log(count + 1)": "log1p",
    "ln(counts + 1)": "log1p",
    "raw counts": "counts",
}
"""What stands in a file, in small letters → the word for it."""
_UNIT_KEYS: Final = ("unit", "units", "expression_unit", "expression_units")
"""Keys of ``uns``, or of a mapping in it, under which a unit is written."""
_UNITS_OFFERED: Final = "log2p1 for log2(count + 1), log1p for ln(count + 1), or counts"
WHOLE: Final = "whole numbers"
"""In place of where a unit is stated: values that are all whole are counts."""
_OF_SHAPES: Final = frozenset(
    {"tile_id", "tissue_id", "x", "y", "radius", "instance_id", "library_id", "index"}
)
"""Columns of shapes that are no genes."""
_BELOW: Final = -1e-3
"""Below this a value is negative, and no rounding."""


class UnitUnknown(UserError):
    """A file does not state the unit of its values.

    Parameters
    ----------
    path
        The file, to be read again with the unit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"{path.name} does not state the unit of its values, and a wrong one would make the scores "
            f"wrong; say it with --unit (in Python unit=): {_UNITS_OFFERED}."
        )


def read_any_prediction(path: str | Path, unit: str | None = None, *, image: Path | None = None) -> "AnnData":
    """Read a prediction of any program.

    Parameters
    ----------
    path
        An ``.h5ad`` file of ours or of another program; a SpatialData ``.zarr`` with one table, or one of its
        tables (``X.zarr/tables/NAME``) or shapes with genes as columns (``X.zarr/shapes/NAME``).
    unit
        One of `UNITS`, used where the file states none, or holds whole numbers and states nothing else; None
        raises `UnitUnknown` where there is no other sign of it.
    image
        Folder of the image in the same zarr that it lies on; None takes the only one.

    Returns
    -------
    AnnData (spots × genes), ``X`` float32 log2(count + 1), as docs/prediction-file.md states.  What
    another program wrote has ``uns["napari_flag"]["read_from"]`` with its file and unit.

    Raises
    ------
    UserError
        When the file is damaged, holds several slides or tables, has no positions, or states another unit
        than `unit`.
    """
    if unit is not None and unit not in UNITS:
        raise UserError(f"{unit!r} is no unit of expression; give {_UNITS_OFFERED}.")
    path = Path(path).expanduser()
    if path.is_dir():
        return _read_spatialdata(path, unit, image)
    if ending(path) != ".h5ad" or is_prediction(path) or not _is_annotated(path):
        return read_prediction(path)
    return with_file(path, lambda h5ad: _adopt(h5ad, path, unit, None))


NEAR: Final = 0.1
"""Distance from a spot, in pitches, within which a row lies on it: 10 µm on Visium."""


def name_by_place(adata: "AnnData", spots: "Spots", source: str) -> "AnnData":
    """Return a prediction whose rows are named after the spots they lie on.

    Programs that number their tiles do not know the ids of the spots.

    Parameters
    ----------
    adata
        Another program's prediction; not changed.
    spots
        With ids and (x, y) centres in the same pixels.
    source
        Where the spots are from, for the notice.

    Returns
    -------
    The rows of `adata` within `NEAR` pitches of a spot, with its id and place in the array; where two lie on
    one, the nearer.

    Raises
    ------
    UserError
        When no row lies on a spot.
    """
    from scipy.spatial import cKDTree

    apart, found = cKDTree(spots.xy).query(np.asarray(adata.obsm[keys.SPATIAL], np.float64))
    near = NEAR * typical_pitch(spots.xy)
    nearest = [int(row) for row in np.argsort(apart, kind="stable") if apart[row] <= near]
    taken = {int(found[row]): row for row in reversed(nearest)}
    rows = sorted(taken.values())
    name = adata.uns[keys.PROVENANCE][keys.READ_FROM][keys.READ_FILE]
    if not rows:
        raise UserError(
            f"No row of {name} lies on a spot of {source} (the nearest is {whole(apart.min())} px away), so "
            "they are of different slides or pixels; give positions in pixels of the full-resolution image."
        )
    named = adata[rows].copy()
    named.obs_names = [spots.ids[int(found[row])] for row in rows]
    made = dict(named.uns[keys.PROVENANCE])
    if spots.array is not None:
        array = spots.array[found[rows]]
        named.obs[keys.ARRAY_ROW], named.obs[keys.ARRAY_COL] = array.T
        made[keys.LATTICE] = spots.lattice
    made[keys.NOTICES] = [
        *made[keys.NOTICES],
        f"{counted_of(len(rows), adata.n_obs, 'row')} of {name} lie on spots of {source} and are named after "
        f"them, at most {number(apart[rows].max(), 1)} px away.",
    ]
    named.uns[keys.PROVENANCE] = made
    return named


def holds_prediction(path: Path) -> bool:
    """Return whether a file or element holds expression at places that is no measurement.

    Raw counts are taken for a measurement, and variables that are only numbered for features of an encoder.

    Parameters
    ----------
    path
        An h5ad, ours or another program's, or the folder of a table or shapes of a SpatialData zarr.
    """
    if not path.is_dir():
        return is_prediction(path) or with_file(path, _is_expression)
    if (path / SHAPES_FILE).is_file():
        return len(_gene_columns(path)) >= FEWEST_GENES
    return is_prediction(path) or _in_zarr(path, _is_expression)


def _is_expression(h5ad: H5ad) -> bool:
    placed = _has_positions(h5ad) or _annotated(h5ad) is not None
    numbered = all(str(name).isdecimal() for name in h5ad.frame("var").index)
    return placed and not numbered and not starts_with_counts(h5ad)


def is_zarr_table(path: Path) -> bool:
    """Return whether a folder is a SpatialData zarr, or a table or shapes in one."""
    return path.is_dir() and (_is_group(path / "tables") or _is_element(path))


def is_foreign(adata: "AnnData") -> bool:
    """Return whether a prediction was written by another program."""
    return unit_read(adata) is not None


def unit_read(adata: "AnnData") -> str | None:
    """Return the unit that another program's prediction was read in, one of `UNITS`; None of ours."""
    made = adata.uns.get(keys.PROVENANCE, {})
    source = made.get(keys.READ_FROM) if isinstance(made, Mapping) else None
    return str(source[keys.READ_UNIT]) if isinstance(source, Mapping) else None


def _is_annotated(path: Path) -> bool:
    try:
        with opened_h5(path) as file:
            return "obs" in file and "var" in file
    except DAMAGED:
        return False  # prediction_file says what is wrong with it


def _has_positions(h5ad: H5ad) -> bool:
    return f"obsm/{keys.SPATIAL}" in h5ad.file


# --- SpatialData -------------------------------------------------------------------------------
def _is_group(path: Path) -> bool:
    return any((path / name).is_file() for name in (".zgroup", "zarr.json"))


def _is_element(path: Path) -> bool:
    return (path / SHAPES_FILE).is_file() or (path.parent.name == "tables" and _is_group(path))


def _in_zarr(table: Path, use: Callable[[H5ad], T]) -> T:
    """Return what `use` reads of a table of a SpatialData zarr; what is damaged is a `UserError`."""
    import zarr

    refuse_unsafe(table)
    try:
        return use(H5ad(zarr.open_group(str(table), mode="r"), table))
    except DAMAGED as error:
        raise UserError(
            f"{table} could not be read as a table of SpatialData ({error}), so it is damaged or of an "
            "unknown version; write it again with a current spatialdata."
        ) from error


def _read_spatialdata(path: Path, unit: str | None, image: Path | None) -> "AnnData":
    if (path / SHAPES_FILE).is_file():
        return _read_shapes(path, unit, image or _only_image(path))
    table = path if _is_element(path) else _only_table(path)
    if is_prediction(table):
        return read_prediction(table)
    return _in_zarr(table, lambda h5ad: _adopt(h5ad, table, unit, image or _only_image(table)))


def _only_table(path: Path) -> Path:
    """Return the only table, or of several the only one that holds a prediction."""
    folder = path / "tables"
    tables = sorted(p for p in folder.iterdir() if _is_group(p)) if folder.is_dir() else []
    if len(tables) > 1:
        tables = [table for table in tables if holds_prediction(table)] or tables
    if len(tables) == 1:
        return tables[0]
    if not tables:
        refuse_plain_zarr(path)
        raise UserError(
            f"{path} is no SpatialData zarr with a table, so no prediction can be read from it; give an "
            ".h5ad, a zarr with a table, or the shapes with the genes (X.zarr/shapes/NAME)."
        )
    names = ", ".join(table.name for table in tables[:5])
    raise UserError(
        f"{path.name} holds {len(tables)} tables ({names}), so it is not clear which is the "
        f"prediction; give the folder of one, such as {tables[0]}."
    )


def _read_shapes(path: Path, unit: str | None, image: Path | None) -> "AnnData":
    """Read shapes whose further columns are genes (LazySlide's tile predictions)."""
    import pandas as pd

    frame = _frame_of_shapes(path)
    genes = _gene_columns(path)
    if not genes:
        raise UserError(
            f"The shapes {path.name} have no column of numbers beside their place, so they hold no "
            "expression; give the table of the prediction (X.zarr/tables/NAME)."
        )
    ids = frame.get("tile_id", frame.index)
    obs = pd.DataFrame(index=pd.Index(ids.astype(str), dtype=str))
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    xy, notices = _centres(frame, path, image)
    stated = _slide_in_store(path, image)
    return _build(path, frame[genes].to_numpy(np.float32), obs, var, xy, {}, {}, unit, notices, stated)


def _gene_columns(path: Path) -> list[str]:
    """Return the columns of numbers of shapes that are not about the shapes themselves."""
    import pyarrow.parquet as parquet
    from pyarrow import types

    try:
        fields = parquet.read_schema(path / SHAPES_FILE)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    numbers = [field for field in fields if types.is_integer(field.type) or types.is_floating(field.type)]
    index = (fields.pandas_metadata or {}).get("index_columns", ())
    about = _OF_SHAPES | {name for name in index if isinstance(name, str)}
    return [field.name for field in numbers if field.name not in about]


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path / SHAPES_FILE} could not be read ({error}); copy it again.")


def _frame_of_shapes(path: Path) -> "pd.DataFrame":
    import pyarrow.parquet as parquet

    try:
        with reading_parquet():
            refuse_inflated_parquet(path / SHAPES_FILE, texts=True)
            # not read_pandas: columns of geoarrow types would need geopandas
            return parquet.ParquetFile(path / SHAPES_FILE).read().to_pandas()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _centres(frame: "pd.DataFrame", path: Path, image: Path | None) -> tuple[FloatArray, tuple[str, ...]]:
    """Return (n, 2) centres in level-0 px of an image of the store, and what is doubtful about them.

    A store without an image, as LazySlide's, counts in the pixels of a slide that is kept elsewhere.
    """
    import shapely

    from napari_flag.slides.formats.spatial_data_tables import onto_image

    if "geometry" not in frame:
        raise UserError(
            f"The shapes {path.name} have no geometry, so nothing can be placed; write them again."
        )
    centres = shapely.centroid(shapely.from_wkb(frame["geometry"].to_numpy()))
    xy = np.column_stack([shapely.get_x(centres), shapely.get_y(centres)])
    if image is not None:
        affine, notices = onto_image(path, image)
        return xy @ affine[:2, :2].T + affine[:2, 2], notices
    for transform in spatial_data.attributes_of(path).get("coordinateTransformations", ()):
        if transform.get("type") != "identity":
            raise UserError(
                f"The shapes {path.name} are placed on the image by a {transform.get('type')} and not in its "
                'pixels, so it is not clear where they lie; write their centres in pixels as obsm["spatial"].'
            )
    return xy, ()


def _only_image(element: Path) -> Path | None:
    """Return the only colour image beside a table or shapes of a zarr; None if there is not just one."""
    found = spatial_data.element_of(element, spatial_data.TABLES, spatial_data.SHAPES)
    if found is None or len(found[0].images) != 1:
        return None
    return found[0].path / spatial_data.IMAGES / found[0].images[0]


def _slide_in_store(element: Path, image: Path | None) -> dict[str, Any]:
    """Return what a SpatialData zarr states of its slide: by its image, or as LazySlide records it."""
    found = spatial_data.element_of(element, spatial_data.TABLES, spatial_data.SHAPES)
    if found is None:
        return {}
    if image is not None:
        with open_slide(image) as slide:
            return _stated(slide.size, slide.mpp, slide.mpp_source) | {keys.SLIDE_NAME: slide.name}
    recorded: Any = spatial_data.attributes_of(found[0].path).get("slide_properties")
    try:
        height, width = (int(side) for side in recorded["shape"])
        return _stated((width, height), recorded["mpp"], "the SpatialData zarr")
    except (KeyError, TypeError, ValueError):
        return {}


def _stated(size: Size, mpp: float | None, source: str) -> dict[str, Any]:
    made: dict[str, Any] = {keys.SLIDE_WIDTH: size[0], keys.SLIDE_HEIGHT: size[1]}
    return made if mpp is None else made | {keys.MPP: float(mpp), keys.MPP_SOURCE: source}


def _annotated(h5ad: H5ad) -> tuple[Path, str] | None:
    """Return the folder of the shapes that a table annotates, and the column that names them; or None."""
    attributes = _uns(h5ad).get("spatialdata_attrs")
    folder = h5ad.path.parent.parent / "shapes"
    if not isinstance(attributes, Mapping) or not folder.is_dir():
        return None
    region = np.ravel(attributes.get("region", ()))
    if len(region) != 1 or str(region[0]) not in {entry.name for entry in folder.iterdir()}:
        return None  # a name alone is an element: one with "/" or ".." would lead elsewhere
    return folder / str(region[0]), str(attributes.get("instance_key", ""))


def _places(h5ad: H5ad, obs: "pd.DataFrame", image: Path | None) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the (n, 2) positions a file states, else the centres of the shapes that its table annotates."""
    found = None if _has_positions(h5ad) else _annotated(h5ad)
    if found is None or found[1] not in obs:
        return positions_of(h5ad, obs), ()
    shapes, instance = found
    frame = _frame_of_shapes(shapes)
    ids = frame.get(instance, frame.index)
    centres, notices = _centres(frame, shapes, image)
    place = {str(name): row for row, name in enumerate(ids)}
    rows = [place.get(str(name), -1) for name in obs[instance]]
    if min(rows, default=-1) < 0:
        raise UserError(
            f"Some rows of {h5ad.path.name} are not among the shapes {shapes.name}, so they have no place; "
            "write the zarr again from one run."
        )
    return centres[rows], notices


# --- what an AnnData states ----------------------------------------------------------------------
def _uns(h5ad: H5ad) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in h5ad.file.get("uns", ()):
        try:
            found[name] = h5ad.values(f"uns/{name}")
        except Exception:  # noqa: BLE001 what another program keeps there may be anything, and is not needed
            continue
    return found


def _adopt(h5ad: H5ad, path: Path, unit: str | None, image: Path | None) -> "AnnData":
    obs, var, uns = h5ad.frame("obs"), h5ad.frame("var"), _uns(h5ad)
    if "library_id" in obs and obs["library_id"].nunique() > 1:
        raise UserError(
            f"{path.name} holds {obs['library_id'].nunique()} slides; save the spots of one slide to a file "
            "of its own."
        )
    values, notices = _values(h5ad, path)
    there = set(h5ad.file["layers"]) if "layers" in h5ad.file else set()
    drawn = takewhile(there.__contains__, map(layer_of, count(1)))
    layers = {name: h5ad.values(f"layers/{name}") for name in (*drawn, *({keys.SPREAD} & there))}
    xy, doubts = _places(h5ad, obs, image)
    stated = _slide_in_store(path, image)
    return _build(path, values, obs, var, xy, layers, uns, unit, notices + doubts, stated)


def _values(h5ad: H5ad, path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the (n, G) prediction, ``X`` or the only layer, and what is to be said of it."""
    values = h5ad.values("X")
    layers = sorted(name for name in h5ad.file["layers"]) if "layers" in h5ad.file else []
    if values is not None:
        if are_counts(values) and layers and keys.SAMPLE not in layers:
            others = ", ".join(layers[:5])
            return values, (
                f"X of {path.name} holds whole numbers and was taken; the file also holds the layers "
                f"{others}: where one of them is the prediction, save it as X in a file of its own.",
            )
        return values, ()
    if len(layers) != 1:
        raise UserError(
            f"{path.name} has no X and {len(layers)} layers ({', '.join(layers[:5]) or 'none'}), so it is "
            "not clear what the prediction is; save it as X."
        )
    return h5ad.values(f"layers/{layers[0]}"), (
        f"{path.name} has no X; its only layer, {layers[0]}, was taken.",
    )


def _written_unit(path: Path, uns: Mapping[str, Any], values: Any) -> tuple[str, float, str] | None:
    """Return the unit a file states, log2 of its base, and where it is stated; None where it is not.

    Raises
    ------
    UserError
        When it states two.
    """
    stated = _stated_units(uns)
    for word, factor, where in stated[1:]:
        first, its_factor, its_where = stated[0]
        if word != first or not math.isclose(factor, its_factor, rel_tol=_SAME_BASE):
            raise UserError(
                f"{path.name} states {_unit_of(first, its_factor)} in {its_where} and "
                f"{_unit_of(word, factor)} in {where}, so one of the two is wrong; correct it in the file."
            )
    if stated:
        return stated[0]
    if are_counts(values) and values.max() > 1:
        return "counts", 1.0, WHOLE
    return None


def _stated_units(uns: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Return each unit that is stated, log2 of its base, and where."""
    found = []
    for holder, inner in (
        ("uns", uns),
        *((f'uns["{k}"]', v) for k, v in uns.items() if isinstance(v, Mapping)),
    ):
        for key in _UNIT_KEYS:
            word = _WRITTEN.get(str(inner.get(key, "")).strip().lower())
            if word is not None:
                found.append((word, _LOG2_OF_BASE[word], f'{holder}["{key}"]'))
    if "log1p" in uns:
        base = uns["log1p"].get("base") if isinstance(uns["log1p"], Mapping) else None
        base = math.e if base is None else float(base)
        if _SMALLEST_BASE <= base < math.inf:
            word = "log2p1" if base == 2 else "log1p"
            found.append((word, math.log2(base), 'uns["log1p"]'))
    return found


def _unit_of(word: str, factor: float) -> str:
    """Return what a unit means, its base where that is not the one of its word."""
    own = math.isclose(factor, _LOG2_OF_BASE[word], rel_tol=_SAME_BASE)
    return UNITS[word] if own else f"log(count + 1) to the base {2**factor:.4g}"


_SMALLEST_BASE: Final = 1.1
"""Of a logarithm that somebody may have taken: values in a smaller one become almost nothing in log2."""
_SAME_BASE: Final = 1e-3
"""Share by which logarithms of one base may differ: that of ln may be stored in 32 bits."""
_LOG2_OF_BASE: Final = {"log2p1": 1.0, "log1p": math.log2(math.e), "counts": 1.0}


def _settled_unit(
    path: Path, given: str | None, written: tuple[str, float, str] | None
) -> tuple[str, float, str]:
    """Return the unit to read in, as `_written_unit` does, of what the user and the file say.

    Raises
    ------
    UserError
        When they contradict each other, or neither says anything.
    """
    stated = None if written is None or written[2] == WHOLE else written
    if given is not None and stated is not None and given != stated[0]:
        raise UserError(
            f"{path.name} states {UNITS[stated[0]]} in {stated[2]} and was given as {UNITS[given]} (--unit), "
            "so one of the two is wrong; leave the unit out to take the file's, or correct it in the file."
        )
    if given is not None and stated is None:
        return given, _LOG2_OF_BASE[given], "the user"
    if written is None:
        raise UnitUnknown(path)
    return written


# --- into our layout -----------------------------------------------------------------------------
def _build(
    path: Path,
    values: Any,
    obs: "pd.DataFrame",
    var: "pd.DataFrame",
    xy: FloatArray,
    layers: Mapping[str, Any],
    uns: Mapping[str, Any],
    unit: str | None,
    notices: tuple[str, ...],
    stated: Mapping[str, Any],
) -> "AnnData":
    import pandas as pd
    from anndata import AnnData

    word, factor, where = _settled_unit(path, unit, _written_unit(path, uns, values))
    notices += _doubts(path, values, word)
    kept = {}
    for name, layer in layers.items():
        if name != keys.SPREAD:
            kept[name] = _as_log2(layer, word, factor)
        elif word == "counts":
            notices += (f'layers["sd"] of {path.name} is in counts, so it was left out.',)
        else:
            kept[name] = (layer * factor).astype(np.float32)
    names, _ = gene_names(var)
    adata = AnnData(
        _as_log2(values, word, factor),
        obs=pd.DataFrame(index=pd.Index(obs.index.astype(str), dtype=str)),
        var=pd.DataFrame(index=pd.Index(names, dtype=str)),
        layers=kept,
    )
    adata.var_names_make_unique()
    adata.uns[keys.LOG1P] = dict(LOG2)
    array = array_of(obs, path.name)
    if array is not None:
        adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = array.T
    adata.obsm[keys.SPATIAL] = xy
    libraries = uns.get(keys.SPATIAL)
    if isinstance(libraries, Mapping) and libraries:
        pictures = _pictures(libraries)
        if (odd := odd_pictures(pictures)) is None:
            adata.uns[keys.SPATIAL] = pictures
        else:
            notices = (*notices, f"{path.name} {odd}, so its pictures are left out.")
    made: dict[str, Any] = {keys.UNITS: keys.EXPRESSION_UNITS}
    made |= _stated_slide(libraries) | dict(stated)
    if array is not None:
        made[keys.LATTICE] = lattice_of(array)
    made[keys.READ_FROM] = {keys.READ_FILE: path.name, keys.READ_UNIT: word, keys.READ_UNIT_FROM: where}
    by = ", since all are whole" if where == WHOLE else f", as {where} says"
    said = f"{path.name} was not written by napari-flag and holds {UNITS[word]}{by}"
    said += "; it is converted to log2(count + 1)." if word != "log2p1" else "."
    made[keys.NOTICES] = [said, *notices]
    adata.uns[keys.PROVENANCE] = made
    refuse_fault(adata, path)
    return adata


def _pictures(libraries: Mapping[str, Any]) -> dict[str, Any]:
    """Return pictures and scale factors of each library: scanpy's metadata hold whole paths of somebody's."""
    return {
        str(name): {key: library[key] for key in PICTURED if key in library}
        for name, library in libraries.items()
        if isinstance(library, Mapping)
    }


def _as_log2(values: Any, word: str, factor: float) -> Any:
    """Return float32 log2(count + 1), sparse where `values` are."""
    from scipy import sparse

    if word == "counts":
        stored = values.astype(np.float64)
        if sparse.issparse(stored):
            stored.data = np.log2(stored.data + 1.0)
            return stored.astype(np.float32)
        return np.log2(np.asarray(stored) + 1.0).astype(np.float32)
    return (values * factor).astype(np.float32)


def _doubts(path: Path, values: Any, word: str) -> tuple[str, ...]:
    """Return what is to be said of values in this unit; refuse what they cannot be."""
    from scipy import sparse

    stored = np.asarray(values.data if sparse.issparse(values) else values)
    low = float(stored.min()) if stored.size else 0.0
    if word == "counts" and low < _BELOW:
        raise UserError(
            f"{path.name} holds {low:.4g}, which is no count, so its unit is another; give log1p or log2p1, "
            "or save counts."
        )
    found = []
    if low < _BELOW:
        below, size = int((stored < _BELOW).sum()), int(np.prod(values.shape))
        found.append(
            f"{counted_of(below, size, 'value')} of {path.name} are negative, which no log(count + 1) is; "
            "they are shown and scored as they are."
        )
    if word == "counts" and not are_counts(values):
        found.append(
            f"The counts of {path.name} are not whole, so they are expected counts; log2 of an expected "
            "count is larger than the expected log2, which raises MSE."
        )
    if word == "log1p":
        found.append(
            f"{path.name} does not say whether counts were scaled to a common total before the logarithm; "
            "if they were, MSE and amplitude compare different things, and PCC lacks the measured depth."
        )
    return tuple(found)


def _stated_slide(libraries: Any) -> dict[str, str]:
    """Return the slide's name where ``uns["spatial"]`` has one library named after it."""
    if not isinstance(libraries, Mapping) or len(libraries) != 1:
        return {}
    [name] = libraries
    return {} if str(name) in _NO_NAMES else {keys.SLIDE_NAME: str(name)}


_NO_NAMES: Final = ("ST", "spatial", "library", "is_single")
"""Libraries that are not named after a slide: HEST-1k calls all of them ST."""
