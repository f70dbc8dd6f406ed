"""The Samples dock: several joint draws of one slide, what stays between them and what moves."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSlider, QToolButton

from napari_flag import keys
from napari_flag.analysis.draws import (
    Draw,
    DrawNumbers,
    DrawRequest,
    compare_draws,
    count,
    draw_more,
    gene_between,
    keep,
    why_not,
)
from napari_flag.analysis.scores import FEWEST_DRAWS, MEANING, PROPER, STRUCTURE, DrawScores
from napari_flag.formatting import counted, interval, score, spread
from napari_flag.gui.controls.file_filters import WEIGHT_FILES
from napari_flag.gui.controls.forms import ask_open, number_field, plain_label
from napari_flag.gui.controls.small_maps import DrawSheet
from napari_flag.gui.controls.tables import NumberView, score_column
from napari_flag.gui.dock import NOTHING_YET, Dock, single_shot
from napari_flag.gui.shortcuts import DRAW
from napari_flag.layers.gene_values import Quantity
from napari_flag.prediction_file import layer_of, trained_on
from napari_flag.progress import Step

if TYPE_CHECKING:
    from anndata import AnnData

PLAY_MS: Final = 700
SCORES: Final = (*STRUCTURE, "PCC")
"""Of each draw, in the table."""
HYPHEN: Final = "\N{NON-BREAKING HYPHEN}"
AGAINST: Final = "All genes, each draw against the measurement:"
NO_TRUTH: Final = "Nothing measured is attached, so draws are compared with one another only."
ONE: Final = "One draw so far. Draw more to see what stays the same and what the slide leaves open."


class SamplesDock(Dock):
    """Pages through joint draws of the selected gene, and makes more of them.

    Parameters
    ----------
    napari_viewer
        The viewer; the selected draw is painted in the gene layer "one draw".
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.numbers: DrawNumbers | None = None
        self._weights: Path | None = None
        self._adata: Any = None
        self._number = 1
        self._due = single_shot(self, 0, self._compare)
        self._playing = QTimer(self)
        self._playing.setInterval(PLAY_MS)
        self._build()
        self._lay_out()
        self._connect()
        self._on_prediction()

    # --- construction ----------------------------------------------------------------------------
    def _build(self) -> None:
        self.before, self.after, self.play = QToolButton(), QToolButton(), QToolButton()
        for button, text, tip in (
            (self.before, "◀", "The draw before (Alt+← over the picture)"),
            (self.after, "▶", "The next draw (Alt+→ over the picture)"),
            (self.play, "Play", "Page through the draws, one after the other"),
        ):
            button.setText(text)
            button.setToolTip(tip)
            button.setAccessibleName(tip)
        self.play.setCheckable(True)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setMinimum(1)
        self.slider.setAccessibleName("Draw")
        self.place = QLabel()
        self.sheet = DrawSheet()
        self.between, self.gene, self.against = plain_label(), plain_label(), plain_label()
        self.table = NumberView("Draw", width=66, names=56)
        self.table.setMaximumHeight(170)
        self.wanted = number_field(
            FEWEST_DRAWS,
            2,
            keys.MOST_DRAWS,
            1,
            unit=" draws",
            tooltip="How many draws to have; those at hand are kept",
            arrows=True,
        )
        self.more = QPushButton("Draw")
        self.proper = plain_label()
        self.up_to = QPushButton(f"Draw up to {FEWEST_DRAWS}")
        self.up_to.hide()
        self.file = QPushButton("Weights…")
        self.file.setToolTip("Choose the weights file this prediction was made with")
        self.file.hide()

    def _lay_out(self) -> None:
        pages = QHBoxLayout()
        for widget in (self.before, self.slider, self.after, self.play, self.place):
            pages.addWidget(widget, 1 if widget is self.slider else 0)
        foot = QHBoxLayout()
        foot.addWidget(self.file)
        foot.addStretch(1)
        foot.addWidget(self.wanted.native)
        foot.addWidget(self.more)
        box = self.column()
        box.addWidget(self.messages)
        box.addLayout(pages)
        box.addWidget(self.sheet, 1)
        box.addWidget(self.gene)
        box.addWidget(self.between)
        box.addWidget(self.against)
        box.addWidget(self.table)
        scores = QHBoxLayout()
        scores.addWidget(self.proper, 1)
        scores.addWidget(self.up_to)
        box.addLayout(scores)
        box.addWidget(self.strip)
        box.addLayout(foot)

    def _connect(self) -> None:
        self._playing.timeout.connect(lambda: self.show_draw(self._number % max(self._count, 1) + 1))
        self.before.clicked.connect(lambda: self.step(-1))
        self.after.clicked.connect(lambda: self.step(1))
        self.play.toggled.connect(self._on_play)
        self.slider.valueChanged.connect(self.show_draw)
        self.sheet.drawChosen.connect(self.show_draw)
        self.sheet.quantityChosen.connect(self.session.show_quantity)
        self.table.chosen.connect(lambda name: self.show_draw(int(name)))
        self.more.clicked.connect(lambda: self.draw(int(self.wanted.value)))
        self.up_to.clicked.connect(lambda: self.draw(FEWEST_DRAWS))
        self.file.clicked.connect(self._ask_weights)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self.listen(self.session.genesShownChanged, self._on_gene)
        self.listen(self.session.appearanceChanged, self._on_appearance)
        viewer = self.session.viewer
        for key, by in DRAW.items():
            viewer.bind_key(key, lambda _, by=by: self.step(by), overwrite=True)
        self.when_closed(lambda: [viewer.bind_key(key, None) for key in DRAW])

    @property
    def _count(self) -> int:
        return 0 if self.session.adata is None else count(self.session.adata)

    # --- from the session ------------------------------------------------------------------------
    def _on_prediction(self) -> None:
        """Take up the draws of a prediction; making more of another one ends."""
        adata = self.session.adata
        if adata is not self._adata:  # else counts were attached to it, and drawing goes on
            self._adata, self._number = adata, 1
            self.play.setChecked(False)
            self.jobs.cancel("draw")
        elif self._count:
            self.session.gene_map.set_sample(layer_of(self._number))
        self.messages.clear()
        self.setEnabled(adata is not None)
        if adata is None:
            self.notify(NOTHING_YET)
        self._on_draws()

    def _on_draws(self) -> None:
        """Show that there are more draws, or others."""
        adata, there = self.session.adata, self._count
        self.slider.blockSignals(True)
        self.slider.setMaximum(max(there, 1))
        self.slider.setValue(self._number)
        self.slider.blockSignals(False)
        for widget in (self.slider, self.before, self.after, self.play):
            widget.setEnabled(there > 1)
        reason = why_not(adata, self.session.slide)
        for button in (self.more, self.up_to):
            button.setEnabled(reason is None)
            button.setToolTip(reason or "Draw as many; it can be cancelled, draws done are kept")
        if adata is not None and reason is not None:
            self.notify(reason)
        self._on_appearance()
        self._due.start()

    def _on_gene(self) -> None:
        self._on_appearance()
        self._say_gene()

    def _on_appearance(self) -> None:
        gene_map, there = self.session.gene_map, self._count
        shown = gene_map.quantity is Quantity.SAMPLE and there > 0
        self.sheet.show_gene(gene_map, self.session.gene, self._number if shown else 0)
        self.place.setText(f"{self._number} of {there}" if there else "")
        self.table.mark(_row(self._number) if shown else None)

    # --- paging ----------------------------------------------------------------------------------
    def step(self, by: int) -> None:
        """Show the draw `by` places further; after the last comes the first."""
        if self._count:
            self.show_draw((self._number - 1 + by) % self._count + 1)

    def show_draw(self, number: int) -> None:
        """Paint draw `number` (from 1) as the one draw of the gene."""
        if not 1 <= number <= self._count:
            return
        self._number = number
        if self.slider.value() != number:
            self.slider.blockSignals(True)
            self.slider.setValue(number)
            self.slider.blockSignals(False)
        self.session.gene_map.set_sample(layer_of(number))
        self.session.show_quantity(Quantity.SAMPLE)

    def set_awake(self, awake: bool) -> None:
        """Sleep while another page is shown, where nothing is to page through the draws any more."""
        if not awake:
            self.play.setChecked(False)
        super().set_awake(awake)

    def _on_play(self, on: bool) -> None:
        if on:
            self._playing.start()
        else:
            self._playing.stop()

    # --- drawing more ----------------------------------------------------------------------------
    def draw(self, upto: int) -> None:
        """Make draws until there are `upto`."""
        adata, slide = self.session.adata, self.session.slide
        reason = why_not(adata, slide)
        self.messages.clear()
        if adata is None or slide is None or reason is not None:
            self.notify(reason or NOTHING_YET)
            return
        if upto <= self._count:
            self.notify(f"There are {self._count} draws already; ask for more.")
            return
        self.jobs.run(
            "draw",
            draw_more(DrawRequest(adata, slide, upto, self.session.device, self._weights)),
            "Draw",
            on_result=lambda _: self._on_drawn(),
            on_error=self._on_failed,
            on_cancelled=partial(self._on_cancelled, adata),
            on_step=partial(self._on_step, adata),
        )

    def _on_step(self, adata: "AnnData", step: Step) -> None:
        """Keep each draw as it is done, so that cancelling loses none; also while another is looked at."""
        if isinstance(step.partial, Draw):
            keep(adata, step.partial)
            self.session.workspace.changed(adata)
            if adata is self.session.adata:
                self._on_draws()

    def _on_drawn(self) -> None:
        """Compare them here, and let other docks do so too."""
        self._due.start()
        self.session.drawsChanged.emit()

    def _on_cancelled(self, adata: "AnnData") -> None:
        self.notify(f"Cancelled; {counted(count(adata), 'draw')} are kept.")
        self._on_drawn()

    def _on_failed(self, error: Exception) -> None:
        self.messages.show_error(error)
        self.file.show()
        self._on_drawn()

    def _ask_weights(self) -> None:
        path = ask_open(self, "Weights", WEIGHT_FILES)
        if path is not None:
            self.use_weights(path)

    def use_weights(self, path: Path) -> None:
        """Draw with the weights in `path`; draw 1 must come out as it stands in the prediction."""
        self._weights = path
        self.draw(int(self.wanted.value))

    # --- numbers ---------------------------------------------------------------------------------
    def _compare(self) -> None:
        adata = self.session.adata
        if adata is None or not self._count:
            self.jobs.cancel("compare")
            self._show(None)
            return
        self.jobs.run(
            "compare",
            compare_draws(adata),
            "Compare draws",
            on_result=self._show,
            on_cancelled=lambda: self.notify("Comparing the draws was cancelled."),
        )

    def _show(self, numbers: DrawNumbers | None) -> None:
        self.numbers = numbers
        scores = None if numbers is None else numbers.scores
        self.between.setText("" if numbers is None else _between(numbers))
        self.against.setText("" if numbers is None else NO_TRUTH if scores is None else AGAINST)
        self.table.setVisible(scores is not None)
        self.proper.setText("" if scores is None else _proper(scores))
        self.proper.setToolTip("" if scores is None else _proper_in_words(scores))
        self.up_to.setVisible(scores is not None and scores.why_not is not None)
        if scores is None:
            self.table.table.set_rows((), {}, ())
        else:
            columns = [score_column(name, _meaning(name)) for name in SCORES]
            names = [_row(place + 1) for place in range(scores.number)]
            self.table.table.set_rows(names, scores.by_draw, columns, sort_by=(0, False))
            if self.session.adata is not None and (seen := trained_on(self.session.adata)) is not None:
                self.messages.add("warning", seen)
        self._on_appearance()
        self._say_gene()

    def _say_gene(self) -> None:
        adata, gene, numbers = self.session.adata, self.session.gene, self.numbers
        if adata is None or gene is None or numbers is None or gene not in adata.var_names:
            self.gene.setText("")
            return
        moran = numbers.moran[:, adata.var_names.get_loc(gene)]
        parts = [] if np.isnan(moran).all() else [f"Moran's I {_range(moran)}"]
        if len(moran) > 1 and not np.isnan(alike := gene_between(adata, gene)):
            parts.insert(0, f"correlation between two draws {score(alike, 'PCC')}")
        self.gene.setText(f"{gene}: {', '.join(parts)}" if parts else "")


