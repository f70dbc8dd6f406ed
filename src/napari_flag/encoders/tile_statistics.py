"""Stain and texture of a tile: what `embedded` computes of it beside its network.

In three nested windows (150, 300, 600 px)

* mean, spread and percentiles of hematoxylin, eosin, red, green, blue and gradient magnitude, at 75 × 75
  pixels of each window;
* the shares of the uniform local binary patterns (Ojala et al. 2002, riu2) at three radii, over all pixels.

The same numbers are computed twice: `statistics` for batches on a GPU, `statistics_of_tile` for one tile on a
core, in strips that fit its cache and eight times as fast there.
"""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

FloatArray = npt.NDArray[np.float32]

TILE_PX: Final = 600
WINDOWS_PX: Final = (150, 300, 600)
"""Nested windows: the spot (100 µm), its border, its surroundings."""
STATISTICS_DIM: Final = len(WINDOWS_PX) * (6 * 7 + 3 * 10)

_PERCENTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_GRID: Final = 75
"""Pixels per window side at which colour percentiles are taken."""
# Hematoxylin and eosin optical densities, Ruifrok & Johnston 2001; the third is their complement.
_STAINS: Final = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_LUMA: Final = (0.299, 0.587, 0.114)
_RADII: Final = (1, 2, 3)
_STRIP: Final = 100
"""Rows whose patterns are found at once: some 300 KB."""


