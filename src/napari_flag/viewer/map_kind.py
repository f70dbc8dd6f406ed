"""What of a gene can be painted, and the colours and names of local Moran's classes.  Holds no Qt."""

from enum import Enum
from typing import Any, Final

import numpy as np

CLASS_COLOURS: Final = ("#c8c8c8", "#d55e00", "#56b4e9", "#0072b2", "#e69f00")
"""Of the classes in the order of `statistics.local_moran.CLASSES`; Okabe & Ito's, apart for all eyes."""

CLASS_MEANINGS: Final = (
    "not significant",
    "high among high",
    "low among high",
    "low among low",
    "high among low",
)
LEGEND: Final = "\n".join(
    f"{number}  {meaning}" for number, meaning in reversed(list(enumerate(CLASS_MEANINGS)))
)
"""Names the numbers of the colour bar, on the canvas."""


class MapKind(Enum):
    """What of a gene the canvas shows; the value is the word on buttons and layers."""

    EXPRESSION = "expression"
    LOCAL = "local Moran's I"
    CLASSES = "clusters"

    @property
    def meaning(self) -> str:
        """One line that explains it to a person."""
        return _MEANING[self]


_MEANING: Final = {
    MapKind.EXPRESSION: "The gene itself",
    MapKind.LOCAL: "Red where a spot is like its neighbours, blue where it is their opposite",
    MapKind.CLASSES: "Spots that are high among high, low among low, or outliers, where significant",
}


def class_colormap() -> Any:
    """Return the napari colour map of the classes, a band for each."""
    from napari.utils.colormaps import Colormap

    edges = np.linspace(0.0, 1.0, len(CLASS_COLOURS) + 1)
    return Colormap(list(CLASS_COLOURS), name="local Moran classes", controls=edges, interpolation="zero")


def text_overlay_of(viewer: Any) -> Any:
    """Return the text on the canvas of a viewer; napari 0.9 moved it to the canvas."""
    return viewer.canvas.overlays.text if hasattr(viewer, "canvas") else viewer.text_overlay
