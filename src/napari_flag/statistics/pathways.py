"""Gene sets raised in a region, and how many of the measurement's a prediction recovers.

Where one region is sequenced deeper than another, nearly all genes of a panel are raised in it, so counting
the significant ones of a set finds nothing.  The test here is competitive: do the genes of a set come *before
the other genes of the panel* in the order of how much each is raised?  As any test that takes genes for
independent, it calls sets of co-expressed genes too readily (Wu & Smyth 2012), and sets go together besides.
Chance therefore keeps genes together: the prediction's spots are dealt to the regions at random, whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import BoolArray, FloatArray
from napari_flag.statistics.markers import check_regions, rank_sum_scores
from napari_flag.statistics.multiple_testing import q_values

if TYPE_CHECKING:
    import pandas as pd
    from scipy import sparse


FEWEST_GENES: Final = 5
"""Genes of a set among those at hand; with fewer its place in the order says little."""
PERMUTATIONS: Final = 999
"""Random dealings of spots behind a chance level; its smallest p is .001."""
LEVEL: Final = 0.05
"""False discovery rate at which a set counts as raised."""
GENES_AT_ONCE: Final = 256
VALUES_AT_ONCE: Final = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Enrichment:
    """Gene sets tested in one region against another, by one source.

    Parameters
    ----------
    table
        set; size, its genes at hand; auc, how often a gene of the set is raised more than another gene of the
        panel (½ where it is like the others); p, one-sided; q, Benjamini–Hochberg over the sets tested;
        genes, the set's from the most raised.  Smallest p first.
    skipped
        Set → its genes at hand, of those with fewer than `FEWEST_GENES`, or with all genes of the panel.
    dealt
        (P, S) z of each set of `table`, in its order, where spots are dealt to the regions at random.
    """

    table: "pd.DataFrame"
    skipped: dict[str, int]
    dealt: FloatArray

    def raised(self) -> tuple[str, ...]:
        """Return the sets raised at a false discovery rate of 5 %, the clearest first."""
        return tuple(str(name) for name in self.table["set"][self.table["q"] <= LEVEL])


@dataclass(frozen=True, slots=True, eq=False)
class Recovery:
    """Sets raised in a prediction and in the measurement between the same regions.

    Parameters
    ----------
    predicted, measured
        Sets raised by each.
    shared
        Those raised by both, in the order of `measured`.
    tested
        How many sets could have been raised.
    by_chance
        (P,) int64, how many sets the measurement shares with as many of the prediction, the clearest, after
        the prediction's spots were dealt to the regions at random.
    """

    predicted: tuple[str, ...]
    measured: tuple[str, ...]
    shared: tuple[str, ...]
    tested: int
    by_chance: npt.NDArray[np.int64]

    @property
    def chance(self) -> float:
        """`shared` to be expected of a prediction of these gene–gene correlations in the wrong places."""
        return float(self.by_chance.mean()) if len(self.by_chance) else 0.0

    @property
    def p(self) -> float:
        """How often chance shares as many."""
        reached = int((self.by_chance >= len(self.shared)).sum())
        return (1 + reached) / (1 + len(self.by_chance))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them."""
        names = {"predicted": self.predicted, "measured": self.measured, "shared": self.shared}
        numbers = {"tested": self.tested, "chance": self.chance, "p": self.p}
        return {name: list(sets) for name, sets in names.items()} | numbers


