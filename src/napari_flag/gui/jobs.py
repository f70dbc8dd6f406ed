"""Long work of the docks: run in a thread, shown in one progress strip, cancelled within a second.

Long work is a generator of `Step` (see `napari_flag.progress`).  `Job` runs it in napari's
generator worker, so napari knows of it (it asks before closing), and hands its steps to the
window's own thread.  No widget is read or touched in the worker's thread: what the work needs is
given to the generator before it starts.  Docks start work with `Jobs.run`; `ProgressStrip` shows it.
"""

import atexit
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from napari import current_viewer
from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject, Qt, QThreadPool, QTimer, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QShortcut, QVBoxLayout, QWidget

from napari_flag.gui.controls.forms import plain_label
from napari_flag.progress import Step, Steps, TimeLeft, describe_step

STEP_INTERVAL_S: Final = 0.1
"""The window gets a step at most ten times a second; more would only cost time to paint."""

CANCEL_GRACE_MS: Final = 800
"""Work yields twice a second, so it has normally ended by then; the window is freed either way."""

THREADS: Final = 8
"""Jobs that run at the same time at least: Qt's pool has a thread for each core, and one that trains, or was
cancelled and does not yield for long, would keep all others waiting on a small computer."""

EXIT_GRACE_MS: Final = 60_000
"""How long Python's exit waits at most for work to reach its next yield.

An import of PyTorch takes seconds, many on a busy machine, and work that is still there when Qt ends would
abort the process."""


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
    shown_at, stage = float("-inf"), None
    try:
        while not stop.is_set():
            try:
                step = next(steps)
            except StopIteration as ended:
                return _Done(ended.value)
            now = time.monotonic()
            whole = step.total is not None and step.done >= step.total
            must_pass = step.notice is not None or step.partial is not None
            if must_pass or whole or step.stage != stage or now - shown_at >= STEP_INTERVAL_S:
                shown_at, stage = now, step.stage
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
        self.to_end = False
        """Whether it goes on when napari, or Python, ends: both ask their workers to quit and wait."""

    def quit(self) -> None:
        if not self.to_end:
            self._stop.set()
            super().quit()

    def work(self) -> Any:
        try:
            return super().work()
        finally:
            self._gen.close()  # superqt only drops its reference, and it would close at some later time


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
    while it runs; a receiver that is deleted meanwhile gets no further signal.

    Parameters
    ----------
    steps
        The work; it must not have been started.
    name
        What it is, as a person would say it: "Predict expression".
    expected
        Stage → seconds it is expected to take, in the order they run; empty when nothing is known.
    to_end
        Whether nothing stops it, also not that napari is closed.

    Attributes
    ----------
    time_left
        Seconds spent in each stage so far.
    left_s, fraction
        Seconds left and share done (0 to 1); None while nothing can be said.
    stoppable
        Whether the Cancel of a dock stops it.
    waits
        Whether it waits for a thread where more than `THREADS` jobs run.
    """

    stepped = Signal(object)  # Step
    finished = Signal(object)  # the work's result
    failed = Signal(object)  # Exception
    cancelled = Signal()
    ended = Signal()

    _running: set["Job"] = set()  # noqa: RUF012 - shared on purpose: keeps running jobs alive

    def __init__(
        self,
        steps: Steps[Any],
        name: str,
        expected: Mapping[str, float] | None = None,
        *,
        to_end: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.time_left = TimeLeft(expected)
        self.stoppable = self.waits = not to_end
        self._timed = bool(expected)
        self.left_s: float | None = None
        self.fraction: float | None = None
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._outcome: _Done | _Failed | None = None
        self._over = False
        self._worker: Any = create_worker(
            _named(name), steps, self._stop, _worker_class=_StepsWorker, _start_thread=False
        )
        self._worker.to_end = to_end
        with suppress(TypeError, RuntimeError):  # not connected, which depends on the Qt binding
            # Libraries warn developers; napari would show each of these warnings as a popup.
            self._worker.warned.disconnect()
        self._worker.yielded.connect(self._on_yielded)
        self._worker.returned.connect(self._on_returned)
        self._worker.finished.connect(self._on_thread_finished)

    @property
    def running(self) -> bool:
        """Whether none of the signals of its end was emitted yet."""
        return not self._over

    @property
    def stopping(self) -> bool:
        """Whether it was cancelled, and its end is still to come."""
        return self._stop.is_set() and not self._over

    def start(self) -> "Job":
        """Start the work and return the job."""
        Job._running.add(self)
        pool = QThreadPool.globalInstance()
        if pool is not None:
            wanted = THREADS if self.waits else max(THREADS, len(Job._running))
            pool.setMaxThreadCount(max(pool.maxThreadCount(), wanted))
        self._worker.start()
        return self

    def cancel(self) -> None:
        """Stop the work at its next yield; `cancelled` follows within a second."""
        if self._over or self._stop.is_set() or self._worker.to_end:
            return
        self._worker.quit()
        QTimer.singleShot(CANCEL_GRACE_MS, self._conclude)

    def _on_yielded(self, step: Step) -> None:
        if self._over or self._stop.is_set():
            return
        self.left_s = self.time_left.update(step)
        if self.left_s is not None:
            spent = time.monotonic() - self._begun
            self.fraction = max(self.fraction or 0.0, spent / max(spent + self.left_s, 1e-6))
        elif not self._timed:  # else a short stage that nothing is known of would count as the whole
            self.fraction = step.done / step.total if step.total else None
        self.stepped.emit(step)

    def _on_returned(self, outcome: _Done | _Failed | None) -> None:
        self._outcome = outcome

    def _on_thread_finished(self) -> None:
        self._conclude()
        Job._running.discard(self)
        _forget_status(self._worker)

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
        self._outcome = None
        self.ended.emit()


def _forget_status(worker: Any) -> None:
    """Have napari forget a worker that has ended: napari 0.9.2 keeps the status of every one there was."""
    window = getattr(current_viewer(), "window", None)
    tasks = getattr(getattr(window, "_task_status_manager", None), "_tasks", {})
    for number in [n for n, task in tasks.items() if task._cancel_callback == worker.quit]:
        del tasks[number]


def _end_all() -> None:
    """Stop what still runs when Python exits: a thread that outlives Qt's objects ends with an abort."""
    for job in list(Job._running):
        job._worker.quit()
    pool = QThreadPool.globalInstance()
    if pool is not None:
        pool.waitForDone(EXIT_GRACE_MS)


