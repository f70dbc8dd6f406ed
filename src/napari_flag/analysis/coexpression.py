"""Which genes rise and fall together: the correlations of a choice of genes, ordered for a heat map.

Holds no Qt.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.spatial import known_truth
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


FloatArray: TypeAlias = npt.NDArray[np.float64]

MOST_GENES: Final = 3000
"""GSC of all genes needs a table of all their pairs; beyond this it would take gigabytes."""
FEWEST: Final = 2
"""A correlation needs two genes."""


@dataclass(frozen=True, slots=True)
class Together:
    """Correlations between genes over the spots of one slide.

    Parameters
    ----------
    genes
        In the order shown: that of the clustering of the truth, of the prediction where there is none.
    predicted, measured
        (G, G) Pearson correlations; `measured` is None without truth.
    gsc, gsc_all
        Gene structure correlation of these genes, and of all genes of the prediction; NaN where not
        defined (no truth, below three genes, more than `MOST_GENES`).
    spots
        How many spots they were computed over.
    depth
        Whether each spot's depth (its mean over all genes) was left in.
    """

    genes: tuple[str, ...]
    predicted: FloatArray
    measured: FloatArray | None
    gsc: float
    gsc_all: float
    spots: int
    depth: bool = True

    def table(self) -> "pd.DataFrame":
        """Return a row per pair of genes: first, second, predicted and, with truth, measured."""
        import pandas as pd

        first, second = np.triu_indices(len(self.genes), k=1)
        names = np.array(self.genes, object)
        table = pd.DataFrame(
            {"first": names[first], "second": names[second], "predicted": self.predicted[first, second]}
        )
        if self.measured is not None:
            table["measured"] = self.measured[first, second]
        return table

    def partners(self, gene: str) -> "dict[str, FloatArray] | None":
        """Return the rows of `gene`: "predicted" and, with truth, "measured"; None where it is not shown."""
        if gene not in self.genes:
            return None
        row = self.genes.index(gene)
        rows = {"predicted": self.predicted[row]}
        return rows if self.measured is None else rows | {"measured": self.measured[row]}

    def triangles(self) -> FloatArray:
        """Return (G, G): prediction below the diagonal, truth above it, NaN on it; without truth both."""
        above = self.predicted if self.measured is None else self.measured
        both: FloatArray = np.where(np.tri(len(self.genes), dtype=bool), self.predicted, above)
        np.fill_diagonal(both, np.nan)
        return both


def correlate(
    adata: "AnnData", genes: Sequence[str], *, depth: bool = True, overall: float | None = None
) -> Steps[Together]:
    """Correlate `genes` of a prediction with each other, and order them.

    Parameters
    ----------
    adata
        As CONTRIBUTING, "The prediction file".
    genes
        Which; those not in the prediction are passed over.
    depth
        Leave in how deeply each spot was sequenced, as GSC is defined; it lets all genes rise together.
        Without it, each spot's mean over all genes is taken away first.
    overall
        GSC of all genes where it is known already, which is the slow part.

    Raises
    ------
    UserError
        When fewer than two of them are in the prediction.
    """
    from napari_flag.statistics import accuracy, coexpression

    columns = adata.var_names.get_indexer([g for g in dict.fromkeys(genes) if g in adata.var_names])
    if len(columns) < FEWEST:
        raise UserError(
            f"The prediction has {len(columns)} of these {len(genes)} genes, and a correlation needs two; "
            "choose another gene set."
        )
    known = known_truth(adata)
    if known is not None:
        columns = columns[known[1][columns]] if known[1][columns].sum() >= FEWEST else columns
    spots = np.ones(adata.n_obs, bool) if known is None else known[0]
    with_truth = known is not None and bool(known[1][columns].all())
    yield Step("Correlating genes", 0, 3, "parts")
    predicted = coexpression.gene_correlations(_block(adata.X, spots, columns, depth=depth))
    measured, gsc = None, float("nan")
    if with_truth:
        truth = _block(adata.layers[keys.MEASURED], spots, columns, depth=depth)
        measured = coexpression.gene_correlations(truth)
        silent = accuracy.constant_genes(truth)
        gsc = coexpression.gene_structure_correlation(predicted, measured, silent)
    yield Step("Correlating genes", 1, 3, "parts")
    order = coexpression.gene_order(predicted if measured is None else measured)
    yield Step("Correlating genes", 2, 3, "parts")
    if overall is None:
        overall = gsc_of_all(adata, depth=depth)
    return Together(
        genes=tuple(str(adata.var_names[column]) for column in columns[order]),
        predicted=predicted[np.ix_(order, order)],
        measured=None if measured is None else measured[np.ix_(order, order)],
        gsc=gsc,
        gsc_all=overall,
        spots=int(spots.sum()),
        depth=depth,
    )


def gsc_of_all(adata: "AnnData", *, depth: bool = True) -> float:
    """Return GSC over all genes measured; NaN without truth or with more than `MOST_GENES`."""
    from napari_flag.statistics import accuracy, coexpression

    known = known_truth(adata)
    if known is None or known[1].sum() > MOST_GENES:
        return float("nan")
    columns = np.flatnonzero(known[1])
    truth = _block(adata.layers[keys.MEASURED], known[0], columns, depth=depth)
    return coexpression.gene_structure_correlation(
        coexpression.gene_correlations(_block(adata.X, known[0], columns, depth=depth)),
        coexpression.gene_correlations(truth),
        accuracy.constant_genes(truth),
    )


def sets_within(
    sets: Mapping[str, Sequence[str]], genes: Iterable[str]
) -> dict[str, tuple[tuple[str, ...], int]]:
    """Return the sets with at least two genes of a prediction: those genes, and how many there are in all."""
    known = set(genes)
    found = {name: (tuple(g for g in members if g in known), len(members)) for name, members in sets.items()}
    return {name: members for name, members in found.items() if len(members[0]) >= FEWEST}


def _block(
    matrix: Any, spots: npt.NDArray[np.bool_], columns: npt.NDArray[Any], *, depth: bool
) -> FloatArray:
    """Return (n, G) values of `spots` and `columns`; the mean taken away is over all genes known there."""
    from napari_flag.analysis.truth import dense

    chosen: FloatArray = dense(matrix[:, columns])[spots].astype(np.float64)
    if depth:
        return chosen
    mean: FloatArray = np.nanmean(dense(matrix)[spots], axis=1, keepdims=True, dtype=np.float64)
    return chosen - mean
