"""Maps drawn over or around the gene's: distance from the training tissue, and domains.  Holds no Qt.

Both can be rings around the spots, so that the gene inside stays visible.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.domains import PALETTE, hex_colour
from napari_flag.formatting import percent_reached
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.kept import Kept
from napari_flag.layers.legend import Legend, LegendRow
from napari_flag.layers.raster import Float32Array, SpotRaster, raster_of
from napari_flag.layers.spot_layers import SpotLayer, banded_colormap, empty, set_place, set_shown
from napari_flag.prediction_file import unlike_warning

UNLIKE_NAME: Final = "Unlike training tissue"
LIMITS: Final = (0.0, 2.0)
"""Colours span this; 1, their middle, is where unlike begins (see `model.out_of_distribution`)."""
RING: Final = 0.14
"""Width of a ring as a share of the spot's diameter."""
FAMILIAR: Final = (0.62, 0.62, 0.62, 0.35)
UNLIKE: Final = ((1.0, 0.72, 0.15, 1.0), (0.86, 0.05, 0.25, 1.0))
"""Colours where unlike begins, and at twice that distance."""
UNLIKE_STOPS: Final = ((0.0, FAMILIAR), (0.4999, FAMILIAR), (0.5, UNLIKE[0]), (1.0, UNLIKE[1]))
"""The colour map over `LIMITS`: share of the span, and colour."""


class UnlikeMap(SpotLayer):
    """Draws how far each spot lies from the training tissue as rings; nothing where that is not known."""

    def set_prediction(self, adata: Any, frame: Frame | None = None) -> None:
        """Draw from `adata` from now on; visible from the start only when most of it is unlike.

        Drawn again, it is as visible as it was.

        Parameters
        ----------
        adata
            The prediction, or None.
        frame
            As of `GeneMap.set_prediction`.
        """
        if adata is None or keys.DISTANCE not in adata.obs:
            self._remove()
            return
        raster = raster_of(adata)
        self.frame = frame_of(adata) if frame is None else frame
        picture = rings_of(adata)
        metadata = {keys.LAYER_KIND: "unlike", keys.LAYER_ADATA: adata}
        shown = unlike_warning(adata) is not None
        layer = self.layer
        if layer is not None:
            another = layer.metadata[keys.LAYER_ADATA] is not adata
            if another:
                layer.visible = False
            layer.data = picture
            set_place(layer, raster.options(self.frame, metadata))
            if another:  # of the same, a person has chosen
                set_shown(layer, shown)
            return
        from napari.utils.colormaps import Colormap

        self._add(
            None,
            picture,
            raster,
            metadata,
            name=UNLIKE_NAME,
            colormap=Colormap(
                [colour for _, colour in UNLIKE_STOPS],
                name="unlike",
                controls=[share for share, _ in UNLIKE_STOPS],
            ),
            contrast_limits=LIMITS,
            visible=shown,
        )


_RINGS: Final[Kept[Float32Array]] = Kept("rings")


def rings_of(adata: Any) -> Float32Array:
    """Return how far each spot of `adata` lies from the training tissue as a picture of rings, made once."""
    raster, distances = raster_of(adata), adata.obs[keys.DISTANCE].to_numpy(np.float32)
    return _RINGS.of(adata, (raster,), lambda: paint_rings(raster, distances))


def hover_part(adata: Any, spot: int) -> str | None:
    """Return how far spot number `spot` lies from the training tissue, None where that is not known."""
    if keys.UNLIKE not in adata.obs:
        return None
    share = float(adata.obs[keys.UNLIKE].iloc[spot])
    return f"farther from the training tissue than {percent_reached(share)} of it"


def paint_rings(raster: SpotRaster, values: npt.NDArray[np.float32]) -> Float32Array:
    """Return `values` (one per spot) as an (h, w) float32 picture of rings, NaN elsewhere."""
    picture = raster.paint(values)
    picture[_inside(raster.lookup, _ring_px(raster))] = np.nan
    return picture


def _ring_px(raster: SpotRaster) -> int:
    """Return the width of a ring in raster pixels, from the area of a spot."""
    area = np.count_nonzero(raster.lookup) / max(raster.n_spots, 1)
    return max(1, round(RING * 2 * float(np.sqrt(area / np.pi))))


