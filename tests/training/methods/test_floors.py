from dataclasses import replace

import numpy as np
import pytest

from flag_training.cohort import Cohort, SectionLevel
from flag_training.methods import blinded, pooled
from flag_training.methods.floors import (
    LEARNED_FLOORS,
    FramedRidge,
    NearestTiles,
    PatientMean,
    PlacedRidge,
    Ridge,
    RidgeWithResidual,
    SlideMean,
)
from flag_training.scoring import score
from napari_flag.progress import finish


@pytest.fixture(scope="module")
def rest(cohort):
    """All but the last slide."""
    return Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)


def predict(method, rest, cohort, seed=0):
    slide = cohort.slides[3]
    return finish(method.fit(rest, seed))(blinded(slide), cohort.features[3][0].numpy())


CONSTANT = ("slide mean", "mean of patients", "one factor")
"""Floors that tell no gene apart, or no spot."""


@pytest.mark.parametrize("name", [n for n in LEARNED_FLOORS if n not in CONSTANT])
def test_a_floor_beats_the_slide_mean(name, rest, cohort):
    found = score(predict(LEARNED_FLOORS[name], rest, cohort), cohort.slides[3])
    worst = score(predict(SlideMean(), rest, cohort), cohort.slides[3])
    assert found["PCC"] > 0.2
    assert found["MSE"] < 1.3 * worst["MSE"]


@pytest.mark.parametrize("name", LEARNED_FLOORS)
def test_a_floor_never_needs_the_truth_of_the_slide_it_predicts(name, rest, cohort):
    assert np.isfinite(predict(LEARNED_FLOORS[name], rest, cohort)).all()


def test_one_factor_has_no_structure_between_genes(rest, cohort):
    found = predict(LEARNED_FLOORS["one factor"], rest, cohort)
    assert np.linalg.matrix_rank(found - found.mean(0), tol=1e-3) == 1


def test_the_mean_of_patients_counts_each_patient_alike_those_without_images_too(rest, cohort):
    """Patient B has one slide here and C two; of A two sections are known by their counts."""
    others = tuple(SectionLevel.of("A", "A", np.full((4, 5), level, np.float32)) for level in (1, 3))
    found = predict(PatientMean(), replace(rest, others=others), cohort)
    b, *c = (slide.expression.mean(0) for slide in rest.slides)
    np.testing.assert_allclose(found, np.tile((b + np.mean(c, 0) + 2) / 3, (len(found), 1)), rtol=1e-5)


def test_a_placed_ridge_puts_an_unlike_slide_on_the_level_of_patients(rest, cohort):
    others = (SectionLevel.of("A1", "A", np.full((4, 5), 9, np.float32)),)
    known, slide = replace(rest, others=others), blinded(cohort.slides[3])
    like = cohort.features[3][0].numpy()
    placed, framed = (finish(method().fit(known, 0)) for method in (PlacedRidge, FramedRidge))
    level = predict(PatientMean(), known, cohort)[0]
    unlike = like + 10
    away = placed(slide, unlike).mean(0) - level
    assert np.abs(away).max() < 0.2 * np.abs(framed(slide, unlike).mean(0) - level).max()


def test_a_ridge_is_that_of_scikit_learn(rest, cohort):
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y = pooled(rest)
    mean, spread = x.mean(0), x.std(0) + 1e-6
    other = linear_model.Ridge(alpha=30.0).fit((x - mean) / spread, y)
    seen = cohort.features[3][0].numpy()
    ours = predict(Ridge(30.0), rest, cohort)
    np.testing.assert_allclose(ours, other.predict((seen - mean) / spread), atol=1e-4)


def test_the_nearest_tile_of_a_training_spot_is_its_own(rest):
    predictor = finish(NearestTiles(1).fit(rest, 0))
    slide = rest.slides[0]
    found = predictor(blinded(slide), rest.features[0][0].numpy())
    np.testing.assert_array_equal(found, slide.expression)


def test_averaged_residuals_come_near_the_ridge_alone(rest, cohort):
    ridge = predict(Ridge(300.0), rest, cohort)
    one, many = (predict(RidgeWithResidual(1.0, k), rest, cohort) for k in (1, 200))
    assert np.abs(many - ridge).mean() < 0.2 * np.abs(one - ridge).mean()


def test_the_seed_alone_decides_which_residuals_are_drawn(rest, cohort):
    method = RidgeWithResidual(0.5, 1)
    first, again, other = (predict(method, rest, cohort, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_hidden_truth_spoils_whoever_uses_it(cohort):
    slide = blinded(cohort.slides[0])
    assert np.isnan(slide.expression).all()
    assert slide.expression.shape == cohort.slides[0].expression.shape
    assert replace(slide, expression=cohort.slides[0].expression) == cohort.slides[0]


def test_a_spot_expected_by_the_cross_fit_was_not_seen_by_it(rest):
    """Whatever was measured on a section left out whole, the cross-fit expects the same of it."""
    lifted = replace(rest.slides[2], expression=rest.slides[2].expression + 1)
    other = replace(rest, slides=(*rest.slides[:2], lifted))
    before, after = (finish(FramedRidge().crossfit(cohort))[72:] for cohort in (rest, other))
    np.testing.assert_allclose(after, before + 1, atol=1e-4)


def test_cross_fitted_residuals_are_wider_than_fitted_ones(rest):
    predict = finish(FramedRidge(1.0).fit(rest, 0))
    fitted = [
        slide.expression - predict(slide, views[0].numpy())
        for slide, views in zip(rest.slides, rest.features, strict=True)
    ]
    crossed = finish(FramedRidge(1.0).crossfit(rest))
    assert np.isfinite(crossed).all()
    assert crossed.std() > np.concatenate(fitted).std()
