"""A heat map of correlations between genes: hover names a pair, a click chooses it."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QImage, QMouseEvent, QPainter, QPen
from qtpy.QtWidgets import QWidget

from napari_flag.formatting import number
from napari_flag.gui.controls.plots import Plot, PlotStyle
from napari_flag.layers.gene_map import DIVERGING

BAR_PX: Final = 12
BAR_GAP: Final = 8
TICK_GAP: Final = 3
HIGHEST_BAR_PX: Final = 140.0
WIDEST_TICK: Final = "≤ −0.00 "
SMALLEST_LABEL_PX: Final = 8.0
"""Genes are named beside the map while their rows are at least this high."""
ABSENT: Final = 0.6
"""Grey of cells without a number (the diagonal)."""
LEVELS: Final = 256


class HeatMap(Plot):
    """Square cells, one per pair of genes, from below 0 (blue) over 0 (white) to above 0 (red).

    `set_matrix` gives the data, `mark` the selected pair.
    """

    pairHovered = Signal(str)
    """The pair under the mouse with its numbers, "" beside the map."""
    pairClicked = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._matrix: npt.NDArray[np.float64] = np.empty((0, 0))
        self._names: tuple[str, ...] = ()
        self._row_of: dict[str, int] = {}
        self._image: QImage | None = None
        self._corners = ("", "")
        self._limit = 1.0
        self._marked: tuple[int, int] | None = None
        self._hovered = ""
        self.setMinimumSize(180, 180)

    def set_matrix(
        self,
        matrix: npt.NDArray[np.float64],
        names: Sequence[str],
        below: str = "",
        above: str = "",
        limit: float = 1.0,
    ) -> None:
        """Show (G, G) correlations.

        Parameters
        ----------
        matrix
            Of `names`, in their order; NaN is grey.
        names
            G genes, each once.
        below, above
            What the two triangles show.
        limit
            Where the colours end on both sides of 0; the bar says so.
        """
        self._limit = limit
        self._matrix, self._names = matrix, tuple(names)
        self._row_of = {name: row for row, name in enumerate(names)}
        self._image = picture(matrix, limit) if len(names) else None
        self._corners = (below, above)
        self._marked = None
        self._hovered = ""
        self.show_message("")

    def mark(self, first: str | None, second: str | None = None) -> None:
        """Frame the row of `first` and the column of `second` (of `first`, where there is none)."""
        row, column = self._row_of.get(first or ""), self._row_of.get(second or first or "")
        marked = None if row is None or column is None else (row, column)
        if marked != self._marked:
            self._marked = marked
            self.update()

    # --- places ----------------------------------------------------------------------------------
    def frame(self, size: QSize | None = None) -> QRectF:
        """Return the square of the cells, in px of the widget."""
        size = size or self.size()
        side, left, top = self._room(size)
        return QRectF(left, top, side, side)

    def _room(self, size: QSize) -> tuple[float, float, float]:
        """Return side, left and top of the square: room for names where they can be read."""
        text = self.fontMetrics().height()
        height = size.height() - 2.0 * text - 6
        for names in (self._names_px(), 6.0):
            side = max(min(size.width() - names - self._bar_px(), height), 10.0)
            if names > 6.0 and self._names and side / len(self._names) >= SMALLEST_LABEL_PX:
                break
        left = max(names, (size.width() - self._bar_px() + names - side) / 2)
        return side, left, text + 3.0

    def _bar_px(self) -> int:
        """Return the width of the colour bar with its numbers, and the gap before it."""
        return BAR_GAP + BAR_PX + TICK_GAP + self.fontMetrics().horizontalAdvance(WIDEST_TICK)

    def _names_px(self) -> float:
        longest = max((self.fontMetrics().horizontalAdvance(name) for name in self._names), default=0)
        return 6.0 + longest

    def pair_at(self, position: QPointF) -> tuple[str, str] | None:
        """Return the genes of the row and column at `position` (px of the widget), or None."""
        frame = self.frame()
        if self.message or not self._names or not frame.contains(position):
            return None
        cell = frame.width() / len(self._names)
        last = len(self._names) - 1
        row = min(int((position.y() - frame.top()) / cell), last)
        column = min(int((position.x() - frame.left()) / cell), last)
        return self._names[row], self._names[column]

    def position_of(self, first: str, second: str) -> QPointF:
        """Return the middle of the cell in the row of `first` and the column of `second`."""
        frame = self.frame()
        cell = frame.width() / len(self._names)
        return QPointF(
            frame.left() + (self._row_of[second] + 0.5) * cell,
            frame.top() + (self._row_of[first] + 0.5) * cell,
        )

    # --- drawing ---------------------------------------------------------------------------------
    def draw(self, painter: QPainter, size: QSize, style: PlotStyle, *, marks: bool = True) -> None:
        """Draw the whole map at `size`."""
        if self.message or self._image is None:
            super().draw(painter, size, style, marks=marks)
            return
        frame = self.frame(size)
        painter.drawImage(frame, self._image)
        painter.setPen(style.ink)
        text = painter.fontMetrics().height()
        below, above = self._corners
        beneath = QRectF(frame.left(), frame.bottom() + 1, size.width() - frame.left(), text)
        painter.drawText(beneath, Qt.AlignmentFlag.AlignLeft, below)
        top = QRectF(0, frame.top() - text - 2, frame.right(), text)  # a narrow map has a wide name
        painter.drawText(top, Qt.AlignmentFlag.AlignRight, above)
        cell = frame.height() / len(self._names)
        if cell >= SMALLEST_LABEL_PX and frame.left() >= self._names_px():
            self._write_names(painter, frame, cell)
        self._draw_bar(painter, frame, style)
        if marks:
            self.draw_marks(painter, frame, style)

    def _write_names(self, painter: QPainter, frame: QRectF, cell: float) -> None:
        painter.save()
        small = painter.font()
        small.setPixelSize(int(min(max(cell - 1, SMALLEST_LABEL_PX - 1), 12)))
        painter.setFont(small)
        for row, name in enumerate(self._names):
            where = QRectF(0, frame.top() + row * cell, frame.left() - 3, cell)
            flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextDontClip
            painter.drawText(where, flags, name)
        painter.restore()

    def _draw_bar(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        line = float(painter.fontMetrics().height())
        height = min(frame.height() - line, HIGHEST_BAR_PX)
        bar = QRectF(frame.right() + BAR_GAP, frame.top() + line, BAR_PX, height)
        painter.drawImage(bar, picture(np.linspace(1, -1, LEVELS)[:, None], 1.0))
        painter.setPen(style.ink)
        flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(QRectF(bar.left(), frame.top() - 3, BAR_PX, line), flags, "r")
        end, whole = number(self._limit), self._limit >= 1
        ticks = (end if whole else f"≥ {end}", "0", f"−{end}" if whole else f"≤ −{end}")
        for place, tick in zip((0.0, 0.5, 1.0), ticks, strict=True):
            top = bar.top() + place * (bar.height() - line)  # the outer two within the bar's ends
            painter.drawText(QRectF(bar.right() + TICK_GAP, top, self._bar_px(), line), flags, tick)

    def draw_marks(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Frame the cell of the selected pair, and rule its row and column."""
        if self._marked is None or not self._names:
            return
        row, column = self._marked
        cell = frame.width() / len(self._names)
        x, y = frame.left() + column * cell, frame.top() + row * cell
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(style.marked, 1.5))
        painter.drawRect(QRectF(frame.left(), y, frame.width(), cell))
        painter.drawRect(QRectF(x, frame.top(), cell, frame.height()))

    # --- mouse -----------------------------------------------------------------------------------
    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Name the pair under the mouse."""
        if event is not None:
            self._hover(self._describe(self.pair_at(event.position())))

    def leaveEvent(self, event: QEvent | None) -> None:
        """Forget the pair that was under the mouse."""
        self._hover("")
        super().leaveEvent(event)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose the pair under the mouse."""
        pair = None if event is None else self.pair_at(event.position())
        if pair is not None:
            self.pairClicked.emit(*pair)

    def _describe(self, pair: tuple[str, str] | None) -> str:
        if pair is None:
            return ""
        row, column = (self._row_of[name] for name in pair)
        value = self._matrix[row, column]
        if np.isnan(value):
            return pair[0]
        below, above = self._corners
        what = below if row > column else above
        return f"{pair[0]} and {pair[1]}: {number(value)} {what}".rstrip()

    def _hover(self, text: str) -> None:
        if text != self._hovered:
            self._hovered = text
            self.pairHovered.emit(text)


def picture(matrix: npt.NDArray[Any], limit: float) -> QImage:
    """Return (h, w) correlations as a picture of as many pixels, whose colours end at ±`limit`."""
    from napari.utils.colormaps import ensure_colormap

    table = ensure_colormap(DIVERGING).map(np.linspace(0, 1, LEVELS))[:, :3]
    level = np.clip((np.nan_to_num(matrix) / limit + 1) / 2 * (LEVELS - 1), 0, LEVELS - 1).astype(np.int64)
    rgb = (table[level] * 255).astype(np.uint8)
    rgb[np.isnan(matrix)] = int(ABSENT * 255)
    rgb = np.ascontiguousarray(rgb)
    height, width = rgb.shape[:2]
    return QImage(rgb.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888).copy()
