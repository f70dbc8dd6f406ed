"""SpatialData: a zarr of its own (spots as circles of their true radius, table, H&E), or a table more.

What a store of someone else holds is never replaced, emptied or changed: a prediction becomes a new table.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.structure import RANKED, ranked_domains
from napari_flag.errors import UserError
from napari_flag.files import Unwritable, put, seal_store, unfinished, write_whole_in_steps
from napari_flag.formatting import first_of
from napari_flag.layers.frame import frame_of
from napari_flag.prediction_file import drawn_diameter_px, is_unchanged, sharing, with_storable_provenance
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats import spatial_data
from napari_flag.slides.formats.readers import UInt8Array
from napari_flag.slides.formats.spatial_data_tables import instances_of
from napari_flag.slides.slide import LazyLevel

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


SPOTS: Final = "spots"
TABLE: Final = "table"
PICTURE: Final = "he"
"""Names of the elements; the picture is the whole slide, or else the small one in the file."""
PIXELS: Final = "global"
MICROMETRES: Final = "um"
"""Coordinate systems: level-0 pixels, and µm where their size is known."""
MARKERS: Final = "markers"
"""``uns`` key of the table: marker genes of the domains as one plain table."""
REGION: Final = "region"
SPOT_ID: Final = "spot_id"
PREDICTED: Final = "predicted"
PREDICTED_SPOTS: Final = f"{PREDICTED}_spots"
"""Table that a prediction becomes in the store it was made from."""
METADATA: Final = ("zarr.json", ".zattrs", ".zgroup", ".zmetadata")
"""Files of a zarr, of version 2 or 3, that describe what lies beside them."""
CHUNK_PX: Final = 1024
STEP_S: Final = 0.3
"""Between two progress steps while SpatialData writes."""


def check_installed() -> None:
    """Raise a `UserError` where SpatialData is not installed."""
    try:
        import spatialdata  # noqa: F401
    except ImportError as error:
        raise UserError(
            "SpatialData is not installed, so no SpatialData zarr can be written; install it with "
            'pip install "napari-flag[spatialdata]".'
        ) from error


def write_spatial_data(adata: "AnnData", path: Path, slide: "Slide | None" = None) -> Steps[None]:
    """Write `adata` as a SpatialData zarr, which napari-spatialdata and squidpy open.

    Parameters
    ----------
    adata
        A prediction.
    path
        The folder, usually ending in ``.zarr``; replaced when all is written.
    slide
        Its slide, to write the whole image as a pyramid; None writes the small picture in `adata`.

    Raises
    ------
    UserError
        When SpatialData is not installed, the folder cannot be written, or something else is in it.
    """
    check_installed()
    if not path.parent.is_dir():
        raise UserError(
            f"The folder {path.parent} does not exist, so {path.name} cannot be written there; create "
            "it or choose another."
        )
    if foreign := _not_ours(path):
        named = first_of(foreign, 3)
        raise UserError(
            f"{path.name} holds {named}, which no export wrote, so it is not replaced; choose another "
            f"folder, or predict with --out {path.name} to make the prediction a table of it."
        )
    yield from write_whole_in_steps(path, lambda place: _write(adata, place, slide))


def with_valid_names(adata: "AnnData") -> "tuple[AnnData, tuple[str, ...]]":
    """Return a prediction all of whose names SpatialData takes, and what is to be said of those changed.

    Parameters
    ----------
    adata
        A prediction; not changed, and itself returned where nothing is in the way.
    """
    valid = sharing(adata)
    renamed: dict[str, str] = {}
    for axis in ("obs", "var"):
        table = getattr(valid, axis)
        new = _valid_names(map(str, table.columns))
        renamed |= new
        table.columns = [new.get(str(name), str(name)) for name in table.columns]
    for part in ("obsm", "obsp", "varm", "varp", "layers", "uns"):
        held = getattr(valid, part)
        new = _valid_names(map(str, held))
        renamed |= new
        for old, name in new.items():
            held[name] = held.pop(old)
    inner: dict[str, str] = {}
    for key, value in dict(valid.uns).items():
        valid.uns[key] = _with_valid_keys(value, inner)
    renamed |= inner
    if not renamed:
        return adata, ()
    named = first_of([f"“{old}” as {new}" for old, new in renamed.items()], 5)
    return valid, (
        "SpatialData takes letters, digits, “_”, “-” and “.” in names, and no two that differ in capitals "
        f"alone, so the zarr has {named}.",
    )


def _valid_names(names: Iterable[str]) -> dict[str, str]:
    """Return those of `names` that SpatialData refuses, each with another in its place."""
    names, new = list(names), {}
    fit = {name: _valid_name(name) for name in names}
    taken = {name.lower() for name in names if fit[name] == name}
    seen: set[str] = set()
    for name in names:
        if fit[name] == name and name.lower() not in seen:
            seen.add(name.lower())
            continue
        choices = chain([fit[name]], (f"{fit[name]}_{number}" for number in count(2)))
        new[name] = next(choice for choice in choices if choice.lower() not in taken | seen)
        seen.add(new[name].lower())
    return new


def _valid_name(name: str) -> str:
    if name in ("", ".", "..", "_index"):
        return f"unnamed{name.replace('.', '_')}"
    fit = "".join(sign if sign.isalnum() or sign in "_-." else "_" for sign in name)
    return f"x{fit}" if fit.startswith("__") else fit


def _with_valid_keys(value: Any, renamed: dict[str, str]) -> Any:
    """Return an entry of ``uns``; names within it that are no part of a path are put in `renamed`."""
    if not isinstance(value, Mapping):
        return value
    unfit = [name for name in map(str, value) if name in ("", ".", "..") or "/" in name or "\\" in name]
    new: dict[str, str] = {}
    for name in unfit:
        fit = _valid_name(name)
        choices = chain([fit], (f"{fit}_{number}" for number in count(2)))
        new[name] = next(each for each in choices if each not in value and each not in new.values())
    renamed |= new
    return {new.get(str(key), key): _with_valid_keys(inner, renamed) for key, inner in value.items()}


def written_here(path: Path) -> bool:
    """Return whether a folder is empty, or a store of `write_spatial_data` that nothing was added to."""
    return not _not_ours(path)


def _not_ours(path: Path) -> list[str]:
    """Return what is in a folder that `write_spatial_data` did not write."""
    if not path.is_dir():
        return []
    ours = {f"images/{PICTURE}", f"shapes/{SPOTS}", f"tables/{TABLE}"}
    kinds = ("images", "labels", "points", "shapes", "tables")
    there = [entry.name for entry in sorted(path.iterdir()) if entry.name not in (*kinds, *METADATA)]
    for kind in kinds:
        entries = sorted((path / kind).iterdir()) if (path / kind).is_dir() else []
        there += [f"{kind}/{entry.name}" for entry in entries if entry.name not in METADATA]
    exported = (path / "tables" / TABLE / "uns" / keys.PROVENANCE).is_dir()
    return [name for name in there if not exported or name not in ours]


def add_prediction(
    adata: "AnnData", image: Path, spots: Path | None, *, overwrite: bool = False
) -> Steps[Path]:
    """Make a prediction the table ``predicted`` of the zarr it was made from; nothing else in it is touched.

    Parameters
    ----------
    adata
        The prediction.
    image
        Folder of the image it was made on, ``STORE.zarr/images/NAME``.
    spots
        Folder of the table or shapes its spots were read from, which the new table then annotates.  None for
        a grid, whose circles become shapes ``predicted_spots`` with the transformations of the image.
    overwrite
        Replace an earlier prediction; the table of something else is never replaced.

    Returns
    -------
    The folder of the table.

    Raises
    ------
    UserError
        When SpatialData is not installed, the name is taken, or the store cannot be written; it is then as
        before.
    """
    check_installed()
    place = check_free(image, overwrite=overwrite, with_shapes=spots is None)
    store = image.parents[1]
    yield Step("Opening the SpatialData zarr", 0, None)
    held = spatial_data.read_store(store, "images", "shapes")
    elements: dict[str, Any] = {}
    if spots is None:
        region = PREDICTED_SPOTS
        instances = {str(spot): spot for spot in adata.obs_names}
        elements[region] = _circles(adata, _all_transformations(held.images[image.name]))
    else:
        region, instances = instances_of(spots)
    elements[PREDICTED] = _table(adata, region, [instances[str(spot)] for spot in adata.obs_names])
    try:
        with unfinished(store / PREDICTED) as part:
            yield from _in_thread(partial(_write_quietly, _parsed(elements), part), None)
            for key in reversed(elements):  # the table first: with it, --overwrite replaces the shapes too
                kind = "tables" if key == PREDICTED else "shapes"
                if (store / kind).is_dir():
                    put(part / kind / key, store / kind / key)
                else:
                    put(part / kind, store / kind)
        held.write_consolidated_metadata()
    except (Unwritable, OSError) as error:
        raise UserError(
            f"The prediction could not be added to {store} ({str(error).split(';')[0]}), so it is as before; "
            "write it to an .h5ad instead."
        ) from error
    return place


def place_in_store(image: Path) -> Path:
    """Return the folder of the table ``predicted`` beside `image`, whether it is there or not."""
    return image.parents[1] / "tables" / PREDICTED


def check_free(image: Path, *, overwrite: bool, with_shapes: bool) -> Path:
    """Return the folder of the table ``predicted`` beside `image`; refuse where that name is taken."""
    store, place = spatial_data.Store(image.parents[1]), place_in_store(image)
    is_prediction = (place / "uns" / keys.PROVENANCE).is_dir() and is_unchanged(place) is not False
    shapes_taken = with_shapes and (store.path / "shapes" / PREDICTED_SPOTS).exists()
    if (place.exists() and not (overwrite and is_prediction)) or (shapes_taken and not is_prediction):
        more = "; add --overwrite to replace it" if is_prediction else "; rename it first"
        raise UserError(
            f"{store.path.name} already has a table or shapes {PREDICTED}{more}, or write to an .h5ad "
            "instead."
        )
    return place


def _parsed(elements: Mapping[str, Any]) -> Any:
    from spatialdata import SpatialData

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The table is annotating", UserWarning)  # what lies in the store
        return SpatialData.init_from_elements(dict(elements))


def _all_transformations(element: Any) -> dict[str, Any]:
    from spatialdata.transformations import Affine

    axes = ("x", "y")
    return {
        name: Affine(matrix, input_axes=axes, output_axes=axes)
        for name, matrix in spatial_data.affines(element).items()
    }


def _write(adata: "AnnData", place: Path, slide: "Slide | None") -> Steps[None]:
    from spatialdata import SpatialData

    yield Step("Gathering spots and table", 0, None)
    elements = {SPOTS: _circles(adata)}
    table = _table(adata)
    yield Step("Gathering the picture", 0, None)
    reading = _Reading(slide) if slide is not None else None
    images = {PICTURE: _pyramid(adata, slide, reading)} if slide and reading else _small_picture(adata)
    whole = SpatialData(images=images, shapes=elements, tables={TABLE: table})
    yield from _write_in_thread(whole, place, reading)


def _write_in_thread(whole: Any, place: Path, reading: "_Reading | None") -> Steps[None]:
    yield from _in_thread(partial(_write_quietly, whole, place), reading)


def _in_thread(work: "Callable[[], None]", reading: "_Reading | None") -> Steps[None]:
    """Write in a thread of its own, since SpatialData reports no progress; reading stops it."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        job = executor.submit(work)
        try:
            while not job.done():
                wait([job], timeout=STEP_S)
                done, total = (reading.done, reading.total) if reading is not None else (0, None)
                yield Step("Writing the SpatialData zarr", done, total, "tiles")
            job.result()
        finally:
            if reading is not None:
                reading.stopped = True


