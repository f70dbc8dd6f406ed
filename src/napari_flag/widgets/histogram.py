"""A histogram of one number per gene, with a line at the selected gene."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QPainter, QPen

from napari_flag.viewer.plot_axes import Axis, bin_edges
from napari_flag.widgets.plots import Plot, PlotStyle, write_beside


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
