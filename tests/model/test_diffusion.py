import numpy as np
import pytest
import torch
from scipy import stats

from napari_flag.model.diffusion import (
    SIGMA_MAX,
    SIGMA_MIN,
    Preconditioner,
    keyed_uniforms,
    noise_levels,
    precondition,
)


@pytest.mark.parametrize("p", [precondition(torch.eye(5)), Preconditioner(torch.ones(5), None)])
def test_for_unit_covariance_and_without_one_the_preconditioning_is_edm(p):
    generator = torch.Generator().manual_seed(0)
    x, r = torch.randn(2, 3, 5, generator=generator)
    sigma = torch.tensor([0.1, 1.0, 7.0])
    var = sigma[:, None] ** 2
    torch.testing.assert_close(p.skip(x, sigma), x / (1 + var))
    torch.testing.assert_close(p.scale_in(x, sigma), x / (1 + var).sqrt())
    torch.testing.assert_close(p.scale_out(x, sigma), x * sigma[:, None] / (1 + var).sqrt())
    target = (r - x / (1 + var)) * (1 + var).sqrt() / sigma[:, None]
    torch.testing.assert_close(p.target(r, x, sigma), target, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(p.start(x, 3.0), x * 10**0.5)


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


def test_a_spot_keeps_its_numbers_whatever_other_spots_are_asked_for():
    many = keyed_uniforms(3, 1, ["a", "b", "c"], 5, "count")
    np.testing.assert_array_equal(keyed_uniforms(3, 1, ["c", "a"], 5, "count"), many[[2, 0]])


@pytest.mark.parametrize(
    "other",
    [
        (8, 1, "a", "count"),
        (3, 2, "a", "count"),
        (3, 9, "a", "count"),
        (3, 1, "b", "count"),
        (3, 1, "a", "x"),
    ],
)
def test_seed_draw_spot_and_purpose_each_change_the_numbers(other):
    seed, draw, spot, purpose = other
    here = keyed_uniforms(3, 1, ["a"], 5, "count")
    assert not np.isclose(keyed_uniforms(seed, draw, [spot], 5, purpose), here).any()


def test_eight_draws_in_a_row_take_every_eighth_of_the_distribution_once():
    drawn = np.stack([keyed_uniforms(0, draw, ["a", "b"], 50, "count") for draw in range(8, 16)])
    eighths = np.sort((drawn * 8).astype(int), axis=0)
    assert (eighths == np.arange(8)[:, None, None]).all()


def test_numbers_of_one_draw_are_uniform_and_independent():
    drawn = keyed_uniforms(0, 2, [str(n) for n in range(4000)], 3, "count")
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in drawn.T)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(3), atol=0.06)
    assert np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1] == pytest.approx(0, abs=0.06)
