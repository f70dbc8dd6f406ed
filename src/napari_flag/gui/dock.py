"""Tells a dock what happens in the viewer, and stops when the dock is gone."""

from typing import Any, Final

from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_flag.gui.controls.forms import MessageList
from napari_flag.gui.jobs import Errands, JobStrip
from napari_flag.gui.session import Session
from napari_flag.layers import slide_layers

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


NOTHING_YET: Final = (
    "No prediction yet. Use the Predict expression dock, or open a prediction (.h5ad) with File › Open."
)


class Dock(QWidget):
    """A widget that napari docks, and that is deleted when its dock is closed.

    napari only takes the parent away then; the widget would live on unseen, compute for every new
    prediction and keep its keys.  Deleted, it lets go of the session, and `Errands` cancels its jobs.

    Parameters
    ----------
    napari_viewer
        The viewer; gene, gene set and region are shared with its other docks through `Session`.
    """

    _docked = False  # Qt sends events from within its own constructor

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        self._errands = Errands(self)
        self.messages = MessageList()
        self.strip = JobStrip(self._errands, self)

    def column(self) -> QVBoxLayout:
        """Return the column that the dock's parts are laid out in, as narrow as napari's own docks."""
        box = QVBoxLayout(self)
        box.setContentsMargins(6, 6, 6, 6)
        box.setSpacing(4)
        self.setMinimumWidth(300)
        return box

    def event(self, event: QEvent | None) -> bool:
        """Go when the dock is closed."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self._docked and self.parent() is None:
                self.let_go()
                self.deleteLater()
            self._docked = self.parent() is not None
        return super().event(event)

    def let_go(self) -> None:
        """Give back what the dock took of the session, before it is deleted."""