def _write_quietly(whole: Any, place: Path) -> None:
    import dask

    # one thread: several would write on for a while after one was stopped
    with warnings.catch_warnings(), dask.config.set(scheduler="synchronous"):
        warnings.filterwarnings("ignore", "zarr v3 autosharding", UserWarning)
        whole.write(place)
    for table in sorted((place / "tables").iterdir()):
        if table.is_dir():
            seal_store(table)
    seal_store(place)


class _Reading:
    """Counts the tiles read of a slide while it is written, and ends the writing on request."""

    def __init__(self, slide: "Slide") -> None:
        self._slide = slide
        self.done = 0
        self.total = math.ceil(slide.size[0] / CHUNK_PX) * math.ceil(slide.size[1] / CHUNK_PX)
        self.stopped = False

    def __call__(self, x: int, y: int, width: int, height: int) -> UInt8Array:
        if self.stopped:
            raise InterruptedError("cancelled")
        self.done = min(self.done + 1, self.total)
        return self._slide.read_region(x, y, width, height)


def _transformations(adata: "AnnData", scale: float) -> dict[str, Any]:
    """Return name of a coordinate system → transformation of an element `scale` level-0 px per unit."""
    from spatialdata.transformations import Scale

    mpp = frame_of(adata).mpp
    factors = {PIXELS: scale} | ({MICROMETRES: scale * mpp} if mpp is not None else {})
    return {name: Scale([factor, factor], axes=("x", "y")) for name, factor in factors.items()}


