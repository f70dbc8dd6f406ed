"""Every keyboard shortcut, in one place: `Session` binds them, *Keyboard shortcuts* lists them."""

from dataclasses import dataclass
from typing import Final

import napari.viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_flag.layers.gene_values import Quantity

STEP: Final = {"Up": -1, "Down": 1}
"""Key over the picture → how many places to walk in the list of genes."""

SHOW_QUANTITY: Final = {f"Alt-{number}": quantity for number, quantity in enumerate(Quantity, start=1)}
"""Key over the picture → what to show of the gene."""

DRAW: Final = {"Alt-Left": -1, "Alt-Right": 1}
"""Key over the picture → how many joint draws to go on; bound by the Samples dock."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One shortcut as a person reads it.

    Parameters
    ----------
    key
        The key as it is written on a keyboard.
    where
        Where the cursor must be.
    does
        What happens.
    """

    key: str
    where: str
    does: str


PICTURE: Final = "picture"
SHORTCUTS: Final = (
    Shortcut("↑  ↓", "picture, search of Genes", "Select the gene before or after in the list"),
    Shortcut("Enter", "search of Genes, Spatial", "Select the first gene found"),
    *(
        Shortcut(key.replace("-", "+"), PICTURE, f"Show the gene as: {quantity.value}")
        for key, quantity in SHOW_QUANTITY.items()
    ),
    Shortcut("Alt+←  Alt+→", PICTURE, "Show the joint draw before or after (Samples page open)"),
    Shortcut("Ctrl+Z", "picture, a layer of regions active", "Take back the last change of the regions"),
    Shortcut("Ctrl+Shift+Z", "picture, a layer of regions active", "Do it again"),
    Shortcut("Esc", "every page with long work", "Cancel what is running"),
)

HEADINGS = ("Key", "Where", "What it does")


class ShortcutList(QDialog):
    """Lists key, place and effect of every shortcut of this plugin."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Keyboard shortcuts of napari-flag")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        grid = QGridLayout()
        grid.setHorizontalSpacing(18)
        for column, heading in enumerate(HEADINGS):
            label = QLabel(heading)
            label.setStyleSheet("font-weight: bold;")
            grid.addWidget(label, 0, column)
        for row, shortcut in enumerate(SHORTCUTS, start=1):
            for column, text in enumerate((shortcut.key, shortcut.where, shortcut.does)):
                grid.addWidget(QLabel(text), row, column)
        close = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        close.rejected.connect(self.close)
        box = QVBoxLayout(self)
        box.addLayout(grid)
        box.addWidget(close)


def show_shortcuts(viewer: napari.viewer.Viewer) -> None:
    """Open the list of keyboard shortcuts."""
    real = getattr(viewer, "__wrapped__", viewer)
    ShortcutList(real.window._qt_window).show()
