"""Running one prediction from the dock: progress, live preview, result."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject, QTimer

from napari_flag.progress import Step
from napari_flag.widgets import slide_layers
from napari_flag.widgets.errands import Errands
from napari_flag.widgets.run_panel import RunPanel
from napari_flag.widgets.session import Session
from napari_flag.widgets.tasks import PredictionRequest, PreviewBuilder, Tasks
from napari_flag.widgets.time_left import TimeLeft, Timings

if TYPE_CHECKING:
    from anndata import AnnData

STEPS_AGAINST_BALANCED: Final = {"fast": 0.6, "balanced": 1.0, "best": 2.0}
"""Solver steps of each quality against the default (see `pipeline.STEPS_OF`)."""

PREVIEW_EVERY_MS: Final = 700
"""The preview is painted at most this often; painting takes time from the prediction itself."""

READING: Final = "Reading tiles"
PREDICTING: Final = "Predicting expression"
COMPARING: Final = "Comparing with the training tissue"
"""As in `pipeline`, which takes too long to import before it is needed; a test holds both equal."""

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


class PredictionRun(QObject):
    """Starts predictions and carries preview and result to the session.

    Parameters
    ----------
    panel, errands, view
        Of the dock.
    session
        Of the viewer; it keeps the result when the dock closes.
    tasks
        The work itself.
    timings
        What earlier runs took.
    """

    def __init__(
        self,
        panel: RunPanel,
        errands: Errands,
        view: JobView,
        session: Session,
        tasks: Tasks,
        timings: Timings,
    ) -> None:
        super().__init__(panel)
        self._panel, self._errands, self._view = panel, errands, view
        self._session, self._tasks, self._timings = session, tasks, timings
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
        seconds = self._timings.expected(key, len(request.spots))
        if not self._timings.known(key):
            seconds[PREDICTING] *= STEPS_AGAINST_BALANCED[request.quality]
        if PREDICTING in seconds:  # all spots are read, but only those of the region are sampled
            seconds[PREDICTING] *= request.n_predicted / len(request.spots)
        return seconds

    def start(self, request: PredictionRequest, already_said: tuple[str, ...] = ()) -> None:
        """Start to predict; notices among `already_said` are not shown again."""
        self._request, self._already_said = request, already_said
        self._builder = PreviewBuilder(request.spots, request.slide, request.region)
        self._panel.messages.clear()
        self._panel.show_doubt(None)
        self._errands.start(
            "predict",
            self._tasks.predict(request),
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
            seconds[PREDICTING] *= len(request.spots) / max(request.n_predicted, 1)
        self._timings.record(_timing_key(request), seconds, len(request.spots))
        slide_layers.hide_spots(self._session.viewer)
        self._session.set_prediction(adata, request.slide)

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
