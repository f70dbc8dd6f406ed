"""The foot of the main dock: device, quality, Predict, progress, Cancel, and the result."""

from qtpy.QtCore import Qt, Signal
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

from napari_flag.progress import Step
from napari_flag.widgets.forms import MessageList, narrow, plain_label
from napari_flag.widgets.settings import QUALITIES, Preferences
from napari_flag.widgets.time_left import say_duration

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


def describe_step(step: Step, left_s: float | None) -> str:
    """Return "Reading tiles · 120 of 183 spots · about 10 s left"."""
    parts = [step.stage]
    if step.total and step.total > 1:
        parts.append(f"{step.done:,} of {step.total:,} {step.unit}")
    elif step.done and step.total is None:
        parts.append(f"{step.done:,} {step.unit}")
    if left_s is not None:
        parts.append(f"{say_duration(left_s)} left")
    return " · ".join(parts)
