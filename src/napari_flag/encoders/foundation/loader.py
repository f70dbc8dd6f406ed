"""Foundation encoders: tiles cropped, normalised and encoded as their authors do."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from napari_flag.encoders.foundation.catalogue import EncoderRow, Precision, Recipe
from napari_flag.encoders.foundation.state_dicts import computed_in, fill, fingerprint, read_tensors
from napari_flag.errors import UserError

_TYPES: Final[dict[Precision, torch.dtype]] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class FoundationEncoder:
    """Batched tiles → vectors of a published encoder, on CPU or GPU.

    Parameters
    ----------
    row
        Which encoder; one with a recipe.
    network
        Normalised (b, 3, h, w) images → (b, dim); put into evaluation mode and moved to `device`.
    device
        Where to compute: in the row's precision on a GPU, in float32 elsewhere.

    Attributes
    ----------
    name, dim, tile_px, mpp
        As in the row.
    weights
        SHA-256 of the weights, whatever file they came from.
    fingerprint
        The same in float32; another in the row's precision on a GPU.
    """

    def __init__(self, row: EncoderRow, network: nn.Module, device: torch.device | str = "cpu") -> None:
        if row.recipe is None:
            raise ValueError(f"{row.name} has no recipe")
        self.name, self.dim, self.tile_px, self.mpp = row.name, row.dim, row.tile_px, row.mpp
        self.weights = fingerprint(network.state_dict())
        self.device = torch.device(device)
        self._recipe: Recipe = row.recipe
        self._network = network.eval().to(self.device)
        self._type = _computing_type(row.recipe.precision, self.device)
        self.fingerprint = computed_in(self.weights, self._type)
        mean, spread = (torch.tensor(part).view(3, 1, 1) for part in row.recipe.normalisation)
        self._mean, self._spread = mean.to(self.device), spread.to(self.device)

    @torch.inference_mode()
    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the features of `tiles`.

        Parameters
        ----------
        tiles
            (b, tile_px, tile_px, 3) uint8 RGB at `mpp` µm/px, spot in the centre.

        Returns
        -------
        (b, dim) float32.
        """
        expected = (self.tile_px, self.tile_px, 3)
        if tiles.dtype != np.uint8 or tiles.shape[1:] != expected:
            raise ValueError(f"tiles are {tiles.dtype} {tiles.shape}, not uint8 (b, {self.tile_px}, …, 3)")
        images = self.prepare(tiles)
        with torch.autocast(self.device.type, self._type, enabled=self._type is not torch.float32):
            features: Tensor = self._network(images)
        result: npt.NDArray[np.float32] = features.float().cpu().numpy()
        return result

    def prepare(self, tiles: npt.NDArray[np.uint8]) -> Tensor:
        """Return `tiles` as the network sees them, (b, 3, crop_px, crop_px) float32 on the device.

        Resized with Pillow on 8-bit pixels, as torchvision does with an image from a file.
        """
        cut = np.stack([self._cut(tile) for tile in tiles])
        images = torch.from_numpy(cut).to(self.device).permute(0, 3, 1, 2).float() / 255.0
        return (images - self._mean) / self._spread

    def _cut(self, tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        crop = self._recipe.crop_px
        size = self._recipe.resize_px or crop
        if size != self.tile_px:
            kernel = Image.Resampling[self._recipe.interpolation.upper()]
            tile = np.asarray(Image.fromarray(tile).resize((size, size), kernel))
        first = round((size - crop) / 2)
        return tile[first : first + crop, first : first + crop]


def load_foundation(row: EncoderRow, path: Path, device: torch.device | str) -> FoundationEncoder:
    """Return the encoder of `row` with the weights in `path`.

    Raises
    ------
    UserError
        When the file is damaged or of another model.
    """
    if row.recipe is None:
        raise ValueError(f"{row.name} has no recipe")
    architecture: Any = row.recipe.architecture
    with torch.device("meta"):  # shapes only: every tensor comes from the file
        network: nn.Module = architecture.build()
    found = read_tensors(path)
    try:
        tensors = architecture.rename(found, network)
    except RuntimeError as error:  # shapes that cannot even be rearranged
        raise UserError(
            f"{path} is not the weights of {row.title} (its tensors have other shapes); get the file that "
            "belongs to it."
        ) from error
    fill(network, tensors, row.title, path)
    return FoundationEncoder(row, network, device)


def _computing_type(precision: Precision, device: torch.device) -> torch.dtype:
    """Return what to compute in: half precision only on a GPU that has it."""
    if device.type != "cuda" or (precision == "bfloat16" and not torch.cuda.is_bf16_supported()):
        return torch.float32
    return _TYPES[precision]
