import pytest
import torch

from napari_flag.errors import UserError
from napari_flag.model.diffusion import SIGMA_MAX, SIGMA_MIN, precondition
from napari_flag.model.samplers import SOLVERS, SamplerSettings, evaluations, log_schedule


def solve(name, denoise, start, steps):
    solving = SOLVERS[name](denoise, start, log_schedule(steps, SIGMA_MAX, SIGMA_MIN))
    evaluations = []
    while True:
        try:
            evaluations.append(next(solving))
        except StopIteration as stop:
            return stop.value, evaluations


@pytest.fixture(scope="module")
def gaussian():
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(8, 3, generator=generator)
    return precondition(factor @ factor.T + torch.eye(8), shrinkage=0.1)


@pytest.mark.parametrize(("name", "steps", "tolerance"), [("dpmpp_2m", 10, 0.06), ("heun", 18, 0.06)])
def test_a_gaussian_is_sampled_with_its_covariance(gaussian, name, steps, tolerance):
    noise = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(1))
    drawn, _ = solve(name, gaussian.skip, gaussian.start(noise, SIGMA_MAX), steps)
    wanted = gaussian.eigenvectors @ torch.diag(gaussian.eigenvalues) @ gaussian.eigenvectors.T
    error = torch.linalg.norm(torch.cov(drawn.T) - wanted) / torch.linalg.norm(wanted)
    assert error < tolerance


@pytest.mark.parametrize("name", SOLVERS)
def test_more_steps_come_closer_to_the_exact_solution(gaussian, name):
    noise = torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    exact = gaussian.start(noise, 0.0)
    errors = [
        float((solve(name, gaussian.skip, gaussian.start(noise, SIGMA_MAX), steps)[0] - exact).norm())
        for steps in (12, 40, 120)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_a_known_clean_value_is_returned_exactly():
    clean = torch.tensor([[1.0, -2.0, 0.5]])
    noisy = clean + SIGMA_MAX * torch.randn(1, 3, generator=torch.Generator().manual_seed(3))
    for name in SOLVERS:
        found, _ = solve(name, lambda x, sigma: clean.expand_as(x), noisy, 8)
        torch.testing.assert_close(found, clean, atol=1e-5, rtol=0)


def test_the_multistep_solver_evaluates_once_a_step_and_heun_twice(gaussian):
    noise = torch.randn(2, 8)
    assert solve("dpmpp_2m", gaussian.skip, noise, 10)[1][-1] == 10
    assert solve("heun", gaussian.skip, noise, 10)[1][-1] == 19


def test_the_schedule_falls_to_zero():
    sigmas = log_schedule(10, 20.0, 0.02)
    assert sigmas[0] == pytest.approx(20.0)
    assert sigmas[-2] == pytest.approx(0.02)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_evaluations_are_counted_per_solver():
    assert evaluations(SamplerSettings(steps=10)) == 10
    assert evaluations(SamplerSettings(steps=10, solver="heun")) == 19


def test_settings_that_cannot_be_run_are_refused():
    with pytest.raises(UserError, match="one draw"):
        SamplerSettings(draws=0)
    with pytest.raises(UserError, match="numbered from 1"):
        SamplerSettings(first=0)
    with pytest.raises(UserError, match="no solver"):
        SamplerSettings(solver="magic")


def test_draws_are_numbered_from_the_first_asked_for():
    assert list(SamplerSettings().numbers) == [1]
    assert list(SamplerSettings(draws=3, first=6).numbers) == [6, 7, 8]
