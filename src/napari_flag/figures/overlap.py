"""How many marker genes a prediction shares with the truth, beside what chance would share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_flag.figures.style import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_flag.statistics.markers import Overlap


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
    for number, (k, found) in enumerate(overlaps.items()):
        at = place + (number - (len(overlaps) - 1) / 2) * width
        share = [100 * overlap.shared / max(overlap.of, 1) for overlap in found]
        chance = [100 * overlap.chance / max(overlap.of, 1) for overlap in found]
        bars = panel.bar(at, share, 0.9 * width, color=COLOURS[number], label=f"first {k}")
        panel.bar_label(bars, [str(overlap.shared) for overlap in found], fontsize=7.5, padding=1)
        panel.hlines(chance, at - width / 2, at + width / 2, color=GREY, linewidth=1.4, zorder=3)
    panel.plot([], [], color=GREY, linewidth=1.4, label="chance")
    panel.set_xticks(place, names)
    panel.set(ylim=(0, 112), yticks=range(0, 101, 25), ylabel="% of marker genes shared")
    figure.legend(loc="outside upper right", ncols=len(overlaps) + 1)
    return figure
