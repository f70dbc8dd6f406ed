"""The metrics of one set of predicted values against the truth, with intervals and a table per gene."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.truth import (
    Match,
    Unmatched,
    dense,
    find_unmatched,
    match_names,
    shared_counts,
)
from napari_flag.errors import UserError
from napari_flag.prediction_file import (
    array_coordinates,
    find_fault,
    provenance,
    slide_name,
    stated_lattice,
    trained_on,
)
from napari_flag.progress import Step, Steps, finish
from napari_flag.statistics import accuracy, bootstrap, coexpression, moran, neighbours
from napari_flag.statistics.bootstrap import Interval
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


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
    clustered = table.moran_predicted.to_numpy(), table.moran_measured.to_numpy()
    paired = slice(len(genes) if len(genes) <= MOST_GENES else 0)
    first, second = (coexpression.gene_correlations(values[:, paired]) for values in (guess, truth))
    values = {
        "PCC": accuracy.mean_over_genes(table.pcc.to_numpy()),
        "MSE": float(table.mse.mean()),
        "GSC": coexpression.gene_structure_correlation(first, second, unseen[paired]),
        "SSC": moran.spatial_structure_correlation(*clustered, unseen),
        "cPCC": accuracy.mean_over_genes(table.cpcc.to_numpy()),
        "amplitude": accuracy.median_over_genes(table.amplitude.to_numpy()),
    }
    random = [np.random.default_rng([seed, k]) for k in range(5)]
    drawing: dict[str, Callable[[], Interval]] = {
        "PCC": lambda: bootstrap.pcc_interval(guess, truth, blocks, random[0]),
        "MSE": lambda: bootstrap.mse_interval(guess, truth, blocks, random[1]),
        "GSC": lambda: bootstrap.gsc_interval(first, second, unseen[paired], random[2]),
        "SSC": lambda: bootstrap.ssc_interval(*clustered, unseen, random[3]),
        "cPCC": lambda: bootstrap.pcc_interval(pure_guess, pure_truth, blocks, random[4]),
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
        "moran_predicted": lambda: moran.moran_i(guess, neighbours.weights),
        "moran_measured": lambda: moran.moran_i(truth, neighbours.weights),
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


HALF: Final = 0.5
ALL: Final = slice(None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction held against the truth of one slide.

    Parameters
    ----------
    slide, spots, genes
        Name of the slide; how many spots and genes were compared.
    scores
        "X" → `Scores` of the mean of the joint samples, "sample" → of one of them.
    tables
        "X" and "sample" → one row per gene in the order of the prediction: gene, pcc, cpcc,
        spearman, mse, amplitude, moran_predicted, moran_measured, mean (measured).
    neighbours
        Which graph Moran's I used.
    trained_on_this_slide
        The weights have seen this section: its scores say nothing about new tissue.
    """

    slide: str
    spots: int
    genes: int
    scores: dict[str, Scores]
    tables: "dict[str, pd.DataFrame]"
    neighbours: str
    unmatched: Unmatched
    trained_on_this_slide: bool
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``compare --json`` prints: plain Python, None where a number is unknown."""
        result: dict[str, Any] = {
            name: {
                **{metric: _known(value) for metric, value in scores.values.items()},
                "intervals_95": {
                    metric: [_known(end) for end in ends] if not math.isnan(ends[0]) else None
                    for metric, ends in scores.intervals.items()
                },
                "genes_constant_in_truth": scores.genes_constant_in_truth,
                "genes_predicted_constant": scores.genes_predicted_constant,
            }
            for name, scores in self.scores.items()
        }
        result |= {"slide": self.slide, "spots": self.spots, "genes": self.genes}
        result |= {"units": keys.EXPRESSION_UNITS, "neighbours": self.neighbours}
        result["trained_on_this_slide"] = self.trained_on_this_slide
        result["unmatched"] = {name: list(ids) for name, ids in asdict(self.unmatched).items()}
        result["notices"] = list(self.notices)
        result["use"] = keys.RESEARCH_USE_ONLY
        return result


def compare(predicted: "AnnData", measured: "AnnData", *, seed: int = 0) -> Comparison:
    """Return what `comparing` ends with, without its signs of life."""
    return finish(comparing(predicted, measured, seed=seed))


def comparing(predicted: "AnnData", measured: "AnnData", *, seed: int = 0) -> Steps[Comparison]:
    """Score `predicted` against `measured` on the spots and genes they share.

    Parameters
    ----------
    predicted
        A prediction file (see CONTRIBUTING.md).
    measured
        Raw counts; ``obs_names`` are the same spot ids, ``var_names`` gene symbols.
    seed
        Of the bootstrap.

    Raises
    ------
    UserError
        When `predicted` is not ours, `measured` holds no raw counts, nothing matches, or too
        little does.
    """
    yield Step("Matching spots and genes", 0, None)
    fault = find_fault(predicted)
    if fault:
        raise UserError(
            f"The file to compare {fault}, so it is no prediction of napari-flag; give the "
            "prediction first and the measured counts second."
        )
    match = match_names(predicted, measured)
    truth = np.log2(shared_counts(measured, match) + 1.0)
    unseen = accuracy.constant_genes(truth)
    if unseen.all():
        raise UserError(
            f"Each of the {len(unseen)} shared genes has the same count in every measured spot, so "
            "there is nothing to compare; check that these are the counts of this section."
        )
    neighbours = spot_neighbours(predicted, match.rows)
    blocks = bootstrap.neighbouring_blocks(_xy(predicted)[match.rows])
    genes = [str(gene) for gene in predicted.var_names[match.columns]]
    scores, tables = {}, {}
    for name, stage in (("X", "Scoring the mean"), ("sample", "Scoring one sample")):
        values = predicted.X if name == "X" else predicted.layers[keys.SAMPLE]
        guess = dense(values)[np.ix_(match.rows, match.columns)].astype(np.float64)
        scores[name], tables[name] = yield from scoring(
            guess, truth, neighbours, blocks, genes, seed, stage=stage
        )
    trained = trained_on(predicted)
    return Comparison(
        slide=slide_name(predicted),
        spots=len(match.rows),
        genes=len(genes),
        scores=scores,
        tables=tables,
        neighbours=neighbours.description,
        unmatched=find_unmatched(predicted, measured),
        trained_on_this_slide=trained,
        notices=_notices(predicted, measured, match, neighbours, unseen, trained),
    )


def _notices(
    predicted: "AnnData",
    measured: "AnnData",
    match: Match,
    neighbours: Neighbours,
    unseen: accuracy.BoolArray,
    trained: bool,
) -> tuple[str, ...]:
    """Gather what a reader of the scores must know."""
    notices = []
    if trained:
        notices.append(
            f"{slide_name(predicted)} is among the sections these weights were trained on, so "
            "these scores say nothing about new tissue."
        )
    if len(match.rows) < HALF * predicted.n_obs:
        notices.append(
            f"Only {len(match.rows)} of {predicted.n_obs} predicted spots are in the measured "
            "table; check that it is of this slide."
        )
    used = measured.var_names[match.measured_columns]
    twice = used[used.isin(measured.var_names[measured.var_names.duplicated()])]
    if len(twice):
        notices.append(
            f"{len(twice)} genes are listed more than once in the measured table (such as "
            f"{twice[0]}); the first of each was used."
        )
    if (~unseen).sum() < 3:
        notices.append("GSC and SSC need at least 3 genes that vary in truth, so they are left out.")
    if len(unseen) > MOST_GENES:
        notices.append(
            f"GSC needs all pairs of genes, so it is left out above {MOST_GENES:,} genes; predict a "
            "choice of genes to see it."
        )
    if neighbours.isolated:
        notices.append(
            f"{neighbours.isolated} of {len(match.rows)} spots have no neighbour in the graph of Moran's I."
        )
    return tuple(notices)


def spot_neighbours(adata: "AnnData", rows: npt.NDArray[Any] | slice = ALL) -> Neighbours:
    """Return which spots are neighbours, from the array where it is known and else from distances.

    Parameters
    ----------
    adata
        With ``obsm["spatial"]``; the lattice is read where napari-flag predicted it.
    rows
        Which of its spots, as mask or positions.
    """
    array = array_coordinates(adata)
    known = None if array is None else array[rows]
    return neighbours.find_neighbours(_xy(adata)[rows], known, stated_lattice(adata))


def _xy(predicted: "AnnData") -> accuracy.FloatArray:
    return np.asarray(predicted.obsm[keys.SPATIAL], dtype=np.float64)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


NAMED: Final = 5
"""Names listed of what could not be compared."""
NO_TRUTH: Final = (
    "No measured expression lies beside this prediction, so there is nothing to compare it with; "
    "choose the counts of the same section to see scores."
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What is known of every gene of one prediction.

    Parameters
    ----------
    comparison
        Metrics with intervals and what a reader must know; None without truth.
    tables
        "X" → one row per gene, gene and moran_predicted at least; with truth also "sample", and in
        both the columns of `Comparison.tables`.
    why_not
        Why there is no comparison, a sentence; "" where there is one.
    mismatches
        What could not be compared, a sentence for each kind.
    """

    comparison: "Comparison | None"
    tables: "dict[str, pd.DataFrame]"
    why_not: str = ""
    mismatches: tuple[str, ...] = ()


