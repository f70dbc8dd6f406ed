"""Losses of diffusion over windows; `tests.model.test_published` holds them to be the published ones."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from flag_training.methods.tissue_windows import TrainingWindows
from flag_training.methods.window_losses import (
    held_out_loss,
    score_matching,
    spot_correlation,
)
from napari_flag.methods.windowed import Joint, Scale, WindowNetwork, WindowSizes
from napari_flag.model.published import PublishedConfig


def test_spots_are_correlated_as_numpy_does_and_padding_is_not():
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 1, (2, 6, 40)))
    present = torch.ones(2, 6, dtype=torch.bool)
    present[1, 4:] = False
    found = spot_correlation(x, present)
    for window, n in zip(range(2), (6, 4), strict=True):
        expected = np.corrcoef(x[window, :n].numpy())
        np.fill_diagonal(expected, 0)
        np.testing.assert_allclose(found[window, :n, :n], expected, atol=1e-6)
    assert not found[1, 4:].any()


def test_published_edges_tend_to_one_as_genes_are_added_whatever_the_spots_say():
    x = torch.from_numpy(np.random.default_rng(0).gamma(2, 1, (1, 30, 800)))
    present = torch.ones(1, 30, dtype=torch.bool)
    off = ~torch.eye(30, dtype=torch.bool)
    for genes in (50, 800):
        assert spot_correlation(x[..., :genes], present)[0][off].mean().abs() < 0.05
    published = [1 - spot_correlation(x[..., :genes], present, "sum")[0][off].mean() for genes in (50, 800)]
    assert 0 < published[1] < published[0] / 10 < 0.005


def test_a_score_of_zero_loses_one_and_the_true_one_nothing():
    clean, noise = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    sigma, counted = torch.tensor([0.1, 1.0, 9.0]), torch.ones(3, 4, 5, dtype=torch.bool)
    noisy = clean + sigma[:, None, None] * noise
    none = score_matching(torch.zeros_like(clean), clean, noisy, sigma, counted)
    torch.testing.assert_close(none, noise.square().mean(), rtol=1e-3, atol=1e-3)
    true = (clean - noisy) / sigma[:, None, None] ** 2
    assert score_matching(true, clean, noisy, sigma, counted) < 1e-8


def test_a_scaled_network_that_answers_nothing_loses_one_at_every_time():
    mean, spread, sigma = torch.linspace(1, 3, 5), torch.tensor(1.5), torch.tensor([0.02, 8.0])
    scale = Scale(True, 5)
    scale.measure(mean, spread)
    clean = mean + spread * torch.randn(2, 400, 5)
    noisy = clean + sigma[:, None, None] * torch.randn(2, 400, 5)
    everything, weight = torch.ones(1, 400, 5, dtype=torch.bool), scale.weight(sigma)
    score = scale.score(torch.zeros_like(noisy), noisy, sigma)
    for part in (slice(0, 1), slice(1, 2)):
        lost = score_matching(score[part], clean[part], noisy[part], sigma[part], everything, weight[part])
        assert lost.item() == pytest.approx(1, abs=0.15)


class Silent(WindowNetwork):
    """A network whose score is 0."""

    def __init__(self):
        config = PublishedConfig(5, 8, 8, 1, 4, gene_hidden=0)
        super().__init__(WindowSizes(8, asdict(config), 600.0))
        self.weight = nn.Parameter(torch.zeros(1))

    def scores(self, state, t, windows):
        return tuple(torch.zeros_like(part) for part in state)


class SilentJoint(Silent, Joint):
    """One that has edges, too."""


def test_held_out_losses_of_all_forms_are_of_the_same_noise():
    present = torch.ones(2, 6, dtype=torch.bool)
    windows = [
        TrainingWindows(torch.randn(2, 6, 8), None, present, torch.rand(2, 6, 5), torch.zeros(2, 6).long())
    ]
    plain, joint = (
        held_out_loss(network, windows, times=[0.2, 0.7]) for network in (Silent(), SilentJoint())
    )
    np.testing.assert_allclose(plain, 1, atol=0.5)
    np.testing.assert_array_equal(joint, plain)
