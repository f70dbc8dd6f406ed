"""A prediction compared with its measurement on the spots and genes that both have."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.count_doubts import of_genes
from napari_flag.analysis.draws import score_draws
from napari_flag.analysis.scores import (
    EXPECTATION,
    STRUCTURE,
    DrawScores,
    Scores,
    known,
    plain_intervals,
    predicted_moran,
    scoring,
    spot_blocks,
)
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import (
    MEASURED,
    Extent,
    Match,
    Unmatched,
    dense,
    extent_of,
    find_unmatched,
    match_names,
    other_letters,
    refuse_doubts,
    remarks_on,
    repeated_genes,
    shared_counts,
    truth_of,
)
from napari_flag.errors import Doubtful, UserError
from napari_flag.formatting import counted_of, first_of, score, whole
from napari_flag.prediction_doubts import doubts_of, find_misplaced, refuse_misplaced
from napari_flag.prediction_file import find_fault, output_name, trained_on
from napari_flag.progress import Step, Steps, finish
from napari_flag.slides.spots import doubt_of_overlap
from napari_flag.statistics import accuracy, calibration, scoring_rules
from napari_flag.statistics.calibration import LEVELS as LEVELS
from napari_flag.statistics.coexpression import MOST_GENES
from napari_flag.statistics.moran import moran_i
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData


HALF: Final = 0.5
"""Share of the predicted spots below which a notice says that the measured table may be another section's."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction compared with the truth of one slide.

    Parameters
    ----------
    slide, spots, genes
        Name of the slide; how many spots and genes were compared.
    scores
        "X" → `Scores` of the expectation, "sample" → of one joint draw, ``layers["sample"]``, where there is
        one.  Both have all metrics, for tables like the paper's, which reads them from one array.
    draws
        Scores of all joint draws that the prediction holds, maybe none, where structure is judged.
    tables
        "X" and "sample" → one row per gene in the order of the prediction: gene, pcc, cpcc,
        spearman, mse, amplitude, moran_predicted (over all spots of the prediction), moran_compared (over the
        spots compared, which SSC correlates with the next), moran_measured, mean (measured).
    neighbours
        Which graph Moran's I used.
    trained_on_this_slide
        The weights have seen this section: its scores say nothing about new tissue.
    """

    slide: str
    spots: int
    genes: int
    scores: dict[str, Scores]
    draws: DrawScores
    tables: "dict[str, pd.DataFrame]"
    neighbours: str
    unmatched: Unmatched
    trained_on_this_slide: bool
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``compare --json`` prints: plain Python, None where a number is unknown."""
        result: dict[str, Any] = {
            name: {
                **{metric: known(scores.values[metric]) for metric in (*EXPECTATION, *STRUCTURE)},
                "intervals_95": plain_intervals(scores.intervals),
                "genes_constant_in_truth": scores.genes_constant_in_truth,
                "genes_predicted_constant": scores.genes_predicted_constant,
            }
            for name, scores in self.scores.items()
        }
        result["draws"] = self.draws.to_dict()
        result |= {"slide": self.slide, "spots": self.spots, "genes": self.genes}
        result |= {"units": keys.EXPRESSION_UNITS, "neighbours": self.neighbours}
        result["trained_on_this_slide"] = self.trained_on_this_slide
        result["unmatched"] = {name: list(ids) for name, ids in asdict(self.unmatched).items()}
        result["notices"] = list(self.notices)
        result["use"] = keys.RESEARCH_USE_ONLY
        return result


