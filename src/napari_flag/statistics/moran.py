"""Moran's I of every gene with p-values, and SSC, its agreement between two sources.

Moments are those of Cliff & Ord, *Spatial Processes* (1981), ch. 1.5, under two assumptions: values drawn
independently from one normal distribution, or random permutations of the values at hand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import ROUNDING, FloatArray, constant_genes, pearson
from napari_flag.statistics.multiple_testing import q_values
from napari_flag.statistics.neighbours import ALIKE

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse


FEWEST_SPOTS = 4
"""The variance under random permutation has n − 3 in its denominator."""
TIE = 1e-3
"""Permuted values this many null standard deviations below the observed one still count as equal.

They are computed in float32; a gene found in one spot has the same Moran's I wherever that spot lies."""
NO_VARIANCE = 1e-9
"""Share of the normal variance below which permuting a gene's values leaves Moran's I as it is."""
LEAST_VARIANCE = 1e-2
"""Share of the normal variance that `TIE` is counted in at least, above float32's rounding."""
PERMUTATIONS_PER_STEP = 20
"""Permutations between two progress steps, tens of milliseconds."""


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
    def of(cls, both: "sparse.csr_array") -> "Null":
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

    def variance_under_permutation(self, kurtosis: FloatArray) -> FloatArray:
        """Return (G,) variances over all permutations of the values.

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
    half: "sparse.csr_array"

    @classmethod
    def of(cls, weights: "sparse.csr_array") -> "TestGraph":
        """Prepare (n, n) weights."""
        from scipy import sparse

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
        from scipy.special import ndtr

        null = self.null
        z = values.astype(np.float64)
        every = np.ones(null.n)  # sums over spots are products with it: BLAS is faster than a reduction
        mean = every @ z / null.n
        z -= mean
        square = z * z
        squared = every @ square
        constant = squared <= null.n * (2.0 * ROUNDING * np.maximum(np.abs(mean), 1.0)) ** 2
        constant[constant] = constant_genes(values[:, constant]) if constant.any() else False
        squared[constant] = 1.0
        z[:, constant] = 0.0
        if null.s0 == 0.0:
            return z, _no_neighbours(z.shape[1], null.expected)
        product = self.half @ z
        product *= z
        moran = every @ product * (null.n / null.s0 / squared)
        moran[constant] = null.expected
        square *= square
        kurtosis = every @ square * null.n / squared**2
        normal = np.full(z.shape[1], null.variance_if_normal())
        permuted = null.variance_under_permutation(kurtosis)
        permuted[constant] = normal[constant]
        alike = permuted <= NO_VARIANCE * normal
        permuted[alike] = 0.0
        above = moran - null.expected
        score = above / np.sqrt(normal)
        p, p_dealt = ndtr(-score), ndtr(-above / np.sqrt(np.where(alike, 1.0, permuted)))
        p_dealt[alike] = 1.0
        p[constant] = p_dealt[constant] = 1.0
        return z, {
            "I": moran,
            "expected_I": np.full(z.shape[1], null.expected),
            "variance": normal,
            "z": score,
            "p": p,
            "variance_dealt": permuted,
            "p_dealt": p_dealt,
        }

    def permuted(
        self,
        z: FloatArray,
        columns: dict[str, FloatArray],
        permutations: int,
        seed: int,
        step_at: Callable[[int], Step],
    ) -> Steps[FloatArray]:
        """Return (g,) permutation p-values of what `analytic` returned; `step_at` as for `count_as_large`."""
        if self.null.s0 == 0.0:
            return columns["p"]
        size = np.sqrt(np.einsum("ig,ig->g", z, z) / self.null.n)
        constant = size == 0.0
        size[constant] = 1.0
        least = LEAST_VARIANCE * columns["variance"]
        enough = self.null.s0 * (columns["I"] - TIE * np.sqrt(np.maximum(columns["variance_dealt"], least)))
        reached = yield from count_as_large(
            (z / size).astype(np.float32), self.half.astype(np.float32), enough, permutations, seed, step_at
        )
        p: FloatArray = (reached + 1) / (permutations + 1)
        p[constant] = 1.0
        return p


def _no_neighbours(genes: int, expected: float) -> dict[str, FloatArray]:
    unknown = np.full(genes, np.nan)
    names = ("I", "expected_I", "variance", "z", "p", "variance_dealt", "p_dealt")
    return dict.fromkeys(names, unknown) | {"expected_I": np.full(genes, expected)}


def count_as_large(
    z: npt.NDArray[np.float32],
    half: "sparse.csr_array",
    enough: FloatArray,
    permutations: int,
    seed: int,
    step_at: Callable[[int], Step],
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
    step_at
        Turns the number of permutations done into the step to yield.

    Returns
    -------
    array
        (G,) int64.
    """
    rng = np.random.default_rng(seed)
    reached = np.zeros(z.shape[1], dtype=np.int64)
    permuted, every = np.empty_like(z), np.ones(len(z), dtype=z.dtype)
    for done in range(permutations):
        if done % PERMUTATIONS_PER_STEP == 0:
            yield step_at(done)
        np.take(z, rng.permutation(len(z)), axis=0, out=permuted, mode="clip")  # "raise" would copy once more
        product = half @ permuted
        product *= permuted
        reached += every @ product >= enough
    return reached


VALUES_AT_ONCE = 500_000
"""Values (spots × genes) worked on at once: 4 MB of float64, about what a cache holds."""
FEWEST_GENES_AT_ONCE = 16


def moran_i(values: npt.NDArray[Any], weights: "sparse.csr_array") -> FloatArray:
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
    constant = constant_genes(values)
    if total == 0.0:
        return np.full(values.shape[1], np.nan)
    z = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    spread = (z * z).sum(axis=0)
    spread[constant] = 1.0
    moran: FloatArray = n / total * (z * (weights @ z)).sum(axis=0) / spread
    moran[constant] = -1.0 / (n - 1)
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
    values: Any, weights: "sparse.csr_array", *, permutations: int = 0, seed: int = 0
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
        under random permutation of the gene's own values (esda's `VI_rand`); p_permuted, (1 + permutations
        that reach I) / (1 + permutations); q, Benjamini–Hochberg over genes of p_permuted where there is
        one, else of p.  A constant gene has p = 1; without any neighbours all but expected_I is NaN.

    Raises
    ------
    UserError
        Below `FEWEST_SPOTS` spots.
    """
    import pandas as pd
    from scipy import sparse

    n, genes = values.shape
    if n < FEWEST_SPOTS:
        raise UserError(f"Moran's I cannot be tested on {n} spots; choose at least {FEWEST_SPOTS}.")
    if sparse.issparse(values):
        values = values.tocsc()
    graph = TestGraph.of(weights)
    parts: list[dict[str, FloatArray]] = []
    width = max(FEWEST_GENES_AT_ONCE, VALUES_AT_ONCE // n)
    width = -(-genes // max(1, -(-genes // width))) or 1  # as many blocks, of one size
    for start in range(0, max(genes, 1), width):
        block = values[:, start : start + width]
        yield Step("Testing Moran's I", start, genes, "genes")
        z, columns = graph.analytic(block.toarray() if sparse.issparse(block) else block)
        if permutations:

            def step_at(done: int, start: int = start, many: int = z.shape[1]) -> Step:
                return Step("Testing Moran's I", start + many * done // permutations, genes, "genes")

            columns["p_permuted"] = yield from graph.permuted(z, columns, permutations, seed, step_at)
        parts.append(columns)
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    table["q"] = q_values(table["p_permuted" if permutations else "p"])
    return pd.DataFrame(table)
