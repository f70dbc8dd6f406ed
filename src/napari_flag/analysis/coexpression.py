"""Co-expression of prediction and measurement: gene–gene correlations for heat maps, and GSC.

Correlations of the prediction are over all its spots; GSC, which compares, cuts both to what was measured.
What is shown is without depth unless asked otherwise, since depth, which all genes share, hides the rest; GSC
is computed with depth in any case, as it is defined.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    Extent,
    Numbers,
    extent_of,
    matrix_of,
    measured_extent,
)
from napari_flag.errors import UserError
from napari_flag.formatting import whole
from napari_flag.progress import Step, Steps
from napari_flag.statistics import coexpression
from napari_flag.statistics.accuracy import FloatArray, composition, constant_genes
from napari_flag.statistics.coexpression import (
    GeneCorrelations,
    gene_correlations,
    gene_order,
    gene_structure_correlation,
    spot_parts,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


FEWEST: Final = 2
"""A correlation needs two genes."""
DEPTH_SHOWN: Final = False
"""Whether correlations that docks, figures and the report show have each spot's depth in them by default."""
COLOUR_PERCENTILE: Final = 99.0
"""Of the sizes of the correlations shown: colours reach that far to both sides of 0."""
LEAST_LIMIT: Final = 0.05
ALIKE: Final = 0.7
"""Genes whose values correlate this much over the spots show the same map."""


@dataclass(frozen=True, slots=True)
class Together:
    """Correlations between genes over the spots of one slide.

    Parameters
    ----------
    genes
        In the order shown: that of the clustering of the truth, then those not measured; without truth, that
        of the clustering of the prediction.
    predicted
        (G, G) Pearson correlations over all spots of the prediction.
    measured
        (G, G) Pearson correlations over the spots that were measured, NaN for genes that were not; None
        without truth, or where fewer than two of the genes were measured.
    gsc, gsc_all
        Gene structure correlation of these genes, and of all genes, over the spots and genes that were
        measured, with depth whatever is shown; NaN where not defined (no truth, below three genes, above
        `statistics.coexpression.MOST_GENES`).
    spots, spots_measured, genes_measured
        How many spots the prediction has; over how many spots, and how many of these genes, GSC was computed.
    depth
        Whether each spot's depth (its mean over all genes) was left in what is shown.
    """

    genes: tuple[str, ...]
    predicted: FloatArray
    measured: FloatArray | None
    gsc: float
    gsc_all: float
    spots: int
    spots_measured: int
    genes_measured: int
    depth: bool = DEPTH_SHOWN

    @property
    def limit(self) -> float:
        """How far the colours reach to both sides of 0."""
        return colour_limit(self.triangles())

    @property
    def shown(self) -> str:
        """Say which correlations these are: "depth removed"."""
        return depth_word(self.depth)

    def table(self) -> "pd.DataFrame":
        """Return a row per pair of genes: first, second, predicted, with truth measured, and depth."""
        import pandas as pd

        first, second = np.triu_indices(len(self.genes), k=1)
        names = np.array(self.genes, object)
        table = pd.DataFrame(
            {"first": names[first], "second": names[second], "predicted": self.predicted[first, second]}
        )
        if self.measured is not None:
            table["measured"] = self.measured[first, second]
        return table.assign(depth="kept" if self.depth else "removed")

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
    adata: "AnnData", genes: Sequence[str], *, depth: bool = DEPTH_SHOWN, overall: float | None = None
) -> Steps[Together]:
    """Correlate `genes` of a prediction with each other, and order them.

    Parameters
    ----------
    adata
        As docs/prediction-file.md states.
    genes
        Which; those not in the prediction are passed over.
    depth
        Leave in how deeply each spot was sequenced, which lets all genes rise together.  Without it, each
        spot's mean over all genes is taken away first.  GSC has it in any case, as it is defined.
    overall
        GSC of all genes where it is known already, which is the slow part.

    Raises
    ------
    UserError
        When fewer than two of them are in the prediction.
    """
    columns = adata.var_names.get_indexer([g for g in dict.fromkeys(genes) if g in adata.var_names])
    if len(columns) < FEWEST:
        raise UserError(
            f"The prediction has {whole(len(columns))} of these {whole(len(genes))} genes, and a "
            "correlation needs two; choose another gene set."
        )
    everything = extent_of(adata, PREDICTED)
    predicted = (yield from _correlating(adata, PREDICTED, everything, columns, depth=depth)).table()
    extent = measured_extent(adata)
    there = np.zeros(len(columns), bool) if extent is None else np.isin(columns, extent.genes)
    measured, gsc, order = None, float("nan"), None
    if extent is not None and there.sum() >= FEWEST:
        gsc = yield from _structure(adata, extent, columns[there])
        known = (yield from _correlating(adata, MEASURED, extent, columns[there], depth=depth)).table()
        measured = np.full(predicted.shape, np.nan)
        measured[np.ix_(there, there)] = known
        order = np.append(np.flatnonzero(there)[gene_order(known)], np.flatnonzero(~there))
    if order is None:
        order = gene_order(predicted)
    if overall is None:
        overall = float("nan")
        if extent is not None:
            overall = yield from _structure(adata, extent, extent.genes)
    return Together(
        genes=tuple(str(adata.var_names[column]) for column in columns[order]),
        predicted=predicted[np.ix_(order, order)],
        measured=None if measured is None else measured[np.ix_(order, order)],
        gsc=gsc,
        gsc_all=overall,
        spots=adata.n_obs,
        spots_measured=0 if extent is None else len(extent.spots),
        genes_measured=int(there.sum()),
        depth=depth,
    )


