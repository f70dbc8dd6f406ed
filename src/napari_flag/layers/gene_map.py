"""The map of a gene: predicted, measured, their difference and more, in one napari layer.

A second layer comes only with a second gene: napari takes longer to add or remove a layer than a window may
be held up, and a layer is repainted in a fraction of that.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.formatting import number
from napari_flag.layers.colour_bar import title_bar
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.gene_values import Contrast, GeneValues, Limits, Quantity
from napari_flag.layers.overlays import hover_part
from napari_flag.layers.raster import SpotRaster, raster_of
from napari_flag.layers.spot_layers import (
    BLENDING,
    SpotLayers,
    empty,
    is_drawn_in,
    set_colormap,
    set_limits,
    set_place,
    set_shown,
    shown_together,
)
from napari_flag.prediction_file import provenance

DEFAULT_COLORMAP: Final = "viridis"
COLORMAPS: Final = ("viridis", "magma", "inferno", "plasma", "cividis", "turbo", "gray", "gray_r")
DIVERGING: Final = "RdBu_r"
"""Red to blue through white: distinct with every common colour vision."""
OVERLAY: Final = ("magenta", "green")
"""First and second gene of an overlay: where both are high the spot turns white."""

OPACITY: Final = 0.85
LAYER_SLOT: Final = "napari_flag.slot"
"""``layer.metadata`` key: 0, or 1 for the second gene."""
LEVELS: Final = (Quantity.PREDICTED, Quantity.MEASURED)
"""Quantities that keep their limits in common when those of one are dragged."""


class GeneMap(SpotLayers[int]):
    """Draws genes of the current prediction into a viewer.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).
    changed
        Called when the look changed: quantity, colour map, or limits (also dragged by hand).

    Attributes
    ----------
    covered
        Another map is shown in place of the gene's (see `LocalMap`); change it with `cover`.
    hover_extra
        Spot number → what else the hover text says of that spot, or None.
    """

    def __init__(self, viewer: Any, changed: Callable[[], None] = lambda: None) -> None:
        super().__init__(viewer)
        self._changed = changed
        self._stale: set[int] = set()
        self._dragged: dict[tuple[tuple[Quantity, ...], int], Limits] = {}
        self._painting = False
        self.values: GeneValues | None = None
        self.raster: SpotRaster | None = None
        self.genes: list[str] = []
        self.quantity = Quantity.PREDICTED
        self.colormap = DEFAULT_COLORMAP
        self.contrast = Contrast()
        self.covered = False
        self.hover_extra: Callable[[int], str | None] = lambda spot: None

    # --- what is shown ---------------------------------------------------------------------------
    def set_prediction(self, adata: Any, frame: Frame | None = None) -> None:
        """Draw from `adata` from now on; None removes all gene layers.

        Parameters
        ----------
        adata
            The prediction, or None.
        frame
            Of the slide its spots lie on; None takes what the prediction records.
        """
        if adata is None:
            self.values = self.raster = None
            self._remove()
            return
        self.frame = frame_of(adata) if frame is None else frame
        self.values = GeneValues(adata)
        self._set_raster(adata)
        if self.values.why_not(self.quantity):
            self.quantity = Quantity.PREDICTED
        for layer in self._present().values():
            layer.metadata[keys.LAYER_ADATA] = adata
        self.show([gene for gene in self.genes if gene in self.values])

    def reread(self) -> None:
        """Paint what the arrays of the prediction hold now: a change within them is not noticed."""
        if self.values is not None:
            self.values = GeneValues(self.values.adata)
            self._stale.update(self._layers)
            self._refresh()

    def move_to(self, frame: Frame) -> None:
        """Draw in another frame of the same slide."""
        self.frame = frame
        if self.raster is not None:
            self._place(self.raster)

    def show(self, genes: Sequence[str]) -> None:
        """Paint `genes`: one, or two overlaid; empty keeps the layers as they are."""
        same, self.genes = self.genes == list(genes[:2]), list(genes[:2])
        if same and self._as_it_is():
            return
        if self.values is not None and self.genes:
            self._dragged.clear()
            self._stale.update(self._layers)
            self._refresh()

    def _as_it_is(self) -> bool:
        """Whether the genes are painted with limits of their own already."""
        wanted = range(2 if self.overlaid else 1)
        shown = [self.layer(self.quantity, slot) for slot in wanted]
        return not (self._stale or self._dragged) and all(la is not None and la.visible for la in shown)

    def set_quantity(self, quantity: Quantity) -> None:
        """Show another quantity of the same genes.

        Raises
        ------
        ValueError
            When the prediction does not have it; ask `GeneValues.why_not` first.
        """
        if self.values is not None and (reason := self.values.why_not(quantity)):
            raise ValueError(reason)
        if quantity is not self.quantity:
            self.quantity = quantity
            self._stale.update(self._layers)
        self._refresh()

    def set_sample(self, layer: str) -> None:
        """Show another draw as `Quantity.SAMPLE`: the ``layers`` key it stands under."""
        if self.values is not None and layer != self.values.sample:
            self.values.set_sample(layer)
            if self.quantity is Quantity.SAMPLE:
                self._stale.update(self._layers)
            self._refresh()

    def set_colormap(self, name: str) -> None:
        """Use colour map `name` for everything but a difference or an overlay."""
        self.colormap = name
        self._refresh()

    def set_contrast(self, contrast: Contrast) -> None:
        """Choose limits another way."""
        self.contrast = contrast
        self._dragged.clear()
        self._stale.update(self._layers)
        self._refresh()

    def cover(self, covered: bool) -> None:
        """Hide the gene's layers while another map of the gene takes their place, or show them again."""
        if covered != self.covered:
            self.covered = covered
            self._refresh()

    @property
    def overlaid(self) -> bool:
        """Whether two genes are drawn over one another now."""
        return len(self.genes) == 2 and self.quantity.is_expression

    def layer(self, quantity: Quantity, slot: int = 0) -> Any:
        """Return the layer if it shows `quantity` (slot 1: of the second gene), else None."""
        return self._present().get(slot) if quantity is self.quantity else None

    def hover_text(self, position: Any) -> str | None:
        """Return spot id and values at world `position`, or None outside of all spots."""
        layer = self.layer(self.quantity)
        if layer is None or self.values is None or self.raster is None:
            return None
        if not (layer.visible or self.covered):
            return None
        row, col = (float(v) for v in layer.world_to_data(position)[-2:])
        spot = self.raster.spot_at(row, col)
        if spot is None:
            return None
        numbers = [f"{gene}: {self._numbers(gene, spot)}" for gene in self.genes]
        more = [self.hover_extra(spot), hover_part(self.values.adata, spot)]
        return "  ·  ".join((f"spot {self.values.adata.obs_names[spot]}", *numbers, *filter(None, more)))

    # --- the layers ------------------------------------------------------------------------------
    def adopt(self, layer: Any) -> bool:
        """Take over a gene layer that the h5ad reader made, instead of drawing a second one."""
        if keys.LAYER_ADATA not in layer.metadata or 0 in self._present():
            return False
        layer.metadata[LAYER_SLOT] = 0
        self._keep(0, layer)
        return True

    def _set_raster(self, adata: Any) -> None:
        self.raster = raster_of(adata)
        self._stale.update(self._layers)
        painted = self.values is not None and any(gene in self.values for gene in self.genes)
        for layer in self._present().values():
            if layer.visible and painted and not self.covered:  # what it shows is replaced at once
                set_place(layer, self.raster.options(self.frame))
            else:
                empty(layer, self.raster, self.frame, {})

    def _refresh(self) -> None:
        """Show the layer of each gene that is painted, and repaint what is stale."""
        if self.values is None or not self.genes:
            return
        with shown_together(self._viewer):
            self._draw()
        self._changed()

    def _draw(self) -> None:
        wanted = (0, 1) if self.overlaid else (0,)
        active, present = self._viewer.layers.selection.active, self._present()
        new = any(slot not in present for slot in wanted)
        choose = (new or active is None or active in present.values()) and not is_drawn_in(active)
        if not self.overlaid and 1 in present:
            self._put_away(present[1])
        for slot in wanted:
            layer = self._present().get(slot) or self._add_gene(slot, select=choose and not slot)
            self._style(slot, layer)
            if self.covered:
                set_shown(layer, False)
                continue
            if slot in self._stale:
                self._paint(slot, layer)
            self._show(layer)
        shown = self.layer(self.quantity)
        if choose and self._viewer.layers.selection.active is not shown:
            self._viewer.layers.selection.active = shown  # the layer controls are those of the map shown

    def _put_away(self, second: Any) -> None:
        """Hide the layer of a second gene; one that is no longer chosen is removed."""
        set_shown(second, False)
        if len(self.genes) < 2:
            del self._layers[1]
            self.later(lambda: self._take_out(second))

    def _paint(self, slot: int, layer: Any) -> None:
        if self.values is None or self.raster is None or slot >= len(self.genes):
            return
        gene, quantity = self.genes[slot], self.quantity
        values = self.values.values(gene, quantity)
        limits = self._dragged.get((_alike(quantity), slot))
        low, high = limits or self.values.limits(gene, quantity, self.contrast)
        finite = values[np.isfinite(values)]
        ends = (*finite[[finite.argmin(), finite.argmax()]].tolist(),) if finite.size else (low,)
        self._painting = True
        try:
            layer.data = self.raster.paint(values)
            set_limits(layer, (low, high), (min(low, *ends), max(high, *ends)))
        finally:
            self._painting = False
        layer.name = self._name(gene, quantity)
        title_bar(self._viewer, layer, self._name(gene, quantity), *self.values.unit(quantity).split(", "))
        self._stale.discard(slot)

    def _style(self, slot: int, layer: Any) -> None:
        colormap = DIVERGING if self.quantity is Quantity.DIFFERENCE else self.colormap
        if self.overlaid:
            colormap = OVERLAY[slot]
        set_colormap(layer, colormap)
        layer.blending = "additive" if slot else BLENDING
        layer.colorbar.position = "bottom_right" if slot else "top_right"

    def _add_gene(self, slot: int, *, select: bool) -> Any:
        assert self.raster is not None
        assert self.values is not None
        layer = self._add(
            slot,
            None,
            self.raster,
            {keys.LAYER_KIND: "gene", keys.LAYER_ADATA: self.values.adata, LAYER_SLOT: slot},
            name=self._name(self.genes[slot], self.quantity),
            contrast_limits=(0.0, 1.0),
            opacity=1.0 if slot else OPACITY,
            visible=False,
            select=select,
        )
        self._keep(slot, layer)
        return layer

    def _keep(self, slot: int, layer: Any) -> None:
        self._layers[slot] = layer
        self._stale.add(slot)
        layer.colorbar.box = True
        layer.events.visible.connect(lambda: self._on_visible(slot))
        layer.events.contrast_limits.connect(lambda: self._on_limits(slot))

    def _on_visible(self, slot: int) -> None:
        """Paint a layer that the user turned on in the layer list after the gene had changed."""
        layer = self._present().get(slot)
        if layer is not None and layer.visible and slot in self._stale:
            self._paint(slot, layer)

    def _on_limits(self, slot: int) -> None:
        """Remember limits that the user dragged, for when the quantity is shown again."""
        if self._painting or slot not in self._present():
            return
        self._dragged[_alike(self.quantity), slot] = tuple(self._layers[slot].contrast_limits)
        self._changed()

    def _name(self, gene: str, quantity: Quantity) -> str:
        assert self.values is not None
        if not provenance(self.values.adata):
            return f"{gene} · expression"
        if quantity is Quantity.SAMPLE and self.values.sample != keys.SAMPLE:
            return f"{gene} · draw {self.values.sample.rpartition('_')[2]}"
        return f"{gene} · {quantity.value}"

    def _numbers(self, gene: str, spot: int) -> str:
        assert self.values is not None
        shown = [Quantity.PREDICTED, Quantity.MEASURED, Quantity.SPREAD]
        if self.quantity not in shown:
            shown.insert(0, self.quantity)
        found = [q for q in shown if self.values.why_not(q) is None]
        return ", ".join(f"{q.value} {number(float(self.values.values(gene, q)[spot]))}" for q in found)


