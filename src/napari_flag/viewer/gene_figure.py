"""A gene map as a figure for a slide deck or a paper: PNG or SVG, with scale, colour bar, source."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.viewer.frame import Frame, frame_of, provenance, spot_diameter_px
from napari_flag.viewer.gene_map import DIVERGING, GeneMap
from napari_flag.viewer.gene_raster import DEFAULT_FILL, typical_pitch
from napari_flag.viewer.gene_values import Quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_flag.slides.slide import Slide

DPI: Final = 200
THUMBNAIL_PX: Final = 1600
MANY_SPOTS: Final = 5000
"""From here on the spots of an SVG are a picture, or no program would open it."""

FORMATS: Final = (".png", ".svg")

OVERLAY_RGB: Final = ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0))
"""First and second gene; light adds up, as on the screen: both high is white, both low black."""


def save_gene_figure(path: Path, gene_map: GeneMap, slide: "Slide | None") -> Path:
    """Write what `gene_map` shows now to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, nothing is shown, or the folder cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"A figure cannot be saved as “{path.suffix or path.name}”; choose .png or .svg.")
    figure = gene_figure(gene_map, slide)
    try:
        import matplotlib as mpl

        with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text, to be edited
            figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise UserError(
            f"The figure could not be saved to {path} ({error.strerror or error}); "
            "choose a folder you may write to."
        ) from error
    return path


def gene_figure(gene_map: GeneMap, slide: "Slide | None") -> "Figure":
    """Return the figure of what `gene_map` shows now, over the H&E of `slide` when it is at hand."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = gene_map.values
    if values is None or not gene_map.genes:
        raise UserError("There is no gene map to save yet; predict first, or open a prediction.")
    adata, quantity = values.adata, gene_map.quantity
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _draw_tissue(axes, adata, slide)
    _draw_spots(figure, axes, gene_map)
    _frame_axes(axes, adata)
    _draw_scale_bar(axes, frame_of(adata))
    title = " and ".join(gene_map.genes[: 2 if gene_map.overlaid else 1])
    axes.set_title(f"{title}, {quantity.value}", fontsize=13, loc="left")
    axes.set_xlabel(_source(adata), fontsize=7, loc="left", wrap=True)
    return figure


def _draw_tissue(axes: "Axes", adata: Any, slide: "Slide | None") -> None:
    picture, width, height = _thumbnail(adata, slide)
    if picture is not None:
        axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), zorder=0)


def _thumbnail(adata: Any, slide: "Slide | None") -> tuple[npt.NDArray[Any] | None, float, float]:
    """Return the H&E and its size in level-0 px: of the slide, else of the file's own picture."""
    ours = provenance(adata)
    if slide is not None and slide.name == ours.get(keys.SLIDE_NAME, slide.name):
        width, height = slide.size
        return slide.thumbnail(THUMBNAIL_PX), float(width), float(height)
    for library in dict(adata.uns.get(keys.SPATIAL, {})).values():
        images, factors = dict(library).get("images", {}), dict(library).get("scalefactors", {})
        for name in ("hires", "lowres"):
            factor = factors.get(f"tissue_{name}_scalef")
            if name in images and factor:
                picture = np.asarray(images[name])
                return picture, picture.shape[1] / factor, picture.shape[0] / factor
    return None, 0.0, 0.0


def _draw_spots(figure: "Figure", axes: "Axes", gene_map: GeneMap) -> None:
    """Draw each spot at its true diameter, coloured as on the screen, with a bar per gene."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    values, quantity = gene_map.values, gene_map.quantity
    assert values is not None
    xy = np.asarray(values.adata.obsm[keys.SPATIAL], float)[:, :2]
    colours, seen = np.zeros((len(xy), 4)), np.ones(len(xy), bool)
    for nth, gene in enumerate(gene_map.genes[: 2 if gene_map.overlaid else 1]):
        numbers = values.values(gene, quantity)
        seen &= np.isfinite(numbers)
        colormap: Any = DIVERGING if quantity is Quantity.DIFFERENCE else gene_map.colormap
        if gene_map.overlaid:
            ends = [(0.0, (0.0, 0.0, 0.0)), (1.0, OVERLAY_RGB[nth])]
            colormap = LinearSegmentedColormap.from_list(gene, ends)
        limits = values.limits(gene, quantity, gene_map.contrast)
        scale = ScalarMappable(Normalize(*limits, clip=True), colormap)
        colours += scale.to_rgba(np.nan_to_num(numbers))
        bar = figure.colorbar(scale, ax=axes, shrink=0.7, pad=0.02)
        bar.set_label(f"{gene} {_label(quantity)}, {values.units}", fontsize=9)
    diameter = spot_diameter_px(values.adata) or DEFAULT_FILL * typical_pitch(xy)
    sizes = np.full(int(seen.sum()), diameter)
    spots = EllipseCollection(
        sizes, sizes, np.zeros_like(sizes), units="xy", offsets=xy[seen], linewidths=0,
        offset_transform=axes.transData, facecolors=colours.clip(0, 1)[seen], zorder=1,
    )  # fmt: skip
    spots.set_rasterized(len(xy) > MANY_SPOTS)
    axes.add_collection(spots)


def _label(quantity: Quantity) -> str:
    return {
        Quantity.DIFFERENCE: "predicted − measured",
        Quantity.SPREAD: "spread (standard deviation over samples)",
    }.get(quantity, quantity.value)


def _frame_axes(axes: "Axes", adata: Any) -> None:
    xy = np.asarray(adata.obsm[keys.SPATIAL], float)[:, :2]
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = 0.04 * float((high - low).max()) + typical_pitch(xy)
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(high[1] + margin, low[1] - margin)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_scale_bar(axes: "Axes", frame: Frame) -> None:
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width = right - left
    length = _round_length(width * frame.um_per_px / 5)
    start, y = left + 0.04 * width, bottom + 0.05 * (top - bottom)
    axes.plot([start, start + length / frame.um_per_px], [y, y], color="black", lw=3, zorder=5)
    unit = "px (µm per pixel not known)" if frame.mpp is None else "µm"
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(
        start, y + 0.012 * (top - bottom), f"{length:,.0f} {unit}", fontsize=9, zorder=5,
        va="bottom", bbox=box,
    )  # fmt: skip


def _round_length(about: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten not above `about`."""
    power = 10.0 ** np.floor(np.log10(about))
    return float(max(step * power for step in (1, 2, 5) if step * power <= about))


def _source(adata: Any) -> str:
    ours = provenance(adata)
    parts = [
        f"Slide {ours[keys.SLIDE_NAME]}" if keys.SLIDE_NAME in ours else "",
        f"weights {ours[keys.WEIGHTS_NAME]}" if keys.WEIGHTS_NAME in ours else "",
        f"{adata.n_obs:,} spots",
    ]
    return ", ".join(part for part in parts if part) + f"\n{keys.RESEARCH_USE_ONLY}"
