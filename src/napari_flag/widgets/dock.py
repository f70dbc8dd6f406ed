"""A dock that ends when it is closed."""

from typing import Any, Final

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_flag.widgets.errands import Errands
from napari_flag.widgets.forms import MessageList
from napari_flag.widgets.job_strip import JobStrip
from napari_flag.widgets.session import Session

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
