"""The FLAG area: the slides of the viewer, and one page for each thing to do with the slide that is shown."""

from importlib import import_module
from typing import Any, Final

import napari.viewer
from qtpy.QtGui import QCloseEvent, QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QGridLayout,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_flag.gui import reader
from napari_flag.gui.controls.forms import dropped_paths
from napari_flag.gui.controls.gl_context import spare_loaded, spare_no_longer
from napari_flag.gui.dock import Dock, Docked
from napari_flag.gui.keeping import CloseQuestion
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.gui.reader import AREA as AREA
from napari_flag.gui.session import Session
from napari_flag.gui.settings import PLUGIN
from napari_flag.gui.side_by_side_dock import open_second_canvas
from napari_flag.gui.slide_list import SlideList

SIDE_BY_SIDE: Final = "Side by side"
PREDICT: Final = "Predict"
PAGES: Final = {
    PREDICT: ("Slide, spots and model, and Predict expression", "predict.predict_dock:PredictDock"),
    "Genes": ("Find a gene, and choose how it is drawn", "genes_dock:GenesDock"),
    "Regions": (
        "Draw or find regions; which genes tell them apart",
        "regions.regions_dock:RegionsDock",
    ),
    "Compare": ("Scores against measured expression", "compare_dock:CompareDock"),
    "Spatial": ("Where each gene clusters: Moran's I", "spatial_dock:SpatialDock"),
    "Co-expression": ("Which genes go together", "coexpression_dock:CoexpressionDock"),
    "Samples": ("Joint draws: what is sure and what is not", "samples_dock:SamplesDock"),
}
"""Name on the switcher → what it is for, and the dock's class."""
COLUMNS: Final = 4
STYLE: Final = "QPushButton { padding: 3px 1px; } QPushButton:checked { background: #3b74b8; color: white; }"


class Switcher(QWidget):
    """A button for each page, and one for the second canvas."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(2)
        group = QButtonGroup(self)
        self.buttons: dict[str, QPushButton] = {}
        tips = {**{name: tip for name, (tip, _) in PAGES.items()}, SIDE_BY_SIDE: _SIDE_TIP}
        for place, (name, tip) in enumerate(tips.items()):
            button = QPushButton(name)
            button.setStyleSheet(STYLE)
            button.setToolTip(tip)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.setCheckable(name != SIDE_BY_SIDE)
            if name != SIDE_BY_SIDE:
                group.addButton(button)
            grid.addWidget(button, place // COLUMNS, place % COLUMNS)
            self.buttons[name] = button


_SIDE_TIP: Final = "A second canvas: prediction beside measurement, or the same gene on other slides"


class FlagArea(Docked):
    """One dock for all: list of slides, switcher, and the page chosen; a page is made when first shown.

    Parameters
    ----------
    napari_viewer
        The viewer to work in.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        self.stack = QStackedWidget()
        self.predict = PredictDock(napari_viewer)
        self.pages: dict[str, Dock] = {PREDICT: self.predict}
        self.stack.addWidget(self.predict)
        self.slides = SlideList(self.session, self.predict)
        self.switcher = Switcher()
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 4)
        box.setSpacing(4)
        box.addWidget(self.slides)
        box.addWidget(self.switcher)
        box.addWidget(self.stack, 1)
        for name, button in self.switcher.buttons.items():
            if name != SIDE_BY_SIDE:
                button.clicked.connect(lambda _=False, name=name: self.show_page(name))
        self.switcher.buttons[SIDE_BY_SIDE].clicked.connect(self.show_side_by_side)
        self.predict.run_panel.genesRequested.connect(lambda: self.show_page("Genes"))
        self.predict.resultOpened.connect(lambda: self.show_page("Genes"))
        self.switcher.buttons[PREDICT].setChecked(True)
        self.setMinimumWidth(375)
        self.setAcceptDrops(True)
        viewer, opener = self.session.viewer, self.predict.opener
        self._undo = [reader.register(viewer, opener)]
        if getattr(viewer, "window", None) is not None:
            self._undo += [
                reader.DropTarget(viewer, opener).remove,
                CloseQuestion(viewer, self.session, self.predict.keeper).remove,
            ]
            if not self.session.workspace.slides:  # whose predictions are to be freed some day
                spare_loaded(viewer, again=True)
            self._undo.append(spare_no_longer)
            viewer.window._qt_window.destroyed.connect(spare_no_longer)

    @property
    def page(self) -> str:
        """The name of the page that is shown."""
        return next(name for name, page in self.pages.items() if page is self.stack.currentWidget())

    def show_page(self, name: str) -> Dock:
        """Show a page by its name on the switcher, and return its dock."""
        if name not in self.pages:
            module, cls = PAGES[name][1].split(":")
            self.pages[name] = getattr(import_module(f"napari_flag.gui.{module}"), cls)(self.session.viewer)
            self.stack.addWidget(self.pages[name])
        for other, page in self.pages.items():
            if other != name:
                page.set_awake(False)
        self.pages[name].set_awake(True)
        self.stack.setCurrentWidget(self.pages[name])
        self.switcher.buttons[name].setChecked(True)
        return self.pages[name]

    def show_side_by_side(self) -> None:
        """Open the second canvas beside the first."""
        open_second_canvas(self.session.viewer, self)

    # --- drops on the area itself ----------------------------------------------------------------
    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files and folders of this computer."""
        if event is not None and dropped_paths(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open what is dropped."""
        if event is not None:
            event.acceptProposedAction()
            self.predict.opener.open(dropped_paths(event))

    # --- closing ---------------------------------------------------------------------------------
    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Close all pages; the results stay with the viewer, and what waits to be kept is kept."""
        self.predict.keeper.hand_over()
        while self._undo:
            self._undo.pop()()
        for page in self.pages.values():
            page.close()
        self.slides.close()
        super().closeEvent(event)


def open_area(viewer: Any, page: str = PREDICT) -> FlagArea:
    """Open the FLAG area of a viewer, or the one it has, on a page."""
    dock, area = viewer.window.add_plugin_dock_widget(PLUGIN, AREA)
    dock.show()
    dock.raise_()
    found: FlagArea = getattr(area, "__wrapped__", area)  # napari hands plugins a wrapped widget
    found.show_page(page)
    return found


def open_genes(viewer: napari.viewer.Viewer) -> None:
    """Open the Genes page, as the menu asks."""
    open_area(_real(viewer), "Genes")


def open_regions(viewer: napari.viewer.Viewer) -> None:
    """Open the Regions page."""
    open_area(_real(viewer), "Regions")


def open_compare(viewer: napari.viewer.Viewer) -> None:
    """Open the Compare page."""
    open_area(_real(viewer), "Compare")


def open_spatial(viewer: napari.viewer.Viewer) -> None:
    """Open the Spatial page."""
    open_area(_real(viewer), "Spatial")


def open_coexpression(viewer: napari.viewer.Viewer) -> None:
    """Open the Co-expression page."""
    open_area(_real(viewer), "Co-expression")


def open_samples(viewer: napari.viewer.Viewer) -> None:
    """Open the Samples page."""
    open_area(_real(viewer), "Samples")


def _real(viewer: Any) -> Any:
    return getattr(viewer, "__wrapped__", viewer)
