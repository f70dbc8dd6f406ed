"""Step 4 of the main dock: which part of the slide is predicted."""

from typing import Any, Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QPushButton, QWidget

from napari_flag.widgets.forms import READY, StepBox, narrow, plain_label

WHOLE: Final = "Whole tissue (all spots)"


class RegionStep(StepBox):
    """Asks whether all spots are predicted, or those inside the shapes of a Shapes layer."""

    regionChanged = Signal()
    drawRequested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(4, "Region", parent)
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Region")
        self.choice.setToolTip(
            "Predict all spots, or only those whose centre lies inside the shapes of a layer.\n"
            "The model still sees the tissue around them, so the numbers stay the same."
        )
        self.choice.currentIndexChanged.connect(self.regionChanged)
        self.draw = QPushButton("Draw…")
        self.draw.setToolTip("Add a Shapes layer and draw a region on the slide")
        self.draw.clicked.connect(self.drawRequested)
        self.head.addWidget(self.choice, 1)
        self.head.addWidget(self.draw)
        self.summary = plain_label()
        self.summary.hide()
        self.body.addWidget(self.summary)
        self.set_regions([])

    @property
    def region(self) -> Any:
        """The key of the chosen Shapes layer, None for the whole tissue."""
        return self.choice.currentData()

    def set_regions(self, regions: list[tuple[str, Any]], select: Any = None) -> None:
        """List Shapes layers as (name, key); the choice is kept unless `select` names another."""
        chosen = self.region if select is None else select
        self.choice.blockSignals(True)
        self.choice.clear()
        self.choice.addItem(WHOLE, None)
        for name, key in regions:
            self.choice.addItem(f"Inside “{name}”", key)
            if key is chosen:
                self.choice.setCurrentIndex(self.choice.count() - 1)
        self.choice.blockSignals(False)

    def show_count(self, n_selected: int | None, n_spots: int) -> None:
        """Show how many spots lie inside (None: nothing to count)."""
        self.summary.setVisible(n_selected is not None)
        if n_selected is None:
            self.set_state(READY if n_spots else "")
            return
        self.summary.setText(f"{n_selected:,} of {n_spots:,} spots lie inside.")
        self.set_state(READY if n_selected else "no spots inside")
