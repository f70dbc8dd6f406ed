import numpy as np
import pytest
import torch

from napari_flag.encoders.tile_statistics import (
    STATISTICS_DIM,
    _uniform_patterns,
    statistics,
    statistics_of_tile,
)


@pytest.fixture(scope="module")
def tiles():
    rng = np.random.default_rng(0)
    smooth = rng.uniform(90, 230, (2, 12, 12, 3)).repeat(50, 1).repeat(50, 2)
    return (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["tissue", "noise", "glass", "black"])
def test_a_tile_on_a_core_has_the_statistics_of_a_batch_on_a_gpu(kind, tiles):
    tile = {
        "tissue": tiles[0],
        "noise": np.random.default_rng(1).integers(0, 256, (600, 600, 3)).astype(np.uint8),
        "glass": np.full((600, 600, 3), 243, np.uint8),
        "black": np.zeros((600, 600, 3), np.uint8),
    }[kind]
    batch = statistics(torch.from_numpy(tile[None]).permute(0, 3, 1, 2).float() / 255)[0].numpy()
    alone = statistics_of_tile(tile)
    assert alone.shape == batch.shape == (STATISTICS_DIM,)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(alone, batch, atol=2e-6)


def test_turning_a_tile_changes_statistics_less_than_another_tile_does(tiles):
    images = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    turned, still = statistics(images.rot90(1, (2, 3))), statistics(images)
    assert still.shape == (2, STATISTICS_DIM)
    assert (turned - still)[0].norm() < 0.25 * (still[0] - still[1]).norm()


def test_uniform_patterns_agree_with_scikit_image(tiles):
    from skimage.feature import local_binary_pattern

    grey = tiles[0, :80, :80, 0].astype(np.float64)
    ours = _uniform_patterns(torch.from_numpy(grey)[None].float(), 1)[0].numpy()
    # radius 1 with unrounded corners interpolates in scikit-image, so compare where it need not
    theirs = local_binary_pattern(grey.astype(np.uint8), 8, 2**0.5, "uniform")
    inner = (slice(2, -2), slice(2, -2))
    assert ours.min() >= 0
    assert ours.max() <= 9
    share = np.array([[(ours[inner] == c).mean(), (theirs[inner] == c).mean()] for c in range(10)])
    assert np.abs(share[:, 0] - share[:, 1]).max() < 0.15
