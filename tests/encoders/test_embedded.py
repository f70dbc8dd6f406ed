import numpy as np
import pytest
import torch

from flag_training.cohort import View
from napari_flag.encoders import embedded
from napari_flag.encoders.embedded import DIM, TILE_PX, EmbeddedEncoder, IntegerNet, TileNet, pool_map
from napari_flag.encoders.foundation.catalogue import EMBEDDED
from napari_flag.encoders.registry import build_encoder, find_encoder
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import Checkpoint, find_weights


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


needs_integers = pytest.mark.skipif(
    not IntegerNet.supported(), reason="this processor has no convolutions in 8-bit integers"
)


@needs_integers
def test_integers_change_features_by_a_small_share_of_what_tiles_differ_by():
    """Of the shipped network, whose normalisations know the activations, on tiles of unlike colours."""
    net = TileNet()
    net.load_state_dict(Checkpoint.load(find_weights()).part("encoder."))
    rng = np.random.default_rng(3)
    colours = rng.uniform((110, 60, 120), (250, 190, 240), (8, 50, 50, 3)).repeat(12, 1).repeat(12, 2)
    tiles = (0.7 * colours + 0.3 * colours.mean((1, 2), keepdims=True)).astype(np.uint8)
    exact, rounded = (EmbeddedEncoder(net, integers=integers).encode(tiles) for integers in (False, True))
    learned = DIM - 5 * 160
    np.testing.assert_array_equal(exact[:, :learned], rounded[:, :learned])  # stain and texture
    spread, error = exact[:, learned:].std(0), (rounded - exact)[:, learned:].std(0)
    assert 0 < np.median(error / spread.clip(1e-9)) < 0.1


@needs_integers
def test_integers_give_the_same_features_in_any_batch(trained, tiles):
    encoder = EmbeddedEncoder(trained, integers=True)
    alone = np.concatenate([encoder.encode(tiles[:1]), encoder.encode(tiles[1:])])
    np.testing.assert_array_equal(encoder.encode(tiles), alone)


@needs_integers
def test_features_in_integers_are_kept_apart_from_exact_ones(trained):
    assert EmbeddedEncoder(trained, integers=True).fingerprint != EmbeddedEncoder(trained).fingerprint


def test_features_in_half_precision_are_kept_apart_from_exact_ones_and_from_those_in_integers(
    trained, monkeypatch
):
    others = {EmbeddedEncoder(trained, integers=integers).fingerprint for integers in (False, True)}
    exact = EmbeddedEncoder(trained)
    monkeypatch.setattr(embedded, "_supports_half", lambda _: True)
    half = EmbeddedEncoder(trained)
    assert half.fingerprint not in others
    assert half.weights == exact.weights == exact.fingerprint


def test_a_processor_without_such_integers_computes_as_training_does(trained, tiles, monkeypatch):
    monkeypatch.setattr(IntegerNet, "supported", staticmethod(lambda: False))
    exact, asked = EmbeddedEncoder(trained), EmbeddedEncoder(trained, integers=True)
    assert asked.fingerprint == exact.fingerprint
    np.testing.assert_array_equal(asked.encode(tiles), exact.encode(tiles))


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
