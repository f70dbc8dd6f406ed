"""All draws of a gene as small maps, with their mean, truth and spread on top: what stays, what moves."""

from typing import Any, Final

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QGridLayout, QScrollArea, QVBoxLayout, QWidget

from napari_flag.matching import dense
from napari_flag.viewer.gene_map import GeneMap
from napari_flag.viewer.gene_values import Quantity
from napari_flag.viewer.joint_draws import count, layer_of
from napari_flag.viewer.thumbnails import Thumbnails, colour_table
from napari_flag.widgets.map_row import LONGEST_PX, MapButton, MapRow

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
            The gene looked at, or None.
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
            self._thumbnails = None if adata is None else Thumbnails(adata, LONGEST_PX)
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