def depth_word(depth: bool) -> str:
    """Say whether correlations have depth in them, as everything that shows them does."""
    return "with depth" if depth else "depth removed"


def colour_limit(*correlations: FloatArray) -> float:
    """Return how far colours of (G, G) `correlations` reach to both sides of 0.

    To a percentile of the sizes, over pairs only since the diagonal is always 1; in steps of 0.01, at most 1.
    """
    pairs = [found[~np.eye(len(found), dtype=bool)] for found in correlations]
    sizes = np.abs(np.concatenate(pairs))
    sizes = sizes[np.isfinite(sizes)]
    reach = float(np.percentile(sizes, COLOUR_PERCENTILE)) if sizes.size else 1.0
    return min(max(float(np.ceil(100 * reach - 1e-9)) / 100, LEAST_LIMIT), 1.0)


def _structure(adata: "AnnData", extent: Extent, columns: Numbers) -> Steps[float]:
    """Return GSC of `columns` over the spots of `extent`: with depth, as it is defined."""
    if len(columns) > coexpression.MOST_GENES:
        return float("nan")
    guess = yield from _correlating(adata, PREDICTED, extent, columns, depth=True)
    truth = yield from _correlating(adata, MEASURED, extent, columns, depth=True)
    return gene_structure_correlation(guess.table(), truth.table(), truth.constant)


def _correlating(
    adata: "AnnData", source: str, extent: Extent, columns: Numbers, *, depth: bool
) -> Steps[GeneCorrelations]:
    """Correlate `columns` over the spots of `extent`, part by part; depth is the mean over its genes."""
    matrix, genes = matrix_of(adata, source), columns if depth else extent.genes
    found = GeneCorrelations(len(columns))
    stage = "Correlating genes" if source == PREDICTED else "Correlating genes of the truth"
    for part in spot_parts(len(extent.spots), len(genes)):
        yield Step(stage, part.start, len(extent.spots))
        values = Extent(extent.spots[part], genes).cut(matrix)
        found.add(values if depth else composition(values)[:, np.searchsorted(genes, columns)])
    yield Step(stage, len(extent.spots), len(extent.spots))
    return found


def compare_structures(
    truth: FloatArray, others: Mapping[str, FloatArray], *, depth: bool = True
) -> tuple[FloatArray, dict[str, tuple[FloatArray, float]]]:
    """Correlate genes in the truth and in several answers, all in the order of the truth's clustering.

    Parameters
    ----------
    truth
        (n, G) log2(count + 1); genes constant in it are left out.
    others
        Name → (n, G) of the same spots and genes.
    depth
        Leave each spot's mean over the genes in.

    Returns
    -------
    tuple
        (g, g) correlations of the truth; and name → (g, g) correlations and their GSC with the truth.
    """
    kept = ~constant_genes(truth)

    def correlations(values: FloatArray) -> FloatArray:
        return gene_correlations((values if depth else composition(values))[:, kept])

    true = correlations(truth)
    order = gene_order(true)
    here, none = np.ix_(order, order), np.zeros(len(order), bool)
    found = {}
    for name, values in others.items():
        other = correlations(values)
        found[name] = other[here], gene_structure_correlation(other, true, none)
    return true[here], found


def pick_unlike(adata: "AnnData", source: str, ranked: Numbers, count: int) -> list[int]:
    """Return the first `count` genes of a ranking that are unlike those before them.

    Parameters
    ----------
    adata
        A prediction.
    source
        Whose values are compared: `truth.PREDICTED` or `truth.MEASURED`.
    ranked
        (m,) int64 columns of `adata`, which the source has values of.
    count
        How many; where fewer are unlike each other, the first of the others fill up.
    """
    values = Extent(extent_of(adata, source).spots, ranked).cut(matrix_of(adata, source))
    among = gene_correlations(values)
    places: list[int] = []
    for place in range(len(ranked)):
        if len(places) < count and all(among[place, other] < ALIKE for other in places):
            places.append(place)
    places += [place for place in range(len(ranked)) if place not in places][: count - len(places)]
    return [int(ranked[place]) for place in places]


def sets_within(
    sets: Mapping[str, Sequence[str]], genes: Iterable[str]
) -> dict[str, tuple[tuple[str, ...], int]]:
    """Return the sets with at least two genes of a prediction: those genes, and how many there are in all."""
    known = set(genes)
    found = {name: (tuple(g for g in members if g in known), len(members)) for name, members in sets.items()}
    return {name: members for name, members in found.items() if len(members[0]) >= FEWEST}
