"""Maps of a few genes, prediction above truth, on scales that let the two be compared."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.figures.spot_map import draw_discs, draw_scale_bar, frame_axes, shape_of
from napari_flag.figures.style import SEQUENTIAL
from napari_flag.matching import dense
from napari_flag.viewer.frame import frame_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANGE: Final = (1, 99)
"""Percentiles that the colours span, of both together."""


def draw_gene_maps(adata: "AnnData", genes: Sequence[str]) -> "Figure":
    """Draw each gene in a column: predicted, and measured below where ``layers["measured"]`` is there.

    One colour scale per gene, the same for both, so that a flat prediction looks flat.
    """
    from matplotlib.figure import Figure

    rows = {"predicted": dense(adata[:, list(genes)].X)}
    if keys.MEASURED in adata.layers:
        rows["measured"] = dense(adata[:, list(genes)].layers[keys.MEASURED])
    figure = Figure(figsize=(1.75 * len(genes), 1.65 * shape_of(adata) * len(rows) + 0.5))
    panels = figure.subplots(len(rows), len(genes), squeeze=False)
    for column, gene in enumerate(genes):
        together = np.concatenate([values[:, column] for values in rows.values()])
        low, high = np.nanpercentile(together, RANGE)
        for row, (name, values) in enumerate(rows.items()):
            panel = panels[row, column]
            _draw_values(panel, adata, values[:, column], (float(low), float(high)), panels.size)
            if column == 0:
                panel.set_ylabel(name)
        panels[0, column].set_title(gene, loc="left", style="italic")
        panels[-1, column].set_xlabel(f"{low:.1f} – {high:.1f}", fontsize=7)
    draw_scale_bar(panels[0, 0], frame_of(adata), colour=_ink(), box=False)
    return figure


def draw_labels(
    adata: "AnnData", shown: dict[str, npt.NDArray[np.int64]], colours: Sequence[str]
) -> "Figure":
    """Draw one map per entry of `shown`: title → (n,) int64 labels, below 0 where there is none."""
    from matplotlib.colors import to_rgba_array
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(shown), 3.1 * shape_of(adata) + 0.3))
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    palette = to_rgba_array(list(colours))
    for panel, (title, labels) in zip(panels, shown.items(), strict=True):
        draw_discs(panel, adata, palette[labels % len(palette)], labels >= 0, touching=True, maps=len(shown))
        frame_axes(panel, adata)
        panel.spines[:].set_visible(False)
        panel.set_title(title, loc="left")
    draw_scale_bar(panels[0], frame_of(adata), colour=_ink(), box=False)
    return figure


def _draw_values(
    panel: "Axes",
    adata: "AnnData",
    values: npt.NDArray[np.float32],
    limits: tuple[float, float],
    maps: int,
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(limits[0], max(limits[1], limits[0] + 1e-6), clip=True), SEQUENTIAL)
    colours = scale.to_rgba(np.nan_to_num(values))
    draw_discs(panel, adata, colours, np.isfinite(values), touching=True, maps=maps)
    frame_axes(panel, adata)
    panel.spines[:].set_visible(False)


def _ink() -> str:
    """Return the colour of text in the style at hand."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])
