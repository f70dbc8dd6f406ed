import numpy as np
import pytest
import torch

from napari_flag.encoders.embedded import (
    DIM,
    STATISTICS_DIM,
    TILE_PX,
    EmbeddedEncoder,
    TileNet,
    _uniform_patterns,
    pool_map,
    statistics,
)
from napari_flag.encoders.foundation.catalogue import EMBEDDED
from napari_flag.encoders.registry import build_encoder, find_encoder
from napari_flag.errors import UserError


@pytest.fixture(scope="module")
def tiles():
    rng = np.random.default_rng(0)
    smooth = rng.uniform(90, 230, (2, 12, 12, 3)).repeat(50, 1).repeat(50, 2)
    return (smooth + rng.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return EmbeddedEncoder(TileNet())


def test_a_tile_becomes_one_finite_vector(encoder, tiles):
    features = encoder.encode(tiles)
    assert features.shape == (2, DIM)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_batching_does_not_change_features(encoder, tiles):
    together = encoder.encode(tiles)
    alone = np.concatenate([encoder.encode(tiles[:1]), encoder.encode(tiles[1:])])
    np.testing.assert_allclose(together, alone, atol=1e-4, rtol=1e-4)


def test_the_registry_row_says_what_the_encoder_is(encoder):
    assert (EMBEDDED.name, EMBEDDED.dim, EMBEDDED.tile_px, EMBEDDED.mpp) == (
        encoder.name,
        encoder.dim,
        encoder.tile_px,
        encoder.mpp,
    )


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


def test_pooling_covers_the_spot_and_its_surroundings():
    features = torch.zeros(1, 1, 38, 38)
    features[..., 16:22, 16:22] = 1.0
    spot, _, border, around, _ = pool_map(features)[0]
    assert spot > border > around > 0


def test_an_unknown_encoder_is_refused_by_name():
    with pytest.raises(UserError, match=r'"unicorn".*embedded'):
        find_encoder("unicorn")


def test_weights_that_are_not_the_encoders_are_refused():
    with pytest.raises(UserError, match="does not hold"):
        build_encoder("embedded", {"nonsense": torch.zeros(1)}, "cpu")


def test_tiles_are_about_two_array_pitches_wide():
    assert TILE_PX * EMBEDDED.mpp == pytest.approx(410, abs=1)
