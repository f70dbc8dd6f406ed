"""Tells a dock what happens in the viewer, and stops when the dock is gone."""

from typing import Any, Final

from qtpy.QtCore import QObject, QTimer, Signal

from napari_flag.widgets import slide_layers

SETTLE_MS: Final = 200
"""Drawing a shape sends many events; they are told as one this long after the last."""


class ViewerWatch(QObject):
    """Signals for layers coming and going, and for shapes being drawn.

    Parameters
    ----------
    dock
        The widget that listens; napari knows nothing of it being deleted, so all connections to
        napari are cut then.
    viewer
        The viewer to watch.
    """

    layersChanged = Signal()
    shapesEdited = Signal()

    def __init__(self, dock: QObject, viewer: Any) -> None:
        super().__init__(dock)
        self._viewer = viewer
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.shapesEdited)
        self._emitters: list[Any] = []
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            self._connect(emitter, self._on_layers)
        self._watch_shapes()
        emitters, callbacks = self._emitters, (self._on_layers, self._on_shapes)
        dock.destroyed.connect(lambda: _disconnect(emitters, callbacks))

    def _connect(self, emitter: Any, callback: Any) -> None:
        if not any(emitter is other for other in self._emitters):
            emitter.connect(callback)
            self._emitters.append(emitter)

    def _watch_shapes(self) -> None:
        for layer in slide_layers.shapes_layers(self._viewer):
            self._connect(layer.events.data, self._on_shapes)

    def _on_layers(self, event: Any = None) -> None:
        self._watch_shapes()
        self.layersChanged.emit()

    def _on_shapes(self, event: Any = None) -> None:
        self._settle.start()


def _disconnect(emitters: list[Any], callbacks: tuple[Any, ...]) -> None:
    for emitter in emitters:
        for callback in callbacks:
            emitter.disconnect(callback)
