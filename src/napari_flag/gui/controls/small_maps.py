"""Prediction, truth, difference and spread of one gene in a row; a click shows one large."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import (
    QAbstractButton,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_flag.analysis.draws import count
from napari_flag.analysis.truth import dense
from napari_flag.layers.gene_map import DIVERGING, GeneMap
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.raster import Thumbnails, colour_table
from napari_flag.prediction_file import layer_of

SHOWN: Final = (Quantity.PREDICTED, Quantity.MEASURED, Quantity.DIFFERENCE, Quantity.SPREAD)
GROUND: Final = QColor(128, 128, 128, 60)
"""Behind a map; both white and black spots show on it in both themes."""
ABSENT: Final = {Quantity.SPREAD: "not stated"}


class MapButton(QAbstractButton):
    """A small map under its name; framed while it is the one shown large."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setText(title)
        self.setCheckable(True)
        self.setMinimumSize(60, 70)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(f"Show {title.lower()}")
        self._picture: QImage | None = None
        self._absent = ""

    def sizeHint(self) -> QSize:
        """Return the size of a map that lets four stand in a dock."""
        return QSize(90, 104)

    def show_picture(self, rgba: npt.NDArray[np.uint8] | None, absent: str = "") -> None:
        """Show an (h, w, 4) uint8 picture, or say in two words why there is none."""
        self._absent = absent
        if rgba is None:
            self._picture = None
        else:
            whole = np.ascontiguousarray(rgba)
            height, width = whole.shape[:2]
            self._picture = QImage(
                whole.tobytes(), width, height, 4 * width, QImage.Format.Format_RGBA8888
            ).copy()
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw name, map and frame."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        if not self.isEnabled():
            ink.setAlpha(120)
        painter.setPen(ink)
        line = painter.fontMetrics().height()
        painter.drawText(QRect(0, 0, self.width(), line), Qt.AlignmentFlag.AlignCenter, self.text())
        room = QRect(3, line + 2, self.width() - 6, self.height() - line - 5)
        if self._picture is None:
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self._absent)
        else:
            painter.fillRect(room, GROUND)
            painter.drawImage(_fitted(self._picture.size(), room), self._picture)
        if self.isChecked() or self.hasFocus():
            painter.setPen(QColor("#e69f00") if self.isChecked() else ink)
            painter.drawRect(room.adjusted(-2, -2, 1, 1))
        painter.end()


def _fitted(size: QSize, room: QRect) -> QRect:
    fitted = size.scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio)
    left = room.left() + (room.width() - fitted.width()) // 2
    top = room.top() + (room.height() - fitted.height()) // 2
    return QRect(left, top, fitted.width(), fitted.height())


