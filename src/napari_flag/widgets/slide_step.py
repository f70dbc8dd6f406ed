"""Step 1 of the main dock: which slide, and how large its pixels are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from napari_flag.widgets.forms import READY, StepBox, narrow, plain_label

if TYPE_CHECKING:
    from napari_flag.slides.slide import Slide

SLIDE_FILES: Final = (
    "Slides and images (*.svs *.tif *.tiff *.ndpi *.mrxs *.scn *.vms *.vmu *.bif *.dcm *.svslide "
    "*.jpg *.jpeg *.png);;All files (*)"
)
NO_SLIDE: Final = "No slide open"


class SlideStep(StepBox):
    """Shows the open slides and asks for a file; says what is known of the chosen slide.

    It only emits what the person wants; the dock opens slides and answers with `set_slides` and
    `show_slide`.
    """

    slideChosen = Signal(object)  # the key given to set_slides
    fileChosen = Signal(object)  # Path
    mppSet = Signal(float)
    estimateRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(1, "Slide", parent)
        self.choice = narrow(QComboBox())
        self.choice.setToolTip("The slide to predict on: a slide open in the viewer")
        self.choice.setAccessibleName("Slide")
        self.choice.activated.connect(self._on_activated)
        self.open = QPushButton("Open…")
        self.open.setToolTip(
            "Open a slide file: SVS, NDPI, MRXS, TIFF, OME-TIFF, DICOM, JPEG or PNG.\n"
            "A file without a pyramid gets one in the cache the first time."
        )
        self.open.clicked.connect(self._ask_for_file)
        self.info = plain_label("Open an H&E slide, or choose one that is open in the viewer.")
        self.mpp = QDoubleSpinBox()
        self.mpp.setDecimals(4)
        self.mpp.setRange(0.0, 100.0)
        self.mpp.setSingleStep(0.01)
        self.mpp.setSuffix(" µm/px")
        self.mpp.setSpecialValueText("µm/px unknown")
        self.mpp.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.mpp.setKeyboardTracking(False)
        self.mpp.setAccessibleName("Micrometres per pixel")
        self.mpp.setToolTip(
            "How many µm one pixel of the full-resolution slide is wide.\n"
            "Read from the file where it states it; otherwise type it here (0: unknown)."
        )
        self.mpp.valueChanged.connect(self._on_mpp)
        self.source = plain_label()
        self.estimate = QPushButton("Estimate")
        self.estimate.setToolTip(
            "Fit the array's lattice to the spots of step 2, whose distance in µm is known"
        )
        self.estimate.clicked.connect(self.estimateRequested)
        self.head.addWidget(self.choice, 1)
        self.head.addWidget(self.open)
        bottom = QHBoxLayout()
        bottom.addWidget(self.mpp)
        bottom.addWidget(self.source, 1)
        bottom.addWidget(self.estimate)
        self.body.addWidget(self.info)
        self.body.addLayout(bottom)
        self.set_slides([], None)
        self.show_slide(None)

    def set_slides(self, slides: list[tuple[str, Any]], current: Any) -> None:
        """List the open slides as (name, key) and select the one whose key is `current`."""
        self.choice.blockSignals(True)
        self.choice.clear()
        if not slides:
            self.choice.addItem(NO_SLIDE, None)
        elif current is None:
            self.choice.addItem("Choose an open slide…", None)
        for name, key in slides:
            self.choice.addItem(name, key)
            if key is current:
                self.choice.setCurrentIndex(self.choice.count() - 1)
        self.choice.setEnabled(bool(slides))
        self.choice.blockSignals(False)

    def show_slide(self, slide: "Slide | None") -> None:
        """Show size, µm/px with its source, and what is doubtful about it."""
        from napari_flag.slides.slide import check_mpp

        self.messages.clear()
        for widget in (self.mpp, self.source, self.info):
            widget.setEnabled(slide is not None)
        self.mpp.blockSignals(True)
        self.mpp.setValue(0.0 if slide is None or slide.mpp is None else slide.mpp)
        self.mpp.blockSignals(False)
        if slide is None:
            self.info.setText("Open an H&E slide, or choose one that is open in the viewer.")
            self.source.setText("")
            self.set_state("")
            return
        self.info.setText(describe_slide(slide))
        self.source.setText(slide.mpp_source if slide.mpp else "not stated in the file")
        self.set_state(READY if slide.mpp else "µm/px needed")
        for notice in slide.notices:
            self.messages.add("notice", notice)
        if slide.mpp is None:
            self.messages.add(
                "warning",
                "The file does not state its µm/px; type it above, or read a spot table in step 2 "
                "and press Estimate.",
            )
        elif doubt := check_mpp(slide.mpp):
            self.messages.add("warning", doubt)

    def allow_estimate(self, why_not: str | None) -> None:
        """Enable Estimate, or say in its tooltip why it cannot be used."""
        self.estimate.setEnabled(why_not is None)
        self.estimate.setToolTip(
            why_not or "Fit the array's lattice to the spots of step 2, whose distance in µm is known"
        )

    def _ask_for_file(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open slide", "", SLIDE_FILES)
        if name:
            self.fileChosen.emit(Path(name))

    def _on_activated(self, index: int) -> None:
        key = self.choice.itemData(index)
        if key is not None:
            self.slideChosen.emit(key)

    def _on_mpp(self, value: float) -> None:
        if value > 0:
            self.mppSet.emit(value)


def describe_slide(slide: "Slide") -> str:
    """Return "9272 × 9920 px · 6.3 × 6.8 mm · 5 levels"."""
    width, height = slide.size
    parts = [f"{width:,} × {height:,} px"]
    if slide.mpp:
        parts.append(f"{width * slide.mpp / 1000:.1f} × {height * slide.mpp / 1000:.1f} mm")
    n_levels = len(slide.levels)
    parts.append("1 level" if n_levels == 1 else f"{n_levels} levels")
    return " · ".join(parts)
