"""Generated genes, and the exact distribution of a slide's counts given its tissue.

Any number of genes, ``SIM0001`` and on, whose counts follow a law that is written down, so that what a method
predicts can be held against the truth and not against one measurement.  Of spot s of tissue t and gene g:

    η[s, g] = log_rate[s, g] + depth[s] + Σ_r loadings[t, g, r] f[s, r] + √own_variance[g] e[s, g]
    k[s, g] ~ Poisson(exp(η[s, g]))

``log_rate`` follows from the cells under the spot, everything else is what no picture shows: a heavy-tailed
depth, r factors shared by genes (and, over a stated length, by neighbouring spots), a gene's own noise.
`KnownExpression.draw` draws from it exactly: in expectation, no other distribution has a better proper score.

Where the loadings differ between tissues, or factors are on or off, the residual is not one Gaussian;
`GeneModel.one_gaussian` is the Gaussian of the mean covariance, and what its draws lose against the exact
ones is what there is to learn about the residual.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import comb, exp, factorial, log
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.special import ndtri

from napari_flag.errors import UserError
from napari_flag.simulation.fields import Points
from napari_flag.simulation.programmes import CONTENT, SOURCES

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

CELLS_PER_SPOT: Final[dict[str, dict[str, float]]] = {
    "tumour": {"tumour": 7.4, "in situ": 2.1, "activated fibroblast": 0.5, "fibroblast": 0.2, "T cell": 1.2,
               "debris": 0.1},
    "epithelium": {"luminal": 7.3, "myoepithelial": 2.5, "fibroblast": 0.9, "activated fibroblast": 0.3,
                   "T cell": 2.0, "plasma cell": 0.3, "macrophage": 0.2},
    "stroma": {"fibroblast": 1.4, "activated fibroblast": 1.9, "endothelial": 0.2, "T cell": 1.0,
               "plasma cell": 0.2, "macrophage": 0.3, "tumour": 0.3, "blood": 0.2},
    "immune": {"T cell": 7.8, "B cell": 0.9, "plasma cell": 1.0, "macrophage": 0.5, "fibroblast": 0.7,
               "activated fibroblast": 0.6, "tumour": 0.4},
    "fat": {"adipocyte": 2.4, "fibroblast": 0.1, "T cell": 0.1},
}  # fmt: skip
"""Tissue → kind of cell → cells under a spot of 55 µm: means over the painted slides of seeds 101 to 103."""

TISSUES: Final = tuple(CELLS_PER_SPOT)

HOME: Final[dict[str, str]] = {
    "tumour": "tumour", "in situ": "tumour", "debris": "tumour",
    "luminal": "epithelium", "myoepithelial": "epithelium",
    "fibroblast": "stroma", "activated fibroblast": "stroma", "endothelial": "stroma", "blood": "stroma",
    "T cell": "immune", "B cell": "immune", "plasma cell": "immune", "macrophage": "immune",
    "adipocyte": "fat",
}  # fmt: skip
"""Kind of cell → the tissue that it speaks for."""

_GENES_AT_ONCE: Final = 256
_ON_SHARE: Final = 0.15
"""Of spots, where a factor that is on or off is on."""
_FALL: Final = 0.8
"""Variance of a factor over that of the one before."""
_HOME_GAIN: Final = 1.6
_KIND_SPREAD: Final = 0.6
"""ln: how much more a gene is made in the cells of its own tissue, and how it differs between kinds."""
_BACKGROUND: Final = 0.01
"""Counts in a spot without cells, over a gene's mean: RNA that wandered."""


def cells_by_tissue() -> Points:
    """Return `CELLS_PER_SPOT` as (tissues, len(SOURCES)) float64."""
    return np.array([[cells.get(kind, 0.0) for kind in SOURCES] for cells in CELLS_PER_SPOT.values()])


def main_tissue(amounts: Points) -> IntArray:
    """Return (n,) int64, the position in `TISSUES` of what makes most RNA under each spot.

    Parameters
    ----------
    amounts
        (n, len(SOURCES)) cells of each kind under each spot.
    """
    speaks = np.array([[HOME[kind] == tissue for tissue in TISSUES] for kind in SOURCES], np.float64)
    content = np.array([CONTENT[kind] for kind in SOURCES])
    return np.asarray((amounts * content @ speaks).argmax(axis=1), np.int64)


