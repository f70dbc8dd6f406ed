"""What every map of spots shares: the H&E below, spots at their true size, a frame and a scale bar."""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.viewer.frame import Frame, provenance, spot_diameter_px
from napari_flag.viewer.gene_raster import DEFAULT_FILL, typical_pitch

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

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
    adata
        Whose spots.
    colours
        (n, 4) RGBA, 0–1.
    seen
        (n,) bool, the spots to draw.
    touching
        As wide as the pitch, for small maps, where the gaps between true discs only hide them; else at
        their true diameter.
    """
    from matplotlib.collections import EllipseCollection

    xy = np.asarray(adata.obsm[keys.SPATIAL], float)[:, :2]
    pitch = typical_pitch(xy)
    diameter = pitch if touching else spot_diameter_px(adata) or DEFAULT_FILL * pitch
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
    margin = 0.04 * float((high - low).max()) + typical_pitch(xy)
    return low - margin, high + margin


def frame_axes(axes: "Axes", adata: "AnnData") -> None:
    """Show the spots and a margin, both axes alike, down the slide downwards."""
    low, high = _ends(adata)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(high[1], low[1])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_scale_bar(axes: "Axes", frame: Frame, colour: str = "black", box: bool = True) -> None:
    """Draw a bar of a round length, about a fifth of the width, at the lower left; in px without µm/px."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width = right - left
    length = _round_length(width * frame.um_per_px / 5)
    start, y = left + 0.04 * width, bottom + 0.05 * (top - bottom)
    axes.plot([start, start + length / frame.um_per_px], [y, y], color=colour, lw=3, zorder=5)
    unit = "px (µm per pixel not known)" if frame.mpp is None else "µm"
    behind = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5} if box else None
    axes.text(
        start, y + 0.012 * (top - bottom), f"{length:,.0f} {unit}", fontsize=9 if box else 7, zorder=5,
        va="bottom", color=colour, bbox=behind,
    )  # fmt: skip


def _round_length(about: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten not above `about`."""
    power = 10.0 ** np.floor(np.log10(about))
    return float(max(step * power for step in (1, 2, 5) if step * power <= about))
