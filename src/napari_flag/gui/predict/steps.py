"""Steps 1, 2 and 4 of the Predict dock: slide, spots and region; step 3 is `model_step`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QWidget

from napari_flag.errors import UserError
from napari_flag.formatting import TYPED, counted, counted_of, length, px
from napari_flag.gui.controls.file_filters import COUNT_FILES, SPOT_FILES
from napari_flag.gui.controls.forms import (
    READY,
    Choice,
    FileField,
    StepBox,
    form,
    number_field,
    plain_label,
    row_of,
    set_quietly,
    unbroken,
)
from napari_flag.gui.dock import single_shot
from napari_flag.inputs import LEGACY_ST, Grid, look_at_counts
from napari_flag.layers.kept import Kept

if TYPE_CHECKING:
    from anndata import AnnData
    from magicgui.widgets import Container
    from magicgui.widgets.bases import Widget

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots, SpotTable


NO_SLIDE: Final = "Open an H&E slide above, or drag it into the picture."
NONE: Final = ""
"""Key of an entry that stands for no layer: no slide, all tissue, the whole section."""


class SlideStep(StepBox):
    """Shows the open slides, and what is known of the chosen one; the list above opens files.

    It only emits what the person wants; the dock opens slides and answers with `set_slides` and
    `show_slide`.
    """

    slideChosen = Signal(object)  # the key given to set_slides
    mppSet = Signal(float)
    estimateRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(1, "Slide", parent)
        self.choice = Choice(name="Slide", tooltip="The slide to predict on: a slide open in the viewer")
        self.choice.changed.connect(self._on_chosen)
        self.info = plain_label(NO_SLIDE)
        self.mpp = number_field(
            0.0,
            0.0,
            100.0,
            0.01,
            decimals=TYPED,
            unit=" µm/px",
            tooltip="How many µm one pixel of the full-resolution slide is wide.\n"
            "Read from the file where it states it; otherwise type it here (0: unknown).",
        )
        self.mpp.native.setSpecialValueText("µm/px unknown")
        self.mpp.native.setAccessibleName("Micrometres per pixel")
        self.mpp.changed.connect(self._on_mpp)
        self.source = plain_label()
        self.estimate = QPushButton("Estimate")
        self.estimate.setToolTip(
            "Fit the array's lattice to the spots of step 2, whose distance in µm is known"
        )
        self.estimate.clicked.connect(self.estimateRequested)
        self.head.addWidget(self.choice.native, 1)
        bottom = QHBoxLayout()
        bottom.addWidget(self.mpp.native)
        bottom.addWidget(self.source, 1)
        bottom.addWidget(self.estimate)
        self.body.addWidget(self.info)
        self.body.addLayout(bottom)
        self.set_slides([], None)
        self.show_slide(None)

    def set_slides(self, slides: list[tuple[str, Any]], current: Any) -> None:
        """List the open slides as (name, key) and select the one whose key is `current`."""
        none = [] if current is not None else [("Choose an open slide…" if slides else "No slide open", NONE)]
        self.choice.offer([*none, *slides], select=NONE if current is None else current)
        self.choice.enabled = bool(slides)

    def show_slide(self, slide: "Slide | None", doubts: Sequence[str] = (), scale: float = 1.0) -> None:
        """Show size, µm/px with its source, and `doubts` about it.

        The µm/px shown is of the full-resolution slide, of which a pixel is `scale` px of this one.
        """
        self.messages.clear()
        for widget in (self.mpp.native, self.source):
            widget.setEnabled(slide is not None)
        set_quietly(self.mpp, 0.0 if slide is None or slide.mpp is None else slide.mpp * scale)
        if slide is None:
            self.info.setText(NO_SLIDE)
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
        for doubt in doubts:
            self.messages.add("warning", doubt)

    def allow_estimate(self, why_not: str | None) -> None:
        """Enable Estimate, or say in its tooltip why it cannot be used."""
        self.estimate.setEnabled(why_not is None)
        self.estimate.setToolTip(
            why_not or "Fit the array's lattice to the spots of step 2, whose distance in µm is known"
        )

    def _on_chosen(self, key: Any) -> None:
        if key != NONE:
            self.slideChosen.emit(key)

    def _on_mpp(self, value: float) -> None:
        if value > 0:
            self.mppSet.emit(value)


def describe_slide(slide: "Slide") -> str:
    """Return "9,272 × 9,920 px · 6.3 mm × 6.8 mm · 5 levels"."""
    width, height = slide.size
    parts = [px(slide.size)]
    if slide.mpp:
        parts.append(f"{length(width * slide.mpp)} × {length(height * slide.mpp)}")
    parts.append(counted(len(slide.levels), "level"))
    return " · ".join(parts)


GRID, TABLE = "grid", "table"
SETTLE_MS: Final = 400
"""A grid is laid again this long after the last change, so that typing does not lay many."""


class SpotsStep(StepBox):
    """Asks for a spot table or a grid, and optionally for measured expression."""

    tableChosen = Signal(object)  # Path
    gridChanged = Signal()
    measuredChosen = Signal(object)  # Path, or None when taken away
    cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(2, "Spots", parent)
        self.origin = Choice(
            (("Grid of spots", GRID), ("From a table or folder", TABLE)),
            name="Where the spots come from",
            tooltip="A regular grid, or the spots of a real array:\n"
            "Space Ranger folder, legacy ST table, HEST-1k or AnnData h5ad",
        )
        self.table = FileField(
            "Spot table",
            SPOT_FILES,
            placeholder="table, h5ad or Visium folder",
            tooltip="Legacy ST selection table (.tsv), Space Ranger output folder (v1 or v2), HEST-1k or "
            "AnnData .h5ad; may also be dropped here",
        )
        self.measured = FileField(
            "Measured expression",
            COUNT_FILES,
            placeholder="optional, to compare",
            tooltip="Raw counts of the same spots (h5ad, Space Ranger folder, legacy ST .tsv), matched by "
            "spot id;\nonly for comparison, the prediction never sees them",
        )
        self._grid_form = self._make_grid_form()
        self._table_form = form({"Table": self.table.row, "Measured": self.measured.row})
        self.summary = plain_label("No spots yet.")
        self.head.addWidget(self.origin.native, 1)
        self.body.addWidget(self._grid_form.native)
        self.body.addWidget(self._table_form.native)
        self.body.addWidget(self.summary)
        self._settle = single_shot(self, SETTLE_MS, self.gridChanged)
        self._touched = False
        self.origin.changed.connect(self._on_origin)
        self.table.pathChosen.connect(lambda path: path and self.tableChosen.emit(path))
        self.measured.pathChosen.connect(self.measuredChosen)
        self.lattice.native.setMinimumContentsLength(len("square"))
        for field in (self.lattice, self.pitch, self.diameter):
            field.changed.connect(lambda _: self._on_grid_edited())
        self.area.changed.connect(lambda _: self._settle.start())
        self._show_form()

    def _make_grid_form(self) -> "Container[Widget]":
        self.area = Choice(
            [("All detected tissue", NONE)],
            name="Area of the grid",
            tooltip="Over all detected tissue, or only inside regions drawn as Shapes",
        )
        self.lattice = Choice(
            (("hex", "hex"), ("square", "square")),
            name="Lattice",
            tooltip="Hexagonal as Visium arrays, or square as legacy ST arrays",
        )
        step = "(arrow keys: ± 10 µm)"
        self.pitch = number_field(
            LEGACY_ST.spacing_um,
            1.0,
            5000.0,
            10.0,
            prefix="pitch ",
            unit=" µm",
            tooltip=f"Pitch: distance between the centres of neighbouring spots, in µm\n{step}",
        )
        self.diameter = number_field(
            LEGACY_ST.diameter_um,
            1.0,
            5000.0,
            10.0,
            prefix="Ø ",
            unit=" µm",
            tooltip=f"Ø: diameter of a spot, in µm\n{step}",
        )
        self.pitch.native.setFixedWidth(100)
        self.diameter.native.setFixedWidth(78)
        return form({"Over": self.area, "Grid": row_of(self.lattice, self.pitch, self.diameter)})

    @property
    def from_table(self) -> bool:
        """Whether spots come from a table rather than a grid."""
        return bool(self.origin.value == TABLE)

    def grid(self) -> tuple[Grid, Any]:
        """Return the grid, and the key of the area to lay it over (None: tissue)."""
        grid = Grid(self.pitch.value, self.diameter.value, self.lattice.value)
        return grid, None if self.area.value == NONE else self.area.value

    def show_source(
        self, *, from_table: bool, table: Path | None, measured: Path | None, grid: Grid | None
    ) -> None:
        """Show how the spots of another slide are found; nothing is emitted."""
        self.origin.select(TABLE if from_table else GRID)
        for field, path in ((self.table, table), (self.measured, measured)):
            field.show_path(path)
        if grid is not None:
            set_quietly(self.pitch, grid.spacing_um)
            set_quietly(self.diameter, grid.diameter_um)
            self.lattice.select(grid.lattice)
        self._settle.stop()
        self._show_form()

    def offer_grid(self, grid: Grid) -> None:
        """Fill in the array the model was trained on, unless the person already chose a grid."""
        if self._touched:
            return
        set_quietly(self.pitch, grid.spacing_um)
        set_quietly(self.diameter, grid.diameter_um)
        self.lattice.select(grid.lattice)

    def set_areas(self, areas: list[tuple[str, Any]], select: Any) -> None:
        """List the Shapes layers a grid can be laid in, as (name, key); `select` is that of the slide."""
        self.area.offer([("All detected tissue", NONE), *_inside(areas)], select=select)

    def lay_soon(self) -> None:
        """Ask for the grid to be laid anew, a while after the last change."""
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
        self.summary.setText(unbroken(describe_spots(choice.spots, choice.technology)))
        self.set_state(READY if len(choice.spots) else "no spots")
        for notice in choice.notices:
            self.messages.add("notice", notice)
        if measured is not None:
            self._show_measured(choice.spots, measured)

    def _show_measured(self, spots: "Spots", measured: "AnnData") -> None:
        looked = looked_at(measured, spots)
        if isinstance(looked, UserError):
            self.messages.add("warning", str(looked))
            return
        matched, doubts = looked
        what = f"{counted(matched, 'spot')}, {counted(measured.n_vars, 'gene')}"
        self.messages.add("notice", f"Measured expression of {what}, to compare.")
        for doubt in doubts:
            self.messages.add("warning", f"{doubt}; the Compare page uses them only if you insist.")

    def show_error(self, error: Exception) -> None:
        """Show why there are no spots."""
        self.show_choice(None)
        self.set_state("failed")
        self.messages.show_error(error)

    def _on_grid_edited(self) -> None:
        self._touched = True
        self._settle.start()

    def _on_origin(self, origin: str) -> None:
        self._show_form()
        if origin == GRID:
            self.gridChanged.emit()
        elif self.table.path is not None:
            self.tableChosen.emit(self.table.path)
        else:
            self.cleared.emit()

    def _show_form(self) -> None:
        self._grid_form.visible = not self.from_table
        self._table_form.visible = self.from_table


_LOOKED: Final[Kept[tuple[int, tuple[str, ...]] | UserError]] = Kept("look at counts")


def looked_at(measured: "AnnData", spots: "Spots") -> tuple[int, tuple[str, ...]] | UserError:
    """Return what `look_at_counts` finds, or why it refuses; a job that reads counts looks at them."""

    def look() -> tuple[int, tuple[str, ...]] | UserError:
        try:
            return look_at_counts(measured, spots)
        except UserError as error:
            return error.with_traceback(None)  # whose frames would keep what was read

    return _LOOKED.of(measured, (spots,), look)


def _inside(layers: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(f"Inside “{name}”", layer) for name, layer in layers]


def describe_spots(spots: "Spots", technology: str) -> str:
    """Return "183 spots · Spatial Transcriptomics · pitch 200 µm, Ø 100 µm"."""
    size = [
        f"{what} {length(value)}"
        for what, value in (("pitch", spots.pitch_um), ("Ø", spots.diameter_um))
        if value is not None
    ]
    parts = (counted(len(spots), "spot"), technology, ", ".join(size) or "pitch and diameter unknown")
    return " · ".join(part for part in parts if part)


WHOLE: Final = "Whole tissue"


class RegionStep(StepBox):
    """Asks whether all spots are predicted, or those inside the shapes of a Shapes layer."""

    regionChanged = Signal()
    drawRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(4, "Region", parent)
        self.choice = Choice(
            name="Region",
            tooltip="Predict all spots, or only those whose centre lies inside the shapes of a layer.\n"
            "The model still sees the tissue around them, so the numbers stay the same.",
        )
        self.choice.changed.connect(lambda _: self.regionChanged.emit())
        self.draw = QPushButton("Draw…")
        self.draw.setToolTip("Add a Shapes layer and draw a region on the slide")
        self.draw.clicked.connect(self.drawRequested)
        self.head.addWidget(self.choice.native, 1)
        self.head.addWidget(self.draw)
        self.summary = plain_label()
        self.summary.hide()
        self.body.addWidget(self.summary)
        self.set_regions([])

    @property
    def region(self) -> Any:
        """The key of the chosen Shapes layer, None for the whole tissue."""
        return None if self.choice.value == NONE else self.choice.value

    def set_regions(self, regions: list[tuple[str, Any]], select: Any = None) -> None:
        """List Shapes layers as (name, key); the choice is kept unless `select` names another."""
        self.choice.offer([(WHOLE, NONE), *_inside(regions)], select=select)

    def show_count(self, n_selected: int | None, n_spots: int) -> None:
        """Show how many spots lie inside (None: nothing to count)."""
        self.summary.setVisible(n_selected is not None)
        if n_selected is None:
            self.set_state(READY if n_spots else "")
            return
        self.summary.setText(f"{counted_of(n_selected, n_spots, 'spot')} lie inside.")
        self.set_state(READY if n_selected else "no spots inside")
