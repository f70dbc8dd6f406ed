"""From level-0 pixels to where napari draws: µm when the resolution is known, pixels when not.

A layer's place follows from its geometry in level-0 px and the µm/px of its slide, and the layer records the
µm/px it is placed with: to place it anew never multiplies twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.prediction_file import slide_name, slide_size, um_per_px

AXES: Final = ("y", "x")
PIXELS_NOTICE: Final = (
    "The slide's µm per pixel is not known, so everything is drawn in pixels; "
    "set µm/px to see real distances."
)


@dataclass(frozen=True, slots=True)
class Frame:
    """How all layers of one slide are placed; one frame for all of them, so units never mix.

    Parameters
    ----------
    mpp
        µm per level-0 pixel, or None: then every layer is in pixels, and `notice` says so.
    """

    mpp: float | None = None

    @property
    def unit(self) -> str:
        """The unit of every layer: "um" or "pixel"."""
        return "pixel" if self.mpp is None else "um"

    @property
    def notice(self) -> str | None:
        """What the user must know of the placement, if anything."""
        return PIXELS_NOTICE if self.mpp is None else None

    @property
    def um_per_px(self) -> float:
        """World units per level-0 pixel: µm, or 1 when the resolution is not known."""
        return 1.0 if self.mpp is None else self.mpp

    def options(
        self,
        step: float = 1.0,
        origin: tuple[float, float] = (0.0, 0.0),
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the layer options that place an array whose pixels are `step` level-0 px apart.

        Parameters
        ----------
        step
            Level-0 pixels per array pixel.
        origin
            (x, y) level-0 px of the centre of array pixel (0, 0).
        metadata
            Of the layer; what it is placed with is added.
        """
        unit = self.um_per_px
        return {
            "scale": (step * unit, step * unit),
            "translate": (origin[1] * unit, origin[0] * unit),
            **self._shared_options(metadata),
        }

    def affine_options(
        self, matrix: npt.NDArray[np.float64], metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the options that place an array by `matrix`.

        Parameters
        ----------
        matrix
            (3, 3), takes (row, column, 1) of the array to (y, x, 1) in level-0 px.
        metadata
            As of `options`.
        """
        affine = np.diag([self.um_per_px, self.um_per_px, 1.0]) @ matrix
        return {"affine": affine, **self._shared_options(metadata)}

    def _shared_options(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "units": (self.unit, self.unit),
            "axis_labels": AXES,
            "metadata": {**(metadata or {}), keys.LAYER_UM_PER_PX: self.um_per_px},
        }


def place(layer: Any, frame: Frame, otherwise: Frame) -> None:
    """Place `layer` in `frame`, wherever the user has moved it on the tissue.

    Parameters
    ----------
    layer
        A layer of ours, or of the user.
    frame
        Of the slide it lies on.
    otherwise
        The frame of a layer that does not record its own: that of its slide until now.
    """
    now = layer.metadata.get(keys.LAYER_UM_PER_PX)
    if now is None:
        if otherwise.mpp is None and str(layer.units[-1]) != "pixel":
            return  # a picture that knows its own size in µm
        now = otherwise.um_per_px
    else:
        layer.metadata[keys.LAYER_UM_PER_PX] = frame.um_per_px
    factor = frame.um_per_px / now
    if factor != 1.0:
        linear, shift = layer.affine.linear_matrix, layer.affine.translate
        layer.scale = np.asarray(layer.scale) * _last_two(layer, factor)
        layer.translate = np.asarray(layer.translate) * _last_two(layer, factor)
        if np.any(shift):
            layer.affine = type(layer.affine)(
                linear_matrix=linear, translate=np.asarray(shift) * _last_two(layer, factor)
            )
    units = (*(str(unit) for unit in layer.units[:-2]), frame.unit, frame.unit)
    if tuple(map(str, layer.units)) != tuple(_UNIT_NAMES.get(unit, unit) for unit in units):
        layer.units = units


_UNIT_NAMES: Final = {"um": "micrometer"}
"""How napari writes the units it was given."""


def _last_two(layer: Any, factor: float) -> npt.NDArray[np.float64]:
    factors = np.ones(layer.ndim)
    factors[-2:] = factor
    return factors


def frame_in(viewer: Any, adata: Any) -> Frame:
    """Return the frame `adata` is drawn in: that of its slide where `viewer` shows it, else its own."""
    size = slide_size(adata)
    shown = [slide for layer in viewer.layers if (slide := layer.metadata.get(keys.LAYER_SLIDE)) is not None]
    fitting = [slide for slide in shown if size is None or tuple(slide.size) == size]
    named = [slide for slide in fitting if slide.name == slide_name(adata)]
    found = (named or fitting)[-1:]
    return Frame(found[0].mpp) if found else frame_of(adata)


def frame_of(adata: Any) -> Frame:
    """Return the frame that `adata` was predicted in."""
    return Frame(um_per_px(adata))
