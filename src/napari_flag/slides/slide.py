"""Slides: pixels of every pyramid level by window, and µm per pixel with its source."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.formatting import storable
from napari_flag.progress import Steps
from napari_flag.slides.colours import SCANNED, SRGB, Colours, SrgbReader
from napari_flag.slides.file_identity import content_hash, neutral_name, why_personal
from napari_flag.slides.formats.opening import open_reader
from napari_flag.slides.formats.pyramid import cached_reader, has_pyramid
from napari_flag.slides.formats.readers import Reader, Size, UInt8Array, mirrored
from napari_flag.slides.resolution import FINEST

_AT_ONCE: Final = 2**23
"""Pixels of a window that is read to be made smaller: some 80 MB as stored, as RGB and in Pillow's memory."""
_ROWS: Final = 512
"""Of a window: as many as tiles usually have, so that few are decoded more than once."""


class LazyLevel:
    """A (height, width, 3) uint8 array-like that reads a window when it is indexed.

    Parameters
    ----------
    size
        (width, height).
    read
        ``read(x, y, width, height)`` gives (height, width, 3) uint8.
    """

    dtype: Final = np.dtype(np.uint8)
    ndim: Final = 3

    def __init__(self, size: Size, read: Callable[[int, int, int, int], UInt8Array]) -> None:
        self.shape = (size[1], size[0], 3)
        self._read = read

    def __deepcopy__(self, memo: object) -> "LazyLevel":
        """Return itself: it holds no pixels, and napari copies what it duplicates."""
        return self

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        """Read what `key` (integers, slices, ellipsis) selects and nothing else."""
        rows, columns, *rest = _full(key)
        y, height, y_key = _span(rows, self.shape[0])
        x, width, x_key = _span(columns, self.shape[1])
        if height == 0 or width == 0:
            window = np.empty((height, width, 3), np.uint8)
        else:
            window = self._read(x, y, width, height)
        picked: npt.NDArray[np.uint8] = window[(y_key, x_key, *rest)]
        return picked

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read the whole level."""
        return np.asarray(self[...], dtype=dtype)

    def __repr__(self) -> str:
        return f"LazyLevel{self.shape}"


def _full(key: Any) -> list[Any]:
    """Return `key` with an ellipsis and missing axes filled in."""
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in [k for k in keys if not isinstance(k, np.ndarray)]:
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (4 - len(keys))
    return keys + [slice(None)] * (3 - len(keys))


def _span(key: Any, size: int) -> tuple[int, int, Any]:
    """Return start and length of the pixels to read along an axis, and the key within them."""
    if isinstance(key, slice):
        wanted = range(*key.indices(size))
        if not wanted:
            return 0, 0, slice(None)
        first, last = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
        return first, last - first + 1, slice(None, None, wanted.step)
    index = int(key)
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for {size} pixels")
    return index % size, 1, 0


SET_BY_HAND: Final = "set by hand"


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide; a context manager that closes its file.

    Parameters
    ----------
    path
        The file it was opened from.
    mpp, mpp_source
        µm per level-0 pixel and where that came from; None and "" when unknown.
    reader
        What reads its pixels.
    notices
        Sentences the user should see: pixels not square, a screen's dpi ignored, ...
    colours
        What its pixels are.
    """

    path: Path
    mpp: float | None
    mpp_source: str
    reader: Reader = field(repr=False, compare=False)
    notices: tuple[str, ...] = ()
    colours: Colours = SCANNED

    @property
    def name(self) -> str:
        """File name without its ending."""
        return slide_name(self.path)

    @property
    def size(self) -> Size:
        """(width, height) in level-0 pixels."""
        return self.reader.levels[0]

    @property
    def levels(self) -> tuple[Size, ...]:
        """(width, height) of each pyramid level, in its pixels."""
        return self.reader.levels

    @property
    def downsamples(self) -> tuple[float, ...]:
        """Level-0 pixels per pixel of each level."""
        return tuple(_downsample(self.size, level) for level in self.levels)

    def read_region(self, x: float, y: float, width: int, height: int, level: int = 0) -> UInt8Array:
        """Read a window; thread-safe.  Outside the slide the border is mirrored.

        Parameters
        ----------
        x, y
            Top-left corner in level-0 pixels, rounded to a pixel of `level`; may be negative.
        width, height
            Size of the window in pixels of `level`.
        level
            Pyramid level.

        Returns
        -------
        uint8 (height, width, 3), RGB.
        """
        down = self.downsamples[level]
        return self.read_level(round(x / down), round(y / down), width, height, level)

    def read_level(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Read a window as `read_region` does, with x and y in pixels of `level`."""
        full_width, full_height = self.levels[level]
        if x >= 0 and y >= 0 and x + width <= full_width and y + height <= full_height:
            return self.reader.read(x, y, width, height, level)
        columns, rows = mirrored(x, width, full_width), mirrored(y, height, full_height)
        left, top = int(columns.min()), int(rows.min())
        box = self.reader.read(left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1, level)
        return box[(rows - top)[:, None], (columns - left)[None, :]]

    def level_for(self, downsample: float) -> int:
        """Return the smallest level that still has at least one pixel per `downsample` pixels."""
        fine = [i for i, d in enumerate(self.downsamples) if d <= downsample * 1.005]
        return max(fine, key=lambda i: self.downsamples[i], default=0)

    def thumbnail_size(self, longest: int = 2048) -> tuple[int, int]:
        """Return (width, height) of ``thumbnail(longest)``."""
        factor = max(1.0, max(self.size) / longest)
        return max(1, round(self.size[0] / factor)), max(1, round(self.size[1] / factor))

    def thumbnail(self, longest: int = 2048) -> UInt8Array:
        """Return the whole slide, (h, w, 3) uint8, at most `longest` pixels along either side."""
        from PIL import Image

        factor, target = max(1.0, max(self.size) / longest), self.thumbnail_size(longest)
        level = self.level_for(factor)
        step = max(1, int(factor / self.downsamples[level]))
        reduced = self._reduced(level, step)
        if reduced.shape[1::-1] == target:
            return reduced
        # Blocks at the right and bottom may be incomplete: only what the slide covers counts.
        box = (0.0, 0.0, self.levels[level][0] / step, self.levels[level][1] / step)
        return np.asarray(Image.fromarray(reduced).resize(target, Image.Resampling.BOX, box=box))

    def _reduced(self, level: int, step: int) -> UInt8Array:
        """Return the means of `step` × `step` blocks of `level`, read window by window."""
        from PIL import Image

        width, height = self.levels[level]
        across, down = _window_of(width, step)
        bands = []
        for y in range(0, height, down):
            band = []
            for x in range(0, width, across):
                pixels = self.reader.read(x, y, min(across, width - x), min(down, height - y), level)
                band.append(pixels if step == 1 else np.asarray(Image.fromarray(pixels).reduce(step)))
            bands.append(np.concatenate(band, axis=1))
        return np.concatenate(bands)

    def with_mpp(self, mpp: float, source: str = SET_BY_HAND) -> "Slide":
        """Return the same slide (sharing the open file) at `mpp` µm per level-0 pixel."""
        if not (np.isfinite(mpp) and mpp >= FINEST):
            raise UserError(f"{mpp} µm per pixel is not a size; give a number such as 0.5.")
        return replace(self, mpp=float(mpp), mpp_source=source)

    def in_colours(self, colours: Colours) -> "Slide":
        """Return the same slide (sharing the open file) with its pixels in `colours`.

        One without a colour profile is taken to be sRGB.

        Raises
        ------
        UserError
            When its colour profile cannot be used.
        ValueError
            When it was converted already and is asked for as scanned.
        """
        if colours == self.colours:
            return self
        if colours == SCANNED:
            raise ValueError("the slide was converted to sRGB; open it again for its own colours")
        if self.reader.profile is None:
            return replace(self, colours=SRGB)
        return replace(self, colours=SRGB, reader=SrgbReader(self.reader, self.path.name))

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_slide(path: str | Path, mpp: float | None = None) -> Slide:
    """Open a slide of any format.

    Parameters
    ----------
    path
        A whole-slide image, TIFF, or plain image; for DICOM a file or its folder; for SpatialData the
        zarr, or the folder of one of its images.
    mpp
        µm per level-0 pixel when known better than by the file.

    Raises
    ------
    UserError
        When the file is missing, is no image, or is damaged.
    """
    path = Path(path).expanduser()
    reader = open_reader(path)
    path = getattr(reader, "path", path) if ending(path) == ".zarr" else path
    found = reader.resolution
    slide = Slide(path, found.mpp, found.source, reader, found.notices)
    return slide if mpp is None else slide.with_mpp(mpp)


def needs_pyramid(slide: Slide) -> bool:
    """Return whether `build_pyramid` has something to do before `slide` can be shown smoothly."""
    return not has_pyramid(slide.reader)


def build_pyramid(slide: Slide, cache_dir: str | Path | None = None) -> Steps[Slide]:
    """Give a slide without a useful pyramid, or without random access, one in a cache.

    Parameters
    ----------
    slide
        The slide; the returned one takes its place and is the one to close.
    cache_dir
        Folder of the cache, by default the user's cache folder of napari-flag.

    Yields
    ------
    Step, in tiles; cancelled, nothing is left behind.

    Returns
    -------
    The slide with level-0 pixels unchanged (the cache is lossless), or `slide` itself when it
    needs no pyramid.

    Raises
    ------
    UserError
        When the cache folder cannot be written, or the image does not fit in memory.
    """
    if not needs_pyramid(slide):
        return slide
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    reader = yield from cached_reader(slide.reader, slide.path, folder)
    return replace(slide, reader=reader)


def napari_levels(slide: Slide) -> list[LazyLevel]:
    """Return the levels as lazy (h, w, 3) uint8 arrays for ``add_image(multiscale=True)``.

    napari asks them for the part on screen, and nothing else is read.  Show it with
    ``rgb=True, contrast_limits=(0, 255)``, so that napari reads no pixels to infer them.
    """
    return [
        LazyLevel(size, partial(slide.read_level, level=level)) for level, size in enumerate(slide.levels)
    ]


def slide_name(path: Path) -> str:
    """Return a file's name without its ending (also ``.ome.tif``); "STORE_NAME" of a zarr's image."""
    stem = storable(path.stem)
    if path.parent.name == "images" and ending(path.parents[1]) == ".zarr":
        return storable(f"{path.parents[1].stem}_{path.name}")
    return stem[: -len(".ome")] if ending(stem) == ".ome" else stem


def name_in_results(path: Path, keep: bool = False, name: str = "") -> str:
    """Return what results call a slide: its `name` (its file's by default), or a neutral one for a patient's.

    With `keep`, a patient's name stays.
    """
    name = name or slide_name(path)
    return name if keep or why_personal(name) is None else neutral_name(content_hash(path))


def _window_of(width: int, step: int) -> Size:
    """Return width and height, multiples of `step`, of windows in which a level `width` px wide is read.

    Full rows, as strips are stored, where `_ROWS` of them are no more than `_AT_ONCE` pixels; else squares.
    """
    if width * max(_ROWS, step) <= _AT_ONCE:
        return -(-width // step) * step, max(1, _AT_ONCE // (width * step)) * step
    side = max(1, math.isqrt(_AT_ONCE) // step) * step
    return side, side


def _downsample(full: Size, level: Size) -> float:
    """Return level-0 pixels per pixel of a level: a whole number where rounding of sizes allows."""
    ratio = (full[0] / level[0] + full[1] / level[1]) / 2
    whole = round(ratio)
    if all(abs(f / whole - n) < 1 for f, n in zip(full, level, strict=True)):
        return float(whole)
    return ratio
