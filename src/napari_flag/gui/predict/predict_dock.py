"""The Predict dock: slide, spots, model, region, Predict expression."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from napari_flag.errors import UserError
from napari_flag.files import place_in
from napari_flag.formatting import counted
from napari_flag.gui.controls.file_filters import RESULT_FILES
from napari_flag.gui.controls.forms import ask_save
from napari_flag.gui.dock import Dock, ViewerWatch
from napari_flag.gui.keeping import Keeper
from napari_flag.gui.opening import Opener
from napari_flag.gui.predict.model_step import ModelStep, differences, why_no_estimate, why_not_ready
from napari_flag.gui.predict.run import (
    FIRST_GUESS,
    PredictionRequest,
    PredictionRun,
    QueuedRun,
    RunPanel,
    find_devices,
    load_weights,
    timings_file,
)
from napari_flag.gui.predict.section import Section
from napari_flag.gui.predict.steps import NONE as WHOLE_TISSUE
from napari_flag.gui.predict.steps import RegionStep, SlideStep, SpotsStep
from napari_flag.gui.settings import read_preferences
from napari_flag.gui.slide_state import SlideState
from napari_flag.inputs import grid_of
from napari_flag.layers import slide_layers
from napari_flag.model import checkpoint as weights_files
from napari_flag.prediction_file import output_name, unlike_warning
from napari_flag.progress import Timings, one_step, say_duration
from napari_flag.slides.spots import inside

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.viewer import Viewer

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.prediction import Quality


DRAW_NOW: Final = "Draw the region on the slide: click its corners, double-click to close it."


class PredictDock(Dock):
    """Leads from slide to predicted expression; see the module's parts for each step.

    Parameters
    ----------
    napari_viewer
        The viewer to work in.
    """

    resultOpened = Signal()
    """A prediction was read from a file, and is shown."""
    hide_strip = False
    sleeps = False

    def __init__(self, napari_viewer: "Viewer") -> None:
        super().__init__(napari_viewer)
        self._viewer: Any = self.session.viewer
        self._preferences = read_preferences()
        self._checkpoint: Checkpoint | None = None
        self._chosen: Path | None = None
        self.slide_step, self.spots_step = SlideStep(), SpotsStep()
        self.model_step, self.region_step = ModelStep(), RegionStep()
        chosen = replace(self._preferences, device=self.session.device)
        self.run_panel = RunPanel(chosen, self.strip, self.messages)
        self._lay_out()
        timings = Timings(timings_file(), FIRST_GUESS)
        self._run = PredictionRun(self.run_panel, self.jobs, self.session, timings)
        self.section = Section(self.slide_step, self.spots_step, self.session, self.jobs)
        self.opener = Opener(self.session, self.jobs, self.messages)
        self.opener.slideAttached.connect(self._on_attached)
        self.opener.countsAttached.connect(self.section.attach_counts)
        self.opener.predictionAttached.connect(self.resultOpened)
        self.keeper = Keeper(self.session, self.jobs, self.notify, self.messages.show_error)
        self._watch = ViewerWatch(self, self._viewer)
        self._connect()
        self._start_from_viewer()
        self.jobs.run(
            "weights",
            one_step("Looking for models", weights_files.list_labels),
            "Find models",
            on_result=self._on_weights,
            on_error=self.model_step.show_error,
            stoppable=False,
        )

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Close; what was being predicted is shown as it was before."""
        super().closeEvent(event)
        self._run.close()

    # --- building ---------------------------------------------------------------------------

    def _lay_out(self) -> None:
        steps = QWidget()
        box = QVBoxLayout(steps)
        box.setContentsMargins(4, 4, 4, 4)
        box.setSpacing(6)
        for step in (self.slide_step, self.spots_step, self.model_step, self.region_step):
            box.addWidget(step)
        box.addStretch(1)
        self._steps = QScrollArea()
        self._steps.setWidget(steps)
        self._steps.setWidgetResizable(True)
        self._steps.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._steps.setFrameShape(QScrollArea.Shape.NoFrame)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self._steps, 1)
        whole.addWidget(self.run_panel)
        self.setMinimumWidth(365)

    def _connect(self) -> None:
        self.section.changed.connect(self._refresh)
        self._watch.layersChanged.connect(self._on_layers_changed)
        self._watch.shapesEdited.connect(self._on_shapes_edited)
        self.model_step.weightsChosen.connect(self.load_weights)
        self.model_step.optionChanged.connect(self._refresh)
        self.region_step.regionChanged.connect(self._on_region)
        self.spots_step.area.changed.connect(lambda _: self._on_area())
        self.region_step.drawRequested.connect(self._draw_region)
        self.run_panel.predictRequested.connect(self.predict)
        self.run_panel.optionsChanged.connect(self._refresh)
        self.run_panel.device.changed.connect(self._on_device)
        self.run_panel.saveRequested.connect(self._ask_save)
        self.jobs.started.connect(self.run_panel.show_running)
        self.jobs.idle.connect(self._refresh)
        for signal in (
            self.session.workspace.listChanged,
            self.session.predictionChanged,
            self.session.slideChanged,
            self.session.geneSetsChanged,
        ):
            self.listen(signal, self.keeper.autosave_soon)
        self.listen(self.session.slideChanged, self._on_slide)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self._run.changed.connect(self._refresh)

    def _start_from_viewer(self) -> None:
        """Start where an earlier dock of this viewer stopped, or with a slide that is open.

        A picture opened by another reader is a person's own until it is chosen.
        """
        layers = slide_layers.candidates(self._viewer)
        if self.section.slide is None and layers and slide_layers.slide_of(layers[0]) is not None:
            self.section.choose_layer(layers[0])
        self._on_slide()
        self._on_prediction(self.session.adata)

    def _on_slide(self) -> None:
        """Show the slide that is shown now in all steps."""
        self._list_shapes()  # before a grid is laid in one of them
        self.section.show_slide()
        self._on_layers_changed()

    # --- model --------------------------------------------------------------------------------

    def _on_weights(self, weights: tuple[tuple[str, Path], ...]) -> None:
        wished = self._chosen or self._preferences.weights
        first = wished if wished is not None else (weights[0][1] if weights else None)
        self.model_step.set_weights(weights, first)
        if first is not None and first != self._chosen:  # chosen while the others were looked for
            self.load_weights(first)
        self.jobs.run(
            "machine",
            find_devices(),
            "Find devices",
            on_result=self._on_machine,
            stoppable=False,
        )

    def _on_machine(self, devices: tuple[tuple[str, str], ...]) -> None:
        self.run_panel.set_devices(devices)

    def _on_device(self, name: str) -> None:
        """Have all models of this viewer run on what a person chose."""
        self.session.device = name

    def load_weights(self, path: Path) -> None:
        """Load a weights file and show what it was trained on."""
        self._checkpoint, self._chosen = None, path
        self.model_step.set_weights(self.model_step.weights, path)
        self.model_step.show_checkpoint(None)
        self.model_step.set_state("loading…")
        self._refresh()
        self.jobs.run(
            "model",
            load_weights(path),
            f"Load {path.name}",
            on_result=self._on_checkpoint,
            on_error=self._on_no_model,
            on_cancelled=self._on_no_model,
        )

    def _on_no_model(self, error: Exception | None = None) -> None:
        """Show that no model is chosen, so that the same can be chosen again."""
        self._chosen = None
        self.model_step.set_weights(self.model_step.weights, None)
        if error is not None:
            self.model_step.show_error(error)
        else:
            self.model_step.set_state("not loaded")

    def _on_checkpoint(self, checkpoint: "Checkpoint") -> None:
        self._checkpoint = checkpoint
        self.model_step.show_checkpoint(checkpoint)
        before = self.spots_step.grid()
        self.spots_step.offer_grid(grid_of(checkpoint.card))
        if self.spots_step.grid() != before:
            self.section.lay_grid()
        self._refresh()

    # --- region -------------------------------------------------------------------------------

    def _on_layers_changed(self) -> None:
        self.section.list_slides()
        self._list_shapes()
        state = self.session.state
        if state is not None and state.area is not None and self._is_gone(state, state.area):
            state.area = None
            self.spots_step.lay_soon()
        self._refresh()

    def _list_shapes(self) -> None:
        """Offer the layers with shapes of the slide that is shown, and select those chosen on it."""
        shapes = [(layer.name, layer) for layer in slide_layers.shapes_layers(self.session.layers)]
        state = self.session.state
        region, area = (None, None) if state is None else (state.region, state.area)
        self.region_step.set_regions(shapes, select=WHOLE_TISSUE if region is None else region)
        self.spots_step.set_areas(shapes, select=WHOLE_TISSUE if area is None else area)

    def _is_gone(self, state: SlideState, layer: Any) -> bool:
        """Return whether a person removed a layer of a slide; with its picture it is only put aside."""
        return not any(layer is other for other in (*self._viewer.layers, *state.put_aside))

    def _on_area(self) -> None:
        if self.session.state is not None:
            self.session.state.area = self.spots_step.grid()[1]

    def _on_region(self) -> None:
        if self.session.state is not None:
            self.session.state.region = self.region_step.region
        self._refresh()

    def _on_shapes_edited(self) -> None:
        self.keeper.autosave_soon()
        if self.spots_step.grid()[1] is not None:
            self.section.lay_grid()
        self._refresh()

    def _draw_region(self) -> None:
        if self.section.slide is None:
            sentence = "There is no slide to draw on yet; open one first."
            self.region_step.messages.show_error(UserError(sentence))
            return
        assert self.session.state is not None
        layer = slide_layers.add_region(self._viewer, self.section.slide, self.session.frame)
        self.session.state.region = layer
        self._on_layers_changed()

    def _region(self) -> tuple[tuple[Any, ...] | None, int | None]:
        """Return the chosen region's polygons and how many spots lie inside; None: all."""
        layer, spots = self.region_step.region, self.section.spots
        self.region_step.messages.clear()
        if layer is None or self.section.layer is None:
            return None, None
        if not len(layer.data):
            self.region_step.messages.add("notice", DRAW_NOW)
            return (), 0
        try:
            polygons = self.section.polygons(layer)
            return polygons, 0 if spots is None else int(inside(polygons, spots.xy).sum())
        except UserError as error:
            self.region_step.messages.add("warning", str(error))
            return (), 0

    # --- run ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Say what is ready, what is doubtful, and how long a prediction would take."""
        slide, spots = self.section.slide, self.section.spots
        _, n_inside = self._region()
        self.region_step.show_count(n_inside, 0 if spots is None else len(spots))
        self.slide_step.allow_estimate(why_no_estimate(slide, spots))
        self.model_step.offer_anyway(slide, spots)
        self.model_step.offer_colours(slide)
        self.model_step.offer_names(slide)
        force, colours = self.model_step.anyway, self.model_step.colours
        if self._checkpoint is not None:
            doubts = differences(self._checkpoint, slide, spots, force=force, colours=colours)
            self.model_step.show_differences(doubts)
        busy = self._run.waiting(self.session.state)
        self._steps.setEnabled(not busy)
        why_not = why_not_ready(slide, self.section.choice, self._checkpoint, n_inside, force=force)
        if busy:
            why_not = "This slide is being predicted, or waits for it; Cancel stops that."
        if not self.jobs.active:
            self.run_panel.show_idle("" if why_not else self._estimate_text(), why_not)
        elif self._run.running:  # of another slide, after which this one can wait
            self.run_panel.allow(why_not)

    def _estimate_text(self) -> str:
        request = self._request()
        seconds = sum(self._run.expected(request).values())
        return f"Will take {say_duration(seconds)} for {counted(request.n_predicted, 'spot')}."

    def _request(self) -> PredictionRequest:
        """Return what the steps describe; only when nothing is missing."""
        assert self.session.state is not None
        return self._request_of(self.session.state, self._region()[0])

    def _request_of(self, state: SlideState, region: tuple[Any, ...] | None) -> PredictionRequest:
        assert self._checkpoint is not None
        return PredictionRequest(
            inputs=self.section.prediction_inputs(state, region),
            checkpoint=self._checkpoint,
            quality=cast("Quality", self.run_panel.quality.value),
            device=self.run_panel.device.value,
            seed=self._preferences.seed,
            colours=self.model_step.colours,
            force=self.model_step.anyway,
            keep_names=self.model_step.keep_names,
        )

    def predict(self) -> None:
        """Start the prediction that the steps describe."""
        self._refresh()
        if self.run_panel.predict.isEnabled():
            assert self.session.state is not None
            self._clear_messages()
            said = self.model_step.messages.texts
            self._run.add(QueuedRun(self.session.state, self._request(), said))

    def _clear_messages(self) -> None:
        """Take away what was said before, unless predictions run: what failed of those stays to be read."""
        if not self._run.running:
            self.messages.clear()

    @property
    def unpredicted(self) -> list[SlideState]:
        """The slides that have no prediction, and are not being predicted nor wait for it."""
        slides = self.session.workspace.slides
        return [state for state in slides if not state.results and not self._run.waiting(state)]

    def predict_all(self) -> None:
        """Predict every slide that has no prediction yet, one after the other; say which cannot be."""
        self._clear_messages()
        for state in self.unpredicted:
            why_not = why_not_ready(state.slide, state.table, self._checkpoint, None)
            if why_not is not None:
                self.messages.add("warning", f"{state.name} is left out: {why_not}")
                continue
            self._run.add(QueuedRun(state, self._request_of(state, None)))

    # --- result -------------------------------------------------------------------------------

    def _on_prediction(self, adata: "AnnData | None") -> None:
        text = None if adata is None else f"{counted(adata.n_obs, 'spot')} × {counted(adata.n_vars, 'gene')}"
        self.run_panel.show_result(text)
        self.run_panel.show_doubt(unlike_warning(adata))

    def save(self, path: Path) -> None:
        """Save the result as h5ad, with the regions drawn on its slide."""
        self._clear_messages()
        self.keeper.save_result(path)

    def _on_attached(self, state: SlideState) -> None:
        """Find the spots of a slide that was opened with its table, or without."""
        self.section.find_spots(state)
        self.section.offer_counts(state)
        self._on_slide()

    def _ask_save(self) -> None:
        adata = self.session.adata
        name, ends = ("prediction", ".h5ad") if adata is None else (output_name(adata), "_predicted.h5ad")
        path = ask_save(self, "Save result", place_in(Path(), name, ends).name, RESULT_FILES)
        if path is not None:
            self.save(path)
