"""The only bridge between long work and the window.

Long work is a generator of `Step` (see `napari_flag.progress`).  `Job` runs it in napari's
generator worker, so napari knows of it (it asks before closing), and hands its signs of life to the
window's own thread.  No widget is read or touched in the worker's thread: what the work needs is
given to the generator before it starts.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QShortcut, QWidget

from napari_flag.gui.controls.forms import plain_label
from napari_flag.progress import Step, Steps, describe_step

STEP_INTERVAL_S: Final = 0.1
"""The window is told at most ten times a second; more would only cost time to paint."""

CANCEL_GRACE_MS: Final = 800
"""Work yields twice a second, so it has normally ended by then; the window is freed either way."""


@dataclass(frozen=True, slots=True)
class _Done:
    result: Any


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


def _drain(steps: Steps[Any], stop: threading.Event) -> Generator[Step, None, _Done | _Failed | None]:
    """Run `steps` and yield those the window should see, at most ten a second.

    A step that carries a notice or a partial result always passes.
    """
    told, stage = float("-inf"), None
    try:
        while not stop.is_set():
            try:
                step = next(steps)
            except StopIteration as ended:
                return _Done(ended.value)
            now = time.monotonic()
            whole = step.total is not None and step.done >= step.total
            must_pass = step.notice is not None or step.partial is not None
            if must_pass or whole or step.stage != stage or now - told >= STEP_INTERVAL_S:
                told, stage = now, step.stage
                yield step
    except Exception as error:  # noqa: BLE001 - carried to the window's thread and shown there
        # napari would open a traceback popup, and takes any RuntimeError (torch's among them)
        # for a deleted worker and drops it.
        return _Failed(error)
    finally:
        steps.close()
    return None


class _StepsWorker(GeneratorWorker):  # type: ignore[misc]
    """napari's worker, which also stops between two steps that are not shown."""

    def __init__(
        self,
        function: Callable[..., Generator[Step, None, Any]],
        steps: Steps[Any],
        stop: threading.Event,
    ) -> None:
        super().__init__(function, steps, stop)
        self._steps = steps
        self._stop = stop

    def quit(self) -> None:
        self._stop.set()
        super().quit()

    def work(self) -> Any:
        try:
            return super().work()
        finally:
            self._gen.close()  # superqt only lets go of it, and it would close at some later time


def _named(name: str) -> Callable[..., Generator[Step, None, Any]]:
    """Return a drain that napari's "still running" question shows by `name`."""

    def drain(steps: Steps[Any], stop: threading.Event) -> Generator[Step, None, Any]:
        return (yield from _drain(steps, stop))

    drain.__qualname__ = f"napari-flag: {name}"
    return drain


class Job(QObject):
    """Long work running in a thread, with signals in the window's thread.

    Exactly one of `finished`, `failed` and `cancelled` is emitted, then `ended`.  After `cancel`
    no further step arrives and the work is closed at its next yield.  A job keeps itself alive
    while it runs; receivers that are deleted meanwhile are simply no longer told.

    Parameters
    ----------
    steps
        The work; it must not have been started.
    name
        What it is, as a person would say it: "Predict expression".
    """

    stepped = Signal(object)  # Step
    finished = Signal(object)  # the work's result
    failed = Signal(object)  # Exception
    cancelled = Signal()
    ended = Signal()

    _running: set["Job"] = set()  # noqa: RUF012 - shared on purpose: keeps running jobs alive

    def __init__(self, steps: Steps[Any], name: str) -> None:
        super().__init__()
        self.name = name
        self._stop = threading.Event()
        self._outcome: _Done | _Failed | None = None
        self._over = False
        self._worker: Any = create_worker(
            _named(name), steps, self._stop, _worker_class=_StepsWorker, _start_thread=False
        )
        with suppress(TypeError, RuntimeError):  # not connected, which depends on the Qt binding
            # Libraries warn developers; napari would show each of these warnings as a popup.
            self._worker.warned.disconnect()
        self._worker.yielded.connect(self._on_yielded)
        self._worker.returned.connect(self._on_returned)
        self._worker.finished.connect(self._on_thread_finished)

    @property
    def running(self) -> bool:
        """Whether its end has not been told yet."""
        return not self._over

    def start(self) -> "Job":
        """Start the work and return the job."""
        Job._running.add(self)
        self._worker.start()
        return self

    def cancel(self) -> None:
        """Stop the work at its next yield; `cancelled` follows within a second."""
        if self._over or self._stop.is_set():
            return
        self._worker.quit()
        QTimer.singleShot(CANCEL_GRACE_MS, self._conclude)

    def _on_yielded(self, step: Step) -> None:
        if not self._over and not self._stop.is_set():
            self.stepped.emit(step)

    def _on_returned(self, outcome: _Done | _Failed | None) -> None:
        self._outcome = outcome

    def _on_thread_finished(self) -> None:
        self._conclude()
        Job._running.discard(self)

    def _conclude(self) -> None:
        if self._over:
            return
        self._over = True
        if self._stop.is_set() or self._outcome is None:
            self.cancelled.emit()
        elif isinstance(self._outcome, _Failed):
            self.failed.emit(self._outcome.error)
        else:
            self.finished.emit(self._outcome.result)
        self.ended.emit()


