"""What a person chooses in the Regions dock: a region, how domains are found and shown, and labels."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from magicgui.widgets import PushButton
from qtpy.QtCore import QObject, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_flag import keys
from napari_flag.analysis.domains import (
    LABELS,
    describe_labels,
    domain_agreement,
    find_missing,
    learned_on,
    read_for,
)
from napari_flag.analysis.regions import AreaScale
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.formatting import area, counted, whole
from napari_flag.gui.controls.file_filters import LABEL_FILES
from napari_flag.gui.controls.forms import Choice, MessageList, ask_open, form, plain_label, row_of
from napari_flag.gui.jobs import Jobs
from napari_flag.gui.regions.results import WORDS
from napari_flag.gui.session import Session
from napari_flag.layers.gene_values import sources_of
from napari_flag.layers.overlays import Paint
from napari_flag.layers.region_shapes import EDGE, Entry
from napari_flag.slides.formats.labels import SpotLabels

if TYPE_CHECKING:
    from anndata import AnnData


POLYGON, LASSO = "add_polygon", "add_polygon_lasso"
"""napari's modes of a Shapes layer."""
CHIP_PX: Final = 12


NAME, SPOTS, AREA = range(3)
"""Columns of the list."""
NO_AREA: Final = "No areas: the slide's µm/px is not known. Set it to see them."
AREA_TIP: Final = (
    "Area in mm²: of the outline where a region was drawn, else\n"
    "spots × the area that each stands for (pitch², on a hexagonal array √3/2 pitch²)"
)


class RegionList(QWidget):
    """Regions by name, colour, number of spots and area; one is chosen."""

    chosen = Signal(object)
    """The `Entry` that a person chose, or None."""
    drawRequested = Signal(str)
    undoRequested = Signal()
    redoRequested = Signal()
    importRequested = Signal()
    exportRequested = Signal()
    removeRequested = Signal(object)
    renamed = Signal(object, str)

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.list = QTreeWidget()
        self.list.setAccessibleName("Regions")
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setAllColumnsShowFocus(True)
        self.list.setIconSize(QSize(CHIP_PX, CHIP_PX))
        self.list.setMinimumHeight(96)
        self.list.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.list.setHeaderLabels(["Region", "Spots", "mm²"])
        self._lay_out_columns()
        self.list.currentItemChanged.connect(lambda *_: self._on_row())
        self.list.itemDoubleClicked.connect(self._on_double_click)
        self.list.itemChanged.connect(self._on_edited)
        self.no_area = plain_label(NO_AREA)
        self.no_area.hide()
        self.buttons: dict[str, QPushButton] = {}
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(self._drawing_row())
        box.addWidget(self.list)
        box.addWidget(self.no_area)
        box.addLayout(self._file_row())
        self.enable_steps(undo=False, redo=False)

    @property
    def current(self) -> Entry | None:
        """The entry that is chosen."""
        row = self.list.indexOfTopLevelItem(self.list.currentItem())
        return self.entries[row] if 0 <= row < len(self.entries) else None

    def show_entries(self, entries: Sequence[Entry], key: str | None, scale: AreaScale | None) -> None:
        """List `entries`; the one with `key` is chosen without emitting `chosen`.

        Parameters
        ----------
        entries
            Of the current prediction.
        key
            Of the entry to choose; None for none.
        scale
            Gives their areas; None where there are no entries.
        """
        self.entries = list(entries)
        blocked = self.list.blockSignals(True)
        self.list.clear()
        for entry in entries:
            self.list.addTopLevelItem(
                _item(entry, math.nan if scale is None else scale.of_region(entry.region))
            )
        row = next((i for i, entry in enumerate(entries) if entry.key == key), -1)
        self.list.setCurrentItem(self.list.topLevelItem(row) if row >= 0 else None)
        self.list.blockSignals(blocked)
        self.no_area.setVisible(bool(entries) and scale is not None and scale.um_per_px is None)
        self._enable()

    def enable_steps(self, *, undo: bool, redo: bool) -> None:
        """Say whether there is a step to take back, and one to do again."""
        self.buttons["Undo"].setEnabled(undo)
        self.buttons["Redo"].setEnabled(redo)

    def choose(self, key: str) -> None:
        """Choose the entry with `key`, as a click on it would."""
        for row, entry in enumerate(self.entries):
            if entry.key == key:
                self.list.setCurrentItem(self.list.topLevelItem(row))

    def _lay_out_columns(self) -> None:
        header, heads = self.list.header(), self.list.headerItem()
        assert header is not None
        assert heads is not None
        header.setStretchLastSection(False)
        header.setSectionsMovable(False)
        header.setMinimumSectionSize(40)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        tips = ("Choose the region to compare; double-click a drawn one to name it", "Spots inside", AREA_TIP)
        for column, tip in enumerate(tips):
            heads.setToolTip(column, tip)
            if column != NAME:
                header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
                heads.setTextAlignment(column, _RIGHT)

    def _drawing_row(self) -> QHBoxLayout:
        row = _row()
        for text, tip, mode in (
            ("Polygon", "Draw a region: click its corners, double-click to close it", POLYGON),
            ("Lasso", "Draw a region with the mouse held down", LASSO),
        ):
            self._add(row, text, tip).clicked.connect(lambda _, mode=mode: self.drawRequested.emit(mode))
        for text, tip, act in (
            (
                "Undo",
                "Take back the last change of the drawn regions (Ctrl+Z over the picture)",
                self.undoRequested,
            ),
            ("Redo", "Do it again (Ctrl+Shift+Z over the picture)", self.redoRequested),
        ):
            self._add(row, text, tip).clicked.connect(lambda _, act=act: act.emit())
        return row

    def _file_row(self) -> QHBoxLayout:
        row = _row()
        for text, tip, act in (
            ("Import…", "Read regions from GeoJSON, e.g. QuPath's annotations", self.importRequested),
            ("Export…", "Write all regions listed as GeoJSON, which QuPath imports", self.exportRequested),
        ):
            self._add(row, text, tip).clicked.connect(lambda _, act=act: act.emit())
        self._add(row, "Remove", "Remove the chosen region; Undo brings it back").clicked.connect(
            self._on_remove
        )
        return row

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

    def _on_double_click(self, item: QTreeWidgetItem, column: int) -> None:
        if item.flags() & Qt.ItemFlag.ItemIsEditable:
            self.list.editItem(item, NAME)

    def _on_edited(self, item: QTreeWidgetItem, column: int) -> None:
        row = self.list.indexOfTopLevelItem(item)
        if column == NAME and 0 <= row < len(self.entries):
            self.renamed.emit(self.entries[row], item.text(NAME).strip())

    def _on_remove(self) -> None:
        if self.current is not None:
            self.removeRequested.emit(self.current)


