"""The foot of the main dock: device, quality, Predict, progress, Cancel, and the result."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_flag import inputs, keys
from napari_flag.gui.controls.forms import MessageList, narrow, plain_label
from napari_flag.gui.jobs import Errands
from napari_flag.gui.session import Session
from napari_flag.gui.settings import QUALITIES, Preferences
from napari_flag.layers import slide_layers
from napari_flag.progress import Step, Steps, TimeLeft, Timings, describe_step
from napari_flag.slides.spots import inside

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.inputs import Inputs
    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.prediction import Quality
    from napari_flag.sampling import Preview
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """All that a prediction needs, taken from the dock before the work starts."""

    inputs: "Inputs"
    checkpoint: "Checkpoint"
    quality: "Quality"
    device: str
    seed: int

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
    yield Step("Looking at this computer", 0)
    from napari_flag.encoders import features

    return features.list_devices()


QUALITY_TIPS = (
    "fast: fewest samples, for a first look\n"
    "balanced: the default, as reported for the model\n"
    "best: most samples, takes longest"
)


class RunPanel(QFrame):
    """Starts, shows and stops work; asks for nothing itself but device and quality."""

    predictRequested = Signal()
    cancelRequested = Signal()
    saveRequested = Signal()
    openRequested = Signal()
    genesRequested = Signal()
    optionsChanged = Signal()

    def __init__(self, preferences: Preferences, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._wished_device = preferences.device
        self.device = narrow(QComboBox())
        self.device.addItem("finding out…", preferences.device)
        self.device.setAccessibleName("Device")
        self.device.setToolTip("What the model runs on; a CUDA graphics card is many times faster")
        self.quality = QComboBox()
        self.quality.addItems(list(QUALITIES))
        self.quality.setCurrentText(preferences.quality)
        self.quality.setAccessibleName("Quality")
        self.quality.setToolTip(QUALITY_TIPS)
        self.device.currentIndexChanged.connect(self.optionsChanged)
        self.quality.currentIndexChanged.connect(self.optionsChanged)
        self.predict = QPushButton("Predict expression")
        self.predict.setStyleSheet("font-weight: bold; padding: 6px;")
        self.predict.clicked.connect(self.predictRequested)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop what is running; what you had before is kept (Esc)")
        self.cancel.clicked.connect(self.cancelRequested)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.status = plain_label()
        self.status.setAccessibleName("Progress")
        self.messages = MessageList()
        self.doubt = MessageList()
        self._lay_out()
        self.show_result(None)
        self.show_idle("")

    def _lay_out(self) -> None:
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 4)
        box.setSpacing(4)
        options = QHBoxLayout()
        options.addWidget(QLabel("On"))
        options.addWidget(self.device, 1)
        options.addWidget(QLabel("Quality"))
        options.addWidget(self.quality)
        box.addLayout(options)
        go = QHBoxLayout()
        go.addWidget(self.predict, 1)
        go.addWidget(self.cancel)
        box.addLayout(go)
        box.addWidget(self.bar)
        box.addWidget(self.status)
        box.addWidget(self.messages)
        self.result = plain_label()
        self.genes = QPushButton("Genes")
        self.genes.setToolTip("Open the Genes dock to look at the prediction gene by gene")
        self.genes.clicked.connect(self.genesRequested)
        self.save = QPushButton("Save…")
        self.save.setToolTip("Save the result as an AnnData file (.h5ad)")
        self.save.clicked.connect(self.saveRequested)
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open a result saved before (.h5ad)")
        self.open.clicked.connect(self.openRequested)
        box.addWidget(self.doubt)
        row = QHBoxLayout()
        row.addWidget(self.result, 1)
        for button in (self.genes, self.save, self.open):
            row.addWidget(button)
        box.addLayout(row)

    def set_devices(self, devices: tuple[tuple[str, str], ...]) -> None:
        """List devices as (torch name, what to call it); the wished one is selected if there."""
        self.device.blockSignals(True)
        self.device.clear()
        for name, text in devices:
            self.device.addItem(text, name)
        self.device.setCurrentIndex(max(self.device.findData(self._wished_device), 0))
        self.device.blockSignals(False)
        for i, (_, text) in enumerate(devices):
            self.device.setItemData(i, text, Qt.ItemDataRole.ToolTipRole)
        self.optionsChanged.emit()

    def show_idle(self, text: str, why_not: str | None = None) -> None:
        """Show that nothing runs; `why_not` says why Predict cannot be pressed."""
        self.bar.setRange(0, 1000)
        self.bar.setValue(0)
        self.cancel.setEnabled(False)
        self.predict.setEnabled(why_not is None)
        self.predict.setToolTip(why_not or "Predict the expression of every gene of the model")
        self.status.setText(why_not or text)

    def show_running(self, name: str) -> None:
        """Show that `name` has begun."""
        self.predict.setEnabled(False)
        self.predict.setToolTip(f"{name} is running")
        self.cancel.setEnabled(True)
        self.bar.setRange(0, 0)
        self.status.setText(f"{name}…")

    def show_stopping(self) -> None:
        """Show that Cancel was heard."""
        self.cancel.setEnabled(False)
        self.status.setText("Cancelling…")

    def show_step(self, step: Step, fraction: float | None, left_s: float | None) -> None:
        """Show how far the work is: stage, count, and time left where it is known."""
        if fraction is None:
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, 1000)
            self.bar.setValue(round(1000 * min(max(fraction, 0.0), 1.0)))
        self.status.setText(describe_step(step, left_s))

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


STEPS_AGAINST_BALANCED: Final = {"fast": 0.6, "balanced": 1.0, "best": 2.0}
"""Solver steps of each quality against the default (see `prediction.STEPS_OF`)."""

PREVIEW_EVERY_MS: Final = 700
"""The preview is painted at most this often; painting takes time from the prediction itself."""

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
    from platformdirs import user_cache_path

    return Path(user_cache_path("napari-flag", appauthor=False)) / "timings.json"


class JobView(QObject):
    """Shows jobs on the run panel: the one started last, with stage, count and time left.

    Parameters
    ----------
    panel
        Where to show them.
    errands
        Whose jobs.
    on_idle
        Called when the last one ended, to say what can be done next.
    """

    def __init__(self, panel: RunPanel, errands: Errands, on_idle: Callable[[], None]) -> None:
        super().__init__(panel)
        self._panel, self._on_idle = panel, on_idle
        self._jobs: list[Any] = []
        self._shown: Any = None
        self.time_left = TimeLeft()
        self._begun = 0.0
        self._fraction = 0.0
        errands.started.connect(self._on_started)
        panel.cancelRequested.connect(self.cancel)

    @property
    def busy(self) -> bool:
        """Whether any job runs."""
        return bool(self._jobs)

    def expect(self, seconds: dict[str, float]) -> None:
        """Say what the job that was just started is expected to take, stage by stage."""
        self.time_left = TimeLeft(seconds)

    def cancel(self) -> None:
        """Cancel the job that is shown."""
        if self._shown is not None:
            self._panel.show_stopping()
            self._shown.cancel()

    def _on_started(self, job: Any) -> None:
        self._jobs.append(job)
        self._show(job)
        job.stepped.connect(self._on_step)
        job.ended.connect(self._on_ended)

    def _show(self, job: Any) -> None:
        self._shown = job
        self.time_left, self._begun, self._fraction = TimeLeft(), time.monotonic(), 0.0
        self._panel.show_running(job.name)

    def _on_step(self, step: Step) -> None:
        if self.sender() is not self._shown:
            return
        left = self.time_left.update(step)
        fraction = step.done / step.total if step.total else None
        if left is not None:
            spent = time.monotonic() - self._begun
            self._fraction = max(self._fraction, spent / max(spent + left, 1e-6))
            fraction = self._fraction
        self._panel.show_step(step, fraction, left)

    def _on_ended(self) -> None:
        job = self.sender()
        self._jobs = [other for other in self._jobs if other is not job]
        if self._jobs and job is self._shown:
            self._show(self._jobs[-1])
        elif not self._jobs:
            self._shown = None
            self._on_idle()


class PreviewBuilder:
    """Collects the chunks of a running prediction into an AnnData of the spots done so far.

    Parameters
    ----------
    inputs
        As given to the prediction.
    """

    def __init__(self, inputs: "Inputs") -> None:
        spots, region = inputs.spots, inputs.region
        self._spots: Spots = spots if region is None else spots.take(inside(region, spots.xy))
        self._slide: Slide = inputs.slide
        self._rows: list[Any] = []
        self._values: list[Any] = []
        self._genes: Sequence[str] = ()

    def add(self, preview: "Preview") -> None:
        """Add one chunk."""
        self._rows.append(preview.rows)
        self._values.append(preview.values)
        self._genes = preview.genes

    def adata(self) -> "AnnData":
        """Return the spots done so far, in the order of the spots; a later chunk wins."""
        from anndata import AnnData

        rows = np.concatenate(self._rows)[::-1]
        values = np.concatenate(self._values)[::-1]
        rows, first = np.unique(rows, return_index=True)
        spots = self._spots.take(rows)
        adata = AnnData(X=np.ascontiguousarray(values[first], dtype=np.float32))
        adata.obs_names = list(spots.ids)
        adata.var_names = list(self._genes)
        adata.obsm[keys.SPATIAL] = spots.xy
        if spots.array is not None:
            adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = spots.array.T
        width, height = self._slide.size
        adata.uns[keys.PROVENANCE] = {
            key: value
            for key, value in {
                keys.UNITS: keys.EXPRESSION_UNITS,
                keys.SLIDE_NAME: self._slide.name,
                keys.SLIDE_WIDTH: width,
                keys.SLIDE_HEIGHT: height,
                keys.MPP: self._slide.mpp,
                keys.SPOT_DIAMETER_UM: spots.diameter_um,
                keys.SPOT_PITCH_UM: spots.pitch_um,
                keys.LATTICE: spots.lattice,
            }.items()
            if value is not None
        }
        return adata


class PredictionRun(QObject):
    """Starts predictions and carries preview and result to the session.

    Parameters
    ----------
    panel, errands, view
        Of the dock.
    session
        Of the viewer; it keeps the result when the dock closes.
    timings
        What earlier runs took.
    """

    def __init__(
        self,
        panel: RunPanel,
        errands: Errands,
        view: JobView,
        session: Session,
        timings: Timings,
    ) -> None:
        super().__init__(panel)
        self._panel, self._errands, self._view = panel, errands, view
        self._session, self._timings = session, timings
        self._request: PredictionRequest | None = None
        self._builder: PreviewBuilder | None = None
        self._already_said: tuple[str, ...] = ()
        self._paint = QTimer(self)
        self._paint.setSingleShot(True)
        self._paint.setInterval(PREVIEW_EVERY_MS)
        self._paint.timeout.connect(self._show_preview)

    @property
    def running(self) -> bool:
        """Whether a prediction runs."""
        return self._errands.running("predict")

    def expected(self, request: PredictionRequest) -> dict[str, float]:
        """Return the seconds each stage of a prediction is expected to take."""
        key = _timing_key(request)
        seconds = self._timings.expected(key, len(request.inputs.spots))
        if not self._timings.known(key):
            seconds[PREDICTING] *= STEPS_AGAINST_BALANCED[request.quality]
        if PREDICTING in seconds:  # all spots are read, but only those of the region are sampled
            seconds[PREDICTING] *= request.n_predicted / len(request.inputs.spots)
        return seconds

    def start(self, request: PredictionRequest, already_said: tuple[str, ...] = ()) -> None:
        """Start to predict; notices among `already_said` are not shown again."""
        self._request, self._already_said = request, already_said
        self._builder = PreviewBuilder(request.inputs)
        self._panel.messages.clear()
        self._panel.show_doubt(None)
        self._errands.start(
            "predict",
            inputs.predict_inputs(
                request.inputs,
                request.checkpoint,
                quality=request.quality,
                seed=request.seed,
                device=request.device,
            ),
            "Predict expression",
            on_done=self._on_done,
            on_failed=self._on_failed,
            on_cancelled=self._on_cancelled,
            on_step=self._on_step,
        )
        self._view.expect(self.expected(request))

    def _on_step(self, step: Step) -> None:
        if step.notice and step.stage == COMPARING:
            self._panel.show_doubt(step.notice)
        elif step.notice and step.notice not in self._already_said:
            self._panel.messages.add("notice", step.notice)
        if step.partial is not None and self._builder is not None:
            self._builder.add(step.partial)
            if not self._paint.isActive():
                self._paint.start()

    def _show_preview(self) -> None:
        if self.running and self._builder is not None:
            slide_layers.hide_spots(self._session.viewer)
            self._session.preview(self._builder.adata())

    def _on_done(self, adata: "AnnData") -> None:
        request = self._request
        assert request is not None
        self._forget()
        seconds = dict(self._view.time_left.seconds)
        if PREDICTING in seconds:
            seconds[PREDICTING] *= len(request.inputs.spots) / max(request.n_predicted, 1)
        self._timings.record(_timing_key(request), seconds, len(request.inputs.spots))
        slide_layers.hide_spots(self._session.viewer)
        self._session.set_prediction(adata, request.inputs.slide)

    def _on_failed(self, error: Exception) -> None:
        self._put_back()
        self._panel.messages.show_error(error)

    def _on_cancelled(self) -> None:
        self._put_back()
        self._panel.messages.add("notice", "Cancelled; nothing was kept of the unfinished run.")

    def _put_back(self) -> None:
        """Show the result there was before the preview of this run was painted over it."""
        self._forget()
        self._session.set_prediction(self._session.adata)

    def _forget(self) -> None:
        self._paint.stop()
        self._builder = self._request = None


def _timing_key(request: PredictionRequest) -> str:
    return f"{request.checkpoint.name} | {request.device} | {request.quality}"
