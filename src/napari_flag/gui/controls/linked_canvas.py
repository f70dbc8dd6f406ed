"""A second canvas that shows the same place as the viewer it belongs to."""

from functools import partial
from typing import Any

from napari.components import ViewerModel
from napari.qt import QtViewer
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_flag import keys
from napari_flag.gui.controls.gl_context import keep_context
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.slide_layers import add_copy, camera_of, follow_slides


class LinkedCanvas(QWidget):
    """A napari canvas with the slide of another viewer beneath a gene map of its own.

    Parameters
    ----------
    viewer
        The viewer to follow, and to lead: the two cameras are one.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._main = viewer
        self.model = ViewerModel(title="side by side")
        self.gene_map = GeneMap(self.model)
        self._qt: Any = QtViewer(self.model)
        keep_context(self.model.layers, self._qt.canvas)
        self._qt.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(240, 180)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._qt)
        self._slides: dict[int, Any] = {}
        self._links: list[tuple[Any, Any]] = []
        for layer in viewer.layers:
            self._add_slide(layer)
        self._listen(viewer.layers.events.inserted, self._on_inserted)
        self._listen(viewer.layers.events.removed, self._on_removed)
        self._link(camera_of(viewer), camera_of(self.model))
        self._link(camera_of(self.model), camera_of(viewer))
        self._listen(viewer.events.theme, self._on_theme)
        self._on_theme()
        self.follow()

    def sizeHint(self) -> QSize:
        """Return half a window's width: a napari canvas alone would ask for all of it."""
        return QSize(450, 420)

    def follow(self) -> None:
        """Show the place that the main viewer shows."""
        here, there = camera_of(self.model), camera_of(self._main)
        here.center, here.zoom = there.center, there.zoom

    def close_canvas(self) -> None:
        """Disconnect from the main viewer, and close the canvas."""
        for event, callback in self._links:
            event.disconnect(callback)
        self._links.clear()
        self.model.layers.clear()
        if self._qt is not None:
            self._qt.close()
            self._qt.setParent(None)
            self._qt.deleteLater()
            self._qt = None

    def _link(self, source: Any, target: Any) -> None:
        def carry_centre() -> None:
            if tuple(target.center) != tuple(source.center):
                target.center = source.center

        def carry_zoom() -> None:
            if target.zoom != source.zoom:
                target.zoom = source.zoom

        self._listen(source.events.center, carry_centre)
        self._listen(source.events.zoom, carry_zoom)

    def _listen(self, event: Any, callback: Any) -> None:
        event.connect(callback)
        self._links.append((event, callback))

    def _on_theme(self) -> None:
        self.model.theme = self._main.theme

    def _on_inserted(self, event: Any) -> None:
        self._add_slide(event.value)

    def _on_removed(self, event: Any) -> None:
        copy = self._slides.pop(id(event.value), None)
        if copy is not None and copy in self.model.layers:
            self.model.layers.remove(copy)

    def _add_slide(self, layer: Any) -> None:
        """Show a slide (or a plain picture) of the main viewer here too; its pixels are shared."""
        ours = layer.metadata.get(keys.LAYER_KIND) == "slide"
        if not (ours or getattr(layer, "rgb", False)) or id(layer) in self._slides:
            return
        copy = add_copy(self.model, layer, len(self._slides))
        self._slides[id(layer)] = copy
        for name in ("visible", "opacity", "scale", "translate", "units"):
            self._listen(getattr(layer.events, name), _carrier(layer, copy, name))
        if ours:
            self._listen(layer.events.units, partial(self._on_placed, layer, copy))
            self._listen(layer.events.scale, partial(self._on_placed, layer, copy))
            follow_slides(self.model)

    def _on_placed(self, layer: Any, copy: Any, event: Any = None) -> None:
        """Place the gene on a slide whose µm/px was set."""
        copy.metadata.update(layer.metadata)
        follow_slides(self.model)


def _carrier(source: Any, target: Any, name: str) -> Any:
    def carry() -> None:
        setattr(target, name, getattr(source, name))

    return carry
