"""The metrics of predicted values against the truth of the same spots: overall, and gene by gene."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import FEWEST_SPOTS, Extent, dense, measured_extent
from napari_flag.prediction_file import provenance, trained_on
from napari_flag.progress import Step, Steps, finish
from napari_flag.statistics import accuracy, bootstrap, coexpression, moran
from napari_flag.statistics.bootstrap import Interval
from napari_flag.statistics.coexpression import MOST_GENES
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


MEANING: Final = {
    "PCC": "Pearson correlation of predicted and measured over spots, mean over genes (1 is best)",
    "MSE": "Mean squared error of log2(count + 1) (0 is best)",
    "GSC": "Do the same genes go together? Agreement of gene–gene correlations (1 is best; "
    f"only computed up to {MOST_GENES:,} genes)",
    "SSC": "Are the same genes clustered in space? Agreement of Moran's I (1 is best)",
}
METRICS: Final = ("PCC", "MSE", "GSC", "SSC", "cPCC", "amplitude")
PARTS: Final = 7
"""Steps of scoring: the table, the metrics, and five intervals."""
COLUMNS: Final = (
    "gene", "pcc", "cpcc", "spearman", "mse", "amplitude", "moran_predicted", "moran_measured", "mean",
)  # fmt: skip
"""Of the table per gene."""
RANKED_AT_ONCE: Final = 256
"""Genes ranked between two progress steps."""


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
    """Return what `scoring` returns, without its progress steps."""
    return finish(scoring(guess, truth, neighbours, blocks, genes, seed))


def scoring(
    guess: accuracy.FloatArray,
    truth: accuracy.FloatArray,
    neighbours: Neighbours,
    blocks: npt.NDArray[np.int64] | None,
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
        (n,) block of neighbouring spots that each spot is drawn with in the bootstrap; None leaves out what
        takes long: the intervals, and Spearman's correlation in the table.
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
    table = yield from _gene_table(
        guess, truth, pure_guess, pure_truth, neighbours, genes, stage, blocks is not None
    )
    yield Step(stage, 1, PARTS, "parts")
    clustered = table.moran_predicted.to_numpy(), table.moran_measured.to_numpy(copy=True)
    first, second = (coexpression.correlations_for_gsc(values) for values in (guess, truth))
    values = {
        "PCC": accuracy.mean_over_genes(table.pcc.to_numpy()),
        "MSE": float(table.mse.mean()),
        "GSC": coexpression.gene_structure_correlation(first, second, unseen),
        "SSC": moran.spatial_structure_correlation(*clustered, unseen),
        "cPCC": accuracy.mean_over_genes(table.cpcc.to_numpy()),
        "amplitude": accuracy.median_over_genes(table.amplitude.to_numpy()),
    }
    table.loc[unseen, "moran_measured"] = np.nan  # of a constant gene there is no Moran's I
    constant = accuracy.constant_genes(guess) & ~unseen
    ends: dict[str, Interval] = {}
    if blocks is None:
        return Scores(values, ends, int(unseen.sum()), int(constant.sum())), table
    random = [np.random.default_rng([seed, k]) for k in range(5)]
    drawing: dict[str, Callable[[], Interval]] = {
        "PCC": lambda: bootstrap.pcc_interval(guess, truth, blocks, random[0]),
        "MSE": lambda: bootstrap.mse_interval(guess, truth, blocks, random[1]),
        "GSC": lambda: bootstrap.gsc_interval(first, second, unseen, random[2]),
        "SSC": lambda: bootstrap.ssc_interval(*clustered, unseen, random[3]),
        "cPCC": lambda: bootstrap.pcc_interval(pure_guess, pure_truth, blocks, random[4]),
    }
    for name, draw in drawing.items():
        yield Step(stage, 2 + len(ends), PARTS, "parts")
        ends[name] = draw()
    yield Step(stage, PARTS, PARTS, "parts")
    return Scores(values, ends, int(unseen.sum()), int(constant.sum())), table


def _gene_table(
    guess: accuracy.FloatArray,
    truth: accuracy.FloatArray,
    pure_guess: accuracy.FloatArray,
    pure_truth: accuracy.FloatArray,
    neighbours: Neighbours,
    genes: list[str],
    stage: str,
    ranked: bool,
) -> "Steps[pd.DataFrame]":
    import pandas as pd

    parts: dict[str, Callable[[], accuracy.FloatArray]] = {
        "pcc": lambda: accuracy.gene_pearson(guess, truth),
        "cpcc": lambda: accuracy.gene_pearson(pure_guess, pure_truth),
        "mse": lambda: accuracy.gene_mse(guess, truth),
        "amplitude": lambda: accuracy.gene_amplitude(guess, truth),
        "moran_predicted": lambda: moran.moran_i(guess, neighbours.weights),
        "moran_measured": lambda: moran.moran_i(truth, neighbours.weights),
        "mean": lambda: truth.mean(axis=0),
    }
    found: dict[str, Any] = {"gene": genes}
    for name, compute in parts.items():
        yield Step(stage, 0, PARTS, "parts")
        found[name] = compute()
    spearman = []
    for start in range(0, len(genes) if ranked else 0, RANKED_AT_ONCE):
        yield Step(stage, 0, PARTS, "parts")
        here = slice(start, start + RANKED_AT_ONCE)
        spearman.append(accuracy.gene_spearman(guess[:, here], truth[:, here]))
    if ranked:
        found["spearman"] = np.concatenate(spearman)
    return pd.DataFrame(found)[[column for column in COLUMNS if column in found]]


@dataclass(frozen=True, slots=True)
class GeneScore:
    """Scores of one gene.

    Parameters
    ----------
    pcc
        Over the spots that were measured; NaN where the measurement is missing, or the same everywhere.
    moran_predicted
        Moran's I of the prediction over all its spots.
    moran_measured
        Moran's I of the measurement; NaN as `pcc`.
    """

    pcc: float
    moran_predicted: float
    moran_measured: float


@dataclass(frozen=True, slots=True)
class SectionScores:
    """Scores of one section, read from ``X``; definitions in `napari_flag.statistics`.

    Parameters
    ----------
    overall
        Metric (see `METRICS`) → value over the spots and genes that were measured.
    genes
        Scores of each gene of the prediction.
    spots, genes_compared
        How many spots and genes were compared.
    neighbours
        Which spots count as neighbours for Moran's I.
    trained_on
        Whether the weights have seen this section in training.
    """

    overall: dict[str, float]
    genes: dict[str, GeneScore]
    spots: int
    genes_compared: int
    neighbours: str
    trained_on: bool


def scoring_section(adata: "AnnData") -> Steps[SectionScores | None]:
    """Score ``X`` against ``layers["measured"]``, without intervals; None where nothing was measured."""
    extent = measured_extent(adata)
    if extent is None or len(extent.spots) < FEWEST_SPOTS:
        return None
    stage = "Scoring the section"
    names = [str(name) for name in adata.var_names[extent.genes]]
    guess, truth = extent.cut(adata.X), extent.cut(adata.layers[keys.MEASURED])
    graph = spot_neighbours(adata, extent.spots)
    scores, table = yield from scoring(guess, truth, graph, None, names, 0, stage)
    yield Step(stage, PARTS - 1, PARTS, "parts")
    numbers = np.full((3, adata.n_vars), np.nan)
    numbers[0, extent.genes] = table.pcc
    numbers[1] = predicted_moran(adata, adata.X, extent, table)
    numbers[2, extent.genes] = table.moran_measured
    genes = {str(name): GeneScore(*map(float, numbers[:, k])) for k, name in enumerate(adata.var_names)}
    trained = bool(provenance(adata)) and trained_on(adata)
    return SectionScores(
        scores.values, genes, len(extent.spots), len(extent.genes), graph.description, trained
    )


def predicted_moran(
    adata: "AnnData", matrix: Any, extent: Extent, table: "pd.DataFrame"
) -> accuracy.FloatArray:
    """Return (G,) Moran's I of each gene of a prediction over all its spots, whatever was measured.

    Parameters
    ----------
    adata
        The prediction.
    matrix
        ``X``, or the draw that was scored.
    extent, table
        What it was compared on, and the table of `scoring` that came of it: it holds the answer where all
        spots and genes were compared.
    """
    if extent.is_all_of(adata):
        found: accuracy.FloatArray = table.moran_predicted.to_numpy()
        return found
    return moran.moran_i(dense(matrix).astype(np.float64), spot_neighbours(adata).weights)
