"""Neighbour graphs of spots: the array where it is known, distances where it is not."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.spots import Lattice
from napari_flag.statistics.accuracy import FloatArray

if TYPE_CHECKING:
    from scipy import sparse

TIES = 8
"""Extra candidates considered so that equally near neighbours are chosen by place, not by order."""

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

    weights: "sparse.csr_array"
    description: str
    isolated: int


def array_graph(array: npt.NDArray[np.int64], lattice: Lattice) -> "sparse.csr_array":
    """Connect first-ring neighbours of the array: 4 on a square one, 6 on a hexagonal one.

    Parameters
    ----------
    array
        (n, 2) integer (array_row, array_col), each position once.
    lattice
        "square" or "hex".
    """
    steps = FIRST_RING[lattice]
    code, width = _position_codes(array)
    order = np.argsort(code, kind="stable")
    ordered = code[order]
    if np.any(ordered[1:] == ordered[:-1]):
        raise ValueError("two spots share one array position")
    pairs = []
    for down, right in steps:
        wanted = code + down * width + right
        at = np.minimum(np.searchsorted(ordered, wanted), max(len(ordered) - 1, 0))
        here = np.flatnonzero(ordered[at] == wanted) if len(ordered) else at
        pairs.append(np.column_stack([here, order[at[here]]]))
    return row_standardise(np.concatenate(pairs), len(array))


def _position_codes(array: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
    """Return one number per array position, and how much it grows by a row; a column is 1.

    No step of `FIRST_RING` from a position leads to the number of one that lies elsewhere.
    """
    reach = 2
    place = np.asarray(array, np.int64) - array.min(axis=0, initial=0) + reach
    width = int(place[:, 1].max(initial=0)) + reach + 1
    return place[:, 0] * width + place[:, 1], width


def nearest_graph(xy: FloatArray, k: int) -> "sparse.csr_array":
    """Connect each spot to its `k` nearest others (all others if there are fewer).

    Directed: being someone's nearest is not mutual.  Equally near spots are taken from top to
    bottom and left to right, so the graph does not depend on the order of the spots.

    Parameters
    ----------
    xy
        (n, 2) spot centres, any unit.
    """
    from scipy.spatial import cKDTree

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


def row_standardise(pairs: npt.NDArray[np.int64], n: int) -> "sparse.csr_array":
    """Turn (m, 2) directed pairs of spots into weights whose rows sum to 1 (0 where isolated)."""
    from scipy import sparse

    degree = np.bincount(pairs[:, 0], minlength=n)
    weights = 1.0 / degree[pairs[:, 0]]
    return sparse.csr_array((weights, (pairs[:, 0], pairs[:, 1])), shape=(n, n))


def find_neighbours(xy: FloatArray, array: npt.NDArray[np.int64] | None, lattice: Lattice) -> Neighbours:
    """Choose the neighbour graph: the array's first ring where known, else the nearest spots.

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
        if len(np.unique(_position_codes(array)[0])) < len(array):
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


def _neighbours(weights: "sparse.csr_array", description: str) -> Neighbours:
    return Neighbours(weights, description, int((np.diff(weights.indptr) == 0).sum()))