_RIGHT: Final = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


def _row() -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(3)
    return row


def _item(entry: Entry, mm2: float) -> QTreeWidgetItem:
    chip = QPixmap(CHIP_PX, CHIP_PX)
    chip.fill(QColor(*entry.colour) if entry.colour else QColor(EDGE))
    spots = entry.region.spots
    item = QTreeWidgetItem([entry.region.name, whole(spots), area(mm2, unit=False)])
    item.setIcon(NAME, QIcon(chip))
    for column in (SPOTS, AREA):
        item.setTextAlignment(column, _RIGHT)
    kind = "" if entry.drawn is None else entry.drawn.annotation.classification
    parts = (
        entry.region.name,
        counted(spots, "spot"),
        area(mm2, unknown=""),
        f"class {kind}" if kind else "",
    )
    item.setToolTip(NAME, ", ".join(part for part in parts if part))
    item.setToolTip(AREA, AREA_TIP)
    flags = item.flags() & ~Qt.ItemFlag.ItemIsEditable
    item.setFlags(flags | Qt.ItemFlag.ItemIsEditable if entry.drawn is not None else flags)
    return item


ABSENT: Final = {
    PREDICTED: "There is no prediction yet",
    MEASURED: "This prediction has no measured expression; choose counts on the Compare page",
    LABELS: "No labels were read yet",
}
SCALE: Final = "ARI: 1 the same, 0 as dealt out at random; NMI: 0 to 1."
AGREEMENT: Final = f"How far the domains of prediction and truth agree.\n{SCALE}"
AGREEMENT_TO_LABELS: Final = (
    f"How far the domains agree with the labels, over the spots that have both.\n{SCALE}"
)


