"""Heat maps: gene–gene correlations, and a gene set over regions, in prediction and measurement."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag.analysis.coexpression import (
    DEPTH_SHOWN,
    Together,
    colour_limit,
    compare_structures,
    depth_word,
)
from napari_flag.analysis.compare import Section
from napari_flag.analysis.set_maps import SetMap
from napari_flag.analysis.truth import FloatArray
from napari_flag.figures.gene_figure import check_format, write_figure
from napari_flag.figures.style import GREY, as_written, house_style
from napari_flag.formatting import number, score, whole
from napari_flag.layers.gene_map import DIVERGING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


_ON: Final[Any] = {
    "bbox": {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    "color": "black",
}
"""How words are written over a heat map."""


SIZE: Final = (5.8, 4.6)
"""Inches of one heat map with its colour bar."""


@as_written()
def draw_triangles(together: Together) -> "Figure":
    """Return a figure of `fill_triangles`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE)
    fill_triangles(figure.subplots(), together)
    return figure


@as_written()
def fill_triangles(panel: "Axes", together: Together) -> None:
    """Draw gene–gene correlations in one square: below the diagonal predicted, above it measured.

    Ordered by the clustering of the truth; without truth, both triangles show the prediction.  The title says
    whether depth is in what is shown, and gives GSC, which always has it.
    """
    _heat_map(panel, together)
    if together.measured is None:
        panel.set_title(f"predicted, {together.shown}", loc="left")
        return
    gsc = f"GSC of X (with depth, as defined) {score(together.gsc, 'GSC')}"
    panel.set_title(f"{together.shown} · {gsc}", loc="left")
    panel.text(0.97, 0.97, "measured", transform=panel.transAxes, ha="right", va="top", **_ON)
    panel.text(0.03, 0.03, "predicted", transform=panel.transAxes, **_ON)


def _heat_map(panel: "Axes", together: Together) -> None:
    picture = _show(panel, together.triangles(), together.limit)
    panel.figure.colorbar(picture, ax=panel, shrink=0.85, extend="both", label=_reach(together.limit))


def _show(panel: "Axes", correlations: FloatArray, limit: float) -> "AxesImage":
    panel.set(xticks=[], yticks=[])
    panel.spines[:].set_visible(False)
    return panel.imshow(correlations, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")


def _reach(limit: float) -> str:
    """Say what the colours are of, and where they end."""
    return f"Pearson's r over spots, colours to ±{number(limit)}"


@as_written()
def draw_coexpression(section: Section) -> "Figure":
    """Draw gene–gene correlations of truth, X and one draw, in the order of the truth's clustering.

    Above after each spot's mean over the genes is taken away, since depth, which all genes share, hides the
    rest; below as they are, as GSC compares them.
    """
    from matplotlib.figure import Figure

    others = {"predicted: X": section.predicted, "one draw": section.sample}
    figure = Figure(figsize=(9.6, 6.4))
    rows = figure.subplots(2, 3)
    for row, depth, compared in ((rows[0], DEPTH_SHOWN, "r over pairs"), (rows[1], True, "GSC")):
        truth, found = compare_structures(section.truth, others, depth=depth)
        titles = {name: f"{name}   {compared} {score(gsc, 'GSC')}" for name, (_, gsc) in found.items()}
        shown = {f"{section.name}, measured": truth} | {titles[name]: found[name][0] for name in found}
        _heat_maps(row, shown)
        row[0].set_ylabel(f"{whole(len(truth))} genes, {depth_word(depth)}")
    return figure


def _heat_maps(panels: "Sequence[Axes]", shown: dict[str, FloatArray]) -> None:
    """Draw one row of (G, G) correlations under their titles, all with the same colours."""
    limit = colour_limit(*shown.values())
    for panel, (title, correlations) in zip(panels, shown.items(), strict=True):
        picture = _show(panel, correlations, limit)
        panel.set_title(title, loc="left")
    panels[0].figure.colorbar(picture, ax=list(panels), shrink=0.85, extend="both", label=_reach(limit))


ROW_INCHES: Final = 0.17
COLUMN_INCHES: Final = 0.34
LEAST_INCHES: Final = 1.6
LETTER_INCHES: Final = 0.085
"""Of a region's name, which stands upright below its column."""


def save_set_map(path: Path, found: SetMap) -> Path:
    """Write `draw_set_map` to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, or the folder cannot be written.
    """
    check_format(path)
    with house_style():
        return write_figure(draw_set_map(found), path)


@as_written()
def draw_set_map(found: SetMap) -> "Figure":
    """Draw the genes of a set over regions, predicted beside measured, in the same colours."""
    from matplotlib.figure import Figure

    sources = list(found.values)
    width = max(COLUMN_INCHES * len(found.regions), LEAST_INCHES)
    names = LETTER_INCHES * max(len(region) for region in found.regions)
    height = max(ROW_INCHES * len(found.genes), LEAST_INCHES)
    size = (2.1 + width * len(sources), 0.8 + names + height)
    figure = Figure(figsize=size)
    panels = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for panel, source in zip(panels, sources, strict=True):
        picture = panel.imshow(
            found.values[source], cmap=DIVERGING, vmin=-found.limit, vmax=found.limit,
            interpolation="nearest", aspect="auto",
        )  # fmt: skip
        panel.set_title(source, loc="left")
        panel.set_facecolor(GREY)
        panel.set_xticks(range(len(found.regions)), found.regions, rotation=90)
        panel.set_yticks(range(len(found.genes)), found.genes, fontsize=7.5, style="italic")
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    figure.suptitle(f"{found.described}, depth removed", x=0.02, ha="left", fontsize=10)
    figure.colorbar(picture, ax=list(panels), shrink=0.85, label="above the section, log2(count + 1)")
    return figure
