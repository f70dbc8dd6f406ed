"""The jobs of one dock: one for each purpose, all ended with the dock."""

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_flag.progress import Step, Steps
from napari_flag.widgets.worker import Job


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
