"""Open an encoder for preparing: any of the registry, or a tile encoder just trained."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch

from napari_flag.encoders.registry import EMBEDDED, Encoder, build_encoder, open_encoder
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import find_weights

_STATE: Final = ".pt"


def open_prepared(name: str, device: torch.device, weights: Path | None, download: bool) -> Encoder:
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
    if name == EMBEDDED.name and weights is not None:
        if weights.suffix == _STATE:
            return build_encoder(name, _tile_encoder(weights), device)
        weights = find_weights(str(weights))
    return open_encoder(name, device, weights=weights, download=download)


def _tile_encoder(path: Path) -> dict[str, torch.Tensor]:
    """Return the network of a training state that `train` keeps of its tile encoder."""
    try:
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
        tensors: dict[str, torch.Tensor] = saved["states"]["net"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, UnpicklingError) as error:
        raise UserError(
            f"{path} holds no trained tile encoder (it cannot be read as one); give the tile_encoder_….pt "
            "of a run folder, or a weights file."
        ) from error
    return tensors
