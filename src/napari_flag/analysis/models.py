"""Several models' predictions of one section against one measurement, over what all of them have.

Every model is judged on the same spots and genes, with one graph and the same blocks in the bootstrap, beside
controls that see the measurement of the section and no image.  Draws are judged by fair proper scores (Ferro
2014): our draws spread their noise evenly over eight of them and another program's do not, which scores of
the draws as they are would take for a better distribution.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.compare import NO_TRUTH, Comparison, comparing
from napari_flag.analysis.domains import find_domains
from napari_flag.analysis.pathways import DomainSets, bundled, recover_domains
from napari_flag.analysis.scores import (
    EXPECTATION,
    PROPER,
    STRUCTURE,
    Scores,
    known,
    plain_intervals,
    scoring,
    spot_blocks,
)
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import (
    FEWEST_SPOTS,
    MEASURED,
    Extent,
    attach_measured,
    match_names,
    shared_counts,
)
from napari_flag.errors import Doubtful, UserError
from napari_flag.foreign_prediction import NEAR, is_foreign, name_by_place
from napari_flag.formatting import counted, counted_of, px
from napari_flag.prediction_file import (
    array_coordinates,
    draw_layers,
    output_name,
    provenance,
    slide_hash,
    slide_name,
    slide_size,
    spots_of,
)
from napari_flag.progress import Steps
from napari_flag.slide_identity import are_of_one_slide
from napari_flag.slides.spots import typical_pitch
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.domains import FEWEST_SPOTS as FEWEST_FOR_DOMAINS
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


CONTROLS: Final = {
    "control: gene means": "each gene's measured mean in every spot, as any constant map",
    "control: depth alone": "each gene on a line over the measured mean of the others, the spot left out",
    "control: neighbours": "the measured mean of a spot's neighbours, the spot left out",
}
"""Name → what it predicts.  All are made of the measurement that they are judged by."""
OF_X: Final = (*EXPECTATION, *STRUCTURE)
"""Columns of the table that are read from ``X``."""


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Scores of several predictions of one section, side by side.

    Parameters
    ----------
    slide, spots, genes
        Name of the section; how many spots and genes all models and the measurement have.
    models
        Name → `Comparison` over these spots and genes.
    controls
        Name (see `CONTROLS`) → scores of what sees no image.
    pathways
        Name → gene sets of the truth's domains that the model recovers; {} where the spots are too few for
        domains.
    notices
        What must be known of the table as a whole; that of one model stands in its `Comparison`.
    """

    slide: str
    spots: int
    genes: int
    models: dict[str, Comparison]
    controls: dict[str, Scores]
    pathways: dict[str, DomainSets]
    notices: tuple[str, ...]

    def table(self) -> "pd.DataFrame":
        """Return one row per model and control.

        Columns are model, the metrics of ``X`` with ``_low`` and ``_high`` where there is an interval, the
        number of draws, their structure (``draws_GSC`` …, `DrawScores.values`), fair proper scores
        (``CRPS_fair`` …) of the first ``draws_judged``, and how many gene sets are raised in the truth's
        domains: ``sets_tested``, ``sets_measured``, ``sets_predicted``, ``sets_shared``, ``sets_chance``,
        ``sets_p``.
        """
        import pandas as pd

        rows = [
            _row(name, found.scores["X"], found) | _sets_of(self.pathways.get(name))
            for name, found in self.models.items()
        ]
        return pd.DataFrame(rows + [_row(name, scores, None) for name, scores in self.controls.items()])

    def said(self) -> list[str]:
        """Return what a reader must know, with the names of the models where it is not said of all."""
        by: dict[str, list[str]] = {}
        for name, comparison in self.models.items():
            for sentence in comparison.notices:
                by.setdefault(sentence, []).append(name)
        every = len(self.models)
        own = [f"{', '.join(names)}: {said}" if len(names) < every else said for said, names in by.items()]
        return [*self.notices, *own]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``compare --json`` prints: plain Python, None where a number is unknown."""
        return {
            "slide": self.slide,
            "spots": self.spots,
            "genes": self.genes,
            "units": keys.EXPRESSION_UNITS,
            "models": {
                name: found.to_dict()
                | ({"gene_sets": self.pathways[name].to_dict()} if name in self.pathways else {})
                for name, found in self.models.items()
            },
            "controls": {
                name: {
                    "meaning": CONTROLS[name],
                    **{metric: known(scores.values[metric]) for metric in OF_X},
                    "intervals_95": plain_intervals(scores.intervals),
                }
                for name, scores in self.controls.items()
            },
            "notices": list(self.notices),
            "use": keys.RESEARCH_USE_ONLY,
        }


def _row(name: str, scores: Scores, of: Comparison | None) -> dict[str, Any]:
    row: dict[str, Any] = {"model": name}
    for metric in OF_X:
        row[metric] = scores.values[metric]
        if metric in scores.intervals:
            row[f"{metric}_low"], row[f"{metric}_high"] = scores.intervals[metric]
    row["draws"] = 0 if of is None else of.draws.number
    for metric in STRUCTURE:
        row[f"draws_{metric}"] = np.nan if of is None else of.draws.values[metric]
    row["draws_judged"] = 0 if of is None else of.draws.judged
    proper = {} if of is None else of.draws.proper
    return row | {f"{metric}_fair": proper.get(metric, np.nan) for metric in PROPER}


def _sets_of(found: DomainSets | None) -> dict[str, Any]:
    if found is None:
        return {}
    sets = found.whole
    return {
        "sets_tested": sets.tested,
        "sets_measured": len(sets.measured),
        "sets_predicted": len(sets.predicted),
        "sets_shared": len(sets.shared),
        "sets_chance": sets.chance,
        "sets_p": sets.p,
    }


def comparing_models(
    predictions: "Mapping[str, AnnData]",
    measured: "AnnData",
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    force: bool = False,
) -> Steps[ModelComparison]:
    """Score several predictions over the spots and genes that all of them and the measurement have.

    Parameters
    ----------
    predictions
        Name → prediction, two or more; none is changed.  Where spots lie, and which are neighbours, is taken
        from the one that `placing` names.
    measured
        Raw counts.
    sets
        Gene sets to look for in the truth's domains, name → symbols; None takes the bundled ones.
    force
        Compare also predictions that state different slides, with a notice; else as `comparing` takes it.

    Raises
    ------
    UserError
        When they state different slides, too few spots or no genes are in all of them, or as `comparing`.
    """
    doubt = _of_two_slides(predictions)
    if doubt is not None and not force:
        raise Doubtful(
            f"{doubt}; compare each with the counts of its slide, or insist: --force on the command line, "
            "force=True in Python."
        )
    found = yield from _comparing(predictions, measured, sets, force)
    said = _other_contents(predictions) if doubt is None else (f"{doubt}; as was insisted on, it does.",)
    return replace(found, notices=(*said, *found.notices))


def _of_two_slides(predictions: "Mapping[str, AnnData]") -> str | None:
    """Return a sentence without its end where predictions of ours state different slides; else None."""
    ours = {name: each for name, each in predictions.items() if not is_foreign(each)}
    for name, other in ours.items():
        first, of_first = next(iter(ours.items()))
        if not are_of_one_slide(of_first, other):
            slides = f"{_stated(of_first)} and {_stated(other)}"
            return (
                f"{first} and {name} state different slides ({slides}), so one measurement cannot judge both"
            )
    return None


def _stated(adata: "AnnData") -> str:
    size = slide_size(adata)
    return slide_name(adata) if size is None else f"{slide_name(adata)} of {px(size)}"


def _other_contents(predictions: "Mapping[str, AnnData]") -> tuple[str, ...]:
    """Say where slides of one name and size state different contents, as one that was written anew does."""
    contents = {
        name: digest for name, each in predictions.items() if (digest := slide_hash(each)) is not None
    }
    if len(set(contents.values())) < 2:
        return ()
    return (
        f"The slides of {', '.join(contents)} have one name and size and different contents; check that they "
        "are one section.",
    )


def _comparing(
    predictions: "Mapping[str, AnnData]",
    measured: "AnnData",
    sets: Mapping[str, Sequence[str]] | None,
    force: bool,
) -> Steps[ModelComparison]:
    spots, genes = _common(predictions, measured)
    placed = predictions[placing(predictions)]
    models = {}
    for name, prediction in predictions.items():
        models[name] = yield from comparing(
            _cut(prediction, spots, genes, placed), measured, force=force, fair=True
        )
    first = _cut(placed, spots, genes, placed)
    controls = yield from _score_controls(first, measured)
    cuts = {name: _cut(prediction, spots, genes, placed) for name, prediction in predictions.items()}
    pathways = yield from _recover(cuts, measured, bundled() if sets is None else sets)
    notices = (*_left_out(predictions, spots, genes), *_not_judged(models))
    return ModelComparison(output_name(placed), len(spots), len(genes), models, controls, pathways, notices)


def comparing_beside(
    predictions: "Mapping[str, AnnData]",
    truth: "Steps[AnnData | None]",
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    force: bool = False,
) -> Steps[ModelComparison]:
    """Score several predictions of one slide beside the counts that `truth` finds (`truth.truth_of`).

    Else as `comparing_models`; whether they state one slide is not asked, since who calls it has opened them
    on one.

    Raises
    ------
    UserError
        When there are no counts, or as `comparing_models`.
    """
    measured = yield from truth
    if measured is None:
        raise UserError(NO_TRUTH)
    return (yield from _comparing(predictions, measured, sets, force))


def placing(predictions: "Mapping[str, AnnData]") -> str:
    """Return which prediction says where spots lie: the first that knows the array, else the first."""
    known_array = (name for name, each in predictions.items() if array_coordinates(each) is not None)
    return next(known_array, next(iter(predictions)))


def on_spots_of(adata: "AnnData", other: "AnnData", name: str) -> "AnnData":
    """Return a prediction whose rows of the ids of `other`, called `name`, lie where these lie.

    Rows of another program's that bear none of these ids are named by their place.

    Raises
    ------
    UserError
        When spots of one id lie in different places, or no row lies on a spot.
    """
    rows = other.obs_names.get_indexer(adata.obs_names)
    if is_foreign(adata) and not (rows >= 0).any():
        return name_by_place(adata, spots_of(other), name)
    xy = np.asarray(other.obsm[keys.SPATIAL], np.float64)
    apart = np.linalg.norm(np.asarray(adata.obsm[keys.SPATIAL], np.float64) - xy[rows], axis=1)
    if (apart[rows >= 0] > NEAR * typical_pitch(xy)).any():
        raise UserError(
            f"Spots of one name lie in different places in {output_name(adata)} and {name}, so one "
            "measurement cannot be pooled into both; predict the same spots, or compare the predictions one "
            "by one."
        )
    return adata


def _common(predictions: "Mapping[str, AnnData]", measured: "AnnData") -> tuple["pd.Index", "pd.Index"]:
    """Return the ids of the spots and the symbols of the genes that all have, in the order of the first."""
    for prediction in predictions.values():
        match_names(prediction, measured)  # says which one is of another slide
    first, *others = predictions.values()
    spots, genes = first.obs_names, first.var_names
    for other in (*others, measured):
        spots, genes = spots[spots.isin(other.obs_names)], genes[genes.isin(other.var_names)]
    if len(spots) < FEWEST_SPOTS or not len(genes):
        names = ", ".join(predictions)
        raise UserError(
            f"{names} and the measurement have {counted(len(spots), 'spot')} and "
            f"{counted(len(genes), 'gene')} in common, too few to compare; compare those that are of the "
            "same spots and genes."
        )
    return spots, genes


def _cut(adata: "AnnData", spots: "pd.Index", genes: "pd.Index", placed: "AnnData") -> "AnnData":
    """Return a prediction over these spots and genes, placed where `placed` says."""
    from anndata import AnnData

    rows, columns = adata.obs_names.get_indexer(spots), adata.var_names.get_indexer(genes)
    at = placed.obs_names.get_indexer(spots)
    cut = Extent(rows, columns)
    obs = placed.obs.iloc[at][[c for c in (keys.ARRAY_ROW, keys.ARRAY_COL) if c in placed.obs]]
    found = AnnData(
        cut.cut(adata.X).astype(np.float32),
        obs=obs,
        layers={name: cut.cut(adata.layers[name]).astype(np.float32) for name in draw_layers(adata)},
    )
    found.var_names = genes
    found.obsm[keys.SPATIAL] = np.asarray(placed.obsm[keys.SPATIAL], np.float64)[at]
    found.uns[keys.PROVENANCE] = dict(provenance(adata)) | {
        keys.LATTICE: provenance(placed).get(keys.LATTICE, "none")
    }
    if keys.SPREAD in adata.layers:
        found.layers[keys.SPREAD] = cut.cut(adata.layers[keys.SPREAD]).astype(np.float32)
    return found


def _left_out(predictions: "Mapping[str, AnnData]", spots: "pd.Index", genes: "pd.Index") -> tuple[str, ...]:
    """Return how much of each model is judged, where that is not all of it."""
    return tuple(
        f"Of {name}, {counted_of(len(spots), adata.n_obs, 'spot')} and "
        f"{counted_of(len(genes), adata.n_vars, 'gene')} are judged: those that all models and the "
        "measurement have."
        for name, adata in predictions.items()
        if (len(spots), len(genes)) != adata.shape
    )


def _not_judged(models: Mapping[str, Comparison]) -> tuple[str, ...]:
    """Return why draws that are there have no proper scores, a sentence for all models of one reason."""
    by: dict[str, list[str]] = {}
    for name, found in models.items():
        if found.draws.number and found.draws.why_not is not None:
            by.setdefault(found.draws.why_not, []).append(name)
    return tuple(f"{', '.join(names)}: {why_not}" for why_not, names in by.items())


def _recover(
    cuts: "Mapping[str, AnnData]", measured: "AnnData", sets: Mapping[str, Sequence[str]]
) -> Steps[dict[str, DomainSets]]:
    """Return the gene sets that each model recovers in the domains of the one measurement."""
    found: dict[str, DomainSets] = {}
    numbers = None
    for name, adata in cuts.items():
        if adata.n_obs < FEWEST_FOR_DOMAINS:
            break
        attach_measured(adata, measured, force=True)  # compared already
        if numbers is None:  # spots, places and measurement are the same in all
            numbers = yield from find_domains(adata, MEASURED)
        recovered = yield from recover_domains(adata, numbers, sets)
        if recovered is not None:
            found[name] = recovered
    return found


def _score_controls(adata: "AnnData", measured: "AnnData") -> Steps[dict[str, Scores]]:
    match = match_names(adata, measured)
    truth = np.log2(shared_counts(measured, match) + 1.0)
    extent = Extent(match.rows, match.columns)
    neighbours, blocks = spot_neighbours(adata, extent.spots), spot_blocks(adata, extent)
    names = [str(gene) for gene in adata.var_names]
    scores = {}
    for control, guess in zip(CONTROLS, _controls(truth, neighbours), strict=True):
        scores[control], _ = yield from scoring(
            guess, truth, neighbours, blocks, names, keys.ANALYSIS_SEED, stage="Scoring controls"
        )
    return scores


def _controls(truth: FloatArray, neighbours: Neighbours) -> Sequence[FloatArray]:
    """Return the (n, G) predictions of `CONTROLS`, in that order."""
    n, genes = truth.shape
    means = np.broadcast_to(truth.mean(axis=0), truth.shape)
    depth = (truth.sum(axis=1, keepdims=True) - truth) / max(genes - 1, 1)
    apart = depth - depth.mean(axis=0)
    squares = (apart**2).sum(axis=0)
    slope = np.divide((apart * truth).sum(axis=0), squares, out=np.zeros(genes), where=squares > 0)
    residual = truth - (means + apart * slope)
    leverage = 1 / n + np.divide(apart**2, squares, out=np.zeros_like(apart), where=squares > 0)
    left_out = truth - residual / np.clip(1 - leverage, 1 / n, None)  # leave-one-out residual of a line
    around = neighbours.weights @ truth
    alone = np.asarray(neighbours.weights.sum(axis=1)).ravel() == 0
    around[alone] = means[alone]
    return means.copy(), left_out, around
