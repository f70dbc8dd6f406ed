"""How expression clusters in space: neighbour graphs, Moran's I, and SSC.

Graphs are (n, n) scipy CSR, row-standardised: each row sums to 1, or to 0 for a spot without
neighbours.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import cKDTree

from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.spots import Lattice
from napari_flag.statistics import significance
from napari_flag.statistics.accuracy import FloatArray, constant_genes, pearson

if TYPE_CHECKING:
    import pandas as pd

FIRST_RING: dict[str, tuple[tuple[int, int], ...]] = {
    "square": ((0, 1), (0, -1), (1, 0), (-1, 0)),
    "hex": ((0, 2), (0, -2), (1, 1), (1, -1), (-1, 1), (-1, -1)),
}
"""Steps in (array_row, array_col) to the first-ring neighbours; hex as Visium counts columns."""

ALIKE = 1e-5
"""Moran's I (or correlations) with a smaller range than this say nothing: rounding alone does it.

A one-factor prediction, stored in float32, has correlations within 1e-9 of 1; Pearson's r of such
a pattern with the truth comes out near .40 on her2st, all of it rounding.
"""

VALUES_AT_ONCE = 500_000
"""Values (spots × genes) worked on at once: 4 MB of float64, about what a cache holds."""
FEWEST_GENES_AT_ONCE = 16

TIES = 8
"""Extra candidates looked at so that equally near neighbours are chosen by place, not by order."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Which spots are neighbours, and how that was decided.

    Parameters
    ----------
    weights
        (n, n) CSR float64, row-standardised.
    description
        For reports: "4 first-ring neighbours on the square array".
    isolated
        Number of spots without any neighbour.
    """

    weights: sparse.csr_array
    description: str
    isolated: int


def array_graph(array: npt.NDArray[np.int64], lattice: Lattice) -> sparse.csr_array:
    """Connect first-ring neighbours of the array: 4 on a square one, 6 on a hexagonal one.

    Parameters
    ----------
    array
        (n, 2) integer (array_row, array_col), each position once.
    lattice
        "square" or "hex".
    """
    row_of = {(int(row), int(col)): i for i, (row, col) in enumerate(array)}
    if len(row_of) < len(array):
        raise ValueError("two spots share one array position")
    pairs = [
        (i, j)
        for (row, col), i in row_of.items()
        for down, right in FIRST_RING[lattice]
        if (j := row_of.get((row + down, col + right))) is not None
    ]
    return row_standardise(np.array(pairs, dtype=np.int64).reshape(-1, 2), len(array))


def nearest_graph(xy: FloatArray, k: int) -> sparse.csr_array:
    """Connect each spot to its `k` nearest others (all others if there are fewer).

    Directed: being someone's nearest is not mutual.  Equally near spots are taken from top to
    bottom and left to right, so the graph does not depend on the order of the spots.

    Parameters
    ----------
    xy
        (n, 2) spot centres, any unit.
    """
    n = len(xy)
    k = min(k, n - 1)
    if k < 1:
        return row_standardise(np.zeros((0, 2), dtype=np.int64), n)
    distance, index = cKDTree(xy).query(xy, k=min(n, k + 1 + TIES))
    distance = np.where(index == np.arange(n)[:, None], np.inf, distance)
    near = np.round(distance / max(float(np.abs(xy).max()), 1.0), 9)
    order = np.lexsort((xy[index, 0], xy[index, 1], near), axis=-1)[:, :k]
    columns = np.take_along_axis(index, order, axis=1).ravel()
    pairs = np.column_stack([np.repeat(np.arange(n), k), columns])
    return row_standardise(pairs, n)


def row_standardise(pairs: npt.NDArray[np.int64], n: int) -> sparse.csr_array:
    """Turn (m, 2) directed pairs of spots into weights whose rows sum to 1 (0 where isolated)."""
    degree = np.bincount(pairs[:, 0], minlength=n)
    weights = 1.0 / degree[pairs[:, 0]]
    return sparse.csr_array((weights, (pairs[:, 0], pairs[:, 1])), shape=(n, n))


def find_neighbours(xy: FloatArray, array: npt.NDArray[np.int64] | None, lattice: Lattice) -> Neighbours:
    """Choose the graph of `evaluation.md`: the array's first ring where known, else the nearest.

    Parameters
    ----------
    xy
        (n, 2) spot centres in level-0 pixels.
    array
        (n, 2) (array_row, array_col), or None.
    lattice
        As the spots state it; "none" with a known array is settled by `lattice_of`.
    """
    reason = ""
    if array is not None:
        ring: Lattice = lattice_of(array) if lattice == "none" else lattice
        if len(np.unique(array, axis=0)) < len(array):
            reason = ", because array positions repeat"
        else:
            weights = array_graph(array, ring)
            if weights.nnz:
                return _neighbours(
                    weights, f"{len(FIRST_RING[ring])} first-ring neighbours on the {ring} array"
                )
            reason = ", because no two spots touch on the array"
    k = 6 if lattice == "hex" else 4
    return _neighbours(nearest_graph(xy, k), f"{min(k, len(xy) - 1)} nearest spots{reason}")


def _neighbours(weights: sparse.csr_array, description: str) -> Neighbours:
    return Neighbours(weights, description, int((np.diff(weights.indptr) == 0).sum()))


def moran_i(values: npt.NDArray[Any], weights: sparse.csr_array) -> FloatArray:
    """Return (G,) Moran's I of every gene with one sparse product.

    ``I = (n / S0) · z'Wz / z'z`` with z centred on the gene's mean and S0 the sum of the weights
    (Moran 1950).  A constant gene gets the expectation under no autocorrelation, −1 / (n − 1).

    Parameters
    ----------
    values
        (n, G), any unit.
    weights
        (n, n) CSR; row-standardised for the reports.
    """
    n = len(values)
    total = float(weights.sum())
    silent = constant_genes(values)
    if total == 0.0:
        return np.full(values.shape[1], np.nan)
    z = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    spread = (z * z).sum(axis=0)
    spread[silent] = 1.0
    moran: FloatArray = n / total * (z * (weights @ z)).sum(axis=0) / spread
    moran[silent] = -1.0 / (n - 1)
    return moran


def spatial_structure_correlation(
    moran_predicted: FloatArray, moran_measured: FloatArray, left_out: npt.NDArray[np.bool_]
) -> float:
    """Return SSC: Pearson's r across genes of Moran's I, predicted against measured.

    Parameters
    ----------
    moran_predicted, moran_measured
        (G,) of the same spots on the same graph.
    left_out
        (G,) bool, genes constant in truth.

    Returns
    -------
    float
        NaN below 3 genes; 0 where all predicted genes cluster alike (a one-factor prediction).
    """
    keep = ~left_out
    if keep.sum() < 3:
        return float("nan")
    return pearson(moran_predicted[keep], moran_measured[keep], tolerance=ALIKE)


def moran_test(
    values: Any, weights: sparse.csr_array, *, permutations: int = 0, seed: int = 0
) -> Steps["pd.DataFrame"]:
    """Test every gene for clustering in space: Moran's I larger than by chance (one-sided).

    Parameters
    ----------
    values
        (n, G) array or scipy sparse matrix, any unit; `VALUES_AT_ONCE` are widened at a time.
    weights
        (n, n) CSR; row-standardised for the reports.
    permutations
        Times the spots are shuffled, all genes alike; 0 leaves `p_permuted` out.
    seed
        Of the permutations.

    Returns
    -------
    DataFrame
        One row per gene in the order given: I; expected_I; variance and z under normality, as esda's
        `VI_norm` and squidpy's `var_norm`; p, the upper tail of z; variance_dealt and p_dealt, the same
        for the gene's own values dealt out at random (esda's `VI_rand`); p_permuted, (1 + permutations
        that reach I) / (1 + permutations); q, Benjamini–Hochberg over genes of p_permuted where there is
        one, else of p.  A constant gene has p = 1; without any neighbours all but expected_I is NaN.

    Raises
    ------
    UserError
        Below `significance.FEWEST_SPOTS` spots.
    """
    import pandas as pd

    n, genes = values.shape
    if n < significance.FEWEST_SPOTS:
        raise UserError(
            f"Moran's I cannot be tested on {n} spots; choose at least {significance.FEWEST_SPOTS}."
        )
    if sparse.issparse(values):
        values = values.tocsc()
    graph = significance.TestGraph.of(weights)
    parts: list[dict[str, FloatArray]] = []
    width = max(FEWEST_GENES_AT_ONCE, VALUES_AT_ONCE // n)
    width = -(-genes // max(1, -(-genes // width))) or 1  # as many blocks, of one size
    for start in range(0, max(genes, 1), width):
        block = values[:, start : start + width]
        yield Step("Testing Moran's I", start, genes, "genes")
        z, columns = graph.analytic(block.toarray() if sparse.issparse(block) else block)
        if permutations:

            def sign(done: int, start: int = start, many: int = z.shape[1]) -> Step:
                return Step("Testing Moran's I", start + many * done // permutations, genes, "genes")

            columns["p_permuted"] = yield from graph.permuted(z, columns, permutations, seed, sign)
        parts.append(columns)
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table["q"] = significance.q_values(table["p_permuted" if permutations else "p"])
    return pd.DataFrame(table)
