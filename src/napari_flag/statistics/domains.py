"""Spatial domains: groups of spots that are alike in composition and lie together.

Both methods use the composition (each spot less its mean over the genes, so that depth does not draw the
borders), on its leading principal components.  Settings are fixed here, before any truth is seen.

Of more than `MOST_SPOTS` spots, components are computed of all, domains are learned on `MOST_SPOTS` of them
drawn at random, and every other spot is assigned to one of those domains, as each method says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import score
from napari_flag.progress import Step, Steps, in_background
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    from scipy import sparse

Labels = npt.NDArray[np.int64]

FEWEST_SPOTS: Final = 10
MOST_GENES: Final = 2000
MOST_SPOTS: Final = 20_000
"""Spots that domains are learned on: a run of Leiden on them takes a second, as on no more than these."""
SPOTS_AT_ONCE: Final = 500
SEARCHED_AT_ONCE: Final = 100
"""Spots whose nearest are searched in a tree at a time: of noise in 20 dimensions it looks at nearly all."""
BLOCK: Final = 100
"""Distances of which the least is looked at first."""
COMPONENTS: Final = 20
"""Principal components kept; of a panel of 200 genes few more say anything that lasts."""


class Values(Protocol):
    """A (spots, genes) matrix that is read in parts of spots: an array is one, whole in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, G)."""
        ...

    def __getitem__(self, spots: slice, /) -> npt.NDArray[Any]:
        """Return the values of some spots in a row."""
        ...


class Method(Protocol):
    """A way to find domains, with its settings."""

    def find(self, values: Values, neighbours: Neighbours, seed: int) -> Steps[Labels]:
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

    def find(self, values: Values, neighbours: Neighbours, seed: int) -> Steps[Labels]:
        """Return (n,) int64 domains."""
        components = yield from principal_components(values)
        drawn = drawn_spots(len(components), seed)
        if drawn is None:
            return largest_first((yield from self._learn(components, neighbours.weights, seed)))
        weights = yield from in_background("Joining spots alike", neighbours_among, neighbours.weights, drawn)
        learned = largest_first((yield from self._learn(components[drawn], weights, seed)))
        return largest_first((yield from self._assign(components, neighbours.weights, drawn, learned)))

    def _learn(self, components: FloatArray, weights: "sparse.csr_array", seed: int) -> Steps[Labels]:
        """Return the (n,) communities of the joint graph."""
        import graspologic_native

        graph = yield from self.joint_graph(components, weights)
        indptr, indices = graph.indptr.astype(np.int64), graph.indices.astype(np.int32)
        best, found = -np.inf, np.zeros(len(components), dtype=np.int64)
        for trial in range(self.trials):
            quality, community = yield from in_background(
                Step("Finding domains", trial, self.trials, "trials"),
                graspologic_native.leiden_csr,
                indptr,
                indices,
                graph.data,
                len(components),
                resolution=self.resolution,
                iterations=2,
                seed=seed * self.trials + trial,
            )
            if quality > best:
                best = quality
                found = np.array([community[spot] for spot in range(len(components))], dtype=np.int64)
        return found

    def _assign(
        self, components: FloatArray, weights: "sparse.csr_array", drawn: Labels, learned: Labels
    ) -> Steps[Labels]:
        """Return (n,) domains of all spots, from those `learned` on the spots `drawn`, which keep theirs.

        Another spot takes the domain that it would be joined to most by the joint graph: the share of it
        among its `nearest` drawn spots in composition, and the mean of that share over its neighbours,
        weighted as the two graphs are.
        """
        n, domains = len(components), int(learned.max()) + 1
        alike = np.zeros((n, domains), np.float32)
        known = components[drawn].astype(np.float32)
        lengths = (known**2).sum(axis=1)
        k = min(self.nearest, len(drawn))
        for start in range(0, n, SEARCHED_AT_ONCE):
            yield Step("Assigning spots to domains", start, n)
            part = components[start : start + SEARCHED_AT_ONCE].astype(np.float32)
            apart = lengths - 2 * (part @ known.T)  # squared distance, less each spot's own length
            place = np.arange(len(part))[:, None] * domains + learned[smallest(apart, k)]
            votes = np.bincount(place.ravel(), minlength=len(part) * domains) / k
            alike[start : start + len(part)] = votes.reshape(len(part), domains)
        alike[drawn] = np.eye(domains, dtype=np.float32)[learned]
        nearby = yield from in_background("Assigning spots to domains", weights.__matmul__, alike)
        found: Labels = ((1.0 - self.share) * alike + self.share * nearby).argmax(axis=1)
        found[drawn] = learned
        return found

    def joint_graph(self, components: FloatArray, weights: "sparse.csr_array") -> Steps["sparse.csr_array"]:
        """Return the (n, n) symmetric graph of both, without self-edges."""
        from scipy import sparse
        from scipy.spatial import cKDTree

        n = len(components)
        k = min(self.nearest, n - 1)
        tree, near = cKDTree(components), np.empty((n, k + 1), np.int64)
        for start in range(0, n, SEARCHED_AT_ONCE):
            yield Step("Joining spots alike", start, n)
            part = slice(start, start + SEARCHED_AT_ONCE)
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

    def find(self, values: Values, neighbours: Neighbours, seed: int) -> Steps[Labels]:
        """Return (n,) int64 domains; of many spots, that of the nearest centre of those learned."""
        own = yield from principal_components(values)
        around = np.asarray(neighbours.weights @ own)
        alone = np.diff(neighbours.weights.indptr) == 0
        around[alone] = own[alone]
        features = np.concatenate([own, around], axis=1)
        drawn = drawn_spots(len(features), seed)
        if drawn is None:
            return largest_first((yield from self._learn(features, seed))[1])
        centres, _ = yield from self._learn(features[drawn], seed)
        return largest_first((yield from _nearest(features, centres)))

    def _learn(self, features: FloatArray, seed: int) -> Steps[tuple[FloatArray, Labels]]:
        """Return the (k, F) centres of the best start, and the (n,) domains."""
        from scipy.cluster.vq import ClusterError, kmeans2

        k = min(self.k, len(np.unique(features, axis=0)))
        best, found = np.inf, None
        for start in range(self.starts):
            rng = np.random.default_rng([seed, start])
            try:
                centres, labels = yield from in_background(
                    Step("Finding domains", start, self.starts, "starts"),
                    kmeans2,
                    features,
                    k,
                    iter=100,
                    minit="++",
                    missing="raise",
                    rng=rng,
                )
            except ClusterError:  # a domain lost all its spots; the other starts count
                continue
            squares = float(((features - centres[labels]) ** 2).sum())
            if squares < best:
                best, found = squares, (centres, labels)
        if found is None:
            raise UserError(f"k-means found no {k} domains in these spots; ask for fewer domains.")
        return found


METHODS: Final[dict[str, Method]] = {"leiden": Leiden(), "k-means": KMeans()}
"""Name → method with the settings every report uses."""


def find_domains(
    values: Values, neighbours: Neighbours, *, method: str = "leiden", seed: int = 0
) -> Steps[Labels]:
    """Find spatial domains by a method of `METHODS`.

    Parameters
    ----------
    values
        (n, G) log2(count + 1), read three times in parts of `SPOTS_AT_ONCE` spots.
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
    if values.shape[0] < FEWEST_SPOTS:
        raise UserError(
            f"Domains cannot be found in {values.shape[0]} spots; choose at least {FEWEST_SPOTS} spots."
        )
    return (yield from METHODS[method].find(values, neighbours, seed))


