"""The residual model against simulated Poisson log-normal counts, and against dense matrices."""

import numpy as np
import pytest
import torch

from flag_training.stages.latents import ResidualModel, Slides, draw_latents, fit_latents, scaled
from napari_flag.model.flag import QUANTILES
from napari_flag.progress import finish

GENES, SPOTS = 20, 600
DEPTH = 0.5


def make_model(genes=GENES, depth=DEPTH, seed=0):
    """Depth residuals of this standard deviation, and two factors that hardly change a spot's total."""
    generator = torch.Generator().manual_seed(seed)
    loadings = 0.4 * torch.randn(genes, 2, generator=generator, dtype=torch.float64)
    loadings -= loadings.mean(0)
    own = torch.linspace(0.05, 0.3, genes, dtype=torch.float64)
    levels = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
    return ResidualModel(depth * torch.special.ndtri(levels).numpy()[None], loadings, own)


def covariance_of(model):
    return model.loadings @ model.loadings.T + model.own.diag()


def simulate(model, spots=SPOTS, level=2.0, seed=1):
    """Return (n, G) counts of `model`, and μ, δ and r that they come from."""
    generator = torch.Generator().manual_seed(seed)
    genes = len(model.own)
    latent = level + 0.7 * torch.randn(spots, genes, generator=generator, dtype=torch.float64)
    depth = torch.from_numpy(model.depth).std() * torch.randn(spots, generator=generator, dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance_of(model))
    residual = torch.randn(spots, genes, generator=generator, dtype=torch.float64) @ factor.T
    return (
        torch.poisson(torch.exp(latent + depth[:, None] + residual), generator=generator),
        latent,
        depth,
        residual,
    )


@pytest.fixture(scope="module")
def simulated():
    return simulate(make_model())


@pytest.fixture(scope="module")
def latents(simulated):
    counts, latent, _, _ = simulated
    expected = torch.from_numpy(make_model().observation().expected(latent.numpy()))
    return finish(fit_latents(counts, expected, Slides.alike([SPOTS]), samples=4, seed=0))


@pytest.mark.slow
def test_depth_and_composition_of_simulated_counts_are_recovered(simulated, latents):
    _, latent, depth, _ = simulated
    true = make_model()
    assert latents.model.depth.std() == pytest.approx(DEPTH, rel=0.1)
    assert np.corrcoef(latents.depth, depth)[0, 1] > 0.9
    np.testing.assert_allclose(latents.model.variance, true.variance, rtol=0.3)
    assert float(latents.model.variance.mean() / true.variance.mean()) == pytest.approx(1, abs=0.06)
    assert np.median(latents.model.depth) == pytest.approx(0, abs=0.01)  # only μ + δ can be known from counts
    np.testing.assert_allclose(latents.latent, latent, atol=0.15)
    wanted, found = covariance_of(true), covariance_of(latents.model)
    apart = ~torch.eye(GENES, dtype=torch.bool)
    assert np.corrcoef(wanted[apart], found[apart])[0, 1] > 0.95


def test_counts_without_residuals_leave_next_to_none():
    nothing = make_model(depth=0.0)
    nothing = scaled(nothing, 0.01)
    counts, latent, _, _ = simulate(nothing, spots=200)
    expected = torch.from_numpy(nothing.observation().expected(latent.numpy()))
    found = finish(fit_latents(counts, expected, Slides.alike([200]), samples=1, seed=0)).model
    assert found.variance.max() < 0.06
    assert found.depth.std() < 0.1


@pytest.mark.slow
def test_the_depth_of_a_slide_is_spread_as_on_the_slides_it_resembles():
    """Two slides, on one of which the depth of spots varies four times as much."""
    spread = {"even": 0.25, "uneven": 1.0}
    models = [make_model(depth=each) for each in spread.values()]
    made = [simulate(model, spots=300, seed=seed) for seed, model in enumerate(models)]
    expected = [
        torch.from_numpy(model.observation().expected(latent.numpy()))
        for model, (_, latent, _, _) in zip(models, made, strict=True)
    ]
    slides = Slides(torch.arange(600).split(300), torch.eye(2))
    latents = finish(fit_latents(torch.cat([m[0] for m in made]), torch.cat(expected), slides, 1, 0))
    found = latents.model
    assert found.depth.std(1) == pytest.approx(list(spread.values()), rel=0.3)
    assert found.on(torch.tensor([1.0, 0.0])).observation().depth.std() < 0.35
    np.testing.assert_allclose(np.median(found.depth, axis=1), 0, atol=0.02)
    torch.testing.assert_close(slides.centred(latents.depth), latents.centred)
    between = found.on(torch.tensor([0.5, 0.5])).observation()
    np.testing.assert_allclose(between.depth, found.observation().depth)
    assert 0.4 < between.depth.std() < 0.8
    for rows, model, expectation in zip(slides.members, models, expected, strict=True):  # each by its own
        wanted = model.observation().latent(expectation.numpy())
        np.testing.assert_allclose(latents.latent[rows].mean(), wanted.mean(), atol=0.1)
        deviation = slides.deviation(found, torch.cat(expected))[rows]
        truth = np.sqrt(model.observation().variance_of(wanted))
        assert float(deviation.mean()) == pytest.approx(truth.mean(), rel=0.08)


