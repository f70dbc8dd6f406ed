from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tests.training.conftest import make_config
from tests.training.methods.test_published import SMALL
from tests.training.store_run import make_store_run

from flag_training.cohort import SectionLevel, fingerprint
from flag_training.config import SlideEntry
from flag_training.evaluate import (
    AROUND_RIDGE,
    DRAWS,
    DRAWS_SHUFFLED,
    ONE_DRAW,
    ONE_FACTOR,
    SHUFFLED,
    SILENCED,
    TURNED,
    Fold,
    Plan,
    Record,
    X,
    compare,
    encoder_run,
    evaluate,
    folds_of,
    held_out_files,
    held_out_prediction,
    keep,
    score_flag,
    score_fold,
)
from flag_training.methods import blinded
from flag_training.methods.controls import Pasted
from flag_training.methods.floors import PatientMean, Ridge, RidgeWithResidual, SlideMean
from flag_training.methods.rivals import NOISES
from flag_training.scoring import COMPARED, FAIR, OF_X, SCORED, Section, score
from napari_flag import keys
from napari_flag.analysis.compare import comparing
from napari_flag.analysis.draws import count
from napari_flag.analysis.scores import METRICS, STRUCTURE
from napari_flag.analysis.truth import truth_of
from napari_flag.errors import UserError
from napari_flag.methods.moments import Moments
from napari_flag.prediction_file import find_fault, layer_of, read_prediction, write_prediction
from napari_flag.progress import finish

METHODS = {
    "slide mean": ("floor", SlideMean()),
    "ridge": ("floor", Ridge(30.0)),
    "draws": ("floor", RidgeWithResidual(0.5, 1)),
    "pasted": ("image-blind", Pasted()),
}


def found_in(work):
    """Do the work, and return its records and comparisons."""
    outcome = finish(work)
    return outcome.records, outcome.comparisons


@pytest.fixture(scope="module")
def config(cohort):
    """A run over the toy cohort's sections."""
    return replace(make_config(), slides=tuple(slide.entry for slide in cohort.slides))


class FakePredictor:
    """Expects what `make_slide` hides in the first two features, and draws counts around it."""

    def __init__(self, genes):
        self.genes, self.device = genes, torch.device("cpu")

    def encode(self, features, graph):
        loading = np.random.default_rng(99).normal(size=(2, len(self.genes)))
        return FakeEncoded((5 + features[:, :2] @ loading).clip(0).astype(np.float32))


@dataclass(frozen=True)
class FakeEncoded:
    """An encoded slide: log2(count + 1) expected, and a gene-wise noise that is wider when silenced."""

    expected: np.ndarray
    noise: float = 0.4
    has_mean_head: bool = True

    def silenced(self):
        return replace(self, noise=0.9)

    def around(self, expected):
        return replace(self, expected=expected)

    def expectation(self, rows, ids):
        yield 1.0
        return Moments(self.expected[rows], np.full_like(self.expected[rows], 0.4))

    def draw(self, rows, ids, settings):
        yield 1.0
        streams = [np.random.default_rng([settings.seed, number]) for number in settings.numbers]
        unit = np.stack([stream.normal(size=self.expected.shape)[rows] for stream in streams])
        values = self.expected[rows] + self.noise * unit
        return np.log2(np.rint(2 ** values.clip(0) - 1) + 1).astype(np.float32)


RESIDUALS = np.random.default_rng(5).normal(0, 0.4, (300, 5)).astype(np.float32)
"""Of training spots, log2(count + 1)."""


@pytest.fixture(scope="module")
def section(unseen):
    """A section that nothing was trained on."""
    return Section.of(unseen[0])


@pytest.fixture(scope="module")
def stated(cohort, unseen, section):
    """What a known predictor scores on it."""
    one_factor = np.repeat(section.slide.expression.mean(1, keepdims=True), 5, axis=1)
    return finish(
        score_flag(FakePredictor(cohort.genes), section, unseen[1].numpy(), one_factor, RESIDUALS, 0)
    )


