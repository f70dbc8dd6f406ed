"""The six metrics of a prediction on one slide, as ``napari-flag compare`` defines them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData

from flag_training.cohort import Cohort, TrainingSlide, load_cohort
from flag_training.config import RunConfig
from flag_training.methods import Method, blinded, controls
from flag_training.run_folders import states_folder
from flag_training.stages.fit import fit, tile_encoder
from napari_flag import keys
from napari_flag.analysis.scores import scoring
from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.flag import Context, Flag
from napari_flag.model.graph import GraphTensors
from napari_flag.model.samplers import SamplerSettings
from napari_flag.prediction_file import build_prediction, write_prediction
from napari_flag.progress import Step, Steps, finish
from napari_flag.sampling import Expression, sample_expression
from napari_flag.statistics.calibration import normal_coverage, spread_over_error
from napari_flag.statistics.neighbours import find_neighbours

FloatArray: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = dict[str, float]
"""Metric → value; NaN where it is not defined."""


def score(predicted: FloatArray, slide: TrainingSlide) -> Scores:
    """Return the metrics of (n, G) `predicted` log2(count + 1) on `slide`; no intervals are drawn."""
    spots = slide.spots
    scored, _ = finish(
        scoring(
            predicted.astype(np.float64),
            slide.expression.astype(np.float64),
            find_neighbours(spots.xy, spots.array, spots.lattice),
            blocks=None,
            genes=[str(gene) for gene in range(predicted.shape[1])],
            seed=0,
        )
    )
    return scored.values


SHUFFLED = "X, tiles shuffled"
TURNED = "X, turned and re-stained"


@dataclass(frozen=True, slots=True)
class FlagScores:
    """What FLAG scores on a section.

    Parameters
    ----------
    scores
        What was scored → metrics.  ``X`` also has ``coverage_50``, ``_80``, ``_95``, the shares of truth
        within X ± z · sd, and ``spread/error`` (1 is calibrated), where several samples were drawn.
    expression
        What was drawn.
    """

    scores: dict[str, Scores]
    expression: Expression


def score_flag(
    network: Flag, slide: TrainingSlide, views: FloatArray, config: RunConfig, genes: tuple[str, ...]
) -> Steps[FlagScores]:
    """Draw and score a section that `network` was not trained on.

    Parameters
    ----------
    network
        In evaluation mode.
    slide
        The section with its truth.
    views
        (views, n, d) features; the first as the section is, the others turned and re-stained as a whole.
    config
        Number of samples and seed.
    genes
        The panel.
    """
    features = views[0]
    shuffled = np.random.default_rng(config.fit.seed).permutation(len(features))
    cases = {"X": features, SHUFFLED: features[shuffled]}
    cases |= {f"{TURNED} {i}": view for i, view in enumerate(views[1:], start=1)}
    found: dict[str, Scores] = {}
    kept: Expression | None = None
    for name, seen in cases.items():
        drawn, context = yield from draw(network, slide, seen, config, genes)
        found[name] = score(drawn.mean, slide)
        if kept is None:
            kept = drawn
            found[name] |= _calibration(drawn, slide)
            found["sample"] = score(drawn.sample, slide)
            no_noise = torch.zeros_like(context.expected)
            expected = context.expression(no_noise, torch.arange(len(features), device=no_noise.device))
            found["mean head"] = score(expected.cpu().numpy(), slide)
    found["kernel branch"] = score(_kernel(network, slide, features), slide)
    assert kept is not None  # cases are never empty
    return FlagScores(found, kept)


def draw(
    network: Flag, slide: TrainingSlide, features: FloatArray, config: RunConfig, genes: tuple[str, ...]
) -> Steps[tuple[Expression, Context]]:
    """Draw the config's number of samples for all spots of `slide` under (n, d) `features`."""
    settings = SamplerSettings(samples=config.samples, seed=config.fit.seed)
    predictor = FlagPredictor(network, genes)
    encoded = predictor.encode(features, slide.graph(features))
    rows = np.arange(len(features))
    drawn = yield from sample_expression(predictor, encoded, slide.spots.ids, rows, settings)
    return drawn, encoded.context


def _calibration(drawn: Expression, slide: TrainingSlide) -> Scores:
    if drawn.spread is None:
        return {}
    truth = slide.expression
    shares = {
        f"coverage_{level.level * 100:.0f}": level.share
        for level in normal_coverage(drawn.mean, drawn.spread, truth)
    }
    return shares | {"spread/error": spread_over_error(drawn.mean, drawn.spread, truth)}


def _kernel(network: Flag, slide: TrainingSlide, features: FloatArray) -> FloatArray:
    """Return what the closed-form branch expects alone."""
    raw = torch.from_numpy(features).to(network.get_buffer("spread").device)
    with torch.inference_mode():
        graph = network.seen(GraphTensors.of(slide.graph(features), device=raw.device))
        smooth = network.mean_head.kernel(network.normalization.features(raw), graph)
        location, scale, _ = network.normalization.expression(raw)
        expected: FloatArray = (location + scale * smooth).clamp_min(0).cpu().numpy()
    return expected


