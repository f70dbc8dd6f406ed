"""Encoders of the catalogue with few parameters, and files of them in the published layout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_flag.encoders.foundation.architectures import ConchVit, ResNetTrunk, TimmVit, TransformersVit
from napari_flag.encoders.foundation.catalogue import ROWS, EncoderRow, Recipe

WIDTH, DEPTH = 32, 2
FOUNDATION = tuple(row for row in ROWS if row.recipe is not None)


def recipe_of(row: EncoderRow) -> Recipe:
    assert row.recipe is not None
    return row.recipe


def shrink(row: EncoderRow) -> EncoderRow:
    """Return `row` with two narrow layers; everything else as published."""
    architecture = _shrink(recipe_of(row).architecture)
    return replace(row, dim=architecture.dim, recipe=replace(recipe_of(row), architecture=architecture))


def _shrink(architecture: Any) -> Any:
    if isinstance(architecture, TimmVit):
        sizes: dict[str, Any] = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
        if architecture.swiglu:
            sizes["mlp_ratio"] = 4  # packed: an even number of units
        return replace(architecture, width=WIDTH, options=dict(architecture.options) | sizes)
    if isinstance(architecture, ConchVit):
        return replace(architecture, trunk=_shrink(architecture.trunk), width=16)
    assert isinstance(architecture, ResNetTrunk)
    return replace(architecture, model="resnet18", channels=256)


def random_network(row: EncoderRow, seed: int = 0) -> nn.Module:
    """Return the network of `row` with random numbers in every parameter and running statistic."""
    generator = torch.Generator().manual_seed(seed)
    network = recipe_of(row).architecture.build().eval()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                value.normal_(std=0.2, generator=generator)
                if key.endswith("running_var"):
                    value.abs_().add_(0.5)
    return network


def write_published(row: EncoderRow, folder: Path, network: nn.Module, file: str | None = None) -> Path:
    """Write the weights of `network` under the name and in the layout in which `row` is published."""
    architecture = recipe_of(row).architecture
    path = folder / (file or recipe_of(row).files[0])
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k.removeprefix("trunk."): v.clone() for k, v in network.state_dict().items()}
    if isinstance(architecture, TransformersVit):
        tensors = as_transformers(tensors, registers="reg_token" in tensors)
    elif isinstance(architecture, ConchVit):
        tensors = as_conch(network.state_dict(), whole=architecture.bias)
    elif isinstance(architecture, ResNetTrunk):
        tensors |= {"layer4.0.conv1.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(3)}
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors} if row.name == "gpfm" else tensors, path)
    return path


def as_transformers(tensors: dict[str, Tensor], *, registers: bool) -> dict[str, Tensor]:
    """Name timm's tensors as transformers does; the class token's position is taken off again."""
    named = {"embeddings.mask_token": torch.zeros(1, WIDTH), "pooler.dense.bias": torch.zeros(WIDTH)}
    plain = "ls1.gamma" not in " ".join(tensors)
    norms = ("layernorm_before", "layernorm_after") if plain else ("norm1", "norm2")
    first = "intermediate.dense" if plain else "mlp.fc1"
    second = "output.dense" if plain else "mlp.fc2"
    if tensors["blocks.0.mlp.fc1.bias"].numel() != tensors["blocks.0.mlp.fc2.weight"].shape[1]:
        first, second = "mlp.weights_in", "mlp.weights_out"  # SwiGLU
    parts = {
        "norm1": norms[0],
        "norm2": norms[1],
        "mlp.fc1": first,
        "mlp.fc2": second,
        "attn.proj": "attention.output.dense",
    }
    for key, tensor in tensors.items():
        if key.startswith("blocks."):
            _, block, rest = key.split(".", 2)
            stem, kind = rest.rsplit(".", 1)
            into = f"encoder.layer.{block}."
            if stem == "attn.qkv":
                for name, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    named[f"{into}attention.attention.{name}.{kind}"] = third
            elif kind == "gamma":
                named[f"{into}layer_scale{stem[-1]}.lambda1"] = tensor
            else:
                named[f"{into}{parts[stem]}.{kind}"] = tensor
        elif key.startswith("patch_embed.proj."):
            named[key.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")] = tensor
        elif key.startswith("norm."):
            named[f"layer{key}"] = tensor
    positions, cls_token = tensors["pos_embed"], tensors["cls_token"]
    if registers:
        named["embeddings.register_tokens"] = tensors["reg_token"]
        own = torch.full_like(cls_token, 0.25)
        positions, cls_token = torch.cat([own, positions], 1), cls_token - own
    return named | {"embeddings.position_embeddings": positions, "embeddings.cls_token": cls_token}


def as_conch(tensors: dict[str, Tensor], *, whole: bool) -> dict[str, Tensor]:
    """Name a CONCH tower as its file does: with text tower and `nn.MultiheadAttention`, or 1.5's way."""
    into = "attn_pool_contrast."
    named = {k: v for k, v in tensors.items() if k.startswith("trunk.")}
    for ours, theirs in (("query_norm", "ln_q"), ("token_norm", "ln_k")):
        for kind in ("weight", "bias"):
            named[f"{into}{theirs}.{kind}"] = tensors[f"pooler.{ours}.{kind}"]
    named |= {f"ln_contrast.{k}": tensors[f"norm.{k}"] for k in ("weight", "bias")}
    named[f"{into}query"] = tensors["pooler.query"]
    query, key, value = (tensors[f"pooler.to_{p}.weight"] for p in ("query", "key", "value"))
    if not whole:
        named |= {f"{into}to_q.weight": query, f"{into}to_kv.weight": torch.cat([key, value])}
        return named | {f"{into}to_out.weight": tensors["pooler.to_out.weight"]}
    named |= {f"{into}attn.{p}_proj_weight": w for p, w in zip("qkv", (query, key, value), strict=True)}
    biases = [tensors[f"pooler.to_{p}.bias"] for p in ("query", "key", "value")]
    named[f"{into}attn.in_proj_bias"] = torch.cat(biases)
    named |= {f"{into}attn.out_proj.{k}": tensors[f"pooler.to_out.{k}"] for k in ("weight", "bias")}
    named |= {"proj_contrast": torch.zeros(2, 2), "attn_pool_caption.query": torch.zeros(2, 2)}
    text = {"text.token_embedding.weight": torch.zeros(3, 2), "logit_scale": torch.zeros(())}
    return {f"visual.{k}": v for k, v in named.items()} | text


def random_tiles(row: EncoderRow, n: int = 3, seed: int = 0) -> np.ndarray:
    """Return (n, tile_px, tile_px, 3) uint8 tiles with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 230, (n, 16, 16, 3))
    step = row.tile_px // 16 + 1
    smooth = coarse.repeat(step, 1).repeat(step, 2)[:, : row.tile_px, : row.tile_px]
    return (smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
