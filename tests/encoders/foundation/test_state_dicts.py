"""Files written by transformers itself, and position embeddings of another size."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.small_encoders import FOUNDATION, WIDTH, random_tiles, shrink

from napari_flag.encoders.foundation.loader import load_foundation
from napari_flag.encoders.foundation.state_dicts import from_conch, resample_positions

ROW = {row.name: row for row in FOUNDATION}
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}


def transformers_model(name, image_px):
    transformers = pytest.importorskip("transformers")
    sizes = SIZES | {"image_size": image_px, "patch_size": 16 if name.startswith("phikon") else 14}
    if name == "phikon":
        sizes |= {"intermediate_size": 4 * WIDTH, "layer_norm_eps": 1e-12}
        return transformers.ViTModel(transformers.ViTConfig(**sizes), add_pooling_layer=False)
    if name == "hibou-l":
        config = transformers.Dinov2WithRegistersConfig(**sizes, num_register_tokens=4, use_swiglu_ffn=True)
        return transformers.Dinov2WithRegistersModel(config)
    config = transformers.Dinov2Config(**sizes, use_swiglu_ffn=name == "midnight")
    return transformers.Dinov2Model(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_px"),
    [("phikon", 224), ("phikon-v2", 224), ("phikon-v2", 512), ("midnight", 518), ("hibou-l", 224)],
)
def test_a_model_saved_by_transformers_gives_the_same_tokens_here(name, image_px, tmp_path):
    torch.manual_seed(0)
    theirs = transformers_model(name, image_px).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    row = with_feed_forward(shrink(ROW[name]), load_file(tmp_path / "model.safetensors"))
    encoder = load_foundation(row, tmp_path / "model.safetensors", "cpu")
    tiles = random_tiles(row, 2)
    with torch.inference_mode():
        tokens = theirs(pixel_values=encoder.prepare(tiles)).last_hidden_state
        wanted = tokens[:, 0] if row.dim == WIDTH else torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)
    torch.testing.assert_close(torch.from_numpy(encoder.encode(tiles)), wanted, atol=2e-4, rtol=2e-4)


def with_feed_forward(row, tensors):
    """Return `row` with the feed-forward width that transformers chose for the small model."""
    packed = next((v for k, v in tensors.items() if k.endswith("mlp.weights_in.bias")), None)
    if packed is None:
        return row
    architecture = row.recipe.architecture
    options = dict(architecture.options) | {"mlp_ratio": len(packed) / WIDTH}
    return replace(row, recipe=replace(row.recipe, architecture=replace(architecture, options=options)))


def test_positions_that_fit_stay_and_others_are_resampled_with_the_first_kept():
    positions = torch.randn(1, 1 + 16, 3)
    assert resample_positions(positions, (4, 4)) is positions
    larger = resample_positions(positions, (8, 8))
    assert larger.shape == (1, 65, 3)
    torch.testing.assert_close(larger[:, 0], positions[:, 0])
    smooth = torch.linspace(0, 1, 4).repeat_interleave(4).reshape(1, 16, 1)
    rows = resample_positions(torch.cat([torch.zeros(1, 1, 1), smooth], 1), (8, 8))[0, 1:, 0].reshape(8, 8)
    assert (rows.diff(dim=0) > 0).all()
    torch.testing.assert_close(rows, rows[:, :1].expand(8, 8))


def test_conch_15_stretches_positions_as_dino_does():
    positions = torch.randn(1, 1 + 14 * 14, 3)
    named = from_conch({"trunk.pos_embed": positions}, (28, 28), stretch=0.1)["trunk.pos_embed"]
    square = positions[:, 1:].reshape(1, 14, 14, 3).permute(0, 3, 1, 2)
    factor = (28.1 / 14, 28.1 / 14)
    wanted = torch.nn.functional.interpolate(square, scale_factor=factor, mode="bicubic")
    torch.testing.assert_close(named[0, 1:].T.reshape(1, 3, 28, 28), wanted)