class MapRow(QWidget):
    """Small maps of the gene that a `GeneMap` shows, with its limits and colours.

    Parameters
    ----------
    shown
        What of the gene, from left to right.
    """

    chosen = Signal(object)
    """The `Quantity` that the user wants to see large."""

    def __init__(self, shown: Sequence[Quantity] = SHOWN) -> None:
        super().__init__()
        self.buttons: dict[Quantity, MapButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for quantity in shown:
            button = MapButton(quantity.value.capitalize())
            button.clicked.connect(lambda _, wanted=quantity: self.chosen.emit(wanted))
            self.buttons[quantity] = button
            row.addWidget(button)
        self._drawn: Any = None
        self._painted: tuple[Any, ...] = ()
        self._thumbnails: Thumbnails | None = None

    def show_gene(self, gene_map: GeneMap, gene: str | None) -> None:
        """Paint `gene` of what `gene_map` draws; None clears the maps."""
        values = gene_map.values
        for quantity, button in self.buttons.items():
            button.setChecked(values is not None and quantity is gene_map.quantity)
        painted = (values, gene, gene_map.contrast, gene_map.colormap)
        if painted != self._painted:  # a choice of another quantity leaves the small maps as they are
            self._painted = painted
            self._paint(gene_map, gene)

    def _paint(self, gene_map: GeneMap, gene: str | None) -> None:
        values = gene_map.values
        adata = None if values is None else values.adata
        if adata is not self._drawn:
            self._drawn = adata
            self._thumbnails = None if adata is None else Thumbnails.of(adata)
        for quantity, button in self.buttons.items():
            reason = "" if values is None else values.why_not(quantity)
            button.setEnabled(values is not None and reason is None)
            unit = "" if values is None else f"In {values.unit(quantity)}.\n"
            button.setToolTip(reason or f"{quantity.meaning}\n{unit}Click to show it large.")
            if values is None or reason or gene is None or gene not in values or self._thumbnails is None:
                button.show_picture(None, ABSENT.get(quantity, "no counts") if reason else "")
                continue
            colours = DIVERGING if quantity is Quantity.DIFFERENCE else gene_map.colormap
            limits = values.limits(gene, quantity, gene_map.contrast)
            shown = self._thumbnails.paint(values.values(gene, quantity), limits, colour_table(colours))
            button.show_picture(shown)


IN_A_ROW: Final = 4
TOP: Final = (Quantity.PREDICTED, Quantity.MEASURED, Quantity.SPREAD)


class DrawSheet(QWidget):
    """Small maps; one of the draws, or of what stands on top, is shown large."""

    drawChosen = Signal(int)
    """The number of a draw, from 1."""
    quantityChosen = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.top = MapRow(TOP)
        self.top.chosen.connect(self.quantityChosen)
        self.draws: list[MapButton] = []
        inner = QWidget()
        self._grid = QGridLayout(inner)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(2)
        self._grid.setAlignment(Qt.AlignmentFlag.AlignTop)
        for column in range(IN_A_ROW):
            self._grid.setColumnStretch(column, 1)
        scroll = QScrollArea()
        scroll.setWidget(inner)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setMinimumHeight(110)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(3)
        box.addWidget(self.top)
        box.addWidget(scroll, 1)
        self._adata: Any = None
        self._painted: tuple[Any, ...] = ()
        self._thumbnails: Thumbnails | None = None

    def show_gene(self, gene_map: GeneMap, gene: str | None, current: int) -> None:
        """Paint `gene` in every draw, with the limits and colours of `gene_map`.

        Parameters
        ----------
        gene_map
            What draws the large map.
        gene
            The gene shown, or None.
        current
            Number of the draw shown large, 0 for none.
        """
        self.top.show_gene(gene_map, gene)
        values = gene_map.values
        there = 0 if values is None else count(values.adata)
        self._have(there)
        for number, button in enumerate(self.draws, start=1):
            button.setChecked(number == current)
        painted = (values, gene, gene_map.contrast, gene_map.colormap, there)
        if painted != self._painted:
            self._painted = painted
            self._paint(gene_map, gene)

    def _paint(self, gene_map: GeneMap, gene: str | None) -> None:
        values = gene_map.values
        adata = None if values is None else values.adata
        if adata is not self._adata:
            self._adata = adata
            self._thumbnails = None if adata is None else Thumbnails.of(adata)
        if values is None or gene is None or gene not in values or self._thumbnails is None:
            for button in self.draws:
                button.show_picture(None)
            return
        layers, column = values.adata.layers, [values.genes.index(gene)]  # anndata checks all when asked for
        limits = values.limits(gene, Quantity.SAMPLE, gene_map.contrast)
        colours = colour_table(gene_map.colormap)
        for number, button in enumerate(self.draws, start=1):
            drawn = dense(layers[layer_of(number)][:, column])[:, 0].astype(np.float32)
            button.show_picture(self._thumbnails.paint(drawn, limits, colours))

    def _have(self, wanted: int) -> None:
        """Have one button for each draw."""
        while len(self.draws) > wanted:
            button = self.draws.pop()
            self._grid.removeWidget(button)
            button.deleteLater()
        while len(self.draws) < wanted:
            number = len(self.draws) + 1
            button = MapButton(f"Draw {number}")
            button.setToolTip("One joint draw; click to show it large")
            button.clicked.connect(lambda _, chosen=number: self.drawChosen.emit(chosen))
            self._grid.addWidget(button, (number - 1) // IN_A_ROW, (number - 1) % IN_A_ROW)
            self.draws.append(button)
