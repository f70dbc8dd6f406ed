"""The list of regions in the Regions dock, with what can be done to them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_flag import keys
from napari_flag.analysis.domains import (
    LABELS,
    describe_labels,
    domain_agreement,
    domain_names,
    find_missing,
    read_domains,
    read_for,
    write_domains,
)
from napari_flag.analysis.truth import MEASURED, PREDICTED, sources
from napari_flag.formatting import number
from napari_flag.gui.controls.forms import MessageList, narrow, plain_label
from napari_flag.gui.jobs import Errands
from napari_flag.gui.regions.results import WORDS
from napari_flag.gui.session import Session
from napari_flag.layers.overlays import Paint
from napari_flag.layers.region_shapes import EDGE, Entry
from napari_flag.slides.formats.geojson import Annotation
from napari_flag.slides.formats.labels import SpotLabels

if TYPE_CHECKING:
    from anndata import AnnData


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


def domain_outlines(adata: Any, source: str) -> list[Annotation]:
    """Return one annotation per domain, or label, of `source`, its outline half a pitch around its spots."""
    from anndata import AnnData

    from napari_flag.exports.qupath import domain_annotations

    numbers = read_domains(adata, source)
    if numbers is None:
        return []
    seen = numbers > 0
    alone = AnnData(obs=adata.obs.loc[seen, []], obsm={keys.SPATIAL: adata.obsm[keys.SPATIAL][seen]})
    write_domains(alone, PREDICTED, numbers[seen])
    found = domain_annotations(alone)
    if source != LABELS:
        return found
    seen_labels = [domain_names(adata, source)[number - 1] for number in sorted(set(numbers[seen].tolist()))]
    return [
        replace(annotation, name=name, classification=name)
        for annotation, name in zip(found, seen_labels, strict=True)
    ]


SCALE: Final = "ARI: 1 the same, 0 as dealt out at random; NMI: 0 to 1."
AGREEMENT: Final = f"How far the domains of prediction and truth agree.\n{SCALE}"
AGREEMENT_TO_LABELS: Final = (
    f"How far the domains agree with the labels, over the spots that have both.\n{SCALE}"
)


class DomainChoice:
    """Rows of a form, by name, and two lines of text, of the Regions dock.

    Parameters
    ----------
    labels
        The button that reads labels.
    """

    def __init__(self, labels: QPushButton) -> None:
        self.method, self.source, self.paint = narrow(QComboBox()), narrow(QComboBox()), narrow(QComboBox())
        for text, method in (("Leiden", "leiden"), ("k-means", "k-means")):
            self.method.addItem(text, method)
        self.method.setToolTip("How spots are grouped: alike in composition, and neighbours")
        for source in (PREDICTED, MEASURED):
            self.source.addItem(WORDS[source], source)
        self.source.addItem("labels", LABELS)
        self.source.setToolTip("Whose domains are found, painted and listed; labels are read from a file")
        for paint in Paint:
            self.paint.addItem(paint.value, paint)
        self.paint.setToolTip("How domains are drawn; rings leave the gene inside in sight")
        self.search = QPushButton("Find")
        self.search.setToolTip("Find domains; they are listed above as regions, and painted")
        self.agreement, self.to_labels = plain_label(), plain_label()
        self.agreement.setToolTip(AGREEMENT)
        self.to_labels.setToolTip(AGREEMENT_TO_LABELS)
        self.rows = {
            "Domains": _row(self.method, self.search),
            "of": _row(self.source, labels),
            "Painted": _row(self.paint),
        }

    @property
    def looked_at(self) -> str:
        """Whose domains are looked at: `PREDICTED`, `MEASURED` or `LABELS`."""
        return str(self.source.currentData())

    def enable(self, adata: "AnnData | None") -> None:
        """Offer what there is to look at in `adata`."""
        there = () if adata is None else sources(adata)
        if adata is not None and keys.LABEL in adata.obs:
            there = (*there, LABELS)
        items = cast(Any, self.source.model())
        for row in range(self.source.count()):
            items.item(row).setEnabled(self.source.itemData(row) in there)
        if adata is not None and self.looked_at not in there:
            self.source.setCurrentIndex(0)

    def set_paint(self, paint: Paint, *, quietly: bool = False) -> None:
        """Draw domains so; `quietly` leaves the drawing to the caller."""
        blocked = self.paint.blockSignals(quietly)
        self.paint.setCurrentIndex(list(Paint).index(paint))
        self.paint.blockSignals(blocked)

    def tell_agreement(self, adata: "AnnData | None") -> None:
        """Tell how far domains agree with each other, and with the labels."""
        told = "" if adata is None else describe_labels(adata)
        self.to_labels.setText(told)
        self.to_labels.setVisible(bool(told))
        found = None if adata is None or self.looked_at == LABELS else domain_agreement(adata)
        self.agreement.setVisible(found is not None)
        if found is not None:
            self.agreement.setText(f"Prediction to truth: ARI {number(found.ari)}, NMI {number(found.nmi)}")


def _row(wide: QWidget, *others: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(5)
    row.addWidget(wide, 1)
    for widget in others:
        row.addWidget(widget)
    return row


TABLES: Final = "Labels (*.tsv *.csv *.txt *.tsv.gz *.csv.gz);;All files (*)"


class LabelButton(QPushButton):
    """Reads labels into ``obs["label"]``, then finds the domains they are held against.

    Parameters
    ----------
    session
        Whose prediction is labelled.
    errands, messages
        Of the dock.
    """

    labelled = Signal()
    """The labels are there."""
    compared = Signal()
    """So are the domains of all sources."""

    def __init__(self, session: Session, errands: Errands, messages: MessageList) -> None:
        super().__init__("Labels…")
        self._session, self._errands, self._messages = session, errands, messages
        self._method = ""
        self.setToolTip(
            "Read what a pathologist or a clustering called each spot:\n"
            "her2st's annotations, Loupe's CSV, or a table of spot ids and labels"
        )

    def ask(self, method: str) -> None:
        """Ask for a file and read it; `method` finds domains."""
        path, _ = QFileDialog.getOpenFileName(self, "Labels of spots", "", TABLES)
        if path:
            self.read(Path(path), method)

    def read(self, path: Path, method: str) -> None:
        """Read `path`; what was labelled before stays until it is read."""
        adata, self._method = self._session.adata, method
        if adata is None:
            return
        self._messages.clear()
        self._errands.start(
            "labels",
            read_for(adata, path),
            "Read labels",
            on_done=lambda labels: self._on_read(adata, labels),
            on_failed=self._messages.show_error,
            on_cancelled=lambda: self._messages.add("notice", "Reading labels was cancelled."),
        )

    def _on_read(self, adata: Any, labels: SpotLabels) -> None:
        from napari_flag.analysis.domains import write_labels

        if adata is None or adata is not self._session.adata:  # another prediction came in between
            return
        write_labels(adata, labels)
        self.labelled.emit()
        self._errands.start(
            "domains",
            find_missing(adata, self._method),
            "Find domains",
            on_done=lambda _: self.compared.emit(),
            on_failed=self._messages.show_error,
            on_cancelled=self._on_cancelled,
        )

    def _on_cancelled(self) -> None:
        self._messages.add("notice", "Finding domains was cancelled; the labels are there.")
        self.compared.emit()
