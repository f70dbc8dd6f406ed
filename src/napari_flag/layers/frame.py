"""From level-0 pixels to where napari draws: µm when the resolution is known, pixels when not."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.prediction_file import um_per_px

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
        """What the user must be told about the placement, if anything."""
        return PIXELS_NOTICE if self.mpp is None else None

    @property
    def um_per_px(self) -> float:
        """World units per level-0 pixel: µm, or 1 when the resolution is not known."""
        return 1.0 if self.mpp is None else self.mpp

    def options(self, step: float = 1.0, origin: tuple[float, float] = (0.0, 0.0)) -> dict[str, Any]:
        """Return the layer options that place an array whose pixels are `step` level-0 px apart.

        Parameters
        ----------
        step
            Level-0 pixels per array pixel.
        origin
            (x, y) level-0 px of the centre of array pixel (0, 0).
        """
        unit = self.um_per_px
        return {
            "scale": (step * unit, step * unit),
            "translate": (origin[1] * unit, origin[0] * unit),
            "units": (self.unit, self.unit),
            "axis_labels": AXES,
        }

    def affine_options(self, matrix: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Return the options that place an array by `matrix`.

        Parameters
        ----------
        matrix
            (3, 3), takes (row, column, 1) of the array to (y, x, 1) in level-0 px.
        """
        affine = np.diag([self.um_per_px, self.um_per_px, 1.0]) @ matrix
        return {"affine": affine, "units": (self.unit, self.unit), "axis_labels": AXES}


def frame_of(adata: Any) -> Frame:
    """Return the frame that `adata` was predicted in."""
    return Frame(um_per_px(adata))
