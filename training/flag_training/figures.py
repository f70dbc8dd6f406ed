"""Figures of run folders: training curves, and predictions compared with measurements."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag.analysis.compare import Section, section_of
from napari_flag.analysis.truth import MEASURED, sources
from napari_flag.errors import UserError
from napari_flag.figures.style import COLOURS, GREY
from napari_flag.files import ending, read_csv
from napari_flag.formatting import first_of
from napari_flag.prediction_file import read_prediction
from napari_flag.statistics.accuracy import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NOT_DRAWN = ("step", "epoch", "seconds")
"""Columns of a log that are no curve of their own."""
_LARGEST: Final = 1e30
"""Beyond any step, loss or rate; sums of what is drawn stay numbers."""


@dataclass(frozen=True, slots=True)
class Log:
    """The log of one stage of training.

    Parameters
    ----------
    name
        Folder and stage.
    columns
        Column → (rows,) float64; NaN where a cell is empty.
    """

    name: str
    columns: dict[str, FloatArray]

    def curves(self) -> tuple[str, ...]:
        """Return the columns that hold anything to draw; a part that is the whole loss is not drawn twice."""
        found: list[str] = []
        for name, values in self.columns.items():
            if name in NOT_DRAWN or not np.isfinite(values).any() or not np.nanmax(np.abs(values)):
                continue
            if name == "loss" or not np.array_equal(values, self.columns["loss"]):
                found.append(name)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to draw.

    Parameters
    ----------
    places
        Where it was looked for.
    logs
        Those with a row per step.
    sections
        Predictions that hold their measurement, as ``evaluate`` leaves them.
    unread
        A sentence on each file that cannot be read, and so is left out.
    """

    places: tuple[Path, ...]
    logs: tuple[Log, ...]
    sections: tuple[Section, ...]
    unread: tuple[str, ...]


def find(places: Sequence[Path]) -> Found:
    """Return the logs and held-out predictions in `places` (files, or folders searched to the bottom).

    Other tables, such as those with a row per epoch, and predictions without a measurement are passed over.

    Raises
    ------
    UserError
        When a place does not exist.
    """
    logs: list[Log] = []
    sections: list[Section] = []
    unread = []
    for place in places:
        for path in _files(place):
            try:
                if ending(path) == ".csv":
                    logs += _logs_in(path, place)
                else:
                    sections += _sections_in(path)
            except UserError as error:
                unread.append(f"{path} is left out: {error}")
    return Found(tuple(places), tuple(logs), tuple(sections), tuple(unread))


def _files(place: Path) -> list[Path]:
    """Return the tables in `place`, then its predictions."""
    if not place.exists():
        raise UserError(f"There is no {place} to draw from; give run folders, logs or predictions.")
    there = [place] if place.is_file() else sorted(place.rglob("*"))
    return [path for kind in (".csv", ".h5ad") for path in there if ending(path) == kind]


def _logs_in(path: Path, place: Path) -> list[Log]:
    """Return the log in `path`; nothing of any other table, such as one per epoch."""
    try:
        names, rows = read_csv(path)
    except OSError as error:
        raise UserError(f"It cannot be read ({error.strerror}); get permission, or copy it again.") from error
    if not rows or "step" not in names or "loss" not in names:
        return []
    columns = {name: np.array([_number(row[name]) for row in rows]) for name in names}
    inside = path.relative_to(place) if place.is_dir() else Path(path.name)
    folder = place if place.is_dir() else place.parent
    log = Log(str(Path(folder.name) / inside.with_suffix("")), columns)
    absurd = [
        name for name, values in columns.items() if (np.abs(values[np.isfinite(values)]) > _LARGEST).any()
    ]
    if absurd:
        raise UserError(
            f"Its {first_of(absurd, 3)} goes beyond any number of a training; copy the log again."
        )
    if not log.curves():
        raise UserError("It holds no number but 0, so there is nothing to draw; train for more steps.")
    return [log]


def _sections_in(path: Path) -> list[Section]:
    """Return the prediction in `path` with its truth; nothing where it holds none."""
    adata = read_prediction(path)
    return [section_of(adata)] if MEASURED in sources(adata) else []


def _number(text: str | None) -> float:
    try:
        return float(text or math.nan)
    except ValueError:
        return math.nan


_SMOOTH: Final = 20
"""The running mean spans a twentieth of a curve."""
_SPIKES: Final = 2
"""Per cent of the points of a faint curve that may lie above its panel, and as many below."""
_TITLES: Final = {
    "loss": "loss, all parts",
    "validation": "loss on held-out slides",
    "learning_rate": "learning rate",
    "gradient_norm": "norm of the gradient",
}


def draw_dynamics(logs: Sequence[Log]) -> "Figure":
    """Draw every column of the logs over the steps, a panel each; faint as logged, strong as running mean.

    Single steps far beyond the others may lie outside a panel.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for log in logs for name in log.curves()))
    names.sort(key=lambda name: name in ("learning_rate", "gradient_norm"))
    wide = 2 if len(names) in (2, 4) else min(3, len(names))
    tall = -(-len(names) // wide)
    figure = Figure(figsize=(3.3 * wide, 2.5 * tall + 0.5))
    panels = figure.subplots(tall, wide, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        for number, log in enumerate(logs):
            if name in log.curves():
                _curve(panel, log, name, _colour(number, len(logs)))
        _leave_out_spikes(panel)
        panel.set_title(_TITLES.get(name, name.replace("_", " ")), loc="left")
        panel.set_xlabel("step")
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    if 1 < len(logs) <= len(COLOURS):
        lines = [panels[0].plot([], [], color=COLOURS[i])[0] for i in range(len(logs))]
        figure.legend(lines, [log.name for log in logs], loc="outside lower center", ncols=min(2, len(logs)))
    return figure


def _curve(panel: "Axes", log: Log, name: str, colour: str) -> None:
    values = log.columns[name]
    known = np.isfinite(values)
    step, value = log.columns["step"][known], values[known]
    if known.mean() < 0.5:  # validated now and then
        panel.plot(step, value, "o-", color=colour, markersize=3, linewidth=1.2)
        return
    if name == "learning_rate":  # has no noise to smooth
        panel.plot(step, value, color=colour, linewidth=1.4)
        return
    panel.plot(step, value, color=colour, alpha=0.2, linewidth=0.7)
    panel.plot(step, running_mean(value, max(1, len(value) // _SMOOTH)), color=colour, linewidth=1.4)


def _leave_out_spikes(panel: "Axes") -> None:
    """Give a panel the height of its strong lines, and of its faint ones without the most extreme points."""
    heights = [
        np.percentile(values, (_SPIKES, 100 - _SPIKES) if line.get_alpha() else (0, 100))
        for line in panel.lines
        if len(values := np.asarray(line.get_ydata(), dtype=float))
    ]
    low, high = np.min(heights), np.max(heights)
    margin = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
    panel.set_ylim(low - margin, high + margin)


def running_mean(values: FloatArray, span: int) -> FloatArray:
    """Return the mean over up to `span` values before and after each, fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - span, 0), np.minimum(at + span + 1, len(values))
    mean: FloatArray = (total[high] - total[low]) / (high - low)
    return mean


def _colour(number: int, count: int) -> str:
    return COLOURS[number] if count <= len(COLOURS) else GREY