def _inside(lookup: npt.NDArray[np.integer[Any]], width: int) -> npt.NDArray[np.bool_]:
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


DOMAINS_NAME: Final = "Domains"


class Paint(Enum):
    """How domains are drawn; the value is the word in menus."""

    HIDDEN = "hidden"
    RINGS = "rings"
    FILLED = "filled"


class DomainMap(SpotLayer):
    """Draws one number per spot as a colour; one layer for any source of domains.

    Parameters
    ----------
    viewer
        As of `SpotLayers`.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self._adata: Any = None
        self._raster: SpotRaster | None = None
        self._within: npt.NDArray[np.bool_] | None = None
        self.numbers: npt.NDArray[np.int64] | None = None
        self.paint = Paint.HIDDEN
        self.legend = Legend(viewer, "domains")

    def show(
        self,
        adata: Any,
        numbers: npt.NDArray[np.int64] | None,
        paint: Paint,
        frame: Frame | None = None,
        names: Sequence[str] | None = None,
        raster: SpotRaster | None = None,
    ) -> None:
        """Draw the domains of `adata`.

        Parameters
        ----------
        adata
            The prediction whose spots they are of; None removes the layer.
        numbers
            (n,) int64 from 1, 0 for none; None removes the layer.
        paint
            How.
        frame
            As of `GeneMap.set_prediction`.
        names
            Of the domains from 1 on, for the legend; None numbers them.
        raster
            Of the spots of `adata`, where another map has it already.
        """
        self.numbers, self.paint = numbers, paint
        if adata is None or numbers is None:
            self._remove()
            self._adata = self._raster = self._within = None
            self.legend.clear()
            return
        before, self.frame = self.frame, frame_of(adata) if frame is None else frame
        if adata is not self._adata or self._raster is None:
            self._adata, self._raster, self._within = adata, raster or raster_of(adata), None
            if self.layer is not None:
                empty(self.layer, self._raster, self.frame, {keys.LAYER_ADATA: adata})
        elif self.frame != before and self.layer is not None:
            set_place(self.layer, self._raster.options(self.frame))
        if paint is Paint.HIDDEN:
            if self.layer is not None and self.layer.visible:
                self.layer.visible = False
            return
        values = np.where(numbers > 0, (numbers - 1) % len(PALETTE), np.nan).astype(np.float32)
        picture = self._raster.paint(values)
        if paint is Paint.RINGS:
            if self._within is None:
                self._within = _inside(self._raster.lookup, _ring_px(self._raster))
            picture[self._within] = np.nan
        layer = self.layer
        if layer is None:
            layer = self._add(
                None,
                picture,
                self._raster,
                {keys.LAYER_KIND: "domains", keys.LAYER_ADATA: adata},
                name=DOMAINS_NAME,
                colormap=banded_colormap("domains", [(*(p / 255 for p in rgb), 1.0) for rgb in PALETTE]),
                contrast_limits=(-0.5, len(PALETTE) - 0.5),
            )
        else:
            layer.data = picture
            if not layer.visible:
                layer.visible = True
        self.legend.show(_legend_rows(numbers, names), layer)

    def number_at(self, position: Any) -> int:
        """Return the number of the domain drawn at world `position`; 0 outside of all or while hidden."""
        layer = self.layer
        if layer is None or not layer.visible or self._raster is None or self.numbers is None:
            return 0
        row, col = (float(v) for v in layer.world_to_data(position)[-2:])
        spot = self._raster.spot_at(row, col)
        return 0 if spot is None else int(self.numbers[spot])


def _legend_rows(numbers: npt.NDArray[np.int64], names: Sequence[str] | None) -> list[LegendRow]:
    """Return one row for each domain that has spots, in the order of their numbers."""
    counts = np.bincount(numbers[numbers > 0])
    return [
        LegendRow(
            hex_colour(number),
            f"Domain {number}" if names is None else names[number - 1],
            int(counts[number]),
        )
        for number in np.flatnonzero(counts).tolist()
    ]
