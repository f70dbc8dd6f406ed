import numpy as np
import pytest
import torch

from napari_flag.prediction import _LEADING_AXES, SamplerSettings, _paired_noise, evaluations

GENES = 12


@pytest.fixture(scope="module")
def axes():
    return torch.linalg.qr(torch.randn(GENES, GENES, generator=torch.Generator().manual_seed(0)))[0]


@pytest.fixture(scope="module")
def noise(axes):
    ids = [f"spot{i}" for i in range(3000)]
    return _paired_noise(SamplerSettings(samples=4, seed=5), ids, axes).view(4, 3000, GENES)


def test_every_joint_sample_is_standard_normal_on_its_own(noise):
    for sample in noise:
        np.testing.assert_allclose(torch.cov(sample.T), np.eye(GENES), atol=0.12)
        assert abs(float(sample.mean())) < 0.03


def test_pairs_cancel_along_the_leading_axes_and_nowhere_else(noise, axes):
    along = (noise[0] + noise[1]) @ axes
    assert along[:, -_LEADING_AXES:].abs().max() < 1e-4
    np.testing.assert_allclose(along[:, :-_LEADING_AXES].var(0), 2.0, rtol=0.15)


def test_different_pairs_are_independent(noise):
    assert abs(np.corrcoef(noise[1].flatten(), noise[2].flatten())[0, 1]) < 0.03


def test_a_sample_does_not_depend_on_how_many_are_drawn(noise, axes):
    ids = [f"spot{i}" for i in range(3000)]
    two = _paired_noise(SamplerSettings(samples=2, seed=5), ids, axes).view(2, 3000, GENES)
    torch.testing.assert_close(two, noise[:2])


def test_evaluations_are_counted_per_solver():
    assert evaluations(SamplerSettings(steps=10)) == 10
    assert evaluations(SamplerSettings(steps=10, solver="heun")) == 19
