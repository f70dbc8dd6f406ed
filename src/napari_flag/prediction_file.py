"""The prediction file: an AnnData of predicted expression, built, written, read, checked and asked.

The layout is described in docs/prediction-file.md; the names in it are those of `keys`.  Only
this module knows where in the AnnData a thing is stored: others build one with `build_prediction` and ask it
with the functions at the end (`slide_name`, `um_per_px`, `spots_of`, …), which answer for any AnnData and
return None, or what their docstring says, where it does not state the thing.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import (
    UNSEALED,
    check_writable,
    is_sealed,
    is_sealed_store,
    parse_json,
    refuse_missing,
    refuse_special,
    seal,
    write_whole_in_steps,
)
from napari_flag.formatting import storable
from napari_flag.progress import Step, Steps, finish
from napari_flag.scratch import refuse_beyond_memory
from napari_flag.slides.file_identity import content_hash, is_digest, names_folder
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    checked,
    opened_h5,
    refuse_inflated,
    refuse_lost_chunks,
    stated_size,
)
from napari_flag.slides.formats.stored_zarr import refuse_unsafe
from napari_flag.slides.overview import overview

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.methods.moments import Sampler
    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.model.out_of_distribution import SlideScore
    from napari_flag.model.samplers import SamplerSettings
    from napari_flag.slides.formats.geojson import Annotation
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Lattice, Spots


NOT_OURS: Final = (
    "so it was not written by napari-flag; choose a file that `napari-flag predict` or the window saved"
)
"""End of a sentence about a file that is no prediction."""
UNNAMED: Final = "this slide"
"""What a slide is called whose name the file does not state."""
LOG2: Final = {"base": 2.0}
"""What scanpy is to know of ``X``: without it, its fold changes are those of natural logarithms."""
_ROWS: Final = 4096
"""Spots that are looked at at once."""
_THUMBNAIL_PX: Final = 1000
"""Longest side of the H&E kept for scanpy and squidpy."""


# --- building ----------------------------------------------------------------------------------
def build_prediction(
    values: npt.NDArray[np.float32],
    spots: "Spots",
    genes: Sequence[str],
    made: Mapping[str, Any],
    *,
    layers: Mapping[str, npt.NDArray[np.float32] | None] | None = None,
) -> "AnnData":
    """Return the AnnData of a prediction.

    Parameters
    ----------
    values
        (n, G) float32 log2(count + 1), the expectation.
    spots
        The n spots.
    genes
        G gene symbols.
    made
        Provenance by the names in `keys`, for ``uns["napari_flag"]``; None is left out, as h5ad has none.
    layers
        Further (n, G) values by layer; None is left out.
    """
    import pandas as pd
    from anndata import AnnData

    obs = pd.DataFrame(index=pd.Index(spots.ids, dtype=str))
    if spots.array is not None:
        obs[keys.ARRAY_ROW], obs[keys.ARRAY_COL] = spots.array.T
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    kept = {name: layer for name, layer in (layers or {}).items() if layer is not None}
    adata = AnnData(values, obs=obs, var=var, layers=kept)
    adata.obsm[keys.SPATIAL] = spots.xy.astype(np.float64)
    adata.uns[keys.LOG1P] = dict(LOG2)
    adata.uns[keys.PROVENANCE] = {key: value for key, value in made.items() if value is not None}
    return adata


def describe_place(slide: "Slide", spots: "Spots") -> dict[str, Any]:
    """Return the provenance of spots on a slide: its name, size and scale, and their size and lattice."""
    return {
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.SLIDE_NAME: slide.name,
        keys.SLIDE_WIDTH: slide.size[0],
        keys.SLIDE_HEIGHT: slide.size[1],
        keys.MPP: slide.mpp,
        keys.MPP_SOURCE: slide.mpp_source,
        keys.SPOT_DIAMETER_UM: spots.diameter_um,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
    }


def describe_run(
    slide: "Slide",
    spots: "Spots",
    checkpoint: "Checkpoint",
    sampler: "Sampler | None",
    settings: "SamplerSettings | None",
    device: str,
    notices: Sequence[str],
) -> dict[str, Any]:
    """Return the provenance of a prediction: everything needed to run it again; None where not known.

    `sampler` and `settings` are None of a method that draws nothing.
    """
    from napari_flag.encoders.registry import find_encoder

    row = find_encoder(checkpoint.encoder)
    return {
        **describe_place(slide, spots),
        keys.SLIDE_HASH: content_hash(slide.path),
        keys.COLOURS: slide.colours,
        keys.TILE_PX: row.tile_px,
        keys.TILE_UM_PER_PX: row.mpp,
        keys.ENCODER: checkpoint.encoder,
        keys.METHOD: checkpoint.method_name,
        keys.WEIGHTS_NAME: checkpoint.name,
        keys.WEIGHTS_HASH: checkpoint.sha256,
        keys.TRAINING_SLIDES: list(texts(checkpoint.card.get("sections"))),
        # what is no hash on the card of somebody's weights is that of no slide
        keys.TRAINING_HASHES: [*filter(is_digest, texts(checkpoint.card.get(keys.CARD_HASHES)))],
        keys.SAMPLER: sampler.name if sampler else None,
        keys.STEPS: settings.steps if settings else None,
        keys.DRAWS: settings.draws if settings else 0,
        keys.SEED: settings.seed if settings else None,
        keys.DEVICE: device,
        keys.VERSIONS: _versions(),
        keys.NOTICES: list(notices),
        keys.NOT_FOR_DIAGNOSIS: keys.RESEARCH_USE_ONLY,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("napari-flag", "torch", "numpy", "anndata"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def add_thumbnail(adata: "AnnData", slide: "Slide") -> None:
    """Add what scanpy and squidpy draw behind the spots: a small H&E of `slide` and its scale factors."""
    image = overview(slide, _THUMBNAIL_PX)
    adata.uns[keys.SPATIAL] = {
        slide.name: {
            "images": {"hires": image},
            "scalefactors": {
                "tissue_hires_scalef": image.shape[1] / slide.size[0],
                "spot_diameter_fullres": drawn_diameter_px(adata),
            },
            "metadata": {"source_image_path": storable(slide.path.name)},
        }
    }


def add_out_of_distribution(adata: "AnnData", score: "SlideScore", rows: npt.NDArray[np.int64]) -> None:
    """Add how far the slide lies from the training tissue, and each spot (`rows` of those scored)."""
    from napari_flag.model.out_of_distribution import FAR

    adata.obs[keys.DISTANCE], adata.obs[keys.UNLIKE] = score.distance[rows], score.unlike[rows]
    stated = {
        keys.UNLIKE_FROM: FAR,
        keys.SHARE_UNLIKE: score.share,
        keys.SHARE_UNLIKE_ALIGNED: score.share_aligned,
        keys.UNLIKE_WARNING: score.warning,
    }
    adata.uns[keys.PROVENANCE][keys.FAMILIARITY] = {k: v for k, v in stated.items() if v is not None}


# --- draws -------------------------------------------------------------------------------------
def layer_of(number: int) -> str:
    """Return the ``layers`` key of draw `number`, from 1."""
    return keys.SAMPLE if number == 1 else f"{keys.SAMPLE}_{number}"


def draw_layers(adata: "AnnData") -> tuple[str, ...]:
    """Return the ``layers`` keys of the draws of `adata`, in order."""
    return tuple(takewhile(set(adata.layers).__contains__, map(layer_of, count(1))))


def check_draws(upto: int) -> None:
    """Raise a `UserError` where draw number `upto` is beyond what a prediction holds."""
    if upto > keys.MOST_DRAWS:
        raise UserError(
            f"A prediction holds at most {keys.MOST_DRAWS} draws, but {upto} were asked for; ask for fewer."
        )


# --- writing and reading -----------------------------------------------------------------------
def write_prediction(adata: "AnnData", path: str | Path) -> None:
    """Write a prediction as h5ad; an existing file is replaced, in one step and only when done.

    Whoever calls it has asked before replacing a file.

    Parameters
    ----------
    adata
        As docs/prediction-file.md states.
    path
        The file, usually ending in ``.h5ad``.

    Raises
    ------
    UserError
        If the place cannot be written or the disk is full, or holds the file of another program that
        `adata` was read from.  Nothing is left behind.
    """
    finish(write_prediction_in_steps(adata, path, Step("Saving", 0)))


def write_prediction_in_steps(adata: "AnnData", path: str | Path, step: Step) -> Steps[None]:
    """Do the same as `write_prediction`; cancelled before the file is whole, it leaves what was there.

    `step` is yielded once the file is written, before it takes its place.
    """
    fault = find_fault(adata)
    if fault:
        raise ValueError(f"not a prediction: {fault}")
    path = Path(path).expanduser()
    _spare_source(adata, path)
    check_writable(path)
    stored = with_storable_provenance(adata)

    def write(place: Path) -> Steps[None]:
        stored.write_h5ad(place, compression="gzip")
        _seal(place)
        yield step

    yield from write_whole_in_steps(path, write)


def _seal(place: Path) -> None:
    """Have a prediction state the digest of the rest of its file (`files.seal`)."""
    import h5py

    with h5py.File(place, "r+") as file:
        digits = h5py.string_dtype("ascii", len(UNSEALED))
        stated = file["uns"][keys.PROVENANCE].create_dataset(keys.CONTENT_HASH, data=UNSEALED, dtype=digits)
        stated.attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
        file.flush()
        at = stated.id.get_offset()
    seal(place, at)


def is_unchanged(path: Path) -> bool | None:
    """Return whether an h5ad, or a table of a zarr, is as this program wrote it.

    None where it does not say, as of earlier versions.  What another program saved again it wrote in another
    layout, whatever is in it.
    """
    if path.is_dir():
        return is_sealed_store(path)
    try:
        with opened_h5(path) as file:
            made = file["uns"][keys.PROVENANCE]
            if keys.CONTENT_HASH not in made:
                return None
            at = made[keys.CONTENT_HASH].id.get_offset()
        return at is not None and bool(is_sealed(path, at))
    except (UserError, *DAMAGED):
        return False


def _spare_source(adata: "AnnData", path: Path) -> None:
    """Refuse to replace the file of another program that a prediction was read from."""
    source = provenance(adata).get(keys.READ_FROM, {})
    if path.name == source.get(keys.READ_FILE) and path.exists() and not is_prediction(path):
        raise UserError(
            f"{path.name} was not written by napari-flag and may hold more than is shown, so it is not "
            "replaced; save under another name."
        )


def with_storable_provenance(adata: "AnnData") -> "AnnData":
    """Return a prediction as it is stored, which states the base of its logarithm.

    It shares the arrays of `adata` (`sharing`).
    """
    made = {key: value for key, value in adata.uns[keys.PROVENANCE].items() if key != keys.CONTENT_HASH}
    return sharing(adata, {keys.LOG1P: LOG2, keys.PROVENANCE: _storable(made)})


def sharing(adata: "AnnData", uns: Mapping[str, Any] | None = None) -> "AnnData":
    """Return an AnnData with all that `adata` holds, to which entries may be added without changing `adata`.

    Parameters
    ----------
    adata
        Any; its arrays are shared, so that nothing large is copied.
    uns
        Entries of ``uns`` in place of its own of the same name.
    """
    from anndata import AnnData

    raw = adata.raw
    return AnnData(
        X=adata.X,
        obs=adata.obs.copy(),
        var=adata.var.copy(),
        uns={**adata.uns, **(uns or {})},
        obsm=dict(adata.obsm),
        varm=dict(adata.varm),
        layers=dict(adata.layers),
        obsp=dict(adata.obsp),
        varp=dict(adata.varp),
        raw=None if raw is None else {"X": raw.X, "var": raw.var, "varm": dict(raw.varm)},
    )


def read_prediction(path: str | Path) -> "AnnData":
    """Read a prediction written by `write_prediction`, or as a table of a zarr, and check that it is one.

    Raises
    ------
    UserError
        If the file is missing, damaged, no h5ad, someone else's, or larger than the memory that is free.
    """
    path = Path(path).expanduser()
    adata = _read_h5ad(path)
    refuse_fault(adata, path, NOT_OURS)
    adata.uns[keys.PROVENANCE] = {name: _plain(value) for name, value in adata.uns[keys.PROVENANCE].items()}
    adata.uns[keys.LOG1P] = dict(LOG2)  # earlier versions did not write it
    return adata


def _read_h5ad(path: Path) -> "AnnData":
    import anndata
    import h5py
    import zarr

    # anndata gives this error no public name; it means an encoding newer than the installed anndata.
    from anndata._io.specs.registry import IORegistryError

    if path.is_dir() and not is_prediction(path):
        raise UserError(f"{path} is a folder, not a prediction; give the .h5ad file itself.")
    refuse_missing(path)
    try:
        if path.is_dir():
            refuse_unsafe(path)
            stored = zarr.open_group(path, mode="r")
            refuse_inflated(stored)
            may_be_zero = (f"layers/{keys.SAMPLE}", f"layers/{keys.SPREAD}")
            refuse_lost_chunks(stored, ("X", f"obsm/{keys.SPATIAL}"), may_be_zero)
            _refuse_too_large(path, stored)
            return _checked(anndata.read_zarr(path))
        refuse_special(path)
        with path.open("rb"):
            pass  # is_hdf5 answers False where reading is forbidden
        if not h5py.is_hdf5(path):
            raise UserError(f"{path.name} is not an h5ad file, {NOT_OURS}.")
        with opened_h5(path) as file:  # what it says of itself is checked
            _refuse_too_large(path, file)
        return _checked(anndata.read_h5ad(path))
    except PermissionError as error:
        raise UserError(f"{path} may not be read by you; ask for permission to read it.") from error
    except (*DAMAGED, IORegistryError) as error:
        raise UserError(
            f"{path.name} could not be read as h5ad, so it is damaged, incomplete or made by an "
            "unknown program; copy it again or predict again."
        ) from error


def _refuse_too_large(path: Path, stored: Any) -> None:
    """Refuse a prediction whose arrays take more memory than is free: all are read, each draw among them."""
    refuse_beyond_memory(
        stated_size(stored),
        f"Reading {path.name} with all its draws",
        "close other programs, or predict the slide again with fewer draws",
    )


def _checked(adata: "AnnData") -> "AnnData":
    """Return an AnnData as it was read, after making sure that its sparse matrices lead nowhere outside.

    The digest of its file (`_seal`) is left out, since it is none of what is made of it.
    """
    made = adata.uns.get(keys.PROVENANCE)
    if isinstance(made, dict):
        made.pop(keys.CONTENT_HASH, None)
    for held in (adata.layers, adata.obsm, adata.obsp, adata.varm, adata.varp):
        for name in held:
            checked(held[name])
    checked(adata.X)
    if adata.raw is not None:
        checked(adata.raw.X)
    return adata


def is_prediction(path: Path) -> bool:
    """Return whether an h5ad, or the folder of a zarr table, states that this program wrote it.

    Nothing else in it is read or checked.
    """
    if path.is_dir():
        return (path / "uns" / keys.PROVENANCE).is_dir()
    try:
        with opened_h5(path) as file:
            return f"uns/{keys.PROVENANCE}" in file
    except (UserError, *DAMAGED):
        return False


def made_by(path: Path, stated: Mapping[str, str]) -> bool:
    """Return whether `path` is a prediction whose provenance says all of `stated`, such as its command.

    It is an h5ad, or the folder of a zarr table.
    """
    try:
        if path.is_dir():
            return _stated_in_zarr(path / "uns" / keys.PROVENANCE, stated)
        with opened_h5(path) as file:
            made = file["uns"][keys.PROVENANCE]
            return {key: made[key].asstr()[()] for key in stated} == stated
    except (UserError, *DAMAGED):
        return False


def _stated_in_zarr(provenance: Path, stated: Mapping[str, str]) -> bool:
    import zarr
    from anndata.io import read_elem

    refuse_unsafe(provenance)
    made = zarr.open_group(provenance, mode="r")
    return {key: str(read_elem(made[key])) for key in stated} == stated


def size_and_notices(path: Path) -> tuple[int, int, tuple[str, ...]] | None:
    """Return the numbers of spots and genes of a prediction and its notices; None where it is damaged.

    Its values are not read.
    """
    from anndata.io import read_elem

    try:
        with opened_h5(path) as file:
            spots, genes = (len(read_elem(file[axis])) for axis in ("obs", "var"))
            made = file["uns"][keys.PROVENANCE]
            notices = read_elem(made[keys.NOTICES]) if keys.NOTICES in made else None
    except (UserError, *DAMAGED):
        return None
    return spots, genes, texts(_plain(notices))


def find_fault(adata: "AnnData") -> str | None:
    """Say what keeps `adata` from being a prediction of this program, or None if nothing does.

    The sentence has no subject: "has no uns[…]".
    """
    from scipy import sparse

    made = adata.uns.get(keys.PROVENANCE)
    if not isinstance(made, Mapping):
        return f'has no uns["{keys.PROVENANCE}"]'
    if str(made.get(keys.UNITS)) != keys.EXPRESSION_UNITS:
        return f"does not state {keys.EXPRESSION_UNITS} as the unit of its values"
    if odd := _odd_entry(made):
        return odd
    if adata.n_obs == 0 or adata.n_vars == 0:
        return "has no spots or no genes"
    if not (adata.obs_names.is_unique and adata.var_names.is_unique):
        return "names a spot or a gene twice"
    if not (adata.obs.columns.is_unique and adata.var.columns.is_unique):
        return "names a column of obs or var twice"
    xy = adata.obsm.get(keys.SPATIAL)
    if np.shape(xy) != (adata.n_obs, 2) or not isinstance(xy, np.ndarray) or _odd_values(xy):
        return f'has no spot centres in obsm["{keys.SPATIAL}"]'
    if (odd := odd_pictures(adata.uns.get(keys.SPATIAL, {}))) is not None:
        return odd
    if _odd_array(adata):
        return f'has no rows and columns of an array in obs["{keys.ARRAY_ROW}"] and obs["{keys.ARRAY_COL}"]'
    for name in (keys.DISTANCE, keys.UNLIKE):
        if name in adata.obs and adata.obs[name].dtype.kind not in "biuf":
            return f'has something else than numbers in obs["{name}"]'
    if _odd_values(adata.X):
        return "has values that are missing or not numbers"
    for name in (*draw_layers(adata), keys.SPREAD, keys.MEASURED):
        if name not in adata.layers:
            continue
        values = adata.layers[name]
        if np.shape(values) != adata.shape or _odd_values(values, missing=name == keys.MEASURED):
            return f'has values that are missing or not numbers in layers["{name}"]'
        stored = values.data if sparse.issparse(values) else values
        if name == keys.SPREAD and stored.size and stored.min() < 0:
            return f'has values below 0 in layers["{name}"], which no standard deviation is'
    return _odd_kind(adata.uns, "uns")


def _odd_kind(value: Any, where: str) -> str | None:
    """Say where there is something that only HDF5 holds, and nothing can be written from; or None."""
    import h5py

    if isinstance(value, Mapping):
        found = (_odd_kind(inner, f'{where}["{str(name)[:40]}"]') for name, inner in value.items())
        return next(filter(None, found), None)
    only_hdf5 = (h5py.Reference, h5py.RegionReference, h5py.Empty)
    if isinstance(value, np.ndarray | np.void):
        kinds = [value.dtype[name] for name in value.dtype.names or ()] or [value.dtype]
        odd = any(kind.subdtype is not None or kind.names or kind.kind == "V" for kind in kinds)
        if value.dtype.kind == "O":
            odd = any(isinstance(each, only_hdf5) for each in value.ravel().tolist())
    else:
        odd = isinstance(value, only_hdf5)
    return f"has something in {where} that is neither text nor numbers" if odd else None


def odd_pictures(libraries: Any) -> str | None:
    """Say what in ``uns["spatial"]`` is no picture or scale factor, or None; the sentence has no subject."""
    where = f'in uns["{keys.SPATIAL}"]'
    if not isinstance(libraries, Mapping):
        return f"has {str(libraries)[:40]} {where.removeprefix('in ')}, which should be a group of pictures"
    for name, library in libraries.items():
        images, factors = (
            library.get(part, {}) if isinstance(library, Mapping) else None for part in PICTURED
        )
        if not isinstance(images, Mapping) or not isinstance(factors, Mapping):
            return f"has no group of pictures and scale factors for {str(name)[:40]} {where}"
        for key, picture in images.items():
            if not _is_picture(np.asarray(picture)):
                return f"has a picture {str(key)[:40]} {where} that is none in colour"
        for key, factor in factors.items():
            value = _plain(factor)
            if str(key).startswith("tissue_") and not (isinstance(value, int | float) and _is_scale(value)):
                return f"has {str(value)[:40]} as {str(key)[:40]} {where}, which should be a number above 0"
    return None


def _is_picture(values: npt.NDArray[Any]) -> bool:
    """Return whether an array is a picture in colour: 0 to 255, or fractions from 0 to 1 as matplotlib's."""
    if values.ndim != 3 or values.shape[2] not in (3, 4) or not values.size or values.dtype.kind not in "uif":
        return False
    return bool(values.min() >= 0 and values.max() <= (1 if values.dtype.kind == "f" else 255))


