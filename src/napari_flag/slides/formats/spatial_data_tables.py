"""Shapes of a SpatialData zarr, and the table that annotates them, as spots and counts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import counted
from napari_flag.slides.formats import h5ad
from napari_flag.slides.formats.space_ranger import VISIUM_DIAMETER_UM, VISIUM_PITCH_UM
from napari_flag.slides.formats.spatial_data import (
    GLOBAL,
    IMAGES,
    SHAPES,
    TABLES,
    Store,
    StoreImageReader,
    affines,
    attributes_of,
    choose,
    element_of,
    is_store,
    only_one,
    open_table,
    read_store,
)
from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.spots import FARTHEST, FloatArray, Spots, SpotTable, matched, refuse_repeated

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


SAME: Final = 1e-6
"""Relative difference of two transforms that rounding explains."""


def _between(shapes: Any, image: Any, name: str, path: Path) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the affine from shapes to level-0 px of an image, by a coordinate system both have."""
    ours, theirs = affines(shapes), affines(image)
    common = sorted(set(ours) & set(theirs), key=lambda system: (system != GLOBAL, system))
    if not common:
        raise UserError(
            f"The shapes {name} and the image {path.name} have no coordinate system in common "
            f"({', '.join(ours)} and {', '.join(theirs)}), so it is not known where the spots are; add the "
            "transformation, or choose another image."
        )
    solved = [np.linalg.solve(theirs[system], ours[system]) for system in common]
    found: list[FloatArray] = [np.asarray(matrix, np.float64) for matrix in solved]
    alike = all(
        np.allclose(other, found[0], rtol=SAME, atol=SAME * np.abs(found[0]).max()) for other in found
    )
    if alike:
        return found[0], ()
    return found[0], (
        f"The coordinate systems {', '.join(common)} place the shapes {name} differently on {path.name}; "
        f"{common[0]} is used.",
    )


