"""A heat map of a gene set over regions, a panel per source: hover names a cell, a click chooses its gene."""

from typing import Final

import numpy as np
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QImage, QMouseEvent, QPainter, QPen

from napari_flag.analysis.set_maps import SetMap
from napari_flag.formatting import number
from napari_flag.gui.controls.heat_map import picture
from napari_flag.gui.controls.plots import Plot, PlotStyle

GAP_PX: Final = 10.0
BAR_PX: Final = 10.0
SMALLEST_ROW_PX: Final = 8.0
"""Genes are named while their rows are at least this high."""
LARGEST_TEXT_PX: Final = 12
LEVELS: Final = 256


class SetMapView(Plot):
    """Rows are genes, columns regions, blue below the section's mean and red above.

    `set_map` gives the data, `mark` the selected gene.
    """

    cellHovered = Signal(str)
    """What is under the mouse with its number, "" beside the map."""
    geneClicked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.shown: SetMap | None = None
        self._images: dict[str, QImage] = {}
        self._marked: int | None = None
        self._hovered = ""
        self.setMinimumSize(180, 120)

    def set_map(self, found: SetMap) -> None:
        """Show a set."""
        self.shown = found
        self._images = {source: picture(values, found.limit) for source, values in found.values.items()}
        self._marked, self._hovered = None, ""
        self.show_message("")

    def mark(self, gene: str | None) -> None:
        """Frame the row of `gene`, where it is shown."""
        genes = () if self.shown is None else self.shown.genes
        self._marked = genes.index(gene) if gene in genes else None
        self.update()

    # --- places ----------------------------------------------------------------------------------
    def panels(self, size: QSize | None = None) -> dict[str, QRectF]:
        """Return source → rectangle of its cells, in px of the widget."""
        if self.shown is None:
            return {}
        size = size or self.size()
        text = self.fontMetrics()
        left = 6.0 + max(text.horizontalAdvance(gene) for gene in self.shown.genes)
        right = BAR_PX + 6.0 + text.horizontalAdvance("−0.00") + GAP_PX
        below = 6.0 + max(text.horizontalAdvance(name) for name in self.shown.regions)
        top = text.height() + 2.0
        sources = list(self.shown.values)
        room = size.width() - left - right - GAP_PX * (len(sources) - 1)
        width, height = max(room / len(sources), 10.0), max(size.height() - top - below, 10.0)
        places = (left + place * (width + GAP_PX) for place in range(len(sources)))
        return {s: QRectF(x, top, width, height) for s, x in zip(sources, places, strict=True)}

    def cell_at(self, position: QPointF) -> tuple[str, int, int] | None:
        """Return source, row and column at `position` (px of the widget), or None."""
        if self.shown is None or self.message:
            return None
        for source, frame in self.panels().items():
            if frame.contains(position):
                rows, columns = self.shown.values[source].shape
                row = int((position.y() - frame.top()) / frame.height() * rows)
                column = int((position.x() - frame.left()) / frame.width() * columns)
                return source, min(row, rows - 1), min(column, columns - 1)
        return None

    # --- drawing ---------------------------------------------------------------------------------
    def draw(self, painter: QPainter, size: QSize, style: PlotStyle, *, marks: bool = True) -> None:
        """Draw the whole map at `size`."""
        if self.message or self.shown is None:
            super().draw(painter, size, style, marks=marks)
            return
        panels = self.panels(size)
        for source, frame in panels.items():
            painter.drawImage(frame, self._images[source])
            painter.setPen(style.ink)
            above = QRectF(frame.left(), 0, frame.width() + GAP_PX, frame.top())
            painter.drawText(above, Qt.AlignmentFlag.AlignLeft, source)
            self._write_regions(painter, frame)
        first, last = next(iter(panels.values())), list(panels.values())[-1]
        self._write_genes(painter, first)
        self._draw_bar(painter, last, style)
        if marks:
            self.draw_marks(painter, first, style)

    def _write_genes(self, painter: QPainter, frame: QRectF) -> None:
        assert self.shown is not None
        row = frame.height() / len(self.shown.genes)
        if row < SMALLEST_ROW_PX:
            return
        painter.save()
        small = painter.font()
        small.setPixelSize(min(int(row), LARGEST_TEXT_PX))
        painter.setFont(small)
        flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextDontClip
        for place, gene in enumerate(self.shown.genes):
            painter.drawText(QRectF(0, frame.top() + place * row, frame.left() - 4, row), flags, gene)
        painter.restore()

    def _write_regions(self, painter: QPainter, frame: QRectF) -> None:
        """Write the regions' names upright below their columns."""
        assert self.shown is not None
        column = frame.width() / len(self.shown.regions)
        flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextDontClip
        for place, name in enumerate(self.shown.regions):
            painter.save()
            painter.translate(frame.left() + (place + 0.5) * column, frame.bottom() + 4)
            painter.rotate(-90)
            painter.drawText(QRectF(-400, -column / 2, 400, column), flags, name)
            painter.restore()

    def _draw_bar(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        assert self.shown is not None
        bar = QRectF(frame.right() + GAP_PX, frame.top(), BAR_PX, frame.height())
        painter.drawImage(bar, picture(np.linspace(1, -1, LEVELS)[:, None], 1.0))
        painter.setPen(style.ink)
        line = float(painter.fontMetrics().height())
        flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextDontClip
        for place, value in ((0.0, self.shown.limit), (0.5, 0.0), (1.0, -self.shown.limit)):
            top = bar.top() + place * (bar.height() - line)
            painter.drawText(QRectF(bar.right() + 4, top, 60, line), flags, number(value))

    def draw_marks(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Frame the row of the selected gene in every panel."""
        if self._marked is None or self.shown is None:
            return
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(style.marked, 1.5))
        for panel in self.panels().values():
            row = panel.height() / len(self.shown.genes)
            painter.drawRect(QRectF(panel.left(), panel.top() + self._marked * row, panel.width(), row))

    # --- mouse -----------------------------------------------------------------------------------
    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Name the cell under the mouse."""
        if event is not None:
            self._hover(self._describe(event.position()))

    def leaveEvent(self, event: QEvent | None) -> None:
        """Forget the cell that was under the mouse."""
        self._hover("")
        super().leaveEvent(event)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose the gene under the mouse."""
        cell = None if event is None else self.cell_at(event.position())
        if cell is not None and self.shown is not None:
            self.geneClicked.emit(self.shown.genes[cell[1]])

    def _describe(self, position: QPointF) -> str:
        cell = self.cell_at(position)
        if cell is None or self.shown is None:
            return ""
        source, row, column = cell
        value = number(float(self.shown.values[source][row, column]), unknown="not measured")
        return f"{self.shown.genes[row]} in {self.shown.regions[column]}, {source}: {value}"

    def _hover(self, text: str) -> None:
        if text != self._hovered:
            self._hovered = text
            self.cellHovered.emit(text)
