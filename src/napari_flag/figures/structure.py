"""Structure of prediction and truth: Moran's I gene by gene, and the co-expression heat maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from napari_flag.figures.section import Section
from napari_flag.figures.style import COLOURS, DIVERGING, GREY, SEQUENTIAL
from napari_flag.statistics.accuracy import FloatArray, composition, constant_genes
from napari_flag.statistics.coexpression import gene_correlations, gene_structure_correlation, upper_triangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RANGE: Final = (1, 99)
"""Percentiles of the correlations that the colours span."""


def draw_moran(sections: Sequence[Section]) -> "Figure":
    """Draw Moran's I of every gene, predicted over measured, a panel per section, with SSC and identity."""
    from matplotlib.figure import Figure

    wide = min(4, len(sections))
    tall = -(-len(sections) // wide)
    figure = Figure(figsize=(2.9 * wide, 3.0 * tall))
    panels = figure.subplots(tall, wide, squeeze=False, sharex=True, sharey=True)
    both = np.concatenate([np.concatenate([s.moran_truth, s.moran_predicted]) for s in sections])
    low, high = np.nanmin(both), np.nanmax(both)
    ends = (low - 0.05 * (high - low), high + 0.05 * (high - low))
    for panel, section in zip(panels.ravel(), sections, strict=False):
        panel.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        panel.scatter(
            section.moran_truth, section.moran_predicted, s=12, color=COLOURS[0], alpha=0.65, linewidths=0
        )
        panel.set(xlim=ends, ylim=ends, aspect="equal")
        panel.set_title(f"{section.name}   SSC {section.scores['SSC']:.2f}", loc="left")
    for panel in panels.ravel()[len(sections) :]:
        panel.set_visible(False)
    figure.supxlabel("Moran's I, measured", fontsize=9)
    figure.supylabel("Moran's I, predicted (X)", fontsize=9)
    return figure


def draw_coexpression(section: Section) -> "Figure":
    """Draw gene–gene correlations of truth, X and one sample, in the order of the truth's clustering.

    Above as they are, as GSC compares them; below after each spot's mean over the genes is taken away,
    since depth, which all genes share, hides the rest.
    """
    from matplotlib.figure import Figure

    kept = ~constant_genes(section.truth)
    shown = {
        f"{section.name}, measured": section.truth,
        "predicted: X": section.predicted,
        "one sample": section.sample,
    }
    figure = Figure(figsize=(9.6, 6.4))
    rows = figure.subplots(2, 3)
    _heat_maps(rows[0], {name: values[:, kept] for name, values in shown.items()}, SEQUENTIAL, "GSC")
    rows[0][0].set_ylabel(f"{kept.sum()} genes, as they are")
    pure = {name: composition(values)[:, kept] for name, values in shown.items()}
    _heat_maps(rows[1], pure, DIVERGING, "r over pairs")
    rows[1][0].set_ylabel("less each spot's mean")
    return figure


def _heat_maps(panels: "Sequence[Axes]", shown: dict[str, FloatArray], colours: str, score: str) -> None:
    """Draw one row: the first of `shown` (n, G) is the truth, whose clustering orders all."""
    found = [gene_correlations(values) for values in shown.values()]
    order = clustered_order(found[0])
    pairs = np.concatenate([upper_triangle(correlations) for correlations in found])
    low, high = np.percentile(pairs, _RANGE)
    if colours == DIVERGING:
        high = max(-low, high)
        low = -high
    none = np.zeros(len(order), bool)
    for number, (panel, name) in enumerate(zip(panels, shown, strict=True)):
        told = f"   {score} {gene_structure_correlation(found[number], found[0], none):.2f}" if number else ""
        picture = panel.imshow(
            found[number][np.ix_(order, order)], cmap=colours, vmin=low, vmax=high, interpolation="nearest"
        )
        panel.set_title(name + told, loc="left")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    figure = panels[0].figure
    figure.colorbar(picture, ax=list(panels), shrink=0.85, extend="both", label="Pearson's r over spots")


def clustered_order(correlations: FloatArray) -> npt.NDArray[np.int64]:
    """Return the (G,) order of genes by average linkage on 1 − r, neighbouring leaves as alike as can be."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    apart = 1 - correlations
    np.fill_diagonal(apart, 0)
    condensed = squareform((apart + apart.T) / 2, checks=False)
    order: npt.NDArray[np.int64] = leaves_list(
        optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    ).astype(np.int64)
    return order
