"""How unlikely Moran's I is by chance: its moments without autocorrelation, permutations, q-values.

Moments are those of Cliff & Ord, *Spatial Processes* (1981), ch. 1.5, under two assumptions: values drawn
independently from one normal distribution, or the values at hand dealt out at random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.stats import false_discovery_control

from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import FloatArray

FEWEST_SPOTS = 4
"""The variance under random dealing has n − 3 in its denominator."""
TIE = 1e-3
"""Permuted values this many null standard deviations below the observed one still count as equal.

They are computed in float32; a gene found in one spot has the same Moran's I wherever that spot lies."""
PERMUTATIONS_PER_SIGN = 20
"""Permutations between two signs of life, tens of milliseconds."""


def q_values(p: FloatArray) -> FloatArray:
    """Return Benjamini & Hochberg's (1995) adjusted p-values; NaN stays NaN and is not counted.

    Parameters
    ----------
    p
        (m,) p-values.
    """
    q = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q


@dataclass(frozen=True, slots=True)
class Null:
    """Moments of Moran's I of n values without autocorrelation, on one graph.

    Parameters
    ----------
    n
        Number of spots.
    s0, s1, s2
        Cliff & Ord's sums of the weights.
    """

    n: int
    s0: float
    s1: float
    s2: float

    @classmethod
    def of(cls, weights: sparse.csr_array) -> "Null":
        """Sum up an (n, n) graph."""
        both = weights + weights.T
        ends = np.asarray(weights.sum(axis=1)).ravel() + np.asarray(weights.sum(axis=0)).ravel()
        s1 = float((both.data * both.data).sum()) / 2.0
        return cls(weights.shape[0], float(weights.sum()), s1, float(ends @ ends))

    @property
    def expected(self) -> float:
        """Expectation of Moran's I, −1 / (n − 1)."""
        return -1.0 / (self.n - 1)

    def variance_if_normal(self) -> float:
        """Return the variance for normal values, the same for every gene."""
        n, total = self.n, self.s0 * self.s0
        above = n * n * self.s1 - n * self.s2 + 3.0 * total
        return float(above / ((n - 1) * (n + 1) * total) - self.expected**2)

    def variance_if_dealt(self, kurtosis: FloatArray) -> FloatArray:
        """Return (G,) variances over all ways of dealing out the values.

        Parameters
        ----------
        kurtosis
            (G,) fourth central moment ÷ squared variance of each gene.
        """
        n, total = self.n, self.s0 * self.s0
        even = n * ((n * n - 3 * n + 3) * self.s1 - n * self.s2 + 3.0 * total)
        tails = kurtosis * ((n * n - n) * self.s1 - 2 * n * self.s2 + 6.0 * total)
        variance: FloatArray = (even - tails) / ((n - 1) * (n - 2) * (n - 3) * total) - self.expected**2
        return variance


def upper_half(weights: sparse.csr_array) -> sparse.csr_array:
    """Return U with z'Uz = z'Wz and each pair of neighbours once: half the work where they are mutual."""
    once = sparse.triu(weights + weights.T, k=1) + sparse.diags_array(weights.diagonal())
    half = sparse.csr_array(once)
    half.eliminate_zeros()
    return half


def count_as_large(
    z: npt.NDArray[np.float32],
    half: sparse.csr_array,
    enough: FloatArray,
    permutations: int,
    seed: int,
    sign: Callable[[int], Step],
) -> Steps[npt.NDArray[np.int64]]:
    """Count, gene by gene, the permutations of the spots whose z'Wz is large enough.

    All genes of a permutation move together, as squidpy's do; unlike squidpy's, both ends of an edge are
    moved (Cliff & Ord), so that the neighbours' means are not those of the tissue.

    Parameters
    ----------
    z
        (n, G) centred values.
    half
        (n, n) float32 from `upper_half`.
    enough
        (G,) what must be reached: the observed z'Wz, less what rounding may take.
    permutations, seed
        How many, and of which `default_rng`: the same for every block of genes.
    sign
        Turns the number of permutations done into the step to yield.

    Returns
    -------
    array
        (G,) int64.
    """
    rng = np.random.default_rng(seed)
    reached = np.zeros(z.shape[1], dtype=np.int64)
    for done in range(permutations):
        if done % PERMUTATIONS_PER_SIGN == 0:
            yield sign(done)
        dealt = z[rng.permutation(len(z))]
        reached += np.einsum("ig,ig->g", dealt, half @ dealt) >= enough
    return reached
