"""Co-expression: gene–gene correlations over spots, their ordering, and GSC."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.statistics.accuracy import BoolArray, FloatArray, constant_genes, pearson
from napari_flag.statistics.neighbours import ALIKE

MOST_GENES = 6000
"""GSC needs tables of all pairs of genes, 290 MB each at this number; above it GSC is NaN everywhere."""
MOST_OPTIMAL = 1000
"""Genes up to which leaves are turned optimally; its cost grows with the cube of their number."""

NUMBERS_AT_ONCE: Final = 2**22
"""Values of spots × genes taken at a time: 32 MB."""


class GeneCorrelations:
    """Pearson correlations between genes, of spots that come part by part, so that memory is bounded.

    Parameters
    ----------
    genes
        G, how many.
    """

    def __init__(self, genes: int) -> None:
        self._spots = 0
        self._shift = np.zeros(genes)
        self._sums = np.zeros(genes)
        self._products = np.zeros((genes, genes))
        self._low, self._high = np.full(genes, np.inf), np.full(genes, -np.inf)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Add (m, G) log2(count + 1) of further spots."""
        if len(values) == 0:
            return
        wide = values.astype(np.float64)
        np.minimum(self._low, wide.min(axis=0), out=self._low)
        np.maximum(self._high, wide.max(axis=0), out=self._high)
        if self._spots == 0:  # near the mean, so that nothing is lost when the rest of it is taken off
            self._shift = wide.mean(axis=0)
        wide -= self._shift
        self._spots += len(wide)
        self._sums += wide.sum(axis=0)
        self._products += wide.T @ wide

    @property
    def constant(self) -> BoolArray:
        """(G,) bool, as `constant_genes` of all spots together."""
        return constant_genes(np.stack([self._low, self._high]))

    def table(self) -> FloatArray:
        """Return the (G, G) correlations, as `gene_correlations` of all spots together."""
        products = self._products - np.outer(self._sums, self._sums / max(self._spots, 1))
        length = np.sqrt(np.clip(np.diag(products), 0.0, None))
        silent = self.constant
        length[silent] = 1.0
        products /= length[:, None]
        products /= length
        products[silent] = 0.0
        products[:, silent] = 0.0
        correlations: FloatArray = np.clip(products, -1.0, 1.0, out=products)
        np.fill_diagonal(correlations, 1.0)
        return correlations


def spot_parts(spots: int, genes: int) -> Iterator[slice]:
    """Cut spots into parts of `NUMBERS_AT_ONCE` values, which bounds memory and the time of a part."""
    rows = max(NUMBERS_AT_ONCE // max(genes, 1), 1)
    for start in range(0, spots, rows):
        yield slice(start, min(start + rows, spots))


def gene_correlations(values: npt.NDArray[Any]) -> FloatArray:
    """Return the (G, G) Pearson correlations between genes across the spots of one slide.

    A constant gene correlates 0 with every other; the diagonal is 1.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    """
    found = GeneCorrelations(values.shape[1])
    for part in spot_parts(*values.shape):
        found.add(values[part])
    return found.table()


def correlations_for_gsc(values: npt.NDArray[Any]) -> FloatArray:
    """Return `gene_correlations` up to `MOST_GENES` genes, an empty (0, 0) table above."""
    return gene_correlations(values[:, : len(values.T) if len(values.T) <= MOST_GENES else 0])


def gene_order(correlations: FloatArray) -> npt.NDArray[np.int64]:
    """Order genes so that correlated ones are adjacent in a heat map.

    Average linkage on 1 − r, leaves turned so that neighbours are as alike as the tree allows (Bar-Joseph
    et al. 2001) up to `MOST_OPTIMAL` genes; above that in the tree's own order.

    Parameters
    ----------
    correlations
        (G, G) from `gene_correlations`.

    Returns
    -------
    array
        (G,) int64, the genes from first to last.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(correlations) < 3:
        return np.arange(len(correlations))
    distance = squareform(np.clip(1.0 - correlations, 0.0, 2.0), checks=False)
    tree = linkage(distance, method="average")
    if len(correlations) <= MOST_OPTIMAL:
        tree = optimal_leaf_ordering(tree, distance)
    return np.asarray(leaves_list(tree), dtype=np.int64)


def upper_triangle(matrix: FloatArray) -> FloatArray:
    """Return the (G (G − 1) / 2,) entries above the diagonal: each pair of genes once."""
    return matrix[np.triu_indices(len(matrix), k=1)]


def gene_structure_correlation(
    correlations_predicted: FloatArray, correlations_measured: FloatArray, left_out: BoolArray
) -> float:
    """Return GSC: Pearson's r over pairs of genes of their correlation, predicted against measured.

    Parameters
    ----------
    correlations_predicted, correlations_measured
        (G, G) from `gene_correlations`, over the same spots.
    left_out
        (G,) bool, genes constant in truth.

    Returns
    -------
    float
        NaN below 3 genes and where there are no correlations (above `MOST_GENES`).  0 where all predicted
        genes rise and fall as one: their correlations are then all 1, and what differs between them is
        rounding.
    """
    keep = np.flatnonzero(~left_out)
    if len(keep) < 3 or len(correlations_predicted) < len(left_out):
        return float("nan")
    chosen = np.ix_(keep, keep)
    return pearson(
        upper_triangle(correlations_predicted[chosen]),
        upper_triangle(correlations_measured[chosen]),
        tolerance=ALIKE,
    )
