import numpy as np
import pytest

from napari_flag.model.diffusion import keyed_noise


def test_a_spot_keeps_its_noise_whatever_stands_beside_it():
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