def _is_scale(value: float) -> bool:
    """Return whether a number can be a length in µm or a scale: 0 where it is not known."""
    least, most = SCALES
    return value == 0 or least <= value <= most


SCALES: Final = (1e-6, 1e6)
"""Lengths in µm, µm per pixel and factors between pictures that are no mistake, and that can be drawn."""


PICTURED: Final = ("images", "scalefactors")
"""What scanpy keeps of a library: its pictures by name, and their factors to full resolution."""


def _odd_array(adata: "AnnData") -> bool:
    """Return whether there are array coordinates that no array has: texts, or numbers far too large."""
    from napari_flag.slides.spots import OUTERMOST

    named = [name for name in (keys.ARRAY_ROW, keys.ARRAY_COL) if name in adata.obs]
    try:
        array = adata.obs[named].to_numpy(np.float64)
    except (TypeError, ValueError):
        return True
    return bool((np.abs(array[np.isfinite(array)]) > OUTERMOST).any())


_NUMBERS: Final = (
    keys.SLIDE_WIDTH, keys.SLIDE_HEIGHT, keys.MPP, keys.SPOT_DIAMETER_UM, keys.SPOT_PITCH_UM, keys.TILE_PX,
    keys.TILE_UM_PER_PX, keys.STEPS, keys.DRAWS, keys.DEPTH, keys.SEED,
)  # fmt: skip
_LENGTHS: Final = (keys.MPP, keys.SPOT_DIAMETER_UM, keys.SPOT_PITCH_UM, keys.TILE_UM_PER_PX)
_TEXTS: Final = (keys.TRAINING_SLIDES, keys.TRAINING_HASHES, keys.NOTICES)
_GROUPS: Final = (keys.READ_FROM, keys.FAMILIARITY, keys.VERSIONS)
_HASHES: Final = (keys.SLIDE_HASH, keys.WEIGHTS_HASH, keys.TRAINING_HASHES)