def held_out_prediction(
    slide: TrainingSlide,
    expression: Expression,
    genes: tuple[str, ...],
    trained_on: tuple[str, ...],
    config: RunConfig,
) -> AnnData:
    """Return a held-out prediction with its truth in ``layers["measured"]``, as `keys` describes it."""
    spots = slide.spots
    made = {
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.SLIDE_NAME: slide.entry.name,
        keys.MPP: slide.mpp,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
        keys.WEIGHTS_NAME: config.name,
        keys.TRAINING_SLIDES: list(trained_on),
        keys.SAMPLES: config.samples,
        keys.SEED: config.fit.seed,
        keys.NOT_FOR_DIAGNOSIS: keys.RESEARCH_USE_ONLY,
    }
    layers = {
        keys.SAMPLE: expression.sample,
        keys.MEASURED: slide.expression,
        keys.SPREAD: expression.spread,
    }
    return build_prediction(expression.mean, spots, genes, made, layers=layers)


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold: sections to score, and sections left out of training.

    Parameters
    ----------
    test
        Sections scored.
    left_out
        Sections that contribute to nothing; `test` is among them.
    """

    test: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to score, and against what.

    Parameters
    ----------
    test
        Sections to score.
    unseen
        Sections kept out of every fold.
    by_patient
        Whether a section's whole patient is left out with it.
    together
        Whether all of `test` is left out at once, as a split has it, instead of in turn.
    train_without
        Sections left out of the training (not of the tile encoder) a second time round; () is once.
    once
        Whether to train without them only.
    methods
        Name → (kind, method): "floor", "published" or "image-blind".
    flag
        Whether FLAG itself is trained and scored.
    seeds
        FLAG's seeds, and of methods named in `reseeded`; the others take the first.
    reseeded
        Names of methods run with every seed.
    """

    test: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    by_patient: bool = False
    together: bool = False
    train_without: tuple[str, ...] = ()
    once: bool = False
    methods: Mapping[str, tuple[str, Method]] | None = None
    flag: bool = True
    seeds: tuple[int, ...] = (0,)
    reseeded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One set of predicted values on one section.

    Parameters
    ----------
    run
        Name of the config.
    kind
        "FLAG", "floor", "published", "image-blind" or "landmark" (which has seen the truth).
    method
        Its name; of FLAG, what was scored: "X", "sample", …
    training
        "all others", or "without B4".
    section, seed, scores
        Where, with which seed, and the metrics.
    """

    run: str
    kind: str
    method: str
    training: str
    section: str
    seed: int
    scores: Scores


def folds_of(config: RunConfig, plan: Plan) -> tuple[Fold, ...]:
    """Return the folds of `plan`: one per section, one per patient, or one for all."""
    kept = config.without(plan.unseen).slides
    patients = {entry.name: entry.patient for entry in kept}
    absent = [name for name in plan.test if name not in patients]
    if absent:
        raise UserError(
            f"The run has no section {', '.join(absent)} to score; it has {', '.join(patients)} besides "
            "those kept unseen."
        )
    parts: list[tuple[str, ...]] = [(name,) for name in plan.test]
    if plan.together:
        parts = [plan.test]
    elif plan.by_patient:
        of = dict.fromkeys(patients[name] for name in plan.test)
        parts = [tuple(name for name in plan.test if patients[name] == patient) for patient in of]
    if not plan.by_patient:
        return tuple(Fold(test, test) for test in parts)
    removed_patients = [{patients[name] for name in test} for test in parts]
    return tuple(
        Fold(test, tuple(name for name, patient in patients.items() if patient in whose))
        for test, whose in zip(parts, removed_patients, strict=True)
    )


def evaluate(
    config: RunConfig, data: Path, run: Path, plan: Plan, predictions: Path | None = None
) -> Steps[tuple[Record, ...]]:
    """Score everything in `plan`, fold by fold.

    Parameters
    ----------
    config, data, run
        As for `fit.train`; tile encoders, features and states of the folds are kept in `run`.
    plan
        What to score.
    predictions
        Folder for FLAG's held-out predictions with their truth (first seed, first training).
    """
    found: list[Record] = []
    for fold in folds_of(config, plan):
        cohort = yield from fold_cohort(config, data, run, plan, fold)
        found += yield from score_fold(cohort, config, run, plan, fold, predictions)
    return tuple(found)


def encoder_run(config: RunConfig, plan: Plan, fold: Fold) -> RunConfig:
    """Return the run whose images the fold's tile encoder may see: nothing of what is left out."""
    return config.without((*plan.unseen, *fold.left_out))


def fold_cohort(config: RunConfig, data: Path, run: Path, plan: Plan, fold: Fold) -> Steps[Cohort]:
    """Load all sections but the unseen, encoded by a network that saw no image of the fold's test."""
    if config.store is not None:
        return (yield from load_cohort(config.without(plan.unseen), data, run, None))
    net = yield from tile_encoder(encoder_run(config, plan, fold), data, run)
    return (yield from load_cohort(config.without(plan.unseen), data, run, net))


