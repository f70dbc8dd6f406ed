"""Train on some sections, score others: FLAG, its parts, its rivals and its controls, fold by fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from anndata import AnnData

from flag_training.cohort import Cohort, TrainingSlide, fingerprint, load_cohort, panel_notice
from flag_training.config import RunConfig
from flag_training.methods import Fitted, Method, blinded, controls
from flag_training.methods.floors import FramedRidge, OneFactor
from flag_training.methods.rivals import draws_around
from flag_training.run_folders import states_folder
from flag_training.scoring import SCORED, Difference, Judged, Scores, Section
from flag_training.stages.fit import fit, tile_encoder
from flag_training.stages.frames import known_sections
from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import place_in
from napari_flag.methods.flag import FlagPredictor, FlagSlide
from napari_flag.methods.predictor import EncodedSlide, Predictor
from napari_flag.model.samplers import SamplerSettings
from napari_flag.prediction_file import build_prediction, layer_of, write_prediction
from napari_flag.progress import Step, Steps
from napari_flag.sampling import Expression, sample_expression
from napari_flag.statistics.bootstrap import Interval

FloatArray: TypeAlias = npt.NDArray[np.float32]

X: Final = "X"
SHUFFLED: Final = "X, tiles shuffled"
TURNED: Final = "X, turned and re-stained"
DRAWS: Final = "draws"
SILENCED: Final = "draws, gene transformer silenced"
DRAWS_SHUFFLED: Final = "draws, tiles shuffled"
ONE_DRAW: Final = "one draw"
ONE_FACTOR: Final = "draws around one factor"
"""FLAG's distribution of residuals around `floors.OneFactor`: no gene has a pattern of its own."""
CONSTANTS: Final = "training constants"
"""The training sections' own gene–gene correlations and Moran's I."""
AROUND_RIDGE: Final = "the ring ridge"
"""What the tables call `floors.FramedRidge` where draws are made around it."""
CROSSFIT: Final = "crossfit.npy"
"""In the folder of a fit: (N, G) cross-fitted residuals of the training spots, log2(count + 1)."""


@dataclass(frozen=True, slots=True)
class FlagScores:
    """What FLAG, its parts, its controls and the rivals around its expectation score on a section.

    Parameters
    ----------
    judged
        (kind, what was scored) → scores.
    expression
        What was predicted.
    """

    judged: dict[tuple[str, str], Judged]
    expression: Expression


def score_flag(
    predictor: FlagPredictor,
    section: Section,
    views: FloatArray,
    one_factor: FloatArray,
    residuals: FloatArray,
    seed: int,
) -> Steps[FlagScores]:
    """Predict and score a section that `predictor` was not trained on.

    Parameters
    ----------
    predictor
        FLAG.
    section
        The section with its truth.
    views
        (views, n, d) features; the first as the section is, the others turned and re-stained as a whole.
    one_factor
        (n, G) log2(count + 1), what one factor trained on the same sections expects.
    residuals
        (N, G) cross-fitted residuals of the training spots, log2(count + 1).
    seed
        Of the draws, and of the order in which tiles are shuffled.
    """
    features, slide = views[0], section.slide
    encoded = predictor.encode(features, slide.graph(features))
    seen, drawn = yield from judge(predictor, encoded, section, seed)
    parted = {("FLAG", SILENCED): encoded.silenced()}
    if encoded.has_mean_head:  # FLAG proper has no residuals around an expectation
        parted["control", ONE_FACTOR] = encoded.around(np.maximum(one_factor, 0))
    judged = {
        ("FLAG", X): section.expectation(seen.mean, seen.spread),
        ("FLAG", DRAWS): drawn,
        ("FLAG", ONE_DRAW): section.array(seen.draws[0]),
    }
    for what, part in parted.items():
        _, judged[what] = yield from judge(predictor, part, section, seed)
    shuffled = features[np.random.default_rng(seed).permutation(len(features))]
    elsewhere = predictor.encode(shuffled, slide.graph(shuffled))
    blind, judged["FLAG", DRAWS_SHUFFLED] = yield from judge(predictor, elsewhere, section, seed)
    judged["FLAG", SHUFFLED] = section.expectation(blind.mean, blind.spread)
    for place, view in enumerate(views[1:], start=1):
        again = predictor.encode(view, slide.graph(view))
        turned = yield from draw(predictor, again, slide, 1, seed)
        judged["FLAG", f"{TURNED} {place}"] = section.array(turned.mean)
    judged |= yield from score_rivals(section, seen.mean, residuals, seed, X)
    return FlagScores(judged, seen)


