import numpy as np
import pytest

from napari_flag.statistics.calibration import normal_coverage, spread_over_error


@pytest.fixture
def truth_and_mean() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mean = rng.uniform(8, 12, (400, 40))
    return mean + rng.normal(0, 1, mean.shape), mean


def test_a_spread_too_narrow_covers_less_and_too_wide_covers_more(truth_and_mean):
    truth, mean = truth_and_mean
    narrow, wide = (normal_coverage(mean, np.full_like(mean, s), truth) for s in (0.5, 2.0))
    for less, more in zip(narrow, wide, strict=True):
        assert less.share < less.level - 0.1
        assert more.share > more.level + 0.03
        assert more.width > 3 * less.width


def test_mean_and_spread_cover_the_nominal_share_of_a_normal(truth_and_mean):
    truth, mean = truth_and_mean
    for found in normal_coverage(mean, np.ones_like(mean), truth):
        assert found.share == pytest.approx(found.level, abs=0.02)
        assert found.below == pytest.approx(found.above, abs=0.02)
        assert found.share + found.below + found.above == pytest.approx(1.0)
    widths = [found.width for found in normal_coverage(mean, np.ones_like(mean), truth)]
    np.testing.assert_allclose(widths, [1.349, 2.563, 3.920], atol=1e-3)


def test_a_bias_shows_on_one_side(truth_and_mean):
    truth, mean = truth_and_mean
    found = normal_coverage(mean - 2, np.ones_like(mean), truth)[1]
    assert found.above > 0.5
    assert found.below < 0.01


def test_zeros_are_covered_by_intervals_that_begin_there_and_are_reported_apart():
    truth = np.zeros((20, 4))
    truth[:, 3] = 9.0
    zero, one = np.zeros((20, 4)), np.ones((20, 4))
    found = normal_coverage(zero, one, truth)[0]
    assert found.share == pytest.approx(0.75)
    assert found.positive == 0.0
    assert np.isnan(normal_coverage(zero[:, :3], one[:, :3], truth[:, :3])[0].positive)


def test_a_normal_interval_stops_at_zero():
    found = normal_coverage(np.zeros((3, 2)), np.ones((3, 2)), np.zeros((3, 2)))[2]
    assert found.share == 1.0
    assert found.width == pytest.approx(1.96, abs=1e-3)


def test_spread_over_error_is_one_when_calibrated_and_scales_with_the_spread(truth_and_mean):
    truth, mean = truth_and_mean
    assert spread_over_error(mean, np.ones_like(mean), truth) == pytest.approx(1.0, abs=0.02)
    assert spread_over_error(mean, np.full_like(mean, 0.5), truth) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("levels", [(), (0.0,), (0.5, 1.0)])
def test_levels_that_are_no_shares_are_refused(truth_and_mean, levels):
    truth, mean = truth_and_mean
    with pytest.raises(ValueError, match="shares between 0 and 1"):
        normal_coverage(mean, np.ones_like(mean), truth, levels)


def test_measurements_of_other_spots_are_refused(truth_and_mean):
    truth, mean = truth_and_mean
    with pytest.raises(ValueError, match="measurements"):
        normal_coverage(mean, np.ones_like(mean), truth[1:])
