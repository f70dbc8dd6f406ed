"""Write and read results: the prediction h5ad and tables.

Files appear whole or not at all: each is written beside its place under another name and then
renamed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import check_writable, write_whole

if TYPE_CHECKING:
    from anndata import AnnData


NOT_OURS = (
    "so it was not written by napari-flag; choose a file that `napari-flag predict` or the main dock saved"
)


def write_prediction(adata: "AnnData", path: str | Path) -> None:
    """Write a prediction as h5ad; an existing file is replaced, in one step and only when done.

    Whoever calls it has asked before replacing a file.

    Parameters
    ----------
    adata
        As CONTRIBUTING.md, "The prediction file".
    path
        The file, usually ending in ``.h5ad``.

    Raises
    ------
    UserError
        If the place cannot be written or the disk is full.  Nothing is left behind.
    """
    fault = find_fault(adata)
    if fault:
        raise ValueError(f"not a prediction: {fault}")
    path = Path(path).expanduser()
    check_writable(path)
    stored = with_storable_provenance(adata)
    write_whole(path, lambda place: stored.write_h5ad(place, compression="gzip"))


def with_storable_provenance(adata: "AnnData") -> "AnnData":
    """Return an AnnData that shares the arrays of `adata`, so that nothing large is copied."""
    from anndata import AnnData

    return AnnData(
        X=adata.X,
        obs=adata.obs,
        var=adata.var,
        uns={**adata.uns, keys.PROVENANCE: _storable(adata.uns[keys.PROVENANCE])},
        obsm=dict(adata.obsm),
        layers=dict(adata.layers),
        obsp=dict(adata.obsp),
    )


def read_prediction(path: str | Path) -> "AnnData":
    """Read a prediction written by `write_prediction`, and check that it is one.

    Raises
    ------
    UserError
        If the file is missing, damaged, no h5ad, or someone else's.
    """
    path = Path(path).expanduser()
    adata = _read_h5ad(path)
    fault = find_fault(adata)
    if fault:
        raise UserError(f"{path.name} {fault}, {NOT_OURS}.")
    adata.uns[keys.PROVENANCE] = {name: _plain(value) for name, value in adata.uns[keys.PROVENANCE].items()}
    return adata


def _read_h5ad(path: Path) -> "AnnData":
    import anndata
    import h5py

    if path.is_dir():
        raise UserError(f"{path} is a folder, not a prediction; give the .h5ad file itself.")
    if not path.exists():
        raise UserError(f"There is no file {path}; check the path.")
    try:
        with path.open("rb"):
            pass  # is_hdf5 answers False where reading is forbidden
        if not h5py.is_hdf5(path):
            raise UserError(f"{path.name} is not an h5ad file, {NOT_OURS}.")
        return anndata.read_h5ad(path)
    except PermissionError as error:
        raise UserError(f"{path} may not be read by you; ask for permission to read it.") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path.name} could not be read as h5ad, so it is damaged, incomplete or made by an "
            "unknown program; copy it again or predict again."
        ) from error


def find_fault(adata: "AnnData") -> str | None:
    """Say what keeps `adata` from being a prediction of this program, or None if nothing does.

    The sentence has no subject: "has no uns[…]".
    """
    made = adata.uns.get(keys.PROVENANCE)
    if not isinstance(made, Mapping):
        return f'has no uns["{keys.PROVENANCE}"]'
    if str(made.get(keys.UNITS)) != keys.EXPRESSION_UNITS:
        return f"does not state {keys.EXPRESSION_UNITS} as the unit of its values"
    if adata.n_obs == 0 or adata.n_vars == 0:
        return "has no spots or no genes"
    if not (adata.obs_names.is_unique and adata.var_names.is_unique):
        return "names a spot or a gene twice"
    xy = adata.obsm.get(keys.SPATIAL)
    if xy is None or np.shape(xy) != (adata.n_obs, 2) or not np.isfinite(xy).all():
        return f'has no spot centres in obsm["{keys.SPATIAL}"]'
    for name in (None, keys.SAMPLE):
        if name is not None and name not in adata.layers:
            return f'has no layers["{name}"]'
        values = adata.X if name is None else adata.layers[name]
        if values is None or not np.isfinite(values.data if sparse.issparse(values) else values).all():
            return "has values that are missing or not numbers"
    return None


def _storable(value: Any) -> Any:
    """Turn provenance into what every version of h5ad holds: no None, no tuples, no Paths."""
    if isinstance(value, Mapping):
        return {str(k): _storable(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return np.array([str(v) for v in value] if _has_text(value) else value)
    return str(value) if isinstance(value, Path) else value


def _has_text(values: list[Any] | tuple[Any, ...]) -> bool:
    return not values or any(isinstance(v, str | Path) for v in values)


def _plain(value: Any) -> Any:
    """Undo what h5ad does to provenance: NumPy scalars and arrays back to Python's own."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def provenance(adata: Any) -> Mapping[str, Any]:
    """Return ``uns["napari_flag"]`` of `adata`, or an empty mapping when it is not ours."""
    found = adata.uns.get(keys.PROVENANCE, {})
    return found if isinstance(found, Mapping) else {}
