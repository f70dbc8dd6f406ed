import numpy as np
import pytest
import torch

from napari_flag.model.graph import build_graph
from napari_flag.model.noise import keyed_noise, spatial_noise


@pytest.fixture(scope="module")
def lattice():
    rows, columns = np.divmod(np.arange(900), 30)
    xy = np.stack([columns, rows], 1) * 200.0
    features = np.random.default_rng(0).normal(size=(900, 4)).astype(np.float32)
    return [f"{r}_{c}" for r, c in zip(rows, columns, strict=True)], build_graph(xy, features, 200.0)


def draw(lattice, rows, share, seed=0, genes=4):
    ids, graph = lattice
    return spatial_noise(seed, 0, ids, rows, graph, torch.eye(genes), torch.full((genes,), share))


def test_a_spot_keeps_its_noise_whatever_stands_beside_it():
    alone = keyed_noise(7, 0, ["10x12"], 5)
    among = keyed_noise(7, 0, ["3x3", "10x12", "4x4"], 5)
    np.testing.assert_array_equal(alone[0], among[1])


@pytest.mark.parametrize("other", [(8, 0, "a"), (7, 1, "a"), (7, 0, "b")])
def test_seed_sample_and_spot_each_change_the_noise(other):
    seed, sample, spot = other
    assert not np.array_equal(keyed_noise(7, 0, ["a"], 5), keyed_noise(seed, sample, [spot], 5))


def test_chunks_have_the_noise_of_the_whole(lattice):
    whole = draw(lattice, np.arange(900), 0.6)
    chunk = draw(lattice, np.arange(300, 340), 0.6)
    torch.testing.assert_close(chunk, whole[300:340])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_each_spot_s_noise_stays_standard_normal(lattice, share):
    noise = torch.cat([draw(lattice, np.arange(900), share, seed=s) for s in range(6)])
    assert noise.mean() == pytest.approx(0, abs=0.06)
    assert noise.std() == pytest.approx(1, abs=0.06)


def test_neighbours_share_noise_as_asked(lattice):
    rows = np.arange(900)
    right = rows.reshape(30, 30)[:, :-1].ravel()
    correlation = []
    for share in (0.0, 0.5, 0.95):
        noise = torch.cat([draw(lattice, rows, share, seed=s) for s in range(4)], 1)
        correlation.append(float((noise[right] * noise[right + 1]).mean()))
    assert correlation[0] == pytest.approx(0, abs=0.06)
    assert correlation[0] < correlation[1] < correlation[2]
