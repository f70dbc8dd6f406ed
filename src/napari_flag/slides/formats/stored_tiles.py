"""Tiles stored in a TIFF file, decoded once for neighbouring windows that share them."""

import itertools
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.formatting import px

KEPT_BYTES: Final = 64 * 2**20
"""Decoded tiles that are kept, of all open files: windows of 1,640 px, a spot's at .25 µm/px, in one band."""


class StoredTiles:
    """The image of one tiled TIFF page, read by windows.

    Where spots lie closer than their tiles are wide, each stored tile lies in many windows; the last ones
    decoded are kept, so that most are decoded once or twice.  Threads may read at the same time.

    Parameters
    ----------
    path
        The file; it is opened anew, so that nobody else moves the place that is read.
    page
        A `tifffile.TiffPage` for which `can_read` holds.
    fill
        Value of tiles that are not stored.
    """

    def __init__(self, path: Path, page: Any, fill: int) -> None:
        self.shape: tuple[int, ...] = page.shape
        self.dtype: np.dtype[Any] = np.dtype(page.dtype)
        self._page, self._fill = page, fill
        self._across = -(-self.shape[1] // page.tilewidth)
        self._number = next(_NUMBERS)
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        self._tables = {name: table for name, table in tables.items() if table is not None}
        self._stream = path.open("rb")
        self._lock = threading.Lock()

    @staticmethod
    def can_read(page: Any) -> bool:
        """Return whether a page has rows × columns, its channels if any within each tile."""
        plane = page.tilelength > 0 and page.tiledepth == 1 and page.imagedepth == 1
        return bool(page.is_tiled and plane and page.planarconfig == 1 and page.axes in ("YX", "YXS"))

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Return a window: two slices, of rows and columns, and what follows is taken whole."""
        (top, bottom, _), (left, right, _) = (
            part.indices(side) for part, side in zip(key[:2], self.shape[:2], strict=True)
        )
        height, width = self._page.tilelength, self._page.tilewidth
        window = np.empty((bottom - top, right - left, *self.shape[2:]), self.dtype)
        for y in range(top // height * height, bottom, height):
            for x in range(left // width * width, right, width):
                rows, columns = (
                    slice(max(at, first), min(at + side, last))
                    for at, side, first, last in ((y, height, top, bottom), (x, width, left, right))
                )
                tile = self.tile(y // height * self._across + x // width)
                place = (
                    slice(rows.start - top, rows.stop - top),
                    slice(columns.start - left, columns.stop - left),
                )
                if tile is None:
                    window[place] = self._fill
                else:
                    window[place] = tile[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        return window

    def tile(self, index: int) -> npt.NDArray[Any] | None:
        """Return a decoded tile, its channels last if there are any; None where it is not stored."""
        kept = _KEPT.find((self._number, index))
        if kept is not None:
            return kept
        if index >= min(len(self._page.dataoffsets), len(self._page.databytecounts)):
            raise ValueError("it lists fewer tiles than its size needs")
        offset, count = self._page.dataoffsets[index], self._page.databytecounts[index]
        if not offset or not count:
            return None
        with self._lock:
            self._stream.seek(offset)
            stored = self._stream.read(count)
        if len(stored) < count:
            raise ValueError("the file has become shorter")
        sides = coded_size(stored)
        if sides and (sides[0] > self._page.tilewidth or sides[1] > self._page.tilelength):
            raise ValueError(f"a tile says it has {px(sides)}")
        decoded = self._page.decode(stored, index, **self._tables)[0]  # (1, rows, columns, channels)
        tile: npt.NDArray[Any] = decoded[0] if len(self.shape) == 3 else decoded[0, ..., 0]
        _KEPT.keep((self._number, index), tile)
        return tile

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        _KEPT.forget(self._number)


def coded_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that a JPEG or a codestream of JPEG 2000 states; None of anything else."""
    if data[:4] == b"\xff\x4f\xff\x51" and len(data) >= 24:
        right, bottom, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
        return right - left, bottom - top
    at = 2 if data[:2] == b"\xff\xd8" else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SIZED:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xFF:
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_SIZED: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG that its size follows."""


class _Kept:
    """The tiles that were used last, up to a number of bytes."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._tiles: OrderedDict[tuple[int, int], npt.NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: tuple[int, int]) -> npt.NDArray[Any] | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def keep(self, key: tuple[int, int], tile: npt.NDArray[Any]) -> None:
        with self._lock:
            if key in self._tiles or tile.nbytes > self._most:
                return
            self._tiles[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._most:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def forget(self, number: int) -> None:
        with self._lock:
            for key in [key for key in self._tiles if key[0] == number]:
                self._bytes -= self._tiles.pop(key).nbytes


_KEPT: Final = _Kept(KEPT_BYTES)
_NUMBERS: Final = itertools.count()
