"""The list of regions in the Regions dock, with what can be done to them."""

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_flag.viewer.region_book import Entry
from napari_flag.viewer.region_shapes import EDGE

POLYGON, LASSO = "add_polygon", "add_polygon_lasso"
"""napari's modes of a Shapes layer."""
CHIP_PX: Final = 12


class RegionList(QWidget):
    """Regions by name, colour and number of spots; one is chosen."""

    chosen = Signal(object)
    """The `Entry` that a person chose, or None."""
    drawRequested = Signal(str)
    importRequested = Signal()
    exportRequested = Signal()
    removeRequested = Signal(object)
    renamed = Signal(object, str)

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.list = QListWidget()
        self.list.setAccessibleName("Regions")
        self.list.setIconSize(QSize(CHIP_PX, CHIP_PX))
        self.list.setMinimumHeight(74)
        self.list.setToolTip("Choose the region looked at; double-click a drawn one to name it")
        self.list.currentRowChanged.connect(self._on_row)
        self.list.itemChanged.connect(self._on_edited)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        row = QHBoxLayout()
        row.setSpacing(3)
        self.buttons: dict[str, QPushButton] = {}
        for text, tip, mode in (
            ("Polygon", "Draw a region: click its corners, double-click to close it", POLYGON),
            ("Lasso", "Draw a region with the mouse held down", LASSO),
        ):
            self._add(row, text, tip).clicked.connect(lambda _, mode=mode: self.drawRequested.emit(mode))
        for text, tip, act in (
            ("Import…", "Read regions from GeoJSON, e.g. QuPath's annotations", self.importRequested),
            ("Export…", "Write all regions listed as GeoJSON, which QuPath imports", self.exportRequested),
            ("Remove", "Take the chosen region away", self._on_remove),
        ):
            self._add(row, text, tip).clicked.connect(act)
        box.addLayout(row)
        box.addWidget(self.list)

    @property
    def current(self) -> Entry | None:
        """The entry that is chosen."""
        row = self.list.currentRow()
        return self.entries[row] if 0 <= row < len(self.entries) else None

    def show_entries(self, entries: Sequence[Entry], key: str | None) -> None:
        """List `entries`; the one with `key` is chosen without telling of it."""
        self.entries = list(entries)
        blocked = self.list.blockSignals(True)
        self.list.clear()
        for entry in entries:
            self.list.addItem(_item(entry))
        row = next((i for i, entry in enumerate(entries) if entry.key == key), -1)
        self.list.setCurrentRow(row)
        self.list.blockSignals(blocked)
        self._enable()

    def choose(self, key: str) -> None:
        """Choose the entry with `key`, as a click on it would."""
        for row, entry in enumerate(self.entries):
            if entry.key == key:
                self.list.setCurrentRow(row)

    def _add(self, row: QHBoxLayout, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.setMinimumWidth(40)
        self.buttons[text] = button
        row.addWidget(button)
        return button

    def _enable(self) -> None:
        entry = self.current
        self.buttons["Export…"].setEnabled(bool(self.entries))
        self.buttons["Remove"].setEnabled(entry is not None and entry.drawn is not None)

    def _on_row(self) -> None:
        self._enable()
        self.chosen.emit(self.current)

    def _on_edited(self, item: QListWidgetItem) -> None:
        row = self.list.row(item)
        if 0 <= row < len(self.entries):
            self.renamed.emit(self.entries[row], item.text().strip())

    def _on_remove(self) -> None:
        if self.current is not None:
            self.removeRequested.emit(self.current)


def _item(entry: Entry) -> QListWidgetItem:
    chip = QPixmap(CHIP_PX, CHIP_PX)
    chip.fill(QColor(*entry.colour) if entry.colour else QColor(EDGE))
    item = QListWidgetItem(QIcon(chip), entry.region.name)
    kind = "" if entry.drawn is None else entry.drawn.annotation.classification
    told = f"{entry.region.spots:,} spots" + (f", class {kind}" if kind else "")
    item.setToolTip(told)
    flags = item.flags() & ~Qt.ItemFlag.ItemIsEditable
    item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if entry.drawn is not None else flags)
    return item