def principal_components(values: Values, keep: int = COMPONENTS) -> Steps[FloatArray]:
    """Return (n, ≤ keep) principal components of the composition of (n, G) log2(count + 1).

    Of more than `MOST_GENES` genes, those whose composition varies most.  Values are read in parts of spots:
    for their mean and variance, for what they vary together, and to be projected; nothing else is kept.
    """
    from scipy.linalg import eigh

    n, genes = values.shape
    mean, squares = np.zeros(genes), np.zeros(genes)
    for start in range(0, n, SPOTS_AT_ONCE):
        yield Step("Measuring the variance of genes", start, n)
        part = _composition(values, start)
        here, off = len(part), part.mean(axis=0) - mean
        mean += off * here / (start + here)
        squares += part.var(axis=0) * here + off**2 * start * here / (start + here)  # Chan et al. 1983
    chosen = np.sort(np.argsort(-squares, kind="stable")[:MOST_GENES])
    together = np.zeros((len(chosen), len(chosen)))
    for start in range(0, n, SPOTS_AT_ONCE):
        yield Step("Reducing expression", start, n)
        part = _composition(values, start)[:, chosen] - mean[chosen]
        together += part.T @ part
    last = len(chosen) - 1
    kept = max(0, last + 1 - min(keep, n - 1)), last
    axes = (yield from in_background("Reducing expression", eigh, together, subset_by_index=kept))[1][:, ::-1]
    components: FloatArray = np.empty((n, axes.shape[1]))
    for start in range(0, n, SPOTS_AT_ONCE):
        yield Step("Projecting spots", start, n)
        part = _composition(values, start)[:, chosen] - mean[chosen]
        components[start : start + len(part)] = part @ axes
    return components


