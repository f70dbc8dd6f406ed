"""How published files name their tensors, and what the networks here call them.

Files written by timm, by DINOv2, by transformers and by CONCH hold the same kind of transformer
under different keys.  timm translates the first two itself; the others are translated here.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Tensors: TypeAlias = Mapping[str, Tensor]
Grid: TypeAlias = tuple[int, int]


def from_transformers(tensors: Tensors, grid: Grid, *, registers: bool) -> dict[str, Tensor]:
    """Rename the tensors of a ``ViTModel`` or ``Dinov2Model`` as timm's transformer calls them.

    Parameters
    ----------
    tensors
        As in the file; poolers, classifiers and mask tokens are left out.
    grid
        Patches (down, across) of the network; position embeddings are resampled to it.
    registers
        Whether there are register tokens; then timm lets the class token carry its position.
    """
    named: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        new = _renamed(key, _TRANSFORMERS_KEYS)
        if new.startswith(_TRANSFORMERS_UNUSED):
            continue
        if found := _QUERY.search(new):  # timm has one projection for query, key and value
            joint = f"{new[: found.start()]}.attn.qkv.{found[2]}"
            thirds.setdefault(joint, {})[found[1]] = tensor
        else:
            named[new] = tensor
    for joint, parts in thirds.items():
        named[joint] = torch.cat([parts[part] for part in ("query", "key", "value") if part in parts])
    if (positions := named.get("pos_embed")) is not None:
        named["pos_embed"] = positions = resample_positions(positions, grid)
        if registers and "cls_token" in named:
            named["cls_token"] = named["cls_token"] + positions[:, :1]
            named["pos_embed"] = positions[:, 1:]
    return named


def from_conch(tensors: Tensors, grid: Grid, *, stretch: float) -> dict[str, Tensor]:
    """Take the vision tower out of a CONCH file and give its pooler's projections keys of their own.

    Parameters
    ----------
    tensors
        As in the file, with the text tower or without.
    grid
        Patches (down, across) of the network.
    stretch
        As in `resample_positions`.
    """
    if any(key.startswith("visual.") for key in tensors):
        tensors = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
    named: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if not key.startswith(_CONCH_UNUSED):
            named |= _split_projections(key, tensor)
    named = {_renamed(key, _CONCH_KEYS): tensor for key, tensor in named.items()}
    if (positions := named.get("trunk.pos_embed")) is not None:
        named["trunk.pos_embed"] = resample_positions(positions, grid, stretch=stretch)
    return named


def resample_positions(positions: Tensor, grid: Grid, *, stretch: float = 0.0) -> Tensor:
    """Resample position embeddings to `grid`, bicubic and not antialiased, as transformers does.

    Parameters
    ----------
    positions
        (1, 1 + side², c): the class token's, then the patches' row by row.
    grid
        Patches wanted (down, across).
    stretch
        Added to the number of patches wanted when the scale is computed (DINO: 0.1).

    Returns
    -------
    (1, 1 + down · across, c); `positions` itself where it fits, or is no square.
    """
    before = round((positions.shape[1] - 1) ** 0.5)
    if (before, before) == grid or before**2 + 1 != positions.shape[1]:
        return positions
    first, square = positions[:, :1], positions[:, 1:].float()
    square = square.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    if stretch:
        scale = [(side + stretch) / before for side in grid]
        resampled = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
    else:
        resampled = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([first, resampled.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)


_CONCH_UNUSED: Final = ("proj_contrast", "attn_pool_caption.", "ln_caption.")
_CONCH_KEYS: Final = (
    (r"^attn_pool_contrast\.(query|to_query|to_key|to_value|to_out)", r"pooler.\1"),
    (r"^attn_pool_contrast\.ln_q\.", "pooler.query_norm."),
    (r"^attn_pool_contrast\.ln_k\.", "pooler.token_norm."),
    (r"^ln_contrast\.", "norm."),
)
_PROJECTIONS: Final = (
    (r"\.attn\.q_proj_weight$", (".to_query.weight",)),
    (r"\.attn\.k_proj_weight$", (".to_key.weight",)),
    (r"\.attn\.v_proj_weight$", (".to_value.weight",)),
    (r"\.attn\.in_proj_bias$", (".to_query.bias", ".to_key.bias", ".to_value.bias")),
    (r"\.attn\.out_proj\.(weight|bias)$", (r".to_out.\1",)),
    (r"\.to_q\.weight$", (".to_query.weight",)),
    (r"\.to_kv\.weight$", (".to_key.weight", ".to_value.weight")),
)


def _split_projections(key: str, tensor: Tensor) -> dict[str, Tensor]:
    """Give each projection of the pooler a key of its own; other tensors stay."""
    if key.startswith("attn_pool_contrast."):
        for pattern, names in _PROJECTIONS:
            if re.search(pattern, key):
                parts = tensor.chunk(len(names))
                return {re.sub(pattern, name, key): part for name, part in zip(names, parts, strict=True)}
    return {key: tensor}


_TRANSFORMERS_UNUSED: Final = ("pooler.", "classifier.", "embeddings.mask_token")
_TRANSFORMERS_KEYS: Final = (
    (r"^(vit|dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
)
_QUERY: Final = re.compile(r"\.attention\.attention\.(query|key|value)\.(weight|bias)$")


def _renamed(key: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key
