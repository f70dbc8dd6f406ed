"""Proper scores of joint draws: lower is better, and nothing but a better distribution lowers them.

Gneiting & Raftery 2007 (CRPS, energy score) and Scheuerer & Hamill 2015 (variogram score, order ½).  All are
of K draws of one slide against its measurement, in log2(count + 1).  The term of spread of CRPS and energy
score is 1 / (2 K²) over all ordered pairs of draws, a draw with itself among them, so that scores of
different K must not be compared.  *Fair* scores (Ferro 2014) are those of the distribution itself, whatever
K: their expectation is that of infinitely many draws.  Draws whose noise is spread evenly over a block are
not independent; of them only pairs from different blocks count.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.progress import Step, Steps, finish
from napari_flag.statistics.accuracy import FloatArray

if TYPE_CHECKING:
    from scipy import sparse

FEWEST_DRAWS: Final = 8
"""Draws that are scored: fewer are too few, of more the first so many are taken, so that scores compare."""
MOST_GENES: Final = 1000
"""The variogram score over pairs of genes grows with their square; above this number it is NaN."""
ENTRIES_AT_ONCE: Final = 4_000_000
"""(pairs of spots × genes) held at once, 32 MB of float64 per array."""
PAIRS_AT_ONCE: Final = 8_000_000
"""(spots × genes × genes) between two progress steps; of these, (spots × genes) are held at once."""
NAMES: Final = ("CRPS", "ES", "ES-map", "VS-gene", "VS-space")
MEANING: Final = {
    "CRPS": "Distance between the draws of one value and its measurement, mean over spots and genes",
    "ES": "The same for all genes of a spot together (energy score), mean over spots",
    "ES-map": "The same for the whole map of a gene (energy score), mean over genes",
    "VS-gene": "Do draws differ between the genes of a spot as measured? (variogram score, pairs of genes)",
    "VS-space": "Do draws differ between neighbouring spots as measured? (variogram score, first-ring pairs)",
}
"""Of each score, for reports; 0 is best."""


@dataclass(frozen=True, slots=True)
class ProperScores:
    """Scores of K draws, by spot, so that blocks of spots can be drawn for an interval.

    Parameters
    ----------
    by_spot
        "CRPS", "ES", "VS-gene" and "VS-space" → (n,) float64; NaN where a score is not defined.
    neighbours
        (n,) float64, number of first-ring neighbours: the weight of a spot in "VS-space".
    by_gene
        "ES-map" → (G,) float64.
    """

    by_spot: dict[str, FloatArray]
    neighbours: FloatArray
    by_gene: dict[str, FloatArray]

    def weights(self, name: str) -> FloatArray:
        """Return the weight of each spot (or gene) in the mean of the score `name`."""
        if name == "VS-space":
            return self.neighbours
        return np.ones(len(self.by_gene[name] if name in self.by_gene else self.by_spot[name]))

    def values(self, name: str) -> FloatArray:
        """Return the score `name` by spot, or by gene for "ES-map"."""
        return self.by_gene[name] if name in self.by_gene else self.by_spot[name]

    def means(self) -> dict[str, float]:
        """Return each score over the slide, in the order of `NAMES`."""
        found = {}
        for name in NAMES:
            weights = self.weights(name)
            total = float(weights.sum())
            found[name] = float(weights @ self.values(name)) / total if total else float("nan")
        return found


def proper_scores(
    draws: Sequence[npt.NDArray[Any]], measured: npt.NDArray[Any], graph: "sparse.csr_array"
) -> ProperScores:
    """Return what `scoring_draws` returns, without its progress steps."""
    return finish(scoring_draws(draws, measured, graph))


def scoring_draws(
    draws: Sequence[npt.NDArray[Any]],
    measured: npt.NDArray[Any],
    graph: "sparse.csr_array",
    stage: str = "Scoring draws",
    *,
    block: int | None = None,
) -> Steps[ProperScores]:
    """Score K draws against the measurement of the same spots and genes.

    Parameters
    ----------
    draws
        K arrays (n, G), log2(count + 1); float32 is widened as it is used, so that K need not fit twice.
    measured
        (n, G) log2(count + 1).
    graph
        (n, n) first-ring neighbours, as `neighbours.Neighbours.weights`; only which pairs it holds counts.
    stage
        What the steps call it.
    block
        None scores the K draws as they are.  A number scores fairly the distribution that they came from: so
        many consecutive draws may depend on each other (`model.diffusion.TOGETHER`; 1 for independent draws)
        but not on any other, and K is two blocks or more.

    Raises
    ------
    ValueError
        When there is no draw, shapes differ, or K is not a multiple of `block` and two of them at least.
    """
    truth = np.asarray(measured, np.float64)
    if not draws or any(np.shape(draw) != truth.shape for draw in draws):
        raise ValueError("draws and measurement must be of the same spots and genes")
    drawn = [np.asarray(draw) for draw in draws]
    k, genes = len(drawn), truth.shape[1]
    if block is not None and (k % block or k < 2 * block):
        raise ValueError(f"{k} draws are not two or more blocks of {block}")
    apart = [(i, j) for i in range(k) for j in range(i) if block is None or i // block != j // block]
    pairs = k**2 if block is None else 2 * len(apart)
    parts = k + len(apart) + 2
    crps, by_spot, by_gene = np.zeros(len(truth)), np.zeros(len(truth)), np.zeros(genes)
    done = 0
    for one in drawn:
        yield Step(stage, done, parts, "parts")
        done += 1
        away = one - truth
        crps += np.abs(away).mean(axis=1) / k
        square = away * away
        by_spot += np.sqrt(square.sum(axis=1)) / k
        by_gene += np.sqrt(square.sum(axis=0)) / k
    for i, j in apart:  # each stands for two ordered pairs
        yield Step(stage, done, parts, "parts")
        done += 1
        away = np.subtract(drawn[i], drawn[j], dtype=np.float64)
        crps -= np.abs(away).mean(axis=1) / pairs
        square = away * away
        by_spot -= np.sqrt(square.sum(axis=1)) / pairs
        by_gene -= np.sqrt(square.sum(axis=0)) / pairs
    yield Step(stage, parts - 2, parts, "parts")
    between_genes = yield from _between_genes(drawn, truth, block, stage, parts)
    yield Step(stage, parts - 1, parts, "parts")
    between_spots, degree = _between_spots(drawn, truth, graph, block)
    return ProperScores(
        {"CRPS": crps, "ES": by_spot, "VS-gene": between_genes, "VS-space": between_spots},
        degree,
        {"ES-map": by_gene},
    )


def _between_genes(
    drawn: list[npt.NDArray[Any]], truth: FloatArray, block: int | None, stage: str, parts: int
) -> Steps[FloatArray]:
    """Return (n,) variogram scores over all ordered pairs of genes within a spot."""
    n, genes = truth.shape
    found = np.full(n, np.nan)
    if genes > MOST_GENES:
        return found
    rows = max(1, PAIRS_AT_ONCE // max(1, genes * genes))
    for start in range(0, n, rows):
        yield Step(stage, parts - 2, parts, "parts")
        seen, *sampled = (np.array(one[start : start + rows].T, np.float64) for one in (truth, *drawn))
        total = np.zeros(seen.shape[1])
        for apart in range(1, genes):  # all pairs of genes so far apart in the table, each once
            variograms = (_variogram(one[apart:], one[:-apart]) for one in sampled)
            total += _missed(_variogram(seen[apart:], seen[:-apart]), variograms, block).sum(axis=0)
        found[start : start + rows] = 2 * total / genes**2
    return found


def _between_spots(
    drawn: list[npt.NDArray[Any]], truth: FloatArray, graph: "sparse.csr_array", block: int | None
) -> tuple[FloatArray, FloatArray]:
    """Return (n,) variogram scores over a spot's first-ring pairs and all genes, and its (n,) neighbours."""
    pairs = graph.tocoo()
    total, rows = np.zeros(len(truth)), max(1, ENTRIES_AT_ONCE // max(1, truth.shape[1]))
    for start in range(0, len(pairs.row), rows):
        here, there = pairs.row[start : start + rows], pairs.col[start : start + rows]
        variograms = (_variogram(one[here], one[there]) for one in drawn)
        missed = _missed(_variogram(truth[here], truth[there]), variograms, block)
        total += np.bincount(here, weights=missed.mean(axis=1), minlength=len(truth))
    degree = np.bincount(pairs.row, minlength=len(truth)).astype(np.float64)
    return total / np.maximum(degree, 1), degree


def _missed(seen: FloatArray, variograms: Iterable[FloatArray], block: int | None) -> FloatArray:
    """Return the squared distance of `seen` to the mean of K variograms; with a block, to their expectation.

    That is the mean of products of distances, each to the mean of another block.
    """
    total, squares, blocks = np.zeros_like(seen), np.zeros_like(seen), 0
    of_block, k = np.zeros_like(seen), 0
    for one in variograms:
        of_block += one
        k += 1
        if k == block:
            away = seen - of_block / block
            total += away
            squares += away * away
            of_block, k, blocks = np.zeros_like(seen), 0, blocks + 1
    found: FloatArray
    if block is None:
        found = (seen - of_block / k) ** 2
    else:
        found = (total * total - squares) / (blocks * (blocks - 1))
    return found


def _variogram(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> FloatArray:
    found: FloatArray = np.subtract(a, b, dtype=np.float64)
    np.abs(found, out=found)
    return np.sqrt(found, out=found)  # order ½
