import numpy as np
import pytest
import torch
from scipy import stats

from napari_flag.model.diffusion import (
    SIGMA_MAX,
    SIGMA_MIN,
    keyed_noise,
    keyed_uniforms,
    noise_levels,
    precondition,
)


def test_for_unit_covariance_the_preconditioning_is_edm():
    p = precondition(torch.eye(5))
    x, sigma = torch.randn(3, 5), torch.tensor([0.1, 1.0, 7.0])
    var = sigma[:, None] ** 2
    torch.testing.assert_close(p.skip(x, sigma), x / (1 + var))
    torch.testing.assert_close(p.scale_in(x, sigma), x / (1 + var).sqrt())
    torch.testing.assert_close(p.scale_out(x, sigma), x * sigma[:, None] / (1 + var).sqrt())


@pytest.mark.parametrize("sigma", [0.05, 1.0, 10.0])
def test_input_and_target_have_unit_covariance_at_every_noise_level(sigma):
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(6, 2, generator=generator) * 2
    covariance = factor @ factor.T + 0.5 * torch.eye(6)
    p = precondition(covariance, shrinkage=1e-9)
    r = p.start(torch.randn(40_000, 6, generator=generator), 0.0)
    x = r + sigma * torch.randn(r.shape, generator=generator)
    levels = torch.full((len(r),), sigma)
    for unit in (p.scale_in(x, levels), p.target(r, x, levels)):
        torch.testing.assert_close(torch.cov(unit.T), torch.eye(6), atol=0.05, rtol=0)


def test_denoising_with_the_true_target_gives_back_the_clean_residual():
    p = precondition(torch.cov(torch.randn(50, 6).T))
    r, sigma = torch.randn(4, 6), torch.tensor([0.1, 0.5, 2.0, 9.0])
    x = r + sigma[:, None] * torch.randn(4, 6)
    again = p.skip(x, sigma) + p.scale_out(p.target(r, x, sigma), sigma)
    torch.testing.assert_close(again, r, atol=1e-4, rtol=1e-4)


def test_noise_levels_cover_the_range_evenly_in_the_logarithm():
    sigma = noise_levels(1000, torch.Generator().manual_seed(0))
    assert sigma.min() >= SIGMA_MIN
    assert sigma.max() <= SIGMA_MAX
    middle = (SIGMA_MIN * SIGMA_MAX) ** 0.5
    assert (sigma < middle).float().mean() == pytest.approx(0.5, abs=0.01)


def test_the_network_is_gated_out_at_noise_that_leaves_only_the_mean():
    f = torch.ones(3, 4)
    gated = precondition(torch.eye(4)).gate(f, torch.tensor([0.02, 1.0, 20.0]))[:, 0]
    torch.testing.assert_close(gated, torch.tensor([1.0, 0.5, 0.0]), atol=3e-3, rtol=0)


def test_a_spot_keeps_its_noise_whatever_other_spots_are_asked_for():
    alone = keyed_noise(7, 0, ["10x12"], 5)
    among = keyed_noise(7, 0, ["3x3", "10x12", "4x4"], 5)
    np.testing.assert_array_equal(alone[0], among[1])


@pytest.mark.parametrize("other", [(8, 0, "a"), (7, 1, "a"), (7, 0, "b")])
def test_seed_sample_and_spot_each_change_the_noise(other):
    seed, sample, spot = other
    assert not np.array_equal(keyed_noise(7, 0, ["a"], 5), keyed_noise(seed, sample, [spot], 5))


def test_noise_is_standard_normal_and_independent_between_spots_and_genes():
    noise = keyed_noise(0, 0, [f"{i}" for i in range(4000)], 6)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(6), atol=0.08)
    assert np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1] == pytest.approx(0, abs=0.06)


def test_uniform_numbers_of_a_spot_do_not_depend_on_the_others_nor_on_the_purpose_of_others():
    many = keyed_uniforms(3, 1, ["a", "b", "c"], 5, "count")
    np.testing.assert_array_equal(keyed_uniforms(3, 1, ["c", "a"], 5, "count"), many[[2, 0]])
    assert not np.isclose(keyed_uniforms(3, 1, ["a"], 5, "depth"), many[:1]).any()
    assert not np.isclose(keyed_uniforms(4, 1, ["a"], 5, "count"), many[:1]).any()


def test_eight_draws_in_a_row_take_every_eighth_of_the_distribution_once():
    drawn = np.stack([keyed_uniforms(0, draw, ["a", "b"], 50, "count") for draw in range(8, 16)])
    eighths = np.sort((drawn * 8).astype(int), axis=0)
    assert (eighths == np.arange(8)[:, None, None]).all()


def test_numbers_of_one_draw_are_uniform_and_independent():
    drawn = keyed_uniforms(0, 2, [str(n) for n in range(4000)], 3, "count")
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in drawn.T)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(3), atol=0.06)
