"""Predicted expression as a table that any program reads."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_flag import keys
from napari_flag.matching import dense
from napari_flag.progress import Step, Steps
from napari_flag.results import write_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def expression_table(adata: "AnnData") -> "pd.DataFrame":
    """Return spot id, centre (level-0 px), what is known of the spot, and predicted log2(count + 1)."""
    import pandas as pd

    xy = np.asarray(adata.obsm[keys.SPATIAL], float)
    table = pd.DataFrame({"spot": list(adata.obs_names), "x_px": xy[:, 0], "y_px": xy[:, 1]})
    for name in adata.obs:
        table[name] = adata.obs[name].to_numpy()
    return pd.concat([table, pd.DataFrame(dense(adata.X), columns=list(adata.var_names))], axis=1)


def write_csv(adata: "AnnData", path: Path) -> Steps[None]:
    """Write `expression_table`: a row per spot, a column per gene.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    yield Step("Writing the table", 0, adata.n_obs)
    write_table(expression_table(adata), path)
