"""The Genes dock: find a gene, choose what of it to see and how, and save the picture."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from magicgui.widgets import LineEdit
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QIcon, QImage, QKeyEvent, QPixmap
from qtpy.QtWidgets import QCompleter, QLineEdit, QPushButton

from napari_flag import keys
from napari_flag.gene_names import GeneNames, look_up
from napari_flag.gui.controls.forms import Choice, form, number_field, plain_label, row_of, set_quietly
from napari_flag.gui.controls.plots import ask_figure_path
from napari_flag.gui.controls.tables import Column, NumberView
from napari_flag.gui.dock import NOTHING_YET, Dock
from napari_flag.layers.frame import frame_of
from napari_flag.layers.gene_map import COLORMAPS
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity
from napari_flag.prediction_file import provenance

SHORT_REASON: Final = {
    Quantity.MEASURED: "no counts for these spots",
    Quantity.DIFFERENCE: "no counts for these spots",
    Quantity.SPREAD: "not in this file",
    Quantity.SAMPLE: "not in this file",
}
FIXED: Final = -1.0
RANGES: Final = (
    ("1st to 99th percentile", 1.0),
    ("5th to 95th percentile", 5.0),
    ("lowest to highest", 0.0),
    ("fixed for all genes", FIXED),
)
COLUMNS: Final = (
    Column("mean", "Mean", "Mean predicted expression over the spots"),
    Column("variance", "Variance", "Variance of the predicted expression over the spots"),
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
        self.table = NumberView("Gene", width=72)
        self.quantity = Choice(((q.value.capitalize(), q) for q in Quantity), name="Show")
        self.colormap = Choice(((name, name) for name in COLORMAPS), name="Colours")
        for row, name in enumerate(COLORMAPS):
            self.colormap.native.setItemIcon(row, _colormap_icon(name))
        self.colormap.select(self.session.gene_map.colormap)
        self.range = Choice(RANGES, name="Range")
        contrast = self.session.gene_map.contrast  # chosen before, where the page was closed since
        self.range.select(contrast.percentile if contrast.fixed is None else FIXED)
        low, high = contrast.fixed or (0.0, 8.0)
        self.low, self.high = (
            number_field(value, -100, 100, 0.5, decimals=1, arrows=True, tooltip=f"{name} colour")
            for value, name in ((low, "Lowest"), (high, "Highest"))
        )
        self.limits = row_of(self.low, self.high)
        self.second = LineEdit(tooltip="Draws a second gene in green over the first in magenta")
        self.second.native.setPlaceholderText("none")
        self.second.native.setClearButtonEnabled(True)
        self.save = QPushButton("Save figure…")
        self.save.setToolTip("Save the map with H&E, scale bar and colour bar (PNG or SVG)")
        self.reading = plain_label()
        self.reading.setMinimumHeight(self.reading.fontMetrics().height() + 4)

    def _lay_out(self) -> None:
        self.form = form(
            {
                "Show": self.quantity,
                "Colours": self.colormap,
                "Range": self.range,
                "from, to": self.limits,
                "Second gene": self.second,
            }
        )
        self.limits.visible = self.range.value == FIXED
        box = self.column()
        box.addWidget(self.search)
        box.addWidget(self.message)
        box.addWidget(self.table, 1)
        box.addWidget(self.reading)
        box.addWidget(self.form.native)
        box.addWidget(self.messages)
        box.addWidget(self.save)

    def _connect(self) -> None:
        self.search.textChanged.connect(self._on_search)
        self.search.returnPressed.connect(self._take_first)
        self.search.installEventFilter(self)
        self.table.table.layoutChanged.connect(self._on_order)
        self.table.table.modelReset.connect(self._on_order)
        self.table.chosen.connect(self._on_row)
        self.quantity.changed.connect(self._on_quantity)
        self.colormap.changed.connect(self.session.gene_map.set_colormap)
        self.range.changed.connect(self._on_range_kind)
        self.low.changed.connect(self._on_range)
        self.high.changed.connect(self._on_range)
        self.second.native.editingFinished.connect(self._on_second)
        self.second.changed.connect(self._on_second_cleared)
        self.save.clicked.connect(self._choose_figure)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self.listen(self.session.genesShownChanged, self._on_genes_shown)
        self.listen(self.session.hovered, self._on_hovered)

    # --- from the session ------------------------------------------------------------------------
    def _on_prediction(self, adata: Any) -> None:
        self.messages.clear()
        for widget in (self.search, self.table, self.quantity.native, self.second.native, self.save):
            widget.setEnabled(adata is not None)
        if adata is None:
            self._names = GeneNames(())
            self.table.table.set_rows((), {"mean": (), "variance": ()}, COLUMNS)
            self.reading.setText(NOTHING_YET)
            return
        values = self.session.gene_map.values or GeneValues(adata)
        self._names = GeneNames(values.genes, str(provenance(adata).get(keys.WEIGHTS_NAME, "")))
        self.second.native.setCompleter(_completer(values.genes))
        mean, variance = values.summary()
        self.table.table.set_rows(values.genes, {"mean": mean, "variance": variance}, COLUMNS)
        self._offer_quantities(values)
        if notice := frame_of(adata).notice:
            self.messages.add("warning", notice)
        self._on_search(self.search.text())
        self._on_genes_shown(self.session.genes_shown)
        self._on_hovered("")

    def _offer_quantities(self, values: GeneValues) -> None:
        """Grey out what this prediction does not have, and say why in the list itself."""
        reasons = {quantity: values.why_not(quantity) for quantity in Quantity}
        names = {q: q.value.capitalize() + (f" ({SHORT_REASON[q]})" if reasons[q] else "") for q in Quantity}
        self.quantity.offer((names[quantity], quantity) for quantity in Quantity)
        self.quantity.explain({quantity: quantity.meaning for quantity in Quantity}, reasons)
        self._show_quantity()

    def _show_quantity(self) -> None:
        quantity = self.session.gene_map.quantity
        self.quantity.select(quantity)
        values = self.session.gene_map.values
        unit = "" if values is None else values.unit(quantity)
        self.quantity.tooltip = f"{quantity.meaning}\n{unit}".rstrip()
        for field, end in ((self.low, "Lowest"), (self.high, "Highest")):
            field.tooltip = f"{end} colour, {unit}".rstrip(", ")
        self.colormap.enabled = quantity is not Quantity.DIFFERENCE and not self._overlaid
        self.colormap.tooltip = (
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
        if self.second.value != second and not self.second.native.hasFocus():
            self.second.value = second
        self.table.mark(genes[0] if genes else None)
        self._show_quantity()

    def _on_hovered(self, text: str) -> None:
        self.reading.setText(text or "Point at a spot to read its values.")

    # --- from the person -------------------------------------------------------------------------
    def _on_search(self, text: str) -> None:
        found = look_up(self._names, text)
        self.table.table.limit(found.genes, found.notes, as_given=True)
        self.message.setText(found.message)
        self.message.setToolTip("\n".join(found.reasons))
        self.message.setVisible(bool(found.message))

    def _take_first(self) -> None:
        if self.table.table.rowCount():
            self.session.select_gene(self.table.table.name(0))

    def _on_order(self) -> None:
        """Let the arrow keys over the picture follow the order of the list."""
        if self.session.adata is not None and self.table.table.rowCount():
            self.session.gene_order = self.table.table.shown
        self.table.mark(self.session.gene)

    def _on_row(self, gene: str) -> None:
        if gene != self.session.gene:
            self.session.select_gene(gene)

    def _on_quantity(self) -> None:
        quantity = self.quantity.value
        values = self.session.gene_map.values
        if values is not None and values.why_not(quantity) is None:
            self.session.gene_map.set_quantity(quantity)
        self._show_quantity()

    def _on_range_kind(self) -> None:
        """Start fixed limits from those shown, so that nothing jumps."""
        layer = self.session.gene_map.layer(self.session.gene_map.quantity)
        if self.range.value == FIXED and layer is not None:
            for field, limit in zip((self.low, self.high), layer.contrast_limits, strict=True):
                set_quietly(field, limit)
        self._on_range()

    def _on_range(self) -> None:
        fixed = self.range.value == FIXED
        self.limits.visible = fixed
        if fixed:
            contrast = Contrast(fixed=(self.low.value, self.high.value))
        else:
            contrast = Contrast(percentile=self.range.value)
        self.session.gene_map.set_contrast(contrast)

    def _on_second_cleared(self, text: str) -> None:
        if not text and len(self.session.genes_shown) > 1:
            self._on_second()

    def _on_second(self) -> None:
        self.messages.clear()
        name, gene = self.second.value.strip(), self.session.gene
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
            self.second.value = hit.gene
        if len(wanted) > 1 and not self._overlaid:
            self.notify("Two genes can be overlaid as Predicted, One draw or Measured only.")

    def _choose_figure(self) -> None:
        gene = "_".join(self.session.genes_shown)
        start = f"{gene}_{self.session.gene_map.quantity.value.replace(' ', '_')}.png"
        path = ask_figure_path(self, start)
        if path is not None:
            self.save_figure(path)

    def save_figure(self, path: Path) -> None:
        """Save what is shown to `path`; what goes wrong is said in the dock."""
        from napari_flag.figures.gene_figure import save_gene_figure

        self.write_file(path, lambda: save_gene_figure(path, self.session.gene_map, self.session.slide))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Let the arrow keys walk the list while the search box has the cursor."""
        if watched is self.search and isinstance(event, QKeyEvent):
            steps = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}
            if event.type() == QEvent.Type.KeyPress and event.key() in steps:
                self.session.step(steps[Qt.Key(event.key())])
                return True
        return super().eventFilter(watched, event)


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
