"""A gene map as a figure for a slide deck or a paper: PNG or SVG, with scale, colour bar, source."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import __version__, keys
from napari_flag.analysis.spatial import CLASSES
from napari_flag.errors import UserError
from napari_flag.figures.spot_maps import draw_discs, draw_scale_bar, draw_tissue, frame_axes
from napari_flag.figures.style import DPI, as_written
from napari_flag.files import ending, replacing
from napari_flag.formatting import counted, whole
from napari_flag.layers.frame import frame_of
from napari_flag.layers.gene_map import DEFAULT_COLORMAP, DIVERGING, GeneMap
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity
from napari_flag.layers.local_map import CLASS_COLOURS, CLASS_MEANINGS, Key, LocalMap, MapKind, span_of
from napari_flag.prediction_file import provenance
from napari_flag.slide_identity import without_personal_names

if TYPE_CHECKING:
    import numpy.typing as npt
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_flag.slides.slide import Slide


FORMATS: Final = (".png", ".svg")
SIZE: Final = (7.2, 6.4)
"""Inches of a map."""
DEFAULT_CONTRAST: Final = Contrast()

OVERLAY_RGB: Final = ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0))
"""First and second gene; light adds up, as on the screen: both high is white, both low black."""


def save_gene_figure(path: Path, gene_map: GeneMap, slide: "Slide | None") -> Path:
    """Write what `gene_map` shows now to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, nothing is shown, or the folder cannot be written.
    """
    check_format(path)
    return write_figure(gene_figure(gene_map, slide), path)


def check_format(path: Path) -> None:
    """Refuse a figure that is neither .png nor .svg with a `UserError`, before it is drawn."""
    if ending(path) not in FORMATS:
        raise UserError(f"A figure cannot be saved as “{path.suffix or path.name}”; choose .png or .svg.")


_DATES: Final = {"svg": "Date", "pdf": "CreationDate"}
"""Kind of picture → what Matplotlib calls the time at which it was made."""


def write_figure(figure: "Figure", path: Path) -> Path:
    """Write `figure` to `path` and return it; it does not state when that was.

    Raises
    ------
    UserError
        When the folder cannot be written.
    """
    import matplotlib as mpl

    kind = ending(path)[1:]
    maker: dict[str, str | None]
    maker = {"Software" if kind == "png" else "Creator": f"napari-flag {__version__}"}
    if kind in _DATES:
        maker[_DATES[kind]] = None
    with mpl.rc_context({"svg.fonttype": "none"}), replacing(path) as place:  # text stays text, to be edited
        figure.savefig(place, format=kind, dpi=DPI, metadata=maker)
    return path


@as_written()
def gene_figure(gene_map: GeneMap, slide: "Slide | None") -> "Figure":
    """Return the figure of what `gene_map` shows now, over the H&E of `slide` when it is at hand."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = gene_map.values
    if values is None or not gene_map.genes:
        raise UserError("There is no gene map to save yet; predict first, or open a prediction.")
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    genes = gene_map.genes[: 2 if gene_map.overlaid else 1]
    draw_genes(
        axes, values, genes, gene_map.quantity,
        colormap=gene_map.colormap, contrast=gene_map.contrast, slide=slide,
    )  # fmt: skip
    axes.set_xlabel(source_of(values.adata), fontsize=7, loc="left", wrap=True)
    return figure


@as_written()
def draw_genes(
    axes: "Axes",
    values: GeneValues,
    genes: Sequence[str],
    quantity: Quantity,
    *,
    colormap: str = DEFAULT_COLORMAP,
    contrast: Contrast = DEFAULT_CONTRAST,
    slide: "Slide | None" = None,
) -> None:
    """Draw one gene, or two over each other, over the H&E: spots at true diameter, scale bar, colour bars.

    Parameters
    ----------
    axes
        To draw into.
    values, genes, quantity
        Of which prediction, which one or two genes, and what of them.
    colormap, contrast
        Of one gene; two have the colours `OVERLAY_RGB`, a difference has `DIVERGING`.
    slide
        Whose H&E; None takes the small picture in the prediction.
    """
    adata = values.adata
    draw_tissue(axes, adata, slide)
    _draw_spots(axes, values, genes, quantity, colormap, contrast)
    frame_axes(axes, adata)
    draw_scale_bar(axes, frame_of(adata))
    axes.set_title(f"{' and '.join(genes)}, {quantity.value}", fontsize=13, loc="left")