def onto_image(shapes: Path, image: Path) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the (3, 3) affine from shapes to level-0 px of an image of their store, and what is doubtful.

    Raises
    ------
    UserError
        When they have no coordinate system in common, or the store cannot be read.
    """
    held = read_store(image.parents[1], IMAGES, SHAPES)
    return _between(held.shapes[shapes.name], held.images[image.name], shapes.name, image)


def read_spot_table(path: Path, slide: "Slide | None") -> SpotTable:
    """Read shapes, and the counts of the table that annotates them, as spots of an image of their store.

    Parameters
    ----------
    path
        ``STORE.zarr``, or the folder of its table or shapes.
    slide
        The image of the same store; None leaves positions in the shapes' own coordinates.

    Raises
    ------
    UserError
        When it is not clear which shapes or table are meant, or how they lie on the image.
    """
    store, shapes_name, table_name = _spots_named(path)
    shapes = read_store(store.path, SHAPES).shapes[shapes_name]
    affine, notices = np.eye(3), tuple[str, ...]()
    if slide is not None:
        if not isinstance(slide.reader, StoreImageReader) or element_of(slide.path, IMAGES) is None:
            raise UserError(
                f"{slide.path.name} is no image of {store.path.name}, so it is not known where its spots "
                "lie on it; open the image of the store."
            )
        if slide.path.parents[1].resolve() != store.path.resolve():
            raise UserError(
                f"{slide.path.parents[1].name} and {store.path.name} are two stores; give an image and "
                "spots of the same."
            )
        affine, notices = _between(shapes, slide.reader.element, shapes_name, slide.path)
    xy, diameter = _circles(shapes, affine, f"The shapes {shapes_name} of {store.path.name}")
    ids = [str(name) for name in shapes.index]
    if table_name is None:
        spots = _spots(ids, xy, diameter, None, slide)
        return SpotTable(spots, None, f"shapes {shapes_name}", notices)
    counts, obs, more = _annotating(store, table_name, shapes_name, shapes.index, slide)
    rows = obs["row"].to_numpy()
    array = h5ad.array_of(obs, table_name)
    spots = _spots([str(i) for i in obs.index], xy[rows], diameter[rows], array, slide)
    table = SpotTable(spots, None, f"SpatialData table {table_name}", notices + more)
    if counts is None:
        return table.with_notice(f"The table {table_name} holds no raw counts, so nothing is compared.")
    return matched(table, counts, store.path)


def read_table_counts(path: Path) -> "AnnData":
    """Read the raw counts of the table of a store, rows named as in its ``obs``."""
    store, shapes_name, table_name = _spots_named(path)
    if table_name is None:
        raise UserError(
            f"No table of {store.path.name} annotates {shapes_name}, so there are no counts of them in it; "
            "give raw counts from another file."
        )
    return h5ad.measured_in(open_table(store, table_name), f"The table {table_name} of {store.path.name}")


def _spots_named(path: Path) -> tuple[Store, str, str | None]:
    """Return the store, shapes and table that a path stands for."""
    if is_store(path):
        chosen = choose(path)
        if chosen.spots is None:
            raise UserError(f"{path.name} holds no shapes that are measured spots; give another table.")
        path = chosen.spots
    if (named := element_of(path, TABLES)) is not None:
        store, table = named
        regions = store.regions.get(table, ())
        shapes, _ = only_one(
            store, regions, None, "shapes", f"shapes that {table} annotates",
            f"The table {table} of {store.path.name} annotates no shapes in it; choose another table.",
        )  # fmt: skip
        return store, shapes, table
    if (named := element_of(path, SHAPES)) is not None:
        store, shapes = named
        tables = [name for name, regions in store.of_spots.items() if shapes in regions]
        if not tables:
            return store, shapes, None
        return store, shapes, only_one(store, tables, None, "table", f"tables that annotate {shapes}", "")[0]
    raise UserError(f"{path} is no table or shapes of a SpatialData zarr; give STORE.zarr/tables/NAME.")


def _annotating(
    store: Store, table: str, region: str, index: Any, slide: "Slide | None"
) -> tuple["AnnData | None", Any, tuple[str, ...]]:
    """Return counts, ``obs`` with the row of its shape, and notices, of the rows of `region` on tissue."""
    import pandas as pd

    opened = open_table(store, table)
    named = attributes_of(opened.path)
    obs = opened.frame("obs")
    region_key, instance = (str(named.get(key)) for key in ("region_key", "instance_key"))
    if region_key not in obs or instance not in obs:
        raise UserError(
            f"The table {table} of {store.path.name} lacks its columns {region_key} and {instance}, so its "
            "rows have no shapes; write it again with spatialdata."
        )
    ours = (obs[region_key].astype(str) == region).to_numpy()
    on, notices = h5ad.rows_on_tissue(
        opened, obs.loc[ours].drop(columns="library_id", errors="ignore"), slide
    )
    kept = np.flatnonzero(ours)[on]
    refuse_repeated(list(index), f"{region} of {store.path.name}", "shape")
    rows = pd.Index(index).get_indexer(obs[instance].iloc[kept])
    if (rows < 0).any():
        raise UserError(
            f"The table {table} of {store.path.name} has {counted(int((rows < 0).sum()), 'row')} of shapes "
            f"that are not in {region}; write the table again for these shapes."
        )
    if repeated := len(rows) - len(np.unique(rows)):
        raise UserError(
            f"The table {table} of {store.path.name} has {counted(repeated, 'row')} of shapes that other "
            "rows have too, so where they lie is not known; copy the zarr again or write the table again."
        )
    counts = h5ad.raw_counts(opened)
    return None if counts is None else counts[kept].copy(), obs.iloc[kept].assign(row=rows), notices


def _circles(shapes: Any, affine: FloatArray, what: str) -> tuple[FloatArray, FloatArray]:
    """Return (n, 2) centres and (n,) diameters in level-0 px; a polygon's is that of a disc of its area."""
    import shapely

    geometry = np.asarray(shapes.geometry)
    if empty := int((shapely.is_missing(geometry) | shapely.is_empty(geometry)).sum()):
        raise UserError(
            f"{what} have {counted(empty, 'shape')} without a point or an outline, so it is not known where "
            "these spots are; correct them, or remove them and their rows."
        )
    centre = shapely.get_coordinates(shapely.centroid(geometry))
    if "radius" in shapes:
        diameter = 2 * np.asarray(shapes["radius"], np.float64)
        if odd := int((~((diameter > 0) & (diameter < FARTHEST))).sum()):
            raise UserError(
                f"{what} have {counted(odd, 'shape')} whose radius is no length above 0, so it is not known "
                "how large these spots are; correct them, or remove them and their rows."
            )
    else:
        diameter = 2 * np.sqrt(shapely.area(geometry) / np.pi)
    xy: FloatArray = centre @ affine[:2, :2].T + affine[:2, 2]
    return xy, diameter * np.sqrt(abs(np.linalg.det(affine[:2, :2])))


def _spots(
    ids: list[str],
    xy: FloatArray,
    diameter: FloatArray,
    array: npt.NDArray[np.int64] | None,
    slide: "Slide | None",
) -> Spots:
    lattice = "none" if array is None else lattice_of(array)
    if lattice == "hex":
        return Spots(tuple(ids), xy, VISIUM_DIAMETER_UM, VISIUM_PITCH_UM, lattice, array)
    mpp = None if slide is None else slide.mpp
    size = float(np.median(diameter)) if len(diameter) else 0.0
    return Spots(tuple(ids), xy, size * mpp if mpp and size else None, None, lattice, array)


def instances_of(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the shapes that spots read from `path` are, and spot id → the name of its shape there.

    Parameters
    ----------
    path
        As `read_spot_table` takes it.
    """
    store, shapes_name, table_name = _spots_named(path)
    if table_name is None:
        index = read_store(store.path, SHAPES).shapes[shapes_name].index
        return shapes_name, {str(name): name for name in index}
    opened = open_table(store, table_name)
    named, obs = attributes_of(opened.path), opened.frame("obs")
    ours = obs[obs[named["region_key"]].astype(str) == shapes_name]
    return shapes_name, dict(zip(map(str, ours.index), ours[named["instance_key"]].tolist(), strict=True))
