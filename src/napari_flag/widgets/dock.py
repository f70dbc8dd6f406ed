"""A dock that ends when it is closed."""

from typing import Final

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget

NOTHING_YET: Final = (
    "No prediction yet. Use the Predict expression dock, or open a prediction (.h5ad) with File › Open."
)


class Dock(QWidget):
    """A widget that napari docks, and that is deleted when its dock is closed.

    napari only takes the parent away then; the widget would live on unseen, compute for every new
    prediction and keep its keys.  Deleted, it lets go of the session, and `Errands` cancels its jobs.
    """

    _docked = False  # Qt sends events from within its own constructor

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
