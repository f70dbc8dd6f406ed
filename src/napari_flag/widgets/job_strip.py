"""One line under a dock that shows its long work, and stops it."""

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QShortcut, QWidget

from napari_flag.progress import Step
from napari_flag.widgets.errands import Errands
from napari_flag.widgets.forms import plain_label
from napari_flag.widgets.run_panel import describe_step


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