def judge(
    predictor: FlagPredictor, encoded: FlagSlide, section: Section, seed: int
) -> Steps[tuple[Expression, Judged]]:
    """Predict all spots of a section with the draws that are scored, and score them."""
    seen = yield from draw(predictor, encoded, section.slide, len(SCORED), seed)
    return seen, section.draws(seen.draws)


def draw(
    predictor: Predictor, encoded: EncodedSlide, slide: TrainingSlide, draws: int, seed: int
) -> Steps[Expression]:
    """Predict all spots of `slide`."""
    rows = np.arange(len(slide.spots))
    settings = SamplerSettings(draws, seed=seed)
    return (yield from sample_expression(predictor, encoded, slide.spots.ids, rows, settings))


def score_rivals(
    section: Section, expected: FloatArray, residuals: FloatArray, seed: int, around: str
) -> Steps[dict[tuple[str, str], Judged]]:
    """Score draws around `expected` that need no network; `around` is what the tables call it."""
    yield Step(f"Drawing around {around}", 0, 1, "sections")
    drawn = draws_around(expected, residuals, section.slide.spots.ids, SCORED, seed)
    return {("rival", f"{noise} around {around}"): section.draws(each) for noise, each in drawn.items()}


def held_out_prediction(
    slide: TrainingSlide,
    expression: Expression,
    genes: tuple[str, ...],
    trained_on: tuple[str, ...],
    config: RunConfig,
    method: str | None = None,
) -> AnnData:
    """Return a held-out prediction with its truth in ``layers["measured"]``, as `keys` describes it.

    `method` is what tables call it, None of FLAG.
    """
    spots = slide.spots
    made = {
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.SLIDE_NAME: slide.entry.name,
        keys.MPP: slide.mpp,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
        keys.WEIGHTS_NAME: config.name,
        keys.TRAINING_SLIDES: list(trained_on),
        keys.DRAWS: len(expression.draws),
        keys.SEED: config.fit.seed,
        keys.NOT_FOR_DIAGNOSIS: keys.RESEARCH_USE_ONLY,
    }
    made |= {key: config.card[key] for key in (keys.COMMAND, keys.COMMAND_HASH) if key in config.card}
    if method is not None:
        made[keys.METHOD] = method
    layers = {keys.MEASURED: slide.expression}
    if expression.spread is not None:
        layers[keys.SPREAD] = expression.spread
    layers |= {layer_of(number): values for number, values in enumerate(expression.draws, start=1)}
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
        Whether FLAG itself is trained and scored, its rivals and controls beside it.
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
    """One answer on one section.

    Parameters
    ----------
    run
        Name of the config.
    kind
        "FLAG", "rival" (draws that need no network), "control", "floor", "published", "image-blind" or
        "landmark" (which has seen the truth).
    method
        Its name; of FLAG, what was scored: `X`, `DRAWS`, …
    training
        "all others", or "without B4".
    section, seed, scores
        Where, with which seed, and the metrics.
    intervals
        Metric → 95 % bootstrap interval, where there is one.
    """

    run: str
    kind: str
    method: str
    training: str
    section: str
    seed: int
    scores: Scores
    intervals: dict[str, Interval] = field(default_factory=dict)


Scored: TypeAlias = tuple[Record, Judged]


