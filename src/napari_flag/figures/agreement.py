"""How far a section agrees with its truth: Moran's I gene by gene, intervals, marker genes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag.analysis.compare import LEVELS, Section
from napari_flag.analysis.truth import FloatArray
from napari_flag.figures.style import COLOURS, GREY, as_written
from napari_flag.formatting import percent, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_flag.analysis.regions import Overlap


_NAMED: Final = 8
"""Genes named in a scatter for each reason, at most."""
_ROOM: Final = (0.14, 0.03)
"""Width and height of a name as a share of the panel; a second name in it is left out."""


@as_written()
def draw_moran(sections: Sequence[Section]) -> "Figure":
    """Draw Moran's I of every gene, one draw over measured, a panel per section, with SSC and identity."""
    from matplotlib.figure import Figure

    wide = min(4, len(sections))
    tall = -(-len(sections) // wide)
    figure = Figure(figsize=(2.9 * wide, 3.0 * tall))
    panels = figure.subplots(tall, wide, squeeze=False, sharex=True, sharey=True)
    ends = _ends(np.concatenate([np.concatenate([s.moran_truth, s.moran_sample]) for s in sections]))
    for panel, section in zip(panels.ravel(), sections, strict=False):
        _moran_panel(panel, section, ends)
    for panel in panels.ravel()[len(sections) :]:
        panel.set_visible(False)
    figure.supxlabel("Moran's I, measured", fontsize=9)
    figure.supylabel("Moran's I, one draw", fontsize=9)
    return figure


SIZE: Final = (4.6, 4.4)
"""Inches of a scatter with named genes."""


@as_written()
def draw_named_moran(section: Section) -> "Figure":
    """Return a figure of `fill_named_moran`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE)
    fill_named_moran(figure.subplots(), section)
    return figure


@as_written()
def fill_named_moran(panel: "Axes", section: Section) -> None:
    """Draw the same for one section, and name the most and least clustered and those off the line."""
    ends = _ends(np.concatenate([section.moran_truth, section.moran_sample]))
    _moran_panel(panel, section, ends)
    _name_genes(panel, section)
    panel.set(xlabel="Moran's I, measured", ylabel="Moran's I, one draw")


def _name_genes(panel: "Axes", section: Section) -> None:
    """Name genes at either end of the truth or off the common line, those first whose names find room."""
    seen = np.isfinite(section.moran_truth)  # a gene constant in truth has none
    x, y = section.moran_truth[seen], section.moran_sample[seen]
    genes = np.array(section.genes, object)[seen]
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
                genes[gene], (x[gene], y[gene]), xytext=(3, 3), textcoords="offset points",
                fontsize=6.5, style="italic",
            )  # fmt: skip


def _ends(values: FloatArray) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _moran_panel(panel: "Axes", section: Section, ends: tuple[float, float]) -> None:
    panel.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    panel.scatter(section.moran_truth, section.moran_sample, s=12, color=COLOURS[0], alpha=0.75, linewidths=0)
    panel.set(xlim=ends, ylim=ends, aspect="equal")
    panel.set_title(f"{section.name}   SSC {score(section.sample_scores['SSC'], 'SSC')}", loc="left")


@as_written()
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
    of = f"mean of {len(sections)} sections" if len(sections) > 1 else sections[0].name
    for colour, which, name in ((COLOURS[0], 0, of), (COLOURS[1], 1, "where the count is above 0")):
        mean = np.mean([curve[which] for curve in curves], axis=0)
        panel.plot(levels, mean, color=colour, linewidth=1.6, label=name)
        for level in LEVELS if which == 0 else ():
            share = mean[np.searchsorted(levels, level)]
            panel.plot(level, share, "o", color=colour, markersize=5)
            panel.annotate(
                f"{percent(level)}: {percent(share, 1)}",
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
    found = section.coverage(levels.tolist())
    return np.array([c.share for c in found]), np.array([c.positive for c in found])


@as_written()
def draw_overlaps(overlaps: "Mapping[int, Sequence[Overlap]]", names: Sequence[str]) -> "Figure":
    """Draw one bar per region and k: genes shared among the first k of both; a line marks chance.

    Parameters
    ----------
    overlaps
        k → overlap of each region, in the order of `names`.
    names
        Of the regions.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 0.75 * len(names) * len(overlaps) / 2, 2.9))
    panel = figure.subplots()
    place, width = np.arange(len(names)), 0.8 / len(overlaps)
    for nth, (k, found) in enumerate(overlaps.items()):
        at = place + (nth - (len(overlaps) - 1) / 2) * width
        share = [100 * overlap.shared / max(overlap.of, 1) for overlap in found]
        chance = [100 * overlap.chance / max(overlap.of, 1) for overlap in found]
        bars = panel.bar(at, share, 0.9 * width, color=COLOURS[nth], label=f"first {k}")
        panel.bar_label(bars, [str(overlap.shared) for overlap in found], fontsize=7.5, padding=1)
        panel.hlines(chance, at - width / 2, at + width / 2, color=GREY, linewidth=1.4, zorder=3)
    panel.plot([], [], color=GREY, linewidth=1.4, label="chance")
    panel.set_xticks(place, names)
    panel.set(ylim=(0, 112), yticks=range(0, 101, 25), ylabel="% of marker genes shared")
    figure.legend(loc="outside upper right", ncols=len(overlaps) + 1)
    return figure
