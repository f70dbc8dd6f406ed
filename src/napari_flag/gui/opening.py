"""Opens what a person drops or chooses: each file goes to the slide it belongs to, in any order."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import shapely
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QInputDialog, QMessageBox

from napari_flag import discovery, inputs, keys
from napari_flag.analysis.pathways import bundled
from napari_flag.analysis.truth import match_names
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import UNITS, is_foreign
from napari_flag.formatting import TYPED, resolution
from napari_flag.gui.controls.forms import MessageList
from napari_flag.gui.controls.gl_context import spare_loaded
from napari_flag.gui.jobs import Job, Jobs
from napari_flag.gui.keeping import regions_of
from napari_flag.gui.loading import Arrived, KnownSpots, Opened, load
from napari_flag.gui.session import Session
from napari_flag.gui.slide_state import SlideState
from napari_flag.layers import ahead, region_shapes, slide_layers
from napari_flag.layers.gene_values import Quantity
from napari_flag.prediction_file import (
    spots_of,
    um_per_px,
)
from napari_flag.progress import Step
from napari_flag.slide_identity import doubt_about, lies_on, refuse_other_size
from napari_flag.slides.formats import spatial_data
from napari_flag.slides.formats.geojson import Annotation
from napari_flag.slides.formats.spatial_data import Unclear
from napari_flag.slides.slide import napari_levels
from napari_flag.slides.spots import SpotTable
from napari_flag.workspace_file import WorkspaceFile, WorkspaceSlide

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from napari_flag.analysis.truth import MeasuredLayer
    from napari_flag.gui.slide_state import Result
    from napari_flag.slides.slide import Slide


FROM_PREDICTION: Final = "from the prediction"
SAME_AREA: Final = 1e-3
"""Outlines that differ by less than this share of their area are one: shapes are kept in napari's numbers."""
MPP_DIFFERS: Final = 0.02
"""Relative difference between the µm/px of a slide and of a prediction of it that is worth a notice."""


READ_FOR_SLIDE: Final = ("spots", "measured", "offer", "attach", "slide of")
"""Purposes of the jobs that read something for a slide, before its number."""


def _not_drawn(annotations: Sequence[Annotation], drawn: Sequence[Annotation]) -> list[Annotation]:
    """Return the regions whose outline is not drawn; one that is may have been renamed since it was saved."""
    there = [shapely.union_all(each.polygons) for each in drawn]
    places = shapely.STRtree(there)  # outlines that lie apart are not compared

    def is_drawn(annotation: Annotation) -> bool:
        here = shapely.union_all(annotation.polygons)
        return any(_alike(here, there[place]) for place in places.query(here))

    return [annotation for annotation in annotations if not is_drawn(annotation)]


def _alike(one: "BaseGeometry", other: "BaseGeometry") -> bool:
    most = SAME_AREA * max(one.area, other.area)
    if abs(one.area - other.area) > most:  # the areas differ by no more than the outlines
        return False
    return bool(one.symmetric_difference(other).area <= most)


def _spots_in(opened: Opened) -> SpotTable | None:
    """Return the spots of a prediction that was its own table; None where a table is still to be read."""
    if not opened.predictions or opened.table != opened.file:
        return None
    adata = opened.predictions[0][0]
    return SpotTable(spots_of(adata), None, "the spots of the prediction")


