"""Cohorts without a picture: the same slide alone or among many, and worth learning from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.conftest import make_config

from flag_training.simulated import CohortModel
from flag_training.stages.fit import fit
from napari_flag.progress import finish
from napari_flag.simulation import generated_genes


@pytest.fixture(scope="module")
def model():
    return CohortModel(
        generated_genes(30), seed=2, spots=80, slides_per_patient=2, width=24, views=2, noise=0.7
    )


@pytest.fixture(scope="module")
def made(model):
    return finish(model.cohort(6))


def test_a_slide_is_the_same_alone_or_among_many(model, made):
    for number in (0, 4):
        alone = model.slide(number)
        np.testing.assert_array_equal(alone.slide.expression, made.cohort.slides[number].expression)
        np.testing.assert_array_equal(alone.slide.spots.xy, made.cohort.slides[number].spots.xy)
        torch.testing.assert_close(alone.features, made.cohort.features[number], rtol=0, atol=0)
    later = finish(model.cohort(2, first=4)).cohort
    np.testing.assert_array_equal(later.slides[1].expression, made.cohort.slides[5].expression)
    assert (made.cohort.slides[0].expression != made.cohort.slides[1].expression).any()


def test_more_genes_or_views_leave_the_others_as_they_are(model, made):
    more = replace(model, genes=generated_genes(300), views=3).slide(3)
    np.testing.assert_array_equal(more.slide.expression[:, :30], made.cohort.slides[3].expression)
    torch.testing.assert_close(more.features[:2], made.cohort.features[3], rtol=0, atol=0)


def test_slides_have_the_spots_patients_and_shapes_asked_for(made):
    cohort = made.cohort
    assert cohort.genes[-1] == "SIM0030"
    assert [s.entry.patient for s in cohort.slides] == [f"patient{p:03d}" for p in (0, 0, 1, 1, 2, 2)]
    for slide, features in zip(cohort.slides, cohort.features, strict=True):
        assert slide.expression.shape == (80, 30)
        assert features.shape == (2, 80, 24)
        assert features.dtype == torch.float32
        graph = slide.graph(features[0].numpy())
        assert graph.present[:, :6].mean() > 0.85


def test_patients_differ_more_than_slides_of_one(model):
    slides = [model.slide(k) for k in range(24)]
    level = np.stack([s.known.level for s in slides])
    np.testing.assert_array_equal(level[0], level[1])
    assert level[::2].std(axis=0).mean() == pytest.approx(model.level_spread, rel=0.25)
    depth = np.array([s.known.log_depth for s in slides]).reshape(-1, 2)
    assert depth.mean(axis=1).std() > 2 * np.abs(depth[:, 0] - depth[:, 1]).mean() / 2
    stain = np.stack([s.features[0].mean(0).numpy() for s in slides]).reshape(12, 2, -1)
    of_one = np.linalg.norm(stain[:, 0] - stain[:, 1], axis=1).mean()
    of_two = np.linalg.norm(stain[:, 0] - np.roll(stain[:, 1], 1, axis=0), axis=1).mean()
    assert of_one < 0.95 * of_two


def test_features_tell_the_tissue_and_expression_follows_it(model):
    """A ridge on features of other slides finds much of what the cells let expect."""
    slides = [model.slide(k) for k in range(20)]

    def centred(values):
        return values - values.mean(axis=0)

    x = np.concatenate([centred(s.features[0].numpy()) for s in slides])
    y = np.concatenate([centred(s.known.log_rate()) for s in slides])
    split = 16 * 80
    slope = np.linalg.solve(x[:split].T @ x[:split] + 10 * np.eye(x.shape[1]), x[:split].T @ y[:split])
    left = y[split:] - x[split:] @ slope
    assert 0.3 < 1 - left.var() / y[split:].var() < 0.95
    measured = np.concatenate([centred(s.slide.expression) for s in slides])
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, measured.T, strict=True)]
    assert np.mean(r) > 0.5


def test_counts_are_one_draw_of_the_known_distribution(made):
    """Each gene's total lies where totals of exact draws lie."""
    for slide, known in zip(made.cohort.slides, made.known, strict=True):
        rng = np.random.default_rng(0)
        totals = np.stack([known.draw(rng).sum(axis=0) for _ in range(100)])
        measured = (np.exp2(slide.expression) - 1).sum(axis=0)
        rank = (totals < measured).mean(axis=0)
        assert 0.02 < rank.mean() < 0.98
        assert ((rank > 0) & (rank < 1)).mean() > 0.85


@pytest.mark.slow
def test_a_model_is_fitted_to_a_simulated_cohort(made, tmp_path):
    few = replace(made.cohort, slides=made.cohort.slides[:3], features=made.cohort.features[:3])
    losses = []
    finish(
        fit(few, make_config(views=2, branch_steps=1, score_steps=3), tmp_path),
        lambda step: losses.append(step.partial),
    )
    losses = [loss for loss in losses if loss is not None]
    assert losses
    assert np.isfinite(losses).all()
