"""The foot of the Predict dock: device, quality, Predict, progress, Cancel, and the result."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_flag import inputs, keys
from napari_flag.cache import cache_folder
from napari_flag.formatting import percent
from napari_flag.gui.controls.forms import Choice, MessageList, ShortScroll, form, plain_label
from napari_flag.gui.dock import single_shot
from napari_flag.gui.jobs import Job, Jobs, ProgressStrip
from napari_flag.gui.session import Session
from napari_flag.gui.settings import Preferences
from napari_flag.gui.slide_state import SlideState
from napari_flag.keys import DEFAULT_QUALITY, STEPS_OF
from napari_flag.layers import ahead, slide_layers
from napari_flag.progress import Step, Steps, Timings
from napari_flag.slides.spots import inside

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.inputs import Inputs
    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.prediction import Quality
    from napari_flag.slides.colours import Colours
    from napari_flag.slides.spots import Spots


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """All that a prediction needs, taken from the dock before the work starts."""

    inputs: "Inputs"
    checkpoint: "Checkpoint"
    quality: "Quality"
    device: str
    seed: int
    colours: "Colours | None" = None
    force: bool = False
    keep_names: bool = False

    @property
    def spots(self) -> "Spots":
        """The spots to predict."""
        spots, region = self.inputs.spots, self.inputs.region
        return spots if region is None else spots.take(inside(region, spots.xy))

    @property
    def n_predicted(self) -> int:
        """Number of spots to predict."""
        spots, region = self.inputs.spots, self.inputs.region
        return len(spots) if region is None else int(inside(region, spots.xy).sum())


def load_weights(path: Path) -> Steps["Checkpoint"]:
    """Load a weights file, and the packages that predicting needs while nobody waits for them."""
    yield Step("Loading model", 0)
    import napari_flag.prediction  # noqa: F401
    from napari_flag.model.checkpoint import Checkpoint

    return Checkpoint.load(path)


def find_devices() -> Steps[tuple[tuple[str, str], ...]]:
    """Return the devices torch can use, as (torch's name, what to call it), the best first."""
    yield Step("Finding devices", 0)
    from napari_flag.encoders import features

    return features.list_devices()


MESSAGES_PX: Final = 170
"""Messages take no more room than this from the steps above; more are scrolled."""
QUALITY_TIPS = (
    "fast: fewest solver steps for a draw, for a first look\n"
    "balanced: the default, whose scores differ from the best by a thousandth\n"
    "best: as many solver steps as the model was scored with; takes longest"
)


class RunPanel(QFrame):
    """Device and quality, Predict and the progress strip, messages, and the result.

    Parameters
    ----------
    preferences
        What device and quality start with.
    strip, messages
        Of the dock.
    """

    predictRequested = Signal()
    saveRequested = Signal()
    genesRequested = Signal()
    optionsChanged = Signal()

    def __init__(self, preferences: Preferences, strip: ProgressStrip, messages: MessageList) -> None:
        super().__init__()
        self._wished_device = preferences.device
        self.device = Choice(
            [("finding out…", preferences.device)],
            name="Device",
            tooltip="What the model runs on; a CUDA graphics card is many times faster",
        )
        self.quality = Choice(
            ((quality, quality) for quality in STEPS_OF), name="Quality", tooltip=QUALITY_TIPS, narrow=False
        )
        self.quality.select(preferences.quality)
        for choice in (self.device, self.quality):
            choice.changed.connect(lambda _: self.optionsChanged.emit())
        self.predict = QPushButton("Predict expression")
        self.predict.setStyleSheet("font-weight: bold; padding: 6px;")
        self.predict.clicked.connect(self.predictRequested)
        self.strip, self.messages, self.doubt = strip, messages, MessageList()
        self.result = plain_label()
        self.genes, self.save = (QPushButton(text) for text in ("Genes", "Save…"))
        for button, tooltip, wanted in (
            (self.genes, "Open the Genes page to look at the prediction gene by gene", self.genesRequested),
            (self.save, "Save the result as an AnnData file (.h5ad)", self.saveRequested),
        ):
            button.setToolTip(tooltip)
            button.clicked.connect(wanted)
        self._lay_out()
        self.show_result(None)

    def _lay_out(self) -> None:
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 4)
        box.setSpacing(4)
        self._options = form({"On": self.device, "Quality": self.quality})
        box.addWidget(self._options.native)
        said = QWidget()
        lines = QVBoxLayout(said)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(3)
        lines.addWidget(self.messages)
        lines.addWidget(self.doubt)
        for widget in (self.predict, self.strip, ShortScroll(said, MESSAGES_PX)):
            box.addWidget(widget)
        row = QHBoxLayout()
        row.addWidget(self.result, 1)
        for button in (self.genes, self.save):
            row.addWidget(button)
        box.addLayout(row)

    def set_devices(self, devices: tuple[tuple[str, str], ...]) -> None:
        """List devices as (torch name, what to call it); the wished one is selected if there."""
        self.device.offer(((text, name) for name, text in devices), select=self._wished_device)
        self.device.explain(dict(devices))
        self.optionsChanged.emit()

    def show_idle(self, text: str, why_not: str | None = None) -> None:
        """Show that nothing runs; `why_not` says why Predict cannot be pressed."""
        self.predict.setEnabled(why_not is None)
        self.predict.setToolTip(why_not or "Predict the expression of every gene of the model")
        self.strip.show_idle(why_not or text)

    def show_running(self, job: Job) -> None:
        """Show that `job` has begun, and that Predict has to wait for it."""
        self.allow(f"{job.name} is running")

    def allow(self, why_not: str | None) -> None:
        """Let Predict be pressed, after what runs, unless `why_not` says why it cannot be."""
        self.predict.setEnabled(why_not is None)
        self.predict.setToolTip(why_not or "Predict this slide too, after the one that runs")

    def show_doubt(self, sentence: str | None) -> None:
        """Warn of the result, or of the one in the making; it stays as long as that does."""
        self.doubt.clear()
        if sentence:
            self.doubt.add("warning", sentence)

    def show_result(self, text: str | None) -> None:
        """Show what the result is; None when there is none."""
        self.result.setText(text or "No result yet.")
        self.save.setEnabled(text is not None)
        self.genes.setEnabled(text is not None)


