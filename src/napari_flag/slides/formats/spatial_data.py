"""SpatialData zarrs: which elements there are, which are meant, and the image as a slide.

An element is named by its folder, ``STORE.zarr/images/NAME``, ``…/shapes/NAME`` or ``…/tables/NAME``, which
the rest of the package takes as a path like any other.  What there is, is read from metadata alone; positions
and pixels are read by `spatialdata`, an extra.
"""

import itertools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text
from napari_flag.formatting import data_size, legible, px
from napari_flag.slides.formats.readers import MOST_SIDE, MOST_TILE, PixelFormat, Size, UInt8Array, damaged
from napari_flag.slides.formats.stored_anndata import H5ad, damage_said, starts_with_counts
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    MOST_LISTED,
    refuse_inflated_parquet,
    refuse_lost_chunks,
)
from napari_flag.slides.formats.stored_zarr import refuse_bombs, refuse_unsafe
from napari_flag.slides.resolution import MICRONS, Resolution, stated

FloatArray: TypeAlias = npt.NDArray[np.float64]
IMAGES, SHAPES, TABLES = "images", "shapes", "tables"
ATTRIBUTES: Final = "spatialdata_attrs"
OF_ELEMENTS: Final = ("ome", "multiscales", "encoding-type")
"""Attributes of elements, which have those of the store too."""
GLOBAL: Final = "global"
MICROMETRES: Final = frozenset(
    {name for name, um in MICRONS.items() if um == 1.0} | {"micrometre", "micrometres"}
)
"""Names of coordinate systems whose unit is 1 µm."""


