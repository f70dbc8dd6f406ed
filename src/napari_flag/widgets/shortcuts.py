"""The window that lists every keyboard shortcut."""

import napari.viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_flag.viewer.shortcuts import SHORTCUTS

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