@dataclass(frozen=True, slots=True)
class Comparison:
    """FLAG's draws against other draws on one section, spot by spot.

    Parameters
    ----------
    run, training, section, seed
        Of FLAG's draws, as in `Record`.
    kind, rival, rival_training
        Of the other draws: kind, method and training of their record.
    differences
        Each of `scoring.COMPARED` → FLAG's score less the other's, with its paired 95 % interval: below 0,
        FLAG's draws are better.
    """

    run: str
    training: str
    section: str
    seed: int
    kind: str
    rival: str
    rival_training: str
    differences: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was found in a plan: scores, and FLAG's draws against the others."""

    records: tuple[Record, ...]
    comparisons: tuple[Comparison, ...]
    levels: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Section → training → patients of whose sections counts alone were known; FLAG and some floors read
    them."""

    def __add__(self, other: "Outcome") -> "Outcome":
        """Return what was found in both."""
        records, comparisons = self.records + other.records, self.comparisons + other.comparisons
        return Outcome(records, comparisons, {**self.levels, **other.levels})


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


def held_out_files(config: RunConfig, plan: Plan, folder: Path) -> tuple[Path, ...]:
    """Return the files of `folder` that the held-out predictions of `plan` may go to."""
    made = [name for fold in folds_of(config, plan) if () in _trainings(plan, fold) for name in fold.test]
    methods = [*([None] if plan.flag else []), *(plan.methods or {})]
    return tuple(_held_out_file(folder, section, method) for section in made for method in methods)


def _held_out_file(folder: Path, section: str, method: str | None) -> Path:
    return place_in(folder, section if method is None else f"{section}_{method}", ".h5ad")


def evaluate(
    config: RunConfig, data: Path, run: Path, plan: Plan, predictions: Path | None = None
) -> Steps[Outcome]:
    """Score everything in `plan`, fold by fold.

    Parameters
    ----------
    config, data, run
        As for `fit.train`; tile encoders, features and states of the folds are kept in `run`.
    plan
        What to score.
    predictions
        Folder for the held-out predictions, with their truth, of FLAG and of every method that can be written
        as weights (first seed, first training); they state the command on the config's card, if any, and
        replace what `held_out_files` names.
    """
    found = Outcome((), ())
    for fold in folds_of(config, plan):
        cohort = yield from fold_cohort(config, data, run, plan, fold)
        found += yield from score_fold(cohort, config, run, plan, fold, predictions)
    return found


def encoder_run(config: RunConfig, plan: Plan, fold: Fold) -> RunConfig:
    """Return the run whose images the fold's tile encoder may see: nothing of what is left out."""
    return config.without((*plan.unseen, *fold.left_out))


def fold_cohort(config: RunConfig, data: Path, run: Path, plan: Plan, fold: Fold) -> Steps[Cohort]:
    """Load all sections but the unseen, encoded by a network that saw no image of the fold's test."""
    if config.store is not None:
        if notice := panel_notice(config, data, fold.left_out):
            yield Step("Reading the store", 0, None, "slides", notice=notice)
        return (yield from load_cohort(config.without(plan.unseen), data, run, None))
    net = yield from tile_encoder(encoder_run(config, plan, fold), data, run)
    return (yield from load_cohort(config.without(plan.unseen), data, run, net))


