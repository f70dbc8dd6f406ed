"""Training-dynamics curves from the CSV logs of run folders."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from flag_training.figures.sources import Log
from napari_flag.figures.style import COLOURS, GREY
from napari_flag.statistics.accuracy import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SMOOTH: Final = 20
"""The running mean spans a twentieth of a curve."""
_TITLES: Final = {
    "loss": "loss, all parts",
    "validation": "loss on held-out slides",
    "learning_rate": "learning rate",
    "gradient_norm": "norm of the gradient",
}


def draw_dynamics(logs: Sequence[Log]) -> "Figure":
    """Draw every column of the logs over the steps, a panel each; faint as logged, strong as running mean."""
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
    if known.mean() < 0.5:  # a look now and then
        panel.plot(step, value, "o-", color=colour, markersize=3, linewidth=1.2)
        return
    if name == "learning_rate":  # has no noise to smooth
        panel.plot(step, value, color=colour, linewidth=1.4)
        return
    panel.plot(step, value, color=colour, alpha=0.2, linewidth=0.7)
    panel.plot(step, running_mean(value, max(1, len(value) // _SMOOTH)), color=colour, linewidth=1.4)


def running_mean(values: FloatArray, span: int) -> FloatArray:
    """Return the mean over up to `span` values before and after each, fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - span, 0), np.minimum(at + span + 1, len(values))
    mean: FloatArray = (total[high] - total[low]) / (high - low)
    return mean


def _colour(number: int, count: int) -> str:
    return COLOURS[number] if count <= len(COLOURS) else GREY