def statistics(images: Tensor) -> Tensor:
    """Stain and texture statistics of (b, 3, 600, 600) images in [0, 1]: (b, 216)."""
    density = -torch.log10(images.clamp_min(1 / 255))  # Beer–Lambert
    unmix = torch.linalg.inv(torch.tensor(_STAINS, dtype=images.dtype))[:, :2]
    stains = torch.einsum("bchw,cs->bshw", density, unmix.to(images.device))
    grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(_LUMA))
    gradient = _gradient(grey)
    stack = torch.cat([stains, images, gradient[:, None]], dim=1)  # (b, 6, h, w)
    codes = torch.stack([_uniform_patterns(grey, radius) for radius in _RADII], dim=1)
    parts = []
    for window in WINDOWS_PX:
        lo = (images.shape[-1] - window) // 2
        inside = (slice(None), slice(None), slice(lo, lo + window), slice(lo, lo + window))
        parts += [_colour(stack[inside], window // _GRID), _pattern_histogram(codes[inside])]
    return torch.cat(parts, dim=1)


def _colour(stack: Tensor, stride: int) -> Tensor:
    """Mean, spread and five percentiles per channel of a (b, 6, w, w) window: (b, 42)."""
    values = stack[..., ::stride, ::stride].flatten(2)
    ordered = values.sort(dim=2).values
    picks = [round(p * (ordered.shape[2] - 1)) for p in _PERCENTILES]
    parts = [values.mean(2, keepdim=True), values.std(2, keepdim=True), ordered[..., picks]]
    return torch.cat(parts, dim=2).flatten(1)


def _gradient(grey: Tensor) -> Tensor:
    padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return torch.sqrt(dx * dx + dy * dy)


def _uniform_patterns(grey: Tensor, radius: int) -> Tensor:
    """Uniform local binary pattern (Ojala et al. 2002, riu2) with 8 neighbours: 0–9 as uint8."""
    r = radius
    ring = _ring(radius)
    height, width = grey.shape[-2:]
    padded = F.pad(grey[:, None], (r, r, r, r), mode="replicate")[:, 0]
    bits = [padded[:, r + y : r + y + height, r + x : r + x + width] >= grey for y, x in ring]
    ones = torch.zeros_like(grey, dtype=torch.uint8)
    changes = torch.zeros_like(grey, dtype=torch.uint8)
    for here, following in zip(bits, bits[1:] + bits[:1], strict=True):
        ones += here
        changes += here ^ following
    return torch.where(changes <= 2, ones, torch.full_like(ones, 9))


def _pattern_histogram(codes: Tensor) -> Tensor:
    """Shares of the ten patterns in (b, 3, w, w) codes: (b, 30)."""
    flat = codes.flatten(2)
    shares = [(flat == code).float().mean(2) for code in range(10)]
    return torch.stack(shares, dim=2).flatten(1)


def _ring(radius: int) -> tuple[tuple[int, int], ...]:
    """Return (down, right) of the eight neighbours of a pixel, in turn around it."""
    r, d = radius, max(1, round(radius / 2**0.5))
    return ((0, r), (-d, d), (-r, 0), (-d, -d), (0, -r), (d, -d), (r, 0), (d, d))


def statistics_of_tile(tile: npt.NDArray[np.uint8]) -> FloatArray:
    """Return the (216,) `statistics` of one (600, 600, 3) uint8 RGB tile, to rounding."""
    rim = max(_RADII)
    pixels = torch.from_numpy(tile.astype(np.float32) / np.float32(255)).view(-1, 3)
    # as `statistics` rounds it: which of two colours of one luma is the brighter is a matter of rounding
    grey = torch.mv(pixels, torch.tensor(_LUMA)).view(tile.shape[:2]).numpy()
    padded = np.pad(grey, rim, mode="edge")
    colours = np.stack([_sampled(tile, padded, rim, window) for window in WINDOWS_PX])  # (3, 6, 75²)
    found = _patterns_of(padded, rim)  # (3 radii, h, w)
    parts = []
    for window, colour in zip(WINDOWS_PX, _summary(colours), strict=True):
        lo = (len(tile) - window) // 2
        inside = found[:, lo : lo + window, lo : lo + window].reshape(len(_RADII), -1)
        # of PyTorch, for it counts bytes as they are, and several threads at a time
        counts = np.stack([torch.bincount(each, minlength=256).numpy() for each in torch.from_numpy(inside)])
        shares = (counts @ _codes_of_patterns()).astype(np.float32) / np.float32(window * window)
        parts += [colour, shares.ravel()]
    return np.concatenate(parts)


def _sampled(tile: npt.NDArray[np.uint8], padded: FloatArray, rim: int, window: int) -> FloatArray:
    """Return stains, red, green, blue and gradient at the grid of one window: (6, 75²)."""
    lo, step = (len(tile) - window) // 2, window // _GRID
    pixels = tile[lo : lo + window : step, lo : lo + window : step].reshape(-1, 3)
    first, last = lo + rim, lo + rim + window
    here, before, after = (slice(first + move, last + move, step) for move in (0, -1, 1))
    dx = padded[here, after] - padded[here, before]
    dy = padded[after, here] - padded[before, here]
    density = _densities()[pixels]  # (75², 3)
    unmix = np.linalg.inv(np.array(_STAINS, np.float32))[:, :2]
    rgb = pixels.T / np.float32(255)
    return np.concatenate([(density @ unmix).T, rgb, np.sqrt(dx * dx + dy * dy).reshape(1, -1)])


def _summary(values: FloatArray) -> FloatArray:
    """Mean, spread and five percentiles per channel of (windows, 6, m) values: (windows, 42)."""
    picks = [round(p * (values.shape[-1] - 1)) for p in _PERCENTILES]
    mean = values.mean(-1, keepdims=True, dtype=np.float64)
    spread = values.std(-1, keepdims=True, dtype=np.float64, ddof=1)
    parts = [mean, spread, np.sort(values, axis=-1)[..., picks]]
    return np.concatenate(parts, axis=-1, dtype=np.float32).reshape(len(values), -1)


def _patterns_of(padded: FloatArray, rim: int) -> npt.NDArray[np.uint8]:
    """Return for each radius which neighbours are at least as bright: (radii, h, w), a bit each, in turn."""
    height, width = (side - 2 * rim for side in padded.shape)
    found = np.empty((len(_RADII), height, width), np.uint8)
    bit = np.empty((_STRIP, width), np.bool_)
    for first in range(0, height, _STRIP):
        rows = min(_STRIP, height - first)
        own = padded[rim + first : rim + first + rows, rim : rim + width]
        for place, radius in enumerate(_RADII):
            bits = found[place, first : first + rows]
            bits[:] = 0
            for down, right in _ring(radius):
                top, left = rim + first + down, rim + right
                np.greater_equal(padded[top : top + rows, left : left + width], own, out=bit[:rows])
                np.add(bits, bits, out=bits)  # a shift by one bit, which wraps nothing: eight in all
                np.bitwise_or(bits, bit[:rows].view(np.uint8), out=bits)
    return found


@cache
def _codes_of_patterns() -> npt.NDArray[np.int64]:
    """Return (256, 10): 1 where eight bits in turn are a uniform pattern of so many ones, or (9) another."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    changes = (bits != np.roll(bits, 1, axis=1)).sum(1)
    codes = np.where(changes <= 2, bits.sum(1), 9)
    table: npt.NDArray[np.int64] = (codes[:, None] == np.arange(10)).astype(np.int64)
    return table


@cache
def _densities() -> FloatArray:
    """Return the optical density of each stored value (Beer–Lambert): (256,)."""
    values = np.maximum(np.arange(256, dtype=np.float32) / np.float32(255), np.float32(1 / 255))
    density: FloatArray = -np.log10(values)
    return density