def test_parts_controls_and_rivals_are_scored_beside(stated):
    answers = {X, ONE_DRAW, SHUFFLED, f"{TURNED} 1", DRAWS, SILENCED, DRAWS_SHUFFLED}
    wanted = {("FLAG", what) for what in answers} | {("control", ONE_FACTOR)}
    assert stated.judged.keys() == wanted | {("rival", f"{noise} around X") for noise in NOISES}


class FakeProper(FakePredictor):
    """A predictor without a mean head."""

    def encode(self, features, graph):
        return replace(super().encode(features, graph), has_mean_head=False)


def test_without_a_mean_head_nothing_is_drawn_around_one_factor(cohort, unseen, section):
    one_factor = np.zeros_like(section.slide.expression)
    work = score_flag(FakeProper(cohort.genes), section, unseen[1].numpy(), one_factor, RESIDUALS, 0)
    assert ("control", ONE_FACTOR) not in finish(work).judged


def test_x_is_judged_as_an_expectation_and_draws_as_draws(stated, section):
    assert (
        stated.judged["FLAG", X].scores
        == section.expectation(stated.expression.mean, stated.expression.spread).scores
    )
    assert set(OF_X) < stated.judged["FLAG", X].scores.keys()
    drawn = stated.judged["FLAG", DRAWS].scores
    assert drawn.items() >= section.draws(stated.expression.draws).proper.means().items()
    assert drawn["CRPS fair"] < drawn["CRPS"]
    assert stated.judged["FLAG", ONE_DRAW].scores == section.array(stated.expression.draws[0]).scores
    assert set(METRICS) == stated.judged["FLAG", ONE_DRAW].scores.keys()


def test_shuffled_tiles_lose_what_the_image_tells(stated):
    of = {what: judged.scores for (_, what), judged in stated.judged.items()}
    assert of[X]["PCC"] > of[SHUFFLED]["PCC"] + 0.3
    assert of[DRAWS]["ES"] < of[DRAWS_SHUFFLED]["ES"] - 0.3


def test_the_silenced_part_and_one_factor_are_drawn_anew(stated):
    of = {what: judged.scores for (_, what), judged in stated.judged.items()}
    assert of[SILENCED]["CRPS"] > of[DRAWS]["CRPS"]
    assert of[ONE_FACTOR]["GSC"] < of[DRAWS]["GSC"] - 0.2


def record_of(kind, method, training="all others", seed=0, section="C9"):
    return Record("tiny", kind, method, training, section, seed, {})


def test_draws_are_compared_with_all_other_draws_and_parts_with_their_own_training(stated, section):
    ours, rival = stated.judged["FLAG", DRAWS], stated.judged["rival", "no noise around X"]
    scored = []
    for training in ("all others", "without B4"):
        scored += [(record_of("FLAG", DRAWS, training, seed), ours) for seed in (0, 1)] + [
            (record_of("FLAG", SILENCED, training, seed), stated.judged["FLAG", SILENCED]) for seed in (0, 1)
        ]
        scored += [(record_of("rival", "no noise", training), rival)]
        scored += [(record_of("FLAG", X, training), stated.judged["FLAG", X])]  # is no draw
    found = compare(scored, {"C9": section})
    assert {(c.training, c.seed, c.rival, c.rival_training) for c in found} == {
        (training, seed, rival, other)
        for training in ("all others", "without B4")
        for seed in (0, 1)
        for rival, others in ((SILENCED, {training}), ("no noise", {"all others", "without B4"}))
        for other in others
    }
    assert len(found) == 12
    wanted = section.difference(ours, rival)
    assert all(c.differences == wanted for c in found if c.rival == "no noise")
    assert set(wanted) == set(COMPARED)


def test_each_seed_is_compared_with_a_rival_of_its_own_seed(stated, section):
    ours, one, other = (stated.judged["FLAG", what] for what in (DRAWS, SILENCED, DRAWS_SHUFFLED))
    scored = [(record_of("FLAG", DRAWS, seed=seed), ours) for seed in (0, 1)]
    scored += [(record_of("rival", "around X"), one), (record_of("rival", "around X", seed=1), other)]
    found = {c.seed: c.differences for c in compare(scored, {"C9": section})}
    assert found[0] == section.difference(ours, one)
    assert found[1] == section.difference(ours, other)


