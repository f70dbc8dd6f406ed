"""Plots of genes in docks, drawn with QPainter: axes, scatter, histogram, and saving what is shown."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QEvent, QPointF, QRect, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QPixmap,
    QResizeEvent,
)
from qtpy.QtSvg import QSvgGenerator
from qtpy.QtWidgets import QFileDialog, QSizePolicy, QWidget

from napari_flag.figures.gene_figure import check_format
from napari_flag.files import check_writable, ending, replacing, unwritable
from napari_flag.formatting import number
from napari_flag.gui.controls.file_filters import FIGURE_FILES
from napari_flag.gui.controls.forms import may_replace

FloatArray = npt.NDArray[np.float64]

STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances between ticks that people read easily, times a power of ten."""

MARGIN: Final = 0.05
"""Share of the range left free at either end, so that no point lies on the frame."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a plot.

    Parameters
    ----------
    low, high
        Numbers at its ends, low < high.
    label
        What it shows, with the unit.
    """

    low: float = 0.0
    high: float = 1.0
    label: str = ""

    def fraction(self, values: Any) -> FloatArray:
        """Return where `values` lie between the ends: 0 at `low`, 1 at `high`."""
        return (np.asarray(values, np.float64) - self.low) / (self.high - self.low)

    def ticks(self, most: int = 5) -> tuple[tuple[float, str], ...]:
        """Return (number, text) of at most `most` + 1 ticks inside the axis."""
        return ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int = 5) -> tuple[tuple[float, str], ...]:
    """Return (number, text) of round numbers between `low` and `high`."""
    about = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(about))
    step = next(power * s for s in STEPS if power * s >= about * (1 - 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if step / power == 2.5:
        digits += 1
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((k * step, number(k * step, digits)) for k in range(first, last + 1))


def axis_over(values: FloatArray, label: str = "", *, margin: float = MARGIN) -> Axis:
    """Return an axis with room for all finite `values`."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Axis(label=label)
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5, high + 0.5
    room = margin * (high - low)
    return Axis(low - room, high + room, label)


def bin_edges(values: FloatArray, most: int = 30) -> FloatArray:
    """Return edges of bins of one round width that hold all finite `values`; at most `most` + 1 bins."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.array([0.0, 1.0])
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    marks = ticks(low, high, most)
    step = marks[1][0] - marks[0][0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    edges: FloatArray = np.arange(first, last + 1, dtype=np.float64) * step
    return edges


PNG_SCALE: Final = 3
"""Pixels of the file per pixel on the screen: about 300 dpi for a plot printed as wide as it looks."""


def save_drawing(path: Path, size: QSize, draw: Callable[[QPainter], None]) -> Path:
    """Write what `draw` paints on white paper of `size` px to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, or the file cannot be written.
    """
    check_format(path)
    check_writable(path)
    with replacing(path) as place:
        written = _save_png(place, size, draw) if ending(path) == ".png" else _save_svg(place, size, draw)
        if not written:
            raise unwritable(path, OSError("Qt could not write a picture"))
    return path


def _save_png(place: Path, size: QSize, draw: Callable[[QPainter], None]) -> bool:
    image = QImage(size * PNG_SCALE, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(PNG_SCALE)
    image.fill(QColor("white"))
    painter = QPainter(image)
    draw(painter)
    painter.end()
    return bool(image.save(str(place), "PNG"))


def _save_svg(place: Path, size: QSize, draw: Callable[[QPainter], None]) -> bool:
    generator = QSvgGenerator()
    generator.setFileName(str(place))
    generator.setSize(size)
    generator.setViewBox(QRect(0, 0, size.width(), size.height()))
    painter = QPainter()
    if not place.parent.is_dir() or not painter.begin(generator):
        return False
    painter.fillRect(QRect(0, 0, size.width(), size.height()), QColor("white"))
    draw(painter)
    return bool(painter.end())


def ask_figure_path(parent: QWidget, suggested: str) -> Path | None:
    """Ask where to save a figure, as `forms.ask_save`; a name without ending gets that of the kind chosen."""
    name, chosen = QFileDialog.getSaveFileName(parent, "Save figure", suggested, FIGURE_FILES)
    if not name:
        return None
    typed = Path(name)
    path = typed if typed.suffix else typed.with_suffix(".svg" if "svg" in chosen else ".png")
    return path if path == typed or may_replace(parent, path) else None


LEFT, BOTTOM, TOP, RIGHT = 46, 34, 8, 12
"""Room in px around the axes for ticks and labels."""


@dataclass(frozen=True, slots=True)
class PlotStyle:
    """Colours of a plot; points and marks are of the Okabe–Ito palette, apart for all eyes.

    Parameters
    ----------
    ground, ink, faint
        Background, text and axes, grid lines.
    point, chosen, marked
        Ordinary points or bars, those of the gene set, and the selected gene.
    """

    ground: QColor
    ink: QColor
    faint: QColor
    point: QColor
    chosen: QColor
    marked: QColor

    @classmethod
    def of(cls, palette: QPalette) -> "PlotStyle":
        """Return the style that reads well on the window colour of `palette`."""
        ground = palette.color(QPalette.ColorRole.Window)
        return cls.on(ground, dark=ground.lightness() < 128)

    @classmethod
    def on(cls, ground: QColor, *, dark: bool) -> "PlotStyle":
        """Return the style for a dark or light `ground`."""
        ink = QColor("#e6e6e6") if dark else QColor("#222222")
        faint = QColor(255, 255, 255, 34) if dark else QColor(0, 0, 0, 26)
        point = QColor("#56b4e9") if dark else QColor("#0072b2")
        return cls(ground, ink, faint, point, QColor("#cc79a7"), QColor("#e69f00" if dark else "#d55e00"))

    @classmethod
    def paper(cls) -> "PlotStyle":
        """Return the style of saved figures: white paper."""
        return cls.on(QColor("white"), dark=False)


class Plot(QWidget):
    """What all plots share: axes, a sentence instead of data, hovering, and saving.

    A subclass draws its data in `draw_data` and what changes with the selection in `draw_marks`.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.x_axis, self.y_axis = Axis(), Axis()
        self.message = ""
        self._kept: QPixmap | None = None
        self.setMouseTracking(True)
        self.setMinimumSize(140, 110)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        """Return the size of a plot that fits a dock."""
        return QSize(280, 220)

    # --- for subclasses --------------------------------------------------------------------------
    def draw_data(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Draw points or bars inside `frame`."""

    def draw_marks(self, painter: QPainter, frame: QRectF, style: PlotStyle) -> None:
        """Draw what changes with the selection."""

    def show_message(self, text: str) -> None:
        """Show a sentence instead of data; "" shows the data again."""
        self.message = text
        self.setAccessibleDescription(text)
        self.renew()

    def renew(self) -> None:
        """Draw everything anew, after the data changed."""
        self._kept = None
        self.update()

    def frame(self, size: QSize | None = None) -> QRectF:
        """Return the rectangle between the axes, in px of the widget."""
        size = size or self.size()
        return QRectF(LEFT, TOP, max(size.width() - LEFT - RIGHT, 10), max(size.height() - TOP - BOTTOM, 10))

    def at(self, x: float, y: float, frame: QRectF) -> QPointF:
        """Return where the point (`x`, `y`) lies."""
        across, up = float(self.x_axis.fraction(x)), float(self.y_axis.fraction(y))
        return QPointF(frame.left() + across * frame.width(), frame.bottom() - up * frame.height())

    # --- drawing ---------------------------------------------------------------------------------
    def draw(self, painter: QPainter, size: QSize, style: PlotStyle, *, marks: bool = True) -> None:
        """Draw the whole plot at `size`."""
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        frame = self.frame(size)
        if self.message:
            painter.setPen(style.ink)
            rect = QRectF(8, 0, size.width() - 16, size.height())
            painter.drawText(rect, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self.message)
            return
        draw_axes(painter, frame, self.x_axis, self.y_axis, style)
        painter.save()
        painter.setClipRect(frame.adjusted(-4, -4, 4, 4))
        self.draw_data(painter, frame, style)
        painter.restore()
        if marks:
            self.draw_marks(painter, frame, style)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Paint the kept picture and the marks over it."""
        style = PlotStyle.of(self.palette())
        if self._kept is None:
            ratio = self.devicePixelRatioF()
            self._kept = QPixmap(self.size() * ratio)
            self._kept.setDevicePixelRatio(ratio)
            self._kept.fill(QColor(0, 0, 0, 0))
            painter = QPainter(self._kept)
            painter.setFont(self.font())
            self.draw(painter, self.size(), style, marks=False)
            painter.end()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._kept)
        if not self.message:
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            self.draw_marks(painter, self.frame(), style)
        painter.end()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Draw anew at the new size."""
        self._kept = None
        super().resizeEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:
        """Draw anew in the colours of another theme."""
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            self.renew()
        super().changeEvent(event)

    def save(self, path: Path, size: QSize | None = None) -> Path:
        """Write the plot on white to `path` (.png or .svg) and return it.

        Raises
        ------
        UserError
            When the format is another, or the folder cannot be written.
        """
        size = size or self.size()
        save_drawing(path, size, lambda painter: self.draw(painter, size, PlotStyle.paper()))
        return path


def draw_axes(painter: QPainter, frame: QRectF, x_axis: Axis, y_axis: Axis, style: PlotStyle) -> None:
    """Draw two axes with ticks, labels and a faint grid."""
    small = painter.font()
    small.setPointSizeF(max(small.pointSizeF() - 1.0, 6.5))
    painter.setFont(small)
    height = painter.fontMetrics().height()
    grid, ink = QPen(style.faint, 1.0), QPen(style.ink, 1.0)
    for value, text in x_axis.ticks(max(2, int(frame.width() // 55))):
        x = frame.left() + float(x_axis.fraction(value)) * frame.width()
        painter.setPen(grid)
        painter.drawLine(QPointF(x, frame.top()), QPointF(x, frame.bottom()))
        painter.setPen(ink)
        painter.drawText(QRectF(x - 30, frame.bottom() + 2, 60, height), Qt.AlignmentFlag.AlignHCenter, text)
    for value, text in y_axis.ticks(max(2, int(frame.height() // 35))):
        y = frame.bottom() - float(y_axis.fraction(value)) * frame.height()
        painter.setPen(grid)
        painter.drawLine(QPointF(frame.left(), y), QPointF(frame.right(), y))
        painter.setPen(ink)
        where = QRectF(frame.left() - 50, y - height / 2, 46, height)
        painter.drawText(where, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, text)
    painter.drawLine(frame.bottomLeft(), frame.bottomRight())
    painter.drawLine(frame.bottomLeft(), frame.topLeft())
    below = QRectF(frame.left() - LEFT, frame.bottom() + 2 + height, frame.width() + LEFT + RIGHT, height)
    painter.drawText(below, Qt.AlignmentFlag.AlignCenter, x_axis.label)
    painter.save()
    painter.rotate(-90)
    beside = QRectF(-frame.bottom() - BOTTOM, 0, frame.height() + BOTTOM + TOP, height)
    painter.drawText(beside, Qt.AlignmentFlag.AlignCenter, y_axis.label)
    painter.restore()


def write_beside(
    painter: QPainter, frame: QRectF, spot: QPointF, text: str, colour: QColor, style: PlotStyle
) -> None:
    """Write `text` beside `spot`, inside `frame`, on ground of its own so that points do not cross it."""
    metrics = painter.fontMetrics()
    width, height = metrics.horizontalAdvance(text) + 6, metrics.height()
    right = spot.x() + 8
    left = right if right + width < frame.right() else spot.x() - 8 - width
    top = min(max(spot.y() - height - 2, frame.top()), frame.bottom() - height)
    box = QRectF(left, top, width, height)
    ground = QColor(style.ground)
    ground.setAlpha(215)
    painter.fillRect(box, ground)
    painter.setPen(colour)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)


REACH_PX: Final = 12.0
"""A point this near to the mouse is meant."""
POINT_PX: Final = 5.0
CHOSEN_PX: Final = 7.0
MARK_PX: Final = 9.0


class ScatterPlot(Plot):
    """Named points, with the identity line on request.

    `set_points` gives the data, `mark` the selected name, `choose` a set of names in a colour of its own.
    """

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
