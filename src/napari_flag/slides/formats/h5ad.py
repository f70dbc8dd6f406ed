"""AnnData files (``.h5ad``) as spot tables: HEST-1k's, scanpy's, and this package's own.

Only what is needed is read, piece by piece, so that a file with unusual other content opens.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.formatting import counted_of
from napari_flag.gene_names import without_version
from napari_flag.slides.formats.counts import GENE_EXPRESSION, GENE_IDS, counts, is_gene
from napari_flag.slides.formats.positions import ST_DIAMETER_UM, ST_PITCH_UM
from napari_flag.slides.formats.space_ranger import VISIUM_DIAMETER_UM, VISIUM_PITCH_UM
from napari_flag.slides.formats.stored_anndata import COUNTS_IN, H5ad, are_counts, with_file
from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.spots import (
    FloatArray,
    IntArray,
    Lattice,
    Scaling,
    Spots,
    SpotTable,
    array_from,
    matched,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


PIXELS: Final = ("pxl_col_in_fullres", "pxl_row_in_fullres")
SYMBOLS: Final = ("gene_name", "gene_symbol", "gene_symbols", "feature_name", "symbol")
"""``var`` columns that hold symbols where ``var_names`` are Ensembl ids."""
FEATURE_KINDS: Final = ("feature_types", "feature_type")
"""``var`` columns that tell genes from antibodies, as scanpy names what a 10x matrix states."""


def read_h5ad(path: Path, slide: "Slide | None") -> SpotTable:
    """Read spots, and raw counts where there are any, from an ``.h5ad`` file.

    Positions are ``obsm["spatial"]`` (x, y) or the pxl columns of ``obs``, in full-resolution
    pixels.
    """
    return with_file(path, lambda h5ad: _spot_table(h5ad, slide))


def read_h5ad_counts(path: Path) -> "AnnData":
    """Read raw counts from an ``.h5ad`` file: X, ``layers["counts"]`` or ``raw``, which holds them."""
    return with_file(path, lambda h5ad: measured_in(h5ad, path.name))


def measured_in(h5ad: H5ad, name: str) -> "AnnData":
    """Return the raw counts (`raw_counts`) of a file or table, called `name` in sentences.

    Raises
    ------
    UserError
        When it holds none, or is a prediction of this package.
    """
    if _is_ours(h5ad):
        raise UserError(
            f"{name} is a prediction of napari-flag, and its counts are draws and no measurement; give the "
            "measured raw counts."
        )
    found = raw_counts(h5ad)
    if found is None:
        raise UserError(
            f"{name} holds no raw counts (X has fractions or negative numbers, and there is no layer "
            '"counts"); save the raw counts in it.'
        )
    return found


def _is_ours(h5ad: H5ad) -> bool:
    return f"uns/{keys.PROVENANCE}" in h5ad.file


def _spot_table(h5ad: H5ad, slide: "Slide | None") -> SpotTable:
    obs = h5ad.frame("obs")
    xy = positions_of(h5ad, obs)
    rows, notices = rows_on_tissue(h5ad, obs, slide)
    obs, xy = obs.iloc[rows], xy[rows]
    scale = 1.0
    if slide is not None:
        scale, scaled = _scaling(h5ad, slide).fit(slide, xy, h5ad.path)
        notices += scaled
    array = array_of(obs, h5ad.path.name)
    technology, diameter, pitch = _technology(h5ad, obs, array)
    lattice = _lattice(h5ad, array)
    ids = tuple(str(i) for i in obs.index)
    spots = Spots(ids, xy * scale, diameter, pitch, lattice, array)
    table = SpotTable(spots, None, technology, tuple(notices), scale)
    measured = raw_counts(h5ad)
    if measured is None:
        return table.with_notice(f"{h5ad.path.name} holds no raw counts, so nothing is compared.")
    return matched(table, measured, h5ad.path)


def positions_of(h5ad: H5ad, obs: Any) -> FloatArray:
    """Return (n, 2) float64 (x, y) in the file's pixels; raise a `UserError` where there are none."""
    stored = h5ad.values(f"obsm/{keys.SPATIAL}")
    if stored is None and set(PIXELS) <= set(obs.columns):
        stored = obs[list(PIXELS)]
    if stored is None:
        there = ", ".join(sorted(h5ad.file["obsm"])) if "obsm" in h5ad.file else ""
        raise UserError(
            f'{h5ad.path.name} has no positions: obsm["spatial"] is missing '
            f"(there is {there or 'nothing'} in obsm); add the spots' (x, y) in full-resolution "
            'pixels as obsm["spatial"].'
        )
    xy = np.asarray(stored, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] < 2 or len(xy) != len(obs):
        raise UserError(
            f'obsm["spatial"] of {h5ad.path.name} has shape {xy.shape}, where ({len(obs)}, 2) is '
            "expected; write (x, y) for each spot."
        )
    return xy[:, :2].copy()