@dataclass(frozen=True)
class Store:
    """What a SpatialData zarr holds, by its metadata.

    Parameters
    ----------
    path
        Its folder.
    """

    path: Path

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Images of three or four channels, which may be an H&E."""
        return tuple(name for name in self._names(IMAGES) if _channels(self.path / IMAGES / name) in (3, 4))

    @cached_property
    def other_images(self) -> tuple[str, ...]:
        """Images of other numbers of channels, such as fluorescence."""
        return tuple(name for name in self._names(IMAGES) if name not in self.images)

    @cached_property
    def shapes(self) -> tuple[str, ...]:
        """All shapes."""
        return self._names(SHAPES)

    @cached_property
    def regions(self) -> Mapping[str, tuple[str, ...]]:
        """Tables that annotate shapes → the shapes, predictions of this package left out."""
        found = {}
        for name in self._names(TABLES):
            if (self.path / TABLES / name / "uns" / keys.PROVENANCE).is_dir():
                continue
            region = attributes_of(self.path / TABLES / name).get("region") or ()
            regions = region if isinstance(region, list) else [region]
            named = tuple(str(part) for part in regions)
            annotated = tuple(part for part in named if part in self.shapes)
            if annotated:
                found[name] = annotated
        return found

    @cached_property
    def measured(self) -> frozenset[str]:
        """Tables of `regions` that hold raw counts."""
        return frozenset(name for name in self.regions if starts_with_counts(open_table(self, name)))

    @cached_property
    def of_spots(self) -> Mapping[str, tuple[str, ...]]:
        """Tables of `regions` that say where spots lie: those with raw counts, else the only one."""
        if self.measured or len(self.regions) > 1:
            return {name: shapes for name, shapes in self.regions.items() if name in self.measured}
        return self.regions

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """All tables, also predictions."""
        return self._names(TABLES)

    def _names(self, kind: str) -> tuple[str, ...]:
        folder = self.path / kind
        try:
            entries = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        except OSError:
            return ()
        return tuple(name for name in entries if not name.startswith("."))


def open_table(store: Store, name: str) -> H5ad:
    """Return a table, read piece by piece."""
    import zarr

    path = store.path / TABLES / name
    refuse_unsafe(path)
    with damage_said(path):
        table: Any = zarr.open_group(path, mode="r")
        matrices = ("X", *(f"layers/{layer}" for layer in table.get("layers", ())))
        refuse_lost_chunks(
            table, [f"{name}/data" for name in matrices], matrices
        )  # sparse ones store no zeros
        return H5ad(table, path)


def is_store(path: Path) -> bool:
    """Return whether a folder is a SpatialData zarr."""
    attributes = attributes_of(path) if path.is_dir() else {}
    return ATTRIBUTES in attributes and attributes.keys().isdisjoint(OF_ELEMENTS)


def element_of(path: Path, *kinds: str) -> tuple[Store, str] | None:
    """Return the store and name of an element given by its folder, of one of `kinds`; None for others."""
    if path.parent.name not in kinds or not path.is_dir() or not is_store(path.parents[1]):
        return None
    return Store(path.parents[1]), path.name


def attributes_of(group: Path) -> Mapping[str, Any]:
    """Return the attributes of a zarr group, of version 2 or 3; none where it is no group."""
    for name in ("zarr.json", ".zattrs"):  # zarr 3 and 2
        try:
            content = parse_json(read_text(group / name))
        except (OSError, ValueError):
            continue
        found = content
        if name == "zarr.json":
            found = content.get("attributes") if isinstance(content, Mapping) else None
        return found if isinstance(found, Mapping) else {}
    return {}


def _channels(image: Path) -> int:
    """Return the number of channels of an image; 0 for what is none."""
    attributes = attributes_of(image)
    named = attributes.get("ome", attributes)
    try:
        return len(named["omero"]["channels"])
    except (KeyError, TypeError):
        return 0


# --- choosing elements ---------------------------------------------------------------------------


class Unclear(UserError):
    """Several elements of a store may be meant.

    Parameters
    ----------
    store
        Its folder.
    option
        What is to be named: "image", "shapes" or "table", as of `choose`.
    what, names
        What they are, as a person calls them, and their names.
    """

    def __init__(self, store: Path, option: str, what: str, names: tuple[str, ...]) -> None:
        self.store, self.option, self.what, self.names = store, option, what, names
        super().__init__(
            f"{store.name} holds {len(names)} {what} ({', '.join(names)}), so it is not clear which is "
            f"meant; choose one, e.g. with --{option} {names[0]}, in Python {option}={names[0]!r}."
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The elements of one section.

    Parameters
    ----------
    image
        Its folder.
    spots
        Folder of the table, or of the shapes, that `spatial_data_tables.read_spot_table` takes; None
        without any.
    why
        One sentence without a full stop: what was chosen and why.
    """

    image: Path
    spots: Path | None
    why: str


def choose(
    store: Path, *, image: str | None = None, shapes: str | None = None, table: str | None = None
) -> Chosen:
    """Choose image, shapes and table of a store.

    Parameters
    ----------
    store
        Its folder.
    image, shapes, table
        Names of elements; None takes the only one there is.

    Raises
    ------
    UserError
        When there is no such element, or several and none was named.
    """
    held = Store(store)
    picture, why = only_one(held, held.images, image, "image", "colour images", _no_image(held))
    known_tables = held.of_spots if table is None else held.regions
    tables = {name: regions for name, regions in known_tables.items() if shapes is None or shapes in regions}
    if table is not None and table not in held.regions:
        known = ", ".join(held.regions) or "none"
        raise UserError(
            f"{store.name} has no table {table} that annotates shapes (there is {known}); give "
            "another --table."
        )
    if shapes is not None and shapes not in held.shapes:
        known = ", ".join(held.shapes) or "none"
        raise UserError(f"{store.name} has no shapes {shapes} (there is {known}); give another --shapes.")
    if table is not None and table not in tables:
        raise UserError(
            f"The table {table} of {store.name} does not annotate {shapes}; give another --table."
        )
    said = f"{picture} is the H&E image ({why})"
    if not tables:
        if shapes is None and (not held.shapes or held.tables):
            return Chosen(
                store / IMAGES / picture, None, f"{said}; no table of measured counts annotates shapes"
            )
        name, why = only_one(held, held.shapes, shapes, "shapes", "shapes", "")
        spots = store / SHAPES / name
        return Chosen(
            store / IMAGES / picture, spots, f"{said}; spots are the shapes {name} ({why}), without counts"
        )
    what = "tables of counts" if held.measured else "tables"
    chosen, why = only_one(held, tuple(tables), table, "table", what, "")
    if table is None and len(held.regions) > 1:
        why = f"{why} with raw counts"
    region, which = only_one(held, tables[chosen], shapes, "shapes", "shapes that its table annotates", "")
    spots = store / TABLES / chosen
    if len(tables[chosen]) > 1:  # the table alone does not say which of its shapes are meant
        spots = store / SHAPES / region
    return Chosen(
        store / IMAGES / picture,
        spots,
        f"{said}; spots are the shapes {region} ({which}), counts the table {chosen} ({why})",
    )


