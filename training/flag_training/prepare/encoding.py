"""Open an encoder for preparing: any of the registry, or a tile encoder just trained."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch

from napari_flag.encoders.registry import EMBEDDED, Encoder, build_encoder, open_encoder
from napari_flag.encoders.tensors import read_tensors
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import find_weights

_STATE: Final = ".pt"
_INSIDE: Final = "encoder."
"""Beginning of the encoder's tensors in a weights file."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An encoder, and its weights where they must travel with what is trained on its features.

    Parameters
    ----------
    encoder
        Ready to encode.
    tensors
        Weights of the embedded encoder; empty for those that everyone can get.
    """

    encoder: Encoder
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)


def open_prepared(name: str, device: torch.device, weights: Path | None, download: bool) -> Opened:
    """Open the encoder called `name` on `device`.

    Parameters
    ----------
    name
        As the registry has it.
    device
        Where it computes.
    weights
        Its weights.  Those of the embedded encoder travel in a weights file (also by name:
        ``her2st``), or are the ``tile_encoder_….pt`` that a training run keeps.
    download
        Whether weights that are not here may be downloaded.

    Raises
    ------
    UserError
        When they are not here, damaged, or of another encoder.
    """
    if name != EMBEDDED.name or weights is None:
        return Opened(open_encoder(name, device, weights=weights, download=download))
    if weights.suffix == _STATE:
        tensors = _trained(weights)
    else:
        inside = read_tensors(find_weights(str(weights))).items()
        tensors = {key.removeprefix(_INSIDE): value for key, value in inside if key.startswith(_INSIDE)}
    return Opened(build_encoder(name, tensors, device), tensors)


def _trained(path: Path) -> dict[str, torch.Tensor]:
    """Return the network of a training state that `train` keeps of its tile encoder."""
    try:
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is not None:
                raise ValueError("its checksums do not fit")
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
        tensors: dict[str, torch.Tensor] = saved["states"]["net"]
    except (
        OSError, RuntimeError, KeyError, TypeError, ValueError, UnpicklingError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise UserError(
            f"{path} holds no trained tile encoder ({error}); give the tile_encoder_….pt of a run folder, or "
            "a weights file."
        ) from error
    return tensors