def agree(adata: "AnnData", measured: "AnnData | None" = None) -> Steps[Agreement]:
    """Compare `adata` with its truth; without one, describe the prediction alone.

    Parameters
    ----------
    adata
        As CONTRIBUTING, "The prediction file".
    measured
        Raw counts with all their spots and genes; None takes ``layers["measured"]``, if there is one.
    """
    reason = "" if measured is not None or keys.MEASURED in adata.layers else NO_TRUTH
    if not reason:
        try:
            truth = measured_counts(adata) if measured is None else measured
            comparison = yield from comparing(adata, truth)
        except UserError as error:
            reason = str(error)
        else:
            return Agreement(comparison, comparison.tables, mismatches=_mismatches(comparison))
    table = yield from _alone(adata)
    return Agreement(None, {"X": table}, reason)


def _mismatches(comparison: "Comparison") -> tuple[str, ...]:
    """Say what was not measured (what was only measured is no fault), and where nothing fits."""
    left = comparison.unmatched
    told = []
    for names, what, whole in (
        (left.genes_only_predicted, "genes", comparison.genes),
        (left.spots_only_predicted, "spots", comparison.spots),
    ):
        if names:
            more = ", …" if len(names) > NAMED else ""
            told.append(
                f"{len(names):,} of {len(names) + whole:,} predicted {what} were not measured, so they "
                f"are left out: {', '.join(names[:NAMED])}{more}"
            )
    low, high = comparison.scores["X"].intervals["PCC"]
    if low <= 0.0:  # never where there is no interval: NaN is not below anything
        told.append(
            f"Prediction and measurement do not go together (PCC between {low:.2f} and {high:.2f}); check "
            "that the counts are of this slide and its spots named alike."
        )
    return tuple(told)


