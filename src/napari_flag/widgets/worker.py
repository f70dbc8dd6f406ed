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
from qtpy.QtCore import QObject, QTimer, Signal

from napari_flag.progress import Step, Steps

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
