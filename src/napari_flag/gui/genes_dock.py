"""The Genes dock: find a gene, choose what of it to see and how, and save the picture."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from qtpy.QtCore import QEvent, QItemSelectionModel, QModelIndex, QObject, Qt, QTimer
from qtpy.QtGui import QIcon, QImage, QKeyEvent, QPixmap, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QCompleter,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.gene_names import GeneNames, look_up
from napari_flag.gui.controls.forms import plain_label
from napari_flag.gui.controls.tables import GENE, MEAN, GeneTable
from napari_flag.gui.dock import NOTHING_YET, Dock
from napari_flag.layers.frame import frame_of
from napari_flag.layers.gene_map import COLORMAPS
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity
from napari_flag.prediction_file import provenance

SHORT_REASON: Final = {
    Quantity.MEASURED: "no counts for these spots",
    Quantity.DIFFERENCE: "no counts for these spots",
    Quantity.SPREAD: "one sample only",
    Quantity.SAMPLE: "not in this file",
}
RANGES: Final = (
    ("1st to 99th percentile", 1.0),
    ("5th to 95th percentile", 5.0),
    ("lowest to highest", 0.0),
    ("fixed for all genes", None),
)


class GenesDock(Dock):
    """Find genes and choose how they are drawn.

    Parameters
    ----------
    napari_viewer
        The viewer; what is chosen is shared with its other docks through `Session`.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self._names = GeneNames(())
        self._build()
        self._lay_out()
        self._connect()
        self._on_prediction(self.session.adata)

    # --- construction ----------------------------------------------------------------------------
    def _build(self) -> None:
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search a gene (HER2), or paste a list")
        self.search.setClearButtonEnabled(True)
        self.message = plain_label()
        self.message.hide()
        self.model = GeneTable()
        self.table = _table(self.model)
        self.quantity = QComboBox()
        for quantity in Quantity:
            self.quantity.addItem(quantity.value.capitalize(), quantity)
        self.colormap = QComboBox()
        for name in COLORMAPS:
            self.colormap.addItem(_colormap_icon(name), name)
        self.colormap.setCurrentText(self.session.gene_map.colormap)
        self.range = QComboBox()
        for text, percentile in RANGES:
            self.range.addItem(text, percentile)
        self.low, self.high = _limit_box("Lowest colour"), _limit_box("Highest colour")
        self.high.setValue(8.0)
        self.second = QLineEdit()
        self.second.setPlaceholderText("none")
        self.second.setClearButtonEnabled(True)
        self.second.setToolTip("Draws a second gene in green over the first in magenta")
        self.save = QPushButton("Save figure…")
        self.save.setToolTip("Save the map with H&E, scale bar and colour bar (PNG or SVG)")
        self.reading = plain_label()
        self.reading.setMinimumHeight(self.reading.fontMetrics().height() + 4)
        self._in_sight = QTimer(self)  # after the layout has passed the size on to the table
        self._in_sight.setSingleShot(True)
        self._in_sight.setInterval(0)

    def _lay_out(self) -> None:
        self._limits = QWidget()
        limits = QHBoxLayout(self._limits)
        limits.setContentsMargins(0, 0, 0, 0)
        limits.addWidget(self.low)
        limits.addWidget(QLabel("to"))
        limits.addWidget(self.high)
        limits.setStretch(0, 1)
        limits.setStretch(2, 1)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Show", self.quantity)
        form.addRow("Colours", self.colormap)
        form.addRow("Range", self.range)
        form.addRow("", self._limits)
        form.addRow("Second gene", self.second)
        self._limits.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(5)
        layout.addWidget(self.search)
        layout.addWidget(self.message)
        layout.addWidget(self.table, stretch=1)
        layout.addWidget(self.reading)
        layout.addLayout(form)
        layout.addWidget(self.messages)
        layout.addWidget(self.save)

    def _connect(self) -> None:
        self._in_sight.timeout.connect(lambda: self.table.scrollTo(self.table.currentIndex()))
        self.search.textChanged.connect(self._on_search)
        self.search.returnPressed.connect(self._take_first)
        self.search.installEventFilter(self)
        self.model.layoutChanged.connect(self._on_order)
        self.model.modelReset.connect(self._on_order)
        selection = self.table.selectionModel()
        assert selection is not None
        selection.currentChanged.connect(self._on_row)
        self.quantity.activated.connect(self._on_quantity)
        self.colormap.currentTextChanged.connect(self.session.gene_map.set_colormap)
        self.range.currentIndexChanged.connect(self._on_range_kind)
        self.low.valueChanged.connect(self._on_range)
        self.high.valueChanged.connect(self._on_range)
        self.second.editingFinished.connect(self._on_second)
        self.second.textChanged.connect(self._on_second_cleared)
        self.save.clicked.connect(self._choose_figure)
        self.session.predictionChanged.connect(self._on_prediction)
        self.session.genesShownChanged.connect(self._on_genes_shown)
        self.session.hovered.connect(self._on_hovered)

    # --- from the session ------------------------------------------------------------------------
    def _on_prediction(self, adata: Any) -> None:
        self.messages.clear()
        for widget in (self.search, self.table, self.quantity, self.second, self.save):
            widget.setEnabled(adata is not None)
        if adata is None:
            self._names = GeneNames(())
            self.model.set_genes((), np.empty(0, np.float32), np.empty(0, np.float32))
            self.reading.setText(NOTHING_YET)
            return
        values = self.session.gene_map.values or GeneValues(adata)
        self._names = GeneNames(values.genes, str(provenance(adata).get(keys.WEIGHTS_NAME, "")))
        self.second.setCompleter(_completer(values.genes))
        self.model.set_genes(values.genes, *values.summary())
        self._offer_quantities(values)
        if notice := frame_of(adata).notice:
            self.messages.add("warning", notice)
        self._on_search(self.search.text())
        self._on_genes_shown(self.session.genes_shown)
        self._on_hovered("")

    def _offer_quantities(self, values: GeneValues) -> None:
        """Grey out what this prediction does not have, and say why in the list itself."""
        items: Any = self.quantity.model()
        for row, quantity in enumerate(Quantity):
            reason = values.why_not(quantity)
            items.item(row).setEnabled(reason is None)
            name = quantity.value.capitalize()
            self.quantity.setItemText(row, f"{name} ({SHORT_REASON[quantity]})" if reason else name)
            self.quantity.setItemData(row, reason or quantity.meaning, Qt.ItemDataRole.ToolTipRole)
        self._show_quantity()

    def _show_quantity(self) -> None:
        quantity = self.session.gene_map.quantity
        self.quantity.setCurrentIndex(list(Quantity).index(quantity))
        self.quantity.setToolTip(quantity.meaning)
        self.colormap.setEnabled(quantity is not Quantity.DIFFERENCE and not self._overlaid)
        self.colormap.setToolTip(
            "Two genes are drawn in magenta and green"
            if self._overlaid
            else "A difference is always drawn from blue over white (no difference) to red"
            if quantity is Quantity.DIFFERENCE
            else ""
        )

    @property
    def _overlaid(self) -> bool:
        return self.session.gene_map.overlaid

    def _on_genes_shown(self, genes: list[str]) -> None:
        second = genes[1] if len(genes) > 1 else ""
        if self.second.text() != second and not self.second.hasFocus():
            self.second.setText(second)
        self._mark(genes[0] if genes else None)
        self._show_quantity()

    def _mark(self, gene: str | None) -> None:
        """Select the row of `gene`, without telling the session what it said itself."""
        row = self.model.row(gene)
        selection = self.table.selectionModel()
        if selection is None:
            return
        index = self.model.index(row, GENE) if row is not None else QModelIndex()
        if index == selection.currentIndex():
            return
        flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
        blocked = selection.blockSignals(True)
        selection.setCurrentIndex(index, flags)
        selection.blockSignals(blocked)
        if index.isValid():
            self.table.scrollTo(index)
        viewport = self.table.viewport()
        if viewport is not None:
            viewport.update()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the chosen gene in sight when the dock gets its size."""
        super().resizeEvent(event)
        self._in_sight.start()

    def _on_hovered(self, text: str) -> None:
        self.reading.setText(text or "Point at a spot to read its values.")

    # --- from the person -------------------------------------------------------------------------
    def _on_search(self, text: str) -> None:
        found = look_up(self._names, text)
        self.model.choose(found.genes, found.notes)
        self.message.setText(found.message)
        self.message.setToolTip("\n".join(found.reasons))
        self.message.setVisible(bool(found.message))

    def _take_first(self) -> None:
        if self.model.rowCount():
            self.session.select_gene(self.model.gene(0))

    def _on_order(self) -> None:
        """Let the arrow keys over the picture follow the order of the list."""
        if self.session.adata is not None and self.model.rowCount():
            self.session.gene_order = self.model.shown
        self._mark(self.session.gene)

    def _on_row(self, index: QModelIndex) -> None:
        if index.isValid():
            gene = self.model.gene(index.row())
            if gene != self.session.gene:
                self.session.select_gene(gene)

    def _on_quantity(self) -> None:
        quantity = self.quantity.currentData()
        values = self.session.gene_map.values
        if values is not None and values.why_not(quantity) is None:
            self.session.gene_map.set_quantity(quantity)
        self._show_quantity()

    def _on_range_kind(self) -> None:
        """Start fixed limits from those shown, so that nothing jumps."""
        layer = self.session.gene_map.layer(self.session.gene_map.quantity)
        if self.range.currentData() is None and layer is not None:
            for box, limit in zip((self.low, self.high), layer.contrast_limits, strict=True):
                box.blockSignals(True)
                box.setValue(limit)
                box.blockSignals(False)
        self._on_range()

    def _on_range(self) -> None:
        percentile = self.range.currentData()
        self._limits.setVisible(percentile is None)
        if percentile is None:
            contrast = Contrast(fixed=(self.low.value(), self.high.value()))
        else:
            contrast = Contrast(percentile=percentile)
        self.session.gene_map.set_contrast(contrast)

    def _on_second_cleared(self, text: str) -> None:
        if not text and len(self.session.genes_shown) > 1:
            self._on_second()

    def _on_second(self) -> None:
        self.messages.clear()
        name, gene = self.second.text().strip(), self.session.gene
        if gene is None:
            return
        hit = self._names.resolve(name)
        if name and hit is None:
            self.messages.add("warning", self._names.why_not(name))
            return
        wanted = [gene] if hit is None or hit.gene == gene else [gene, hit.gene]
        if wanted != self.session.genes_shown:
            self.session.show_genes(wanted)
        if hit is not None and name != hit.gene:
            self.second.setText(hit.gene)
        if len(wanted) > 1 and not self._overlaid:
            self.messages.add(
                "notice", "Two genes can be overlaid as Predicted, One sample or Measured only."
            )

    def _choose_figure(self) -> None:
        gene = "_".join(self.session.genes_shown)
        start = f"{gene}_{self.session.gene_map.quantity.value.replace(' ', '_')}.png"
        path, _ = QFileDialog.getSaveFileName(
            self, "Save figure", start, "Picture (*.png);;Vector graphic (*.svg)"
        )
        if path:
            self.save_figure(Path(path))

    def save_figure(self, path: Path) -> None:
        """Save what is shown to `path`; what goes wrong is said in the dock."""
        from napari_flag.figures.gene_figure import save_gene_figure

        self.messages.clear()
        try:
            path = save_gene_figure(path, self.session.gene_map, self.session.slide)
        except UserError as error:
            self.messages.show_error(error)
        else:
            self.messages.add("notice", f"Saved {path}.")

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Let the arrow keys walk the list while the search box has the cursor."""
        if watched is self.search and isinstance(event, QKeyEvent):
            steps = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}
            if event.type() == QEvent.Type.KeyPress and event.key() in steps:
                self.session.step(steps[Qt.Key(event.key())])
                return True
        return super().eventFilter(watched, event)


