"""A second canvas that shows the same place as the viewer it belongs to, on the same slide or on another."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.qt import QtViewer
from qtpy.QtCore import QSize, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_flag.gui.controls.gl_context import free_objects, keep_context, later_in
from napari_flag.layers.frame import announced_once
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.slide_layers import add_copy, camera_of, extent_of

PLACED = ("scale", "translate", "rotate", "shear", "affine", "units")
"""What a copy of a picture takes over of its place, all of it whenever one changes."""


class LinkedCanvas(QWidget):
    """A napari canvas with pictures of another viewer beneath a gene map of its own.

    Parameters
    ----------
    viewer
        The viewer to follow, and to lead: the two cameras move and zoom together.

    Attributes
    ----------
    model
        The viewer model of the canvas.
    gene_map
        What is drawn over the pictures.
    linked
        Whether the cameras move together; zoom is shared in any case.
    resized
        Emitted when the canvas has another size.
    """

    resized = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._main = viewer
        self.model = ViewerModel(title="side by side")
        self.gene_map = GeneMap(self.model)
        self._next_turn = later_in(viewer)
        self._closed = False
        self.gene_map.later = self._later
        self.linked = True
        self._offset = np.zeros(2)
        self._moving = False
        self._qt: Any = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(200, 150)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._pictures: list[tuple[Any, Any]] = []
        self._copies: dict[Any, Any] = {}
        self._placed: dict[Any, list[tuple[Any, Any]]] = {}
        self._followed: list[tuple[Any, Any]] = []
        self._links: list[tuple[Any, Any]] = []
        here, there = camera_of(self.model), camera_of(self._main)
        for source in (here, there):
            for event in (source.events.center, source.events.zoom):
                self._listen(self._links, event, self._lead if source is here else self.follow)
        self._listen(self._links, viewer.events.theme, self._on_theme)
        inserting, inserted = self.model.layers.events.inserting, self.model.layers.events.inserted
        inserting.connect(self._hold)
        inserted.connect(self._release, position="last")
        self._on_theme()

    def open_canvas(self) -> None:
        """Make what draws the model; it takes napari longer than all else here, so not before it is shown."""
        self._qt = QtViewer(self.model)
        keep_context(self.model.layers, self._qt.canvas)
        self._qt.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self._qt)

    def sizeHint(self) -> QSize:
        """Return half a window's width: a napari canvas alone would ask for all of it."""
        return QSize(450, 420)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Say that there is more room, or less."""
        super().resizeEvent(event)
        self.resized.emit()

    # --- pictures --------------------------------------------------------------------------------
    def show_pictures(self, layers: Sequence[Any], *, same: bool) -> None:
        """Show `layers` of the main viewer, and only these; their pixels are shared.

        Parameters
        ----------
        layers
            Image layers.
        same
            Whether they are of the slide that the main viewer shows: then the two canvases show one place,
            and a picture is hidden here too when it is there.  Else the middle of the other slide is shown.
        """
        if [source for source, _ in self._pictures] != list(layers):
            self._unlisten(self._followed)
            self._put_away(layers)
            self._pictures = [(layer, self._copy_of(layer, place)) for place, layer in enumerate(layers)]
            for layer, copy in self._pictures:
                if same:
                    self._listen(self._followed, layer.events.visible, _carrier(layer, copy, "visible"))
                if copy.visible != (layer.visible or not same):
                    copy.visible = layer.visible or not same
            self._offset = np.zeros(2)
            if not same and layers:
                self._offset = sum(extent_of(layers)) / 2 - np.asarray(camera_of(self._main).center[-2:])
        self.follow()

    def _put_away(self, wanted: Sequence[Any]) -> None:
        """Hide copies that are not wanted now; those of pictures that are gone go, too."""
        for layer, copy in list(self._copies.items()):
            if layer not in self._main.layers:
                del self._copies[layer]
                self._unlisten(self._placed.pop(layer))
                copy.visible = False
                self._later(partial(self.model.layers.remove, copy))  # as long as another takes to come
            elif layer not in wanted and copy.visible:
                copy.visible = False

    def _copy_of(self, layer: Any, place: int) -> Any:
        """Return the copy of a picture, made when it is first shown."""
        if layer not in self._copies:
            copy = self._copies[layer] = add_copy(self.model, layer, place)
            links = self._placed[layer] = []
            for name in PLACED:
                self._listen(links, getattr(layer.events, name), _placer(layer, copy))
            self._listen(links, layer.events.opacity, _carrier(layer, copy, "opacity"))
        return self._copies[layer]

    # --- cameras ---------------------------------------------------------------------------------
    def follow(self, event: Any = None) -> None:
        """Show the place that the main viewer shows."""
        self._carry(camera_of(self._main), camera_of(self.model), 1)

    def _hold(self, event: Any = None) -> None:
        """Lead nowhere while a layer is added: napari fits the view to the first one."""
        self._moving = True

    def _release(self, event: Any = None) -> None:
        self._moving = False
        self.follow()

    def _lead(self, event: Any = None) -> None:
        if self._moving:
            return
        if not self.linked:  # the person lines the two up by hand
            here, there = camera_of(self.model), camera_of(self._main)
            self._offset = np.asarray(here.center[-2:]) - np.asarray(there.center[-2:])
        self._carry(camera_of(self.model), camera_of(self._main), -1)

    def _carry(self, source: Any, target: Any, sign: int) -> None:
        if self._moving:
            return
        self._moving = True
        try:
            if target.zoom != source.zoom:
                target.zoom = source.zoom
            center = (*target.center[:-2], *(np.asarray(source.center[-2:]) + sign * self._offset).tolist())
            if tuple(target.center) != center:
                target.center = center
        finally:
            self._moving = False

    def close_canvas(self) -> None:
        """Disconnect from the main viewer, and close the canvas.

        Its layers go with it: napari takes .1 s to remove each.
        """
        self._closed = True
        self._unlisten(self._links)
        self._unlisten(self._followed)
        for links in self._placed.values():
            self._unlisten(links)
        self._copies.clear()
        self._pictures.clear()
        if self._qt is not None:
            free_objects(self._qt.canvas)
            self._qt.close()
            self._qt.setParent(None)
            self._qt.deleteLater()
            self._qt = None

    def _later(self, act: Callable[[], Any]) -> None:
        self._next_turn(lambda: None if self._closed else act())

    def _listen(self, links: list[tuple[Any, Any]], event: Any, callback: Callable[..., None]) -> None:
        event.connect(callback)
        links.append((event, callback))

    def _unlisten(self, links: list[tuple[Any, Any]]) -> None:
        for event, callback in links:
            event.disconnect(callback)
        links.clear()

    def _on_theme(self, event: Any = None) -> None:
        self.model.theme = self._main.theme


def _placer(source: Any, target: Any) -> Any:
    def carry() -> None:
        with announced_once(target):
            for name in PLACED:
                setattr(target, name, getattr(source, name))

    return carry


def _carrier(source: Any, target: Any, name: str) -> Any:
    def carry() -> None:
        setattr(target, name, getattr(source, name))

    return carry
