"""Registry of encoders: list, find and open them by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from napari_flag.encoders.foundation.catalogue import ROWS, EncoderRow
from napari_flag.errors import UserError
from napari_flag.formatting import first_of

if TYPE_CHECKING:
    import torch


class Encoder(Protocol):
    """Tiles → vectors.

    Attributes
    ----------
    name
        As in the registry and in weights files.
    dim
        Length of a feature vector.
    tile_px, mpp
        Side of a tile in pixels, and its µm per pixel.
    weights
        SHA-256 of its weights, whatever file they came from.
    fingerprint
        What its features are kept under: `weights`, or another hash where this device computes otherwise
        than by their definition, in half precision or in integers (`state_dicts.computed_in`).
    """

    name: str
    dim: int
    tile_px: int
    mpp: float
    weights: str
    fingerprint: str

    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return (b, dim) float32 features of (b, tile_px, tile_px, 3) uint8 RGB tiles."""
        ...


def list_encoders() -> tuple[EncoderRow, ...]:
    """Return every encoder that can be used."""
    return ROWS


def find_encoder(name: str) -> EncoderRow:
    """Return the row called `name`.

    Raises
    ------
    UserError
        When there is none; lists those there are.
    """
    for row in ROWS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in ROWS)
    raise UserError(
        f'This version of napari-flag has no encoder called "{first_of([name], 1)}" (it has: {known}); '
        "choose one of these, or weights made with one of these, or update napari-flag."
    )


def open_encoder(
    name: str, device: "torch.device | str", *, weights: Path | None = None, download: bool = False
) -> Encoder:
    """Open the encoder called `name`, ready on `device`.

    Its weights are taken from `weights` when given, else from the local folder
    (`hub.encoders_folder`), else from the Hugging Face cache, else downloaded if `download`.
    No other encoder is ever taken in its place, and no code from the hub is run.

    Parameters
    ----------
    name
        As `list_encoders` has it.
    device
        Where it computes.
    weights
        File or folder of its weights; for the embedded encoder a napari-flag weights file.
    download
        Whether the user agreed to a download where the weights are not on this computer.

    Raises
    ------
    UserError
        No such encoder; weights not here (how to get them), damaged or of another model; no access.
    """
    from napari_flag.encoders.foundation import hub
    from napari_flag.encoders.foundation.loader import load_foundation
    from napari_flag.progress import finish

    row = find_encoder(name)
    if row.recipe is None:
        return _open_embedded(row, weights, device)
    found = hub.find_weights(row, weights)
    if found is not None:
        return load_foundation(row, found.path, device)
    if not download:
        raise UserError(f"The weights of {row.title} are not on this computer; {hub.how_to_get(row)}.")
    return load_foundation(row, finish(hub.download(row)), device)


def _open_embedded(row: EncoderRow, weights: Path | None, device: "torch.device | str") -> Encoder:
    from napari_flag.encoders.foundation.state_dicts import read_tensors

    if weights is None:
        raise UserError(
            f"The {row.name} encoder has no weights of its own: they are stored {row.source}; name the "
            "weights file whose encoder is meant."
        )
    inside = {
        k.removeprefix("encoder."): v for k, v in read_tensors(weights).items() if k.startswith("encoder.")
    }
    return build_encoder(row.name, inside, device)


def build_encoder(name: str, tensors: Mapping[str, "torch.Tensor"], device: "torch.device | str") -> Encoder:
    """Return the encoder called `name`, whose weights `tensors` are stored with a model."""
    row = find_encoder(name)
    from napari_flag.encoders.embedded import EmbeddedEncoder, TileNet
    from napari_flag.encoders.foundation.state_dicts import refuse_other_kinds

    net = TileNet()
    try:
        refuse_other_kinds(net, tensors)
        net.load_state_dict(dict(tensors))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'The weights file does not hold the "{row.name}" encoder it names, so slides cannot '
            "be read with it; get the file again, or choose other weights."
        ) from error
    return EmbeddedEncoder(net, device, integers=True)