def comparing(
    predicted: "AnnData", measured: "AnnData", *, force: bool = False, fair: bool = False
) -> Steps[Comparison]:
    """Score `predicted` against `measured` on the spots and genes they share.

    Parameters
    ----------
    predicted
        A prediction file (see docs/prediction-file.md).
    measured
        Raw counts; ``obs_names`` are the same spot ids, ``var_names`` gene symbols.
    force
        Compare also counts that look wrong (see `truth.doubts_about`), and a prediction whose spots do (see
        `prediction_doubts.find_misplaced`), with a notice.
    fair
        Whether draws are judged by fair proper scores, which compare with those of other models.

    Raises
    ------
    UserError
        When `predicted` is not ours or looks wrong, `measured` holds no raw counts or looks wrong, nothing
        matches, or too little does.
    """
    yield Step("Matching spots and genes", 0, None)
    fault = find_fault(predicted)
    if fault:
        raise UserError(
            f"The file to compare {fault}, so it is no prediction of napari-flag; give the "
            "prediction first and the measured counts second."
        )
    refuse_misplaced(predicted, force)
    match = match_names(predicted, measured)
    truth = np.log2(shared_counts(measured, match) + 1.0)
    unseen = accuracy.constant_genes(truth)
    if unseen.all():
        raise UserError(
            f"Each of the {whole(len(unseen))} shared genes has the same count in every measured spot, "
            "so there is nothing to compare; check that these are the counts of this section."
        )
    insisted = refuse_doubts(predicted, measured, match, force)
    extent = Extent(match.rows, match.columns)
    neighbours = spot_neighbours(predicted, extent.spots)
    blocks = spot_blocks(predicted, extent)
    genes = [str(gene) for gene in predicted.var_names[extent.genes]]
    scores, tables = {}, {}
    judged = [("X", "Scoring the expectation", predicted.X)]
    if keys.SAMPLE in predicted.layers:
        judged.append(("sample", "Scoring one draw", predicted.layers[keys.SAMPLE]))
    for name, stage, values in judged:
        scores[name], table = yield from scoring(
            extent.cut(values), truth, neighbours, blocks, genes, keys.ANALYSIS_SEED, stage=stage
        )
        everywhere = predicted_moran(predicted, values, extent, table)[extent.genes]
        table = table.rename(columns={"moran_predicted": "moran_compared"})
        table.insert(table.columns.get_loc("moran_compared"), "moran_predicted", everywhere)
        tables[name] = table
    drawn = yield from score_draws(predicted, extent, truth, fair=fair)
    trained = trained_on(predicted)
    return Comparison(
        slide=output_name(predicted),
        spots=len(match.rows),
        genes=len(genes),
        scores=scores,
        draws=drawn,
        tables=tables,
        neighbours=neighbours.description,
        unmatched=find_unmatched(predicted, measured),
        trained_on_this_slide=trained is not None,
        notices=(
            *insisted,
            *remarks_on(predicted, measured, match),
            *of_genes(extent.cut(predicted.X).mean(axis=0), truth.mean(axis=0)),
            *_disagreement(scores["X"]),
            *_notices(predicted, measured, match, neighbours, unseen, trained, drawn),
        ),
    )


def _disagreement(of_x: Scores) -> tuple[str, ...]:
    """Return a notice where prediction and measurement have nothing in common."""
    low, high = of_x.intervals["PCC"]
    if not low <= 0.0:  # NaN too, where there is no interval
        return ()
    return (
        f"Prediction and measurement do not agree (PCC between {score(low, 'PCC')} and "
        f"{score(high, 'PCC')}); check "
        "that the counts are of this slide and its spots named alike.",
    )


def _notices(
    predicted: "AnnData",
    measured: "AnnData",
    match: Match,
    neighbours: Neighbours,
    unseen: accuracy.BoolArray,
    trained: str | None,
    drawn: DrawScores,
) -> tuple[str, ...]:
    """Return notices about the scores, after what a file of another program made doubtful or lacks."""
    notices = list(doubts_of(predicted))
    if (letters := other_letters(predicted, measured)) is not None:
        notices.append(letters)
    if trained:
        notices.append(trained)
    if len(match.rows) < HALF * predicted.n_obs:
        notices.append(
            f"Only {counted_of(len(match.rows), predicted.n_obs, 'predicted spot')} are in the measured "
            "table; check that it is of this slide."
        )
    elif doubt := doubt_of_overlap(len(match.rows), predicted.n_obs, measured.n_obs):
        notices.append(doubt)
    if (twice := repeated_genes(measured, match)) is not None:
        notices.append(twice)
    if (~unseen).sum() < 3:
        notices.append("GSC and SSC need at least 3 genes that vary in truth, so they are left out.")
    if len(unseen) > MOST_GENES:
        notices.append(
            f"GSC needs all pairs of genes, so it is left out above {whole(MOST_GENES)} genes; predict a "
            "choice of genes to see it."
        )
    if drawn.proper and len(unseen) > scoring_rules.MOST_GENES:
        notices.append(
            f"VS-gene needs all pairs of genes in every spot, so it is left out above "
            f"{whole(scoring_rules.MOST_GENES)} genes; predict a choice of genes to see it."
        )
    if neighbours.isolated:
        notices.append(
            f"{counted_of(neighbours.isolated, len(match.rows), 'spot')} have no neighbour in the graph of "
            "Moran's I."
        )
    return tuple(notices)


NAMED: Final = 5
"""Names listed of what could not be compared."""
NO_TRUTH: Final = (
    "This prediction has no measured expression, so there is nothing to compare it with; "
    "choose the counts of the same section to see scores."
)


@dataclass(frozen=True, slots=True)
class GeneAgreement:
    """Table per gene of one prediction: compared with the measurement, or described alone.

    Parameters
    ----------
    comparison
        Metrics with intervals and what a reader must know; None without truth.
    tables
        "X" → one row per gene, gene and moran_predicted at least; with truth also "sample", and in
        both the columns of `Comparison.tables`.
    why_not
        Why there is no comparison, a sentence; "" where there is one.
    left_out
        What could not be compared, a sentence for each kind.
    doubted
        Counts or places of spots look wrong, and are used only where a person insists (`agree` with `force`).
    """

    comparison: "Comparison | None"
    tables: "dict[str, pd.DataFrame]"
    why_not: str = ""
    left_out: tuple[str, ...] = ()
    doubted: bool = False


