"""Whether X ± z · sd holds the truth as often as it says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_flag.figures.section import Section
from napari_flag.figures.style import COLOURS, GREY
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.calibration import LEVELS, normal_coverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_calibration(sections: Sequence[Section]) -> "Figure":
    """Draw the share of truth within the intervals over their nominal share, 50, 80 and 95 % marked."""
    from matplotlib.figure import Figure

    levels = np.unique([*np.linspace(0.05, 0.95, 19), *LEVELS])
    figure = Figure(figsize=(4.2, 3.9))
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", label="as promised")
    curves = [_shares(section, levels) for section in sections]
    for all_of_it, _ in curves:
        if len(sections) > 1:
            panel.plot(levels, all_of_it, color=COLOURS[0], alpha=0.3, linewidth=0.8)
    told = f"mean of {len(sections)} sections" if len(sections) > 1 else sections[0].name
    for colour, number, name in ((COLOURS[0], 0, told), (COLOURS[1], 1, "where the count is above 0")):
        mean = np.mean([curve[number] for curve in curves], axis=0)
        panel.plot(levels, mean, color=colour, linewidth=1.6, label=name)
        for level in LEVELS if number == 0 else ():
            share = mean[np.searchsorted(levels, level)]
            panel.plot(level, share, "o", color=colour, markersize=5)
            panel.annotate(
                f"{level:.0%}: {share:.1%}",
                (level, share),
                xytext=(-6, 5),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
    panel.set(
        xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="nominal share", ylabel="share of truth inside"
    )
    panel.set_title("Intervals X ± z · sd", loc="left")
    panel.legend(loc="lower right")
    return figure


def _shares(section: Section, levels: FloatArray) -> tuple[FloatArray, FloatArray]:
    assert section.spread is not None  # sections without are not passed here
    found = normal_coverage(section.predicted, section.spread, section.truth, levels.tolist())
    return np.array([c.share for c in found]), np.array([c.positive for c in found])
