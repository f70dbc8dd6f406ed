"""A ring around every spot that says how far its tissue lies from the training tissue.

Rings, so that the gene inside stays visible: a slide unlike the training slides is where it most needs to
be looked at with the doubt beside it.  Holds no Qt.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.viewer.frame import provenance
from napari_flag.viewer.gene_raster import Float32Array, SpotRaster, raster_of

NAME: Final = "Unlike training tissue"
LIMITS: Final = (0.0, 2.0)
"""Colours span this; 1, their middle, is where unlike begins (see `model.familiarity`)."""
RING: Final = 0.14
"""Width of a ring as a share of the spot's diameter."""
FAMILIAR: Final = (0.62, 0.62, 0.62, 0.35)
UNLIKE: Final = ((1.0, 0.72, 0.15, 1.0), (0.86, 0.05, 0.25, 1.0))
"""Colours where unlike begins, and at twice that distance."""


class UnlikeMap:
    """Draws the distances of the current prediction into a viewer; nothing where it has none.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None

    @property
    def layer(self) -> Any:
        """The layer of rings, or None when there is none or the user deleted it."""
        return self._layer if self._layer is not None and self._layer in self._viewer.layers else None

    def set_prediction(self, adata: Any) -> None:
        """Draw from `adata` from now on; visible from the start only when most of it is unlike."""
        if self.layer is not None:
            self._viewer.layers.remove(self._layer)
        self._layer = None
        if adata is None or keys.DISTANCE not in adata.obs:
            return
        from napari.utils.colormaps import Colormap

        raster = raster_of(adata)
        selected = self._viewer.layers.selection.active
        self._layer = self._viewer.add_image(
            paint_rings(raster, adata.obs[keys.DISTANCE].to_numpy(np.float32)),
            name=NAME,
            colormap=Colormap([FAMILIAR, FAMILIAR, *UNLIKE], name="unlike", controls=[0.0, 0.4999, 0.5, 1.0]),
            contrast_limits=LIMITS,
            interpolation2d="nearest",
            blending="translucent_no_depth",
            visible=warning_of(adata) is not None,
            metadata={keys.LAYER_KIND: "unlike", keys.LAYER_ADATA: adata},
            **raster.options(),
        )
        self._viewer.layers.selection.active = selected


def warning_of(adata: Any) -> str | None:
    """Return the sentence that most of the slide of `adata` is unlike the training slides, if it is."""
    told = provenance(adata).get(keys.FAMILIARITY, {}) if adata is not None else {}
    warning = told.get(keys.UNLIKE_WARNING)
    return None if warning is None else str(warning)


def hover_part(adata: Any, spot: int) -> str | None:
    """Return how far spot number `spot` lies from the training tissue, None where that is not known."""
    if keys.UNLIKE not in adata.obs:
        return None
    share = float(adata.obs[keys.UNLIKE].iloc[spot])
    return f"farther from the training tissue than {int(100 * share)} % of it"


def paint_rings(raster: SpotRaster, values: npt.NDArray[np.float32]) -> Float32Array:
    """Return `values` (one per spot) as an (h, w) float32 picture of rings, NaN elsewhere."""
    picture = raster.paint(values)
    picture[_inside(raster.lookup, _ring_px(raster))] = np.nan
    return picture


def _ring_px(raster: SpotRaster) -> int:
    """Return the width of a ring in raster pixels, from the area of a spot."""
    area = np.count_nonzero(raster.lookup) / max(raster.n_spots, 1)
    return max(1, round(RING * 2 * float(np.sqrt(area / np.pi))))


def _inside(lookup: npt.NDArray[np.int32], width: int) -> npt.NDArray[np.bool_]:
    """Return which pixels see only their own spot `width` pixels away in eight directions."""
    height, across = lookup.shape
    wide = np.pad(lookup, width)
    slant = round(width / np.sqrt(2))
    straight = [(width, 0), (-width, 0), (0, width), (0, -width)]
    inside = lookup > 0
    for row, col in (*straight, *((r, c) for r in (slant, -slant) for c in (slant, -slant))):
        top, left = width + row, width + col
        inside &= wide[top : top + height, left : left + across] == lookup
    return inside
