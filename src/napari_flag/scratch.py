"""Room in memory and on the drive: what needs more is refused before it starts.

Arrays that may outgrow memory lie in a file beyond a limit, which is gone when they are.
"""

import math
import os
import shutil
import tempfile
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.cache import cache_folder
from napari_flag.errors import UserError
from napari_flag.formatting import data_size

MEMORY_SHARE: Final = 0.8
"""Of free memory that one thing may take."""
MOST_IN_MEMORY: Final = 2**28
"""Bytes of one array that are kept in memory: 330,000 spots × 200 genes in float32."""
_BLOCK: Final = 2**24


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a new array to be filled, in memory up to `MOST_IN_MEMORY` bytes and in a file beyond.

    The file has no name, lies in the cache folder, and all of its room on the disk is taken at once: what is
    written to it later cannot fail.  The array is used as any other; the system reads what is asked for and
    gives its memory to others that need it.

    Raises
    ------
    UserError
        When the disk has not so much room, or the folder cannot be written.
    """
    if size_on_disk(shape, dtype) == 0:
        return np.empty(shape, dtype)
    folder, size = cache_folder(), math.prod(shape) * np.dtype(dtype).itemsize
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            _take_room(stream, size)
            # as a plain array: parts of it are none that are backed by a file of their own
            return np.asarray(np.memmap(stream, dtype, "r+", shape=shape))
    except OSError as error:
        raise UserError(
            f"Results of {data_size(size)} do not fit in memory and could not be kept in {folder} "
            f"({error.strerror or error}); free space there or choose another cache folder (XDG_CACHE_HOME)."
        ) from error


def size_on_disk(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return how many bytes on the disk an array of `empty` takes; 0 where it stays in memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return size if size > MOST_IN_MEMORY else 0


def refuse_beyond_memory(size: float, what: str, instead: str) -> None:
    """Refuse `what` where it needs `size` bytes, more than `MEMORY_SHARE` of the memory that is free.

    Parameters
    ----------
    size
        Bytes.
    what, instead
        Beginning and end of the sentence: "slide.jpg can only be decoded whole, which" needs … of memory
        while … are free; "convert it to a tiled TIFF".
    """
    import psutil

    free = psutil.virtual_memory().available
    if size > MEMORY_SHARE * free:
        raise UserError(
            f"{what} needs about {data_size(size)} of memory while {data_size(free)} are free; {instead}."
        )


def refuse_beyond_drive(size: int) -> None:
    """Refuse before work starts what its arrays, of `size` bytes on the disk in all, have no room for."""
    folder = cache_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise UserError(
            f"Results of {data_size(size)} do not fit in memory, and {folder} has {data_size(free)} free; "
            "free space there, choose another cache folder (XDG_CACHE_HOME), or predict fewer spots."
        )


def _take_room(stream: IO[bytes], size: int) -> None:
    """Make a file `size` bytes long, on the disk and not in its directory alone."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(stream.fileno(), 0, size)
        return
    for start in range(0, size, _BLOCK):
        stream.write(bytes(min(_BLOCK, size - start)))
    stream.flush()