def score_fold(
    cohort: Cohort, config: RunConfig, run: Path, plan: Plan, fold: Fold, predictions: Path | None = None
) -> Steps[Outcome]:
    """Train and score every method of `plan` on one fold's `cohort`, test sections included in it."""
    names = [slide.entry.name for slide in cohort.slides]
    sections = {name: Section.of(cohort.slides[names.index(name)]) for name in fold.test}
    found: list[Scored] = []
    levels: dict[str, tuple[str, ...]] = {}
    for removed in _trainings(plan, fold):
        training = f"without {', '.join(removed)}" if removed else "all others"
        absent = {*fold.left_out, *removed}
        rest = keep(cohort, [name for name in names if name not in absent])
        if not rest.slides:
            raise UserError(
                f"Nothing is left to train on when {', '.join(sorted(absent))} are left out; leave fewer out."
            )
        if cohort.others:
            without = config.without((*plan.unseen, *fold.left_out, *removed))
            rest = replace(rest, others=known_sections(rest, without.fit))
            levels[training] = tuple(sorted({section.patient for section in rest.others}))
        context = _Context(cohort, rest, config, run, plan, fold, sections, training, removed)
        found += yield from _score_methods(context, None if removed else predictions)
        if plan.flag:
            found += yield from _score_flag(context, None if removed else predictions)
            found += yield from _score_ring_rivals(context)
        found += _score_beside(context)
    known = dict.fromkeys(fold.test, levels) if levels else {}
    return Outcome(tuple(record for record, _ in found), compare(found, sections), known)


def compare(scored: Sequence[Scored], sections: Mapping[str, Section]) -> tuple[Comparison, ...]:
    """Hold FLAG's draws against all other draws of the same section.

    FLAG's own parts are those of the same training and seed.  Of everything else every training is compared,
    at the same seed, or the first where there is no such seed.

    Parameters
    ----------
    scored
        Records and scores of one fold.
    sections
        Its sections by name.
    """
    drawn = [(record, judged) for record, judged in scored if judged.proper is not None]
    at = {
        (record.section, record.kind, record.method, record.training, record.seed): judged
        for record, judged in drawn
    }
    first: dict[tuple[str, str, str, str], Judged] = {}
    for key, judged in at.items():
        first.setdefault(key[:4], judged)
    found = []
    for ours, own in drawn:
        if (ours.kind, ours.method) != ("FLAG", DRAWS):
            continue
        for (section, kind, rival, training), default in first.items():
            same_part = kind == "FLAG" and (rival == DRAWS or training != ours.training)
            if section != ours.section or same_part:
                continue
            theirs = at.get((section, kind, rival, training, ours.seed), default)
            differences = sections[section].difference(own, theirs)
            found.append(
                Comparison(ours.run, ours.training, section, ours.seed, kind, rival, training, differences)
            )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Context:
    """One training of one fold."""

    cohort: Cohort
    rest: Cohort
    config: RunConfig
    run: Path
    plan: Plan
    fold: Fold
    sections: Mapping[str, Section]
    training: str
    removed: tuple[str, ...]

    def test(self) -> list[tuple[Section, FloatArray]]:
        """Return the sections to score, each with its (views, n, d) features."""
        names = [slide.entry.name for slide in self.cohort.slides]
        features = [self.cohort.features[names.index(name)].numpy() for name in self.sections]
        return list(zip(self.sections.values(), features, strict=True))

    def scored(self, kind: str, method: str, section: Section, seed: int, judged: Judged) -> Scored:
        """Label what was `judged`."""
        entry, run = section.slide.entry, self.config.name
        scores, intervals = judged.scores, judged.intervals
        return Record(run, kind, method, self.training, entry.name, seed, scores, intervals), judged

    def keep(
        self, folder: Path, slide: TrainingSlide, expression: Expression, method: str | None = None
    ) -> None:
        """Write the held-out prediction of `method`, without of FLAG in the run's form, into `folder`."""
        method = method or self.config.card.get(keys.CARD_METHOD)
        folder.mkdir(parents=True, exist_ok=True)
        trained_on = tuple(slide.entry.name for slide in self.rest.slides)
        genes, name = self.cohort.genes, slide.entry.name
        config = replace(self.config, fit=replace(self.config.fit, seed=self.plan.seeds[0]))
        made = held_out_prediction(slide, expression, genes, trained_on, config, method)
        write_prediction(made, _held_out_file(folder, name, method))


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


