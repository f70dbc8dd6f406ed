"""Co-expression: gene–gene correlations over spots, their ordering, and GSC."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from napari_flag.statistics.accuracy import BoolArray, FloatArray, constant_genes, pearson
from napari_flag.statistics.neighbours import ALIKE

MOST_GENES = 6000
"""GSC needs tables of all pairs of genes, 290 MB each at this number; above it GSC is NaN everywhere."""
MOST_OPTIMAL = 1000
"""Genes up to which leaves are turned optimally; its cost grows with the cube of their number."""


def gene_correlations(values: npt.NDArray[Any]) -> FloatArray:
    """Return the (G, G) Pearson correlations between genes across the spots of one slide.

    A constant gene correlates 0 with every other; the diagonal is 1.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    """
    z = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    constant = constant_genes(values)
    length = np.sqrt((z * z).sum(axis=0))
    length[constant] = 1.0
    z /= length
    z[:, constant] = 0.0
    correlations: FloatArray = np.clip(z.T @ z, -1.0, 1.0)
    np.fill_diagonal(correlations, 1.0)
    return correlations


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
