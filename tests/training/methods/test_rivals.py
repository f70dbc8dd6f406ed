import numpy as np
import pytest

from flag_training.methods.rivals import NOISES, draws_around

NONE, INDEPENDENT, CORRELATED, COUNTING = NOISES
GENES = 6


@pytest.fixture(scope="module")
def expected():
    """Expectations of 200 spots, from hardly any to some hundred counts."""
    return np.random.default_rng(0).uniform(0.2, 7, (200, GENES)).astype(np.float32)


@pytest.fixture(scope="module")
def residuals():
    """Of which neighbouring genes go together, with spreads from 0.5 to 1."""
    raw = np.random.default_rng(1).normal(size=(4000, GENES))
    raw[:, 1] = 0.8 * raw[:, 0] + 0.6 * raw[:, 1]
    return (raw * np.linspace(0.5, 1, GENES)).astype(np.float32)


@pytest.fixture(scope="module")
def drawn(expected, residuals):
    return draws_around(expected, residuals, ids(200), range(8), 0)


def ids(n):
    return [f"{i}x1" for i in range(n)]


def test_each_noise_gives_eight_draws_that_are_never_negative(drawn, expected):
    assert list(drawn) == list(NOISES)
    for values in drawn.values():
        assert values.shape == (8, *expected.shape)
        assert values.dtype == np.float32
        assert values.min() >= 0


def test_no_noise_is_the_expectation_eight_times(drawn, expected):
    assert (drawn[NONE] == expected).all()


@pytest.mark.parametrize("noise", [INDEPENDENT, CORRELATED])
def test_gaussian_noise_is_as_wide_as_the_residuals(drawn, expected, residuals, noise):
    high = expected > 4  # nothing is cut off at 0
    away = np.where(high, drawn[noise] - expected, np.nan)
    np.testing.assert_allclose(np.nanmean(away, (0, 1)), 0, atol=0.05)
    np.testing.assert_allclose(np.nanstd(away, (0, 1)), residuals.std(0), rtol=0.08)


def test_only_correlated_noise_ties_genes_together(drawn, expected):
    both = (expected[:, :2] > 3).all(1)
    for noise, wanted in ((INDEPENDENT, 0.0), (CORRELATED, 0.72)):  # 0.8, shrunk by a tenth
        away = (drawn[noise] - expected)[:, both, :2].reshape(-1, 2)
        assert np.corrcoef(away.T)[0, 1] == pytest.approx(wanted, abs=0.08)


def test_counts_are_whole_and_keep_the_expectation(drawn, expected):
    counts = 2.0 ** drawn[COUNTING].astype(np.float64) - 1
    np.testing.assert_allclose(counts, np.rint(counts), atol=2e-3)
    np.testing.assert_allclose(drawn[COUNTING].mean((0, 1)), expected.mean(0), atol=0.02)


def test_many_counts_are_less_noisy_than_few(drawn, expected):
    away = np.abs(drawn[COUNTING] - expected)
    assert away[:, expected > 6].mean() < 0.5 * away[:, (expected > 1) & (expected < 3)].mean()


def test_noise_belongs_to_a_spot_and_a_seed(drawn, expected, residuals):
    part = draws_around(expected[50:60], residuals, ids(200)[50:60], range(8), 0)
    for noise in NOISES:
        np.testing.assert_allclose(part[noise], drawn[noise][:, 50:60], atol=1e-5)
    other = draws_around(expected[50:60], residuals, ids(200)[50:60], range(8), 1)
    assert (other[INDEPENDENT] != part[INDEPENDENT]).any()


def test_eight_draws_are_spread_evenly(drawn, expected):
    """The mean of a value's draws strays less than that of eight independent ones would."""
    high = expected[:, 5] > 4  # nothing is cut off at 0
    away = drawn[INDEPENDENT][:, high, 5] - expected[high, 5]
    assert away.mean(0).std() < 0.5 * away.std() / np.sqrt(8)