def mixing(xy_um: Points, pitch_um: float, length: float) -> sparse.csr_array:
    """Return the (n, n) matrix W that makes white noise of n spots a field of variance 1.

    The field's covariance is exactly W Wᵀ: exp(−d² / 2 length²) away from the border of the tissue.

    Parameters
    ----------
    xy_um
        (n, 2) centres in µm.
    pitch_um, length
        Array pitch in µm, and the length of the correlation in pitches; 0 leaves the noise white.
    """
    n = len(xy_um)
    if length <= 0 or n == 0:
        return sparse.csr_array(sparse.eye_array(n))
    places = cKDTree(xy_um / pitch_um)
    near = places.sparse_distance_matrix(places, 3 * length, output_type="ndarray")
    weight = np.exp(-((near["v"] / length) ** 2))
    total = np.bincount(near["i"], weight**2, minlength=n)
    return sparse.csr_array((weight / np.sqrt(total[near["i"]]), (near["i"], near["j"])), shape=(n, n))


@dataclass(frozen=True, slots=True)
class Depth:
    """Distribution of a spot's ln depth around what its cells let expect; its mean is 0.

    A normal part, of which `smooth` is shared by neighbours, and losses that leave a few spots nearly empty,
    as measured sections have them: kurtosis 10 with the defaults; that of ln total counts is 25 on her2st's
    section C2 and 5 on B4.

    Parameters
    ----------
    spread
        Standard deviation of the normal part, ln.
    smooth
        Share of its variance that is a field over the section.
    lost
        Share of spots that lost most of their RNA.
    least_loss, further_loss
        ln of what they lose: at least, and on average beyond that (exponential).
    """

    spread: float = 0.4
    smooth: float = 0.4
    lost: float = 0.01
    least_loss: float = 1.5
    further_loss: float = 0.6

    @property
    def variance(self) -> float:
        """Variance of ln depth."""
        first, second, _, _ = self._loss_moments()
        return self.spread**2 + second - first**2

    @property
    def kurtosis(self) -> float:
        """Fourth central moment over the squared variance; 3 for a normal."""
        m1, m2, m3, m4 = self._loss_moments()
        fourth_cumulant = m4 - 4 * m3 * m1 - 3 * m2**2 + 12 * m2 * m1**2 - 6 * m1**4
        return 3 + fourth_cumulant / self.variance**2

    @property
    def log_mean_factor(self) -> float:
        """Logarithm of the mean of exp(ln depth)."""
        kept = exp(-self.least_loss) / (1 + self.further_loss)
        return self.spread**2 / 2 + log(1 - self.lost + self.lost * kept) + self._loss_moments()[0]

    def draw(self, over: sparse.csr_array, rng: np.random.Generator) -> Points:
        """Return (n,) ln depths; `over` is the `mixing` of the spots."""
        white, field, losing, losses = rng.spawn(4)
        n = over.shape[0]
        depth = self.spread * np.sqrt(1 - self.smooth) * white.standard_normal(n)
        depth += self.spread * np.sqrt(self.smooth) * (over @ field.standard_normal(n))
        loss = self.least_loss + losses.exponential(self.further_loss, n)
        return np.asarray(depth - loss * (losing.random(n) < self.lost) + self._loss_moments()[0])

    def _loss_moments(self) -> tuple[float, ...]:
        """Return the first four raw moments of a spot's loss."""
        return tuple(
            self.lost
            * sum(
                comb(k, i) * self.least_loss ** (k - i) * factorial(i) * self.further_loss**i
                for i in range(k + 1)
            )
            for k in (1, 2, 3, 4)
        )


@dataclass(frozen=True, slots=True, eq=False)
class GeneModel:
    """Genes whose expression is known: what makes them, and how they vary together.

    Parameters
    ----------
    names
        G names.
    mean_count
        (G,) float32, counts of a spot of ordinary depth, averaged over `TISSUES`.
    made
        (len(SOURCES), G) float32, counts per cell at ordinary depth.
    loadings
        (tissues, G, r) float32: the residual of ln rate has the covariance
        ``loadings[t] @ loadings[t].T + diag(own_variance)`` in a spot of tissue t.
    own_variance
        (G,) float32.
    on_off
        How many factors, the first ones, have two values instead of a normal's; mean 0 and variance 1 all the
        same.
    length
        Over which factors and depth are correlated, in array pitches.
    """

    names: tuple[str, ...]
    mean_count: FloatArray
    made: FloatArray
    loadings: FloatArray
    own_variance: FloatArray
    on_off: int = 0
    length: float = 2.0

    def __len__(self) -> int:
        return len(self.names)

    def covariance(self, tissue: int) -> Points:
        """Return the (G, G) covariance of the residual of ln rate in a tissue, depth left out.

        Depth adds `Depth.variance` to every entry.
        """
        shared = self.loadings[tissue].astype(np.float64)
        return np.asarray(shared @ shared.T + np.diag(self.own_variance.astype(np.float64)))

    def one_gaussian(self, shares: npt.ArrayLike) -> "GeneModel":
        """Return the same genes with one Gaussian residual everywhere, of the mean covariance.

        Parameters
        ----------
        shares
            (tissues,) weights of the tissues, such as their shares of the spots.
        """
        weights = np.asarray(shares, np.float64)
        weights = np.sqrt(weights / weights.sum()).astype(np.float32)
        pooled = np.concatenate([w * b for w, b in zip(weights, self.loadings, strict=True)], axis=1)
        return replace(self, loadings=np.broadcast_to(pooled, (len(weights), *pooled.shape)), on_off=0)

    def log_mean_factor(self, columns: slice) -> Points:
        """Return (tissues, g) ln of the mean of exp(residual of ln rate), depth left out."""
        b = self.loadings[:, columns].astype(np.float64)
        low, high = _on_off_values()
        two = np.log((1 - _ON_SHARE) * np.exp(b * low) + _ON_SHARE * np.exp(b * high))
        each = np.where(np.arange(b.shape[2]) < self.on_off, two, b**2 / 2)
        return np.asarray(each.sum(axis=2) + self.own_variance[columns] / 2)

    def factors(self, over: sparse.csr_array, rng: np.random.Generator) -> FloatArray:
        """Return (n, r) factors, each of mean 0 and variance 1; `over` is the spots' `mixing`.

        One that is on or off is on where a field of that `mixing` is in its top 15 %.
        """
        values = over @ rng.standard_normal((over.shape[0], self.loadings.shape[2]))
        low, high = _on_off_values()
        on = values[:, : self.on_off] > ndtri(1 - _ON_SHARE)
        values[:, : self.on_off] = np.where(on, high, low)
        return np.asarray(values, np.float32)


