"""What there is to know of an encoder: where its weights are, what a tile is, how it is read."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from napari_flag.encoders.architectures import Architecture

Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
Precision: TypeAlias = Literal["float32", "float16", "bfloat16"]
Colour: TypeAlias = tuple[float, float, float]

IMAGENET: Final[tuple[Colour, Colour]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation per channel."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Where a foundation encoder's weights are and how a tile is read with them.

    Parameters
    ----------
    repository
        On huggingface.co.
    files
        Names its weights may have there, the preferred first.
    architecture
        The network.
    normalisation
        Mean and standard deviation per channel of images in [0, 1].
    resize_px
        Side the tile is resized to; None: `crop_px`.
    crop_px
        Side of the centre that the network sees.
    interpolation
        Of the resize.
    precision
        Of the computation on a GPU; a CPU computes in float32.
    """

    repository: str
    files: tuple[str, ...]
    architecture: Architecture
    normalisation: tuple[Colour, Colour] = IMAGENET
    resize_px: int | None = None
    crop_px: int = 224
    interpolation: Interpolation = "bicubic"
    precision: Precision = "float16"


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One encoder of the registry.

    Parameters
    ----------
    name, title
        Key, and what a person calls it.
    about
        What it is: network, paper.
    dim, tile_px, mpp
        As in `Encoder`.
    licence
        SPDX name or the provider's own words.
    gated
        Whether the weights must be asked for.
    recipe
        How it is opened; None where the weights travel inside each weights file.
    """

    name: str
    title: str
    about: str
    dim: int
    tile_px: int
    mpp: float
    licence: str
    gated: bool
    recipe: Recipe | None = None

    @property
    def source(self) -> str:
        """Where its weights come from."""
        if self.recipe is None:
            return "inside each weights file"
        return f"https://huggingface.co/{self.recipe.repository}"