atexit.register(_end_all)


class Jobs(QObject):
    """Runs the long work of a dock or a menu command.

    A new job for a purpose cancels the one before, whose callbacks are then not called any more.

    Parameters
    ----------
    owner
        The widget the jobs belong to; when it is deleted they are cancelled, and no callback runs.
    on_error
        What to do with an error where `run` is not given its own way.
    """

    started = Signal(object)  # Job
    idle = Signal()
    """The last of the jobs has ended."""

    def __init__(self, owner: QObject, on_error: Callable[[Exception], None]) -> None:
        super().__init__(owner)
        self._on_error = on_error
        self._current: dict[str, tuple[object, Job]] = {}
        self._active: list[Job] = []
        current, active = self._current, self._active
        owner.destroyed.connect(lambda: _cancel_all(current, active))

    def run(
        self,
        purpose: str,
        steps: Steps[Any],
        name: str,
        *,
        on_result: Callable[[Any], None],
        on_error: Callable[[Exception], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
        on_step: Callable[[Step], None] | None = None,
        expected: Mapping[str, float] | None = None,
        stoppable: bool = True,
        waits: bool = True,
    ) -> Job:
        """Run `steps` in a thread and return the job.

        Parameters
        ----------
        purpose
            What the result is for; there is one job at a time for each purpose.
        steps, name, expected
            As for `Job`.
        on_result, on_error, on_cancelled
            One of them is called in the window's thread when the work has ended.
        on_step
            Called with steps; with every one that carries a partial result or a notice.
        stoppable
            Whether Cancel stops it; not what a dock cannot do without, and nobody asked for.
        waits
            Whether it may wait for other jobs to end.
        """
        self.cancel(purpose)
        job, token, current = Job(steps, name, expected), object(), self._current
        job.stoppable, job.waits = stoppable, waits

        def deliver(signal: Any, callback: Callable[..., None] | None) -> None:
            def call(*what: Any) -> None:
                if callback is not None and purpose in current and current[purpose][0] is token:
                    callback(*what)

            signal.connect(call)

        deliver(job.stepped, on_step)
        deliver(job.finished, on_result)
        deliver(job.failed, on_error or self._on_error)
        deliver(job.cancelled, on_cancelled)
        job.ended.connect(self._on_ended)
        current[purpose] = (token, job)
        self._active.append(job)
        self.started.emit(job)
        return job.start()

    @property
    def active(self) -> tuple[Job, ...]:
        """The jobs that have not ended, the one started last at the end."""
        return tuple(self._active)

    def running(self, purpose: str) -> bool:
        """Return whether there is a job for `purpose` that has not ended."""
        return purpose in self._current and self._current[purpose][1].running

    def cancel(self, purpose: str) -> None:
        """Cancel the job for `purpose`, if there is one; none of its callbacks is called any more."""
        if purpose in self._current:
            self._current.pop(purpose)[1].cancel()

    def cancel_all(self) -> None:
        """Cancel what can be stopped, as a person who presses Cancel asks; `on_cancelled` is called."""
        for job in self.active:
            if job.stoppable:
                job.cancel()

    def close(self) -> None:
        """Cancel all that runs; no callback is called any more."""
        _cancel_all(self._current, self._active)

    def _on_ended(self) -> None:
        job = self.sender()
        self._active[:] = [other for other in self._active if other is not job]
        for purpose in [purpose for purpose, (_, ended) in self._current.items() if ended is job]:
            del self._current[purpose]
        if not self._active:
            self.idle.emit()


def _cancel_all(current: dict[str, tuple[object, Job]], active: list[Job]) -> None:
    current.clear()
    for job in active:
        job.cancel()


class ProgressStrip(QWidget):
    """Shows the job started last: stage, count and time left, a bar, and Cancel, which stops all.

    Parameters
    ----------
    jobs
        Whose jobs.
    dock
        In it, Esc cancels too.
    hide_when_idle
        Whether the strip goes while nothing runs; else it shows the text of `show_idle`.
    """

    def __init__(self, jobs: Jobs, dock: QWidget, *, hide_when_idle: bool = True) -> None:
        super().__init__(dock)
        self._jobs, self._hide_when_idle = jobs, hide_when_idle
        self.status = plain_label()
        self.status.setAccessibleName("Progress")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop what is running; what you had before is kept (Esc)")
        self.cancel.clicked.connect(self.stop)
        row = QHBoxLayout()
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        box.addLayout(row)
        box.addWidget(self.status)
        escape = QShortcut(QKeySequence("Esc"), dock)
        escape.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        escape.activated.connect(self.stop)
        jobs.started.connect(self._on_started)
        jobs.idle.connect(self._on_idle)
        self.show_idle("")

    def stop(self) -> None:
        """Cancel all that can be stopped."""
        if any(job.stoppable for job in self._jobs.active):
            self.cancel.setEnabled(False)
            self.status.setText("Cancelling…")
            self._jobs.cancel_all()

    def show_idle(self, text: str) -> None:
        """Show `text` instead of progress."""
        self.bar.setRange(0, 1000)
        self.bar.setValue(0)
        self.cancel.setEnabled(False)
        self.status.setText(text)
        self.setVisible(not self._hide_when_idle)

    def _on_started(self, job: Job) -> None:
        job.stepped.connect(self._on_step)
        job.ended.connect(self._on_ended)
        self._show(job)

    def _show(self, job: Job) -> None:
        self.bar.setRange(0, 0)
        self.status.setText(f"{job.name}…")
        self.cancel.setEnabled(any(each.stoppable for each in self._jobs.active))
        self.show()

    def _on_step(self, step: Step) -> None:
        job = self.sender()
        if not self._jobs.active or job is not self._jobs.active[-1]:
            return
        if job.fraction is None:
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, 1000)
            self.bar.setValue(round(1000 * min(max(job.fraction, 0.0), 1.0)))
        self.status.setText(describe_step(step, job.left_s))

    def _on_ended(self) -> None:
        if self._jobs.active:
            self._show(self._jobs.active[-1])

    def _on_idle(self) -> None:
        self.show_idle("")
