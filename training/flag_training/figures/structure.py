"""Structure of prediction and truth: Moran's I gene by gene, and the co-expression heat maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from flag_training.figures.sources import FloatArray, Section
from flag_training.figures.style import COLOURS, DIVERGING, GREY
from napari_flag.statistics.accuracy import constant_genes
from napari_flag.statistics.coexpression import gene_correlations, gene_structure_correlation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED: Final = 5
"""Genes named in a scatter: those that cluster most in truth."""


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
        for gene in np.argsort(-np.nan_to_num(section.moran_truth))[:_NAMED]:
            panel.annotate(
                section.genes[gene],
                (section.moran_truth[gene], section.moran_predicted[gene]),
                xytext=(-3, -3),
                textcoords="offset points",
                fontsize=6,
                ha="right",
                va="top",
            )
        panel.set(xlim=ends, ylim=ends, aspect="equal")
        panel.set_title(f"{section.name}   SSC {section.scores['SSC']:.2f}", loc="left")
    for panel in panels.ravel()[len(sections) :]:
        panel.set_visible(False)
    figure.supxlabel("Moran's I, measured")
    figure.supylabel("Moran's I, predicted (X)")
    return figure


def draw_coexpression(section: Section) -> "Figure":
    """Draw gene–gene correlations of truth, X and one sample, all in the order of the truth's clustering."""
    from matplotlib.figure import Figure

    left_out = constant_genes(section.truth)
    kept = ~left_out
    truth = gene_correlations(section.truth)
    order = clustered_order(truth[np.ix_(kept, kept)])
    figure = Figure(figsize=(9.6, 3.5))
    panels = figure.subplots(1, 3)
    shown = (("measured", section.truth), ("predicted: X", section.predicted), ("one sample", section.sample))
    for number, (panel, (title, values)) in enumerate(zip(panels, shown, strict=True)):
        found = gene_correlations(values)
        told = f"   GSC {gene_structure_correlation(found, truth, left_out):.2f}" if number else ""
        picture = panel.imshow(
            found[np.ix_(kept, kept)][np.ix_(order, order)],
            cmap=DIVERGING,
            vmin=-1,
            vmax=1,
            interpolation="nearest",
        )
        panel.set_title(title + told, loc="left")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    panels[0].set_ylabel(f"{kept.sum()} genes, ordered by the truth's clustering")
    figure.colorbar(
        picture, ax=panels, shrink=0.8, label="Pearson's r over spots", ticks=[-1, -0.5, 0, 0.5, 1]
    )
    figure.suptitle(section.name, x=0.01, ha="left")
    return figure


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