def only_one(
    held: Store, names: Iterable[str], wanted: str | None, option: str, what: str, none: str
) -> tuple[str, str]:
    """Return the element named, or the only one, and why."""
    names = tuple(names)
    if wanted is not None:
        if wanted not in names:
            known = ", ".join(names) or "none"
            raise UserError(
                f"{held.path.name} has no {option} {wanted} to take (there is {known}); give another "
                f"--{option}."
            )
        return wanted, "as chosen"
    if len(names) == 1:
        return names[0], "the only one"
    if not names:
        raise UserError(none)
    raise Unclear(held.path, option, what, names)


def _no_image(held: Store) -> str:
    others = f" (only {', '.join(held.other_images)}, not of three channels)" if held.other_images else ""
    return (
        f"{held.path.name} holds no colour image{others}, so there is no H&E to predict from; write the H&E "
        "into it, or give the slide file itself."
    )


# --- reading -------------------------------------------------------------------------------------


def read_store(path: Path, *kinds: str) -> Any:
    """Return the `spatialdata.SpatialData` of a store, with elements of `kinds` ("images", "shapes", …).

    Raises
    ------
    UserError
        When SpatialData is not installed or cannot read it.
    """
    try:
        import spatialdata
    except ImportError as error:
        raise UserError(
            f"{path.name} is a SpatialData zarr, and SpatialData is not installed; install it with "
            'pip install "napari-flag[spatialdata]".'
        ) from error
    refuse_unsafe(path)
    try:
        for kind in kinds or (IMAGES, SHAPES, TABLES):
            for shapes in (path / kind).glob("*/shapes.parquet"):
                refuse_inflated_parquet(shapes, MOST_LISTED, texts=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return spatialdata.read_zarr(path, selection=kinds or None)
    # SpatialData gives what zarr, geopandas, anndata and pandas raise on damaged or unknown content
    except Exception as error:
        why = legible(" ".join(str(error).split()) or type(error).__name__)  # in one line
        raise UserError(
            f"{path.name} could not be read as a SpatialData zarr ({why}), so it is damaged or of another "
            "version; write it again with a current spatialdata."
        ) from error


class StoreImageReader:
    """The image of a SpatialData zarr, level by level and window by window."""

    random_access: Final = True
    profile: bytes | None = None

    def __init__(self, path: Path) -> None:
        found = element_of(path, IMAGES)
        if found is None:
            raise UserError(f"{path} is no image of a SpatialData zarr; give STORE.zarr/images/NAME.")
        self.path = path
        store, name = found
        self.element = read_store(store.path, IMAGES).images[name]
        scales = list(self.element.children) if hasattr(self.element, "children") else [None]
        self._levels = [self.element[scale].image if scale else self.element for scale in scales]
        self._stored = _stored_levels(path, self._levels)
        self._checked: set[tuple[int, ...]] = set()
        self._levels = [level.transpose("y", "x", "c").data for level in self._levels]
        first = self._levels[0]
        if first.shape[2] not in (3, 4) or first.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"The image {name} of {store.path.name} has {first.shape[2]} channels of {first.dtype}, so "
                "it is no H&E in 8 or 16 bits; choose another image."
            )
        for level in self._levels:
            chunk = float(np.prod([float(side) for side in level.chunksize])) * level.dtype.itemsize
            if chunk > MOST_TILE:
                raise UserError(
                    f"The image {name} of {store.path.name} is stored in chunks of {data_size(chunk)}, each "
                    f"of which is decoded whole, where up to {data_size(MOST_TILE)} are; write it again in "
                    "smaller chunks, such as 1024 × 1024 pixels."
                )
        self._format = PixelFormat(255.0 if first.dtype == np.uint8 else 65535.0)
        self.levels: tuple[Size, ...] = tuple((level.shape[1], level.shape[0]) for level in self._levels)
        self.resolution = _resolution(self.element)

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return a window."""
        window = self._levels[level][y : y + height, x : x + width]
        try:
            self._refuse_bombs(x, y, width, height, level)
            return self._format.rgb(np.asarray(window.compute(scheduler="synchronous")))
        except DAMAGED as error:
            raise damaged(self.path, error) from error

    def _refuse_bombs(self, x: int, y: int, width: int, height: int, level: int) -> None:
        """Look at the chunks of a window, each once; a slide has too many to do so when it is opened."""
        array, dims = self._stored[level]
        wanted = {"y": (y, y + height), "x": (x, x + width)}
        ends = [wanted.get(dim, (0, side)) for dim, side in zip(dims, array.shape, strict=True)]
        steps = array.shards or array.chunks
        ranges = [range(a // step, -(-b // step)) for (a, b), step in zip(ends, steps, strict=True)]
        new = {(level, *place) for place in itertools.product(*ranges)} - self._checked
        refuse_bombs(array, (place[1:] for place in new))
        self._checked |= new

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows."""
        return self.read(0, y, self.levels[0][0], height, 0)

    def close(self) -> None:
        """Do nothing: no file stays open between reads."""


