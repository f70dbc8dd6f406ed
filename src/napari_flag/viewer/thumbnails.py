"""Small maps of a gene for docks; spots touch, since at this size the tissue between them only hides them."""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.viewer.frame import frame_of
from napari_flag.viewer.gene_raster import spot_raster, typical_pitch
from napari_flag.viewer.gene_values import Limits

COLOURS: Final = 256
TOUCHING: Final = 1.1
"""Spot diameter as a share of the pitch."""


class Thumbnails:
    """Paints values of spots into small pictures.

    Parameters
    ----------
    adata
        With ``obsm["spatial"]``.
    longest
        Longest side of a picture, px.
    """

    def __init__(self, adata: Any, longest: int) -> None:
        xy = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2]
        raster = spot_raster(xy, frame=frame_of(adata), diameter_px=TOUCHING * typical_pitch(xy))
        step = max(1, -(-max(raster.lookup.shape) // longest))
        self._lookup = np.ascontiguousarray(raster.lookup[::step, ::step])

    def paint(
        self, values: npt.NDArray[np.float32], limits: Limits, colours: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """Return an (h, w, 4) uint8 RGBA picture, transparent where there is no spot or no value.

        Parameters
        ----------
        values
            (n,) one number per spot, NaN where unknown.
        limits
            Numbers that get the first and the last colour.
        colours
            (256, 4) uint8 RGBA.
        """
        low, high = limits
        known = np.isfinite(values)
        place = np.clip((np.where(known, values, low) - low) / (high - low), 0.0, 1.0)
        painted = np.zeros(len(values) + 1, np.uint32)  # four bytes a spot: one gather paints them all
        painted[1:] = colours.view(np.uint32)[:, 0][np.rint(place * (COLOURS - 1)).astype(np.int64)]
        painted[1:][~known] = 0
        picture = np.take(painted, self._lookup, mode="clip")
        return picture.view(np.uint8).reshape(*self._lookup.shape, 4)


@lru_cache(maxsize=16)
def colour_table(name: str) -> npt.NDArray[np.uint8]:
    """Return (256, 4) uint8 RGBA of napari's colour map `name`."""
    from napari.utils.colormaps import ensure_colormap

    rows = ensure_colormap(name).map(np.linspace(0.0, 1.0, COLOURS))
    table: npt.NDArray[np.uint8] = np.rint(np.asarray(rows) * 255).astype(np.uint8)
    return table
