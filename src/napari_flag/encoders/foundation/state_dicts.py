"""Tensors of a weights file, read without running anything that is in it, and their fingerprint."""

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_flag.errors import UserError
from napari_flag.files import ending, refuse_special

Tensors: TypeAlias = Mapping[str, Tensor]
"""Tensors by key, as in a weights file."""
Grid: TypeAlias = tuple[int, int]
"""Number of patches (down, across)."""
WRAPPINGS: Final = ("state_dict", "model", "teacher")
"""Keys under which training scripts put the tensors of the network."""
NAMED: Final = 3
"""How many keys a sentence names."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in `path`, a safetensors file or one written by ``torch.save``.

    Raises
    ------
    UserError
        When it is damaged, holds anything but tensors and plain values, or no tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_special(path)
    try:
        found: Any = load_file(path) if ending(path) == ".safetensors" else _read_torch(path)
    except (SafetensorError, OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path} cannot be read as weights: it is damaged, not complete, or holds more than tensors, "
            "which is never run; download it again, or use the .safetensors file of the same model."
        ) from error
    tensors = _unwrap(found)
    if not tensors:
        raise UserError(
            f"{path} holds no tensors by name, so it is not the weights of an encoder; choose another file."
        )
    return tensors


def _read_torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=False)


def _unwrap(found: Any) -> dict[str, Tensor]:
    """Return the tensors under the first of `WRAPPINGS`, without a ``module.`` before every key."""
    while isinstance(found, Mapping):
        inner = next((found[key] for key in WRAPPINGS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping):
        return {}
    tensors = {str(key): value for key, value in found.items() if isinstance(value, torch.Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def fill(network: nn.Module, tensors: Tensors, title: str, path: Path) -> None:
    """Load exactly `tensors` into `network`, as float32.

    Raises
    ------
    UserError
        When one is missing, left over, or of another shape: then the file is of another model.
    """
    wanted = network.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    left = sorted(tensors.keys() - wanted.keys())
    misfit = [
        key for key in sorted(wanted.keys() & tensors.keys()) if wanted[key].shape != tensors[key].shape
    ]
    if missing or left or misfit:
        faults = [
            f"{what} {', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''}"
            for what, keys in (("lacks", missing), ("also holds", left), ("has another shape of", misfit))
            if keys
        ]
        raise UserError(
            f"{path} is not the weights of {title} (it {', '.join(faults)}); get the file that belongs to it."
        )
    network.load_state_dict(dict(tensors), assign=True)
    network.float()


def refuse_other_kinds(network: nn.Module, tensors: Tensors) -> None:
    """Raise a ValueError where a tensor holds other numbers (real, whole, complex) than it has to.

    PyTorch would cast it.  Another precision is the same kind.
    """
    for name, wanted in network.state_dict().items():
        given = tensors.get(name)
        if given is not None and _kind(given) != _kind(wanted):
            raise ValueError(f"{name} is {_kind(given)} where {_kind(wanted)} belongs")


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "a complex number"
    return "a real number" if tensor.is_floating_point() else "a whole number"


def fingerprint(tensors: Tensors) -> str:
    """Return the SHA-256 of names, shapes and values: the same for the same weights in any file."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def computed_in(weights: str, arithmetic: torch.dtype) -> str:
    """Return the fingerprint of features that weights of the SHA-256 `weights` make in an `arithmetic`.

    That of the weights in float32, by which features are defined, and another in any other.
    """
    if arithmetic is torch.float32:
        return weights
    return hashlib.sha256(f"{weights} {str(arithmetic).removeprefix('torch.')}".encode()).hexdigest()


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
