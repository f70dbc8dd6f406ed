"""Pyramids: a slide that has none, or cannot be read in pieces, gets one in a cache, losslessly.

The cache is one tiled, zstd-compressed pyramidal TIFF per slide.  It holds only what the slide
itself cannot give quickly: all levels of a JPEG, the lower levels of a tiled TIFF.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np

from napari_flag import cache
from napari_flag.errors import UserError
from napari_flag.files import Unwritable, unfinished, utf8
from napari_flag.progress import Step, Steps
from napari_flag.slides.file_identity import state_of
from napari_flag.slides.formats.opening import open_tiff
from napari_flag.slides.formats.readers import Reader, Size, UInt8Array, halved

TILE: Final = 512
SMALLEST: Final = 1024
"""Pixels of the longer side at which a pyramid ends."""
SMALL: Final = 4096
"""Pixels of the longer side up to which an image is shown well without a pyramid."""
WIDEST_GAP: Final = 8.0
"""Downsampling between neighbouring levels up to which a pyramid is useful on screen."""
TICK_S: Final = 0.25
VERSION: Final = 1
"""Raised when the cache's layout changes, so that older files are not taken for it."""


class PyramidReader:
    """Levels of a slide followed by those of its cache; a slide without random access is replaced by it."""

    random_access: Final = True

    def __init__(self, slide: Reader, cached: Reader) -> None:
        self._cached = cached
        self._base = base = slide if slide.random_access else None
        self._own = 0 if base is None else 1
        own = () if base is None else base.levels[:1]
        self.levels: tuple[Size, ...] = (*own, *cached.levels)
        self.resolution, self.profile = slide.resolution, slide.profile

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return a window from the slide or from its cache."""
        if self._base is not None and level == 0:
            return self._base.read(x, y, width, height, 0)
        return self._cached.read(x, y, width, height, level - self._own)

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows of level 0."""
        return self.read(0, y, self.levels[0][0], height, 0)

    def close(self) -> None:
        """Close the slide and its cache."""
        if self._base is not None:
            self._base.close()
        self._cached.close()


def has_pyramid(reader: Reader) -> bool:
    """Return whether `reader` can be shown smoothly as it is."""
    longest = [max(size) for size in reader.levels]
    if longest[0] <= SMALL:
        return True
    gaps = [a / b for a, b in pairwise(longest)]
    return reader.random_access and longest[-1] <= SMALL and max(gaps, default=1) <= WIDEST_GAP


def cached_reader(reader: Reader, path: Path, folder: Path | None = None) -> Steps[Reader]:
    """Return a reader with a pyramid, building it in the cache unless it is there already.

    Parameters
    ----------
    reader
        The slide's own reader; the result takes it over and closes it.
    path
        The slide's file or folder; the cache is keyed by its path and state (`file_identity.state_of`).
    folder
        Cache folder, by default the user's own for napari-flag.

    Yields
    ------
    Step in tiles.  Cancelled, it leaves nothing behind.
    """
    folder = folder or cache.cache_folder("pyramids")
    key, levels = cache_key(path), _cached_levels(reader)
    entry = cache.find(folder, key)
    cached = None if entry is None else (yield from _open_whole(entry, levels))
    if cached is None:
        if entry is not None and entry.exists():  # else another process made room
            cache.discard(entry)
            said = f"The kept image pyramid of {path.name} was damaged and is built again."
            yield Step(f"Opening {path.name}", 0, notice=said)
        entry = yield from _build(reader, levels, path, folder, key)
        cached = yield from _open_whole(entry, levels)
        if cached is None:
            raise UserError(
                f"The image pyramid of {path.name} was damaged on its way to {folder}; "
                "check that disk, or choose another cache folder."
            )
    if not reader.random_access:
        reader.close()
    return PyramidReader(reader, cached)


def cache_key(path: Path) -> str:
    """Return what the pyramid of `path`, as it is now, is kept under; it begins with that of its place."""
    size, changed = state_of(path)
    version = f"{VERSION} {size} {changed}"
    return f"{_place_key(path)}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"


def _place_key(path: Path) -> str:
    return hashlib.sha256(utf8(str(path.resolve()))).hexdigest()[:12]