def _draw_spots(
    axes: "Axes",
    values: GeneValues,
    genes: Sequence[str],
    quantity: Quantity,
    colormap: str,
    contrast: Contrast,
) -> None:
    """Draw each spot at its true diameter, coloured as on the screen, with a bar per gene."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    spots = values.adata.n_obs
    colours, seen = np.zeros((spots, 4)), np.ones(spots, bool)
    for nth, gene in enumerate(genes):
        numbers = values.values(gene, quantity)
        seen &= np.isfinite(numbers)
        colours_of: Any = DIVERGING if quantity is Quantity.DIFFERENCE else colormap
        if len(genes) > 1:
            ends = [(0.0, (0.0, 0.0, 0.0)), (1.0, OVERLAY_RGB[nth])]
            colours_of = LinearSegmentedColormap.from_list(gene, ends)
        limits = values.limits(gene, quantity, contrast)
        scale = ScalarMappable(Normalize(*limits, clip=True), colours_of)
        colours += scale.to_rgba(np.nan_to_num(numbers))
        bar = axes.figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.02)
        bar.set_label(f"{gene} · {quantity.value}, {values.unit(quantity)}", fontsize=9)
    draw_discs(axes, values.adata, colours, seen)


def source_of(adata: Any) -> str:
    """Return slide, weights and use of a prediction, for the foot of a figure."""
    ours = provenance(without_personal_names(adata)[0])
    parts = [
        f"Slide {ours[keys.SLIDE_NAME]}" if keys.SLIDE_NAME in ours else "",
        f"weights {ours[keys.WEIGHTS_NAME]}" if keys.WEIGHTS_NAME in ours else "",
        counted(adata.n_obs, "spot"),
    ]
    return ", ".join(part for part in parts if part) + f"\n{keys.RESEARCH_USE_ONLY}"


def save_local_figure(path: Path, local: LocalMap, adata: "AnnData", slide: "Slide | None") -> Path:
    """Write what `local` shows now to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, there is nothing to show yet, or the folder cannot be written.
    """
    check_format(path)
    return write_figure(local_figure(local, adata, slide), path)


@as_written()
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
    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_local(axes, adata, key, numbers, local.kind, corrected=local.corrected, slide=slide)
    axes.set_xlabel(source_of(adata), fontsize=7, loc="left", wrap=True)
    return figure


@as_written()
def draw_local(
    axes: "Axes",
    adata: "AnnData",
    key: Key,
    numbers: "npt.NDArray[np.float32]",
    kind: MapKind,
    *,
    corrected: bool = False,
    slide: "Slide | None" = None,
) -> None:
    """Draw local Moran's I of a gene, or its clusters, over the H&E.

    Parameters
    ----------
    axes
        To draw into.
    adata, key
        The prediction; gene and quantity.
    numbers, kind
        (n,) float32 as `layers.local_map.local_numbers`, and which of the two they are.
    corrected
        Clusters are those significant by q over all spots together.
    slide
        Whose H&E; None takes the small picture in the prediction.
    """
    draw_tissue(axes, adata, slide)
    masked = ""
    if kind is MapKind.CLASSES:
        _draw_classes(axes, adata, numbers)
        masked = ", q ≤ 0.05 over all spots" if corrected else ", p ≤ 0.05 in each spot"
    else:
        _draw_values(axes, adata, numbers)
    frame_axes(axes, adata)
    draw_scale_bar(axes, frame_of(adata))
    axes.set_title(f"{key[0]}, {kind.value} ({key[1].value}{masked})", fontsize=12, loc="left")


def _draw_values(axes: "Axes", adata: "AnnData", numbers: "npt.NDArray[np.float32]") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    span = span_of(numbers)
    scale = ScalarMappable(Normalize(-span, span, clip=True), DIVERGING)
    draw_discs(axes, adata, scale.to_rgba(np.nan_to_num(numbers)), np.isfinite(numbers))
    bar = axes.figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.02)
    bar.set_label(f"{MapKind.LOCAL.value}, {MapKind.LOCAL.unit}", fontsize=9)


def _draw_classes(axes: "Axes", adata: "AnnData", numbers: "npt.NDArray[np.float32]") -> None:
    from matplotlib.colors import to_rgba_array
    from matplotlib.patches import Patch

    seen = np.isfinite(numbers)
    classes = np.nan_to_num(numbers).astype(np.int64)
    draw_discs(axes, adata, to_rgba_array(CLASS_COLOURS)[classes], seen)
    handles = [
        Patch(
            color=colour,
            label=f"{name} {meaning}: {whole(int(np.count_nonzero(seen & (classes == number))))}",
        )
        for number, (name, meaning, colour) in enumerate(
            zip(CLASSES, CLASS_MEANINGS, CLASS_COLOURS, strict=True)
        )
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
