"""Weights of this package as models of LazySlide: an encoder of tiles, and a predictor from their features.

LazySlide gives batches of tile images to `TileEncoder.encode_image`, and once the features of all tiles with
their places to `Model.predict`, since the spatial graph spans the slide.  Tiles are cut, and so resampled, by
LazySlide; what is computed from them is what `predict` computes.  LazySlide itself is not imported: its
protocols ask for these members alone.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from napari_flag.encoders.features import choose_device
from napari_flag.errors import UserError
from napari_flag.formatting import TYPED, resolution
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.methods.predictor import open_method
from napari_flag.model.checkpoint import Checkpoint, find_weights, trained_array
from napari_flag.model.graph import Places, build_graph
from napari_flag.prediction import compare_with_training
from napari_flag.slides.colours import SCANNED
from napari_flag.slides.spots import Spots, typical_pitch


class TileEncoder:
    """The encoder of weights, as LazySlide's ``ImageModelProtocol``.

    Parameters
    ----------
    checkpoint
        The weights.
    device
        "auto", "cpu", "cuda", …; LazySlide's own choice replaces it.

    Attributes
    ----------
    name
        What LazySlide calls the table of features.
    tile_px, mpp
        Side of a tile in pixels, and its µm per pixel.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self._checkpoint = checkpoint
        self.model: Any = checkpoint.build_encoder(choose_device(device))
        self.name = f"flag_{self.model.name}"
        self.tile_px, self.mpp = int(self.model.tile_px), float(self.model.mpp)

    def get_transform(self) -> Callable[[Any], torch.Tensor]:
        """Return what keeps tiles as they are: (h, w, 3) uint8."""
        return _as_read

    def encode_image(self, image: torch.Tensor, *_: Any, **__: Any) -> npt.NDArray[np.float32]:
        """Return (b, dim) float32 features of (b, tile_px, tile_px, 3) uint8 RGB tiles.

        Raises
        ------
        UserError
            When tiles are of another size.
        """
        if tuple(image.shape[1:]) != (self.tile_px, self.tile_px, 3):
            raise UserError(
                f"Tiles are {' × '.join(map(str, image.shape[1:3]))} px, but these weights see "
                f"{self.tile_px} px at {resolution(self.mpp, TYPED)}; cut them with tile_px={self.tile_px}, "
                f"mpp={resolution(self.mpp, TYPED, unit=False)}."
            )
        with torch.autocast(image.device.type, enabled=False):
            features: npt.NDArray[np.float32] = self.model.encode(image.cpu().numpy())
        return features

    def to(self, device: "str | torch.device | None") -> Self:
        """Compute on another device."""
        if device is not None:
            self.model = self._checkpoint.build_encoder(device)
        return self

    def try_compile(self, **_: Any) -> None:
        """Do nothing: batches are too small to gain."""


class Model:
    """Weights as LazySlide's ``FeaturePredictionModelProtocol``: features of all tiles → expression.

    Parameters
    ----------
    weights
        A weights file, or the name of one that is installed.
    mpp
        µm per level-0 pixel of the slide, in which LazySlide gives the places of its tiles.
    device
        "auto", "cpu", "cuda", …; LazySlide's own choice replaces it.

    Attributes
    ----------
    encoder
        To be given to LazySlide's ``feature_extraction`` first.
    needs_coords, whole_slide
        Tell LazySlide to give places, and all tiles at once.
    stride_px
        Distance between tiles of the array that the weights were trained on, in pixels of a tile; None
        where their card does not state one.

    Raises
    ------
    UserError
        When there are no such weights, or they were trained on colours that LazySlide does not give.
    """

    needs_coords = True
    whole_slide = True
    name = "FLAG"

    def __init__(self, weights: str | Path = DEFAULT_WEIGHTS, *, mpp: float, device: str = "auto") -> None:
        self._checkpoint = Checkpoint.load(find_weights(weights))
        if self._checkpoint.colours != SCANNED:
            raise UserError(
                f'The weights "{self._checkpoint.name}" take colours that were converted to sRGB, and '
                "LazySlide gives them as scanned; predict with napari-flag itself, or take other weights."
            )
        self._mpp = mpp
        self.encoder = TileEncoder(self._checkpoint, device)
        self.features_model_name = self.encoder.name
        self.model: Any = open_method(self._checkpoint, choose_device(device))
        pitches = trained_array(self._checkpoint.card).pitches_um
        self.stride_px = round(pitches[0] / self.encoder.mpp) if len(pitches) == 1 else None

    def get_transform(self) -> None:
        """Return None: it takes features, and no images."""

    def predict(self, features: Any, coords: Any = None, *_: Any, **__: Any) -> dict[str, Any]:
        """Return gene symbol → (n,) float32 expected log2(count + 1).

        Parameters
        ----------
        features
            (n, dim) features of all tiles on the tissue by `encoder`.
        coords
            (n, 2) (x, y) of the tiles in level-0 px.

        Raises
        ------
        UserError
            When the features are another encoder's, or places are missing.
        """
        features = np.asarray(features, np.float32)
        if coords is None or features.shape[1] != self.encoder.model.dim:
            raise UserError(
                f"{self._checkpoint.name} needs the places of all tiles and {self.encoder.model.dim} "
                f"features of each by its own encoder, but got {features.shape[1]}; run feature_extraction "
                "with its encoder first, and feature_prediction on the table that gives."
            )
        xy = np.asarray(coords, np.float64)
        pitch = typical_pitch(xy) * self._mpp
        spots = Spots(tuple(map(str, range(len(xy)))), xy, None, pitch)
        for sentence in compare_with_training(self._checkpoint, self._mpp, spots):
            warnings.warn(sentence, stacklevel=2)
        with torch.autocast(self.model.device.type, enabled=False):
            encoded = self.model.encode(features, build_graph(Places(xy * self._mpp, pitch), features))
            expected = _drained(encoded.expectation(np.arange(len(xy)), spots.ids))
        return dict(zip(self.model.genes, expected.mean.T, strict=True))

    def to(self, device: "str | torch.device | None") -> Self:
        """Compute on another device."""
        if device is not None:
            self.model = open_method(self._checkpoint, device)
        return self

    def try_compile(self, **_: Any) -> None:
        """Do nothing: a slide is encoded once."""


def _as_read(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image))


def _drained(work: Any) -> Any:
    """Run a generator to its end and return its result."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value
