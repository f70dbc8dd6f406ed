"""Maps of spots: H&E background, spots at their true size, frame and scale bar."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.truth import dense
from napari_flag.figures.style import SEQUENTIAL, as_written
from napari_flag.formatting import length as write_length
from napari_flag.formatting import number, whole
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity
from napari_flag.layers.overlays import LIMITS, UNLIKE_STOPS
from napari_flag.prediction_file import drawn_diameter_px
from napari_flag.slide_identity import is_made_on
from napari_flag.slides.spots import typical_pitch

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_flag.slides.slide import Slide


THUMBNAIL_PX: Final = 1600
MANY_SPOTS: Final = 5000
"""From here on the spots of an SVG are a picture, or no program would open it."""


def draw_tissue(axes: "Axes", adata: "AnnData", slide: "Slide | None" = None) -> None:
    """Draw the H&E of `slide`, or else the small picture in `adata`, or else nothing, in level-0 px."""
    picture, width, height = thumbnail(adata, slide)
    if picture is not None:
        axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), zorder=0)


def thumbnail(adata: "AnnData", slide: "Slide | None") -> tuple[npt.NDArray[Any] | None, float, float]:
    """Return the H&E and its size in level-0 px: of the slide, else of the file's own picture."""
    if slide is not None and is_made_on(adata, slide):
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


def draw_discs(
    axes: "Axes",
    adata: "AnnData",
    colours: npt.NDArray[np.float64],
    seen: npt.NDArray[np.bool_],
    *,
    touching: bool = False,
    rings: bool = False,
    maps: int = 1,
) -> None:
    """Draw each spot as a disc.

    Parameters
    ----------
    axes
        In level-0 pixels.
    adata
        Whose spots.
    colours
        (n, 4) RGBA, 0–1.
    seen
        (n,) bool, the spots to draw.
    touching
        At least as wide as the pitch, for small maps, where the gaps between true discs only hide them; else
        at their true diameter.
    rings
        Only outlines, in the colours given.
    maps
        How many maps the figure has; discs become pixels where all together are more than `MANY_SPOTS`.
    """
    from matplotlib.collections import EllipseCollection

    xy = np.asarray(adata.obsm[keys.SPATIAL], float)[:, :2]
    drawn = drawn_diameter_px(adata)
    diameter = max(typical_pitch(xy), drawn) if touching else drawn
    sizes = np.full(int(seen.sum()), diameter)
    spots = EllipseCollection(
        sizes, sizes, np.zeros_like(sizes), units="xy", offsets=xy[seen],
        linewidths=0.6 if rings else 0, offset_transform=axes.transData, zorder=1,
        facecolors="none" if rings else colours.clip(0, 1)[seen],
        edgecolors=colours.clip(0, 1)[seen] if rings else "none",
    )  # fmt: skip
    spots.set_rasterized(maps * len(xy) > MANY_SPOTS)
    axes.add_collection(spots)


def shape_of(adata: "AnnData") -> float:
    """Return the height of a map of `adata` per its width, between ½ and 2."""
    low, high = _ends(adata)
    width, height = high - low
    return float(np.clip(height / width, 0.5, 2.0))


def _ends(adata: "AnnData") -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the upper left and lower right corner, (x, y) level-0 px, of the spots and a margin."""
    xy = np.asarray(adata.obsm[keys.SPATIAL], float)[:, :2]
    low, high = xy.min(axis=0), xy.max(axis=0)
    margin = 0.04 * float((high - low).max()) + max(typical_pitch(xy), drawn_diameter_px(adata))
    return low - margin, high + margin


def frame_axes(axes: "Axes", adata: "AnnData") -> None:
    """Show the spots and a margin, both axes alike, down the slide downwards."""
    low, high = _ends(adata)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(high[1], low[1])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


@as_written()
def draw_scale_bar(axes: "Axes", frame: Frame, colour: str = "black", box: bool = True) -> None:
    """Draw a bar of a round length, about a fifth of the width, at the lower left; in px without µm/px."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width = right - left
    length = _round_length(width * frame.um_per_px / 5)
    start, y = left + 0.04 * width, bottom + 0.05 * (top - bottom)
    axes.plot([start, start + length / frame.um_per_px], [y, y], color=colour, lw=3, zorder=5)
    text = f"{whole(length)} px (µm per pixel not known)" if frame.mpp is None else write_length(length)
    behind = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5} if box else None
    axes.text(
        start, y + 0.012 * (top - bottom), text, fontsize=9 if box else 7, zorder=5,
        va="bottom", color=colour, bbox=behind,
    )  # fmt: skip


