"""Pixel readers: conversion to 8-bit RGB, random access by window, mirrored borders."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.scratch import refuse_beyond_memory
from napari_flag.slides.resolution import UNKNOWN, Resolution, from_openslide

if TYPE_CHECKING:
    import openslide
    from PIL import Image


UInt8Array: TypeAlias = npt.NDArray[np.uint8]
IntArray: TypeAlias = npt.NDArray[np.int64]
Alpha: TypeAlias = Literal["plain", "multiplied", "none"]
TURNED: Final = (
    "The image has an orientation (of EXIF or TIFF); it is shown as stored, the way pixel positions of spots "
    "count."
)
"""Notice of a picture that its file says to turn or mirror."""


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How stored values become 8-bit RGB.

    Parameters
    ----------
    white
        The stored value that means full intensity: 255, 4095 for a 12-bit camera, 1.0 for floats.
    inverted
        True where 0 is white (TIFF's MinIsWhite).
    palette
        (n, 3) uint8 colours for stored indices, or None.
    alpha
        What a second or fourth channel is: "plain" transparency, one that colours are "multiplied" by
        already, or "none", which is left out.
    """

    white: float = 255.0
    inverted: bool = False
    palette: UInt8Array | None = None
    alpha: Alpha = "plain"

    def rgb(self, stored: npt.NDArray[Any]) -> UInt8Array:
        """Return (h, w, 3) uint8 for stored (h, w) or (h, w, 1–4) values; alpha goes on white.

        What has to be converted is so a band at a time: values in between take up to 40 bytes a pixel.
        """
        as_is = self.palette is None and self.white == 255 and not self.inverted
        if as_is and stored.dtype == np.uint8 and stored.shape[2:] == (3,):
            return np.ascontiguousarray(stored)
        height, width = stored.shape[:2]
        whole = np.empty((height, width, 3), np.uint8)
        for rows in bands(height, width):
            whole[rows] = self._rgb(stored[rows])
        return whole

    def _rgb(self, stored: npt.NDArray[Any]) -> UInt8Array:
        if self.palette is not None:
            colours: UInt8Array = self.palette[stored.reshape(stored.shape[:2])]
            return colours
        pixels = self._bytes(stored)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        channels = pixels.shape[2] - (pixels.shape[2] in (2, 4))
        pixels, alpha = pixels[..., :channels], pixels[..., channels:]
        if self.inverted:
            pixels = 255 - pixels
        if alpha.size and self.alpha == "plain":
            pixels = on_white(pixels, alpha)
        elif alpha.size and self.alpha == "multiplied":
            pixels = pixels + np.minimum(255 - alpha, 255 - pixels)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels

    def _bytes(self, stored: npt.NDArray[Any]) -> UInt8Array:
        if stored.dtype == np.uint8 and self.white == 255:
            as_is: UInt8Array = stored.view(np.uint8)
            return as_is
        scaled = np.nan_to_num(stored.astype(np.float32), posinf=np.inf, neginf=0.0)
        scaled *= np.float32(255.0 / self.white)
        scaled = np.clip(np.rint(scaled), 0, 255)
        return np.asarray(scaled, dtype=np.uint8)


MOST_SIDE: Final = 2**21
"""Pixels along one side of a TIFF or zarr: the longest scans at 0.1 µm/px have 800,000."""
MOST_TILE: Final = 2**28
"""Bytes of one decoded tile of a TIFF, or chunk of a zarr."""
BAND: Final = 2**20
"""Pixels that are converted at a time."""


