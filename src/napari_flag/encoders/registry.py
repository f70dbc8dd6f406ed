"""Which encoders there are: one row each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError

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
    """

    name: str
    dim: int
    tile_px: int
    mpp: float

    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return (b, dim) float32 features of (b, tile_px, tile_px, 3) uint8 RGB tiles."""
        ...


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One encoder of the registry.

    Parameters
    ----------
    name, title
        Key, and what a person reads.
    dim, tile_px, mpp
        As in `Encoder`.
    licence
        SPDX name or the provider's own words.
    gated
        Whether the weights must be asked for.
    source
        Where its weights come from.
    """

    name: str
    title: str
    dim: int
    tile_px: int
    mpp: float
    licence: str
    gated: bool
    source: str


EMBEDDED: Final = EncoderRow(
    name="embedded",
    title="Embedded encoder (stain, texture and self-supervised features)",
    dim=1016,
    tile_px=600,
    mpp=0.683,
    licence="BSD-3-Clause",
    gated=False,
    source="inside each weights file",
)

_ROWS: Final = (EMBEDDED,)


def list_encoders() -> tuple[EncoderRow, ...]:
    """Return every encoder that can be used."""
    return _ROWS


def find_encoder(name: str) -> EncoderRow:
    """Return the row called `name`.

    Raises
    ------
    UserError
        When there is none; lists those there are.
    """
    for row in _ROWS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in _ROWS)
    raise UserError(
        f'These weights need the encoder "{name}", which this version of napari-flag does not '
        f"have (it has: {known}); choose other weights or update napari-flag."
    )


def build_encoder(name: str, tensors: Mapping[str, "torch.Tensor"], device: "torch.device | str") -> Encoder:
    """Return the encoder called `name`, with `tensors` where its weights travel with the model."""
    row = find_encoder(name)
    from napari_flag.encoders.embedded import EmbeddedEncoder, TileNet

    net = TileNet()
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise UserError(
            f'The weights file does not hold the "{row.name}" encoder it names, so slides cannot '
            "be read with it; get the file again, or choose other weights."
        ) from error
    return EmbeddedEncoder(net, device)