def _circles(adata: "AnnData", transformations: dict[str, Any] | None = None) -> Any:
    from spatialdata.models import ShapesModel

    xy = np.asarray(adata.obsm[keys.SPATIAL], float)
    return ShapesModel.parse(
        xy, geometry=0, radius=drawn_diameter_px(adata) / 2, index=adata.obs_names.to_numpy(),
        transformations=transformations or _transformations(adata, 1.0),
    )  # fmt: skip


def _table(adata: "AnnData", region: str = SPOTS, instances: list[Any] | None = None) -> Any:
    import pandas as pd
    from spatialdata.models import TableModel

    table = with_storable_provenance(with_valid_names(adata)[0])
    for suffix in ("", keys.OF_MEASURED):
        if ranked_domains(table.uns.get(keys.MARKERS + suffix)) is not None:  # else another program's
            table.uns[MARKERS + suffix] = _long_table(table.uns.pop(keys.MARKERS + suffix))
    table.obs[REGION] = pd.Categorical([region] * table.n_obs)
    table.obs[SPOT_ID] = table.obs_names.to_numpy() if instances is None else instances
    return TableModel.parse(table, region=region, region_key=REGION, instance_key=SPOT_ID)


def _long_table(ranked: Mapping[str, Any]) -> "pd.DataFrame":
    """Return scanpy's marker genes, records of a field per domain, as one table with a row per gene of each.

    Zarr 3 has no specification for records, so another program, or a later version, might not read them.
    """
    import pandas as pd

    columns = dict(zip(RANKED, ("gene", "score", "difference", "p", "q"), strict=True))
    parts = [
        pd.DataFrame({ours: ranked[theirs][domain] for theirs, ours in columns.items()}).assign(domain=domain)
        for domain in ranked["names"].dtype.names or ()
    ]
    if not parts:
        return pd.DataFrame(columns=[*columns.values(), "domain"])
    return pd.concat(parts, ignore_index=True)