PREVIEW_EVERY_MS: Final = 700
"""The preview is painted at most this often; painting takes time from the prediction itself."""
PREVIEW_SHARE: Final = 0.2
"""Of the window's time that painting it may take: where it takes longer, it is painted less often."""

READING: Final = "Reading tiles"
PREDICTING: Final = "Predicting expression"
COMPARING: Final = "Comparing with the training tissue"
"""As in `prediction`, which takes too long to import before it is needed; a test holds both equal."""

FIRST_GUESS: Final = {
    "Loading the model": 0.01,
    READING: 0.1,
    "Encoding the spatial graph": 0.005,
    PREDICTING: 0.06,
}
"""Seconds per spot and stage on two CPU cores, used until a run on this computer was timed."""


def timings_file() -> Path:
    """Return where the timings of earlier runs are kept."""
    return cache_folder() / "timings.json"


@dataclass(frozen=True, slots=True, eq=False)
class QueuedRun:
    """A prediction that was asked for.

    Parameters
    ----------
    state
        The slide.
    request
        What is predicted.
    already_said
        Notices that need not be shown again.
    """

    state: SlideState
    request: PredictionRequest
    already_said: tuple[str, ...] = ()


class PredictionRun(QObject):
    """Runs predictions one after the other, and carries preview and result to their slides.

    Parameters
    ----------
    panel, jobs
        Of the dock.
    session
        Of the viewer; it keeps the results when the dock closes.
    timings
        What earlier runs took.
    """

    changed = Signal()
    """A prediction began to wait, or ended."""

    def __init__(
        self,
        panel: RunPanel,
        jobs: Jobs,
        session: Session,
        timings: Timings,
    ) -> None:
        super().__init__(panel)
        self._panel, self._jobs = panel, jobs
        self._session, self._timings = session, timings
        self._queue: list[QueuedRun] = []
        self._after: list[QueuedRun] = []
        """Asked for after Cancel was pressed, while what it stops has not ended."""
        self._current: QueuedRun | None = None
        self._job: Job | None = None
        self._preview: AnnData | None = None
        self._paint = single_shot(self, PREVIEW_EVERY_MS, self._show_preview)

    @property
    def running(self) -> bool:
        """Whether a prediction runs."""
        return self._current is not None

    def waiting(self, state: SlideState | None) -> bool:
        """Return whether a slide is being predicted, or waits for it."""
        queued = [self._current, *self._queue, *self._after]
        return any(run is not None and run.state is state for run in queued)

    def expected(self, request: PredictionRequest) -> dict[str, float]:
        """Return the seconds each stage of a prediction is expected to take."""
        key = _timing_key(request)
        seconds = self._timings.expected(key, len(request.inputs.spots))
        if not self._timings.known(key):
            seconds[PREDICTING] *= STEPS_OF[request.quality] / STEPS_OF[DEFAULT_QUALITY]
        if PREDICTING in seconds:  # all spots are read, but only those of the region are sampled
            seconds[PREDICTING] *= request.n_predicted / len(request.inputs.spots)
        return seconds

    def add(self, run: QueuedRun) -> None:
        """Predict as asked, after what was asked for before."""
        stopping = self._job is not None and self._job.stopping
        (self._after if stopping else self._queue).append(run)
        if self._current is None:
            self._start_next()
        else:
            self._session.workspace.set_status(run.state, "queued")
            self.changed.emit()

    def _start_next(self) -> None:
        there = self._session.workspace.slides
        self._queue = [run for run in self._queue if run.state in there]  # one that waited may be removed
        if not self._queue:
            self.changed.emit()
            return
        run = self._current = self._queue.pop(0)
        self._panel.show_doubt(None)
        self._session.workspace.set_status(run.state, "predicting")
        request = run.request
        self._job = self._jobs.run(
            "predict",
            _predict(request),
            f"Predict expression of {run.state.name}",
            on_result=self._on_result,
            on_error=self._on_error,
            on_cancelled=self._on_cancelled,
            on_step=self._on_step,
            expected=self.expected(request),
        )
        self.changed.emit()

    def _on_step(self, step: Step) -> None:
        run, job = self._current, self._job
        if run is None:
            return
        if step.notice and step.stage == COMPARING:
            self._panel.show_doubt(step.notice)
        elif step.notice and step.notice not in run.already_said:
            self._panel.messages.add("notice", f"{run.state.name}: {step.notice}")
        if job is not None and job.fraction is not None:
            self._session.workspace.set_status(run.state, f"predicting {percent(job.fraction)}")
        if step.partial is not None:
            self._preview = step.partial
            if not self._paint.isActive():
                self._paint.start()

    def _show_preview(self) -> None:
        run = self._current
        if run is not None and self._preview is not None and run.state is self._session.state:
            begun = time.perf_counter()
            slide_layers.hide_spots(self._session.viewer, run.state.frame)
            self._session.preview(self._preview, run.state)
            self._paint.setInterval(preview_wait_ms(time.perf_counter() - begun))

    def _on_result(self, adata: "AnnData") -> None:
        run, job = self._current, self._job
        assert run is not None
        assert job is not None
        request, state = run.request, run.state
        seconds = dict(job.time_left.seconds)
        if PREDICTING in seconds:
            seconds[PREDICTING] *= len(request.inputs.spots) / max(request.n_predicted, 1)
        self._timings.record(_timing_key(request), seconds, len(request.inputs.spots))
        self._forget()
        slide_layers.hide_spots(self._session.viewer, state.frame)
        state.visible = [layer for layer in state.visible if layer.metadata.get(keys.LAYER_KIND) != "spots"]
        workspace = self._session.workspace
        if state in workspace.slides:
            workspace.add_result(adata, state)
        else:  # the slide was removed meanwhile; its prediction is not lost
            state = workspace.add_result(adata)
        if state is self._session.state:
            self._session.show_result(state)
        self._start_next()

    def _on_error(self, error: Exception) -> None:
        name = "" if self._current is None else self._current.state.name
        self._put_back()
        self._start_next()
        self._panel.messages.show_error(error, f"{name} was not predicted")

    def _on_cancelled(self) -> None:
        dropped = [run.state for run in self._queue]
        self._queue, self._after = self._after, []
        for state in dropped:
            self._session.workspace.set_status(state, "")
        self._put_back()
        text = "Cancelled; nothing was kept of the unfinished run."
        if dropped:
            text += f" Not begun: {', '.join(state.name for state in dropped)}."
        self._panel.messages.add("notice", text)
        self._start_next()

    def close(self) -> None:
        """Keep nothing of what runs or waits, once the dock has cancelled it because it closes."""
        for waiting in (*self._queue, *self._after):
            self._session.workspace.set_status(waiting.state, "")
        self._queue.clear()
        self._after.clear()
        self._put_back()

    def _put_back(self) -> None:
        """Show the result there was before the preview of this run was painted over it."""
        run = self._current
        self._forget()
        if run is not None and run.state is self._session.state:
            self._session.show_result(run.state)

    def _forget(self) -> None:
        self._paint.stop()
        self._paint.setInterval(PREVIEW_EVERY_MS)
        ended, self._preview, self._job, self._current = self._current, None, None, None
        if ended is not None:
            self._session.workspace.set_status(ended.state, "")