def rows_on_tissue(
    h5ad: H5ad, obs: Any, slide: "Slide | None"
) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Return the spots on tissue of the slide at hand, and what was left out."""
    notices: tuple[str, ...] = ()
    keep = np.ones(len(obs), dtype=bool)
    if "library_id" in obs and obs["library_id"].nunique() > 1:
        libraries = [str(name) for name in obs["library_id"].unique()]
        if slide is None or slide.name not in libraries:
            raise UserError(
                f"{h5ad.path.name} holds {len(libraries)} slides ({', '.join(libraries[:5])}); "
                "save the spots of one slide to a file of its own."
            )
        keep &= (obs["library_id"].astype(str) == slide.name).to_numpy()
    if "in_tissue" in obs:
        on = obs["in_tissue"].astype(str).isin(("1", "1.0", "True", "true")).to_numpy()
        if not on[keep].all():
            out = int((~on[keep]).sum())
            notices = (f"{counted_of(out, int(keep.sum()), 'spot')} are not on tissue and left out.",)
        keep &= on
    return keep, notices


def array_of(obs: Any, source: str) -> IntArray | None:
    """Return the (n, 2) array row and column of every spot of `source`; None unless all are known."""
    if not {keys.ARRAY_ROW, keys.ARRAY_COL} <= set(obs.columns):
        return None
    values = obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].astype(float).to_numpy()
    return array_from(values, source) if np.isfinite(values).all() else None


def _technology(h5ad: H5ad, obs: Any, array: IntArray | None) -> tuple[str, float | None, float | None]:
    """Return what the spots are called, with nominal diameter and pitch in µm."""
    ours = h5ad.file.get(f"uns/{keys.PROVENANCE}")
    if ours is not None:
        diameter, pitch = _scalar(ours, keys.SPOT_DIAMETER_UM), _scalar(ours, keys.SPOT_PITCH_UM)
        return "napari-flag prediction", diameter, pitch
    if array is not None and lattice_of(array) == "hex":
        return "Visium (by its hexagonal array)", VISIUM_DIAMETER_UM, VISIUM_PITCH_UM
    if len(obs) and all(re.fullmatch(r"\d+x\d+", str(i)) for i in obs.index):
        return "Spatial Transcriptomics (by its spot ids)", ST_DIAMETER_UM, ST_PITCH_UM
    return "AnnData", None, None


def _lattice(h5ad: H5ad, array: IntArray | None) -> Lattice:
    """Return the lattice a prediction of this package states, or else what the array shows."""
    if array is None:
        return "none"
    stored = h5ad.file.get(f"uns/{keys.PROVENANCE}/{keys.LATTICE}")
    stated = stored.asstr()[()] if stored is not None else None
    return stated if stated in ("square", "hex") else lattice_of(array)


def _scalar(group: Any, key: str) -> float | None:
    try:
        return float(group[key][()])
    except (KeyError, TypeError, ValueError):
        return None


def _scaling(h5ad: H5ad, slide: "Slide") -> Scaling:
    """Return the scale factors of the slide's library; HEST-1k's is called "ST"."""
    libraries = h5ad.file.get(f"uns/{keys.SPATIAL}")
    names = list(libraries) if hasattr(libraries, "keys") else []
    if not names:
        return Scaling()
    library = libraries[slide.name if slide.name in names else names[0]]
    factors, sizes = {}, {}
    for key in library.get("scalefactors", ()):
        match = re.fullmatch(r"tissue_(\w+)_scalef", key)
        factor = _scalar(library["scalefactors"], key) if match else None
        if match and factor:
            factors[match[1]] = factor
            image = library.get(f"images/{match[1]}")
            if image is not None and len(image.shape) >= 2:
                sizes[match[1]] = (int(image.shape[1]), int(image.shape[0]))
    return Scaling(factors, sizes)


def raw_counts(h5ad: H5ad) -> "AnnData | None":
    """Return raw counts from X, ``layers["counts"]`` or ``raw``; None of a prediction and where none is."""
    if _is_ours(h5ad):
        return None  # counts in it are draws
    for values_key, var_key in COUNTS_IN:
        values = h5ad.values(values_key)
        if values is None or not are_counts(values):
            continue
        var = h5ad.frame(var_key)
        names, ids = gene_names(var)
        adata = counts([str(i) for i in h5ad.frame("obs").index], names, values)
        if ids is not None:
            adata.var[GENE_IDS] = ids
        xy = h5ad.values(f"obsm/{keys.SPATIAL}")
        if isinstance(xy, np.ndarray) and xy.ndim == 2 and len(xy) == len(adata) and xy.dtype.kind in "iuf":
            adata.obsm[keys.SPATIAL] = xy
        kinds = next((var[name].astype(str) for name in FEATURE_KINDS if name in var), None)
        if kinds is None or (genes := kinds.map(is_gene).to_numpy(bool)).all():
            return adata
        if not genes.any():
            raise UserError(
                f"{h5ad.path.name} holds {kinds.iloc[0]} and no {GENE_EXPRESSION}, so no gene was measured; "
                "give the counts of genes."
            )
        return adata[:, genes].copy()
    return None


def gene_names(var: Any) -> tuple[list[str], list[str] | None]:
    """Return gene symbols, and Ensembl ids where they are known beside them; None otherwise.

    Where most of the names are Ensembl ids, symbols are in a column; a row without one (a spike-in) keeps its
    name.
    """
    names = [str(name) for name in var.index]
    symbols = next((column for column in SYMBOLS if column in var), None)
    if symbols and 2 * sum(bool(without_version(name)) for name in names) > len(names):
        known = var[symbols].notna() & (var[symbols].astype(str).str.strip() != "")
        written = zip(var[symbols], known, names, strict=True)
        return [str(symbol) if there else name for symbol, there, name in written], names
    for column in (GENE_IDS, "gene_id", "ensembl_id"):
        if column in var:
            return names, [str(i) for i in var[column]]
    return names, None
