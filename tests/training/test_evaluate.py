from dataclasses import replace

import numpy as np
import pytest
from tests.training.conftest import make_config
from tests.training.store_run import make_store_run

from flag_training.config import SlideEntry
from flag_training.evaluate import (
    Fold,
    Plan,
    encoder_run,
    evaluate,
    fingerprint,
    folds_of,
    held_out_prediction,
    keep,
    score,
    score_flag,
    score_fold,
)
from flag_training.methods import blinded
from flag_training.methods.controls import Pasted
from flag_training.methods.floors import Ridge, RidgeWithResidual, SlideMean
from napari_flag import keys
from napari_flag.analysis.scores import METRICS
from napari_flag.errors import UserError
from napari_flag.prediction_file import find_fault, read_prediction
from napari_flag.progress import finish

METHODS = {
    "slide mean": ("floor", SlideMean()),
    "ridge": ("floor", Ridge(30.0)),
    "draws": ("floor", RidgeWithResidual(0.5, 1)),
    "pasted": ("image-blind", Pasted()),
}


@pytest.fixture(scope="module")
def config(cohort):
    """A run over the toy cohort's sections."""
    return replace(make_config(), slides=tuple(slide.entry for slide in cohort.slides))


@pytest.fixture(scope="module")
def drawn(cohort, learnt, unseen):
    """FLAG on a section that its weights were not trained on."""
    slide, views = unseen
    return finish(score_flag(learnt, slide, views.numpy(), make_config(), cohort.genes))


def test_the_truth_scores_perfectly(cohort):
    slide = cohort.slides[3]
    found = score(slide.expression, slide)
    assert found["PCC"] == pytest.approx(1)
    assert found["MSE"] == 0
    assert found["GSC"] == pytest.approx(1)
    assert found["SSC"] == pytest.approx(1)
    assert found["amplitude"] == pytest.approx(1)


def test_shuffled_tiles_lose_what_the_image_tells(drawn):
    assert drawn.scores["X"]["PCC"] > drawn.scores["X, tiles shuffled"]["PCC"] + 0.3


def test_parts_and_turned_section_are_scored_beside(drawn):
    told = {"sample", "mean head", "kernel branch", "X, tiles shuffled", "X, turned and re-stained 1"}
    assert told < drawn.scores.keys()
    assert all(set(METRICS) <= scores.keys() for scores in drawn.scores.values())


def test_the_spread_is_held_against_the_truth(drawn):
    x = drawn.scores["X"]
    assert 0 < x["coverage_50"] < x["coverage_80"] < x["coverage_95"] <= 1
    assert x["spread/error"] > 0


def test_a_held_out_prediction_is_one_of_ours_with_its_truth(drawn, cohort, unseen):
    slide, _ = unseen
    made = held_out_prediction(slide, drawn.expression, cohort.genes, ("B4", "C2"), make_config())
    assert find_fault(made) is None
    np.testing.assert_array_equal(made.layers[keys.MEASURED], slide.expression)
    np.testing.assert_array_equal(made.X, drawn.expression.mean)


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
    records = finish(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",))))
    told = {(r.method, r.training, r.seed) for r in records if r.kind != "landmark"}
    trainings = ("all others", "without B4")
    once = {(name, training, 0) for name in METHODS for training in trainings}
    assert told == once | {("draws", training, 1) for training in trainings}
    assert {r.kind for r in records} == {"floor", "image-blind", "landmark"}


def test_a_method_trained_without_a_patient_never_sees_it(cohort, config, tmp_path):
    """The slide mean of the records is that of the sections that are left."""
    plan = Plan(
        ("C2", "C3", "C4"), by_patient=True, methods={"slide mean": METHODS["slide mean"]}, flag=False
    )
    (fold,) = folds_of(config, plan)
    records = finish(score_fold(cohort, config, tmp_path, plan, fold))
    mean = cohort.slides[0].expression.mean(0)
    for record in (r for r in records if r.method == "slide mean"):
        slide = next(s for s in cohort.slides if s.entry.name == record.section)
        assert record.scores["MSE"] == pytest.approx(((slide.expression - mean) ** 2).mean(), rel=1e-4)


def test_a_section_is_not_removed_twice(cohort, config, tmp_path):
    plan = Plan(("B4",), train_without=("B4",), methods={"ridge": METHODS["ridge"]}, flag=False)
    records = finish(score_fold(cohort, config, tmp_path, plan, Fold(("B4",), ("B4",))))
    assert {r.training for r in records} == {"all others"}


def test_a_section_can_be_removed_from_the_only_training(cohort, config, tmp_path):
    plan = Plan(("C4",), train_without=("B4",), once=True, methods={"ridge": METHODS["ridge"]}, flag=False)
    records = finish(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",))))
    assert {r.training for r in records if r.kind == "floor"} == {"without B4"}


def test_leaving_everything_out_is_refused(cohort, config, tmp_path):
    plan = Plan(("C4",), methods=METHODS, flag=False)
    with pytest.raises(UserError, match="Nothing is left to train on"):
        finish(score_fold(keep(cohort, ["C4"]), config, tmp_path, plan, Fold(("C4",), ("C4",))))


def test_flag_is_trained_without_the_section_and_leaves_its_prediction(cohort, config, tmp_path):
    plan = Plan(("C4",), seeds=(0, 1))
    held_out = tmp_path / "held_out"
    records = finish(score_fold(cohort, config, tmp_path, plan, Fold(("C4",), ("C4",)), held_out))
    made = read_prediction(held_out / "C4.h5ad")
    assert list(made.uns[keys.PROVENANCE][keys.TRAINING_SLIDES]) == ["B4", "C2", "C3"]
    assert score(np.asarray(made.X), cohort.slides[3])["PCC"] == pytest.approx(
        next(r.scores["PCC"] for r in records if r.method == "X" and r.seed == 0)
    )
    assert {r.seed for r in records if r.method == "X"} == {0, 1}


def test_states_of_other_features_are_not_gone_on_from(cohort):
    other = replace(cohort, features=tuple(views + 1 for views in cohort.features))
    assert fingerprint(other) != fingerprint(cohort)
    assert fingerprint(replace(cohort)) == fingerprint(cohort)


def test_a_hidden_slide_scores_nothing(cohort):
    slide = blinded(cohort.slides[3])
    assert np.isnan(score(cohort.slides[3].expression, slide)["MSE"])
    assert isinstance(slide.entry, SlideEntry)


def test_sections_of_a_store_are_left_out_in_turn(tmp_path):
    config, data = make_store_run(tmp_path)
    plan = Plan(("TST1", "TST2"), unseen=("TST4",), methods={"ridge": METHODS["ridge"]})
    records = finish(evaluate(config, data, tmp_path / "run", plan, tmp_path / "held_out"))
    assert {(r.section, r.method) for r in records} >= {
        (name, method) for name in ("TST1", "TST2") for method in ("X", "ridge", "X, tiles shuffled")
    }
    trained = read_prediction(tmp_path / "held_out" / "TST1.h5ad").uns[keys.PROVENANCE][keys.TRAINING_SLIDES]
    assert list(trained) == ["TST2", "TST3"]
