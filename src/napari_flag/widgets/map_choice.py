"""What to paint of a gene: itself, its local Moran's I, or its clusters, with the legend of these."""

from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_flag.statistics.local_moran import CLASSES
from napari_flag.viewer.local_map import LocalMap
from napari_flag.viewer.map_kind import CLASS_COLOURS, CLASS_MEANINGS, MapKind
from napari_flag.widgets.forms import narrow

BUTTONS: Final = {
    MapKind.EXPRESSION: "Gene",
    MapKind.LOCAL: "Local Moran",
    MapKind.CLASSES: "Clusters",
}
MASKS: Final = (
    ("p ≤ 0.05, each spot alone", False, "As GeoDa and esda mask: 1 spot in 20 by chance alone"),
    ("q ≤ 0.05, over all spots", True, "Benjamini–Hochberg: strict on sections of a few hundred spots"),
)


class MapChoice(QWidget):
    """Buttons for what is painted, and a legend with counts while clusters are."""

    kindChosen = Signal(object)
    """A `MapKind`."""
    maskChosen = Signal(bool)
    """Whether clusters are masked by q."""

    def __init__(self) -> None:
        super().__init__()
        self._group = QButtonGroup(self)
        row = QHBoxLayout()
        row.setSpacing(2)
        self.buttons: dict[MapKind, QPushButton] = {}
        for kind, label in BUTTONS.items():
            button = QPushButton(label)
            button.setCheckable(True)
            button.setToolTip(kind.meaning)
            button.clicked.connect(lambda _=False, chosen=kind: self.kindChosen.emit(chosen))
            self._group.addButton(button)
            row.addWidget(button)
            self.buttons[kind] = button
        self.significance = narrow(QComboBox())
        self.significance.setAccessibleName("Which clusters are significant")
        for place, (name, corrected, meaning) in enumerate(MASKS):
            self.significance.addItem(name, corrected)
            self.significance.setItemData(place, meaning, Qt.ItemDataRole.ToolTipRole)
        self.significance.activated.connect(self._on_significance)
        self.legend = QWidget()
        grid = QGridLayout(self.legend)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(1)
        self.counts: list[QLabel] = []
        order = (1, 3, 4, 2, 0)  # clusters, outliers, the rest
        for place, number in enumerate(order):
            patch, text = QLabel(), QLabel()
            patch.setFixedSize(12, 12)
            patch.setStyleSheet(f"background-color: {CLASS_COLOURS[number]}; border: 1px solid gray;")
            grid.addWidget(patch, place // 2, 2 * (place % 2))
            grid.addWidget(text, place // 2, 2 * (place % 2) + 1)
            self.counts.append(text)
        self._order = order
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(3)
        box.addLayout(row)
        box.addWidget(self.significance)
        box.addWidget(self.legend)
        self.buttons[MapKind.EXPRESSION].setChecked(True)

    def _on_significance(self) -> None:
        self.maskChosen.emit(self.significance.currentData())

    def show_map(self, local: LocalMap) -> None:
        """Show what `local` paints: which button is down, and how many spots of each class there are."""
        self.buttons[local.kind].setChecked(True)
        clustered = local.kind is MapKind.CLASSES
        self.significance.setVisible(clustered)
        self.legend.setVisible(clustered)
        self.significance.setCurrentIndex(int(local.corrected))
        classes = None if local.key is None else local.classes(local.key)
        for number, label in zip(self._order, self.counts, strict=True):
            count = "…" if classes is None else f"{int((classes == number).sum()):,}"
            label.setText(f"{CLASSES[number]} {count}")
            label.setToolTip(f"{CLASS_MEANINGS[number].capitalize()}: {count} spots")