def test_draws_are_as_wide_as_the_residuals_and_modes_narrower(simulated, latents):
    residual, drawn = simulated[3], latents.residual.double()
    assert drawn.shape == (4, SPOTS, GENES)
    assert latents.residual.dtype == torch.float32
    assert float(drawn.var() / residual.var()) == pytest.approx(1, abs=0.06)
    assert float(drawn.mean(0).var() / residual.var()) < 0.9
    assert np.corrcoef(drawn.mean(0).flatten(), residual.flatten())[0, 1] > 0.75


def test_the_same_seed_draws_the_same_residuals(simulated):
    counts, latent = simulated[0][:50], simulated[1][:50]
    one, same, other = (
        draw_latents(
            make_model(), counts, latent, Slides.alike([50]), 2, torch.Generator().manual_seed(seed)
        ).residual
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert (one != other).all()


def test_modes_are_those_of_the_posterior(simulated):
    """Where the gradient of the log posterior is nothing, for more spots than are computed at once."""
    counts, latent, depth, _ = simulated
    model, offset = make_model(), latent + depth[:, None] - 1  # many counts are 0
    mode = model.modes(counts, offset, torch.zeros_like(counts), 9)
    gradient = counts - torch.exp(offset + mode) - torch.linalg.solve(covariance_of(model), mode.T).T
    assert gradient.abs().max() < 1e-6
    assert mode.std() > 0.5


def test_draws_of_a_posterior_have_its_mode_and_its_covariance():
    """Σ, Λ and (Σ⁻¹ + Λ)⁻¹ as whole matrices."""
    model, n = make_model(genes=5), 40_000
    counts = torch.tensor([[0.0, 3.0, 40.0, 0.0, 7.0]], dtype=torch.float64)
    offset = torch.tensor([[0.5, 1.0, 3.0, -2.0, 2.5]], dtype=torch.float64)
    mode = model.modes(counts, offset, torch.zeros_like(counts), 20)
    many = [each.expand(n, -1) for each in (offset, mode)]
    drawn = model.posterior(*many, torch.Generator().manual_seed(0))
    rate = torch.exp(offset + mode)[0]
    wanted = torch.linalg.inv(torch.linalg.inv(covariance_of(model)) + rate.diag())
    deviation = wanted.diagonal().sqrt()
    np.testing.assert_allclose((drawn.mean(0) - mode[0]) / deviation, 0, atol=4 / n**0.5)
    error = (torch.cov(drawn.T) - wanted) / deviation / deviation[:, None]
    np.testing.assert_allclose(error, 0, atol=4 * (2 / n) ** 0.5)
    prior = covariance_of(model).diagonal().sqrt()
    assert (deviation / prior).min() < 0.4  # much was learnt of some genes
    assert (deviation / prior).max() > 0.8  # and little of others


def test_the_depth_of_a_spot_is_its_total_over_the_total_expected():
    model = make_model()
    latent = torch.full((2, GENES), 3.0, dtype=torch.float64)
    total = torch.exp(3 + model.variance / 2).sum()
    counts = torch.full((2, GENES), float(total) / GENES, dtype=torch.float64)
    counts[1] *= 2
    np.testing.assert_allclose(model.depths(counts, latent), [0, np.log(2)], atol=1e-3)
    assert torch.isfinite(model.depths(torch.zeros_like(counts), latent)).all()


def test_scaling_narrows_the_composition_alone():
    model = make_model()
    narrow = scaled(model, 0.2)
    torch.testing.assert_close(narrow.variance, 0.04 * model.variance)
    np.testing.assert_array_equal(narrow.depth, model.depth)
