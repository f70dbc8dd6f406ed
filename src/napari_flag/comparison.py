"""Compare a prediction with what was measured on the same spots.

The definitions are those of ``statistics``; this module matches spots and genes, refuses what
cannot be compared, and gathers the scores.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.matching import (
    Match,
    Unmatched,
    dense,
    find_unmatched,
    is_among,
    match_names,
    shared_counts,
)
from napari_flag.progress import Step, Steps, finish
from napari_flag.results import find_fault
from napari_flag.statistics import accuracy, autocorrelation, intervals
from napari_flag.statistics.autocorrelation import Neighbours
from napari_flag.statistics.scores import METRICS, MOST_GENES, Scores, score_values, scoring

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = [
    "METRICS",
    "Comparison",
    "Scores",
    "compare",
    "comparing",
    "score_values",
    "slide_name",
    "spot_neighbours",
    "trained_on",
]

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
    blocks = intervals.neighbouring_blocks(_xy(predicted)[match.rows])
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
    array = None
    if keys.ARRAY_ROW in adata.obs and keys.ARRAY_COL in adata.obs:
        both = adata.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy(np.float64)
        if np.isfinite(both).all():
            array = both.astype(np.int64)[rows]
    made = adata.uns.get(keys.PROVENANCE, {})
    lattice = str(made.get(keys.LATTICE, "none")) if isinstance(made, Mapping) else "none"
    return autocorrelation.find_neighbours(
        _xy(adata)[rows],
        array,
        "square" if lattice == "square" else "hex" if lattice == "hex" else "none",
    )


def slide_name(predicted: "AnnData") -> str:
    """Return the name of the slide a prediction was made on."""
    return str(predicted.uns[keys.PROVENANCE].get(keys.SLIDE_NAME, "this slide"))


def trained_on(predicted: "AnnData") -> bool:
    """Tell whether the slide is named among the sections its weights were trained on."""
    trained = predicted.uns[keys.PROVENANCE].get(keys.TRAINING_SLIDES, ())
    sections = [trained] if isinstance(trained, str) else [str(s) for s in trained]
    return is_among(slide_name(predicted), sections)


def _xy(predicted: "AnnData") -> accuracy.FloatArray:
    return np.asarray(predicted.obsm[keys.SPATIAL], dtype=np.float64)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
