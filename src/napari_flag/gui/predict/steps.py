"""Step 1 of the main dock: which slide, and how large its pixels are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QStackedWidget,
    QWidget,
)

from napari_flag.gui.controls.forms import READY, FileField, StepBox, narrow, plain_label
from napari_flag.inputs import Grid

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots, SpotTable


SLIDE_FILES: Final = (
    "Slides and images (*.svs *.tif *.tiff *.ndpi *.mrxs *.scn *.vms *.vmu *.bif *.dcm *.svslide "
    "*.jpg *.jpeg *.png);;All files (*)"
)
NO_SLIDE: Final = "No slide open"


class SlideStep(StepBox):
    """Shows the open slides and asks for a file; says what is known of the chosen slide.

    It only emits what the person wants; the dock opens slides and answers with `set_slides` and
    `show_slide`.
    """

    slideChosen = Signal(object)  # the key given to set_slides
    fileChosen = Signal(object)  # Path
    mppSet = Signal(float)
    estimateRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(1, "Slide", parent)
        self.choice = narrow(QComboBox())
        self.choice.setToolTip("The slide to predict on: a slide open in the viewer")
        self.choice.setAccessibleName("Slide")
        self.choice.activated.connect(self._on_activated)
        self.open = QPushButton("Open…")
        self.open.setToolTip(
            "Open a slide file: SVS, NDPI, MRXS, TIFF, OME-TIFF, DICOM, JPEG or PNG.\n"
            "A file without a pyramid gets one in the cache the first time."
        )
        self.open.clicked.connect(self._ask_for_file)
        self.info = plain_label("Open an H&E slide, or choose one that is open in the viewer.")
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.0, 100.0)
        self.mpp.setSingleStep(0.01)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setSpecialValueText("µm/px unknown")
        self.mpp.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.mpp.setKeyboardTracking(False)
        self.mpp.setAccessibleName("Micrometres per pixel")
        self.mpp.setToolTip(
            "How many µm one pixel of the full-resolution slide is wide.\n"
            "Read from the file where it states it; otherwise type it here (0: unknown)."
        )
        self.mpp.valueChanged.connect(self._on_mpp)
        self.source = plain_label()
        self.estimate = QPushButton("Estimate")
        self.estimate.setToolTip(
            "Fit the array's lattice to the spots of step 2, whose distance in µm is known"
        )
        self.estimate.clicked.connect(self.estimateRequested)
        self.head.addWidget(self.choice, 1)
        self.head.addWidget(self.open)
        bottom = QHBoxLayout()
        bottom.addWidget(self.mpp)
        bottom.addWidget(self.source, 1)
        bottom.addWidget(self.estimate)
        self.body.addWidget(self.info)
        self.body.addLayout(bottom)
        self.set_slides([], None)
        self.show_slide(None)

    def set_slides(self, slides: list[tuple[str, Any]], current: Any) -> None:
        """List the open slides as (name, key) and select the one whose key is `current`."""
        self.choice.blockSignals(True)
        self.choice.clear()
        if not slides:
            self.choice.addItem(NO_SLIDE, None)
        elif current is None:
            self.choice.addItem("Choose an open slide…", None)
        for name, key in slides:
            self.choice.addItem(name, key)
            if key is current:
                self.choice.setCurrentIndex(self.choice.count() - 1)
        self.choice.setEnabled(bool(slides))
        self.choice.blockSignals(False)

    def show_slide(self, slide: "Slide | None") -> None:
        """Show size, µm/px with its source, and what is doubtful about it."""
        from napari_flag.slides.resolution import check_mpp

        self.messages.clear()
        for widget in (self.mpp, self.source, self.info):
            widget.setEnabled(slide is not None)
        self.mpp.blockSignals(True)
        self.mpp.setValue(0.0 if slide is None or slide.mpp is None else slide.mpp)
        self.mpp.blockSignals(False)
        if slide is None:
            self.info.setText("Open an H&E slide, or choose one that is open in the viewer.")
            self.source.setText("")
            self.set_state("")
            return
        self.info.setText(describe_slide(slide))
        self.source.setText(slide.mpp_source if slide.mpp else "not stated in the file")
        self.set_state(READY if slide.mpp else "µm/px needed")
        for notice in slide.notices:
            self.messages.add("notice", notice)
        if slide.mpp is None:
            self.messages.add(
                "warning",
                "The file does not state its µm/px; type it above, or read a spot table in step 2 "
                "and press Estimate.",
            )
        elif doubt := check_mpp(slide.mpp):
            self.messages.add("warning", doubt)

    def allow_estimate(self, why_not: str | None) -> None:
        """Enable Estimate, or say in its tooltip why it cannot be used."""
        self.estimate.setEnabled(why_not is None)
        self.estimate.setToolTip(
            why_not or "Fit the array's lattice to the spots of step 2, whose distance in µm is known"
        )

    def _ask_for_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open slide", "", SLIDE_FILES)
        if name:
            self.fileChosen.emit(Path(name))

    def _on_activated(self, index: int) -> None:
        key = self.choice.itemData(index)
        if key is not None:
            self.slideChosen.emit(key)

    def _on_mpp(self, value: float) -> None:
        if value > 0:
            self.mppSet.emit(value)


def describe_slide(slide: "Slide") -> str:
    """Return "9272 × 9920 px · 6.3 × 6.8 mm · 5 levels"."""
    width, height = slide.size
    parts = [f"{width:,} × {height:,} px"]
    if slide.mpp:
        parts.append(f"{width * slide.mpp / 1000:.1f} × {height * slide.mpp / 1000:.1f} mm")
    n_levels = len(slide.levels)
    parts.append("1 level" if n_levels == 1 else f"{n_levels} levels")
    return " · ".join(parts)


GRID, TABLE = 0, 1
SETTLE_MS: Final = 400
"""A grid is laid again this long after the last change, so that typing does not lay many."""
TABLE_FILES: Final = "Spot tables (*.tsv *.csv *.txt *.tsv.gz *.csv.gz *.h5ad *.parquet *.h5);;All files (*)"
MEASURED_FILES: Final = "Measured expression (*.h5ad *.tsv *.tsv.gz *.csv *.csv.gz *.h5);;All files (*)"


class SpotsStep(StepBox):
    """Asks for a spot table or a grid, and optionally for measured expression."""

    tableChosen = Signal(object)  # Path
    gridChanged = Signal()
    measuredChosen = Signal(object)  # Path, or None when taken away
    cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(2, "Spots", parent)
        self.origin = narrow(QComboBox())
        self.origin.addItems(["Grid of spots", "From a table or folder"])
        self.origin.setAccessibleName("Where the spots come from")
        self.origin.setToolTip(
            "A regular grid, or the spots of a real array:\n"
            "Space Ranger folder, legacy ST table, HEST-1k or AnnData h5ad"
        )
        self.table = FileField(
            "Spot table", TABLE_FILES, folders=True, placeholder="table, h5ad or Visium folder"
        )
        self.table.setToolTip(
            "Legacy ST selection table (.tsv), Space Ranger output folder (v1 or v2), HEST-1k or "
            "AnnData .h5ad; may also be dropped here"
        )
        self.measured = FileField(
            "Measured expression", MEASURED_FILES, folders=True, placeholder="optional, to compare"
        )
        self.measured.setToolTip(
            "Raw counts of the same spots (h5ad, Space Ranger folder, legacy ST .tsv), matched by "
            "spot id;\nonly for comparison, the prediction never sees them"
        )
        self._pages = QStackedWidget()
        self._pages.addWidget(self._grid_page())
        self._pages.addWidget(self._table_page())
        self.summary = plain_label("No spots yet.")
        self.head.addWidget(self.origin, 1)
        self.body.addWidget(self._pages)
        self.body.addWidget(self.summary)
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.gridChanged)
        self._touched = False
        self.origin.currentIndexChanged.connect(self._on_origin)
        self.table.pathChosen.connect(lambda path: path and self.tableChosen.emit(path))
        self.measured.pathChosen.connect(self.measuredChosen)
        self.lattice.currentIndexChanged.connect(self._on_grid_edited)
        self.area.currentIndexChanged.connect(self._settle.start)
        self.pitch.valueChanged.connect(self._on_grid_edited)
        self.diameter.valueChanged.connect(self._on_grid_edited)
        self._fit_page()

    def _grid_page(self) -> QWidget:
        page = QWidget()
        form = _form(page)
        self.area = narrow(QComboBox())
        self.area.setToolTip("Over all detected tissue, or only inside regions drawn as Shapes")
        self.area.setAccessibleName("Area of the grid")
        self.lattice = narrow(QComboBox())
        self.lattice.addItem("hex", "hex")
        self.lattice.addItem("square", "square")
        self.lattice.setToolTip("Hexagonal as Visium arrays, or square as legacy ST arrays")
        self.lattice.setAccessibleName("Lattice")
        self.pitch = _um_box("Pitch: distance between the centres of neighbouring spots, in µm")
        self.diameter = _um_box("Ø: diameter of a spot, in µm")
        self.pitch.setPrefix("pitch ")
        self.diameter.setPrefix("Ø ")
        self.pitch.setFixedWidth(106)
        self.diameter.setFixedWidth(84)
        self.pitch.setValue(200.0)
        self.diameter.setValue(100.0)
        row = QHBoxLayout()
        row.addWidget(self.lattice, 1)
        row.addWidget(self.pitch)
        row.addWidget(self.diameter)
        form.addRow("Over", self.area)
        form.addRow("Grid", row)
        self.set_areas([])
        return page

    def _table_page(self) -> QWidget:
        page = QWidget()
        form = _form(page)
        form.addRow("Table", self.table)
        form.addRow("Measured", self.measured)
        return page

    @property
    def from_table(self) -> bool:
        """Whether spots come from a table rather than a grid."""
        return bool(self.origin.currentIndex() == TABLE)

    def grid(self) -> tuple[Grid, Any]:
        """Return the grid, and the key of the area to lay it over (None: tissue)."""
        grid = Grid(self.pitch.value(), self.diameter.value(), self.lattice.currentData())
        return grid, self.area.currentData()

    def offer_grid(self, grid: Grid) -> None:
        """Fill in the array the model was trained on, unless the person already chose a grid."""
        if self._touched:
            return
        for box in (self.pitch, self.diameter, self.lattice):
            box.blockSignals(True)
        self.pitch.setValue(grid.spacing_um)
        self.diameter.setValue(grid.diameter_um)
        self.lattice.setCurrentIndex(self.lattice.findData(grid.lattice))
        for box in (self.pitch, self.diameter, self.lattice):
            box.blockSignals(False)

    def set_areas(self, areas: list[tuple[str, Any]]) -> None:
        """List the Shapes layers a grid can be laid in, as (name, key); the choice is kept."""
        chosen = self.area.currentData()
        self.area.blockSignals(True)
        self.area.clear()
        self.area.addItem("All detected tissue", None)
        for name, key in areas:
            self.area.addItem(f"Inside “{name}”", key)
            if key is chosen:
                self.area.setCurrentIndex(self.area.count() - 1)
        self.area.blockSignals(False)
        if chosen is not None and self.area.currentData() is not chosen:
            self._settle.start()

    def show_busy(self, text: str) -> None:
        """Say that spots are being read or laid."""
        self.messages.clear()
        self.set_state(text)

    def show_choice(self, choice: "SpotTable | None", measured: "AnnData | None" = None) -> None:
        """Show how many spots there are, of what kind, and what is to be known of them."""
        self.messages.clear()
        if choice is None:
            self.summary.setText("No spots yet.")
            self.set_state("")
            return
        self.summary.setText(describe_spots(choice.spots, choice.technology))
        self.set_state(READY if len(choice.spots) else "no spots")
        for notice in choice.notices:
            self.messages.add("notice", notice)
        if measured is not None:
            self._show_measured(choice.spots, measured)

    def _show_measured(self, spots: "Spots", measured: "AnnData") -> None:
        matched = len(set(spots.ids) & set(measured.obs_names))
        if matched:
            text = f"Measured expression of {matched:,} spots, {measured.n_vars:,} genes, to compare."
            self.messages.add("notice", text)
            return
        self.messages.add(
            "warning",
            "No spot of the measured expression is among these spots (it names them like "
            f"“{measured.obs_names[0]}”, here they are like “{spots.ids[0]}”), so nothing can be "
            "compared; choose the counts of the same section.",
        )

    def show_error(self, error: Exception) -> None:
        """Show why there are no spots."""
        self.show_choice(None)
        self.set_state("failed")
        self.messages.show_error(error)

    def _on_grid_edited(self) -> None:
        self._touched = True
        self._settle.start()

    def _on_origin(self, index: int) -> None:
        self._fit_page()
        if index == GRID:
            self.gridChanged.emit()
        elif self.table.path is not None:
            self.tableChosen.emit(self.table.path)
        else:
            self.cleared.emit()

    def _fit_page(self) -> None:
        self._pages.setCurrentIndex(self.origin.currentIndex())


def _form(page: QWidget) -> QFormLayout:
    form = QFormLayout(page)
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(3)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _um_box(tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(1.0, 5000.0)
    box.setDecimals(0)
    box.setSingleStep(10.0)
    box.setSuffix(" µm")
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)  # room for prefix and unit
    box.setKeyboardTracking(False)
    box.setToolTip(f"{tip}\n(arrow keys: ± 10 µm)")
    box.setAccessibleName(tip)
    return box


def describe_spots(spots: "Spots", technology: str) -> str:
    """Return "183 spots · Spatial Transcriptomics · pitch 200 µm, Ø 100 µm"."""
    size = [
        f"{what} {value:g} µm"
        for what, value in (("pitch", spots.pitch_um), ("Ø", spots.diameter_um))
        if value is not None
    ]
    count = f"{len(spots):,} spot{'' if len(spots) == 1 else 's'}"
    parts = (count, technology, ", ".join(size) or "pitch and diameter unknown")
    return " · ".join(part for part in parts if part)


WHOLE: Final = "Whole tissue (all spots)"


class RegionStep(StepBox):
    """Asks whether all spots are predicted, or those inside the shapes of a Shapes layer."""

    regionChanged = Signal()
    drawRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(4, "Region", parent)
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Region")
        self.choice.setToolTip(
            "Predict all spots, or only those whose centre lies inside the shapes of a layer.\n"
            "The model still sees the tissue around them, so the numbers stay the same."
        )
        self.choice.currentIndexChanged.connect(self.regionChanged)
        self.draw = QPushButton("Draw…")
        self.draw.setToolTip("Add a Shapes layer and draw a region on the slide")
        self.draw.clicked.connect(self.drawRequested)
        self.head.addWidget(self.choice, 1)
        self.head.addWidget(self.draw)
        self.summary = plain_label()
        self.summary.hide()
        self.body.addWidget(self.summary)
        self.set_regions([])

    @property
    def region(self) -> Any:
        """The key of the chosen Shapes layer, None for the whole tissue."""
        return self.choice.currentData()

    def set_regions(self, regions: list[tuple[str, Any]], select: Any = None) -> None:
        """List Shapes layers as (name, key); the choice is kept unless `select` names another."""
        chosen = self.region if select is None else select
        self.choice.blockSignals(True)
        self.choice.clear()
        self.choice.addItem(WHOLE, None)
        for name, key in regions:
            self.choice.addItem(f"Inside “{name}”", key)
            if key is chosen:
                self.choice.setCurrentIndex(self.choice.count() - 1)
        self.choice.blockSignals(False)

    def show_count(self, n_selected: int | None, n_spots: int) -> None:
        """Show how many spots lie inside (None: nothing to count)."""
        self.summary.setVisible(n_selected is not None)
        if n_selected is None:
            self.set_state(READY if n_spots else "")
            return
        self.summary.setText(f"{n_selected:,} of {n_spots:,} spots lie inside.")
        self.set_state(READY if n_selected else "no spots inside")
