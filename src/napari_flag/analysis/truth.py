"""Bring predicted and measured expression together: spots by id, genes by symbol."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.statistics.accuracy import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


FEWEST_SPOTS: Final = 3
"""A correlation needs three."""


@dataclass(frozen=True, slots=True)
class Unmatched:
    """What could not be compared: names found on one side only."""

    spots_only_predicted: tuple[str, ...]
    spots_only_measured: tuple[str, ...]
    genes_only_predicted: tuple[str, ...]
    genes_only_measured: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Positions of shared spots and genes: ``predicted[rows, columns]`` ~ ``measured[...]``."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    measured_rows: npt.NDArray[np.int64]
    measured_columns: npt.NDArray[np.int64]


def match_names(predicted: "AnnData", measured: "AnnData") -> Match:
    """Match spots by id and genes by symbol; a gene listed twice counts where it stands first.

    Raises
    ------
    UserError
        When no or too few spots match (likely another slide), or no gene does.
    """
    if keys.PROVENANCE in measured.uns:
        raise UserError(
            "The measured file is itself a prediction of napari-flag; give measured counts (h5ad, "
            "Space Ranger folder or ST table) as the second file."
        )
    if not measured.obs_names.is_unique:
        raise UserError(
            "The measured table names some spots twice, so it is not clear which to compare; make "
            "the spot ids unique."
        )
    first = ~measured.var_names.duplicated()
    found_rows = measured.obs_names.get_indexer(predicted.obs_names)
    found_genes = measured.var_names[first].get_indexer(predicted.var_names)
    rows, columns = np.flatnonzero(found_rows >= 0), np.flatnonzero(found_genes >= 0)
    if len(rows) < FEWEST_SPOTS:
        raise UserError(_too_few_spots(predicted, measured, len(rows)))
    if len(columns) == 0:
        raise UserError(
            f"None of the predicted genes (such as {predicted.var_names[0]}) is in the measured "
            f"table, whose genes are named like {measured.var_names[0]}; give a table with gene "
            "symbols."
        )
    position = np.flatnonzero(first)
    return Match(rows, columns, found_rows[rows], position[found_genes[columns]])


def _too_few_spots(predicted: "AnnData", measured: "AnnData", shared: int) -> str:
    names = f"predicted spots are named like {predicted.obs_names[0]!r}"
    if measured.n_obs:
        names += f", measured ones like {measured.obs_names[0]!r}"
    if shared == 0:
        return (
            f"No spot of the prediction is in the measured table ({names}), so it is most likely "
            "of another slide; choose the table of the slide that was predicted."
        )
    return (
        f"Only {shared} of {predicted.n_obs} predicted spots are in the measured table, too few to "
        f"compare (at least {FEWEST_SPOTS}), so it is most likely of another slide; choose the "
        "table of the slide that was predicted."
    )


def shared_counts(measured: "AnnData", match: Match) -> FloatArray:
    """Return (n, G) raw counts of what is shared; refuse what cannot be raw counts."""
    block = measured.X[match.measured_rows][:, match.measured_columns]
    counts = dense(block).astype(np.float64)
    if not np.isfinite(counts).all():
        raise UserError(
            "The measured table has empty cells where counts should be; give raw counts, 0 where "
            "nothing was found."
        )
    odd = (counts < 0) | (counts != np.rint(counts))
    if odd.any():
        raise UserError(
            f"The measured table holds {counts[odd][0]:.4g}, which is not a whole count, so it was "
            "already normalised or logged; give the raw counts."
        )
    return counts


def find_unmatched(predicted: "AnnData", measured: "AnnData") -> Unmatched:
    """List the names found on one side only, in the order of their table."""

    def only(here: "pd.Index", there: "pd.Index") -> tuple[str, ...]:
        return tuple(str(name) for name in here[~here.isin(there)])

    return Unmatched(
        spots_only_predicted=only(predicted.obs_names, measured.obs_names),
        spots_only_measured=only(measured.obs_names, predicted.obs_names),
        genes_only_predicted=only(predicted.var_names, measured.var_names),
        genes_only_measured=only(measured.var_names, predicted.var_names),
    )


def dense(values: Any) -> npt.NDArray[Any]:
    """Return an array whether `values` is sparse or not."""
    return np.asarray(values.toarray() if sparse.issparse(values) else values)


def attach_measured(predicted: "AnnData", measured: "AnnData") -> Match:
    """Put log2(count + 1) of what was measured into ``layers["measured"]``, NaN elsewhere.

    Parameters
    ----------
    predicted
        The prediction; changed in place.
    measured
        Raw counts, rows named by spot id.

    Raises
    ------
    UserError
        As `match_names` and `shared_counts`; `predicted` is then unchanged.
    """
    match = match_names(predicted, measured)
    layer = np.full(predicted.shape, np.nan, dtype=np.float32)
    layer[np.ix_(match.rows, match.columns)] = np.log2(shared_counts(measured, match) + 1.0)
    predicted.layers[keys.MEASURED] = layer
    return match


Numbers = npt.NDArray[np.int64]
PREDICTED, MEASURED = "predicted", "measured"
"""The two sources; also the ends of the columns of `RegionNumbers.genes`."""


def sources(adata: "AnnData") -> tuple[str, ...]:
    """Return which sources `adata` has."""
    return (PREDICTED, MEASURED) if keys.MEASURED in adata.layers else (PREDICTED,)


def known_of(adata: "AnnData", source: str) -> tuple[Numbers, Numbers]:
    """Return the spots and the genes for which the source has values."""
    if source == PREDICTED:
        return np.arange(adata.n_obs), np.arange(adata.n_vars)
    known = np.isfinite(dense(adata.layers[keys.MEASURED]))
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if not len(rows):
        raise UserError(
            "The measured layer of this prediction is empty; choose the counts of this section in the "
            "Compare dock."
        )
    return rows, columns


def values_of(adata: "AnnData", source: str, rows: Numbers, columns: Numbers) -> npt.NDArray[Any]:
    """Return the (n, G) values of one source at `rows` and `columns`."""
    matrix = adata.X if source == PREDICTED else adata.layers[keys.MEASURED]
    return dense(matrix[rows][:, columns])
