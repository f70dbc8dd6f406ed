import numpy as np
import pytest
import torch

from flag_training.cohort import View
from napari_flag.encoders.embedded import DIM, TILE_PX, EmbeddedEncoder, TileNet, pool_map
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


@pytest.mark.parametrize("view", [View(1), View(2, mirrored=True), View(3, log_gain=(0.1, 0.0, -0.1))])
def test_a_view_of_a_tile_is_encoded_as_its_copy_is(encoder, tiles, view):
    """Turned and mirrored tiles are views of other strides."""
    seen = view.of(tiles)
    np.testing.assert_array_equal(encoder.encode(seen), encoder.encode(seen.copy(order="C")))


def test_the_registry_row_says_what_the_encoder_is(encoder):
    assert (EMBEDDED.name, EMBEDDED.dim, EMBEDDED.tile_px, EMBEDDED.mpp) == (
        encoder.name,
        encoder.dim,
        encoder.tile_px,
        encoder.mpp,
    )


@pytest.fixture(scope="module")
def trained():
    """A network whose normalisations have seen something, as a trained one's have."""
    torch.manual_seed(1)
    net = TileNet()
    with torch.no_grad():
        for number, layer in enumerate(net.layers):
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.3)
                layer.running_var.uniform_(0.3, 2)
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0.1 * number, 0.2)
    return net.eval()


def test_folding_normalisations_into_convolutions_changes_nothing_but_rounding(trained, tiles):
    images = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    half = torch.nn.functional.avg_pool2d(images, 2)
    with torch.inference_mode():
        wanted = pool_map(trained(half)).numpy()
    found = EmbeddedEncoder(trained).encode(tiles)[:, -wanted.shape[1] :]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_encoding_leaves_the_network_it_was_given_as_it_is(trained, tiles):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    EmbeddedEncoder(trained).encode(tiles)
    after = trained.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


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
