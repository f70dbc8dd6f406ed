"""The observation model agrees with sums and samples of what it stands for."""

import numpy as np
import pytest
from scipy import special, stats

from napari_flag.model.observation import HIGHEST, Observation, count_at, expression_at, mixed_quantiles

DEPTH = np.array([-2.5, -0.4, -0.1, 0.1, 0.3, 0.6])
VARIANCE = np.array([0.0, 0.2, 1.0])


@pytest.fixture(scope="module")
def observation():
    return Observation.of(DEPTH, VARIANCE)


@pytest.mark.parametrize("rate", [1e-3, 0.3, 4.0, 59.0, 61.0, 900.0, 40_000.0])
def test_without_residuals_the_moments_are_those_of_a_poisson_count(rate):
    plain = Observation.of(np.zeros(1), np.zeros(1))
    count = np.arange(stats.poisson.ppf(1e-13, rate), stats.poisson.ppf(1 - 1e-13, rate) + 1)
    weight, value = stats.poisson.pmf(count, rate), np.log2(count + 1)
    at = np.log([[rate]])
    mean = weight @ value
    assert plain.expected(at)[0, 0] == pytest.approx(mean, rel=2e-3, abs=1e-5)
    assert plain.variance_of(at)[0, 0] == pytest.approx(weight @ (value - mean) ** 2, rel=0.02, abs=1e-5)


def test_moments_are_those_of_counts_drawn_with_both_residuals(observation):
    random = np.random.default_rng(1)
    latent = np.array([[0.5, 2.0, 3.5]])
    n = 400_000
    eta = latent + random.choice(DEPTH, (n, 1)) + random.normal(size=(n, 3)) * np.sqrt(VARIANCE)
    drawn = np.log2(random.poisson(np.exp(eta)) + 1)
    np.testing.assert_allclose(observation.expected(latent)[0], drawn.mean(0), rtol=0.01)
    np.testing.assert_allclose(observation.variance_of(latent)[0], drawn.var(0), rtol=0.02)


def test_the_latent_of_an_expectation_has_that_expectation(observation):
    expected = np.random.default_rng(0).uniform(0.02, 9, (50, 3))
    np.testing.assert_allclose(observation.expected(observation.latent(expected)), expected, rtol=1e-6)


def test_a_rate_beyond_every_measurement_draws_the_highest_and_no_nonsense():
    drawn = expression_at(np.array([HIGHEST, 60.0, 1e4]), np.full(3, 0.5))
    np.testing.assert_array_equal(drawn, drawn[0])
    assert drawn[0] == pytest.approx(HIGHEST / np.log(2), rel=1e-5)


@pytest.mark.slow
def test_counts_at_uniform_numbers_are_poisson_and_rise_with_rate_and_probability():
    random = np.random.default_rng(2)
    rate, probability = np.full(200_000, 3.7), random.uniform(size=200_000)
    count = count_at(rate, probability)
    np.testing.assert_array_equal(count, stats.poisson.ppf(probability, rate))
    assert (count_at(rate * 1.5, probability) >= count).all()
    assert count.mean() == pytest.approx(3.7, rel=0.01)
    assert count_at(np.zeros(2), np.array([0.1, 1 - 1e-12])).tolist() == [0, 0]


def test_quantiles_of_a_mixture_are_those_of_its_parts_taken_together():
    at = (np.arange(40) + 0.5) / 40
    parts = np.stack([special.ndtri(at), 3 * special.ndtri(at) + 2, np.full(40, 99.0)])
    np.testing.assert_allclose(mixed_quantiles(parts, [0, 1, 0]), parts[1])
    mixed = mixed_quantiles(parts, [0.75, 0.25, 0])
    reached = 0.75 * special.ndtr(mixed) + 0.25 * special.ndtr((mixed - 2) / 3)
    np.testing.assert_allclose(reached, at, atol=0.02)


def test_a_mixture_of_weights_that_are_no_numbers_is_refused():
    with pytest.raises(FloatingPointError, match="not numbers"):
        mixed_quantiles(np.zeros((2, 40)), [np.nan, 1])


def test_depth_is_read_off_its_quantiles(observation):
    probability = (np.arange(6) + 0.5) / 6
    np.testing.assert_allclose(observation.depth_at(probability), DEPTH)
    assert observation.depth_at(np.array([0.0, 1.0])).tolist() == [-2.5, 0.6]
