"""How unlikely Moran's I is by chance: its moments without autocorrelation, permutations, q-values.

Moments are those of Cliff & Ord, *Spatial Processes* (1981), ch. 1.5, under two assumptions: values drawn
independently from one normal distribution, or the values at hand dealt out at random.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import ndtr
from scipy.stats import false_discovery_control

from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import ROUNDING, FloatArray, constant_genes

FEWEST_SPOTS = 4
"""The variance under random dealing has n − 3 in its denominator."""
TIE = 1e-3
"""Permuted values this many null standard deviations below the observed one still count as equal.

They are computed in float32; a gene found in one spot has the same Moran's I wherever that spot lies."""
NO_VARIANCE = 1e-9
"""Share of the normal variance below which dealing out a gene's values leaves Moran's I as it is."""
LEAST_VARIANCE = 1e-2
"""Share of the normal variance that `TIE` is counted in at least, above float32's rounding."""
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
    def of(cls, both: sparse.csr_array) -> "Null":
        """Sum up an (n, n) graph, given W + W'."""
        ends = np.asarray(both.sum(axis=1)).ravel()
        s1 = float(both.data @ both.data) / 2.0
        return cls(both.shape[0], float(ends.sum()) / 2.0, s1, float(ends @ ends))

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


@dataclass(frozen=True, slots=True)
class TestGraph:
    """A graph prepared for testing many genes.

    Parameters
    ----------
    null
        Moments of Moran's I on it.
    half
        (n, n) U with z'Uz = z'Wz and each pair of neighbours once: half the work where they are mutual.
    """

    null: Null
    half: sparse.csr_array

    @classmethod
    def of(cls, weights: sparse.csr_array) -> "TestGraph":
        """Prepare (n, n) weights."""
        both = sparse.csr_array(weights + weights.T)
        null = Null.of(both)
        row = np.repeat(np.arange(null.n), np.diff(both.indptr))
        once = both.indices >= row
        share = np.where(both.indices == row, 0.5, 1.0)[once]  # W + W' has the diagonal twice
        starts = np.concatenate([[0], np.cumsum(np.bincount(row[once], minlength=null.n))])
        columns = both.indices[once].astype(np.int32)
        parts = (both.data[once] * share, columns, starts.astype(np.int32))
        return cls(null, sparse.csr_array(parts, shape=both.shape))

    def analytic(self, values: npt.NDArray[Any]) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Return (n, g) centred values, 0 for constant genes, and the analytic columns of `moran_test`."""
        null = self.null
        z = values.astype(np.float64)
        every = np.ones(null.n)  # sums over spots are products with it: BLAS is faster than a reduction
        mean = every @ z / null.n
        z -= mean
        square = z * z
        squared = every @ square
        silent = squared <= null.n * (2.0 * ROUNDING * np.maximum(np.abs(mean), 1.0)) ** 2
        silent[silent] = constant_genes(values[:, silent]) if silent.any() else False
        squared[silent] = 1.0
        z[:, silent] = 0.0
        if null.s0 == 0.0:
            return z, _no_neighbours(z.shape[1], null.expected)
        product = self.half @ z
        product *= z
        moran = every @ product * (null.n / null.s0 / squared)
        moran[silent] = null.expected
        square *= square
        kurtosis = every @ square * null.n / squared**2
        normal = np.full(z.shape[1], null.variance_if_normal())
        dealt = null.variance_if_dealt(kurtosis)
        dealt[silent] = normal[silent]
        alike = dealt <= NO_VARIANCE * normal
        dealt[alike] = 0.0
        above = moran - null.expected
        score = above / np.sqrt(normal)
        p, p_dealt = ndtr(-score), ndtr(-above / np.sqrt(np.where(alike, 1.0, dealt)))
        p_dealt[alike] = 1.0
        p[silent] = p_dealt[silent] = 1.0
        return z, {
            "I": moran,
            "expected_I": np.full(z.shape[1], null.expected),
            "variance": normal,
            "z": score,
            "p": p,
            "variance_dealt": dealt,
            "p_dealt": p_dealt,
        }

    def permuted(
        self,
        z: FloatArray,
        columns: dict[str, FloatArray],
        permutations: int,
        seed: int,
        sign: Callable[[int], Step],
    ) -> Steps[FloatArray]:
        """Return (g,) permutation p-values of what `analytic` returned; `sign` as for `count_as_large`."""
        if self.null.s0 == 0.0:
            return columns["p"]
        size = np.sqrt(np.einsum("ig,ig->g", z, z) / self.null.n)
        silent = size == 0.0
        size[silent] = 1.0
        least = LEAST_VARIANCE * columns["variance"]
        enough = self.null.s0 * (columns["I"] - TIE * np.sqrt(np.maximum(columns["variance_dealt"], least)))
        reached = yield from count_as_large(
            (z / size).astype(np.float32), self.half.astype(np.float32), enough, permutations, seed, sign
        )
        p: FloatArray = (reached + 1) / (permutations + 1)
        p[silent] = 1.0
        return p


def _no_neighbours(genes: int, expected: float) -> dict[str, FloatArray]:
    unknown = np.full(genes, np.nan)
    names = ("I", "expected_I", "variance", "z", "p", "variance_dealt", "p_dealt")
    return dict.fromkeys(names, unknown) | {"expected_I": np.full(genes, expected)}


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
        (n, n) float32, `TestGraph.half`.
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
    dealt, every = np.empty_like(z), np.ones(len(z), dtype=z.dtype)
    for done in range(permutations):
        if done % PERMUTATIONS_PER_SIGN == 0:
            yield sign(done)
        np.take(z, rng.permutation(len(z)), axis=0, out=dealt, mode="clip")  # "raise" would copy once more
        product = half @ dealt
        product *= dealt
        reached += every @ product >= enough
    return reached