def _row(number: int) -> str:
    """Return the name of a draw's row; the blank before one digit keeps 10 after 9 when sorted."""
    return f"{number:2d}"


def _meaning(metric: str) -> str:
    return MEANING[metric].split("(")[0].strip()


def _range(values: Any) -> str:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return spread((low, high), partial(score, metric="Moran's I"))


def _proper(scores: DrawScores) -> str:
    """Write the proper scores, or how many draws they need."""
    if scores.why_not is not None:
        return scores.why_not
    written = ", ".join(f"{name} {score(value, name)}" for name, value in scores.proper.items())
    kept = written.replace("-", HYPHEN)  # no line ends within a name
    return f"Proper scores of the first {FEWEST_DRAWS} draws, 0 is best: {kept}"


def _proper_in_words(scores: DrawScores) -> str:
    """Write what each proper score means, and its interval."""
    ends = {name: interval(scores.intervals.get(name), name) for name in PROPER}
    return "\n".join(f"{name} {ends[name]}".rstrip() + f": {MEANING[name]}" for name in PROPER)


def _between(numbers: DrawNumbers) -> str:
    """Say what stays and what moves, over all genes."""
    if not numbers.between:
        return ONE
    written = {name: score(value, name) for name, value in numbers.between.items()}
    return (
        f"All genes, one draw against another: single spots PCC {written['PCC']}; "
        f"genes that go together GSC {written['GSC']}; genes that cluster SSC {written['SSC']}. "
        "The nearer to 1, the more stays."
    )