class DomainChoice:
    """The form of the Regions dock, and two lines of text below it."""

    def __init__(self) -> None:
        self.method = Choice(
            (("Leiden", "leiden"), ("k-means", "k-means")),
            tooltip="How spots are grouped: alike in composition, and neighbours",
        )
        self.source = Choice(
            ((WORDS[PREDICTED], PREDICTED), (WORDS[MEASURED], MEASURED), ("labels", LABELS)),
            tooltip="Whose domains are found, painted and listed; labels are read from a file",
        )
        self.paint = Choice(
            ((paint.value, paint) for paint in Paint),
            tooltip="How domains are drawn; rings leave the gene inside in sight",
        )
        self.search = PushButton(
            text="Find", tooltip="Find domains; they are listed above as regions, and painted"
        )
        self.labels = PushButton(
            text="Labels…",
            tooltip="Read what a pathologist or a clustering called each spot:\n"
            "her2st's annotations, Loupe's CSV, or a table of spot ids and labels",
        )
        self.against = Choice(tooltip="What the chosen region is compared with")
        self.form = form(
            {
                "Domains": row_of(self.method, self.search),
                "of": row_of(self.source, self.labels),
                "Painted": self.paint,
                "Against": self.against,
            }
        )
        self.agreement, self.to_labels = plain_label(), plain_label()
        self.agreement.setToolTip(AGREEMENT)
        self.to_labels.setToolTip(AGREEMENT_TO_LABELS)

    @property
    def shown(self) -> str:
        """Whose domains are shown: `PREDICTED`, `MEASURED` or `LABELS`."""
        return str(self.source.value)

    def enable(self, adata: "AnnData | None") -> None:
        """Offer what `adata` has."""
        there = () if adata is None else sources_of(adata)
        if adata is not None and keys.LABEL in adata.obs:
            there = (*there, LABELS)
        why_not = {s: None if s in there else ABSENT[s] for s in (PREDICTED, MEASURED, LABELS)}
        self.source.explain({}, why_not)
        if adata is not None and self.shown not in there:
            self.source.value = PREDICTED

    def show_agreement(self, adata: "AnnData | None") -> None:
        """Say how far domains agree with each other and the labels, and what part they were learned on."""
        text = "" if adata is None else describe_labels(adata)
        self.to_labels.setText(text)
        self.to_labels.setVisible(bool(text))
        said = []
        if adata is not None and self.shown != LABELS:
            found = domain_agreement(adata)
            said = [f"Prediction to truth: {found.described()}." if found is not None else ""]
            said.append(learned_on(adata, self.shown))
        self.agreement.setText(" ".join(filter(None, said)))
        self.agreement.setVisible(bool(self.agreement.text()))


class LabelReader(QObject):
    """Reads labels into ``obs["label"]``, then finds the domains they are compared with.

    Parameters
    ----------
    dock
        Whose person is asked for a file.
    session
        Whose prediction is labelled.
    jobs, messages
        Of the dock.
    """

    labelled = Signal()
    """The labels of the prediction that is shown are there."""
    compared = Signal()
    """So are the domains of all its sources."""

    def __init__(self, dock: QWidget, session: Session, jobs: Jobs, messages: MessageList) -> None:
        super().__init__(dock)
        self._dock, self._session, self._jobs, self._messages = dock, session, jobs, messages

    def ask(self, method: str) -> None:
        """Ask for a file and read it; `method` finds domains."""
        path = ask_open(self._dock, "Labels of spots", LABEL_FILES)
        if path is not None:
            self.read(path, method)

    def read(self, path: Path, method: str) -> None:
        """Read `path` for the prediction that is shown; what was labelled before stays until it is read."""
        adata = self._session.adata
        if adata is None:
            return
        self._messages.clear()
        self._jobs.run(
            f"labels {id(adata)}",
            read_for(adata, path),
            "Read labels",
            on_result=lambda labels: self._on_read(adata, labels, method),
            on_cancelled=lambda: self._messages.add("notice", "Reading labels was cancelled."),
        )

    def _on_read(self, adata: "AnnData", labels: SpotLabels, method: str) -> None:
        from napari_flag.analysis.domains import write_labels

        write_labels(adata, labels)
        self._session.workspace.changed(adata)
        shown = adata is self._session.adata  # else they are offered when it is shown again
        if shown:
            self.labelled.emit()
        self._jobs.run(
            "domains" if shown else f"domains {id(adata)}",
            find_missing(adata, method),
            "Find domains",
            on_result=lambda _: self._on_found(adata),
            on_cancelled=self._on_cancelled,
        )

    def _on_cancelled(self) -> None:
        self._messages.add("notice", "Finding domains was cancelled; the labels are there.")

    def _on_found(self, adata: "AnnData") -> None:
        self._session.workspace.changed(adata)
        if adata is self._session.adata:
            self.compared.emit()