def _on_off_values() -> tuple[float, float]:
    """Return the two values of a factor that is off or on: mean 0, variance 1."""
    odds = (1 - _ON_SHARE) / _ON_SHARE
    return -(odds**-0.5), odds**0.5


def generated_genes(
    number: int,
    seed: int = 0,
    *,
    mean_count: float = 4.0,
    level_spread: float = 0.9,
    residual: float = 0.5,
    shared: float = 0.6,
    factors: int = 8,
    own_to_tissue: float = 0.5,
    on_off: int = 0,
    length: float = 2.0,
) -> GeneModel:
    """Return `number` genes, ``SIM0001`` and on; a gene is the same whatever their number.

    Parameters
    ----------
    number, seed
        Genes, and which.
    mean_count, level_spread
        Median over genes of the mean count of a spot, and the standard deviation of its ln: log-normal, like
        the 200 genes of her2st (9 and .7 on section C2, 2 and 1.0 on B4).
    residual
        Standard deviation of ln rate that tissue and depth leave, typical of a gene.
    shared, factors
        Share of that variance that genes have in common, and the factors it is spread over.
    own_to_tissue
        0 to 1: share of what is common that each tissue has its own loadings for; at 0 one covariance holds
        everywhere.
    on_off
        How many of the factors have two values.  With 0 of both, the residual is Gaussian.
    length
        Over which factors and depth are correlated between spots, in array pitches; 0 for none.

    Raises
    ------
    UserError
        When the numbers make no genes.
    """
    if number < 1 or not 0 <= on_off <= factors or not (0 <= shared <= 1 and 0 <= own_to_tissue <= 1):
        raise UserError(
            f"Genes cannot be generated with number {number}, factors {factors}, on_off {on_off}, shared "
            f"{shared:g} and own_to_tissue {own_to_tissue:g}; give at least one gene, no more on_off than "
            "factors, and shares from 0 to 1."
        )
    # one stream per quantity, genes along its rows, so that more genes leave the first as they are
    level_rng, home_rng, kind_rng, size_rng, loading_rng = np.random.default_rng([seed, 0x6E]).spawn(5)
    level = mean_count * np.exp(level_spread * level_rng.standard_normal(number))
    home = np.array([TISSUES.index(HOME[kind]) for kind in SOURCES])
    of = home_rng.integers(0, len(TISSUES) + 1, number)  # the last: made everywhere
    made = _KIND_SPREAD * kind_rng.standard_normal((number, len(SOURCES)))
    made = np.exp(made + _HOME_GAIN * (home == of[:, None])) * [CONTENT[kind] for kind in SOURCES]
    ordinary = cells_by_tissue().mean(axis=0)
    made *= (level / (made @ ordinary))[:, None]
    variance = (residual * np.exp(0.2 * size_rng.standard_normal(number))) ** 2
    weight = _FALL ** np.arange(factors)
    draws = loading_rng.standard_normal((number, len(TISSUES) + 1, factors))
    draws *= np.sqrt(shared * weight / max(weight.sum(), 1e-12)) * np.sqrt(variance)[:, None, None]
    loadings = np.sqrt(1 - own_to_tissue) * draws[:, :1] + np.sqrt(own_to_tissue) * draws[:, 1:]
    return GeneModel(
        names=tuple(f"SIM{k:04d}" for k in range(1, number + 1)),
        mean_count=level.astype(np.float32),
        made=made.T.astype(np.float32),
        loadings=np.ascontiguousarray(loadings.transpose(1, 0, 2), np.float32),
        own_variance=((1 - shared) * variance).astype(np.float32),
        on_off=on_off,
        length=length,
    )