def _small_picture(adata: "AnnData") -> dict[str, Any]:
    from spatialdata.models import Image2DModel

    for library in dict(adata.uns.get(keys.SPATIAL, {})).values():
        images, factors = dict(library).get("images", {}), dict(library).get("scalefactors", {})
        for name in ("hires", "lowres"):
            factor = factors.get(f"tissue_{name}_scalef")
            if name in images and factor:
                small = np.asarray(images[name])[..., :3]
                transformations = _transformations(adata, 1.0 / float(factor))
                parsed = Image2DModel.parse(
                    small, dims=("y", "x", "c"), c_coords=["r", "g", "b"], transformations=transformations
                )
                return {PICTURE: parsed}
    return {}


def _pyramid(adata: "AnnData", slide: "Slide", reading: _Reading) -> Any:
    """Return the slide as a multiscale image that is read, halved and written chunk by chunk."""
    import dask.array
    from spatialdata.models import Image2DModel

    from_array: Any = dask.array.from_array
    lazy = from_array(LazyLevel(slide.size, reading), chunks=(CHUNK_PX, CHUNK_PX, 3), asarray=False)
    halvings = max(0, int(np.floor(np.log2(max(slide.size) / CHUNK_PX))))
    return Image2DModel.parse(
        lazy, dims=("y", "x", "c"), c_coords=["r", "g", "b"], chunks=(3, CHUNK_PX, CHUNK_PX),
        scale_factors=[2] * halvings or None, transformations=_transformations(adata, 1.0),
    )  # fmt: skip
