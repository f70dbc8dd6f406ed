"""Tiles: square windows around spots at a stated µm/px, read ahead by threads."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.cluster import cores
from napari_flag.errors import UserError
from napari_flag.formatting import counted_of, px, resolution
from napari_flag.slides.formats.readers import UInt8Array
from napari_flag.slides.slide import Slide

SAME: Final = 0.005
"""Relative difference of two µm/px up to which pixels are taken as they are."""
COARSEST: Final = 1.5
"""How much coarser than the requested µm/px a slide may be; beyond it, tiles would be upsampled.

Of section C5 reduced so much, the shipped weights give the same maps as of the whole; at 3 times the µm/px,
83 % of its spots are unlike the training tissue."""

FEWEST_THREADS: Final = 2
"""That read ahead: one waits for the drive while the other decodes."""
MOST_THREADS: Final = 16
"""That read ahead; each takes up to 30 MB of memory at .25 µm/px."""


def reading_threads() -> int:
    """Return how many threads read ahead: one for each core of this process, or of its share of them.

    A worker of a cluster knows its share by ``OMP_NUM_THREADS``, as PyTorch does.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    share = min(int(given), cores()) if given.isdecimal() else cores()
    return min(max(share, FEWEST_THREADS), MOST_THREADS)


def read_tiles(
    slide: Slide,
    xy: npt.NDArray[Any],
    *,
    size_px: int,
    mpp: float,
    batch_size: int = 64,
    workers: int | None = None,
    coarsest: float = COARSEST,
) -> Iterator[UInt8Array]:
    """Read a square tile around each position, in order, in batches.

    Parameters
    ----------
    slide
        A slide with known µm/px.
    xy
        (n, 2) float, (x, y) tile centres in level-0 pixels.
    size_px
        Side of a tile in its own pixels.
    mpp
        Requested µm per pixel of the tile; read from the best level and resampled (antialiased)
        unless that level has it within 0.5 %.
    batch_size
        Tiles per batch; the last may be smaller.
    workers
        Threads that read ahead, at most a batch or, where that is more, a tile each: memory is bounded by
        `TileWindow.memory`.  None takes `reading_threads`.
    coarsest
        How much coarser than `mpp` the slide may be; more than the default only where the user agreed
        to tiles that are enlarged so much.

    Yields
    ------
    uint8 (b, size_px, size_px, 3), RGB; outside the slide the border is mirrored.

    Raises
    ------
    UserError
        Before the first tile is read: µm/px unknown, slide too coarse, a centre off the slide.
    """
    window = tile_window(slide, size_px=size_px, mpp=mpp, coarsest=coarsest)
    centres = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    _refuse_off_slide(slide, centres)
    return _batches(slide, centres, window, batch_size, workers or reading_threads())


@dataclass(frozen=True, slots=True)
class TileWindow:
    """Where the pixels of a tile come from.

    Parameters
    ----------
    level
        Pyramid level read.
    downsample
        Level-0 pixels per pixel of that level.
    span
        Side of the tile in pixels of that level.
    size_px
        Side of the tile in its own pixels.
    """

    level: int
    downsample: float
    span: float
    size_px: int

    @property
    def as_stored(self) -> bool:
        """Whether the level's pixels are the tile's pixels."""
        return abs(self.span / self.size_px - 1) <= SAME

    def memory(self, batch_size: int, workers: int) -> int:
        """Return how many bytes reading takes: a batch in use, the next, tiles ahead, open windows."""
        tile = 3 * self.size_px**2
        tiles = (2 * batch_size + max(batch_size, workers)) * tile
        if self.as_stored:
            return tiles + workers * tile
        side = self.span + 2 * self._rim + 1
        pillow = 4 * (side * side + side * self.size_px + self.size_px**2)  # its pixels have four bytes
        return tiles + int(workers * (3 * side * side + pillow))

    @property
    def _rim(self) -> int:
        """Pixels read on every side, so that the filter sees true neighbours rather than an edge."""
        return int(np.ceil(2 * max(1.0, self.span / self.size_px)))

    def read(self, slide: Slide, centre: npt.NDArray[np.float64]) -> UInt8Array:
        """Return the tile around `centre`, (x, y) in level-0 pixels."""
        side = self.size_px if self.as_stored else self.span
        left, top = (centre / self.downsample - side / 2).tolist()
        if self.as_stored:
            return slide.read_level(round(left), round(top), self.size_px, self.size_px, self.level)
        return self._resampled(slide, left, top)

    def _resampled(self, slide: Slide, left: float, top: float) -> UInt8Array:
        from PIL import Image

        rim = self._rim
        x, y = int(np.floor(left)) - rim, int(np.floor(top)) - rim
        side = int(np.ceil(self.span)) + 1 + 2 * rim
        source = Image.fromarray(slide.read_level(x, y, side, side, self.level))
        # Hamming averages over each new pixel's area without blurring more than that;
        # bicubic is smooth where a slightly too coarse slide is enlarged.
        shrinks = self.span > self.size_px
        kernel = Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC
        box = (left - x, top - y, left - x + self.span, top - y + self.span)
        return np.asarray(source.resize((self.size_px, self.size_px), kernel, box=box))


def tile_window(slide: Slide, *, size_px: int, mpp: float, coarsest: float = COARSEST) -> TileWindow:
    """Return how tiles of `size_px` pixels at `mpp` µm/px are read from `slide`.

    Raises
    ------
    UserError
        When the slide's µm/px is unknown or too coarse.
    """
    if slide.mpp is None:
        raise UserError(
            f"{slide.name} does not say how many µm a pixel is, so tiles of a known size cannot "
            "be cut; give its µm/px (--mpp), or estimate it from spots of known pitch."
        )
    if slide.mpp > coarsest * mpp:
        raise UserError(
            f"{slide.name} has {resolution(slide.mpp)}, too coarse for the {resolution(mpp)} asked "
            "for; use the full-resolution image or an encoder made for coarser slides."
        )
    scale = mpp / slide.mpp
    level = slide.level_for(scale)
    downsample = slide.downsamples[level]
    return TileWindow(level, downsample, size_px * scale / downsample, size_px)


def _refuse_off_slide(slide: Slide, centres: npt.NDArray[np.float64]) -> None:
    off = (~((centres >= 0) & (centres <= slide.size))).any(axis=1)
    if off.any():
        raise UserError(
            f"{counted_of(off.sum(), len(centres), 'position')} lie outside {slide.name} "
            f"({px(slide.size)}); choose the table that belongs to this slide."
        )


def _batches(
    slide: Slide,
    centres: npt.NDArray[np.float64],
    window: TileWindow,
    batch_size: int,
    workers: int,
) -> Iterator[UInt8Array]:
    ahead: deque[Future[UInt8Array]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="tiles")
    try:
        queued = 0
        for start in range(0, len(centres), batch_size):
            stop = min(start + batch_size, len(centres))
            batch = np.empty((stop - start, window.size_px, window.size_px, 3), np.uint8)
            for i in range(stop - start):
                while queued < len(centres) and len(ahead) < max(batch_size, workers):
                    ahead.append(pool.submit(window.read, slide, centres[queued]))
                    queued += 1
                batch[i] = ahead.popleft().result()
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
