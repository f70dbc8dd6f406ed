"""Tissue detection: a mask of the slide at low resolution."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.slides.formats.readers import UInt8Array
from napari_flag.slides.overview import overview
from napari_flag.slides.slide import Slide

if TYPE_CHECKING:
    from shapely import Polygon


BoolArray = npt.NDArray[np.bool_]
FloatImage = npt.NDArray[np.float32]

WORKING_UM: Final = 7.0
"""µm per mask pixel aimed at: cells blur into texture, glands do not."""
LONGEST: Final = (512, 2048)
"""Pixels of the mask's longer side, least and most."""
ASSUMED_LONGEST: Final = 1024
"""The mask's longer side where µm/px is unknown."""
TEXTURE_WINDOW: Final = 7
"""Mask pixels over which texture (standard deviation of optical density) is taken."""
TEXTURE: Final = (0.012, 0.04)
"""Bounds of the texture threshold: glass and JPEG noise stay below the first, H&E tissue of the
five imaged her2st sections lies above the second; Otsu decides between them."""
DARK: Final = 0.2
"""Least mean optical density, over the background's, that counts as stain without texture."""
SPECK_MM2: Final = 0.05
HOLE_MM2: Final = 0.25
SPECK_SHARE: Final = 0.01
"""Pieces below this share of the largest are specks whatever their size."""


@dataclass(frozen=True, slots=True)
class Tissue:
    """Tissue mask of a slide.

    Parameters
    ----------
    mask
        (h, w) bool, True on tissue.
    downsample
        Level-0 pixels per pixel of `mask`.
    """

    mask: BoolArray
    downsample: float

    def contains(self, xy: npt.NDArray[Any]) -> BoolArray:
        """Return which of the (n, 2) positions, (x, y) in level-0 pixels, are on tissue."""
        height, width = self.mask.shape
        columns, rows = np.floor(np.asarray(xy, np.float64).T / self.downsample).astype(np.int64)
        inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
        found: BoolArray = self.mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]
        return np.asarray(found & inside)

    def polygons(self) -> list["Polygon"]:
        """Return the outlines, with holes, in level-0 pixels."""
        import shapely
        from skimage import measure

        contours: Any = measure.find_contours
        rings = contours(np.pad(self.mask, 1).astype(np.float32), 0.5)
        # +0.5: contours run between pixel centres, positions count from pixel corners; -1: padding.
        outlines = [shapely.Polygon((r[:, ::-1] - 0.5) * self.downsample) for r in rings]
        outlines.sort(key=lambda outline: -outline.area)
        found = shapely.Polygon()
        for outline in outlines:  # even-odd: a ring inside tissue is a hole, inside a hole tissue
            found = found.symmetric_difference(outline)
        found = found.simplify(0.7 * self.downsample)
        parts = getattr(found, "geoms", [found])
        return [part for part in parts if part.geom_type == "Polygon" and not part.is_empty]


def find_tissue(slide: Slide) -> Tissue:
    """Find tissue on an overview of the slide.

    Tissue is textured at the scale of cells, glass and the pink haze of spilt eosin are not: the
    local standard deviation of optical density is cut by Otsu's threshold (on its logarithm),
    joined by whatever is plainly stained.  Pen, dust and black borders (no colour that
    hematoxylin and eosin give) are left out, small holes filled and specks dropped.

    Parameters
    ----------
    slide
        The slide; its µm/px, if known, sets the scale worked at.

    Returns
    -------
    Tissue, whose mask is empty on a slide without any.
    """
    image = overview(slide, _longest(slide))
    downsample = max(slide.size) / max(image.shape[:2])
    pixel_um = downsample * slide.mpp if slide.mpp else WORKING_UM
    ink = _not_stain(image)
    density = _density(image, ink)
    mask = _tissue_pixels(density, ink)
    return Tissue(_tidied(mask, (pixel_um / 1000) ** 2), downsample)


def _longest(slide: Slide) -> int:
    if slide.mpp is None:
        return ASSUMED_LONGEST
    return int(np.clip(max(slide.size) * slide.mpp / WORKING_UM, *LONGEST))


def _not_stain(image: UInt8Array) -> BoolArray:
    """Return the pixels no mix of hematoxylin and eosin gives: green, cyan, pure blue, grey, black.

    Both stains let red through better than green; nuclei at this scale are violet, never black.
    """
    red, green, blue = (image[..., i].astype(np.int16) for i in range(3))
    brightest, darkest = image.max(axis=2), image.min(axis=2)
    greenish = (green > red + 12) & (darkest < 200)
    blue_ink = (blue > red + 60) & (red < green + 10)
    grey = (brightest < 120) & (brightest - darkest < 18)
    from scipy import ndimage

    ink = ndimage.binary_opening(greenish | blue_ink | grey | (brightest < 30), iterations=1)
    grown: BoolArray = ndimage.binary_dilation(ink, iterations=2)
    return grown


def _density(image: UInt8Array, ink: BoolArray) -> FloatImage:
    """Return mean optical density over that of the glass, (h, w) float32, 0 on ink."""
    grey = image.mean(axis=2)
    seen = grey[~ink]
    if seen.size == 0 or seen.min() == seen.max():
        return np.zeros(grey.shape, np.float32)
    glass = np.median(image[~ink & (grey > _otsu(seen))].astype(np.float32), axis=0)
    density = np.log((glass + 1) / (image + 1.0)).mean(axis=2)
    return np.where(ink, 0, np.clip(density, 0, None)).astype(np.float32)