def _score_methods(context: _Context, predictions: Path | None) -> Steps[list[Scored]]:
    plan = context.plan
    found: list[Scored] = []
    for name, (kind, method) in (plan.methods or {}).items():
        for seed in plan.seeds if name in plan.reseeded else plan.seeds[:1]:
            predictor = yield from method.fit(context.rest, seed)
            for section, views in context.test():
                yield Step(f"Scoring {name} on {section.slide.entry.name}", 0, 1, "sections")
                if isinstance(predictor, Fitted):
                    seen = yield from _predict(predictor, section.slide, views[0], seed)
                    if len(seen.draws):
                        judged = section.draws(seen.draws)
                        found.append(context.scored(kind, f"{name}, {DRAWS}", section, seed, judged))
                    if predictions is not None and seed == plan.seeds[0]:
                        context.keep(predictions, section.slide, seen, name)
                    predicted = seen.mean
                else:
                    predicted = predictor(blinded(section.slide), views[0])
                found.append(context.scored(kind, name, section, seed, section.array(predicted)))
    return found


def _predict(fitted: Fitted, slide: TrainingSlide, features: FloatArray, seed: int) -> Steps[Expression]:
    """Predict all spots as the method's weights file would, with the draws that are scored if it draws."""
    encoded, rows = fitted.encode(blinded(slide), features), np.arange(len(slide.spots))
    draws = None if fitted.predictor.sampler is None else SamplerSettings(len(SCORED), seed=seed)
    return (yield from sample_expression(fitted.predictor, encoded, slide.spots.ids, rows, draws))


def _score_flag(context: _Context, predictions: Path | None) -> Steps[list[Scored]]:
    plan, genes = context.plan, context.cohort.genes
    found: list[Scored] = []
    without = context.config.without((*plan.unseen, *context.fold.left_out, *context.removed))
    one_factor = yield from OneFactor().fit(context.rest, plan.seeds[0])
    for number, seed in enumerate(plan.seeds):
        config = replace(without, fit=replace(without.fit, seed=seed))
        folder = states_folder(context.run, config, fingerprint(context.rest))
        network = yield from fit(context.rest, config, folder)
        predictor, residuals = FlagPredictor(network, genes), np.load(folder / CROSSFIT)
        for section, views in context.test():
            depth_alone = one_factor(blinded(section.slide), views[0])
            flag = yield from score_flag(predictor, section, views, depth_alone, residuals, seed)
            found += [
                context.scored(kind, what, section, seed, judged)
                for (kind, what), judged in flag.judged.items()
            ]
            if predictions is not None and number == 0:
                context.keep(predictions, section.slide, flag.expression)
    return found


def _score_ring_rivals(context: _Context) -> Steps[list[Scored]]:
    """Score draws around the strongest linear floor, whose residuals are its own."""
    seed, ridge = context.plan.seeds[0], FramedRidge()
    found: list[Scored] = []
    residuals = yield from ridge.crossfit(context.rest)
    predictor = yield from ridge.fit(context.rest, seed)
    for section, views in context.test():
        expected = predictor(blinded(section.slide), views[0])
        judged = yield from score_rivals(section, expected, residuals, seed, AROUND_RIDGE)
        found += [context.scored(kind, what, section, seed, one) for (kind, what), one in judged.items()]
    return found


def _score_beside(context: _Context) -> list[Scored]:
    """Score the training constants, and landmarks that need the truth."""
    seed = context.plan.seeds[0]
    found: list[Scored] = []
    constants = controls.Constants.of(context.rest)
    for section, _ in context.test():
        slide = section.slide
        first, second = controls.halves(slide, seed)
        shown = {
            ("control", CONSTANTS): Judged(constants.scores(slide)),
            ("landmark", "one factor at the true depth"): section.array(
                controls.at_true_depth(context.rest, slide)
            ),
            ("landmark", "replicate sections"): Judged(controls.replicates(context.rest, slide)),
            ("landmark", "halves of the counts, doubled"): Section.of(
                replace(slide, expression=second), seed
            ).array(first),
        }
        found += [context.scored(kind, name, section, seed, one) for (kind, name), one in shown.items()]
    return found