def score_fold(
    cohort: Cohort, config: RunConfig, run: Path, plan: Plan, fold: Fold, predictions: Path | None = None
) -> Steps[list[Record]]:
    """Train and score every method of `plan` on one fold's `cohort`, test sections included in it."""
    found: list[Record] = []
    for removed in _trainings(plan, fold):
        training = f"without {', '.join(removed)}" if removed else "all others"
        absent = {*fold.left_out, *removed}
        rest = keep(cohort, [s.entry.name for s in cohort.slides if s.entry.name not in absent])
        if not rest.slides:
            raise UserError(
                f"Nothing is left to train on when {', '.join(sorted(absent))} are left out; leave fewer out."
            )
        context = _Context(cohort, rest, config, run, plan, fold, training, removed)
        found += yield from _score_methods(context)
        if plan.flag:
            found += yield from _score_flag(context, None if removed else predictions)
        found += _score_landmarks(context)
    return found


@dataclass(frozen=True, slots=True)
class _Context:
    """One training of one fold."""

    cohort: Cohort
    rest: Cohort
    config: RunConfig
    run: Path
    plan: Plan
    fold: Fold
    training: str
    removed: tuple[str, ...]

    def test(self) -> list[tuple[TrainingSlide, int]]:
        """Return the sections to score with their places in the cohort."""
        names = [slide.entry.name for slide in self.cohort.slides]
        return [(self.cohort.slides[names.index(name)], names.index(name)) for name in self.fold.test]

    def record(self, kind: str, method: str, slide: TrainingSlide, seed: int, scores: Scores) -> Record:
        """Label `scores`."""
        return Record(self.config.name, kind, method, self.training, slide.entry.name, seed, scores)


def _trainings(plan: Plan, fold: Fold) -> tuple[tuple[str, ...], ...]:
    removed = tuple(name for name in plan.train_without if name not in fold.left_out)
    if not removed:
        return ((),)
    return (removed,) if plan.once else ((), removed)


def keep(cohort: Cohort, names: Sequence[str]) -> Cohort:
    """Return the slides of `cohort` called `names`, in the cohort's order."""
    places = [i for i, slide in enumerate(cohort.slides) if slide.entry.name in names]
    return replace(
        cohort,
        slides=tuple(cohort.slides[i] for i in places),
        features=tuple(cohort.features[i] for i in places),
    )


def _score_methods(context: _Context) -> Steps[list[Record]]:
    plan, found = context.plan, []
    for name, (kind, method) in (plan.methods or {}).items():
        for seed in plan.seeds if name in plan.reseeded else plan.seeds[:1]:
            predictor = yield from method.fit(context.rest, seed)
            for slide, place in context.test():
                yield Step(f"Scoring {name} on {slide.entry.name}", 0, 1, "sections")
                features = context.cohort.features[place][0].numpy()
                scores = score(predictor(blinded(slide), features), slide)
                found.append(context.record(kind, name, slide, seed, scores))
    return found


def _score_flag(context: _Context, predictions: Path | None) -> Steps[list[Record]]:
    plan, found = context.plan, []
    trained_on = tuple(slide.entry.name for slide in context.rest.slides)
    without = context.config.without((*plan.unseen, *context.fold.left_out, *context.removed))
    for number, seed in enumerate(plan.seeds):
        config = replace(without, fit=replace(without.fit, seed=seed))
        folder = states_folder(context.run, config, fingerprint(context.rest))
        network = yield from fit(context.rest, config, folder)
        for slide, place in context.test():
            views = context.cohort.features[place].numpy()
            drawn = yield from score_flag(network, slide, views, config, context.cohort.genes)
            found += [
                context.record("FLAG", what, slide, seed, scores) for what, scores in drawn.scores.items()
            ]
            if predictions is not None and number == 0:
                predictions.mkdir(parents=True, exist_ok=True)
                made = held_out_prediction(slide, drawn.expression, context.cohort.genes, trained_on, config)
                write_prediction(made, predictions / f"{slide.entry.name}.h5ad")
    return found


def _score_landmarks(context: _Context) -> list[Record]:
    """Score what needs the truth; it does not depend on FLAG, and hardly on the training."""
    found = []
    for slide, _ in context.test():
        first, second = controls.halves(slide, context.plan.seeds[0])
        shown = {
            "one factor at the true depth": score(controls.at_true_depth(context.rest, slide), slide),
            "replicate sections": controls.replicates(context.rest, slide),
            "halves of the counts, doubled": score(first, replace(slide, expression=second)),
        }
        found += [
            context.record("landmark", name, slide, context.plan.seeds[0], scores)
            for name, scores in shown.items()
        ]
    return found


def fingerprint(cohort: Cohort) -> str:
    """Return eight letters of the features, so that no state of another encoder is resumed."""
    digest = hashlib.sha256()
    for views in cohort.features:
        digest.update(views.numpy().tobytes())
    return digest.hexdigest()[:8]