def measured_counts(adata: "AnnData") -> "AnnData":
    """Return the raw counts behind ``layers["measured"]``, without spots and genes never measured.

    Parameters
    ----------
    adata
        A prediction whose layer holds log2(count + 1), NaN where not measured.

    Raises
    ------
    UserError
        When the layer is empty, or partly empty where it should hold counts.
    """
    from anndata import AnnData

    from napari_flag.analysis.truth import dense

    values = dense(adata.layers[keys.MEASURED]).astype(np.float64)
    known = np.isfinite(values)
    spots, genes = known.any(axis=1), known.any(axis=0)
    if not spots.any():
        raise UserError(
            "The measured layer of this prediction is empty, so there is nothing to compare it with; "
            "choose the counts of the same section."
        )
    # float32 holds log2(count + 1) to a ten-thousandth of a count, so rounding brings counts back
    counts = np.rint(np.exp2(values[np.ix_(spots, genes)]) - 1.0)
    found = AnnData(counts)
    found.obs_names, found.var_names = adata.obs_names[spots], adata.var_names[genes]
    return found


def _alone(adata: "AnnData") -> "Steps[pd.DataFrame]":
    """Return gene, mean, Moran's I and mean spread of every predicted gene."""
    import pandas as pd

    from napari_flag.analysis.truth import dense
    from napari_flag.statistics.moran import moran_i

    yield Step("Describing the prediction", 0, None)
    values = dense(adata.X).astype(np.float64)
    numbers = {
        "gene": [str(name) for name in adata.var_names],
        "moran_predicted": moran_i(values, spot_neighbours(adata).weights),
        "mean_predicted": values.mean(axis=0),
    }
    if keys.SPREAD in adata.layers:
        numbers["spread"] = dense(adata.layers[keys.SPREAD]).mean(axis=0)
    return pd.DataFrame(numbers)


