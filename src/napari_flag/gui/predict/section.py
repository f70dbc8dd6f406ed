"""The slides that are predicted on: what steps 1 and 2 of the Predict dock lead to, for the slide shown."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_flag import inputs
from napari_flag.analysis.truth import MEASURED
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import is_foreign
from napari_flag.gui.controls.gl_context import later_in
from napari_flag.gui.jobs import Jobs
from napari_flag.gui.predict.steps import SlideStep, SpotsStep, looked_at
from napari_flag.gui.session import Session
from napari_flag.gui.slide_state import Result, SlideState
from napari_flag.layers import ahead, slide_layers
from napari_flag.layers.gene_values import sources_of
from napari_flag.progress import Step, Steps, one_step
from napari_flag.slides import lattice, spot_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from napari_flag.analysis.truth import MeasuredLayer
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots, SpotTable


FROM_LATTICE = "estimated from the spots"


class Section(QObject):
    """Opens slides and reads or lays spots as the two steps ask, and draws them.

    What is found is kept with the slide (`SlideState`), also when another is shown meanwhile.
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
        self._workspace = session.workspace
        self._viewer: Any = session.viewer
        self._later = later_in(self._viewer)
        self._shown: tuple[SlideState | None, Any] = (None, None)
        self._judged: dict[int, tuple[SpotTable, float | None, SpotTable]] = {}
        slide_step.slideChosen.connect(self.choose_layer)
        slide_step.mppSet.connect(self._take_typed)
        slide_step.estimateRequested.connect(self._estimate_mpp)
        spots_step.tableChosen.connect(self.read_spots)
        spots_step.gridChanged.connect(self.lay_grid)
        spots_step.measuredChosen.connect(self.read_measured)
        spots_step.cleared.connect(lambda: self._set_spots(self._session.state, None))

    @property
    def slide(self) -> "Slide | None":
        """The slide that is shown, None before one is chosen."""
        return self._session.slide

    @property
    def layer(self) -> Any:
        """Its picture."""
        state = self._session.state
        return None if state is None else state.layer

    @property
    def choice(self) -> "SpotTable | None":
        """Its spots with what came along and what is doubtful, None before there are any."""
        return self._choice_of(self._session.state)

    def _choice_of(self, state: SlideState | None) -> "SpotTable | None":
        if state is None or state.table is None or state.slide is None or not state.from_table:
            return None if state is None else state.table
        known = self._judged.get(state.number)
        if known is None or known[0] is not state.table or known[1] != state.slide.mpp:
            known = (state.table, state.slide.mpp, _judged(state.slide, state.table))
            there = {slide.number for slide in self._workspace.slides}
            self._judged = {number: kept for number, kept in self._judged.items() if number in there}
            self._judged[state.number] = known
        return known[2]

    @property
    def spots(self) -> "Spots | None":
        """The spots, None before there are any."""
        state = self._session.state
        return None if state is None or state.table is None else state.table.spots

    @property
    def measured(self) -> "AnnData | None":
        """Measured expression to compare with, or None."""
        state = self._session.state
        return None if state is None else state.measured

    def prediction_inputs(self, state: SlideState, region: "Sequence[BaseGeometry] | None") -> inputs.Inputs:
        """Return what a prediction of a slide starts from; only when slide and spots are there."""
        slide, choice = state.slide, self._choice_of(state)
        assert slide is not None
        assert choice is not None
        notices = (*slide.notices, *choice.notices)
        return inputs.Inputs(
            slide,
            choice.spots,
            region,
            measured=state.measured,
            notices=notices,
            image_scale=choice.image_scale,
            files=tuple(path for path in (state.table_path, state.measured_path) if path is not None),
        )

    def _doubts(self) -> tuple[str, ...]:
        """Return what is doubtful about µm/px; nothing once step 2 says it, which knows the table's array."""
        state = self._session.state
        if state is None or state.slide is None or (state.from_table and state.table is not None):
            return ()
        return inputs.settle_scale(state.slide)[1]

    def _scale(self) -> float:
        """Return px of the slide per px of the full-resolution slide, by its table."""
        state = self._session.state
        return 1.0 if state is None or state.table is None else state.table.image_scale

    # --- slide --------------------------------------------------------------------------------

    def choose_layer(self, layer: Any) -> None:
        """Work on the slide of `layer`; an image opened by another reader is opened as a slide."""
        state = self._workspace.of_layer(layer)
        if state is not None and slide_layers.slide_of(layer) is not None:
            self._workspace.show(state)
        elif path := slide_layers.file_of(layer):
            self.open_slide(path, instead_of=layer)

    def open_slide(self, path: Path, instead_of: Any = None) -> None:
        """Open a slide file; it gets a pyramid first where it has none.

        `instead_of` is a layer of the same picture, without pyramid and µm, which is then hidden.
        """
        self._slide_step.messages.clear()
        self._slide_step.set_state("opening…")
        self._jobs.run(
            "slide",
            inputs.open_with_pyramid(path),
            f"Open {path.name}",
            on_result=partial(self._on_slide_opened, instead_of=instead_of),
            on_error=self._on_slide_failed,
            on_cancelled=self.show_slide,
        )

    def _on_slide_opened(self, slide: "Slide", instead_of: Any = None) -> None:
        if instead_of is not None:
            instead_of.visible = False
        self._workspace.bring_picture(self._workspace.place_for(slide))

    def _on_slide_failed(self, error: Exception) -> None:
        self.show_slide()
        self._slide_step.messages.show_error(error)

    def show_slide(self) -> None:
        """Show the slide that is shown, and how its spots were found; lay a grid on one that has none."""
        state = self._session.state
        shown = (state, self.layer)
        arrived, self._shown = shown != self._shown, shown  # the slide, or its picture
        self.list_slides()
        self._slide_step.show_slide(self.slide, self._doubts(), self._scale())
        if arrived and state is not None:
            self._show_source(state)
        self._show_spots()
        if arrived and state is not None:
            self.find_spots(state)

    def find_spots(self, state: SlideState) -> None:
        """Find the spots of a slide as asked, unless they are there or on their way."""
        slide = state.slide
        if slide is None:
            return
        if state is self._session.state:
            self._show_source(state)
        if state.table is not None:
            if state.layer is not None and not state.results:
                self._draw_spots(state, state.table)
        elif self._jobs.running(_finding(state)):
            self._spots_step.show_busy("…")
        elif state.from_table and state.table_path is not None:
            self._find_spots(state, inputs.read_table(state.table_path, slide), "reading…")
        elif state is self._session.state:
            self.lay_grid()
        elif slide.mpp is not None:
            state.grid = state.grid or self._spots_step.grid()[0]
            self._find_spots(state, inputs.lay_grid(slide, state.grid), "laying…")

    def _show_source(self, state: SlideState) -> None:
        self._spots_step.show_source(
            from_table=state.from_table,
            table=state.table_path,
            measured=state.measured_path,
            grid=state.grid,
        )

    def list_slides(self) -> None:
        """List the slides that are open."""
        layers = slide_layers.candidates(self._viewer)
        self._slide_step.set_slides([(layer.name, layer) for layer in layers], self.layer)

    def _take_typed(self, mpp: float) -> None:
        """Take a µm/px that a person typed, which is of the full-resolution slide."""
        state = self._session.state
        if state is not None:
            self._give_scale(state, mpp)

    def _give_scale(self, state: SlideState, mpp: float) -> None:
        """Give a slide the µm/px of the full-resolution slide, of which its table tells the size."""
        if state.slide is not None:
            given = inputs.with_given_scale(state.slide, mpp, state.table)
            assert given.mpp is not None
            if given.mpp != state.slide.mpp:
                self.set_mpp(given.mpp, given.mpp_source, state)
            state.given_mpp = mpp

    def set_mpp(self, mpp: float, source: str, state: SlideState | None = None) -> None:
        """Give a slide another µm/px; what is drawn stays where it is on the tissue."""
        state = state or self._session.state
        if state is None or state.slide is None:
            return
        state.given_mpp = None
        self._workspace.set_slide(state, state.slide.with_mpp(mpp, source))
        if state is self._session.state:
            self.show_slide()
            self._later(partial(self._follow_mpp, state, state.slide))

    def _follow_mpp(self, state: SlideState, slide: "Slide") -> None:
        """Draw the spots of a slide, or lay them, for the µm/px it got."""
        if state is not self._session.state or state.slide is not slide:
            return
        if self._spots_step.from_table:
            self._set_spots(state, state.table)
        else:
            self.lay_grid()

    def _estimate_mpp(self) -> None:
        if self.spots is not None:
            self._jobs.run(
                "estimate",
                one_step("Fitting the array's lattice", lattice.estimate_mpp, self.spots),
                "Estimate µm/px",
                on_result=partial(self.set_mpp, source=FROM_LATTICE, state=self._session.state),
                on_error=self._slide_step.messages.show_error,
            )

    # --- spots --------------------------------------------------------------------------------

    def read_spots(self, path: Path) -> None:
        """Read spots from a table, a folder or an h5ad."""
        state = self._session.state
        if state is None or state.slide is None:
            sentence = (
                "Spots are placed on a slide and none is open yet; open it, then choose the table again."
            )
            self._spots_step.show_error(UserError(sentence))
            return
        state.from_table, state.table_path = True, path
        self._set_spots(state, None, keep_layer=True)
        self._find_spots(state, inputs.read_table(path, state.slide), "reading…")

    def lay_grid(self) -> None:
        """Lay the grid that the form describes, as soon as the slide's µm/px are known."""
        state = self._session.state
        if self._spots_step.from_table or state is None or state.slide is None:
            return
        grid, area = self._spots_step.grid()
        state.from_table, state.grid = False, grid
        if state.slide.mpp is None:
            self._set_spots(state, None)
            self._spots_step.summary.setText("Laid as soon as the µm/px are known (step 1).")
            return
        try:
            polygons = None if area is None else self.polygons(area)
        except UserError as error:
            self._set_spots(state, None)
            self._spots_step.show_error(error)
            return
        self._set_spots(state, None, keep_layer=True)
        self._find_spots(state, inputs.lay_grid(state.slide, grid, polygons=polygons), "laying…")

    def _find_spots(self, state: SlideState, work: Any, doing: str) -> None:
        if state is self._session.state:
            self._spots_step.show_busy(doing)
        self._jobs.run(
            _finding(state),
            _made_ready(work, state.slide),
            f"Find the spots of {state.name}",
            on_result=partial(self._on_spots, state),
            on_error=partial(self._on_spots_failed, state),
            on_cancelled=partial(self._set_spots, state, None),
        )

    def polygons(self, layer: Any) -> tuple[Any, ...]:
        """Return the shapes of a layer as polygons in level-0 px of the slide."""
        return slide_layers.region_polygons(layer, self.layer, layer.name)

    def _on_spots(self, state: SlideState, table: "SpotTable") -> None:
        if state.slide is None:
            return
        _keep_counts(state, table.measured)
        self._set_spots(state, table)
        self.offer_counts(state)
        if state.slide.mpp is None and table.mpp is not None:
            self.set_mpp(table.mpp, table.mpp_source, state)
        elif state.from_table and state.given_mpp is not None:
            self._give_scale(state, state.given_mpp)  # the table tells whether this is a smaller copy
        source = state.measured_path
        if source is not None and (state.from_table or spot_tables.needs_pooling(source)):
            self._read_measured(state, state.measured_path)

    def _on_spots_failed(self, state: SlideState, error: Exception) -> None:
        self._set_spots(state, None)
        if state is self._session.state:
            self._spots_step.show_error(error)

    def _set_spots(
        self, state: SlideState | None, table: "SpotTable | None", *, keep_layer: bool = False
    ) -> None:
        """Give a slide its spots, or take them away; with `keep_layer` others are about to come."""
        if state is None:
            self._show_spots()
            return
        self._workspace.set_spots(state, table)
        if state is self._session.state:
            self._slide_step.show_slide(state.slide, self._doubts(), self._scale())
        if table is None:
            _keep_counts(state, None)
        if state.layer is not None:
            if table is None and keep_layer:
                slide_layers.hide_spots(self._viewer, state.frame)
            elif table is None:
                slide_layers.remove_spots(self._viewer, state.frame)
            else:
                self._draw_spots(state, table)
        self._show_spots()

    def _draw_spots(self, state: SlideState, table: "SpotTable") -> None:
        assert state.slide is not None
        wanted = state.shown is None  # over a map they would tint its colours
        shown = wanted and state is self._session.state and state.layer.visible
        slide_layers.show_spots(self._viewer, table.spots, state.slide, state.frame, visible=shown)
        if wanted and not shown:
            state.visible += slide_layers.outlines(self._viewer, state.frame)

    def _show_spots(self) -> None:
        self._spots_step.show_choice(self.choice, self.measured)
        if (state := self._session.state) is not None:
            for notice in state.counts_notices:
                self._spots_step.messages.add("notice", notice)
            if state.counts_error is not None:
                self._spots_step.messages.show_error(state.counts_error)
        self.changed.emit()

    def read_measured(self, path: Path | None) -> None:
        """Read measured expression to compare with; None goes back to that of the table."""
        state = self._session.state
        if state is not None:
            self._read_measured(state, path)

    def attach_counts(self, state: SlideState, path: Path) -> None:
        """Pool counts into the spots of a slide, once there are any."""
        if state.table is None:
            state.measured_path = path
            self.find_spots(state)
        else:
            self._read_measured(state, path)

    def _read_measured(self, state: SlideState, path: Path | None) -> None:
        self._jobs.cancel(f"measured {state.number}")
        state.measured_path = path
        if path is None or state.table is None or state.slide is None:
            self._on_measured(state, None if state.table is None else state.table.measured)
            return
        self._jobs.run(
            f"measured {state.number}",
            _with_a_look(
                inputs.counts_at(path, state.table.spots, state.slide.mpp, state.slide), state.table.spots
            ),
            f"Read {path.name}",
            on_result=lambda read: self._on_measured(state, *read),
            on_error=lambda error: self._on_measured(state, None, error=error),
        )

    def offer_counts(self, state: SlideState) -> None:
        """Compare another program's prediction with the counts read for its slide, where they fit."""
        result = state.shown
        if result is None or state.measured is None or MEASURED in sources_of(result.adata):
            return
        if state is not self._session.state or not is_foreign(result.adata):
            return
        self._jobs.run(
            f"offer {state.number}",  # beside counts that a person chose, which go before
            ahead.attaching(result.adata, state.measured),
            f"Attach the counts of {state.name}",
            on_result=partial(self._on_attached, state, result, state.measured),
            on_error=self._on_not_attached,
        )

    def _on_attached(
        self, state: SlideState, result: Result, measured: "AnnData", layer: "MeasuredLayer"
    ) -> None:
        if state.measured is measured and MEASURED not in sources_of(result.adata):
            self._session.set_measured(measured, result, of_slide=True, layer=layer)

    def _on_not_attached(self, error: Exception) -> None:
        if not isinstance(error, UserError):  # of other spots: the Spots step says so
            self._spots_step.messages.show_error(error)

    def _on_measured(
        self,
        state: SlideState,
        measured: "AnnData | None",
        notices: tuple[str, ...] = (),
        error: Exception | None = None,
    ) -> None:
        _keep_counts(state, measured, notices, error)
        self.offer_counts(state)
        if state is self._session.state:
            self._show_spots()