def preview_wait_ms(spent_s: float) -> int:
    """Return the ms to the next preview, of which the last took `spent_s` of the window's time."""
    return max(PREVIEW_EVERY_MS, round(1000 * spent_s / PREVIEW_SHARE))


def _predict(request: PredictionRequest) -> Steps["AnnData"]:
    """Predict, and make what all maps of the prediction need while nobody waits for it."""
    work = inputs.predict_inputs(
        request.inputs,
        request.checkpoint,
        quality=request.quality,
        seed=request.seed,
        device=request.device,
        colours=request.colours,
        force=request.force,
        keep_names=request.keep_names,
    )
    adata = yield from _previewed(work, request)
    yield from ahead.prepare(adata)
    return adata


def _previewed(work: Steps["AnnData"], request: PredictionRequest) -> Steps["AnnData"]:
    """Have each step with a preview hold its AnnData, one for all of them, whose maps are made here."""
    from napari_flag.sampling import Preview, preview_of

    shown = None
    try:
        while True:
            step = next(work)
            if isinstance(step.partial, Preview):
                if shown is None:
                    shown = preview_of(step.partial, request.inputs.slide, request.spots)
                    ahead.prepare_preview(shown)
                step = replace(step, partial=shown)
            yield step
    except StopIteration as stop:
        adata: AnnData = stop.value
        return adata
    finally:
        work.close()


def _timing_key(request: PredictionRequest) -> str:
    return f"{request.checkpoint.name} | {request.device} | {request.quality}"
