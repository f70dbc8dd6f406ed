import numpy as np
import pytest
import torch
from tests.tiny_weights import GENES, tiny_network, write_tiny_weights

from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor, SharedNoise, paired_noise
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.flag import Context
from napari_flag.model.samplers import SamplerSettings

IDS = [f"spot{i}" for i in range(3000)]
G = len(GENES)


@pytest.fixture(scope="module")
def network():
    """Correlated residuals, a fifth of whose variance is each gene's own."""
    network = tiny_network(8)
    factor = torch.randn(G, 2, generator=torch.Generator().manual_seed(0))
    covariance = 0.8 * factor @ factor.T / 2 + 0.2 * torch.eye(G)
    values, vectors = torch.linalg.eigh(covariance)
    network.get_buffer("eigenvalues").copy_(values)
    network.get_buffer("eigenvectors").copy_(vectors)
    return network


@pytest.fixture(scope="module")
def shared(network):
    nothing = torch.zeros(1, G)
    variance = torch.tensor([0.0, 0.05, 0.1, 0.15, 9.0])
    return SharedNoise.of(network, Context(nothing, nothing, nothing[0], nothing[0], variance, nothing[0]))


@pytest.fixture(scope="module")
def noise(shared):
    return paired_noise(SamplerSettings(samples=4, seed=5), IDS, shared).view(4, len(IDS), G)


def test_every_joint_sample_is_standard_normal_on_its_own(noise):
    for sample in noise:
        np.testing.assert_allclose(torch.cov(sample.T), np.eye(G), atol=0.12)
        assert abs(float(sample.mean())) < 0.03


def test_the_mean_of_the_samples_keeps_the_shared_measurement_noise_and_nothing_else(network, noise, shared):
    p = network.preconditioner
    left = p.start(noise.mean(0), 0.0)  # what the Gaussian sampler makes of the mean noise
    np.testing.assert_allclose(torch.cov(left.T), torch.diag(shared.variance), atol=0.015)


def test_no_gene_shares_more_than_the_residuals_independent_part(network, shared):
    assert shared.variance[4] < network.get_buffer("eigenvalues").min()


def test_without_shared_noise_pairs_cancel(network):
    nothing = torch.zeros(1, G)
    none = SharedNoise.of(network, Context(nothing, nothing, nothing[0], nothing[0], nothing[0], nothing[0]))
    pair = paired_noise(SamplerSettings(samples=2), IDS, none).view(2, len(IDS), G)
    assert pair.sum(0).abs().max() < 1e-4


def test_a_sample_does_not_depend_on_how_many_are_drawn(noise, shared):
    two = paired_noise(SamplerSettings(samples=2, seed=5), IDS, shared).view(2, len(IDS), G)
    torch.testing.assert_close(two, noise[:2])


def test_tensors_that_do_not_fit_the_network_are_refused(tmp_path):
    checkpoint = Checkpoint.load(write_tiny_weights(tmp_path / "tiny.safetensors"))
    del checkpoint.tensors["flag.spread"]
    with pytest.raises(UserError, match="do not fit the network"):
        FlagPredictor.open(checkpoint)
