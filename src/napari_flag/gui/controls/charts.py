"""A scatter of genes: hover names one, a click chooses it."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QMouseEvent, QPainter, QPen
from qtpy.QtWidgets import QToolTip, QWidget

from napari_flag.gui.controls.plots import Axis, Plot, PlotStyle, axis_over, bin_edges, write_beside

REACH_PX: Final = 12.0
"""A point this near to the mouse is meant."""
POINT_PX: Final = 5.0
CHOSEN_PX: Final = 7.0
MARK_PX: Final = 9.0


class ScatterPlot(Plot):
    """Named points, with the identity line on request.

    `set_points` gives the data, `mark` the selected name, `choose` a set of names in a colour of its own.
    """

    nameHovered = Signal(str)
    """The name under the mouse, "" beside the points."""
    nameClicked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._names: tuple[str, ...] = ()
        self._row_of: dict[str, int] = {}
        self._x = self._y = np.empty(0)
        self._chosen: npt.NDArray[np.bool_] = np.empty(0, bool)
        self._identity = False
        self._marked = self._hovered = ""

    def set_points(
        self,
        x: npt.NDArray[np.floating],
        y: npt.NDArray[np.floating],
        names: Sequence[str],
        x_label: str = "",
        y_label: str = "",
        *,
        identity: bool = False,
    ) -> None:
        """Show points; those with NaN are left out.

        Parameters
        ----------
        x, y
            (n,) coordinates.
        names
            What the points are called, each once.
        x_label, y_label
            Of the axes.
        identity
            Draw the line y = x, with the same range on both axes.
        """
        seen = np.isfinite(x) & np.isfinite(y)
        self._x, self._y = np.asarray(x, float)[seen], np.asarray(y, float)[seen]
        self._names = tuple(name for name, kept in zip(names, seen, strict=True) if kept)
        self._row_of = {name: row for row, name in enumerate(self._names)}
        self._chosen = np.zeros(len(self._names), bool)
        self._identity = identity
        both = np.concatenate([self._x, self._y])
        self.x_axis = axis_over(both if identity else self._x, x_label)
        self.y_axis = axis_over(both if identity else self._y, y_label)
        self.show_message("")

    def mark(self, name: str | None) -> None:
        """Mark the selected point; None marks none."""
        if self._marked != (name or ""):
            self._marked = name or ""
            self.update()

    def choose(self, names: Iterable[str]) -> None:
        """Draw the points of `names` in the colour of the gene set."""
        chosen = np.zeros(len(self._names), bool)
        chosen[[self._row_of[name] for name in names if name in self._row_of]] = True
        if not np.array_equal(chosen, self._chosen):
            self._chosen = chosen
            self.renew()

    def name_at(self, position: QPointF) -> str:
        """Return the name of the point nearest to `position` (px of the widget), "" if none is near."""
        if not self._names or self.message:
            return ""
        frame = self.frame()
        across = frame.left() + self.x_axis.fraction(self._x) * frame.width() - position.x()
        up = frame.bottom() - self.y_axis.fraction(self._y) * frame.height() - position.y()
        apart = across**2 + up**2
        nearest = int(apart.argmin())
        return self._names[nearest] if apart[nearest] <= REACH_PX**2 else ""

    def position_of(self, name: str) -> QPointF:
        """Return where the point of `name` lies, in px of the widget."""
        row = self._row_of[name]
        return self.at(self._x[row], self._y[row], self.frame())

    # --- drawing ---------------------------------------------------------------------------------
    def draw_data(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Draw the identity line and the points, those of the gene set last."""
        if self._identity:
            low = max(self.x_axis.low, self.y_axis.low)
            high = min(self.x_axis.high, self.y_axis.high)
            painter.setPen(QPen(style.ink, 1.0, Qt.PenStyle.DashLine))
            painter.drawLine(self.at(low, low, frame), self.at(high, high, frame))
        x = frame.left() + self.x_axis.fraction(self._x) * frame.width()
        y = frame.bottom() - self.y_axis.fraction(self._y) * frame.height()
        for kept, colour, alpha, size in (
            (~self._chosen, style.point, 0.65, POINT_PX),
            (self._chosen, style.chosen, 1.0, CHOSEN_PX),
        ):
            dot = QPen(colour, size, cap=Qt.PenCapStyle.RoundCap)
            tint = dot.color()
            tint.setAlphaF(alpha)
            dot.setColor(tint)
            painter.setPen(dot)
            for across, up in zip(x[kept].tolist(), y[kept].tolist(), strict=True):
                painter.drawPoint(QPointF(across, up))

    def draw_marks(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Ring the selected point and write its name, and that under the mouse."""
        for name, colour in ((self._hovered, style.ink), (self._marked, style.marked)):
            if name not in self._row_of:
                continue
            row = self._row_of[name]
            spot = self.at(self._x[row], self._y[row], frame)
            painter.setPen(QPen(style.ground, 4.0))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(spot, MARK_PX / 2, MARK_PX / 2)
            painter.setPen(QPen(colour, 2.0))
            painter.drawEllipse(spot, MARK_PX / 2, MARK_PX / 2)
            write_beside(painter, frame, spot, name, colour, style)

    # --- mouse -----------------------------------------------------------------------------------
    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Name the point under the mouse."""
        if event is not None:
            self._hover(self.name_at(event.position()))

    def leaveEvent(self, event: QEvent | None) -> None:
        """Forget the point that was under the mouse."""
        self._hover("")
        super().leaveEvent(event)

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Choose the point under the mouse."""
        if event is not None and (name := self.name_at(event.position())):
            self.nameClicked.emit(name)

    def _hover(self, name: str) -> None:
        if name == self._hovered:
            return
        self._hovered = name
        self.setCursor(Qt.CursorShape.PointingHandCursor if name else Qt.CursorShape.ArrowCursor)
        if not name:
            QToolTip.hideText()
        self.nameHovered.emit(name)
        self.update()


class Histogram(Plot):
    """How one number is distributed over genes."""

    def __init__(self) -> None:
        super().__init__()
        self._value_of: dict[str, float] = {}
        self._edges, self._counts = np.array([0.0, 1.0]), np.zeros(1, np.int64)
        self._middle = float("nan")
        self._marked = ""

    def set_values(self, values: npt.NDArray[np.floating], names: Sequence[str], label: str = "") -> None:
        """Show (n,) `values` of `names`; NaN is left out.

        Parameters
        ----------
        values
            One number per name.
        names
            Each once.
        label
            What the number is.
        """
        numbers = np.asarray(values, float)
        self._value_of = dict(zip(names, numbers.tolist(), strict=True))
        finite = numbers[np.isfinite(numbers)]
        self._edges = bin_edges(finite)
        self._counts, _ = np.histogram(finite, self._edges)
        self._middle = float(np.median(finite)) if finite.size else float("nan")
        self.x_axis = Axis(float(self._edges[0]), float(self._edges[-1]), label)
        self.y_axis = Axis(0.0, 1.05 * max(int(self._counts.max()), 1), "genes")
        self.show_message("")

    def mark(self, name: str | None) -> None:
        """Draw a line at the number of `name`; None draws none."""
        if self._marked != (name or ""):
            self._marked = name or ""
            self.update()

    def draw_data(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Draw the bars, and a dashed line at the median."""
        painter.setPen(QPen(style.ground, 1.0))
        painter.setBrush(style.point)
        for left, right, count in zip(
            self._edges[:-1].tolist(), self._edges[1:].tolist(), self._counts.tolist(), strict=True
        ):
            if count:
                top, foot = self.at(left, count, frame), self.at(right, 0.0, frame)
                painter.drawRect(QRectF(top, foot))
        if np.isfinite(self._middle):
            self._line(painter, frame, self._middle, QPen(style.ink, 1.0, Qt.PenStyle.DashLine))

    def draw_marks(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Draw the line of the selected gene, and write its name."""
        value = self._value_of.get(self._marked, float("nan"))
        if not np.isfinite(value):
            return
        top = self._line(painter, frame, value, QPen(style.marked, 2.0))
        write_beside(painter, frame, top, self._marked, style.marked, style)

    def _line(self, painter: QPainter, frame: QRectF, value: float, pen: QPen) -> QPointF:
        painter.setPen(pen)
        top = self.at(value, self.y_axis.high, frame)
        painter.drawLine(top, QPointF(top.x(), frame.bottom()))
        return top
