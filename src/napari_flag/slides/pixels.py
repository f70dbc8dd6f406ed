"""Pixels: whatever a file stores becomes 8-bit RGB, and the border of a slide is mirrored."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
IntArray: TypeAlias = npt.NDArray[np.int64]


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
    """

    white: float = 255.0
    inverted: bool = False
    palette: UInt8Array | None = None

    def rgb(self, stored: npt.NDArray[Any]) -> UInt8Array:
        """Return (h, w, 3) uint8 for stored (h, w) or (h, w, 1–4) values; alpha goes on white."""
        if self.palette is not None:
            colours: UInt8Array = self.palette[stored.reshape(stored.shape[:2])]
            return colours
        pixels = self._bytes(stored)
        if self.inverted:
            pixels = 255 - pixels
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        channels = pixels.shape[2]
        if channels in (2, 4):
            pixels = on_white(pixels[..., :-1], pixels[..., -1:])
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        return np.ascontiguousarray(pixels)

    def _bytes(self, stored: npt.NDArray[Any]) -> UInt8Array:
        if stored.dtype == np.uint8 and self.white == 255:
            as_is: UInt8Array = stored.view(np.uint8)
            return as_is
        scaled = stored.astype(np.float32) * np.float32(255.0 / self.white)
        scaled = np.clip(np.rint(scaled), 0, 255)
        return np.asarray(scaled, dtype=np.uint8)


def on_white(colour: UInt8Array, alpha: UInt8Array) -> UInt8Array:
    """Lay `colour` (h, w, c) with `alpha` (h, w, 1), both uint8, on white."""
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
