"""The widths chosen, on sections simulated from a model that is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.conftest import make_slide
from tests.training.stages.test_latents import make_model, simulate

from flag_training.stages.latents import Slides, scaled
from flag_training.stages.spread import choose_spread, sd_factor
from napari_flag.progress import finish

GENES = 8
ALIKE = torch.ones(2, 1)  # both have the residuals of the one slide that the model knows


@pytest.fixture(scope="module")
def true():
    return make_model(genes=GENES, depth=0.7)


@pytest.fixture(scope="module")
def sections(true):
    """Two sections of 100 spots, and what is to be expected of them."""
    slides, expected = [], []
    for seed in (1, 2):
        slide, _ = make_slide(f"S{seed}", "S", seed, side=10, genes=GENES)
        counts, latent, _, _ = simulate(true, spots=100, level=4.0, seed=seed)
        slides.append(replace(slide, expression=np.log2(counts.numpy() + 1).astype(np.float32)))
        expected.append(torch.from_numpy(true.observation().expected(latent.numpy())).float())
    return slides, expected


@pytest.mark.slow
def test_residuals_twice_too_wide_are_narrowed_by_about_half(true, sections):
    slides, expected = sections
    chosen = finish(choose_spread(slides, scaled(true, 2.0), ALIKE, expected, seed=0))
    assert chosen.composition in (0.45, 0.6)
    torch.testing.assert_close(chosen.model.variance, (2 * chosen.composition) ** 2 * true.variance)
    assert chosen.scores[1.0] == 1
    assert chosen.scores[chosen.composition] == min(chosen.scores.values())


def test_residuals_that_are_right_are_left_alone(true, sections):
    slides, expected = sections
    chosen = finish(choose_spread(slides, true, ALIKE, expected, seed=0))
    assert chosen.composition >= 0.8


def truth_of(model, seed, spots=1000):
    counts, latent, _, _ = simulate(model, spots=spots, level=4.0, seed=seed)
    return latent, torch.from_numpy(np.log2(counts.numpy() + 1))


def deviation_of(model, expected):
    return Slides.alike([len(expected)]).deviation(model, expected)


def test_the_spread_stated_holds_four_fifths_of_a_truth_that_it_was_not_matched_on(true):
    """The residuals of the truth are half again as wide as the model's."""
    wide = replace(scaled(true, 1.5), depth=1.5 * true.depth)
    (latent, seen), (other, unseen) = truth_of(wide, 3), truth_of(wide, 4)
    observation = wide.observation()
    expected, apart = (torch.from_numpy(observation.expected(each.numpy())) for each in (latent, other))
    factor = sd_factor(seen - expected, deviation_of(true, expected))
    assert 1.15 < factor < 1.5
    inside = (unseen - apart).abs() < 1.2816 * factor * deviation_of(true, apart)
    assert float(inside.double().mean()) == pytest.approx(0.8, abs=0.02)


def test_the_spread_of_the_model_itself_needs_no_factor(true):
    latent, seen = truth_of(true, 3)
    expected = torch.from_numpy(true.observation().expected(latent.numpy()))
    assert sd_factor(seen - expected, deviation_of(true, expected)) == pytest.approx(1, abs=0.05)