def _round_length(about: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten not above `about`."""
    power = 10.0 ** np.floor(np.log10(about))
    return float(max(step * power for step in (1, 2, 5) if step * power <= about))


@as_written()
def draw_gene_maps(adata: "AnnData", genes: Sequence[str], figure: "Figure | None" = None) -> "Figure":
    """Draw each gene in a column: predicted, and measured below where anything was.

    One colour scale per gene, that of the window and the same for both, so that a flat prediction looks
    flat.  An empty `figure` takes them, and is given their size; None makes one.
    """
    from matplotlib.figure import Figure

    rows = {"predicted": dense(adata[:, list(genes)].X)}
    shown = GeneValues(adata)
    if shown.why_not(Quantity.MEASURED) is None:
        rows["measured"] = dense(adata[:, list(genes)].layers[keys.MEASURED])
    figure = Figure() if figure is None else figure
    figure.set_size_inches(1.75 * len(genes), 1.65 * shape_of(adata) * len(rows) + 0.5)
    panels = figure.subplots(len(rows), len(genes), squeeze=False)
    for column, gene in enumerate(genes):
        low, high = shown.limits(gene, Quantity.PREDICTED, Contrast())
        for row, (name, values) in enumerate(rows.items()):
            panel = panels[row, column]
            _draw_values(panel, adata, values[:, column], (low, high), panels.size)
            if column == 0:
                panel.set_ylabel(name)
        panels[0, column].set_title(gene, loc="left", style="italic")
        panels[-1, column].set_xlabel(f"{number(low, 1)} – {number(high, 1)}", fontsize=7)
    draw_scale_bar(panels[0, 0], frame_of(adata), colour=_ink(), box=False)
    return figure


@as_written()
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

    scale = ScalarMappable(Normalize(*limits, clip=True), SEQUENTIAL)
    colours = scale.to_rgba(np.nan_to_num(values))
    draw_discs(panel, adata, colours, np.isfinite(values), touching=True, maps=maps)
    frame_axes(panel, adata)
    panel.spines[:].set_visible(False)


def _ink() -> str:
    """Return the colour of text in the style at hand."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])


LONGEST_PX: Final = 800
"""Of the H&E; more would make a page heavy."""
RING: Final = (0.0, 0.0, 0.0, 0.55)


@as_written()
def draw_overview(adata: "AnnData") -> "Figure | None":
    """Draw H&E and spots, and each spot's distance from the training tissue; None where neither is known."""
    from matplotlib.figure import Figure

    picture, width, height = thumbnail(adata, None)
    known = keys.DISTANCE in adata.obs
    if picture is None and not known:
        return None
    count = (picture is not None) + known
    figure = Figure(figsize=(4.3 * count, 4.0 * shape_of(adata) + 0.3))
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    if picture is not None:
        panel = panels[0]
        panel.imshow(_smaller(picture), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        draw_discs(panel, adata, np.tile(RING, (adata.n_obs, 1)), np.ones(adata.n_obs, bool), rings=True)
        panel.set_title("H&E and spots", loc="left")
    if known:
        panel = panels[-1]
        panel.set_title("distance from the training tissue", loc="left")
        _draw_distance(panel, adata, adata.obs[keys.DISTANCE].to_numpy(np.float64))
    for panel in panels:
        frame_axes(panel, adata)
        panel.spines[:].set_visible(False)
    draw_scale_bar(panels[0], frame_of(adata))
    return figure


def _draw_distance(panel: "Axes", adata: "AnnData", distance: npt.NDArray[np.float64]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    unlike = LinearSegmentedColormap.from_list("unlike", UNLIKE_STOPS)
    scale = ScalarMappable(Normalize(*LIMITS, clip=True), unlike)
    draw_discs(panel, adata, scale.to_rgba(distance), np.isfinite(distance), touching=True)
    panel.figure.colorbar(scale, ax=panel, shrink=0.8, extend="max", label="1: unlike begins")


def _smaller(picture: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    whole = np.rint(255 * picture[..., :3]) if picture.dtype.kind == "f" else picture[..., :3]
    image = Image.fromarray(np.ascontiguousarray(whole.astype(np.uint8)))
    image.thumbnail((LONGEST_PX, LONGEST_PX))
    return np.asarray(image)