def test_a_held_out_prediction_is_one_of_ours_with_its_truth_and_draws(stated, cohort, unseen):
    slide, _ = unseen
    made = held_out_prediction(slide, stated.expression, cohort.genes, ("B4", "C2"), make_config())
    assert find_fault(made) is None
    assert count(made) == len(SCORED)
    np.testing.assert_array_equal(made.layers[keys.MEASURED], slide.expression)
    np.testing.assert_array_equal(made.X, stated.expression.mean)
    np.testing.assert_array_equal(made.layers[layer_of(16)], stated.expression.draws[15])


def test_evaluate_and_compare_score_the_draws_of_a_held_out_file_alike(stated, cohort, section, tmp_path):
    made = held_out_prediction(section.slide, stated.expression, cohort.genes, ("B4", "C2"), make_config())
    write_prediction(made, tmp_path / "C9.h5ad")
    read = read_prediction(tmp_path / "C9.h5ad")
    counts = finish(truth_of(read))
    theirs, fair = (finish(comparing(read, counts, force=True, fair=each)).draws for each in (False, True))
    ours = section.draws(np.stack(stated.expression.draws))
    assert theirs.number == len(SCORED)
    assert {name: ours.scores[name] for name in theirs.proper} == pytest.approx(theirs.proper)
    assert ours.intervals.keys() == theirs.intervals.keys()
    for name, ends in theirs.intervals.items():
        assert ours.intervals[name] == pytest.approx(ends), name
    assert {name: ours.scores[name] for name in STRUCTURE} == pytest.approx(
        {name: theirs.values[name] for name in STRUCTURE}
    )
    assert {name: ours.scores[name] for name in FAIR} == pytest.approx(
        {name: fair.proper[plain] for name, plain in FAIR.items()}
    )


def test_a_held_out_prediction_states_the_command_that_made_it(stated, cohort, unseen):
    slide, _ = unseen
    config = replace(make_config(), card={"command": "napari-flag evaluate", keys.COMMAND_HASH: "f" * 64})
    made = held_out_prediction(slide, stated.expression, cohort.genes, ("B4", "C2"), config)
    assert made.uns[keys.PROVENANCE][keys.COMMAND] == "napari-flag evaluate"
    assert made.uns[keys.PROVENANCE][keys.COMMAND_HASH] == "f" * 64


def test_sections_are_left_out_one_by_one(config):
    folds = folds_of(config, Plan(("C2", "C4")))
    assert folds == (Fold(("C2",), ("C2",)), Fold(("C4",), ("C4",)))


def test_leaving_a_patient_out_takes_all_its_sections(config):
    folds = folds_of(config, Plan(("C2", "B4", "C4"), by_patient=True))
    assert folds == (Fold(("C2", "C4"), ("C2", "C3", "C4")), Fold(("B4",), ("B4",)))


def test_a_split_leaves_its_part_out_at_once(config):
    assert folds_of(config, Plan(("C2", "C4"), together=True)) == (Fold(("C2", "C4"), ("C2", "C4")),)


def test_what_is_unseen_cannot_be_scored(config):
    with pytest.raises(UserError, match="no section C4 to score"):
        folds_of(config, Plan(("C4",), unseen=("C4",)))


@pytest.mark.parametrize("plan", [Plan(("C2",), unseen=("C3",)), Plan(("C2",), ("C3",), by_patient=True)])
def test_the_tile_encoder_sees_no_image_that_is_left_out_or_unseen(config, plan):
    named = replace(config, encoder_slides=("B4", "C2", "C3", "C4"))
    (fold,) = folds_of(named, plan)
    seen = encoder_run(named, plan, fold)
    gone = {*fold.left_out, *plan.unseen}
    assert "C2" in gone
    assert not gone & {slide.name for slide in seen.slides}
    assert not gone & set(seen.encoder_slides)


