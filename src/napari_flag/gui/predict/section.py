"""The slide and spots that are predicted on: what steps 1 and 2 of the Predict dock lead to."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_flag import inputs
from napari_flag.errors import UserError
from napari_flag.gui.jobs import Jobs
from napari_flag.gui.predict.steps import SlideStep, SpotsStep
from napari_flag.gui.session import Session
from napari_flag.layers import slide_layers
from napari_flag.progress import one_step
from napari_flag.slides import spot_tables
from napari_flag.slides import spots as arrays
from napari_flag.slides.slide import SET_BY_HAND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots, SpotTable


FROM_LATTICE = "estimated from the spots"


class Section(QObject):
    """Opens slides and reads or lays spots as the two steps ask, and draws them.

    Attributes
    ----------
    slide, layer
        The slide and its layer, None before one is chosen.
    choice
        The spots with what came along, None before there are any.
    measured
        Measured expression to compare with, or None.
    """

    changed = Signal()

    def __init__(
        self,
        slide_step: SlideStep,
        spots_step: SpotsStep,
        session: Session,
        jobs: Jobs,
    ) -> None:
        super().__init__(slide_step)
        self._slide_step, self._spots_step = slide_step, spots_step
        self._session, self._jobs = session, jobs
        self._viewer: Any = session.viewer
        self.slide: Slide | None = None
        self.layer: Any = None
        self.choice: SpotTable | None = None
        self._table: SpotTable | None = None  # `choice` as it was read: notices of scale depend on µm/px
        self.measured: AnnData | None = None
        slide_step.slideChosen.connect(self.choose_layer)
        slide_step.fileChosen.connect(self.open_slide)
        slide_step.mppSet.connect(partial(self.set_mpp, source=SET_BY_HAND))
        slide_step.estimateRequested.connect(self._estimate_mpp)
        spots_step.tableChosen.connect(self.read_spots)
        spots_step.gridChanged.connect(self.lay_grid)
        spots_step.measuredChosen.connect(self.read_measured)
        spots_step.cleared.connect(partial(self._set_spots, None))

    @property
    def spots(self) -> "Spots | None":
        """The spots, None before there are any."""
        return None if self.choice is None else self.choice.spots

    def prediction_inputs(self, region: "Sequence[BaseGeometry] | None") -> inputs.Inputs:
        """Return what a prediction starts from; only when slide and spots are there."""
        assert self.slide is not None
        assert self.choice is not None
        notices = (*self.slide.notices, *self.choice.notices)
        return inputs.Inputs(self.slide, self.choice.spots, region, measured=self.measured, notices=notices)

    # --- slide --------------------------------------------------------------------------------

    def choose_layer(self, layer: Any) -> None:
        """Work on the slide of `layer`; an image opened by another reader is opened as a slide."""
        slide = slide_layers.slide_of(layer)
        if slide is not None:
            self._use_slide(slide, layer)
        elif path := slide_layers.file_of(layer):
            layer.visible = False  # the same picture comes again, with a pyramid and in µm
            self.open_slide(path)

    def open_slide(self, path: Path) -> None:
        """Open a slide file; it gets a pyramid first where it has none."""
        self._slide_step.messages.clear()
        self._slide_step.set_state("opening…")
        self._jobs.run(
            "slide",
            inputs.open_with_pyramid(path),
            f"Open {path.name}",
            on_result=self._on_slide_opened,
            on_error=self._on_slide_failed,
            on_cancelled=self._show_former_slide,
        )

    def _on_slide_opened(self, slide: "Slide") -> None:
        self._use_slide(slide, slide_layers.add_slide(self._viewer, slide))

    def _on_slide_failed(self, error: Exception) -> None:
        self._show_former_slide()
        self._slide_step.messages.show_error(error)

    def _show_former_slide(self) -> None:
        """Show the slide there was before one could not be opened."""
        self.list_slides()
        self._show_slide()

    def _use_slide(self, slide: "Slide", layer: Any) -> None:
        self.slide, self.layer = slide, layer
        self._session.slide = slide
        self.list_slides()
        self._show_slide()
        self._set_spots(None)
        table = self._spots_step.table.path
        if self._spots_step.from_table and table is not None:
            self.read_spots(table)
        else:
            self.lay_grid()

    def list_slides(self) -> None:
        """List the slides that are open; forget the chosen one when its layer was removed."""
        if self.layer is not None and self.layer not in self._viewer.layers:
            self.slide = self.layer = None
            self._jobs.cancel("spots")
            self._set_spots(None)
            self._show_slide()
        layers = slide_layers.candidates(self._viewer)
        self._slide_step.set_slides([(layer.name, layer) for layer in layers], self.layer)

    def _show_slide(self) -> None:
        self._slide_step.show_slide(self.slide)
        self.changed.emit()

    def set_mpp(self, mpp: float, source: str) -> None:
        """Give the slide another µm/px; what is drawn stays where it is on the tissue."""
        if self.slide is None:
            return
        self.slide = self.slide.with_mpp(mpp, source)
        self._session.slide = self.slide
        slide_layers.remove_spots(self._viewer)
        slide_layers.set_mpp(self._viewer, self.layer, self.slide)
        self.list_slides()
        self._show_slide()
        if self._spots_step.from_table:
            self._set_spots(self._table)
        else:
            self.lay_grid()

    def _estimate_mpp(self) -> None:
        if self.spots is not None:
            self._jobs.run(
                "estimate",
                one_step("Fitting the array's lattice", arrays.estimate_mpp, self.spots),
                "Estimate µm/px",
                on_result=partial(self.set_mpp, source=FROM_LATTICE),
                on_error=self._slide_step.messages.show_error,
            )

    # --- spots --------------------------------------------------------------------------------

    def read_spots(self, path: Path) -> None:
        """Read spots from a table, a folder or an h5ad."""
        if self.slide is None:
            sentence = (
                "Spots are placed on a slide and none is open yet; open it in step 1, and the "
                "table is read then."
            )
            self._spots_step.show_error(UserError(sentence))
            return
        self._set_spots(None)
        self._spots_step.show_busy("reading…")
        self._jobs.run(
            "spots",
            inputs.read_table(path, self.slide),
            f"Read {path.name}",
            on_result=self._on_spots,
            on_error=self._spots_step.show_error,
            on_cancelled=partial(self._set_spots, None),
        )

    def lay_grid(self) -> None:
        """Lay the grid that the form describes, as soon as the slide's µm/px are known."""
        if self._spots_step.from_table or self.slide is None:
            return
        if self.slide.mpp is None:
            self._set_spots(None)
            self._spots_step.summary.setText("Laid as soon as the µm/px are known (step 1).")
            return
        grid, area = self._spots_step.grid()
        self._set_spots(None)
        try:
            polygons = None if area is None else self.polygons(area)
        except UserError as error:
            self._spots_step.show_error(error)
            return
        self._spots_step.show_busy("laying…")
        self._jobs.run(
            "spots",
            inputs.lay_grid(self.slide, grid, polygons=polygons),
            "Lay spots",
            on_result=self._on_spots,
            on_error=self._spots_step.show_error,
            on_cancelled=partial(self._set_spots, None),
        )

    def polygons(self, layer: Any) -> tuple[Any, ...]:
        """Return the shapes of a layer as polygons in level-0 px of the slide."""
        return slide_layers.region_polygons(layer, self.layer, layer.name)

    def _on_spots(self, choice: "SpotTable") -> None:
        self.measured = choice.measured
        self._set_spots(choice)
        if self.slide is not None and self.slide.mpp is None and choice.mpp is not None:
            self.set_mpp(choice.mpp, choice.mpp_source)
        if self._spots_step.from_table and self._spots_step.measured.path is not None:
            self.read_measured(self._spots_step.measured.path)

    def _set_spots(self, table: "SpotTable | None") -> None:
        self._table = self.choice = table
        if table is None:
            self.measured = None
        elif self.slide is not None and self._spots_step.from_table:
            _, doubts = inputs.settle_scale(self.slide, table)
            self.choice = replace(table, notices=tuple(dict.fromkeys((*table.notices, *doubts))))
        self._spots_step.show_choice(self.choice, self.measured)
        if table is None or self.slide is None:
            slide_layers.remove_spots(self._viewer)
        else:
            slide_layers.show_spots(self._viewer, table.spots, self.slide)
        self.changed.emit()

    def read_measured(self, path: Path | None) -> None:
        """Read measured expression to compare with; None goes back to that of the table."""
        self._jobs.cancel("measured")
        if path is None:
            self._on_measured(None if self.choice is None else self.choice.measured)
            return
        self._jobs.run(
            "measured",
            one_step("Reading measured counts", spot_tables.read_measured, path),
            f"Read {path.name}",
            on_result=self._on_measured,
            on_error=self._on_measured_failed,
        )

    def _on_measured(self, measured: "AnnData | None") -> None:
        self.measured = measured
        self._spots_step.show_choice(self.choice, measured)

    def _on_measured_failed(self, error: Exception) -> None:
        self._on_measured(None)
        self._spots_step.messages.show_error(error)
