"""Step 2 of the main dock: where on the slide expression is predicted."""

from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QStackedWidget,
    QWidget,
)

from napari_flag.widgets.forms import READY, FileField, StepBox, narrow, plain_label
from napari_flag.widgets.tasks import SpotChoice

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.spots import Lattice, Spots

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

    def grid(self) -> "tuple[float, float, Lattice, Any]":
        """Return pitch and diameter in µm, lattice, and the area's key (None: tissue)."""
        lattice: Lattice = self.lattice.currentData()
        return self.pitch.value(), self.diameter.value(), lattice, self.area.currentData()

    def offer_grid(self, array: dict[str, Any]) -> None:
        """Fill in the array the model was trained on, unless the person already chose a grid."""
        if self._touched:
            return
        for box, key in ((self.pitch, "pitch_um"), (self.diameter, "diameter_um")):
            if isinstance(array.get(key), int | float):
                box.blockSignals(True)
                box.setValue(float(array[key]))
                box.blockSignals(False)
        self.lattice.blockSignals(True)
        square = "visium" not in str(array.get("technology", "")).casefold()
        self.lattice.setCurrentIndex(self.lattice.findData("square" if square else "hex"))
        self.lattice.blockSignals(False)

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

    def show_choice(self, choice: SpotChoice | None, measured: "AnnData | None" = None) -> None:
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