def _alike(quantity: Quantity) -> tuple[Quantity, ...]:
    """Return the quantities whose limits are dragged together."""
    return LEVELS if quantity in LEVELS else (quantity,)


class Hover:
    """Writes the spot under the mouse to the viewer's status bar.

    napari computes the status of the *active* layer in a thread of its own and would overwrite ours
    a moment later, so the text is put back for as long as the mouse is over the spot.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).
    gene_map
        What is drawn in it.
    changed
        Called with the new text, "" outside of all spots.
    """

    def __init__(self, viewer: Any, gene_map: GeneMap, changed: Callable[[str], None]) -> None:
        self._viewer = weakref.ref(viewer)
        self._map, self._changed = gene_map, changed
        self.text = ""
        viewer.mouse_move_callbacks.append(self.on_move)
        viewer.events.status.connect(self._on_status)

    def on_move(self, viewer: Any, event: Any) -> None:
        """Look up the spot at the event's position."""
        text = self._map.hover_text(event.position) or ""
        if text != self.text:
            self.text = text
            self._changed(text)
        if text:
            viewer.status = text

    def _on_status(self) -> None:
        viewer = self._viewer()
        if viewer is not None and self.text and viewer.status != self.text:
            if viewer.mouse_over_canvas:
                viewer.status = self.text
            else:
                self.text = ""
