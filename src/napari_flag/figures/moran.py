"""Moran's I of every gene, predicted over measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag.figures.section import Section
from napari_flag.figures.style import COLOURS, GREY
from napari_flag.statistics.accuracy import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED: Final = 8
"""Genes named in a scatter for each reason, at most."""
_ROOM: Final = (0.14, 0.03)
"""Width and height of a name as a share of the panel; a second name in it is left out."""


def draw_moran(sections: Sequence[Section]) -> "Figure":
    """Draw Moran's I of every gene, predicted over measured, a panel per section, with SSC and identity."""
    from matplotlib.figure import Figure

    wide = min(4, len(sections))
    tall = -(-len(sections) // wide)
    figure = Figure(figsize=(2.9 * wide, 3.0 * tall))
    panels = figure.subplots(tall, wide, squeeze=False, sharex=True, sharey=True)
    ends = _ends(np.concatenate([np.concatenate([s.moran_truth, s.moran_predicted]) for s in sections]))
    for panel, section in zip(panels.ravel(), sections, strict=False):
        _moran_panel(panel, section, ends)
    for panel in panels.ravel()[len(sections) :]:
        panel.set_visible(False)
    figure.supxlabel("Moran's I, measured", fontsize=9)
    figure.supylabel("Moran's I, predicted (X)", fontsize=9)
    return figure


def draw_named_moran(section: Section) -> "Figure":
    """Draw the same for one section, and name the most and least clustered and those off the line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4))
    panel = figure.subplots()
    ends = _ends(np.concatenate([section.moran_truth, section.moran_predicted]))
    _moran_panel(panel, section, ends)
    _name_genes(panel, section)
    panel.set(xlabel="Moran's I, measured", ylabel="Moran's I, predicted (X)")
    return figure


def _name_genes(panel: "Axes", section: Section) -> None:
    """Name genes at either end of the truth or off the common line, those first whose names find room."""
    x, y = section.moran_truth, section.moran_predicted
    slope, level = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, float(y.mean()))
    ranked = (np.argsort(-x), np.argsort(-np.abs(y - slope * x - level)), np.argsort(x))
    wide, high = (
        _ROOM[axis] * np.ptp(ends) for axis, ends in enumerate((panel.get_xlim(), panel.get_ylim()))
    )
    placed: list[int] = []
    for gene in dict.fromkeys(int(order[place]) for place in range(min(_NAMED, len(x))) for order in ranked):
        if all(abs(x[gene] - x[other]) > wide or abs(y[gene] - y[other]) > high for other in placed):
            placed.append(gene)
            panel.annotate(
                section.genes[gene], (x[gene], y[gene]), xytext=(3, 3), textcoords="offset points",
                fontsize=6.5, style="italic",
            )  # fmt: skip


def _ends(values: FloatArray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _moran_panel(panel: "Axes", section: Section, ends: tuple[float, float]) -> None:
    panel.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    panel.scatter(
        section.moran_truth, section.moran_predicted, s=12, color=COLOURS[0], alpha=0.75, linewidths=0
    )
    panel.set(xlim=ends, ylim=ends, aspect="equal")
    panel.set_title(f"{section.name}   SSC {section.scores['SSC']:.2f}", loc="left")