def _odd_entry(made: Mapping[str, Any]) -> str | None:
    """Say which entry of the provenance is not of its kind; the sentence has no subject."""
    for name in (*_NUMBERS, *_TEXTS, *_GROUPS):
        value = _plain(made.get(name))
        if value is None:
            continue
        if name in _NUMBERS:
            fits, kind = isinstance(value, int | float) and bool(np.isfinite(value)), "a number"
            if fits and value < 0 and name != keys.SEED:
                fits, kind = False, "a number from 0 on"
            elif fits and name in _LENGTHS and not _is_scale(value):
                fits, kind = False, f"a number from {SCALES[0]:g} to {SCALES[1]:g}"
        elif name in _TEXTS:
            fits, kind = isinstance(value, str | list | tuple), "a list of texts"
        else:
            fits, kind = isinstance(value, Mapping), "a group of entries"
        if not fits:
            return f'has {str(value)[:40]} as "{name}", which should be {kind}'
    warning = _plain((made.get(keys.FAMILIARITY) or {}).get(keys.UNLIKE_WARNING, ""))
    if not isinstance(warning, str) or names_folder(warning):
        return f'has {str(warning)[:40]} as "{keys.UNLIKE_WARNING}", which should be a text without a path'
    for name in _HASHES:
        value = _plain(made.get(name))
        several = name in _TEXTS and isinstance(value, list | tuple)
        odd = [each for each in (value if several else [value]) if each is not None and not is_digest(each)]
        if odd:
            return f'has {str(odd[0])[:40]} as "{name}", which should be 64 hexadecimal digits'
    return None