@dataclass(frozen=True, slots=True, eq=False)
class KnownExpression:
    """The distribution of one slide's counts given its tissue, n spots × G genes.

    Parameters
    ----------
    genes
        What is measured.
    amounts
        (n, len(SOURCES)) cells of each kind under each spot.
    tissue
        (n,) int64, position in `TISSUES`.
    over
        (n, n), the `mixing` of the spots.
    depth
        Distribution of the spots' ln depth.
    level
        (G,) float32 ln: how much more than ordinary the patient makes of each gene.
    log_depth
        ln depth of the slide.
    """

    genes: GeneModel
    amounts: Points
    tissue: IntArray
    over: sparse.csr_array
    depth: Depth
    level: FloatArray
    log_depth: float = 0.0

    def log_rate(self, columns: slice = slice(None)) -> FloatArray:
        """Return (n, g) float32, the expectation of ln rate (η above), of the genes `columns`."""
        made = self.amounts.astype(np.float32) @ self.genes.made[:, columns]
        rate = made + np.float32(_BACKGROUND) * self.genes.mean_count[columns]
        return np.asarray(np.log(rate) + self.level[columns] + np.float32(self.log_depth), np.float32)

    def expected_counts(self) -> FloatArray:
        """Return (n, G) float32, the expectation of the counts."""
        expected = np.empty((len(self.amounts), len(self.genes)), np.float32)
        for columns in _chunks(len(self.genes)):
            factor = self.genes.log_mean_factor(columns)[self.tissue] + self.depth.log_mean_factor
            expected[:, columns] = np.exp(self.log_rate(columns) + factor)
        return expected

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """Return (n, G) float32 counts, a draw from the exact distribution."""
        rates, chance = rng.spawn(2)
        return counted(self.draw_rates(rates), chance)

    def draw_rates(self, rng: np.random.Generator) -> FloatArray:
        """Return (n, G) float32, a draw of exp(η): what counts are Poisson around."""
        common, depth_rng, _, own_rng = rng.spawn(4)  # of four, as the bundled slides were made
        factors = self.genes.factors(self.over, common)
        depth = self.depth.draw(self.over, depth_rng).astype(np.float32)
        own = np.sqrt(self.genes.own_variance)
        rates = np.empty((len(self.amounts), len(self.genes)), np.float32)
        chunks = list(_chunks(len(self.genes)))
        for columns, stream in zip(chunks, own_rng.spawn(len(chunks)), strict=True):
            eta = self.log_rate(columns) + depth[:, None]
            noise = stream.standard_normal((eta.shape[1], len(eta)), np.float32)
            eta += own[columns] * noise.T
            for tissue in np.unique(self.tissue):
                rows = self.tissue == tissue
                eta[rows] += factors[rows] @ self.genes.loadings[tissue, columns].T
            rates[:, columns] = np.exp(eta)
        return rates


def known_expression(
    genes: GeneModel,
    amounts: Points,
    xy_um: Points,
    pitch_um: float,
    *,
    depth: Depth | None = None,
    level: FloatArray | None = None,
    log_depth: float = 0.0,
) -> KnownExpression:
    """Return the distribution of counts of spots over known cells.

    Parameters
    ----------
    genes, depth, level, log_depth
        As in `KnownExpression`; without `level` all are ordinary.
    amounts
        (n, len(SOURCES)) cells of each kind under each spot.
    xy_um, pitch_um
        (n, 2) centres, and the array pitch.
    """
    return KnownExpression(
        genes=genes,
        amounts=amounts,
        tissue=main_tissue(amounts),
        over=mixing(xy_um, pitch_um, genes.length),
        depth=depth or Depth(),
        level=np.zeros(len(genes), np.float32) if level is None else level,
        log_depth=log_depth,
    )


def counted(rates: npt.NDArray[Any], rng: np.random.Generator) -> FloatArray:
    """Return Poisson counts around (n, G) `rates`, float32; a gene's are the same whatever follows it."""
    counts = np.empty(rates.shape, np.float32)
    chunks = list(_chunks(rates.shape[1]))
    for columns, stream in zip(chunks, rng.spawn(len(chunks)), strict=True):
        counts[:, columns] = stream.poisson(rates[:, columns].T).T
    return counts


def _chunks(number: int) -> Iterator[slice]:
    for start in range(0, number, _GENES_AT_ONCE):
        yield slice(start, min(start + _GENES_AT_ONCE, number))