def _composition(values: Values, start: int) -> FloatArray:
    """Return (≤ SPOTS_AT_ONCE, G) values of the spots from `start`, less the mean of each over the genes."""
    part = np.asarray(values[start : start + SPOTS_AT_ONCE], np.float64)
    pure: FloatArray = part - part.mean(axis=1, keepdims=True)
    return pure


def drawn_spots(n: int, seed: int) -> Labels | None:
    """Return ascending positions of the `MOST_SPOTS` spots that domains are learned on; None for all."""
    if n <= MOST_SPOTS:
        return None
    return np.sort(np.random.default_rng([seed, n]).choice(n, MOST_SPOTS, replace=False))


def smallest(values: npt.NDArray[Any], k: int) -> Labels:
    """Return the (n, k) columns of the smallest of each row of (n, m) values, in any order.

    They lie in the k blocks of columns with the smallest least value, found in a seventh of the time.
    """
    rows, columns = values.shape
    if columns % BLOCK or columns // BLOCK <= k:
        return np.argpartition(values, k - 1, axis=1)[:, :k]
    blocks = values.reshape(rows, -1, BLOCK)
    least = np.argpartition(blocks.min(axis=2), k - 1, axis=1)[:, :k]
    near = np.take_along_axis(blocks, least[:, :, None], axis=1).reshape(rows, -1)
    place = np.argpartition(near, k - 1, axis=1)[:, :k]
    found: Labels = np.take_along_axis(least, place // BLOCK, axis=1) * BLOCK + place % BLOCK
    return found


def neighbours_among(weights: "sparse.csr_array", drawn: Labels) -> "sparse.csr_array":
    """Return which spots `drawn` lie beside each other, (m, m), of the (n, n) neighbours of all spots.

    Each spot counts for the drawn one that is the fewest steps away; two drawn ones are neighbours by the
    weights between the spots that count for them (the Voronoi diagram of a graph, Erwig 2000).
    """
    from scipy import sparse
    from scipy.sparse.csgraph import dijkstra

    n = weights.shape[0]
    nearest = dijkstra(
        weights, directed=False, indices=drawn, unweighted=True, min_only=True, return_predecessors=True
    )[2]
    reached = np.flatnonzero(nearest >= 0)
    place = np.searchsorted(drawn, nearest[reached])
    counts = sparse.csr_array((np.ones(len(reached)), (reached, place)), shape=(n, len(drawn)))
    among = sparse.coo_array(counts.T @ weights @ counts)
    apart = among.row != among.col
    return sparse.csr_array((among.data[apart], (among.row[apart], among.col[apart])), shape=among.shape)


def _nearest(features: FloatArray, centres: FloatArray) -> Steps[Labels]:
    """Return the (n,) position of the nearest of (k, F) `centres` to each of (n, F) `features`."""
    from scipy.cluster.vq import vq

    found = np.empty(len(features), np.int64)
    for start in range(0, len(features), SPOTS_AT_ONCE):
        yield Step("Assigning spots to domains", start, len(features))
        part = slice(start, start + SPOTS_AT_ONCE)
        found[part] = vq(features[part], centres)[0]
    return found


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
