"""Scores of the sections left out in the Train dock: these weights beside controls and simple methods."""

from typing import TYPE_CHECKING, Final

from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_flag import fitting
from napari_flag.analysis.scores import EXPECTATION, MEANING
from napari_flag.formatting import counted
from napari_flag.gui.controls.forms import Choice
from napari_flag.gui.controls.tables import NumberView, score_column

if TYPE_CHECKING:
    import pandas as pd


MEAN: Final = ""
"""Stands for the mean over sections."""
EXPECTED: Final = tuple(score_column(name, MEANING[name]) for name in EXPECTATION)
DRAWN: Final = tuple(score_column(name, MEANING[name]) for name in ("CRPS", "ES", "SSC"))
OF_X, OF_DRAWS = "expectation", "draws"
WORDS: Final = {
    "floor": "simple",
    "image-blind": "blind to the image",
    "rival": "no network",
    "control": "control",
}
"""What stands after the name of a method that is not these weights'."""


class HeldOutScores(QWidget):
    """A table of methods, best first, of the mean over sections or of one; hidden without scores."""

    def __init__(self) -> None:
        super().__init__()
        self._scores: pd.DataFrame | None = None
        self.of = Choice(
            [("expectation (X)", OF_X), ("draws", OF_DRAWS)],
            name="Scores of",
            tooltip="What is judged: the expectation, by PCC, MSE and cPCC, or draws, by proper scores "
            "(lower is better) and SSC",
        )
        self.where = Choice([("mean of sections", MEAN)], name="Scores in", tooltip="On which section")
        self.table = NumberView("Method", width=58, names=150)
        row = QHBoxLayout()
        row.addWidget(self.of.native, 1)
        row.addWidget(self.where.native, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(row)
        box.addWidget(self.table, 1)
        self.of.changed.connect(lambda _: self._show())
        self.where.changed.connect(lambda _: self._show())
        self.show_scores(None)

    def show_scores(self, scores: "pd.DataFrame | None") -> None:
        """Show the scores of the sections left out so far (see `fitting.Fitted`), or none."""
        self._scores = scores
        self.setVisible(scores is not None)
        if scores is None:
            self.table.table.set_rows((), {}, ())
            return
        names = list(dict.fromkeys(scores[fitting.HELD_OUT]))
        text = f"mean of {counted(len(names), 'section')}"
        self.where.offer([(text, MEAN), *((f"{name} left out", name) for name in names)])
        self._show()

    def _show(self) -> None:
        if self._scores is None:
            return
        scores, where, draws = self._scores, self.where.value, self.of.value == OF_DRAWS
        if where != MEAN:
            scores = scores[scores[fitting.HELD_OUT] == where]
        means = fitting.summary(scores)
        judged = means["CRPS"].notna() if draws else [_gives_expectation(*row) for row in means.index]
        means, columns = means[judged], DRAWN if draws else EXPECTED
        names = [_label(kind, method) for kind, method in means.index]
        best_first = (1, not draws)  # proper scores are best low
        numbers = {column.key: means[column.key].to_numpy() for column in columns}
        self.table.table.set_rows(names, numbers, columns, best_first)
        self.table.mark(_label(fitting.OURS, fitting.DRAWS if draws else fitting.X))


def _gives_expectation(kind: str, method: str) -> bool:
    """Return whether a method is judged as an expectation; of these weights those are X and its control."""
    if kind == fitting.OURS:
        return method in (fitting.X, fitting.SHUFFLED)
    return kind in ("floor", "image-blind")


def _label(kind: str, method: str) -> str:
    if kind == fitting.OURS and method in (fitting.X, fitting.DRAWS):
        return f"{method}: these weights"
    return f"{method} · {WORDS[kind]}" if kind in WORDS else method