def bands(height: int, width: int, least: int = 1) -> Iterator[slice]:
    """Yield slices of rows, of about `BAND` pixels each, and of a multiple of `least` rows."""
    rows = max(BAND // max(width, 1) // least, 1) * least
    return (slice(y, min(y + rows, height)) for y in range(0, height, rows))


def on_white(colour: UInt8Array, alpha: UInt8Array) -> UInt8Array:
    """Blend `colour` (h, w, c) with `alpha` (h, w, 1), both uint8, with white."""
    if (alpha == 255).all():
        return colour
    a = alpha.astype(np.uint16)
    mixed = (colour.astype(np.uint16) * a + 255 * (255 - a) + 127) // 255
    return mixed.astype(np.uint8)


def mirrored(start: int, count: int, size: int) -> IntArray:
    """Return `count` indices from `start` on, folded at the borders of an axis of `size` pixels.

    The border pixel is repeated (… 1 0 | 0 1 … n-1 | n-1 n-2 …), however far out they lie.
    """
    folded = np.arange(start, start + count, dtype=np.int64) % (2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def halved(pixels: UInt8Array) -> UInt8Array:
    """Return the mean of each 2×2 block of (h, w, 3) uint8; odd borders are repeated."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rows = pixels[0::2].astype(np.uint16)
    rows += pixels[1::2]
    blocks = rows[:, 0::2]
    blocks += rows[:, 1::2]
    blocks += 2
    blocks >>= 2
    return blocks.astype(np.uint8)


Size: TypeAlias = tuple[int, int]

IMAGE_FORMATS: Final = ("JPEG", "PNG", "BMP", "WEBP", "JPEG2000")
"""Formats opened with Pillow: still images, no TIFF (tifffile reads these)."""

_bomb_limit = threading.Lock()


class Reader(Protocol):
    """The main image of one file; label, macro and thumbnail images are never touched."""

    @property
    def levels(self) -> tuple[Size, ...]:
        """(width, height) of each pyramid level, largest first."""

    @property
    def resolution(self) -> Resolution:
        """µm per level-0 pixel, as the file states it."""

    @property
    def profile(self) -> bytes | None:
        """The ICC profile of the pixels, None where the file has none."""

    @property
    def random_access(self) -> bool:
        """Whether a window can be read without decoding the whole image."""

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return (height, width, 3) of a window inside `level`, x and y in pixels of that level."""

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows of level 0; cheap when read from top to bottom."""

    def close(self) -> None:
        """Close the file."""


def damaged(path: Path, error: Exception) -> UserError:
    """Return the error for a file that opens but whose pixels cannot be decoded."""
    return UserError(
        f"Part of {path.name} could not be decoded ({error}), so the file is damaged or "
        "incomplete; copy or export it again."
    )


OVERHEAD: Final = 48 * 2**20
"""Bytes for bands, buffers of codecs and the file itself, beside what grows with the picture."""


def refuse_too_large(path: Path, need: int) -> None:
    """Refuse to decode a whole image that takes more than is free; `need` is in bytes.

    ``benchmarks/decoding_memory.py`` holds the estimates against the peaks.
    """
    refuse_beyond_memory(
        need,
        f"{path.name} can only be decoded as a whole, which",
        "convert it to a tiled pyramidal TIFF",
    )


class ImageReader:
    """A plain JPEG, PNG, BMP, WebP or JPEG 2000, decoded whole when pixels are first read."""

    random_access: Final = False
    resolution: Resolution = UNKNOWN

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened_image(path) as image:
            self.levels: tuple[Size, ...] = (image.size,)
            turned = image.getexif().get(0x0112, 1) not in (0, 1)
            self.profile: bytes | None = image.info.get("icc_profile")
            self.memory_needed = _memory_needed(image)
        if turned:
            self.resolution = Resolution(notices=(TURNED,))
        self._pixels: UInt8Array | None = None
        self._lock = threading.Lock()

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return a window; decodes the image the first time."""
        return self._whole()[y : y + height, x : x + width].copy()

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows."""
        return self._whole()[y : y + height]

    def close(self) -> None:
        """Release the decoded image."""
        self._pixels = None

    def _whole(self) -> UInt8Array:
        with self._lock:
            if self._pixels is None:
                refuse_too_large(self.path, self.memory_needed)
                self._pixels = self._decode()
            return self._pixels

    def _decode(self) -> UInt8Array:
        with opened_image(self.path) as image:
            try:
                image.load()
                width, height = image.size
                whole = np.empty((height, width, 3), np.uint8)
                for rows in bands(height, width):
                    whole[rows] = _rgb_of(image.crop((0, rows.start, width, rows.stop)))
                return whole
            except (OSError, SyntaxError, ValueError) as error:
                raise damaged(self.path, error) from error


def _rgb_of(image: "Image.Image") -> UInt8Array:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        return PixelFormat(65535.0).rgb(np.asarray(image))
    if "A" in image.getbands() or "transparency" in image.info:
        pixels = np.asarray(image.convert("RGBA"))
        return on_white(pixels[..., :3], pixels[..., 3:])
    return np.asarray(image.convert("RGB"))


_PILLOW_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Of a pixel in Pillow's memory; four in every other mode, RGB too."""
_CODEC_BYTES: Final = {"WEBP": 8, "JPEG2000": 16}
"""Of a pixel in the memory of codecs that decode a picture before they hand it over."""
_PROGRESSIVE_BYTES: Final = 6
"""Of a pixel: a progressive JPEG is kept as coefficients of 16 bits until its last scan."""


def _memory_needed(image: "Image.Image") -> int:
    """Return how many bytes decoding takes at its peak: the codec's, Pillow's and ours."""
    each = _CODEC_BYTES.get(image.format or "", 0) + _PILLOW_BYTES.get(image.mode, 4) + 3
    if image.format == "JPEG" and image.info.get("progressive"):
        each += _PROGRESSIVE_BYTES - 3  # coefficients have gone before pixels are copied
    return each * image.size[0] * image.size[1] + OVERHEAD


@contextmanager
def opened_image(path: Path) -> Iterator["Image.Image"]:
    """Open an image with Pillow, whose size limit is meant for web servers, not for slides."""
    from PIL import Image

    with _bomb_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path, formats=IMAGE_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


class OpenSlideReader:
    """A whole-slide image of any vendor OpenSlide knows."""

    random_access: Final = True

    def __init__(self, slide: "openslide.OpenSlide", path: Path) -> None:
        self.path = path
        self._slide = slide
        self.levels: tuple[Size, ...] = tuple(slide.level_dimensions)
        self.resolution = from_openslide(slide.properties)
        profile = slide.color_profile
        self.profile: bytes | None = None if profile is None else profile.tobytes()

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return a window; OpenSlide is thread-safe."""
        import openslide

        down = self._slide.level_downsamples[level]
        try:
            region = self._slide.read_region((round(x * down), round(y * down)), level, (width, height))
        except openslide.OpenSlideError as error:
            raise damaged(self.path, error) from error
        pixels = np.asarray(region)
        return np.ascontiguousarray(on_white(pixels[..., :3], pixels[..., 3:]))

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows."""
        return self.read(0, y, self.levels[0][0], height, 0)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
