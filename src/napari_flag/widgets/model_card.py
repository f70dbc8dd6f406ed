"""Step 3 of the main dock: which model, and what it was trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_flag import keys
from napari_flag.model.checkpoint import describe_entries
from napari_flag.widgets.forms import READY, StepBox, narrow, plain_label
from napari_flag.widgets.readiness import describe_card, describe_encoder

if TYPE_CHECKING:
    from napari_flag.model.checkpoint import Checkpoint

WEIGHT_FILES: Final = "Weights (*.safetensors);;All files (*)"
OTHER_FILE: Final = "Other file…"


class ModelStep(StepBox):
    """Lists the weights and shows the card of the chosen ones."""

    weightsChosen = Signal(object)  # Path

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(3, "Model", parent)
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Model")
        self.choice.setToolTip("Weights to predict with; bundled ones first")
        self.choice.activated.connect(self._on_activated)
        self.details = QPushButton("Details…")
        self.details.setToolTip("The whole data card: sections, split, metrics, what it is not for")
        self.details.clicked.connect(self._show_details)
        self.head.addWidget(self.choice, 1)
        self.head.addWidget(self.details)
        self.card = plain_label()
        self.body.addWidget(self.card)
        self.caution = plain_label(keys.RESEARCH_USE_ONLY)
        self.caution.setStyleSheet("font-weight: bold;")
        self.body.addWidget(self.caution)
        self._checkpoint: Checkpoint | None = None
        self._current: Path | None = None
        self.set_weights((), None)
        self.show_checkpoint(None)

    def set_weights(self, weights: tuple[tuple[str, Path], ...], current: Path | None) -> None:
        """List weights as (name, path); `current` is selected, and added when it is not listed."""
        self._current = current
        listed = list(weights)
        if current is not None and current not in [path for _, path in listed]:
            listed.append((current.stem, current))
        self._listed = tuple(listed)
        self.choice.clear()
        for name, path in listed:
            self.choice.addItem(name, path)
        if not listed:
            self.choice.addItem("No model chosen", None)
        self.choice.addItem(OTHER_FILE, OTHER_FILE)
        self._select_current()

    @property
    def weights(self) -> tuple[tuple[str, Path], ...]:
        """What is listed."""
        return self._listed

    def show_checkpoint(self, checkpoint: "Checkpoint | None") -> None:
        """Show what the model was trained on."""
        self._checkpoint = checkpoint
        self.messages.clear()
        self.card.setText("")
        self.details.setEnabled(checkpoint is not None)
        if checkpoint is None:
            self.set_state("")
            return
        lines = (
            *describe_card(checkpoint.card, len(checkpoint.genes)),
            *describe_encoder(checkpoint.encoder),
        )
        self.card.setText("\n".join(lines))
        self.set_state(READY)

    def show_differences(self, sentences: tuple[str, ...]) -> None:
        """Warn of what differs from training."""
        self.messages.clear()
        for sentence in sentences:
            self.messages.add("warning", sentence)

    def show_error(self, error: Exception) -> None:
        """Show why there is no model."""
        self.show_checkpoint(None)
        self.set_state("failed")
        self.messages.show_error(error)

    def _select_current(self) -> None:
        for index in range(self.choice.count()):
            if self.choice.itemData(index) == self._current:
                self.choice.setCurrentIndex(index)
                return

    def _on_activated(self, index: int) -> None:
        chosen = self.choice.itemData(index)
        if chosen == OTHER_FILE:
            name, _ = QFileDialog.getOpenFileName(self, "Open weights", "", WEIGHT_FILES)
            if name:
                self.set_weights(self._listed, Path(name))
                self.weightsChosen.emit(Path(name))
            else:
                self._select_current()
        elif chosen is not None:
            self._current = chosen
            self.weightsChosen.emit(chosen)

    def _show_details(self) -> None:
        if self._checkpoint is not None:
            CardDialog(self._checkpoint, self).exec()


class CardDialog(QDialog):
    """The whole data card of a model, as text that can be copied."""

    def __init__(self, checkpoint: "Checkpoint", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Model: {checkpoint.name}")
        self.resize(560, 480)
        self.text = QPlainTextEdit(card_text(checkpoint.card, checkpoint.name, checkpoint.sha256))
        self.text.setReadOnly(True)
        box = QVBoxLayout(self)
        caution = QLabel(keys.RESEARCH_USE_ONLY)
        caution.setTextFormat(Qt.TextFormat.PlainText)
        box.addWidget(caution)
        box.addWidget(self.text)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        box.addWidget(buttons)


def card_text(card: dict[str, Any], name: str, sha256: str) -> str:
    """Return a model's card as plain text, one entry a line."""
    parts = [f"name: {name}", *(f"{key}: {text}" for key, text in describe_entries(card))]
    parts.append(f"sha256: {sha256}")
    return "\n".join(parts)
