"""The Train dock: weights from a person's own measured sections, scored before they can be saved."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from qtpy.QtCore import Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QMainWindow,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_flag import fitting
from napari_flag.cache import cache_folder
from napari_flag.fitting import (
    FITTING,
    NO_PATIENT,
    SCORING,
    TRAINED_HERE,
    FitSettings,
    Fitted,
    MeasuredSection,
    SectionLook,
    Unsaved,
)
from napari_flag.formatting import UNKNOWN
from napari_flag.gui.area import PREDICT, FlagArea, open_area
from napari_flag.gui.controls.file_filters import GENE_FILES, LISTING_FILES, WEIGHT_FILES
from napari_flag.gui.controls.forms import (
    READY,
    Choice,
    FileField,
    ShortScroll,
    StepBox,
    ask_save,
    plain_label,
)
from napari_flag.gui.dock import Dock, single_shot
from napari_flag.gui.jobs import Job
from napari_flag.gui.predict.run import timings_file
from napari_flag.gui.settings import read_preferences
from napari_flag.gui.train.encoder_choices import EncoderChoice, list_encoders
from napari_flag.gui.train.held_out_scores import HeldOutScores
from napari_flag.gui.train.section_list import SectionList
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.listing import COLUMNS
from napari_flag.progress import Step, Steps, Timings, one_step, say_duration

TRAIN: Final = "Train on my sections"
HEADING_PX: Final = 92
MESSAGES_PX: Final = 130
GUESS: Final = {fitting.ENCODING: 0.1, SCORING: 0.2, FITTING: 0.1}
"""Seconds per spot before a fit was timed on this computer; of scoring, per section left out."""
DIFFUSION_TAKES: Final = 3.0
"""How many times longer a fit is first taken to be with the gene transformer."""
TRAINED_HERE_TAKES: Final = 20.0
"""How many times longer scoring and fitting are first taken to be with an encoder trained here."""
SCORED: Final = "Scored. Save the weights, or change something and start again."
RESUMES: Final = "Cancelled; the parts that were finished are kept, and Start goes on after them."


class TrainDock(Dock):
    """Leads from measured sections to weights: sections, genes, encoder, Start, scores, Save.

    Parameters
    ----------
    napari_viewer
        The viewer; weights are handed to its Predict dock.

    Attributes
    ----------
    sections
        Name → section, as stated.
    looks
        Name → what its files hold.
    unsaved
        The weights that were fitted last, or None.
    """

    hide_strip = False

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.sections: dict[str, MeasuredSection] = {}
        self.looks: dict[str, SectionLook] = {}
        self.unsaved: Unsaved | None = None
        self._saved: Path | None = None
        self._placed = False
        self._source: Path | None = None
        self._job: Job | None = None
        self._why_no_training = fitting.why_no_training()
        self._timings = Timings(timings_file(), GUESS)
        self._build()
        self._lay_out()
        self._connect()
        self.jobs.run(
            "encoders",
            one_step("Looking for encoders", list_encoders),
            "Find encoders",
            on_result=self._on_encoders,
        )
        self._refresh()

    # --- building ---------------------------------------------------------------------------
    def _build(self) -> None:
        self.section_step = StepBox(1, "Sections", heading_px=HEADING_PX)
        self.source = FileField(
            "Measured sections",
            LISTING_FILES,
            placeholder="folder, or a list (CSV)",
            tooltip="A folder with slides, spots and counts, as it would be dropped on the picture, or a CSV "
            f"with the columns {', '.join(COLUMNS)}",
        )
        self.list = SectionList()
        self.hint = plain_label("Double-click a patient or µm/px to state it.")
        self.keep_names = QCheckBox("Keep the names of sections and patients")
        self.keep_names.setToolTip(
            "Some look like a patient's (a date, a record number, first and last name); without this, "
            "weights and scores call them anonymous-…"
        )
        self.keep_names.hide()
        self.gene_step = StepBox(2, "Genes", heading_px=HEADING_PX)
        self.genes = FileField(
            "Genes",
            GENE_FILES,
            placeholder=f"automatic, at most {fitting.GENES}",
            tooltip=f"Text file of symbols, one a line; empty chooses the {fitting.GENES} genes with the "
            "highest mean and variance over the ticked sections",
        )
        self.encoder_step = StepBox(3, "Encoder", heading_px=HEADING_PX)
        self.encoder = Choice(
            [("finding out…", DEFAULT_WEIGHTS)],
            name="Encoder",
            tooltip="What turns tiles into numbers; one that is there reads a tile once and keeps the result",
        )
        self.about_encoder = plain_label()
        self.diffusion = QCheckBox("Train the gene transformer too")
        self.diffusion.setToolTip(
            "Several times slower; on few sections its draws are worth next to nothing more than those of "
            "the closed form"
        )
        self.start = QPushButton("Start")
        self.start.setStyleSheet("font-weight: bold; padding: 6px;")
        self.results = HeldOutScores()
        self.save_button = QPushButton("Save weights…")
        self.use_button = QPushButton("Use in Predict")
        self.use_button.setToolTip("Choose these weights on the Predict page")

    def _lay_out(self) -> None:
        self.section_step.head.addWidget(self.source.row.native, 1)
        self.section_step.body.addWidget(self.list)
        self.section_step.body.addWidget(self.hint)
        self.section_step.body.addWidget(self.keep_names)
        self.gene_step.head.addWidget(self.genes.row.native, 1)
        self.encoder_step.head.addWidget(self.encoder.native, 1)
        self.encoder_step.body.addWidget(self.about_encoder)
        self.encoder_step.body.addWidget(self.diffusion)
        steps = QWidget()
        box = QVBoxLayout(steps)
        box.setContentsMargins(4, 4, 4, 4)
        box.setSpacing(6)
        for step in (self.section_step, self.gene_step, self.encoder_step):
            box.addWidget(step)
        box.addStretch(1)
        self._steps = QScrollArea()
        self._steps.setWidget(steps)
        self._steps.setWidgetResizable(True)
        self._steps.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._steps.setFrameShape(QFrame.Shape.NoFrame)
        foot = QHBoxLayout()
        foot.addWidget(self.save_button)
        foot.addWidget(self.use_button)
        whole_box = self.column()
        whole_box.addWidget(self._steps, 3)
        for widget in (self.start, self.strip, ShortScroll(self.messages, MESSAGES_PX)):
            whole_box.addWidget(widget)
        whole_box.addWidget(self.results, 2)
        whole_box.addLayout(foot)
        self.setMinimumWidth(365)

    def _connect(self) -> None:
        self.source.pathChosen.connect(self.open_source)
        self.list.ticked.connect(self._on_settings)
        self.list.patientStated.connect(self._on_patient)
        self.list.mppStated.connect(self._on_mpp)
        self.keep_names.toggled.connect(lambda _: self._on_settings())
        self.genes.pathChosen.connect(lambda _: self._on_settings())
        self.encoder.changed.connect(lambda _: self._on_encoder())
        self.diffusion.toggled.connect(lambda _: self._on_settings())
        self.start.clicked.connect(self.fit)
        self.save_button.clicked.connect(self._ask_save)
        self.use_button.clicked.connect(self.use_in_predict)
        self.jobs.idle.connect(self._refresh)

    # --- sections ---------------------------------------------------------------------------
    def open_source(self, path: Path | None) -> None:
        """Find the sections of a folder or list, and look at their files."""
        self.sections, self.looks, self._source = {}, {}, path
        self.keep_names.setChecked(False)  # it is asked anew for other sections
        self.list.show_sections(())
        self.section_step.messages.clear()
        self._forget_weights()
        if path is None:
            self.jobs.cancel("look")
            self.section_step.set_state("")
            self._refresh()
            return
        self.section_step.set_state("looking…")
        self.jobs.run(
            "look",
            one_step(fitting.FINDING, fitting.find_sections, path),
            "Find sections",
            on_result=self._on_sections,
            on_error=self._on_no_sections,
            on_cancelled=self._on_look_cancelled,
        )
        self._refresh()

    def _on_no_sections(self, error: Exception) -> None:
        self.section_step.set_state("failed")
        self.section_step.messages.show_error(error)

    def _on_look_cancelled(self) -> None:
        """Begin again: of sections that were not looked at nothing is known."""
        self.source.show_path(None)
        self.open_source(None)
        self.section_step.messages.add("notice", "Looking was cancelled; choose the folder or list again.")

    def _on_sections(self, found: tuple[tuple[MeasuredSection, ...], tuple[str, ...]]) -> None:
        sections, notices = found
        self.sections = {section.name: section for section in sections}
        self.list.show_sections(sections)
        for notice in notices:
            self.section_step.messages.add("notice", notice)
        self._look(sections)

    def _look(self, sections: Sequence[MeasuredSection]) -> None:
        """Look at sections (again); those that can be used are ticked, unless they were unticked by hand."""
        unticked = {name for name, look in self.looks.items() if look.problem is None}
        unticked -= set(self.list.chosen)
        self.section_step.set_state("looking…")

        def show(step: Step) -> None:
            look = step.partial
            if isinstance(look, SectionLook) and look.section.name in self.sections:
                name = look.section.name
                patient = self.sections[name].patient  # it may have been stated meanwhile
                self.looks[name] = replace(look, section=replace(look.section, patient=patient))
                self.list.show_look(self.looks[name], tick=look.problem is None and name not in unticked)

        self.jobs.run(
            "look",
            _look_at(sections, str(self.encoder.value)),
            "Look at sections",
            on_step=show,
            on_result=lambda _: self._on_looked(),
            on_error=self._on_no_sections,
            on_cancelled=self._on_look_cancelled,
        )

    def _on_looked(self) -> None:
        messages = self.section_step.messages
        for look in self.looks.values():
            if look.problem is not None:
                messages.add("warning", f"Left out. {look.problem}")
            for doubt in look.doubts:
                messages.add("warning", doubt)
        self._on_settings()

    def _on_patient(self, name: str, text: str) -> None:
        patient = NO_PATIENT if text in ("", UNKNOWN) else text
        self.sections[name] = replace(self.sections[name], patient=patient)
        if name in self.looks:
            look = self.looks[name]
            self.looks[name] = replace(look, section=replace(look.section, patient=patient))
        self._on_settings()

    def _on_mpp(self, name: str, text: str) -> None:
        """Look again at a section whose µm/px was stated; emptied, the file's counts again."""
        try:
            mpp = None if text in ("", UNKNOWN) else float(text.replace(",", "."))
        except ValueError:
            mpp = math.nan  # which the look calls no size
        self.sections[name] = replace(self.sections[name], mpp=mpp)
        self.looks.pop(name, None)
        self._look_again()

    def _look_again(self) -> None:
        self.section_step.messages.clear()
        if self.sections:
            self._look(tuple(self.sections.values()))

    @property
    def used(self) -> tuple[MeasuredSection, ...]:
        """The sections that are ticked, their µm/px settled."""
        return tuple(self.looks[name].section for name in self.list.chosen if name in self.looks)

    # --- encoder ----------------------------------------------------------------------------
    def _on_encoders(self, found: tuple[EncoderChoice, ...]) -> None:
        self.encoder.offer(((text, value) for text, value, _, _ in found), select=DEFAULT_WEIGHTS)
        self._about = {value: about for _, value, about, _ in found}
        self.encoder.explain(self._about, {value: why_not for _, value, _, why_not in found})
        self.encoder_step.set_state(READY)
        self.about_encoder.setText(self._about.get(self.encoder.value, ""))
        self._refresh()

    def _on_encoder(self) -> None:
        self.about_encoder.setText(self._about.get(self.encoder.value, ""))
        self._on_settings()
        self._look_again()  # encoders differ in how coarse an image they take

    @property
    def settings(self) -> FitSettings:
        """What the steps describe."""
        return FitSettings(
            str(self.encoder.value),
            self.genes.path,
            self.diffusion.isChecked(),
            read_preferences().seed,
            self.session.device,
            keep_names=self.keep_names.isChecked(),
        )

    # --- run --------------------------------------------------------------------------------
    def _on_settings(self) -> None:
        """Something was chosen anew: weights of before are no longer what the steps describe."""
        self._forget_weights()
        self._refresh()

    def _forget_weights(self) -> None:
        self.results.show_scores(None)
        if self.unsaved is not None:
            self.unsaved = self._saved = None
            self.messages.clear()

    def _refresh(self) -> None:
        """Say what is missing, or how long it would take."""
        used, busy = self.used, self.jobs.running("fit") or self.jobs.running("save")
        self._steps.setEnabled(not busy)
        self.save_button.setEnabled(self.unsaved is not None and not busy)
        self.save_button.setToolTip(
            "Write the weights, their card, and a page of their scores"
            if self.unsaved is not None
            else "Offered once each section was left out and scored"
        )
        self.use_button.setEnabled(self._saved is not None and not busy)
        self.keep_names.setVisible(any(map(fitting.has_personal_name, used)))
        self.gene_step.set_state(READY)
        if not self.jobs.running("look") and self.sections:
            few = fitting.why_too_few(used)
            self.section_step.set_state(READY if few is None else "more sections needed")
        if self.jobs.active:
            self.start.setEnabled(False)
            return
        why_not = self._why_not(used)
        self.start.setEnabled(why_not is None)
        self.start.setToolTip(why_not or "Leave each section out in turn and score it, then fit to all")
        text = "" if why_not else f"Will take {say_duration(sum(self._expected(used).values()))}."
        if self.unsaved is not None:
            text = SCORED
        self.strip.show_idle(why_not or text)

    def _why_not(self, used: Sequence[MeasuredSection]) -> str | None:
        if self._why_no_training is not None:
            return self._why_no_training
        if not self.sections:
            return "Choose a folder or a list of measured sections (step 1)."
        return fitting.why_too_few(used)

    def _spots(self, used: Sequence[MeasuredSection]) -> int:
        return sum(self.looks[section.name].spots for section in used)

    def _timing_key(self) -> str:
        return f"fit | {self.encoder.value} | {'diffusion' if self.diffusion.isChecked() else 'closed form'}"

    def _expected(self, used: Sequence[MeasuredSection]) -> dict[str, float]:
        """Return the seconds each stage is expected to take."""
        key = self._timing_key()
        seconds = self._timings.expected(key, self._spots(used))
        if not self._timings.known(key):
            times = DIFFUSION_TAKES if self.diffusion.isChecked() else 1.0
            times *= TRAINED_HERE_TAKES if self.encoder.value == TRAINED_HERE else 1.0
            seconds = {s: t if s == fitting.ENCODING else t * times for s, t in seconds.items()}
        if SCORING in seconds:
            seconds[SCORING] *= fitting.sections_scored(len(used))
        return seconds

    def fit(self) -> None:
        """Score and fit what the steps describe."""
        used = self.used
        self.messages.clear()
        self._forget_weights()
        self._job = self.jobs.run(
            "fit",
            _fit(used, states_folder(), self.settings),
            "Train",
            on_result=self._on_fitted,
            on_error=self._on_failed,
            on_cancelled=self._on_cancelled,
            on_step=self._on_step,
            expected=self._expected(used),
        )
        self._refresh()

    def _on_step(self, step: Step) -> None:
        if step.notice:
            self.messages.add("notice", step.notice)
        if step.stage == SCORING and step.partial is not None:
            self.results.show_scores(step.partial)

    def _on_fitted(self, unsaved: Unsaved) -> None:
        self.unsaved = unsaved
        self.results.show_scores(unsaved.scores)
        assert self._job is not None
        seconds = dict(self._job.time_left.seconds)
        if SCORING in seconds:
            seconds[SCORING] /= fitting.sections_scored(len(self.used))
        self._timings.record(self._timing_key(), seconds, self._spots(self.used))
        self.messages.add(*fitting.verdict(unsaved.scores))
        self._refresh()

    def _on_failed(self, error: Exception) -> None:
        self.messages.show_error(error)

    def _on_cancelled(self) -> None:
        self.messages.add("notice", RESUMES)

    # --- weights ----------------------------------------------------------------------------
    def _ask_save(self) -> None:
        name = "weights" if self._source is None else self._source.resolve().stem
        path = ask_save(self, "Save weights", f"{name}.safetensors", WEIGHT_FILES)
        if path is not None:
            self.save(path)

    def save(self, path: Path) -> None:
        """Write the weights, their card and their scores."""
        assert self.unsaved is not None
        self.jobs.run(
            "save",
            self.unsaved.save(path),
            "Save weights",
            on_result=self._on_saved,
            on_cancelled=lambda: self.notify("Saving was cancelled; no weights were written."),
        )
        self._refresh()

    def _on_saved(self, fitted: Fitted) -> None:
        self._saved = fitted.weights
        self.notify(f"Saved {fitted.weights}; all scores are in {fitted.page}.")
        self._refresh()

    def use_in_predict(self) -> None:
        """Choose the saved weights in the Predict dock of this viewer."""
        if self._saved is not None:
            area = open_area(self.session.viewer, PREDICT)
            area.predict.load_weights(self._saved)
            _share_place(self, area)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Take a tab beside the FLAG area, where that is open: one below the other both are too low."""
        super().showEvent(event)
        if not self._placed:
            self._placed = True
            single_shot(self, 0, self._join_area).start()  # napari has not docked it yet

    def _join_area(self) -> None:
        window = self.window()
        for area in [] if window is None else window.findChildren(FlagArea):
            _share_place(area, self)


def _share_place(first: QWidget, shown: QWidget) -> None:
    """Put the docks of two widgets behind each other, where both are on one side, and show the second."""
    one, other = (_dock_of(widget) for widget in (first, shown))
    window = None if one is None else one.parent()
    if one is None or other is None or not isinstance(window, QMainWindow) or other.parent() is not window:
        return
    if window.dockWidgetArea(one) == window.dockWidgetArea(other) and not one.isFloating():
        window.tabifyDockWidget(one, other)
        other.raise_()


def _dock_of(widget: QWidget | None) -> QDockWidget | None:
    while widget is not None and not isinstance(widget, QDockWidget):
        widget = widget.parentWidget()
    return widget


def states_folder() -> Path:
    """Return where states of fits are kept, so that one that was stopped can go on."""
    return cache_folder("fits")


def _look_at(sections: Sequence[MeasuredSection], encoder: str) -> Steps[tuple[SectionLook, ...]]:
    yield Step(fitting.FINDING, 0, len(sections), "sections")
    return (yield from fitting.look_at_all(sections, fitting.encoder_of(encoder)))


def _fit(sections: tuple[MeasuredSection, ...], run: Path, settings: FitSettings) -> Steps[Unsaved]:
    """Load the training package, which takes seconds, and fit."""
    yield Step("Starting", 0)
    training = fitting.load_training()
    unsaved: Unsaved = yield from training.score_and_fit(sections, run, settings)
    return unsaved
