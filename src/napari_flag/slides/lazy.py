"""Lazy pixels: what napari holds as one level of a multiscale image."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.slides.pixels import UInt8Array
from napari_flag.slides.readers import Size


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
