"""Marker genes: differential expression between regions, and the overlap of two rankings.

The test is that of scanpy's `rank_genes_groups` (Wilcoxon with its correction for ties), for all genes at
once.  Spots of one region are neighbours, hence alike, and a domain was found by the expression it is then
tested on: p-values rank genes, they do not prove a difference between tissues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import counted, whole
from napari_flag.statistics.accuracy import BoolArray, FloatArray
from napari_flag.statistics.multiple_testing import q_values

if TYPE_CHECKING:
    import pandas as pd


FEWEST_SPOTS = 2
"""A variance needs two."""
GENES_AT_ONCE = 512


def rank_sum_scores(values: FloatArray, inside: BoolArray) -> FloatArray:
    """Compare ranks in many splits of the same spots: rank sums by their normal approximation.

    Parameters
    ----------
    values
        (n, G).
    inside
        (n, M) bool, M splits; the spots of each that are not inside are outside.

    Returns
    -------
    array
        (G, M) z corrected for ties, positive where values inside are higher, 0 for a constant gene.
    """
    from scipy.stats import rankdata

    n = len(values)
    a = inside.sum(axis=0, dtype=np.float64)
    ranks = rankdata(values, axis=0)
    same = np.zeros(ranks.shape[1])
    ordered = np.sort(ranks, axis=0)
    for gene in range(ranks.shape[1]):
        tied = np.unique(ordered[:, gene], return_counts=True)[1].astype(np.float64)
        same[gene] = (tied**3 - tied).sum()
    varies = 1.0 - same / (n**3 - n)
    constant = varies <= 0.0
    varies[constant] = 1.0
    spread = np.sqrt(np.outer(varies, a * (n - a) * (n + 1) / 12.0))
    score: FloatArray = (ranks.T @ inside - a * (n + 1) / 2.0) / spread
    score[constant] = 0.0
    return score


def wilcoxon(inside: FloatArray, outside: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Compare ranks: the rank sum's z, corrected for ties, by its normal approximation.

    As scanpy's ``method="wilcoxon", tie_correct=True``: (a, G) and (b, G) values → (G,) score, positive where
    the first are higher, and (G,) two-sided p.
    """
    from scipy.special import ndtr

    first = np.arange(len(inside) + len(outside)) < len(inside)
    score = rank_sum_scores(np.concatenate([inside, outside]), first[:, None])[:, 0]
    return score, 2.0 * ndtr(-np.abs(score))


def check_regions(inside: BoolArray, outside: BoolArray) -> None:
    """Refuse regions that share spots or hold fewer than two.

    Raises
    ------
    UserError
        Naming which of the two.
    """
    if (inside & outside).any():
        raise UserError(
            f"The regions share {counted((inside & outside).sum(), 'spot')}, so they cannot be compared; "
            "draw them apart."
        )
    if min(inside.sum(), outside.sum()) < FEWEST_SPOTS:
        raise UserError(
            f"One region holds {counted(inside.sum(), 'spot')} and the other {whole(outside.sum())}, but a "
            f"comparison needs at least {FEWEST_SPOTS} in each; draw a larger region."
        )


def differential_genes(
    values: npt.NDArray[Any],
    genes: Sequence[str],
    inside: BoolArray,
    outside: BoolArray | None = None,
) -> "pd.DataFrame":
    """Rank the genes by how much higher they are in one region than in another.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    genes
        (G,) symbols.
    inside, outside
        (n,) bool; without `outside` every other spot.

    Returns
    -------
    DataFrame
        gene; difference, of the mean log2(count + 1); mean_inside; mean_outside; score; p, two-sided; q,
        Benjamini–Hochberg over the genes.  Highest score first, equal ones in the order given.

    Raises
    ------
    UserError
        When a region holds fewer than two spots, or a spot is in both.
    """
    import pandas as pd

    rest = ~inside if outside is None else outside
    check_regions(inside, rest)
    first, second = values[inside], values[rest]
    found = []
    for start in range(0, values.shape[1], GENES_AT_ONCE):
        part = slice(start, start + GENES_AT_ONCE)
        a, b = first[:, part].astype(np.float64), second[:, part].astype(np.float64)
        found.append(np.stack([a.mean(axis=0), b.mean(axis=0), *wilcoxon(a, b)]))
    mean_inside, mean_outside, score, p = np.concatenate(found, axis=1)
    table = pd.DataFrame(
        {
            "gene": [str(gene) for gene in genes],
            "difference": mean_inside - mean_outside,
            "mean_inside": mean_inside,
            "mean_outside": mean_outside,
            "score": score,
            "p": p,
            "q": q_values(p),
        }
    )
    return table.iloc[np.argsort(-score, kind="stable")].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many genes the tops of two rankings share.

    Parameters
    ----------
    shared
        Genes among the first `of` of both.
    of
        How many of each were compared.
    chance
        `shared` to be expected of two rankings that know nothing of each other: of² / number of genes.
    genes
        The shared ones, in the order of the first ranking.
    """

    shared: int
    of: int
    chance: float
    genes: tuple[str, ...]


def overlap_at(first: Sequence[str], second: Sequence[str], k: int) -> Overlap:
    """Count the genes shared by the first `k` of two rankings, over the genes that both rank.

    Parameters
    ----------
    first, second
        Gene symbols from first to last, such as ``table["gene"]``.
    k
        How many of each; fewer where fewer genes are ranked by both.
    """
    both = set(first) & set(second)
    top = [[gene for gene in ranking if gene in both][:k] for ranking in (first, second)]
    shared = tuple(gene for gene in top[0] if gene in set(top[1]))
    of = min(k, len(both))
    return Overlap(len(shared), of, of * of / len(both) if both else 0.0, shared)
