"""The numbers of the Compare dock: a prediction against its truth, or alone where there is none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_flag.comparison import Comparison


@dataclass(frozen=True, slots=True)
class Agreement:
    """What is known of every gene of one prediction.

    Parameters
    ----------
    comparison
        Metrics with intervals and what a reader must know; None without truth.
    tables
        "X" → one row per gene, gene and moran_predicted at least; with truth also "sample", and in
        both the columns of `Comparison.tables`.
    why_not
        Why there is no comparison, a sentence; "" where there is one.
    """

    comparison: "Comparison | None"
    tables: "dict[str, pd.DataFrame]"
    why_not: str = ""


def agree(adata: "AnnData") -> Steps[Agreement]:
    """Compare `adata` with its ``layers["measured"]``; without one, describe the prediction alone.

    Parameters
    ----------
    adata
        As CONTRIBUTING, "The prediction file".
    """
    from napari_flag.comparison import comparing

    reason = "" if keys.MEASURED in adata.layers else NO_TRUTH
    if not reason:
        try:
            comparison = yield from comparing(adata, measured_counts(adata))
        except UserError as error:
            reason = str(error)
        else:
            return Agreement(comparison, comparison.tables)
    table = yield from _alone(adata)
    return Agreement(None, {"X": table}, reason)


NO_TRUTH: Final = (
    "No measured expression lies beside this prediction, so there is nothing to compare it with; "
    "choose the counts of the same section to see scores."
)


def measured_counts(adata: "AnnData") -> "AnnData":
    """Return the raw counts behind ``layers["measured"]``, without spots and genes never measured.

    Parameters
    ----------
    adata
        A prediction whose layer holds log2(count + 1), NaN where not measured.

    Raises
    ------
    UserError
        When the layer is empty, or partly empty where it should hold counts.
    """
    from anndata import AnnData

    from napari_flag.matching import dense

    values = dense(adata.layers[keys.MEASURED]).astype(np.float64)
    known = np.isfinite(values)
    spots, genes = known.any(axis=1), known.any(axis=0)
    if not spots.any():
        raise UserError(
            "The measured layer of this prediction is empty, so there is nothing to compare it with; "
            "choose the counts of the same section."
        )
    # float32 holds log2(count + 1) to a ten-thousandth of a count, so rounding brings counts back
    counts = np.rint(np.exp2(values[np.ix_(spots, genes)]) - 1.0)
    found = AnnData(counts)
    found.obs_names, found.var_names = adata.obs_names[spots], adata.var_names[genes]
    return found


def _alone(adata: "AnnData") -> "Steps[pd.DataFrame]":
    """Return gene, mean, Moran's I and mean spread of every predicted gene."""
    import pandas as pd

    from napari_flag.comparison import spot_neighbours
    from napari_flag.matching import dense
    from napari_flag.statistics.autocorrelation import moran_i

    yield Step("Describing the prediction", 0, None)
    values = dense(adata.X).astype(np.float64)
    numbers = {
        "gene": [str(name) for name in adata.var_names],
        "moran_predicted": moran_i(values, spot_neighbours(adata).weights),
        "mean_predicted": values.mean(axis=0),
    }
    if keys.SPREAD in adata.layers:
        numbers["spread"] = dense(adata.layers[keys.SPREAD]).mean(axis=0)
    return pd.DataFrame(numbers)
