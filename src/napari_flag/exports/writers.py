"""npe2 writers: a gene layer is saved as the whole prediction behind it, in a format of other programs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.exports.qupath import write_geojson as geojson_steps
from napari_flag.exports.tables import write_csv as csv_steps
from napari_flag.progress import Steps, finish
from napari_flag.results import write_prediction

if TYPE_CHECKING:
    from anndata import AnnData


def write_h5ad(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows, all genes, as h5ad."""
    write_prediction(_prediction_of(options), path)
    return [str(path)]


def write_csv(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows as a table: a row per spot, a column per gene."""
    return _finish(csv_steps, path, options)


def write_geojson(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows as QuPath objects: spots with their measurements."""
    return _finish(geojson_steps, path, options)


def _finish(write: "Callable[[AnnData, Path], Steps[None]]", path: str, options: dict[str, Any]) -> list[str]:
    finish(write(_prediction_of(options), Path(path)))
    return [str(path)]


def _prediction_of(options: dict[str, Any]) -> Any:
    adata = options.get("metadata", {}).get(keys.LAYER_ADATA)
    if adata is None:
        raise UserError(
            f"The layer “{options.get('name', '')}” shows no prediction, so there is nothing to "
            "save of it in this format; select a gene layer and save again."
        )
    return adata