def _table(model: GeneTable) -> QTableView:
    table = QTableView()
    table.setModel(model)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setMinimumHeight(80)
    rows, columns = table.verticalHeader(), table.horizontalHeader()
    assert rows is not None
    assert columns is not None
    rows.hide()
    rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    rows.setDefaultSectionSize(22)
    columns.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    columns.setSectionResizeMode(GENE, QHeaderView.ResizeMode.Stretch)
    for column in range(1, model.columnCount()):
        table.setColumnWidth(column, 72)
    columns.setHighlightSections(False)
    columns.setSortIndicator(MEAN, Qt.SortOrder.DescendingOrder)
    table.setSortingEnabled(True)
    return table


def _limit_box(name: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(-100.0, 100.0)
    box.setDecimals(1)
    box.setSingleStep(0.5)
    box.setAccessibleName(name)
    box.setToolTip(f"{name}, in the units of the values")
    box.setKeyboardTracking(False)
    return box


def _completer(genes: tuple[str, ...]) -> QCompleter:
    completer = QCompleter(sorted(genes))
    completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
    return completer


def _colormap_icon(name: str) -> QIcon:
    from napari.utils.colormaps import ensure_colormap

    row = ensure_colormap(name).map(np.linspace(0, 1, 48))
    pixels = np.ascontiguousarray(np.repeat((row[None] * 255).astype(np.uint8), 12, axis=0))
    image = QImage(pixels.tobytes(), 48, 12, 48 * 4, QImage.Format.Format_RGBA8888)
    return QIcon(QPixmap.fromImage(image.copy()))