def _keep_counts(
    state: SlideState,
    measured: "AnnData | None",
    notices: tuple[str, ...] = (),
    error: Exception | None = None,
) -> None:
    """Keep the counts of a slide, and what is to be said of them when the slide is shown."""
    state.measured, state.counts_notices, state.counts_error = measured, notices, error
    if error is not None:
        clear_frames(error.__traceback__)  # or it would keep all that was read until then


def _finding(state: SlideState) -> str:
    """Return the purpose of the job that finds the spots of a slide."""
    return f"spots {state.number}"


def _made_ready(work: Steps["SpotTable"], slide: "Slide | None") -> Steps["SpotTable"]:
    """Find spots, look at their counts, and draw outlines of so many that the window would wait for it."""
    table = yield from work
    if table.measured is not None:
        yield Step("Matching counts", 0)
        looked_at(table.measured, table.spots)
    if len(table.spots) > slide_layers.RINGS_UP_TO:
        yield Step("Drawing spots", 0, None)
        slide_layers.outlined(table.spots, (slide.mpp if slide is not None else None) or table.mpp)
    return table


def _with_a_look(
    work: Steps[tuple["AnnData", tuple[str, ...]]], spots: "Spots"
) -> Steps[tuple["AnnData", tuple[str, ...]]]:
    """Read counts, and look at them, which takes too long for the window where they are many."""
    measured, notices = yield from work
    yield Step("Matching counts", 0)
    looked_at(measured, spots)
    return measured, notices


def _judged(slide: "Slide", table: "SpotTable") -> "SpotTable":
    """Return the spots of a slide with what is doubtful about its µm/px."""
    _, doubts = inputs.settle_scale(slide, table)
    return replace(table, notices=tuple(dict.fromkeys((*table.notices, *doubts))))