def _stored_levels(image: Path, levels: list[Any]) -> list[tuple[Any, tuple[str, ...]]]:
    """Return the array of each level of an image as it is stored, and the names of its axes."""
    import zarr

    attributes = attributes_of(image)
    named = attributes.get("ome", attributes)
    try:
        group = zarr.open_group(image, mode="r")
        arrays: list[Any] = [group[str(level["path"])] for level in named["multiscales"][0]["datasets"]]
        if [array.shape for array in arrays] != [level.shape for level in levels]:
            raise ValueError("its levels are not those that its metadata name")
        if any(max(array.shape) > MOST_SIDE for array in arrays):
            raise ValueError(f"an image of {px(arrays[0].shape[:0:-1])} is stated")
    except DAMAGED as error:
        raise UserError(
            f"The image {image.name} of {image.parents[1].name} could not be opened ({error}), so it is "
            "damaged or of another version; write it again with a current spatialdata."
        ) from error
    return [(array, tuple(map(str, level.dims))) for array, level in zip(arrays, levels, strict=True)]


def _resolution(image: Any) -> Resolution:
    """Return the µm/px by a coordinate system that is named after micrometres."""
    for name, affine in affines(image).items():
        if name.casefold() in MICROMETRES:
            across, down = np.linalg.norm(affine[:2, :2], axis=0).tolist()
            return stated(across, down, f"its coordinate system {name}")
    return Resolution()


def affines(element: Any) -> dict[str, FloatArray]:
    """Return coordinate system → (3, 3) affine from an element's own (x, y)."""
    from spatialdata.transformations import get_transformation

    axes = ("x", "y")
    return {
        str(name): np.asarray(transform.to_affine_matrix(axes, axes), np.float64)
        for name, transform in get_transformation(element, get_all=True).items()
    }