def _odd_values(values: Any, missing: bool = False) -> bool:
    """Return whether a dense or sparse matrix holds anything but numbers, looked at part by part.

    With `missing` some may be NaN.
    """
    from scipy import sparse

    stored = values.data if sparse.issparse(values) else values
    if getattr(getattr(stored, "dtype", None), "kind", "O") not in "biuf":
        return True
    parts = (stored[start : start + _ROWS] for start in range(0, len(stored), _ROWS))  # may lie in a file
    return any((np.isinf(part) if missing else ~np.isfinite(part)).any() for part in parts)


def refuse_fault(adata: "AnnData", path: Path, remedy: str = "so it cannot be shown; repair it") -> None:
    """Raise a `UserError` where something keeps what `path` holds from being a prediction."""
    fault = find_fault(adata)
    if fault:
        raise UserError(f"{path.name} {fault}, {remedy}.")


def _storable(value: Any) -> Any:
    """Turn provenance into what every version of h5ad holds: no None, no tuples, no Paths."""
    if isinstance(value, Mapping):
        return {str(k): _storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return np.array([storable(str(v)) for v in value] if _has_text(value) else value)
    return storable(str(value)) if isinstance(value, str | Path) else value


def _has_text(values: list[Any] | tuple[Any, ...]) -> bool:
    return not values or any(isinstance(v, str | Path) for v in values)


def _plain(value: Any) -> Any:
    """Undo what h5ad does to provenance: NumPy scalars and arrays back to Python's own."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


# --- regions -----------------------------------------------------------------------------------
def write_regions(adata: "AnnData", annotations: Sequence["Annotation"]) -> None:
    """Keep the regions a person outlined in a prediction, so that they travel with its file.

    Parameters
    ----------
    adata
        The prediction; regions it has are replaced.
    annotations
        In level-0 pixels; none removes what there was.
    """
    from napari_flag.slides.formats.geojson import collection_of

    made = adata.uns[keys.PROVENANCE]
    if annotations:
        made[keys.REGIONS] = json.dumps(collection_of(annotations), ensure_ascii=False)
    else:
        made.pop(keys.REGIONS, None)


def read_regions(adata: "AnnData") -> list["Annotation"]:
    """Return the regions kept in a prediction, in level-0 pixels; none where there are none.

    Raises
    ------
    UserError
        When what is kept there is no GeoJSON.
    """
    from napari_flag.slides.formats.geojson import annotations_in

    text = provenance(adata).get(keys.REGIONS)
    if text is None:
        return []
    try:
        return annotations_in(parse_json(str(text)))
    except ValueError as error:
        raise UserError(
            f"The regions kept in this prediction could not be read ({error}), so none are shown; open them "
            "from their GeoJSON, or draw them again."
        ) from error


# --- asking ------------------------------------------------------------------------------------
def provenance(adata: Any) -> Mapping[str, Any]:
    """Return ``uns["napari_flag"]`` of `adata`, or an empty mapping when it is not ours."""
    found = adata.uns.get(keys.PROVENANCE, {})
    return found if isinstance(found, Mapping) else {}


def written_by(adata: "AnnData", identity: str | None = None) -> "AnnData":
    """Return a prediction that states the hash of the command that writes it, never of what predicted it.

    What a window saves is no command's, so that none replaces it unasked: `identity` is None.
    """
    if identity is None and keys.COMMAND_HASH not in provenance(adata):
        return adata
    made = {key: value for key, value in provenance(adata).items() if key != keys.COMMAND_HASH}
    made |= {} if identity is None else {keys.COMMAND_HASH: identity}
    return sharing(adata, {keys.PROVENANCE: made})


def slide_name(adata: "AnnData") -> str:
    """Return the name of the slide a prediction was made on, or `UNNAMED`."""
    return str(provenance(adata).get(keys.SLIDE_NAME, UNNAMED))


def slide_hash(adata: "AnnData") -> str | None:
    """Return the hash of the slide's content (`file_identity.content_hash`); None of earlier versions."""
    stated = provenance(adata).get(keys.SLIDE_HASH)
    return None if stated is None else str(stated)


def output_name(adata: "AnnData") -> str:
    """Return what files about a prediction are named after: its slide, or else the file it was read from."""
    source = provenance(adata).get(keys.READ_FROM, {})
    unnamed = str(source.get(keys.READ_FILE, UNNAMED)).removesuffix(".h5ad")
    return str(provenance(adata).get(keys.SLIDE_NAME, unnamed))


def slide_size(adata: "AnnData") -> tuple[int, int] | None:
    """Return (width, height) of the slide in level-0 pixels."""
    width, height = (provenance(adata).get(key) for key in (keys.SLIDE_WIDTH, keys.SLIDE_HEIGHT))
    return (int(width), int(height)) if width and height else None


def um_per_px(adata: Any) -> float | None:
    """Return µm per level-0 pixel."""
    mpp = _number(provenance(adata).get(keys.MPP))
    return mpp if mpp is not None and np.isfinite(mpp) and mpp > 0 else None


def spot_diameter_px(adata: Any) -> float | None:
    """Return the spot diameter in level-0 pixels, as napari-flag or else scanpy's scale factors state it."""
    diameter_um, mpp = provenance(adata).get(keys.SPOT_DIAMETER_UM), um_per_px(adata)
    if diameter_um and mpp:
        return float(diameter_um) / mpp
    libraries = adata.uns.get(keys.SPATIAL)
    for library in libraries.values() if isinstance(libraries, Mapping) else ():
        factors = library.get("scalefactors") if isinstance(library, Mapping) else None
        found = _plain(factors.get("spot_diameter_fullres")) if isinstance(factors, Mapping) else None
        if isinstance(found, int | float) and np.isfinite(found) and found > 0:
            return float(found)
    return None


def drawn_diameter_px(adata: Any) -> float:
    """Return the diameter that spots are drawn with, in level-0 pixels: as stated, or `drawn_diameter`."""
    from napari_flag.slides.lattice import drawn_diameter

    return spot_diameter_px(adata) or drawn_diameter(spots_of(adata), um_per_px(adata), slide_size(adata))


def stated_lattice(adata: Any) -> "Lattice":
    """Return the lattice of the spots; "none" where none is stated."""
    stated = provenance(adata).get(keys.LATTICE)
    return "square" if stated == "square" else "hex" if stated == "hex" else "none"


def array_coordinates(adata: Any) -> npt.NDArray[np.int64] | None:
    """Return the (n, 2) array row and column of every spot; None unless all are known."""
    if keys.ARRAY_ROW not in adata.obs or keys.ARRAY_COL not in adata.obs:
        return None
    both = adata.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy(np.float64)
    return both.astype(np.int64) if np.isfinite(both).all() else None


def spots_of(adata: "AnnData") -> "Spots":
    """Return the spots that `adata` was predicted for."""
    from napari_flag.slides.spots import Spots

    made = provenance(adata)
    return Spots(
        ids=tuple(str(name) for name in adata.obs_names),
        xy=np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2],
        diameter_um=_number(made.get(keys.SPOT_DIAMETER_UM)),
        pitch_um=_number(made.get(keys.SPOT_PITCH_UM)),
        lattice=stated_lattice(adata),
        array=array_coordinates(adata),
    )