class _Errand(QObject):
    """Hears one job on behalf of the dock, and nothing any more once the dock is gone."""

    def __init__(
        self,
        parent: QObject,
        on_done: Callable[[Any], None],
        on_failed: Callable[[Exception], None],
        on_cancelled: Callable[[], None] | None,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        super().__init__(parent)
        self._on_done, self._on_failed = on_done, on_failed
        self._on_cancelled, self._on_step = on_cancelled, on_step
        self.dropped = False

    def finished(self, result: Any) -> None:
        if not self.dropped:
            self._on_done(result)

    def failed(self, error: Exception) -> None:
        if not self.dropped:
            self._on_failed(error)

    def cancelled(self) -> None:
        if not self.dropped and self._on_cancelled is not None:
            self._on_cancelled()

    def stepped(self, step: Step) -> None:
        if not self.dropped and self._on_step is not None:
            self._on_step(step)


class Errands(QObject):
    """Starts jobs for a dock.

    A new job for a purpose cancels the one before, whose end is then no longer told.  When the
    dock is deleted its jobs are cancelled and nothing of it is touched.

    Parameters
    ----------
    dock
        The widget the jobs belong to.
    """

    started = Signal(object)  # Job

    def __init__(self, dock: QObject) -> None:
        super().__init__(dock)
        self._jobs: dict[str, tuple[Job, _Errand]] = {}
        jobs = self._jobs
        dock.destroyed.connect(lambda: _cancel(jobs))

    def start(
        self,
        purpose: str,
        steps: Steps[Any],
        name: str,
        *,
        on_done: Callable[[Any], None],
        on_failed: Callable[[Exception], None],
        on_cancelled: Callable[[], None] | None = None,
        on_step: Callable[[Step], None] | None = None,
    ) -> Job:
        """Run `steps` for `purpose`; see `Job` for what is told and when."""
        self.drop(purpose)
        job = Job(steps, name)
        errand = _Errand(self, on_done, on_failed, on_cancelled, on_step)
        job.stepped.connect(errand.stepped)
        job.finished.connect(errand.finished)
        job.failed.connect(errand.failed)
        job.cancelled.connect(errand.cancelled)
        job.ended.connect(errand.deleteLater)
        self._jobs[purpose] = (job, errand)
        self.started.emit(job)
        return job.start()

    def running(self, purpose: str) -> bool:
        """Return whether there is a job for `purpose` whose end was not told yet."""
        return purpose in self._jobs and self._jobs[purpose][0].running

    def drop(self, purpose: str) -> None:
        """Cancel the job for `purpose` without a word."""
        if purpose in self._jobs:
            job, errand = self._jobs.pop(purpose)
            if job.running:
                errand.dropped = True
                job.cancel()


def _cancel(jobs: dict[str, tuple[Job, _Errand]]) -> None:
    for job, _ in jobs.values():
        job.cancel()


class JobStrip(QWidget):
    """Shows the job of a dock that was started last; hidden while there is none.

    Parameters
    ----------
    errands
        Whose jobs.
    dock
        In it, Esc cancels too.
    """

    def __init__(self, errands: Errands, dock: QWidget) -> None:
        super().__init__(dock)
        self._jobs: list[Any] = []
        self.status = plain_label()
        self.status.setAccessibleName("Progress")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.setMaximumWidth(90)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop what is running; what you had before is kept (Esc)")
        self.cancel.clicked.connect(self.stop)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.status, 1)
        row.addWidget(self.bar)
        row.addWidget(self.cancel)
        escape = QShortcut(QKeySequence("Esc"), dock)
        escape.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        escape.activated.connect(self.stop)
        errands.started.connect(self._on_started)
        self.hide()

    def stop(self) -> None:
        """Cancel all that runs."""
        if self._jobs:
            self.cancel.setEnabled(False)
            self.status.setText("Cancelling…")
        for job in list(self._jobs):
            job.cancel()

    def _on_started(self, job: Any) -> None:
        self._jobs.append(job)
        job.stepped.connect(self._on_step)
        job.ended.connect(self._on_ended)
        self._show(job)

    def _show(self, job: Any) -> None:
        self.bar.setRange(0, 0)
        self.status.setText(f"{job.name}…")
        self.cancel.setEnabled(True)
        self.show()

    def _on_step(self, step: Step) -> None:
        if not self._jobs or self.sender() is not self._jobs[-1]:
            return
        self.bar.setRange(0, step.total or 0)
        self.bar.setValue(step.done)
        self.status.setText(describe_step(step, None))

    def _on_ended(self) -> None:
        job = self.sender()
        self._jobs = [other for other in self._jobs if other is not job]
        if self._jobs:
            self._show(self._jobs[-1])
        else:
            self.hide()
