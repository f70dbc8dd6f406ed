"""Step 1 of the Train dock: the sections found, which of them take part, and what a person states of them."""

from collections.abc import Sequence
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

from napari_flag.fitting import NO_PATIENT, MeasuredSection, SectionLook
from napari_flag.formatting import TYPED, UNKNOWN, resolution, whole

NAME, PATIENT, SPOTS, GENES, MPP = range(5)
HEADINGS: Final = ("Section", "Patient", "Spots", "Genes", "µm/px")
HEADING_TIPS: Final = (
    "Ticked sections are trained on; the others contribute to nothing",
    "Double-click to say whose it is; sections whose patient is not stated count as one patient's",
    "Spots with measured counts",
    "Genes measured",
    "µm per pixel of the full-resolution image; double-click to state it where the file does not",
)


FEWEST_ROWS, MOST_ROWS, ROW_PX = 3, 8, 20
"""Sections seen at once, and the least height of one."""


class SectionList(QTreeWidget):
    """Sections with a tick each; patient and µm/px can be stated in the list."""

    ticked = Signal()
    patientStated = Signal(str, str)
    mppStated = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("Sections")
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setAllColumnsShowFocus(True)
        self.setStyleSheet("QTreeView::item { padding: 2px; }")
        self.setHeaderLabels(list(HEADINGS))
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        header, heads = self.header(), self.headerItem()
        assert header is not None
        assert heads is not None
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(36)
        for column, tip in enumerate(HEADING_TIPS):
            heads.setToolTip(column, tip)
            mode = QHeaderView.ResizeMode.ResizeToContents
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch if column == NAME else mode)
        self._fit_height()
        self.itemDoubleClicked.connect(self._on_double_click)
        self.itemChanged.connect(self._on_changed)

    def show_sections(self, sections: Sequence[MeasuredSection]) -> None:
        """List `sections`, none looked at yet and so none ticked."""
        blocked = self.blockSignals(True)
        self.clear()
        for section in sections:
            item = QTreeWidgetItem()
            item.setData(NAME, Qt.ItemDataRole.UserRole, section.name)
            self.addTopLevelItem(item)
            self._write(item, SectionLook(section))
            item.setCheckState(NAME, Qt.CheckState.Unchecked)
        self.blockSignals(blocked)
        self._fit_height()

    def _fit_height(self) -> None:
        """Be as high as the sections are many, within limits; more are scrolled."""
        header = self.header()
        assert header is not None
        rows = min(max(self.topLevelItemCount(), FEWEST_ROWS), MOST_ROWS)
        row = max(self.sizeHintForRow(0), ROW_PX)
        self.setFixedHeight(header.sizeHint().height() + rows * row + 2 * self.frameWidth())

    def show_look(self, look: SectionLook, *, tick: bool) -> None:
        """Show what was found of a section, and tick it or not."""
        item = self._item(look.section.name)
        blocked = self.blockSignals(True)
        self._write(item, look)
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEditable
        if look.problem is None:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        item.setFlags(flags)
        item.setCheckState(NAME, Qt.CheckState.Checked if tick else Qt.CheckState.Unchecked)
        self.blockSignals(blocked)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the sections that are ticked."""
        items = [self.topLevelItem(row) for row in range(self.topLevelItemCount())]
        return tuple(
            str(item.data(NAME, Qt.ItemDataRole.UserRole))
            for item in items
            if item is not None and item.checkState(NAME) == Qt.CheckState.Checked
        )

    def _item(self, name: str) -> QTreeWidgetItem:
        for row in range(self.topLevelItemCount()):
            item = self.topLevelItem(row)
            if item is not None and item.data(NAME, Qt.ItemDataRole.UserRole) == name:
                return item
        raise KeyError(name)

    def _write(self, item: QTreeWidgetItem, look: SectionLook) -> None:
        section = look.section
        problem = look.problem or " ".join(look.doubts)
        item.setText(NAME, f"{section.name}{' !' if problem else ''}")
        item.setText(PATIENT, UNKNOWN if section.patient == NO_PATIENT else section.patient)
        item.setText(SPOTS, whole(look.spots) if look.spots else UNKNOWN)
        item.setText(GENES, whole(look.genes) if look.genes else UNKNOWN)
        item.setText(MPP, UNKNOWN if section.mpp is None else resolution(section.mpp, TYPED, unit=False))
        counts = section.spots if section.counts is None else section.counts
        files = f"Image: {section.image}\nSpots: {section.spots}\nCounts: {counts}"
        item.setToolTip(NAME, f"{problem}\n{files}" if problem else files)
        item.setToolTip(MPP, look.mpp_source)
        for column in (SPOTS, GENES, MPP):
            item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def _on_double_click(self, item: QTreeWidgetItem, column: int) -> None:
        if column in (PATIENT, MPP):
            self.editItem(item, column)

    def _on_changed(self, item: QTreeWidgetItem, column: int) -> None:
        name, text = str(item.data(NAME, Qt.ItemDataRole.UserRole)), item.text(column).strip()
        if column == NAME:
            self.ticked.emit()
        elif column == PATIENT:
            self.patientStated.emit(name, text)
        elif column == MPP:
            self.mppStated.emit(name, text)
