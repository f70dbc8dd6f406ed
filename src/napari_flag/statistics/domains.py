"""Spatial domains: groups of spots that are alike in composition and lie together.

Both methods use the composition (each spot less its mean over the genes, so that depth does not draw the
borders), on its leading principal components.  Settings are fixed here, before any truth is seen.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import score
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    from scipy import sparse

Labels = npt.NDArray[np.int64]

FEWEST_SPOTS: Final = 10
MOST_GENES: Final = 2000
SPOTS_AT_ONCE: Final = 500
VALUES_AT_ONCE: Final = 4_000_000
COMPONENTS: Final = 20
"""Principal components kept; of a panel of 200 genes few more say anything that lasts."""


class Method(Protocol):
    """A way to find domains, with its settings."""

    def find(self, values: npt.NDArray[Any], neighbours: Neighbours, seed: int) -> Steps[Labels]:
        """Return (n,) int64 domains of (n, G) log2(count + 1), 0 the largest."""
        ...


@dataclass(frozen=True, slots=True)
class Leiden:
    """Leiden communities (Traag et al. 2019) of a joint graph of expression and neighbourhood.

    The graph is a weighted sum of two, each with a total weight of 1: the `nearest` spots in composition
    (mutual or not), and the neighbours in space.

    Parameters
    ----------
    resolution
        Of the modularity; more finds more domains.
    nearest
        Spots alike in composition joined to each (scanpy's default of 15).
    share
        Weight of the neighbourhood, 0–1; the rest is expression's.  Chosen on noise alone: two sections of
        independent noise on one array get unrelated domains up to a fifth (ARI below .01), but alike ones
        beyond a quarter (.16 at .3, .4 at .5), drawn by the array instead of the tissue.
    trials
        Runs from other starts, of which the best modularity counts.
    """

    resolution: float = 1.0
    nearest: int = 15
    share: float = 0.2
    trials: int = 10

    def find(self, values: npt.NDArray[Any], neighbours: Neighbours, seed: int) -> Steps[Labels]:
        """Return (n,) int64 domains."""
        import graspologic_native

        components = yield from principal_components(values)
        graph = yield from self.joint_graph(components, neighbours.weights)
        best, found = -np.inf, np.zeros(len(values), dtype=np.int64)
        for trial in range(self.trials):
            yield Step("Finding domains", trial, self.trials, "trials")
            quality, community = graspologic_native.leiden_csr(
                graph.indptr.astype(np.int64),
                graph.indices.astype(np.int32),
                graph.data,
                len(values),
                resolution=self.resolution,
                iterations=2,
                seed=seed * self.trials + trial,
            )
            if quality > best:
                best = quality
                found = np.array([community[spot] for spot in range(len(values))], dtype=np.int64)
        return largest_first(found)

    def joint_graph(self, components: FloatArray, weights: "sparse.csr_array") -> Steps["sparse.csr_array"]:
        """Return the (n, n) symmetric graph of both, without self-edges."""
        from scipy import sparse
        from scipy.spatial import cKDTree

        n = len(components)
        k = min(self.nearest, n - 1)
        tree, near = cKDTree(components), np.empty((n, k + 1), np.int64)
        for start in range(0, n, SPOTS_AT_ONCE):
            yield Step("Joining spots alike", start, n)
            part = slice(start, start + SPOTS_AT_ONCE)
            near[part] = tree.query(components[part], k + 1)[1]
        pairs = np.column_stack([np.repeat(np.arange(n), k + 1), near.ravel()])
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        alike = sparse.csr_array((np.ones(len(pairs)), pairs.T), shape=(n, n))
        nearby = weights + weights.T
        joint = (1.0 - self.share) * (alike + alike.T) / (2.0 * alike.sum())
        if nearby.sum() > 0:
            joint = joint + self.share * nearby / nearby.sum()
        return sparse.csr_array(joint)


@dataclass(frozen=True, slots=True)
class KMeans:
    """k-means on each spot's components concatenated with its neighbours' mean, at equal weight.

    Parameters
    ----------
    k
        Number of domains; six, as many as the pathologist of her2st distinguished.
    starts
        Runs from other k-means++ starts, of which the smallest sum of squares counts.
    """

    k: int = 6
    starts: int = 10

    def find(self, values: npt.NDArray[Any], neighbours: Neighbours, seed: int) -> Steps[Labels]:
        """Return (n,) int64 domains."""
        from scipy.cluster.vq import ClusterError, kmeans2

        own = yield from principal_components(values)
        around = np.asarray(neighbours.weights @ own)
        alone = np.diff(neighbours.weights.indptr) == 0
        around[alone] = own[alone]
        features = np.concatenate([own, around], axis=1)
        k = min(self.k, len(np.unique(features, axis=0)))
        best, found = np.inf, None
        for start in range(self.starts):
            yield Step("Finding domains", start, self.starts, "starts")
            rng = np.random.default_rng([seed, start])
            try:
                centres, labels = kmeans2(features, k, iter=100, minit="++", missing="raise", rng=rng)
            except ClusterError:  # a domain lost all its spots; the other starts count
                continue
            squares = float(((features - centres[labels]) ** 2).sum())
            if squares < best:
                best, found = squares, labels
        if found is None:
            raise UserError(f"k-means found no {k} domains in these spots; ask for fewer domains.")
        return largest_first(found)


METHODS: Final[dict[str, Method]] = {"leiden": Leiden(), "k-means": KMeans()}
"""Name → method with the settings every report uses."""


def find_domains(
    values: npt.NDArray[Any], neighbours: Neighbours, *, method: str = "leiden", seed: int = 0
) -> Steps[Labels]:
    """Find spatial domains by a method of `METHODS`.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    neighbours
        The graph of the section.
    method
        "leiden" or "k-means"; for other settings call `Leiden(...).find` or `KMeans(...).find`.
    seed
        The same gives the same domains.

    Returns
    -------
    array
        (n,) int64, 0 … D − 1, the largest domain first.

    Raises
    ------
    UserError
        Below 10 spots.
    """
    if len(values) < FEWEST_SPOTS:
        raise UserError(
            f"Domains cannot be found in {len(values)} spots; choose at least {FEWEST_SPOTS} spots."
        )
    return (yield from METHODS[method].find(values, neighbours, seed))


def principal_components(values: npt.NDArray[Any], keep: int = COMPONENTS) -> Steps[FloatArray]:
    """Return (n, ≤ keep) principal components of the composition of (n, G) log2(count + 1).

    Of more than `MOST_GENES` genes, those whose composition varies most.
    """
    from scipy.linalg import eigh

    n, genes = values.shape
    depth = values.mean(axis=1, dtype=np.float64, keepdims=True)
    width = max(1, VALUES_AT_ONCE // n)
    spread = np.concatenate([(values[:, k : k + width] - depth).var(axis=0) for k in range(0, genes, width)])
    chosen = np.sort(np.argsort(-spread, kind="stable")[:MOST_GENES])
    pure = values[:, chosen] - depth
    pure -= pure.mean(axis=0)
    together = np.zeros((len(chosen), len(chosen)))
    for start in range(0, n, SPOTS_AT_ONCE):
        yield Step("Reducing expression", start, n)
        part = pure[start : start + SPOTS_AT_ONCE]
        together += part.T @ part
    last = len(chosen) - 1
    axes = eigh(together, subset_by_index=(max(0, last + 1 - min(keep, n - 1)), last))[1]
    components: FloatArray = pure @ axes[:, ::-1]
    return components


def largest_first(labels: npt.NDArray[Any]) -> Labels:
    """Return labels numbered 0 … D − 1 from the largest group; equally large ones by their first spot."""
    _, first, group, size = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(size), dtype=np.int64)
    rank[np.lexsort((first, -size))] = np.arange(len(size))
    return rank[group]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two groupings of the same spots agree.

    Parameters
    ----------
    ari
        Adjusted Rand index (Hubert & Arabie 1985): 1 the same, 0 as groupings at random.
    nmi
        Mutual information ÷ mean of the two entropies, 0–1; above 0 by chance where groups are many.
    """

    ari: float
    nmi: float

    def described(self) -> str:
        """Return "ARI 0.512, NMI 0.478"."""
        return f"ARI {score(self.ari, 'ARI')}, NMI {score(self.nmi, 'NMI')}"


def agreement(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Agreement:
    """Compare two groupings (n,) of the same spots; names of groups do not matter.

    As scikit-learn's `adjusted_rand_score` and `normalized_mutual_info_score`.
    """
    table = contingency(first, second)
    n, rows, columns = table.sum(), table.sum(axis=1), table.sum(axis=0)
    together, in_first, in_second = (float((m * (m - 1) / 2).sum()) for m in (table, rows, columns))
    expected = in_first * in_second / max(n * (n - 1) / 2, 1.0)
    most = (in_first + in_second) / 2
    ari = 1.0 if most == expected else (together - expected) / (most - expected)
    entropy = (_entropy(rows) + _entropy(columns)) / 2
    shared = _entropy(rows) + _entropy(columns) - _entropy(table[table > 0])
    return Agreement(ari, 1.0 if entropy == 0.0 else max(shared, 0.0) / entropy)


def contingency(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> FloatArray:
    """Return (groups of first, groups of second) counts of spots, groups in sorted order."""
    _, a = np.unique(first, return_inverse=True)
    _, b = np.unique(second, return_inverse=True)
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1.0)
    return table


def relabel(labels: Labels, like: Labels) -> Labels:
    """Return `labels` numbered as the groups of `like` they overlap most with, one to one.

    So that a prediction's domains take the colours of the truth's; groups beyond those of `like` come after.
    """
    from scipy.optimize import linear_sum_assignment

    table = contingency(labels, like)
    rows, columns = linear_sum_assignment(-table)
    names, group = np.unique(labels, return_inverse=True)
    number = np.full(len(names), -1, dtype=np.int64)
    number[rows] = np.unique(like)[columns]
    left = np.flatnonzero(number < 0)
    number[left] = int(np.max(like)) + 1 + np.arange(len(left))
    return number[group]


def _entropy(counts: FloatArray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