class Opener(QObject):
    """Reads files in the background and attaches what they hold.

    Parameters
    ----------
    session
        Of the viewer.
    jobs, messages
        Of the dock that shows progress and what goes wrong.
    """

    slideAttached = Signal(object)
    """A slide whose spots are to be found: its `SlideState`."""
    countsAttached = Signal(object, object)
    """Counts to be read for the spots of a slide: its `SlideState`, and their path."""
    predictionAttached = Signal()
    """A prediction was attached."""

    def __init__(self, session: Session, jobs: Jobs, messages: MessageList) -> None:
        super().__init__(jobs)
        self._session, self._jobs, self._messages = session, jobs, messages
        self._workspace = session.workspace
        self._waiting: list[Opened] = []
        self._in_batch = 0
        self._workspace.removed.connect(self._on_slide_removed)
        events = session.viewer.layers.events
        for event, slot in ((events.inserted, self._on_inserted), (events.removed, self._on_removed)):
            event.connect(slot)
            jobs.destroyed.connect(lambda *_, event=event, slot=slot: event.disconnect(slot))
        for layer in session.viewer.layers:  # left in grey by an area that was closed
            self._build(layer)

    # --- reading ---------------------------------------------------------------------------------
    def open(
        self,
        paths: Iterable[Path],
        *,
        unsaved: Path | None = None,
        otherwise: Callable[[Path], None] | None = None,
        units: Mapping[Path, str] | None = None,
        elements: Mapping[Path, Mapping[str, str]] | None = None,
    ) -> Job | None:
        """Open `paths`; `otherwise` is called for those that hold nothing of ours.

        Others that are being opened go on; the very same paths begin anew.

        Parameters
        ----------
        paths
            Files and folders.
        unsaved
            As of `load`.
        otherwise
            None says what is wrong with them.
        units, elements
            As of `load`; what was said so far then stays.

        Returns
        -------
        The work, whose result is what `load` returns; None without paths.
        """
        chosen = [Path(path) for path in paths]
        if not chosen:
            return None
        if units is None and elements is None and not self._jobs.active:
            self._messages.clear()
        self._in_batch = 0
        named = chosen[0].name if len(chosen) == 1 else f"{len(chosen)} files"
        open_now = [state.slide for state in self._workspace.slides if state.slide is not None]
        return self._jobs.run(
            "open " + " ".join(str(path) for path in chosen),  # beside others that are being opened
            load(
                chosen,
                known=open_now,
                unsaved=unsaved,
                units=units,
                tables=self._known_spots(),
                elements=elements,
                images=[slide.path for slide in open_now],
                warmed=self._spare_loaded,
            ),
            f"Open {named}",
            on_step=self._on_step,
            on_result=lambda arrived: self._on_arrived(arrived, otherwise, elements or {}),
            on_cancelled=lambda: self._messages.add("notice", f"Opening {named} was cancelled."),
        )

    def _spare_loaded(self) -> None:
        """Spare what was loaded for the first slide; called in the worker, before that slide is read.

        Later what slides left behind would be spared too, and so never be freed.
        """
        viewer = self._session.viewer
        if getattr(viewer, "window", None) is not None and self._workspace.untouched:
            spare_loaded(viewer, again=True)

    def _known_spots(self) -> tuple[KnownSpots, ...]:
        """Return the spots of each slide, of its table or else its prediction; that shown comes first."""
        found = []
        for state in sorted(self._workspace.slides, key=lambda state: state is not self._workspace.current):
            if state.from_table and state.table is not None and state.table_path is not None:
                found.append(KnownSpots(state.name, state.table.spots, state.table_path.name))
            elif state.shown is not None:
                found.append(KnownSpots(state.name, spots_of(state.shown.adata), state.shown.name))
        return tuple(found)

    def open_slide_of(self, state: SlideState, path: Path) -> None:
        """Open `path` as the slide of a prediction whose slide was not found, if it has the same size."""
        self._messages.clear()
        self._jobs.run(
            f"slide of {state.number}",
            inputs.open_with_pyramid(path),
            f"Open {path.name}",
            on_result=partial(self._on_slide_of, state),
        )

    def _on_slide_of(self, state: SlideState, slide: "Slide") -> None:
        try:
            if state.adata is not None:
                refuse_other_size(state.adata, slide)
        except UserError as error:
            self._messages.show_error(error)
            return
        state.slide = slide
        if state.adata is not None:
            self._hold_to_slide(state, state.adata)
        self._workspace.bring_picture(state)
        self.slideAttached.emit(state)

    def _on_step(self, step: Step) -> None:
        if step.notice:
            self._messages.add("notice", step.notice)
        if isinstance(step.partial, Opened):
            self.attach(step.partial)

    def _on_arrived(
        self,
        arrived: Arrived,
        otherwise: Callable[[Path], None] | None,
        elements: Mapping[Path, Mapping[str, str]],
    ) -> None:
        if otherwise is not None:
            for path in arrived.strangers:
                otherwise(path)
        if arrived.workspace is not None:
            self._look_as_in(arrived.workspace, arrived.gene_sets)
        if arrived.no_unit:
            QTimer.singleShot(0, partial(self._ask_units, arrived.no_unit))  # after the job has ended
        if arrived.unclear:
            QTimer.singleShot(0, partial(self._ask_elements, arrived.unclear, elements))

    def _look_as_in(self, whole: WorkspaceFile, sets: Mapping[str, Sequence[str]] | None) -> None:
        """Show the slide, gene and quantity that a workspace was saved with, and look for its gene sets.

        `sets` are those of its GMT file; where that could not be read, which was said, the sets at hand stay.
        """
        if whole.current is not None and whole.current < len(whole.slides):
            state = self._slide_of_entry(whole.slides[whole.current])
            if state is not None:
                self._workspace.show(state)
        if whole.gene and self._session.adata is not None and whole.gene in self._session.adata.var_names:
            self._session.select_gene(whole.gene)
        for quantity in Quantity:
            if quantity.value == whole.quantity:
                self._session.show_quantity(quantity)
        before, file = self._session.gene_sets_file, whole.gene_sets
        if file is None:
            sets = bundled()
        if sets is None or (file is None and before is None):
            return
        self._session.set_gene_sets(sets, file)
        if before is not None and before != file:
            self._messages.add(
                "notice",
                "The gene sets are those that the workspace was saved with "
                f"({self._session.gene_sets_name}), no longer those of {before.name}; read that file again "
                "to look for them.",
            )

    def _slide_of_entry(self, entry: WorkspaceSlide) -> SlideState | None:
        """Return the slide that an entry of a workspace became: another of its name may be open."""
        for state in self._workspace.slides:
            if state.slide is not None and Path(os.path.abspath(state.slide.path)) == entry.slide:
                return state
        return next((state for state in self._workspace.slides if state.name == entry.name), None)

    def _ask_elements(self, unclear: Sequence[Unclear], elements: Mapping[Path, Mapping[str, str]]) -> None:
        """Ask which elements of SpatialData zarrs are meant, and open those that were answered for."""
        chosen = {}
        for question in unclear:
            name = self.ask_element(question)
            if name is None:
                self._messages.add(
                    "notice",
                    f"{question.store.name} was not opened, since none of its {len(question.names)} "
                    f"{question.what} was chosen.",
                )
                continue
            chosen[question.store] = {**elements.get(question.store, {}), question.option: name}
        if chosen:
            self.open(tuple(chosen), elements=chosen)

    def ask_element(self, question: Unclear) -> str | None:
        """Ask which of several elements is meant; None where the zarr is not to be opened."""
        text = (
            f"{question.store.name} holds {len(question.names)} {question.what}. Which one is to be opened?"
        )
        window = self._messages.window()
        name, sure = QInputDialog.getItem(window, "Open SpatialData", text, question.names, 0, False)
        return name if sure else None

    def _ask_units(self, files: Sequence[Path]) -> None:
        """Ask what files of other programs hold, and open those that were answered for."""
        units = {file: unit for file in files if (unit := self.ask_unit(file)) is not None}
        for file in files:
            if file not in units:
                self._messages.add(
                    "notice", f"{file.name} was not opened, since the unit of its values is not known."
                )
        if units:
            self.open(tuple(units), units=units)

    def ask_unit(self, file: Path) -> str | None:
        """Ask for the unit of the values in `file`; None where it is not to be opened."""
        box = QMessageBox(self._messages.window())
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("Open prediction")
        box.setText(f"{file.name} does not state the unit of its values. What do they mean?")
        box.setInformativeText(
            "Ask the person who made the file where you are not sure: with a wrong unit the scores are "
            "wrong. The answer is kept with the workspace; the file is not changed."
        )
        units: dict[Any, str] = {
            box.addButton(text, QMessageBox.ButtonRole.AcceptRole): unit for unit, text in UNITS.items()
        }
        box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
        box.exec()
        return units.get(box.clickedButton())

    # --- attaching -------------------------------------------------------------------------------
    def attach(self, opened: Opened) -> None:
        """Attach what was read to the slide it belongs to; what belongs to none yet waits for one."""
        if opened.slide is not None or opened.predictions:
            state = self._place_of(opened)
            self._attach_to(state, opened)
            self._in_batch += 1
            if self._in_batch == 1:  # of many, the first is looked at while the others come
                self._workspace.show(state)
            if state is self._session.state and opened.predictions:
                self._session.show_result(state)
            self.slideAttached.emit(state)
            if opened.predictions:
                self.predictionAttached.emit()
            self._attach_waiting()
        elif (target := self._target_of(opened)) is not None:
            self._attach_to(target, opened)
        elif (shown := self._session.state) is not None and (
            self._attach_pooled(shown, opened) or self._attach_counts(shown, opened)
        ):
            return  # of a prediction whose slide is not open
        elif opened.counts is not None and keys.SPATIAL in opened.counts.obsm:
            self._session.set_prediction(opened.counts)  # positions and expression, of no slide that is open
        else:
            self._waiting.append(opened)
            self._messages.add("notice", f"{opened.file.name} is kept until its slide is opened.")

    def _place_of(self, opened: Opened) -> SlideState:
        """Return the slide in the workspace that `opened` is, or a new one."""
        if opened.slide is not None:
            state = self._workspace.place_for(opened.slide, opened.name)
        else:
            adata, name, file = opened.predictions[0]
            held = self._held(adata, file)
            known = None if held is None else self._workspace.state_of(held.adata)
            owner = known or self._named_after(adata, opened)
            state = known or self._workspace.add_result(adata, owner, file=file, name=name)
        return state

    def _named_after(self, adata: "AnnData", opened: Opened) -> SlideState | None:
        """Return the slide that another program's file is named after, if all its spots lie on that."""
        if not is_foreign(adata):
            return None
        state = self._owner_of(_file_of(opened.file))
        if state is None or state.slide is None or not lies_on(adata, state.slide):
            return None
        return state

    def _target_of(self, opened: Opened) -> SlideState | None:
        """Return the slide a table or regions are named after, else the one that is shown."""
        shown = self._session.state
        named = self._owner_of(opened.file)
        return named or (shown if shown is not None and shown.slide is not None else None)

    def _owner_of(self, file: Path) -> SlideState | None:
        """Return the slide that a file is named after; of several of one name that beside it, or shown."""
        slides = [(state, state.slide) for state in self._workspace.slides if state.slide is not None]
        names = [name for state, slide in slides for name in (state.name, slide.name)]
        owner = discovery.owner_of(file.name, names)
        named = [(state, slide) for state, slide in slides if owner in (state.name, slide.name)]
        folder = Path(os.path.abspath(file)).parent
        beside = [state for state, slide in named if Path(os.path.abspath(slide.path)).parent == folder]
        candidates = beside or [state for state, _ in named]
        shown = self._session.state
        return shown if shown in candidates else next(iter(candidates), None)

    def _attach_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for opened in waiting:
            self.attach(opened)

    def _attach_to(self, state: SlideState, opened: Opened) -> None:
        if self._attach_pooled(state, opened) or self._attach_counts(state, opened):
            return
        if opened.measured is not None and opened.table is None:
            state.measured_path = opened.measured
        if opened.table is not None and (state.table is None or not opened.predictions):
            state.from_table, state.table_path = True, opened.table
            state.measured_path = opened.measured
            self._workspace.set_spots(state, _spots_in(opened))
        elif opened.grid is not None and state.table is None:
            state.from_table, state.grid = False, opened.grid
        shown = None
        for adata, name, file in opened.predictions:
            result = self._add_result(state, adata, name, file)
            shown = result if adata is opened.shown else shown
        if opened.slide is not None and not opened.predictions and state.adata is not None:
            self._hold_to_slide(state, state.adata)  # a prediction that was opened first
        if shown is not None:
            state.shown = shown
        if opened.regions:
            self._draw(state, opened.regions)
        if opened.slide is None and not opened.predictions:
            if opened.table is not None:
                self.slideAttached.emit(state)
            self._messages.add("notice", f"{opened.file.name} was attached to {state.name}.")

    def _held(self, adata: "AnnData", file: Path | None) -> "Result | None":
        """Return what is open of the same file; another program's may be read another way the next time."""
        return None if is_foreign(adata) else self._workspace.held(file)

    def _add_result(
        self, state: SlideState, adata: "AnnData", name: str, file: Path | None
    ) -> "Result | None":
        """Keep a prediction of a slide, or show the one that is open of its file."""
        held = self._held(adata, file)
        if held is not None and held in state.results:
            if held.adata is not adata and file is not None:
                self._messages.add("notice", f"{file.name} is open already, as {held.name}.")
            adata = held.adata
        self._workspace.add_result(adata, state, file=file, name=name)
        self._hold_to_slide(state, adata)
        return state.shown

    def _attach_pooled(self, state: SlideState, opened: Opened) -> bool:
        """Read counts that are to be pooled for the spots of a slide; False for anything else."""
        source = opened.measured
        if source is None or opened.table is not None or opened.slide is not None or opened.predictions:
            return False
        result = state.shown
        if result is None:
            self.countsAttached.emit(state, source)
            return True
        work = discovery.counts_for(result.adata, source, beside=result.file, slide=state.slide)
        self._jobs.run(
            f"measured {state.number}",
            work,
            f"Read {source.name}",
            on_result=partial(self._on_pooled, state, opened),
        )
        return True

    def _on_pooled(self, state: SlideState, opened: Opened, read: "tuple[AnnData, tuple[str, ...]]") -> None:
        counts, notices = read
        for notice in notices:
            self._messages.add("notice", notice)
        if state in self._workspace.slides and not self._attach_counts(state, replace(opened, counts=counts)):
            self._messages.add(
                "warning", f"{opened.file.name} has too few of the spots and genes of {state.name}."
            )

    def _attach_counts(self, state: SlideState, opened: Opened) -> bool:
        """Attach counts to the prediction that a slide shows; False where they do not belong to it."""
        if state.shown is None or opened.counts is None:
            return False
        try:
            match_names(state.shown.adata, opened.counts)
        except UserError:
            return False
        self._workspace.show(state)
        self._jobs.run(
            f"attach {state.number}",
            ahead.attaching(state.shown.adata, opened.counts),
            f"Attach {opened.file.name}",
            on_result=partial(self._on_attached, state, state.shown, opened),
        )
        return True

    def _on_attached(
        self, state: SlideState, result: "Result", opened: Opened, layer: "MeasuredLayer"
    ) -> None:
        if state in self._workspace.slides:
            self._session.set_measured(opened.counts, result, layer=layer)
            self._messages.add(
                "notice", f"{opened.file.name} was attached to {state.name} as its measurement."
            )

    def _hold_to_slide(self, state: SlideState, adata: "AnnData") -> None:
        """Take the µm/px of a prediction where the slide's are unknown; say where they or contents differ."""
        stated = um_per_px(adata)
        if state.slide is not None and (doubt := doubt_about(adata, state.slide)) is not None:
            self._messages.add("warning", doubt)
        if state.slide is None or stated is None:
            return
        if state.slide.mpp is None:
            self._workspace.set_slide(state, state.slide.with_mpp(stated, FROM_PREDICTION))
        elif abs(state.slide.mpp / stated - 1) > MPP_DIFFERS:
            self._messages.add(
                "warning",
                f"{state.name} is drawn with {resolution(state.slide.mpp, TYPED)} "
                f"({state.slide.mpp_source}), but the prediction was made with "
                f"{resolution(stated, TYPED, unit=False)}; set the µm/px to that if it is right.",
            )

    def _draw(self, state: SlideState, annotations: Sequence[Annotation]) -> None:
        """Draw regions on a slide, in its own layer; none that is drawn there already."""
        annotations = _not_drawn(annotations, regions_of(self._session, state))
        if not annotations:
            return
        viewer = self._session.viewer
        layer = region_shapes.find_layer(self._workspace.layers_of(state))
        if layer is None:
            longest = 1000.0 if state.slide is None else float(max(state.slide.size))
            layer = region_shapes.add_layer(viewer, state.frame, longest)
        placement = region_shapes.Placement.in_frame(state.frame)
        region_shapes.add_annotations(layer, annotations, placement)
        if state is not self._session.state:
            layer.visible = False
            state.visible.append(layer)

    # --- slides that are shown in grey until their pyramid is built ---------------------------------
    def _on_inserted(self, event: Any) -> None:
        self._build(event.value)

    def _on_removed(self, event: Any) -> None:
        self._jobs.cancel(_building(event.value))

    def _on_slide_removed(self, state: SlideState) -> None:
        """End what is being read for a slide that is gone; what goes wrong with it matters to nobody."""
        for what in READ_FOR_SLIDE:
            self._jobs.cancel(f"{what} {state.number}")

    def _build(self, layer: Any) -> None:
        """Build the pyramid of a slide that is shown in grey."""
        if not layer.metadata.get(keys.LAYER_PENDING, False):
            return
        slide = slide_layers.slide_of(layer)
        assert slide is not None
        self._jobs.run(
            _building(layer),
            inputs.open_with_pyramid(slide.path),
            f"Open {slide.path.name}",
            on_result=partial(self._fill, layer),
            on_error=partial(self._on_not_built, layer),
            on_cancelled=partial(self._take_out, layer),
        )

    def _on_not_built(self, layer: Any, error: Exception) -> None:
        self._take_out(layer)
        self._messages.show_error(error)

    def _take_out(self, layer: Any) -> None:
        """Take a slide that stays grey out of the viewer."""
        if layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(layer)

    def _fill(self, layer: Any, slide: "Slide") -> None:
        layer.metadata.pop(keys.LAYER_PENDING, None)
        state = self._workspace.of_layer(layer)
        if state is None or state.slide is None or layer not in self._session.viewer.layers:
            return
        if state.slide.mpp is not None and state.slide.mpp != slide.mpp:  # set by hand meanwhile
            slide = slide.with_mpp(state.slide.mpp, state.slide.mpp_source)
        layer.data = napari_levels(slide)
        layer.metadata[keys.LAYER_SLIDE] = slide
        state.slide = slide
        self.slideAttached.emit(state)


def _building(layer: Any) -> str:
    """Return the purpose of the job that builds the pyramid of a layer."""
    return f"pyramid {id(layer)}"


def _file_of(path: Path) -> Path:
    """Return the zarr that an element is in; any other path as it is."""
    found = spatial_data.element_of(path, spatial_data.TABLES, spatial_data.SHAPES)
    return path if found is None else found[0].path
