"""Heat maps of gene–gene correlations in prediction and measurement."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag.analysis.coexpression import Together, compare_structures
from napari_flag.analysis.compare import Section
from napari_flag.analysis.truth import FloatArray
from napari_flag.figures.style import DIVERGING, SEQUENTIAL
from napari_flag.formatting import number

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


def draw_triangles(together: Together, pure: Together) -> "Figure":
    """Draw gene–gene correlations in one square: below the diagonal predicted, above it measured.

    Left as they are, as GSC compares them; right after each spot's mean over the genes is taken away.
    Ordered by the clustering of the truth; without truth, both triangles show the prediction.

    Parameters
    ----------
    together, pure
        Of the same genes, with depth and without.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 4.0))
    shown = ((together, SEQUENTIAL, "GSC"), (pure, DIVERGING, "less each spot's mean, r"))
    for panel, (found, colours, score) in zip(figure.subplots(1, 2), shown, strict=True):
        if found.measured is None:
            _heat_map(
                panel, found.triangles(), colours, "as predicted" if found.depth else "less each spot's mean"
            )
            continue
        _heat_map(panel, found.triangles(), colours, f"{score} {number(found.gsc)}")
        panel.text(0.97, 0.97, "measured", transform=panel.transAxes, ha="right", va="top", **_ON)
        panel.text(0.03, 0.03, "predicted", transform=panel.transAxes, **_ON)
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

    others = {"predicted: X": section.predicted, "one sample": section.sample}
    figure = Figure(figsize=(9.6, 6.4))
    rows = figure.subplots(2, 3)
    for row, depth, colours, score in (
        (rows[0], True, SEQUENTIAL, "GSC"),
        (rows[1], False, DIVERGING, "r over pairs"),
    ):
        truth, found = compare_structures(section.truth, others, depth=depth)
        titles = {name: f"{name}   {score} {number(gsc)}" for name, (_, gsc) in found.items()}
        shown = {f"{section.name}, measured": truth} | {titles[name]: found[name][0] for name in found}
        _heat_maps(row, shown, colours)
        row[0].set_ylabel(f"{len(truth)} genes, as they are" if depth else "less each spot's mean")
    return figure


def _heat_maps(panels: "Sequence[Axes]", shown: dict[str, FloatArray], colours: str) -> None:
    """Draw one row of (G, G) correlations under their titles, all with the same colours."""
    pairs = np.concatenate([found[np.triu_indices(len(found), 1)] for found in shown.values()])
    low, high = np.percentile(pairs, _RANGE)
    if colours == DIVERGING:
        high = max(-low, high)
        low = -high
    for panel, (title, correlations) in zip(panels, shown.items(), strict=True):
        picture = panel.imshow(correlations, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        panel.set_title(title, loc="left")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    figure = panels[0].figure
    figure.colorbar(picture, ax=list(panels), shrink=0.85, extend="both", label="Pearson's r over spots")
