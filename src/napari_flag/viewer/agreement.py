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

NAMED: Final = 5
"""Names listed of what could not be compared."""
NO_TRUTH: Final = (
    "No measured expression lies beside this prediction, so there is nothing to compare it with; "
    "choose the counts of the same section to see scores."
)


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
    mismatches
        What could not be compared, a sentence for each kind.
    """

    comparison: "Comparison | None"
    tables: "dict[str, pd.DataFrame]"
    why_not: str = ""
    mismatches: tuple[str, ...] = ()


def agree(adata: "AnnData", measured: "AnnData | None" = None) -> Steps[Agreement]:
    """Compare `adata` with its truth; without one, describe the prediction alone.

    Parameters
    ----------
    adata
        As CONTRIBUTING, "The prediction file".
    measured
        Raw counts with all their spots and genes; None takes ``layers["measured"]``, if there is one.
    """
    from napari_flag.comparison import comparing

    reason = "" if measured is not None or keys.MEASURED in adata.layers else NO_TRUTH
    if not reason:
        try:
            truth = measured_counts(adata) if measured is None else measured
            comparison = yield from comparing(adata, truth)
        except UserError as error:
            reason = str(error)
        else:
            return Agreement(comparison, comparison.tables, mismatches=_mismatches(comparison))
    table = yield from _alone(adata)
    return Agreement(None, {"X": table}, reason)


def _mismatches(comparison: "Comparison") -> tuple[str, ...]:
    """Say what was not measured (what was only measured is no fault), and where nothing fits."""
    left = comparison.unmatched
    told = []
    for names, what, whole in (
        (left.genes_only_predicted, "genes", comparison.genes),
        (left.spots_only_predicted, "spots", comparison.spots),
    ):
        if names:
            more = ", …" if len(names) > NAMED else ""
            told.append(
                f"{len(names):,} of {len(names) + whole:,} predicted {what} were not measured, so they "
                f"are left out: {', '.join(names[:NAMED])}{more}"
            )
    low, high = comparison.scores["X"].intervals["PCC"]
    if low <= 0.0:  # never where there is no interval: NaN is not below anything
        told.append(
            f"Prediction and measurement do not go together (PCC between {low:.2f} and {high:.2f}); check "
            "that the counts are of this slide and its spots named alike."
        )
    return tuple(told)


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
