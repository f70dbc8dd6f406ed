"""Every foundation encoder, shrunk, written as it is published and read through the real path."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.small_encoders import (
    FOUNDATION,
    WIDTH,
    as_conch,
    random_network,
    random_tiles,
    recipe_of,
    shrink,
    write_published,
)

from napari_flag.encoders.foundation import loader
from napari_flag.encoders.foundation.architectures import ConchVit, Pooling, TimmVit
from napari_flag.encoders.foundation.loader import FoundationEncoder, load_foundation
from napari_flag.errors import UserError

ROW = {row.name: row for row in FOUNDATION}
PARAMETERS = {  # of the model cards, or the size of the published float32 file over four
    "uni": 303.3e6,
    "uni2-h": 681e6,
    "conch-1.5": 307e6,
    "virchow": 631e6,
    "virchow2": 631e6,
    "h-optimus-0": 4.54e9 / 4,
    "h-optimus-1": 1.13e9,
    "h0-mini": 86e6,
    "prov-gigapath": 1134953984,
    "phikon": 86e6,
    "phikon-v2": 303e6,
    "gpfm": 303e6,
    "hibou-b": 343e6 / 4,
    "hibou-l": 304e6,
    "midnight": 1.13e9,
}


@pytest.mark.parametrize("row", FOUNDATION, ids=lambda row: row.name)
def test_each_row_has_the_published_size_and_the_width_it_states(row):
    with torch.device("meta"):
        network = recipe_of(row).architecture.build()
    if row.name in PARAMETERS:
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(PARAMETERS[row.name], rel=0.005)
    trunk = network.trunk
    if isinstance(recipe_of(row).architecture, TimmVit | ConchVit):
        patch, grid = trunk.patch_embed.patch_size[0], trunk.patch_embed.grid_size
        assert (grid[0] * patch, grid[1] * patch) == (recipe_of(row).crop_px,) * 2
        pooling = getattr(recipe_of(row).architecture, "pooling", None)
        width = network.pooler.query.shape[1] if pooling is None else trunk.embed_dim
        assert row.dim == width * (2 if pooling is Pooling.CLASS_AND_MEAN else 1)


@pytest.mark.parametrize("row", FOUNDATION, ids=lambda row: row.name)
def test_a_published_file_gives_the_network_it_was_written_from(row, tmp_path):
    row = shrink(row)
    network = random_network(row)
    encoder = load_foundation(row, write_published(row, tmp_path, network), "cpu")
    tiles = random_tiles(row, 2)
    features = encoder.encode(tiles)
    assert features.shape == (2, row.dim)
    assert features.dtype == np.float32
    with torch.inference_mode():
        wanted = network(encoder.prepare(tiles)).numpy()
    np.testing.assert_allclose(features, wanted, atol=2e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-3
    assert (encoder.name, encoder.tile_px, encoder.mpp) == (row.name, row.tile_px, row.mpp)


@pytest.mark.parametrize("name", ["uni", "virchow2", "hibou-l", "conch", "resnet50"])
def test_batching_does_not_change_features(name):
    row = shrink(ROW[name])
    encoder = FoundationEncoder(row, random_network(row))
    tiles = random_tiles(row, 3)
    alone = np.concatenate([encoder.encode(tiles[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(encoder.encode(tiles), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "prefix"), [("uni", 1), ("virchow", 1), ("virchow2", 5), ("uni2-h", 9), ("midnight", 1)]
)
def test_pooling_takes_the_class_token_and_never_a_register(name, prefix):
    row = shrink(ROW[name])
    network = random_network(row)
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        tokens = network.trunk.forward_features(images)
        features = network(images)
    patches = (224 // network.trunk.patch_embed.patch_size[0]) ** 2
    assert tokens.shape[1] == prefix + patches
    torch.testing.assert_close(features[:, :WIDTH], tokens[:, 0])
    if row.dim == 2 * WIDTH:
        torch.testing.assert_close(features[:, WIDTH:], tokens[:, -patches:].mean(1))


def test_conch_pools_as_multihead_attention_does():
    row = shrink(ROW["conch"])
    network = random_network(row)
    named = as_conch(network.state_dict(), whole=True)
    theirs = torch.nn.MultiheadAttention(16, 8, kdim=WIDTH, vdim=WIDTH, batch_first=True).eval()
    start = "visual.attn_pool_contrast.attn."
    theirs.load_state_dict({k.removeprefix(start): v for k, v in named.items() if k.startswith(start)})
    tokens = torch.randn(3, 50, WIDTH)
    pooler = network.pooler
    with torch.inference_mode():
        query = pooler.query_norm(pooler.query).expand(3, 1, -1)
        normed = pooler.token_norm(tokens)
        wanted = theirs(query, normed, normed, need_weights=False)[0][:, 0]
        torch.testing.assert_close(pooler(tokens), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("row", FOUNDATION, ids=lambda row: row.name)
def test_tiles_are_prepared_as_torchvision_does(row):
    from PIL import Image
    from torchvision import transforms

    recipe = recipe_of(row)
    encoder = FoundationEncoder(row, torch.nn.Identity())
    steps = transforms.Compose(
        [
            transforms.Resize(
                recipe.resize_px or recipe.crop_px,
                getattr(transforms.InterpolationMode, recipe.interpolation.upper()),
            ),
            transforms.CenterCrop(recipe.crop_px),
            transforms.ToTensor(),
            transforms.Normalize(*recipe.normalisation),
        ]
    )
    tiles = random_tiles(row, 2)
    wanted = torch.stack([steps(Image.fromarray(tile)) for tile in tiles])
    torch.testing.assert_close(encoder.prepare(tiles), wanted, atol=1e-6, rtol=0)


def test_resnet_tiles_match_timms_own_configuration():
    import timm

    config = timm.get_pretrained_cfg("resnet50.tv_in1k")
    recipe = recipe_of(ROW["resnet50"])
    assert recipe.normalisation == (tuple(config.mean), tuple(config.std))
    assert recipe.interpolation == config.interpolation
    assert recipe.crop_px == config.input_size[1]


def test_half_precision_is_for_the_gpu_alone():
    row = shrink(ROW["uni2-h"])
    encoder = FoundationEncoder(row, random_network(row), "cpu")
    images = encoder.prepare(random_tiles(row, 1))
    assert images.dtype is torch.float32
    assert next(encoder._network.parameters()).dtype is torch.float32
    assert encoder._type is torch.float32


def test_features_in_half_precision_have_a_fingerprint_of_their_own(monkeypatch):
    row = shrink(ROW["uni2-h"])
    network = random_network(row)
    full = FoundationEncoder(row, network)
    assert full.fingerprint == full.weights
    found = {full.fingerprint}
    for half in (torch.float16, torch.bfloat16):
        monkeypatch.setattr(loader, "_computing_type", lambda *_, half=half: half)
        encoder = FoundationEncoder(row, network)
        assert encoder.weights == full.weights
        found.add(encoder.fingerprint)
    assert len(found) == 3


@pytest.mark.gpu
def test_features_of_a_gpu_are_kept_apart_from_those_of_a_cpu():
    row = shrink(ROW["uni2-h"])
    network = random_network(row)
    on_gpu, on_cpu = (FoundationEncoder(row, network, device) for device in ("cuda", "cpu"))
    assert on_gpu.weights == on_cpu.weights
    assert on_gpu.fingerprint != on_cpu.fingerprint


@pytest.mark.gpu
@pytest.mark.parametrize("row", FOUNDATION, ids=lambda row: row.name)
def test_a_gpu_computes_in_the_rows_precision_and_agrees_with_the_cpu(row):
    row = shrink(row)
    network, tiles = random_network(row), random_tiles(row, 2)
    on_cpu = FoundationEncoder(row, network, "cpu").encode(tiles)
    on_gpu = FoundationEncoder(row, network, "cuda").encode(tiles)
    error = np.linalg.norm(on_gpu - on_cpu) / np.linalg.norm(on_cpu)
    assert error < {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}[recipe_of(row).precision]


def test_weights_stored_in_half_precision_are_computed_with_in_full(tmp_path):
    row = shrink(ROW["virchow"])
    network = random_network(row)
    path = write_published(row, tmp_path, network.half())
    encoder = load_foundation(row, path, "cpu")
    with torch.inference_mode():
        wanted = network.float()(encoder.prepare(random_tiles(row, 1))).numpy()
    np.testing.assert_allclose(encoder.encode(random_tiles(row, 1)), wanted, atol=2e-5)


def test_the_fingerprint_is_of_the_weights_and_not_of_the_file(tmp_path):
    row = shrink(ROW["phikon"])
    network = random_network(row)
    safe = write_published(row, tmp_path, network, "model.safetensors")
    pickled = write_published(row, tmp_path, network, "pytorch_model.bin")
    one, two = (load_foundation(row, path, "cpu").fingerprint for path in (safe, pickled))
    other = load_foundation(row, write_published(row, tmp_path, random_network(row, 1)), "cpu").fingerprint
    assert one == two != other
    assert len(one) == 64


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    row = shrink(ROW["uni"])
    path = write_published(row, tmp_path, random_network(row))
    with pytest.raises(UserError, match="not the weights of UNI2-h"):
        load_foundation(shrink(ROW["uni2-h"]), path, "cpu")
    with pytest.raises(UserError, match=r"not the weights of H-optimus.*lacks trunk"):
        load_foundation(shrink(ROW["h-optimus-0"]), other_file(tmp_path), "cpu")
    deeper = replace(recipe_of(row).architecture, options={"embed_dim": WIDTH, "depth": 1, "num_heads": 2})
    with pytest.raises(UserError, match=r"not the weights of UNI \(it also holds trunk.blocks.0.ls1"):
        load_foundation(replace(row, recipe=replace(row.recipe, architecture=deeper)), path, "cpu")


def other_file(folder):
    path = folder / "other.bin"
    torch.save({"some.weight": torch.zeros(3)}, path)
    return path


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_damaged_file_is_refused(tmp_path, file, content):
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_foundation(shrink(ROW["virchow"]), path, "cpu")


class Payload:
    ran = False

    def __reduce__(self):
        return (setattr, (Payload, "ran", True))


def test_nothing_in_a_file_is_ever_run(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"state_dict": Payload()}, path)
    with pytest.raises(UserError, match="is never run"):
        load_foundation(shrink(ROW["uni"]), path, "cpu")
    assert not Payload.ran


def test_a_file_without_tensors_is_no_encoder(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="holds no tensors"):
        load_foundation(shrink(ROW["uni"]), path, "cpu")


def test_tiles_of_another_size_are_no_input():
    row = shrink(ROW["uni"])
    with pytest.raises(ValueError, match="uint8"):
        FoundationEncoder(row, torch.nn.Identity()).encode(np.zeros((1, 224, 224, 3), np.uint8))