def trained_on(adata: "AnnData") -> str | None:
    """Return a sentence where the slide is among the sections its weights were trained on."""
    stated = provenance(adata)
    hashes = texts(stated.get(keys.TRAINING_HASHES))
    sections = texts(stated.get(keys.TRAINING_SLIDES))
    return seen_in_training(slide_name(adata), sections, slide_hash(adata) in hashes)


def texts(stated: Any) -> tuple[str, ...]:
    """Return a list of texts that a card or a provenance states; one text alone is a list of one."""
    if isinstance(stated, str):
        return (stated,)
    return () if stated is None else tuple(str(each) for each in stated)


def seen_in_training(name: str, sections: Sequence[str], known: bool = False) -> str | None:
    """Return a sentence where a slide is among those that weights were trained on.

    Parameters
    ----------
    name
        Of the slide.
    sections
        What the weights call theirs.
    known
        Whether its content is that of one of them, whatever it is called.
    """
    if not (known or is_among(name, sections)):
        return None
    return (
        f"{name} is among the sections these weights were trained on, so scores on it say nothing about new "
        "tissue."
    )


def is_among(name: str, sections: Sequence[str]) -> bool:
    """Return whether the slide `name` ("C5") is one of `sections` ("C5", "her2st-C5", "her2st/C5")."""
    name = name.casefold()
    ends = tuple(mark + name for mark in "-_/: ")
    known = (section.casefold() for section in sections)
    return bool(name) and any(section == name or section.endswith(ends) for section in known)


def unlike_warning(adata: "AnnData | None") -> str | None:
    """Return the sentence that most of the slide is unlike the training slides, where it is."""
    score = {} if adata is None else provenance(adata).get(keys.FAMILIARITY)
    warning = score.get(keys.UNLIKE_WARNING) if isinstance(score, Mapping) else None
    return None if warning is None else str(warning)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
