"""Tables in the layouts that squidpy and scanpy write and read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.statistics.markers import differential_genes
from napari_flag.statistics.significance import q_values

if TYPE_CHECKING:
    import pandas as pd

FEWEST_IN_DOMAIN: Final = 5
"""Smaller domains have no markers worth naming."""


def as_squidpy(table: "pd.DataFrame", genes: Sequence[str]) -> "pd.DataFrame":
    """Return a table of `moran_test` with squidpy's columns and order: highest Moran's I first."""
    import pandas as pd

    columns = {
        "I": table["I"],
        "pval_norm": table["p"],
        "var_norm": table["variance"],
        "pval_norm_fdr_bh": q_values(table["p"].to_numpy()),
    }
    if "p_permuted" in table:
        columns |= {"pval_sim": table["p_permuted"], "pval_sim_fdr_bh": table["q"]}
    found = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()}, index=list(genes))
    return found.sort_values("I", ascending=False, kind="stable")


def as_scanpy(
    values: npt.NDArray[np.float64], genes: Sequence[str], labels: npt.NDArray[np.int64], layer: str | None
) -> dict[str, Any]:
    """Rank the genes of each domain against the rest, in the layout of scanpy's `rank_genes_groups`.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    genes
        (G,) symbols.
    labels
        (n,) domains from 0; those of fewer than `FEWEST_IN_DOMAIN` spots, or of all, are left out.
    layer
        Name of the layer the values are from; None is ``X``.
    """
    columns = ("names", "scores", "logfoldchanges", "pvals", "pvals_adj")
    ours = ("gene", "score", "difference", "p", "q")
    types = (object, np.float32, np.float32, np.float64, np.float64)
    ranked = {
        str(number + 1): differential_genes(values, genes, labels == number)
        for number in np.unique(labels)
        if FEWEST_IN_DOMAIN <= (labels == number).sum() <= len(labels) - FEWEST_IN_DOMAIN
    }
    found: dict[str, Any] = {
        "params": {
            "groupby": keys.DOMAIN + (keys.OF_MEASURED if layer == keys.MEASURED else ""),
            "reference": "rest",
            "method": "wilcoxon",
            "use_raw": False,
            "layer": layer,
            "corr_method": "benjamini-hochberg",
        }
    }
    for column, mine, kind in zip(columns, ours, types, strict=True):
        record = np.empty(len(genes) if ranked else 0, dtype=[(name, kind) for name in ranked])
        for name, table in ranked.items():
            record[name] = table[mine].to_numpy()
        found[column] = record
    return found