FEWEST_SPOTS: Final = 3
SECTION_MOST_GENES: Final = 3000
"""GSC needs a table of all pairs of genes; beyond this it would take gigabytes."""
SECTION_PARTS: Final = 5


@dataclass(frozen=True, slots=True)
class GeneScore:
    """Scores of one gene across the spots; NaN where the measurement is the same everywhere."""

    pcc: float
    moran_predicted: float
    moran_measured: float


@dataclass(frozen=True, slots=True)
class SectionScores:
    """Scores of one section, read from ``X``; definitions in `napari_flag.statistics`.

    Parameters
    ----------
    overall
        "PCC", "MSE", "GSC", "SSC" over all genes.
    genes
        Scores of each gene.
    spots
        How many spots were compared.
    neighbours
        Which spots count as neighbours for Moran's I.
    trained_on
        Whether the weights have seen this section in training.
    """

    overall: dict[str, float]
    genes: dict[str, GeneScore]
    spots: int
    neighbours: str
    trained_on: bool


MEANING: Final = {
    "PCC": "Pearson correlation of predicted and measured over spots, mean over genes (1 is best)",
    "MSE": "Mean squared error of log2(count + 1) (0 is best)",
    "GSC": "Do the same genes go together? Agreement of gene–gene correlations (1 is best; "
    f"only computed up to {MOST_GENES:,} genes)",
    "SSC": "Are the same genes clustered in space? Agreement of Moran's I (1 is best)",
}


def score_section(adata: Any) -> SectionScores | None:
    """Return what `scoring_section` ends with, without its signs of life."""
    return finish(scoring_section(adata))


def scoring_section(adata: Any) -> Steps[SectionScores | None]:
    """Score ``X`` against ``layers["measured"]``; None when there is nothing to compare."""
    from napari_flag.statistics import accuracy, coexpression, moran

    if keys.MEASURED not in adata.layers:
        return None
    guess, truth = _dense(adata.X), _dense(adata.layers[keys.MEASURED])
    seen = np.asarray(np.isfinite(truth + guess).all(axis=1))
    if seen.sum() < FEWEST_SPOTS:
        return None
    guess, truth = guess[seen], truth[seen]
    unseen = accuracy.constant_genes(truth)
    graph = spot_neighbours(adata, seen)
    yield _step(0)
    pcc = accuracy.gene_pearson(guess, truth)
    yield _step(1)
    clustered = [moran.moran_i(values, graph.weights) for values in (guess, truth)]
    gsc = float("nan")
    if len(unseen) <= SECTION_MOST_GENES:
        together = []
        for place, values in enumerate((guess, truth)):
            yield _step(2 + place)
            together.append(coexpression.gene_correlations(values))
        yield _step(4)
        gsc = coexpression.gene_structure_correlation(together[0], together[1], unseen)
    overall = {
        "PCC": accuracy.mean_over_genes(pcc),
        "MSE": float(accuracy.gene_mse(guess, truth).mean()),
        "GSC": gsc,
        "SSC": moran.spatial_structure_correlation(clustered[0], clustered[1], unseen),
    }
    clustered[1][unseen] = np.nan
    rows = zip(adata.var_names, pcc, *clustered, strict=True)
    genes = {str(name): GeneScore(*map(float, numbers)) for name, *numbers in rows}
    ours = bool(provenance(adata))
    return SectionScores(overall, genes, int(seen.sum()), graph.description, ours and trained_on(adata))


def _step(done: int) -> Step:
    return Step("Scoring the section", done, SECTION_PARTS, "parts")


def _dense(matrix: Any) -> npt.NDArray[np.float64]:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, np.float64)