def agree(
    adata: "AnnData", measured: "AnnData | None" = None, *, force: bool = False
) -> Steps[GeneAgreement]:
    """Compare `adata` with its truth; without one, describe the prediction alone.

    Parameters
    ----------
    adata
        As docs/prediction-file.md states.
    measured
        Raw counts with all their spots and genes; None takes ``layers["measured"]``, if there is one.
    force
        As of `comparing`.
    """
    doubted = find_misplaced(adata) is not None and not force
    truth = yield from truth_of(adata, measured)
    reason = NO_TRUTH
    if truth is not None:
        try:
            comparison = yield from comparing(adata, truth, force=force)
        except UserError as error:
            reason, doubted = str(error), isinstance(error, Doubtful)
        else:
            return GeneAgreement(comparison, comparison.tables, left_out=_left_out(comparison))
    table = yield from _alone(adata)
    return GeneAgreement(None, {"X": table}, reason, doubted=doubted)


def _left_out(comparison: "Comparison") -> tuple[str, ...]:
    """Return notices of what was not measured (what was only measured is no fault)."""
    left = comparison.unmatched
    sentences = []
    for names, what, compared in (
        (left.genes_only_predicted, "predicted gene", comparison.genes),
        (left.spots_only_predicted, "predicted spot", comparison.spots),
    ):
        if names:
            sentences.append(
                f"{counted_of(len(names), len(names) + compared, what)} were not measured, so they "
                f"are left out: {first_of(names, NAMED)}"
            )
    return tuple(sentences)


def _alone(adata: "AnnData") -> "Steps[pd.DataFrame]":
    """Return gene, mean, Moran's I and mean spread of every predicted gene."""
    import pandas as pd

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


@dataclass(frozen=True, slots=True)
class Section:
    """Predicted and measured values of one section.

    Parameters
    ----------
    name
        Of the section.
    genes
        G symbols.
    extent
        Which spots and genes of the prediction were measured.
    truth, predicted, sample
        (n, G) float64 log2(count + 1): measured, ``X``, and one joint draw (``X`` again without one).
    spread
        (n, G) ``layers["sd"]``, None where the file states none.
    moran_truth, moran_sample
        (G,) Moran's I on the array's first ring, measured and of `sample`.
    sample_scores
        The six metrics of `sample`.
    drawn
        Whether `sample` is a draw.
    """

    name: str
    genes: tuple[str, ...]
    extent: Extent
    truth: accuracy.FloatArray
    predicted: accuracy.FloatArray
    sample: accuracy.FloatArray
    spread: accuracy.FloatArray | None
    moran_truth: accuracy.FloatArray
    moran_sample: accuracy.FloatArray
    sample_scores: dict[str, float]
    drawn: bool = True

    def coverage(self, levels: "Sequence[float]") -> "tuple[calibration.Coverage, ...]":
        """Return how often the truth lies within X ± z · sd at each nominal share; needs `spread`."""
        assert self.spread is not None
        return tuple(calibration.normal_coverage(self.predicted, self.spread, self.truth, levels))


def section_of(adata: "AnnData", comparison: Comparison | None = None) -> Section:
    """Return the spots and genes of `adata` that have a truth, and what the pictures need of them.

    Parameters
    ----------
    adata
        A prediction with ``layers["measured"]`` (see `truth.attach_measured`).
    comparison
        Of the same prediction and truth, where it was made already; scores and Moran's I are its.

    Raises
    ------
    UserError
        When nothing was measured.
    """
    extent = extent_of(adata, MEASURED)
    drawn = keys.SAMPLE in adata.layers
    truth = extent.cut(adata.layers[keys.MEASURED])
    sample = extent.cut(adata.layers[keys.SAMPLE] if drawn else adata.X)
    symbols = tuple(str(gene) for gene in adata.var_names[extent.genes])
    if comparison is None:
        neighbours = spot_neighbours(adata, extent.spots)
        scores, table = finish(scoring(sample, truth, neighbours, None, list(symbols), keys.ANALYSIS_SEED))
    else:
        array = "sample" if drawn else "X"
        scores, table = comparison.scores[array], comparison.tables[array]
    compared = "moran_compared" if "moran_compared" in table else "moran_predicted"
    return Section(
        name=output_name(adata),
        genes=symbols,
        extent=extent,
        truth=truth,
        predicted=extent.cut(adata.X),
        sample=sample,
        spread=extent.cut(adata.layers[keys.SPREAD]) if keys.SPREAD in adata.layers else None,
        moran_truth=table.moran_measured.to_numpy(),
        moran_sample=table[compared].to_numpy(),
        sample_scores=scores.values,
        drawn=drawn,
    )