def _cached_levels(reader: Reader) -> tuple[Size, ...]:
    """Return (width, height) of the levels to cache: halves, without what `reader` has itself."""
    sizes = [reader.levels[0]]
    while max(sizes[-1]) > SMALLEST:
        width, height = sizes[-1]
        sizes.append(((width + 1) // 2, (height + 1) // 2))
    return tuple(sizes[1:]) if reader.random_access else tuple(sizes)


def _open_whole(entry: Path, levels: tuple[Size, ...]) -> Steps[Reader | None]:
    """Open a kept pyramid; one that is damaged or has other levels counts as absent."""
    if not (yield from cache.is_whole(entry, "Checking the image pyramid")):
        return None
    try:
        cached = open_tiff(entry)
    except UserError:
        return None
    if cached.levels == levels:
        return cached
    cached.close()
    return None


@dataclass(slots=True)
class _Progress:
    stage: str
    total: int
    done: int = 0
    cancelled: Event = field(default_factory=Event)


class _Cancelled(Exception):
    """Raised in the writing thread when the pyramid was cancelled."""


def _build(reader: Reader, levels: tuple[Size, ...], path: Path, folder: Path, key: str) -> Steps[Path]:
    """Write `levels`, all or nothing: into a temporary folder in `folder`, then renamed to the entry."""
    most = cache.most_bytes("pyramids")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder / key) as place:
            place.mkdir()
            entry = yield from _build_in(place, reader, levels, path, folder, key)
    except (OSError, Unwritable) as error:
        raise UserError(
            f"The image pyramid of {path.name} cannot be kept ({str(error).split(';')[0]}); free space there "
            "or choose another cache folder."
        ) from error
    cache.make_room(folder, most, entry.name, outdated=f"{_place_key(path)}-")
    return entry


def _build_in(
    place: Path, reader: Reader, levels: tuple[Size, ...], path: Path, folder: Path, key: str
) -> Steps[Path]:
    tiles = sum(-(-w // TILE) * -(-h // TILE) for w, h in levels)
    progress = _Progress(f"Opening {path.name}", tiles)
    pool = ThreadPoolExecutor(1, thread_name_prefix="pyramid")
    work = pool.submit(_write, reader, levels, place, progress)
    try:
        yield Step(progress.stage, 0, tiles, "tiles")
        while not wait([work], timeout=TICK_S).done:
            yield Step(progress.stage, progress.done, progress.total, "tiles")
        work.result()
        return (
            yield from cache.store(place / "pyramid.tif", folder, key, ".tif", "Checking the image pyramid")
        )
    finally:
        # Decoding a large JPEG cannot be interrupted: the thread ends by itself at its next tile.
        progress.cancelled.set()
        wait([work], timeout=2 * TICK_S)
        pool.shutdown(wait=False)


def _write(reader: Reader, levels: tuple[Size, ...], place: Path, progress: _Progress) -> None:
    """Write the pyramid in the thread; every level is halved while the one above is written."""
    import tifffile

    full = reader.levels[0]
    reader.rows(0, 1)  # decodes a JPEG, so that what follows is writing
    if progress.cancelled.is_set():
        raise _Cancelled
    progress.stage = "Building the image pyramid"
    rows: Callable[[int, int], UInt8Array] = reader.rows
    above: _Scratch | None = None
    with tifffile.TiffWriter(place / "pyramid.tif", bigtiff=True) as writer:
        sizes = levels if levels[0] == full else (full, *levels)
        for i, size in enumerate(sizes):
            half = _Scratch(place / f"{i + 1}.raw", sizes[i + 1][0]) if i + 1 < len(sizes) else None
            tiles = _tiles(rows, size, half, progress)
            if size in levels:
                first = size == levels[0]
                writer.write(
                    _counted(tiles, progress),
                    shape=(size[1], size[0], 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="rgb",
                    compression="zstd",
                    compressionargs={"level": 1},
                    predictor=True,
                    subifds=len(levels) - 1 if first else None,
                    subfiletype=0 if first else 1,
                    metadata=None,
                    software="napari-flag pyramid cache",
                )
            else:
                for _ in tiles:
                    pass
            if above is not None:
                above.close()
                (place / f"{i}.raw").unlink()
            above = half
            rows = half.rows if half is not None else rows


class _Scratch:
    """Rows of a level on disk, written from top to bottom and then read.

    A file and no memory map: where the disk is full, writing into a map ends the process.
    """

    def __init__(self, place: Path, width: int) -> None:
        self._row, self._shape = width * 3, (-1, width, 3)
        self._stream = place.open("wb+")

    def append(self, rows: UInt8Array) -> None:
        """Write further rows."""
        self._stream.write(np.ascontiguousarray(rows).data)

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return rows that were written."""
        self._stream.seek(y * self._row)
        return np.frombuffer(self._stream.read(height * self._row), np.uint8).reshape(self._shape)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _counted(tiles: Iterator[UInt8Array], progress: _Progress) -> Iterator[UInt8Array]:
    for tile in tiles:
        yield tile
        progress.done += 1


def _tiles(
    rows: Callable[[int, int], UInt8Array],
    size: Size,
    half: _Scratch | None,
    progress: _Progress,
) -> Iterator[UInt8Array]:
    """Yield the tiles of a level row by row, filling `half` with the next level on the way."""
    width, height = size
    for y in range(0, height, TILE):
        band = rows(y, min(TILE, height - y))
        if half is not None:
            half.append(halved(band))
        for x in range(0, width, TILE):
            if progress.cancelled.is_set():
                raise _Cancelled
            tile = band[:, x : x + TILE]
            missing = (TILE - tile.shape[0], TILE - tile.shape[1])
            yield np.pad(tile, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
