"""Tensors of a weights file, read without running anything that is in it, and their fingerprint."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

WRAPPINGS: Final = ("state_dict", "model", "teacher")
"""Keys under which training scripts put the tensors of the network."""
NAMED: Final = 3
"""How many keys a sentence names."""


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors in `path`, a safetensors file or one written by ``torch.save``.

    Raises
    ------
    UserError
        When it is damaged, holds anything but tensors and plain values, or no tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: Any = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
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
    import torch

    return torch.load(path, map_location="cpu", weights_only=True, mmap=False)


def _unwrap(found: Any) -> "dict[str, Tensor]":
    """Return the tensors under the first of `WRAPPINGS`, without a ``module.`` before every key."""
    import torch

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


def fill(network: "nn.Module", tensors: "Mapping[str, Tensor]", title: str, path: Path) -> None:
    """Give `network` exactly `tensors`, as float32.

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
        told = [
            f"{what} {', '.join(keys[:NAMED])}{', …' if len(keys) > NAMED else ''}"
            for what, keys in (("lacks", missing), ("also holds", left), ("has another shape of", misfit))
            if keys
        ]
        raise UserError(
            f"{path} is not the weights of {title} (it {', '.join(told)}); get the file that belongs to it."
        )
    network.load_state_dict(dict(tensors), assign=True)
    network.float()


def fingerprint(tensors: "Mapping[str, Tensor]") -> str:
    """Return the SHA-256 of names, shapes and values: the same for the same weights in any file."""
    import torch

    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