def enrich(
    values: npt.NDArray[Any],
    genes: Sequence[str],
    inside: BoolArray,
    outside: BoolArray | None,
    sets: Mapping[str, Sequence[str]],
    *,
    permutations: int = 0,
    seed: int = 0,
) -> Steps[Enrichment]:
    """Test which sets hold genes that are raised in a region more than the other genes of the panel.

    Genes are ordered by Wilcoxon's z between the regions, as `markers.differential_genes`; a set is tested by
    Wilcoxon's rank sum of its genes in that order (limma's `cameraPR` on ranks, without correlation).

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    genes
        (G,) symbols: the panel, which is the background.
    inside, outside
        (n,) bool; None takes every other spot.
    sets
        Name → genes; only those of the panel count.
    permutations
        P, for a chance level: of the prediction when it is compared with a measurement.
    seed
        Of the dealings, which are the same for all regions of the same spots.

    Raises
    ------
    UserError
        As `markers.differential_genes`.
    """
    rest = ~inside if outside is None else outside
    check_regions(inside, rest)
    here = np.flatnonzero(inside | rest)
    symbols = [str(gene) for gene in genes]
    members, skipped = _testable(symbols, sets)
    splits = _dealings(inside[here], permutations, seed)
    scores = np.empty((len(symbols), splits.shape[1]))
    for start in range(0, len(symbols) if members else 0, GENES_AT_ONCE):
        yield Step("Testing gene sets", start, len(symbols), "genes")
        part = slice(start, start + GENES_AT_ONCE)
        scores[part] = rank_sum_scores(values[here, part].astype(np.float64), splits)
    from scipy.stats import rankdata

    z = np.empty((splits.shape[1], len(members)))
    belongs = _memberships(list(members.values()), len(symbols))
    size = np.array([len(columns) for columns in members.values()], np.float64)
    middle = (len(symbols) + 1) / 2.0
    drawn = size * (len(symbols) - size) / (len(symbols) * (len(symbols) - 1.0))
    auc = np.full(len(members), 0.5)
    at_once = max(1, VALUES_AT_ONCE // max(len(symbols), 1))
    for start in range(0, splits.shape[1] if members else 0, at_once):
        yield Step("Testing gene sets", start, splits.shape[1], "permutations")
        rank = rankdata(scores[:, start : start + at_once], axis=0)
        above = (belongs @ rank).T - size * middle
        variance = np.square(rank - middle).sum(axis=0)  # of ranks as they are, ties and all
        variance[variance == 0.0] = 1.0
        z[start : start + at_once] = above / np.sqrt(np.outer(variance, drawn))
        if start == 0:
            auc += above[0] / (size * (len(symbols) - size))
    return _tested(members, skipped, symbols, scores[:, 0], z, auc)


def recover(predicted: Enrichment, measured: Enrichment) -> Recovery:
    """Count the sets that prediction and measurement have both raised, beside chance.

    Parameters
    ----------
    predicted, measured
        Of the same genes, spots, regions and sets, the first with permutations.
    """
    ours, theirs = predicted.raised(), measured.raised()
    shared = tuple(name for name in theirs if name in set(ours))
    dealt = predicted.dealt
    if ours and len(dealt):
        called = np.argsort(-dealt, axis=1, kind="stable")[:, : len(ours)]
        right = predicted.table["set"].isin(theirs).to_numpy()
        by_chance = right[called].sum(axis=1).astype(np.int64)
    else:
        by_chance = np.zeros(len(dealt), np.int64)
    return Recovery(ours, theirs, shared, len(predicted.table), by_chance)


def together(regions: Mapping[str, Recovery]) -> Recovery:
    """Return the recovery of several regions as one, each set under the name of its region.

    The regions must be of the same spots and tested with one seed: a dealing is then one of all regions.
    """

    def named(which: str) -> tuple[str, ...]:
        return tuple(
            f"{region}: {name}" for region, found in regions.items() for name in getattr(found, which)
        )

    dealt = [found.by_chance for found in regions.values()]
    by_chance = np.sum(dealt, axis=0) if dealt else np.zeros(0, np.int64)
    tested = sum(found.tested for found in regions.values())
    return Recovery(named("predicted"), named("measured"), named("shared"), tested, by_chance)


def _testable(
    genes: Sequence[str], sets: Mapping[str, Sequence[str]]
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, int]]:
    """Return set → columns of its genes, and set → number of genes of those that are not tested."""
    place = {gene: column for column, gene in enumerate(genes)}
    members, skipped = {}, {}
    for name, symbols in sets.items():
        columns = np.array(sorted({place[gene] for gene in symbols if gene in place}), np.int64)
        if FEWEST_GENES <= len(columns) < len(genes):
            members[name] = columns
        else:
            skipped[name] = len(columns)
    return members, skipped


def _dealings(inside: BoolArray, permutations: int, seed: int) -> BoolArray:
    """Return (n, 1 + P) bool: the region, and the same number of spots dealt at random."""
    rng = np.random.default_rng(seed)
    dealt = [rng.permutation(inside) for _ in range(permutations)]
    return np.stack([inside, *dealt], axis=1)


def _memberships(members: Sequence[npt.NDArray[np.int64]], genes: int) -> "sparse.csr_matrix":
    from scipy import sparse

    ends = np.cumsum([0, *(len(columns) for columns in members)])
    columns = np.concatenate(members) if members else np.empty(0, np.int64)
    return sparse.csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(members), genes))


def _tested(
    members: Mapping[str, npt.NDArray[np.int64]],
    skipped: dict[str, int],
    genes: Sequence[str],
    score: FloatArray,
    z: FloatArray,
    auc: FloatArray,
) -> Enrichment:
    import pandas as pd
    from scipy.special import ndtr

    p = ndtr(-z[0])
    listed = [
        ", ".join(genes[column] for column in columns[np.argsort(-score[columns], kind="stable")])
        for columns in members.values()
    ]
    table = pd.DataFrame(
        {
            "set": list(members),
            "size": [len(columns) for columns in members.values()],
            "auc": auc,
            "p": p,
            "q": q_values(p),
            "genes": listed,
        }
    )
    order = np.argsort(p, kind="stable")
    return Enrichment(table.iloc[order].reset_index(drop=True), skipped, z[1:, order])
