"""The metrics of predicted values against the truth of the same spots: overall, gene by gene, and of draws.

A prediction gives two answers.  ``X``, the expectation, is judged by `EXPECTATION`; draws, each of them one
expression that could have been measured, by `STRUCTURE` and the proper scores.  An expectation cannot have
the truth's structure, since the truth is noisy and an expectation is not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import FEWEST_SPOTS, Extent, dense, measured_extent
from napari_flag.formatting import counted, whole
from napari_flag.prediction_file import trained_on
from napari_flag.progress import Step, Steps
from napari_flag.statistics import accuracy, bootstrap, coexpression, moran, scoring_rules
from napari_flag.statistics.bootstrap import Interval
from napari_flag.statistics.coexpression import MOST_GENES
from napari_flag.statistics.neighbours import Neighbours
from napari_flag.statistics.scoring_rules import FEWEST_DRAWS as FEWEST_DRAWS

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


EXPECTATION: Final = ("PCC", "MSE", "cPCC")
"""What ``X`` is judged by."""
STRUCTURE: Final = ("GSC", "SSC", "amplitude")
"""What draws are judged by, mean over the first `FEWEST_DRAWS`, beside `PROPER`."""
PROPER: Final = scoring_rules.NAMES
METRICS: Final = ("PCC", "MSE", "GSC", "SSC", "cPCC", "amplitude")
"""Of any array of values; the paper's table reads the first four from one."""
MEANING: Final = {
    "PCC": "Pearson correlation of predicted and measured over spots, mean over genes (1 is best)",
    "MSE": "Mean squared error of log2(count + 1) (0 is best)",
    "cPCC": "PCC after each spot's mean over the genes is taken away: what is not depth (1 is best)",
    "GSC": "Do the same genes go together? Agreement of gene–gene correlations (1 is best; "
    f"only computed up to {whole(MOST_GENES)} genes)",
    "SSC": "Are the same genes clustered in space? Agreement of Moran's I (1 is best)",
    "amplitude": "Do maps vary as strongly as measured? Median over genes of variance predicted / measured "
    "(1 is best)",
    **{name: f"{meaning} (0 is best)" for name, meaning in scoring_rules.MEANING.items()},
}
"""Of each metric and proper score, a sentence for a person."""
FAIR: Final = (
    "fair, that is of the distribution that the draws come from, whatever their number and however evenly "
    "their noise is spread"
)
"""What proper scores are where several models' draws are judged beside each other."""
MOST_JUDGED: Final = 2 * keys.DRAWS_TOGETHER
"""Draws of a model that are judged fairly; of more the first so many are taken."""
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
    """The metrics of one set of predicted values (``X`` or the one draw).

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
    by_gene = {name: table[name].to_numpy() for name in ("pcc", "mse", "cpcc", "amplitude")}
    values = _overall(by_gene, clustered, (first, second), unseen)
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


def _overall(
    by_gene: Mapping[str, accuracy.FloatArray],
    clustered: tuple[accuracy.FloatArray, accuracy.FloatArray],
    together: tuple[accuracy.FloatArray, accuracy.FloatArray],
    unseen: accuracy.BoolArray,
) -> dict[str, float]:
    """Return the metrics from numbers per gene, Moran's I and correlations, each predicted and measured."""
    return {
        "PCC": accuracy.mean_over_genes(by_gene["pcc"]),
        "MSE": float(by_gene["mse"].mean()),
        "GSC": coexpression.gene_structure_correlation(*together, unseen),
        "SSC": moran.spatial_structure_correlation(*clustered, unseen),
        "cPCC": accuracy.mean_over_genes(by_gene["cpcc"]),
        "amplitude": accuracy.median_over_genes(by_gene["amplitude"]),
    }


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
class DrawScores:
    """Scores of the joint draws of one slide; none is read from ``X``.

    Parameters
    ----------
    by_draw
        Metric (see `METRICS`) → (K,) float64, one value per draw, also of those that no mean is over.
    proper
        Proper score (see `PROPER`) → value of the first `judged` draws, lower is better; NaN where it is not
        defined.  Empty where there are too few draws.
    intervals
        Of each proper score, the 95 % bootstrap interval: over blocks of neighbouring spots, that of ES-map
        over genes.
    block
        None where proper scores are of the draws as they are; a number where they are fair and so many
        consecutive draws may depend on each other.
    spotwise
        The proper scores spot by spot; None where there are too few draws.
    """

    by_draw: dict[str, accuracy.FloatArray]
    proper: dict[str, float]
    intervals: dict[str, Interval]
    block: int | None = None
    spotwise: scoring_rules.ProperScores | None = None

    @property
    def judged(self) -> int:
        """How many draws the proper scores are of; 0 where there are too few."""
        return judged_of(self.number, self.block)

    @property
    def number(self) -> int:
        """How many draws there are."""
        return len(self.by_draw["PCC"])

    @property
    def averaged(self) -> int:
        """How many draws `values` are the mean over: the first `FEWEST_DRAWS`, or all of fewer."""
        return min(self.number, FEWEST_DRAWS)

    @property
    def values(self) -> dict[str, float]:
        """Metric → mean over the first `averaged` draws; NaN where there is none."""
        return {
            name: float(values[: self.averaged].mean()) if self.averaged else math.nan
            for name, values in self.by_draw.items()
        }

    @property
    def mean_of(self) -> str:
        """What `values` are, in words: "mean of 4 draws", "mean of the first 8 draws"."""
        first = "the first " if self.averaged < self.number else ""
        return f"mean of {first}{counted(self.averaged, 'draw')}"

    @property
    def why_not(self) -> str | None:
        """Why there are no proper scores, a sentence; None where there are."""
        if self.proper:
            return None
        needed = _needed(self.block)
        if self.number == 0:
            return (
                f"CRPS, energy and variogram scores need {needed} joint draws and this file holds "
                "none, so its expectation alone is judged."
            )
        if self.block == 1:
            return (
                f"CRPS, energy and variogram scores need {needed} joint draws and this file holds fewer, so "
                f"they are left out; have its program write {needed}."
            )
        if self.block is not None:
            return (
                f"The noise of draws 1–{self.block} is spread evenly over them, which favours them over "
                f"another model's, so CRPS, energy and variogram scores beside other models need {needed} "
                f"draws and are left out; predict with --draws {needed}, or draw up to {needed} on the "
                "Samples page of napari-flag, and save."
            )
        have = "one draw" if self.number == 1 else f"{self.number} draws"
        return (
            f"CRPS, energy and variogram scores need {FEWEST_DRAWS} joint draws and this prediction holds "
            f"{have}; predict with --draws {FEWEST_DRAWS}, or draw up to {FEWEST_DRAWS} on the Samples page "
            "of napari-flag, and save."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python, None where a number is unknown."""
        values = self.values
        proper: dict[str, Any] | None = None
        if self.proper:
            proper = {"draws": self.judged, **({} if self.block is None else {"fair": True})}
            proper |= {name: known(value) for name, value in self.proper.items()}
            proper["intervals_95"] = plain_intervals(self.intervals)
        return {
            "number": self.number,
            "mean_over": self.averaged,
            **{metric: known(values[metric]) for metric in (*EXPECTATION, *STRUCTURE)},
            "proper_scores": proper,
            "why_no_proper_scores": self.why_not,
        }


def _needed(block: int | None) -> int:
    """Return how many draws proper scores need."""
    return FEWEST_DRAWS if block is None else max(FEWEST_DRAWS, 2 * block)


def judged_of(number: int, block: int | None) -> int:
    """Return how many of `number` draws proper scores are of, in whole blocks; 0 where they are too few."""
    most = FEWEST_DRAWS if block is None else min(number, MOST_JUDGED) // block * block
    return most if min(number, most) >= _needed(block) else 0


def known(value: float) -> float | None:
    """Return `value` as JSON holds it: None for NaN."""
    return None if math.isnan(value) else value


def plain_intervals(intervals: Mapping[str, Interval]) -> dict[str, list[float] | None]:
    """Return intervals as JSON holds them: None where there is none."""
    return {name: None if math.isnan(ends[0]) else list(ends) for name, ends in intervals.items()}


def scoring_draws(
    drawn: Sequence[npt.NDArray[Any]],
    truth: accuracy.FloatArray,
    neighbours: Neighbours,
    blocks: npt.NDArray[np.int64],
    seed: int,
    stage: str = "Scoring draws",
    *,
    block: int | None = None,
) -> Steps[DrawScores]:
    """Score joint draws: the metrics of each, and the proper scores of the first of them (`judged_of`).

    Parameters
    ----------
    drawn
        K arrays (n, G), log2(count + 1); none where the file holds no draws.
    truth, neighbours, blocks, seed
        As for `scoring`.
    stage
        What the steps call it.
    block
        As for `scoring_rules.scoring_draws`: None scores the draws as they are, a number scores fairly.
    """
    unseen, pure_truth = accuracy.constant_genes(truth), accuracy.composition(truth)
    yield Step(stage, 0, len(drawn), "draws")
    clustered, together = moran.moran_i(truth, neighbours.weights), coexpression.correlations_for_gsc(truth)
    found: list[dict[str, float]] = []
    for draw in drawn:
        yield Step(stage, len(found), len(drawn), "draws")
        one = draw.astype(np.float64)
        by_gene = {
            "pcc": accuracy.gene_pearson(one, truth),
            "mse": accuracy.gene_mse(one, truth),
            "cpcc": accuracy.gene_pearson(accuracy.composition(one), pure_truth),
            "amplitude": accuracy.gene_amplitude(one, truth),
        }
        yield Step(stage, len(found), len(drawn), "draws")
        roughness = moran.moran_i(one, neighbours.weights)
        correlations = coexpression.correlations_for_gsc(one)
        found.append(_overall(by_gene, (roughness, clustered), (correlations, together), unseen))
    by_draw = {name: np.array([values[name] for values in found]) for name in METRICS}
    first = drawn[: judged_of(len(drawn), block)]
    if not first:
        return DrawScores(by_draw, {}, {}, block)
    judged = yield from scoring_rules.scoring_draws(first, truth, neighbours.weights, stage, block=block)
    ends: dict[str, Interval] = {}
    for place, name in enumerate(PROPER):
        yield Step(stage, len(drawn), len(drawn), "draws")
        scored = judged.values(name)
        together_drawn = np.arange(len(scored)) if name in judged.by_gene else blocks
        random = np.random.default_rng([seed, len(METRICS) + place])
        ends[name] = bootstrap.mean_interval(scored, judged.weights(name), together_drawn, random)
    return DrawScores(by_draw, judged.means(), ends, block, judged)


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
        A sentence where the weights have seen this section in training, else None.
    """

    overall: dict[str, float]
    genes: dict[str, GeneScore]
    spots: int
    genes_compared: int
    neighbours: str
    trained_on: str | None


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
    return SectionScores(
        scores.values, genes, len(extent.spots), len(extent.genes), graph.description, trained_on(adata)
    )


def spot_blocks(adata: "AnnData", extent: Extent) -> npt.NDArray[np.int64]:
    """Return the block of neighbouring spots that each spot of `extent` is drawn with in the bootstrap."""
    return bootstrap.neighbouring_blocks(np.asarray(adata.obsm[keys.SPATIAL], np.float64)[extent.spots])


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
