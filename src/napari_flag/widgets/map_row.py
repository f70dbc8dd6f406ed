"""Prediction, truth, difference and spread of one gene in a row; a click shows one large."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QAbstractButton, QHBoxLayout, QSizePolicy, QWidget

from napari_flag.viewer.gene_map import DIVERGING, GeneMap
from napari_flag.viewer.gene_values import Quantity
from napari_flag.viewer.thumbnails import Thumbnails, colour_table

SHOWN: Final = (Quantity.PREDICTED, Quantity.MEASURED, Quantity.DIFFERENCE, Quantity.SPREAD)
LONGEST_PX: Final = 200
"""Twice what a map is wide in a dock, for screens of double resolution."""
GROUND: Final = QColor(128, 128, 128, 60)
"""Behind a map; both white and black spots show on it in both themes."""
ABSENT: Final = {Quantity.SPREAD: "1 sample"}


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
    """The `Quantity` that a person wants to see large."""

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
            self._thumbnails = None if adata is None else Thumbnails(adata, LONGEST_PX)
        for quantity, button in self.buttons.items():
            reason = "" if values is None else values.why_not(quantity)
            button.setEnabled(values is not None and reason is None)
            button.setToolTip(reason or f"{quantity.meaning}\nClick to show it large.")
            if values is None or reason or gene is None or gene not in values or self._thumbnails is None:
                button.show_picture(None, ABSENT.get(quantity, "no counts") if reason else "")
                continue
            colours = DIVERGING if quantity is Quantity.DIFFERENCE else gene_map.colormap
            limits = values.limits(gene, quantity, gene_map.contrast)
            shown = self._thumbnails.paint(values.values(gene, quantity), limits, colour_table(colours))
            button.show_picture(shown)
