"""Local Moran's I of a gene, or its clusters, as a figure: over the H&E, with legend, scale and source."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_flag.errors import UserError
from napari_flag.figures.gene_figure import check_format, source_of, write_figure
from napari_flag.figures.spot_map import draw_discs, draw_scale_bar, draw_tissue, frame_axes
from napari_flag.statistics.local_moran import CLASSES
from napari_flag.viewer.frame import frame_of
from napari_flag.viewer.gene_map import DIVERGING
from napari_flag.viewer.local_map import LocalMap, span_of
from napari_flag.viewer.map_kind import CLASS_COLOURS, CLASS_MEANINGS, MapKind

if TYPE_CHECKING:
    import numpy.typing as npt
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_flag.slides.slide import Slide


def save_local_figure(path: Path, local: LocalMap, adata: "AnnData", slide: "Slide | None") -> Path:
    """Write what `local` shows now to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, there is nothing to show yet, or the folder cannot be written.
    """
    check_format(path)
    return write_figure(local_figure(local, adata, slide), path)


def local_figure(local: LocalMap, adata: "AnnData", slide: "Slide | None") -> "Figure":
    """Return the figure of what `local` shows now of `adata`.

    Raises
    ------
    UserError
        When it shows the gene itself, or clusters that are not computed yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    key = local.key
    if key is None or local.kind is MapKind.EXPRESSION:
        raise UserError("Neither local Moran's I nor clusters are shown; choose one of them first.")
    numbers = local.numbers(key)
    if not np.isfinite(numbers).any():
        raise UserError("The clusters of this gene are not computed yet; wait until they are shown.")
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_tissue(axes, adata, slide)
    if local.kind is MapKind.CLASSES:
        _draw_classes(axes, adata, numbers)
        masked = ", q ≤ 0.05 over all spots" if local.corrected else ", p ≤ 0.05 in each spot"
    else:
        _draw_values(figure, axes, adata, numbers)
        masked = ""
    frame_axes(axes, adata)
    draw_scale_bar(axes, frame_of(adata))
    axes.set_title(f"{key[0]}, {local.kind.value} ({key[1].value}{masked})", fontsize=12, loc="left")
    axes.set_xlabel(source_of(adata), fontsize=7, loc="left", wrap=True)
    return figure


def _draw_values(
    figure: "Figure", axes: "Axes", adata: "AnnData", numbers: "npt.NDArray[np.float32]"
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    span = span_of(numbers)
    scale = ScalarMappable(Normalize(-span, span, clip=True), DIVERGING)
    draw_discs(axes, adata, scale.to_rgba(np.nan_to_num(numbers)), np.isfinite(numbers))
    bar = figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label("local Moran's I", fontsize=9)


def _draw_classes(axes: "Axes", adata: "AnnData", numbers: "npt.NDArray[np.float32]") -> None:
    from matplotlib.colors import to_rgba_array
    from matplotlib.patches import Patch

    seen = np.isfinite(numbers)
    classes = np.nan_to_num(numbers).astype(np.int64)
    draw_discs(axes, adata, to_rgba_array(CLASS_COLOURS)[classes], seen)
    handles = [
        Patch(color=colour, label=f"{name} {meaning}: {np.count_nonzero(seen & (classes == number))}")
        for number, (name, meaning, colour) in enumerate(
            zip(CLASSES, CLASS_MEANINGS, CLASS_COLOURS, strict=True)
        )
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
