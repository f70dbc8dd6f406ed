"""Step 3 of the Predict dock: which model, what it was trained on, and whether a prediction can start."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_flag import keys, preflight
from napari_flag.errors import UserError
from napari_flag.formatting import counted, length, resolution, spread
from napari_flag.gui.controls.file_filters import WEIGHT_FILES
from napari_flag.gui.controls.forms import READY, Choice, StepBox, ask_open, plain_label, unbroken
from napari_flag.model.checkpoint import describe_entries, label_of, trained_array
from napari_flag.slides.colours import SCANNED, SRGB
from napari_flag.slides.file_identity import why_personal
from napari_flag.slides.spots import SpotTable

if TYPE_CHECKING:
    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.slides.colours import Colours
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots


def why_not_ready(
    slide: "Slide | None",
    spots: "SpotTable | Spots | None",
    model: "Checkpoint | None",
    n_selected: int | None,
    *,
    force: bool = False,
) -> str | None:
    """Return why "Predict expression" cannot be pressed yet, as one sentence; None when it can.

    Parameters
    ----------
    slide, spots, model
        What the first three steps gave so far; a table of spots tells whether the slide is a smaller copy.
    n_selected
        Number of spots inside the chosen region.
    force
        Whether "Predict anyway" is ticked.
    """
    if slide is None:
        return "Open a slide first."
    if blocking := preflight.check(slide, spots, model, force=force).blocking:
        return blocking[0]
    if spots is None:
        return "Choose spots first (step 2)."
    if len(spots.spots if isinstance(spots, SpotTable) else spots) == 0:
        return "There are no spots to predict; choose another table or area in step 2."
    if model is None:
        return "Choose a model first (step 3)."
    if n_selected == 0:
        return "No spot lies inside the chosen region; choose or draw another in step 4."
    return None


def why_no_estimate(slide: "Slide | None", spots: "Spots | None") -> str | None:
    """Return why µm/px cannot be estimated from the spots, None when they can."""
    if slide is None:
        return "Open a slide first."
    known = spots is not None and not spots.laid and spots.array is not None
    if spots is None or not known or spots.pitch_um is None or spots.lattice == "none":
        return (
            "Needs spots of a known array (step 2, from a table): the distance of its "
            "neighbours in µm gives the scale."
        )
    return None


def differences(
    checkpoint: "Checkpoint",
    slide: "Slide | None",
    spots: "Spots | None",
    *,
    force: bool = False,
    colours: "Colours | None" = None,
) -> tuple[str, ...]:
    """Return a sentence for each doubt of the picture, and each way slide and spots differ from training."""
    from napari_flag.prediction import compare_colours, compare_resolution, compare_with_training

    if slide is None:
        return ()
    sentences = list(preflight.check(slide, spots, checkpoint, force=force).warnings)
    sentences += compare_colours(checkpoint, slide, colours or checkpoint.colours)
    if slide.mpp is None:
        return tuple(sentences)
    if spots is not None and len(spots):
        sentences += compare_with_training(checkpoint, slide.mpp, spots, slide)
    elif doubt := compare_resolution(checkpoint, slide.mpp):
        sentences.append(doubt)
    return tuple(sentences)


def describe_card(card: Mapping[str, Any], n_genes: int) -> tuple[str, ...]:
    """Return what a model was trained on, a line each; unknown parts are said to be so."""
    from napari_flag.prediction_file import texts

    array, encoder = trained_array(card), card.get("encoder") or {}
    if isinstance(encoder, str):
        encoder = {"name": encoder}
    patients, sections = card.get("patients"), texts(card.get("sections"))
    n_patients = len(patients) if isinstance(patients, list | tuple) else patients
    whom = _joined(_count(n_patients or None, "patient"), _count(len(sections) or None, "section"))
    tissue = str(card.get(keys.CARD_TISSUE) or "tissue not stated").removeprefix(f"{keys.NO_TISSUE}: ")
    array_text = _joined(
        array.technology or "array not stated",
        f"pitch {spread(array.pitches_um, length)}" if array.pitches_um else "",
        f"Ø {spread(array.diameters_um, length)}" if array.diameters_um else "",
        spread(array.mpps, resolution) if array.mpps else "",
    )
    licence = f"{card.get('licence') or 'not stated'} (weights)"
    if encoder.get("licence") and encoder["licence"] == card.get("licence"):
        licence = f"{card['licence']} (weights and encoder)"
    elif encoder.get("licence"):
        licence += f", {encoder['licence']} (encoder)"
    method, bank = card.get(keys.CARD_METHOD), card.get(keys.CARD_BANK)
    return (
        *([f"Method {method}"] if method else []),
        f"Trained on {tissue}" + (f": {whom}" if whom else ""),
        array_text,
        f"{counted(n_genes, 'gene')} · encoder {encoder.get('name') or 'not stated'}",
        f"Licence {licence}",
        *([f"Holds {bank}"] if bank else []),
    )


def describe_encoder(name: str) -> tuple[str, ...]:
    """Return licence, access and whereabouts of the encoder that weights need, a line each.

    Nothing for the embedded encoder, which is inside the weights; for one this version does not
    have, what to do.
    """
    from napari_flag.encoders.foundation.hub import find_weights, how_to_get
    from napari_flag.encoders.registry import find_encoder

    try:
        row = find_encoder(name)
    except UserError as error:
        return (str(error),)
    if row.recipe is None:
        return ()
    access = "must be asked for at" if row.gated else "open, at"
    found = find_weights(row)
    here = f"found in the {found.where}" if found else f"not on this computer; {how_to_get(row)}"
    return (f"{row.title}: {row.licence}, {access} {row.source}", f"{row.title} weights: {here}")


def _joined(*texts: str) -> str:
    return ", ".join(text for text in texts if text)


def _count(n: object, what: str) -> str:
    return counted(n, what) if isinstance(n, int) else ""


OTHER_FILE: Final = "Other file…"


class ModelStep(StepBox):
    """Lists the weights and shows the card of the chosen ones."""

    weightsChosen = Signal(object)  # Path
    optionChanged = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(3, "Model", parent)
        self.choice = Choice(name="Model", tooltip="Weights to predict with; bundled ones first")
        self.choice.changed.connect(self._on_chosen)
        self.details = QPushButton("Details…")
        self.details.setToolTip("The whole data card: sections, split, metrics, what it is not for")
        self.details.clicked.connect(self._show_details)
        self.head.addWidget(self.choice.native, 1)
        self.head.addWidget(self.details)
        self.card = plain_label()
        self.body.addWidget(self.card)
        self.caution = plain_label(keys.RESEARCH_USE_ONLY)
        self.caution.setStyleSheet("font-weight: bold;")
        self.body.addWidget(self.caution)
        self._anyway = QCheckBox("Predict anyway")
        self._anyway.setToolTip(
            "Predict although weights or spots are refused for this slide; it is recorded"
        )
        self._anyway.toggled.connect(lambda _: self.optionChanged.emit())
        self._anyway.hide()
        self.body.addWidget(self._anyway)
        self._srgb = QCheckBox("Convert colours to sRGB")
        self._srgb.setToolTip(
            "By the slide's colour profile; best left as the model was trained. It is recorded"
        )
        self._srgb.toggled.connect(lambda _: self.optionChanged.emit())
        self._srgb.hide()
        self.body.addWidget(self._srgb)
        self._keep_names = QCheckBox("Keep the slide's name")
        self._keep_names.setToolTip(
            "It looks like a patient's (a date, a record number, first and last name); without this, what is "
            "saved calls the slide anonymous-…, after the hash of its content"
        )
        self._keep_names.hide()
        self.body.addWidget(self._keep_names)
        self._named_for: Path | None = None
        self._checkpoint: Checkpoint | None = None
        self._insisted_for: tuple[object, object] = (None, None)
        self._insisted_table: tuple[object, object] = (None, None)
        self._coloured_for: object = None
        self._current: Path | None = None
        self.set_weights((), None)
        self.show_checkpoint(None)

    def set_weights(self, weights: tuple[tuple[str, Path], ...], current: Path | None) -> None:
        """List weights as (label, path); `current` is selected, and added when it is not listed."""
        self._current = current
        listed = list(weights)
        if current is not None and current not in [path for _, path in listed]:
            listed.append((label_of(current.stem, current), current))
        self._listed = tuple(listed)
        none = [] if current is not None else [("No model chosen", "")]
        self.choice.offer([*none, *listed, (OTHER_FILE, OTHER_FILE)], select=current or "")

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
        self.card.setText(unbroken("\n".join(lines)))
        self.set_state(READY)

    @property
    def anyway(self) -> bool:
        """Whether the person insists on weights that are refused for this slide."""
        return self._anyway.isChecked()

    def offer_anyway(self, slide: "Slide | None", spots: "Spots | None" = None) -> None:
        """Offer "Predict anyway" where weights, slide or spots need it; elsewhere it is hidden and clear.

        Insisting holds for one slide with one model and one table of spots, and ends with any of them.
        """
        model = self._checkpoint
        needed = slide is not None and preflight.check(slide, spots, model).insistable
        for_this = (None if slide is None else slide.path, None if model is None else model.sha256)
        table = (None, None) if spots is None or spots.laid else (spots.ids, spots.xy)
        other = any(one is not another for one, another in zip(table, self._insisted_table, strict=True))
        if not needed or other or for_this != self._insisted_for:
            blocked = self._anyway.blockSignals(True)
            self._anyway.setChecked(False)
            self._anyway.blockSignals(blocked)
        self._insisted_for, self._insisted_table = for_this, table
        self._anyway.setVisible(needed)

    @property
    def keep_names(self) -> bool:
        """Whether a name of the slide that may be a patient's is kept."""
        return self._keep_names.isChecked()

    def offer_names(self, slide: "Slide | None") -> None:
        """Offer to keep the name of a slide that may be a patient's; it is asked anew for each slide."""
        path = None if slide is None else slide.path
        if path != self._named_for:
            self._keep_names.setChecked(False)
        self._named_for = path
        self._keep_names.setVisible(slide is not None and why_personal(slide.name) is not None)

    @property
    def colours(self) -> "Colours | None":
        """The colours asked for; None takes those the model was trained on."""
        if self._srgb.isHidden():
            return None
        return SRGB if self._srgb.isChecked() else SCANNED

    def offer_colours(self, slide: "Slide | None") -> None:
        """Offer to convert a slide that has a colour profile; a newly chosen model sets it to its own."""
        model = self._checkpoint
        profile = slide is not None and slide.reader.profile is not None
        if model is not None and model.sha256 != self._coloured_for:
            blocked = self._srgb.blockSignals(True)
            self._srgb.setChecked(model.colours == SRGB)
            self._srgb.blockSignals(blocked)
            self._coloured_for = model.sha256
        self._srgb.setVisible(profile and model is not None)

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

    def _on_chosen(self, chosen: Any) -> None:
        if chosen == OTHER_FILE:
            path = ask_open(self, "Open weights", WEIGHT_FILES)
            if path is None:
                self.choice.select(self._current or "")
                return
            self.set_weights(self._listed, path)
            self.weightsChosen.emit(path)
        elif chosen:
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
