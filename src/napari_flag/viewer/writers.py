"""npe2 writers: a gene layer is saved as the whole prediction behind it (h5ad), or as a table."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_flag import keys
from napari_flag.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def write_h5ad(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows, all genes, as h5ad."""
    from napari_flag.results import write_prediction

    write_prediction(_prediction_of(options), path)
    return [str(path)]


def write_csv(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows as a table: a row per spot, a column per gene."""
    from napari_flag.results import write_table

    write_table(expression_table(_prediction_of(options)), Path(path))
    return [str(path)]


def expression_table(adata: Any) -> "pd.DataFrame":
    """Return spot id, centre (level-0 px), array position and predicted log2(count + 1)."""
    import pandas as pd

    xy = np.asarray(adata.obsm[keys.SPATIAL], float)
    table = pd.DataFrame({"spot": list(adata.obs_names), "x_px": xy[:, 0], "y_px": xy[:, 1]})
    for name in (keys.ARRAY_ROW, keys.ARRAY_COL):
        if name in adata.obs:
            table[name] = adata.obs[name].to_numpy()
    dense = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    return pd.concat([table, pd.DataFrame(dense, columns=list(adata.var_names))], axis=1)


def _prediction_of(options: dict[str, Any]) -> Any:
    adata = options.get("metadata", {}).get(keys.LAYER_ADATA)
    if adata is None:
        raise UserError(
            f"The layer “{options.get('name', '')}” shows no prediction, so there is nothing to "
            "save as h5ad or CSV; select a gene layer and save again."
        )
    return adata