def test_every_method_is_scored_on_every_test_section_and_training(cohort, config, tmp_path):
    plan = Plan(
        ("C4",), train_without=("B4",), methods=METHODS, flag=False, seeds=(0, 1), reseeded=("draws",)
    )
    records, _ = found_in(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",))))
    stated = {(r.method, r.training, r.seed) for r in records if r.kind not in ("landmark", "control")}
    trainings = ("all others", "without B4")
    once = {(name, training, 0) for name in METHODS for training in trainings}
    assert stated == once | {("draws", training, 1) for training in trainings}
    assert {r.kind for r in records} == {"floor", "image-blind", "landmark", "control"}


def test_a_method_that_draws_is_scored_by_its_expectation_and_by_its_draws(cohort, config, tmp_path):
    plan = Plan(("C4",), methods={"STFlow": ("published", SMALL["STFlow"])}, flag=False)
    records, _ = found_in(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",))))
    scores = {r.method: r.scores for r in records if r.kind == "published"}
    assert set(scores) == {"STFlow", "STFlow, draws"}
    assert scores["STFlow"]["PCC"] > 0.2
    assert "CRPS" in scores["STFlow, draws"]
    assert "CRPS" not in scores["STFlow"]


def test_a_method_trained_without_a_patient_never_sees_it(cohort, config, tmp_path):
    """The slide mean of the records is that of the sections that are left."""
    plan = Plan(
        ("C2", "C3", "C4"), by_patient=True, methods={"slide mean": METHODS["slide mean"]}, flag=False
    )
    (fold,) = folds_of(config, plan)
    records, _ = found_in(score_fold(cohort, config, tmp_path, plan, fold))
    mean = cohort.slides[0].expression.mean(0)
    for record in (r for r in records if r.method == "slide mean"):
        slide = next(s for s in cohort.slides if s.entry.name == record.section)
        assert record.scores["MSE"] == pytest.approx(((slide.expression - mean) ** 2).mean(), rel=1e-4)


def test_levels_known_from_counts_alone_are_of_no_patient_left_out_and_are_stated(cohort, config, tmp_path):
    others = [
        SectionLevel.of(name, name[0], np.full((4, 5), level, np.float32))
        for name, level in (("A1", 1), ("C1", 7), ("C4", 9))
    ]
    known, floors = replace(cohort, others=tuple(others)), {"mean of patients": ("floor", PatientMean())}
    plan = Plan(("C4",), by_patient=True, methods=floors, flag=False)
    (fold,) = folds_of(config, plan)
    found = finish(score_fold(known, config, tmp_path, plan, fold))
    assert found.levels == {"C4": {"all others": ("A",)}}
    level = (cohort.slides[0].expression.mean(0) + 1) / 2
    record = next(r for r in found.records if r.method == "mean of patients")
    assert record.scores["MSE"] == pytest.approx(
        ((cohort.slides[3].expression - level) ** 2).mean(), rel=1e-4
    )
    one = finish(score_fold(known, config, tmp_path, replace(plan, by_patient=False), Fold(("C4",), ("C4",))))
    assert one.levels == {"C4": {"all others": ("A", "C")}}, "C1 is of the patient, whose C2 and C3 are known"


def test_a_section_is_not_removed_twice(cohort, config, tmp_path):
    plan = Plan(("B4",), train_without=("B4",), methods={"ridge": METHODS["ridge"]}, flag=False)
    records, _ = found_in(score_fold(cohort, config, tmp_path, plan, Fold(("B4",), ("B4",))))
    assert {r.training for r in records} == {"all others"}


def test_a_section_can_be_removed_from_the_only_training(cohort, config, tmp_path):
    plan = Plan(("C4",), train_without=("B4",), once=True, methods={"ridge": METHODS["ridge"]}, flag=False)
    records, _ = found_in(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",))))
    assert {r.training for r in records if r.kind == "floor"} == {"without B4"}


def test_leaving_everything_out_is_refused(cohort, config, tmp_path):
    plan = Plan(("C4",), methods=METHODS, flag=False)
    with pytest.raises(UserError, match="Nothing is left to train on"):
        finish(score_fold(keep(cohort, ["C4"]), config, tmp_path, plan, Fold(("C4",), ("C4",))))


@pytest.mark.slow
def test_flag_is_trained_without_the_section_and_leaves_its_prediction(cohort, config, tmp_path):
    plan = Plan(("C4",), seeds=(0, 1))
    held_out = tmp_path / "held_out"
    records, comparisons = found_in(
        score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",)), held_out)
    )
    made = read_prediction(held_out / "C4.h5ad")
    assert list(made.uns[keys.PROVENANCE][keys.TRAINING_SLIDES]) == ["B4", "C2", "C3"]
    assert score(np.asarray(made.X), cohort.slides[3])["PCC"] == pytest.approx(
        next(r.scores["PCC"] for r in records if r.method == "X" and r.seed == 0)
    )
    assert {r.seed for r in records if r.method == X} == {0, 1}
    around = {f"{noise} around {what}" for noise in NOISES for what in (X, AROUND_RIDGE)}
    for seed in (0, 1):
        stated = {(c.kind, c.rival) for c in comparisons if c.seed == seed}
        parts = {("FLAG", SILENCED), ("FLAG", DRAWS_SHUFFLED), ("control", ONE_FACTOR)}
        assert stated == parts | {("rival", name) for name in around}


def test_the_files_that_held_out_predictions_go_to_are_known_before(config, tmp_path):
    plan = Plan(("C2", "C4"), methods={"ridge": METHODS["ridge"]})
    named = ["C2.h5ad", "C2_ridge.h5ad", "C4.h5ad", "C4_ridge.h5ad"]
    assert [path.name for path in held_out_files(config, plan, tmp_path)] == named
    again = replace(plan, train_without=("B4",), flag=False)
    assert [path.name for path in held_out_files(config, again, tmp_path)] == named[1::2]
    assert held_out_files(config, replace(again, once=True), tmp_path) == ()


@pytest.mark.slow
def test_every_method_that_can_be_written_leaves_its_prediction_with_what_it_scored(cohort, config, tmp_path):
    methods = METHODS | {"STFlow": ("published", SMALL["STFlow"])}
    plan = Plan(("C4",), methods=methods, flag=False, seeds=(3, 4), reseeded=("ridge",))
    held_out = tmp_path / "held_out"
    records, _ = found_in(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",)), held_out))
    assert sorted(path.stem for path in held_out.iterdir()) == ["C4_STFlow", "C4_ridge", "C4_slide mean"]
    assert {*held_out.iterdir()} < {*held_out_files(config, plan, held_out)}
    for path in held_out.iterdir():
        made = read_prediction(path)
        method = made.uns[keys.PROVENANCE][keys.METHOD]
        assert score(np.asarray(made.X), cohort.slides[3])["MSE"] == pytest.approx(
            next(r.scores["MSE"] for r in records if r.method == method and r.seed == 3)
        )
        assert count(made) == (len(SCORED) if method == "STFlow" else 0)
        assert made.uns[keys.PROVENANCE][keys.SEED] == 3


def test_states_of_other_features_are_not_gone_on_from(cohort):
    other = replace(cohort, features=tuple(views + 1 for views in cohort.features))
    assert fingerprint(other) != fingerprint(cohort)
    assert fingerprint(replace(cohort)) == fingerprint(cohort)


def test_a_hidden_slide_scores_nothing(cohort):
    slide = blinded(cohort.slides[3])
    assert np.isnan(score(cohort.slides[3].expression, slide)["MSE"])
    assert isinstance(slide.entry, SlideEntry)


@pytest.mark.slow
def test_sections_of_a_store_are_left_out_in_turn(tmp_path):
    config, data = make_store_run(tmp_path)
    plan = Plan(("TST1", "TST2"), unseen=("TST4",), methods={"ridge": METHODS["ridge"]})
    records, _ = found_in(evaluate(config, data, tmp_path / "run", plan, tmp_path / "held_out"))
    assert {(r.section, r.method) for r in records} >= {
        (name, method) for name in ("TST1", "TST2") for method in ("X", "ridge", "X, tiles shuffled")
    }
    trained = read_prediction(tmp_path / "held_out" / "TST1.h5ad").uns[keys.PROVENANCE][keys.TRAINING_SLIDES]
    assert list(trained) == ["TST2", "TST3"]
