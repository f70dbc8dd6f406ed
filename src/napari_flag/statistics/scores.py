"""The metrics of one set of predicted values against the truth, with intervals and a table per gene."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.progress import Step, Steps, finish
from napari_flag.statistics import accuracy, autocorrelation, coexpression, intervals
from napari_flag.statistics.autocorrelation import Neighbours
from napari_flag.statistics.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

METRICS: Final = ("PCC", "MSE", "GSC", "SSC", "cPCC", "amplitude")
PARTS: Final = 7
"""Steps of scoring: the table, the metrics, and five intervals."""
COLUMNS: Final = (
    "gene", "pcc", "cpcc", "spearman", "mse", "amplitude", "moran_predicted", "moran_measured", "mean",
)  # fmt: skip
"""Of the table per gene."""
RANKED_AT_ONCE: Final = 256
"""Genes ranked between two signs of life."""
MOST_GENES: Final = 6000
"""GSC needs tables of all pairs of genes, 290 MB each at this number; above it is left out."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of one set of predicted values (``X`` or the one sample).

    Parameters
    ----------
    values
        Metric name (see `METRICS`) → value; NaN where it is not defined.
    intervals
        Metric name → 95 % bootstrap interval; amplitude has none.
    genes_constant_in_truth
        Genes left out of every correlation.
    genes_predicted_constant
        Genes that scored 0 for it.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    genes_constant_in_truth: int
    genes_predicted_constant: int


def score_values(
    guess: accuracy.FloatArray,
    truth: accuracy.FloatArray,
    neighbours: Neighbours,
    blocks: npt.NDArray[np.int64],
    genes: list[str],
    seed: int,
) -> "tuple[Scores, pd.DataFrame]":
    """Return what `scoring` ends with, without its signs of life."""
    return finish(scoring(guess, truth, neighbours, blocks, genes, seed))


def scoring(
    guess: accuracy.FloatArray,
    truth: accuracy.FloatArray,
    neighbours: Neighbours,
    blocks: npt.NDArray[np.int64],
    genes: list[str],
    seed: int,
    stage: str = "Scoring",
) -> "Steps[tuple[Scores, pd.DataFrame]]":
    """Compute the metrics of one set of values, their intervals, and the table per gene.

    Parameters
    ----------
    guess, truth
        (n, G) float64 log2(count + 1), predicted and measured, of the same spots and genes.
    neighbours
        First-ring graph of the spots.
    blocks
        (n,) block of neighbouring spots that each spot is drawn with in the bootstrap.
    genes
        G names.
    seed
        Of the bootstrap.
    stage
        What the steps call it.
    """
    unseen = accuracy.constant_genes(truth)
    pure_guess, pure_truth = accuracy.composition(guess), accuracy.composition(truth)
    yield Step(stage, 0, PARTS, "parts")
    table = yield from _gene_table(guess, truth, pure_guess, pure_truth, neighbours, genes, stage)
    yield Step(stage, 1, PARTS, "parts")
    moran = table.moran_predicted.to_numpy(), table.moran_measured.to_numpy()
    paired = slice(len(genes) if len(genes) <= MOST_GENES else 0)
    first, second = (coexpression.gene_correlations(values[:, paired]) for values in (guess, truth))
    values = {
        "PCC": accuracy.mean_over_genes(table.pcc.to_numpy()),
        "MSE": float(table.mse.mean()),
        "GSC": coexpression.gene_structure_correlation(first, second, unseen[paired]),
        "SSC": autocorrelation.spatial_structure_correlation(*moran, unseen),
        "cPCC": accuracy.mean_over_genes(table.cpcc.to_numpy()),
        "amplitude": accuracy.median_over_genes(table.amplitude.to_numpy()),
    }
    random = [np.random.default_rng([seed, k]) for k in range(5)]
    drawing: dict[str, Callable[[], Interval]] = {
        "PCC": lambda: intervals.pcc_interval(guess, truth, blocks, random[0]),
        "MSE": lambda: intervals.mse_interval(guess, truth, blocks, random[1]),
        "GSC": lambda: intervals.gsc_interval(first, second, unseen[paired], random[2]),
        "SSC": lambda: intervals.ssc_interval(*moran, unseen, random[3]),
        "cPCC": lambda: intervals.pcc_interval(pure_guess, pure_truth, blocks, random[4]),
    }
    ends: dict[str, Interval] = {}
    for name, draw in drawing.items():
        yield Step(stage, 2 + len(ends), PARTS, "parts")
        ends[name] = draw()
    yield Step(stage, PARTS, PARTS, "parts")
    silent = accuracy.constant_genes(guess) & ~unseen
    return Scores(values, ends, int(unseen.sum()), int(silent.sum())), table


def _gene_table(
    guess: accuracy.FloatArray,
    truth: accuracy.FloatArray,
    pure_guess: accuracy.FloatArray,
    pure_truth: accuracy.FloatArray,
    neighbours: Neighbours,
    genes: list[str],
    stage: str,
) -> "Steps[pd.DataFrame]":
    import pandas as pd

    parts: dict[str, Callable[[], accuracy.FloatArray]] = {
        "pcc": lambda: accuracy.gene_pearson(guess, truth),
        "cpcc": lambda: accuracy.gene_pearson(pure_guess, pure_truth),
        "mse": lambda: accuracy.gene_mse(guess, truth),
        "amplitude": lambda: accuracy.gene_amplitude(guess, truth),
        "moran_predicted": lambda: autocorrelation.moran_i(guess, neighbours.weights),
        "moran_measured": lambda: autocorrelation.moran_i(truth, neighbours.weights),
        "mean": lambda: truth.mean(axis=0),
    }
    found: dict[str, Any] = {"gene": genes}
    for name, compute in parts.items():
        yield Step(stage, 0, PARTS, "parts")
        found[name] = compute()
    spearman = []
    for start in range(0, len(genes), RANKED_AT_ONCE):
        yield Step(stage, 0, PARTS, "parts")
        here = slice(start, start + RANKED_AT_ONCE)
        spearman.append(accuracy.gene_spearman(guess[:, here], truth[:, here]))
    found["spearman"] = np.concatenate(spearman)
    return pd.DataFrame(found)[list(COLUMNS)]
