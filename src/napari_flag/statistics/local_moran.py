"""Local Moran's I of every spot, its quadrant, and p-values by conditional permutation.

Anselin (1995), *Local indicators of spatial association*, with conditional permutations: a spot keeps its own
value while its neighbours' are drawn from all the other spots.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import FloatArray, constant_genes
from napari_flag.statistics.moran import FEWEST_SPOTS
from napari_flag.statistics.multiple_testing import q_values

if TYPE_CHECKING:
    from scipy import sparse

CLASSES: Final = ("NS", "HH", "LH", "LL", "HL")
"""Name of each class: not significant, then Moran's quadrants as esda numbers them.

HH is a high spot among high ones, LH a low one among high, LL low among low, HL high among low."""

DRAWS_AT_ONCE: Final = 2_000_000
"""(spots × permutations) held at once, 16 MB of float64."""


@dataclass(frozen=True, slots=True)
class LocalMoran:
    """Local Moran's I of one gene in every spot.

    Parameters
    ----------
    I
        (n,) float64; their sum over (n − 1) is Moran's I on a row-standardised graph without isolated spots.
    p, q
        (n,) two-sided permutation p-values, and Benjamini–Hochberg's over the spots.
    quadrants
        (n,) int8, 1–4 as in `CLASSES`, whether significant or not.
    classes
        (n,) int8, the quadrant where p ≤ level, else 0: esda's and GeoDa's map, in which a share `level` of
        all spots is expected by chance alone.
    certain
        (n,) bool, where q ≤ level.  On sections of a few hundred spots hardly any measured gene has such.
    """

    I: FloatArray  # noqa: E741
    p: FloatArray
    q: FloatArray
    quadrants: npt.NDArray[np.int8]
    classes: npt.NDArray[np.int8]
    certain: npt.NDArray[np.bool_]


def local_moran(
    values: npt.NDArray[Any],
    weights: "sparse.csr_array",
    *,
    permutations: int = 999,
    seed: int = 0,
    level: float = 0.05,
) -> Steps[LocalMoran]:
    """Find where one gene clusters.

    ``I_i = (n − 1) · z_i · (Wz)_i / z'z``, as esda defines it.  p is twice the smaller tail: 2 (1 + k) /
    (1 + permutations) with k the permutations at least as high, or at least as low, as the neighbours seen,
    at most 1.  A spot without neighbours, and every spot of a constant gene, has p = 1.

    Parameters
    ----------
    values
        (n,) of one gene, any unit.
    weights
        (n, n) CSR; row-standardised for the reports.
    permutations
        Conditional draws of neighbours, shared by all spots.
    seed
        Of the draws.
    level
        Largest p of a spot that shows its class, and largest q of a certain one.

    Raises
    ------
    UserError
        Below 4 spots.
    """
    n = len(values)
    if n < FEWEST_SPOTS:
        raise UserError(f"Local Moran's I needs at least {FEWEST_SPOTS} spots, not {n}; choose more spots.")
    z = values.astype(np.float64) - values.mean(dtype=np.float64)
    squared = float(z @ z)
    if constant_genes(values[:, None])[0]:
        z, squared = np.zeros(n), 1.0
    lag = np.asarray(weights @ z).ravel()
    degree = np.diff(weights.indptr)
    rng = np.random.default_rng(seed)
    draws = draw_others(n, int(degree.max(initial=0)), permutations, rng)
    extreme = np.full(n, permutations, dtype=np.int64)
    if z.any():
        for rows in _batches(degree, permutations):
            yield Step("Permuting neighbours", int(rows[0]), n)
            extreme[rows] = count_extreme(z, weights, rows, lag[rows], draws)
    p = np.minimum(2.0 * (extreme + 1) / (permutations + 1), 1.0)
    q = q_values(p)
    quadrants = np.select([(z > 0) & (lag > 0), lag > 0, z <= 0], [1, 2, 3], 4).astype(np.int8)
    classes = np.where(p <= level, quadrants, 0).astype(np.int8)
    return LocalMoran((n - 1) * z * lag / squared, p, q, quadrants, classes, q <= level)


def local_values(values: npt.NDArray[Any], weights: "sparse.csr_array") -> FloatArray:
    """Return `LocalMoran.I` alone, without the test: (n,) float64, 0 everywhere for a constant gene.

    Parameters
    ----------
    values
        (n,) of one gene, any unit.
    weights
        (n, n) CSR, as in `local_moran`.
    """
    z = values.astype(np.float64) - values.mean(dtype=np.float64)
    if constant_genes(values[:, None])[0]:
        return np.zeros(len(z))
    lag = np.asarray(weights @ z).ravel()
    found: FloatArray = (len(z) - 1) * z * lag / float(z @ z)
    return found


def draw_others(n: int, size: int, permutations: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return (permutations, size) places among the n − 1 other spots, none twice in one permutation."""
    if permutations == 0:
        return np.zeros((0, size), dtype=np.int64)
    return np.stack([rng.choice(n - 1, size=size, replace=False) for _ in range(permutations)])


def count_extreme(
    z: FloatArray,
    weights: "sparse.csr_array",
    rows: npt.NDArray[np.int64],
    lag: FloatArray,
    draws: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Count, for spots of one degree, the draws in the smaller tail of their neighbours' weighted sum.

    Parameters
    ----------
    z
        (n,) centred values.
    weights
        (n, n) CSR.
    rows
        (m,) spots with the same number of neighbours.
    lag
        (m,) their neighbours' weighted sum as it is.
    draws
        (permutations, k) from `draw_others`, at least that many columns.
    """
    degree = int(weights.indptr[rows[0] + 1] - weights.indptr[rows[0]])
    if degree == 0:
        return np.full(len(rows), len(draws), dtype=np.int64)
    own = weights.data[weights.indptr[rows][:, None] + np.arange(degree)]
    drawn = np.zeros((len(rows), len(draws)))
    for k in range(degree):
        others = draws[None, :, k] + (draws[None, :, k] >= rows[:, None])
        drawn += own[:, k, None] * z[others]
    tolerance = 1e-9 * float(np.abs(z).max())
    high = (drawn >= lag[:, None] - tolerance).sum(axis=1)
    low = (drawn <= lag[:, None] + tolerance).sum(axis=1)
    smaller: npt.NDArray[np.int64] = np.minimum(high, low)
    return smaller


def _batches(degree: npt.NDArray[np.int64], permutations: int) -> Iterator[npt.NDArray[np.int64]]:
    """Cut the spots into batches of one degree that fit `DRAWS_AT_ONCE`."""
    for size in np.unique(degree):
        rows = np.flatnonzero(degree == size)
        step = max(1, DRAWS_AT_ONCE // max(1, permutations))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]
