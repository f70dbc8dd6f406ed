"""Which genes rise and fall together, in prediction and truth, as heat maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag.figures.section import Section
from napari_flag.figures.style import DIVERGING, SEQUENTIAL
from napari_flag.statistics.accuracy import FloatArray, composition, constant_genes
from napari_flag.statistics.coexpression import (
    gene_correlations,
    gene_order,
    gene_structure_correlation,
    upper_triangle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_RANGE: Final = (1, 99)
"""Percentiles of the correlations that the colours span."""
_ON: Final[Any] = {
    "bbox": {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    "color": "black",
}
"""How words are written over a heat map."""


def draw_triangles(section: Section) -> "Figure":
    """Draw gene–gene correlations in one square: above the diagonal predicted, below it measured.

    Left as they are, as GSC compares them; right after each spot's mean over the genes is taken away.
    Ordered by the clustering of the truth.
    """
    from matplotlib.figure import Figure

    kept = ~constant_genes(section.truth)
    figure = Figure(figsize=(8.6, 4.0))
    left, right = figure.subplots(1, 2)
    truth, predicted = section.truth, section.predicted
    pure = composition(truth)[:, kept], composition(predicted)[:, kept]
    _triangles(left, truth[:, kept], predicted[:, kept], SEQUENTIAL, "GSC")
    _triangles(right, *pure, DIVERGING, "less each spot's mean, r")
    return figure


def _triangles(panel: "Axes", truth: FloatArray, predicted: FloatArray, colours: str, score: str) -> None:
    below, above = gene_correlations(truth), gene_correlations(predicted)
    order = gene_order(below)
    none = np.zeros(len(order), bool)
    agreement = gene_structure_correlation(above, below, none)
    both = np.where(
        np.triu(np.ones(below.shape, bool)), above[np.ix_(order, order)], below[np.ix_(order, order)]
    )
    np.fill_diagonal(both, np.nan)
    _heat_map(panel, both, colours, f"{score} {agreement:.2f}")
    panel.text(0.97, 0.97, "predicted", transform=panel.transAxes, ha="right", va="top", **_ON)
    panel.text(0.03, 0.03, "measured", transform=panel.transAxes, **_ON)


def draw_predicted_coexpression(predicted: FloatArray) -> "Figure":
    """Draw gene–gene correlations (n, G) of a prediction without truth, ordered by their own clustering."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.0))
    panels = figure.subplots(1, 2)
    shown = (
        (predicted, SEQUENTIAL, "as predicted"),
        (composition(predicted), DIVERGING, "less each spot's mean"),
    )
    for panel, (values, colours, title) in zip(panels, shown, strict=True):
        found = gene_correlations(values)
        order = gene_order(found)
        picture = found[np.ix_(order, order)]
        np.fill_diagonal(picture, np.nan)
        _heat_map(panel, picture, colours, title)
    return figure


def _heat_map(panel: "Axes", correlations: FloatArray, colours: str, title: str) -> None:
    low, high = np.nanpercentile(correlations, _RANGE)
    if colours == DIVERGING:
        high = max(-low, high)
        low = -high
    picture = panel.imshow(correlations, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    panel.set_title(title, loc="left")
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    panel.figure.colorbar(picture, ax=panel, shrink=0.85, extend="both", label="Pearson's r over spots")


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
    order = gene_order(found[0])
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