def _tissue_pixels(density: FloatImage, ink: BoolArray) -> BoolArray:
    from scipy import ndimage

    clear = ndimage.uniform_filter((~ink).astype(np.float32), TEXTURE_WINDOW, mode="reflect")
    clear = np.maximum(clear, 1e-3)
    mean = ndimage.uniform_filter(density, TEXTURE_WINDOW) / clear
    square = ndimage.uniform_filter(density**2, TEXTURE_WINDOW) / clear
    texture = np.sqrt(np.clip(square - mean**2, 0, None))
    logs = np.log(texture + 1e-3)
    cut = float(np.clip(np.exp(_otsu(logs)) if np.ptp(logs) > 0 else 1.0, *TEXTURE))
    stained = mean > DARK
    return np.asarray(((texture > cut) | stained) & ~ink)


def _otsu(values: npt.NDArray[Any]) -> float:
    from skimage import filters

    threshold: Any = filters.threshold_otsu
    return float(threshold(values))


def _tidied(mask: BoolArray, pixel_mm2: float) -> BoolArray:
    """Close gaps between cells, fill small holes, drop specks."""
    from scipy import ndimage
    from skimage import morphology

    disk: Any = morphology.disk
    rim = TEXTURE_WINDOW
    padded = np.pad(mask, rim, mode="edge")
    closed = ndimage.binary_closing(padded, disk(rim))[rim:-rim, rim:-rim]
    opened = ndimage.binary_opening(np.pad(closed, rim, mode="edge"), disk(3))[rim:-rim, rim:-rim]
    filled = opened | _pieces(~opened, below=HOLE_MM2 / pixel_mm2, inside_only=True)
    largest = _largest(filled)
    least = max(SPECK_MM2 / pixel_mm2, SPECK_SHARE * largest)
    # A small image may be all there is: then its own share decides.
    least = min(least, 0.05 * mask.size)
    kept: BoolArray = filled & ~_pieces(filled, below=least, inside_only=False)
    return kept


def _pieces(mask: BoolArray, *, below: float, inside_only: bool) -> BoolArray:
    """Return the connected pieces of `mask` of fewer than `below` pixels."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    chosen = sizes < math.ceil(below)
    chosen[0] = False
    if inside_only:
        border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        chosen[np.unique(border)] = False
    found: BoolArray = chosen[labels]
    return found


def _largest(mask: BoolArray) -> int:
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


@dataclass(frozen=True, slots=True)
class Colours:
    """What the colours of a whole picture say of its stain; shares are 0–1.

    Parameters
    ----------
    dark
        Share of pixels too dark for glass or for tissue in bright field.
    stained
        Share of pixels that are denser than the glass, and not dark.
    chroma
        Median over stained pixels of the range of optical density over the three channels, over its mean:
        0 for grey, .54 and more in the H&E pictures measured.
    eosin_like
        Share of stained pixels that hold back green more than blue, and as red at least, as both stains do.
    brown
        Share of stained pixels that hold back blue most, as the DAB of immunohistochemistry does.
    red_marks
        Share of stained pixels of pure red, which lets red through and green and blue not: drawn marks.
    """

    dark: float
    stained: float
    chroma: float
    eosin_like: float
    brown: float
    red_marks: float


LOOKED_AT: Final = 512
"""Pixels of the longer side of the picture whose colours are read."""
DARK_FIELD: Final = 90
"""Brightest channel below which a pixel is neither glass nor tissue in bright field."""
STAINED: Final = 0.15
"""Mean optical density, over the glass', from which a pixel's colour is that of a stain."""


def read_colours(slide: Slide) -> Colours:
    """Return what the colours of `slide` say of its stain, from its coarsest useful level.

    Optical density is taken against the palest pixels of the picture itself, so that the scanner's white
    balance and cream or grey glass do not matter.
    """
    image = overview(slide, LOOKED_AT).astype(np.float32).reshape(-1, 3)
    light = image.max(axis=1) >= DARK_FIELD
    dark = 1 - float(light.mean())
    if light.sum() < 50:
        return Colours(dark, 0.0, 0.0, 0.0, 0.0, 0.0)
    seen = image[light]
    grey = seen.mean(axis=1)
    glass = np.median(seen[np.abs(grey - np.percentile(grey, 95)) < 8], axis=0)
    density = np.clip(np.log((glass + 1) / (seen + 1)), 0, None)
    stain = density[density.mean(axis=1) > STAINED]
    share = len(stain) / len(image)
    if len(stain) < 50:
        return Colours(dark, share, 0.0, 0.0, 0.0, 0.0)
    red, green, blue = stain.T
    chroma = float(np.median(np.ptp(stain, axis=1) / stain.mean(axis=1)))
    eosin_like = (green > blue) & (green > 0.85 * red)
    brown = (blue > 1.1 * green) & (blue > 1.3 * red)
    marks = (red < 0.2 * green) & (blue > 0.75 * green) & (blue < 1.35 * green) & (green > 0.5)
    return Colours(dark, share, chroma, float(eosin_like.mean()), float(brown.mean()), float(marks.mean()))
