"""The user's cache: what can be computed again, kept under the hash of its content.

An entry is a file ``KEY-CONTENT.SUFFIX``: its key says what it was made from, and the hash of its bytes
stands in its name, so that a damaged one is never taken for whole.  Entries appear under their final name in
one step; processes may share a cache.  Nothing but entries and what killed runs left unfinished is deleted.
"""

import glob
import hashlib
import math
import os
import re
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag.errors import UserError
from napari_flag.files import Unwritable, is_unfinished, put, sweep, unfinished
from napari_flag.formatting import MEGABYTE
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_BYTES: Final = {"features": 4 * 10**9, "overviews": 2 * 10**9, "pyramids": 20 * 10**9}
"""Kind of entry → size of all entries beyond which those unused for longest are deleted, unless `most_bytes`
finds another in the environment."""
_DIGITS: Final = 32
_ENTRY: Final = re.compile(rf"[^.].*-[0-9a-f]{{{_DIGITS}}}\.(npy|tif)")
"""Name of an entry of the user's cache; what is called otherwise is somebody else's."""
_AT_ONCE: Final = 8 * 2**20
"""Bytes hashed between two progress steps: some milliseconds."""
_UNREADABLE: Final = (
    ArithmeticError, EOFError, MemoryError, OSError, RecursionError, SyntaxError, TypeError, ValueError,
    tokenize.TokenError,
)  # fmt: skip
"""What NumPy raises of a file that is no array; it parses the heading as Python's literals."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How much of one kind is in the cache.

    Parameters
    ----------
    name
        A key of `MOST_BYTES`.
    folder
        Where.
    entries, size
        Number of files, and their bytes.
    """

    name: str
    folder: Path
    entries: int
    size: int


def cache_folder(kind: str = "") -> Path:
    """Return the user's folder for one `kind` of what is kept, or for all of it; it may not exist.

    ``XDG_CACHE_HOME`` moves it on Linux.
    """
    from platformdirs import user_cache_path

    return user_cache_path("napari-flag") / kind


def variable_of(kind: str) -> str:
    """Return the environment variable that sets how much of `kind` may stay, in GB."""
    return f"NAPARI_FLAG_{kind.upper()}_GB"


def most_bytes(kind: str) -> int:
    """Return how many bytes of all entries of `kind` may stay.

    Raises
    ------
    UserError
        When its variable is set to something else than a number above 0.
    """
    variable = variable_of(kind)
    given = os.environ.get(variable, "").strip()
    if not given:
        return MOST_BYTES[kind]
    with suppress(ValueError):
        if 0 < (gigabytes := float(given)) < math.inf:
            return int(gigabytes * 1e9)
    raise UserError(
        f"The environment variable {variable} is set to {given[:40]!r}, which is no number of gigabytes "
        f"above 0; set it to one such as {MOST_BYTES[kind] / 1e9:g}, or remove it."
    )


def find(folder: Path, key: str) -> Path | None:
    """Return the entry of `key`, the newest of several; None where there is none."""
    found = sorted(_of_key(folder, key), key=_last_used)
    return found[-1] if found else None


def is_whole(entry: Path, stage: str) -> Steps[bool]:
    """Return whether the content of `entry` is what was stored; then it counts as used now."""
    if not entry.is_file():  # a pipe would be waited for
        return False
    try:
        digest = yield from _hash(entry, stage)
    except OSError:
        return False
    if _content_of(entry) != digest:
        return False
    with suppress(OSError):
        os.utime(entry)  # what was used last is deleted last
    return True


def store(part: Path, folder: Path, key: str, suffix: str, stage: str) -> Steps[Path]:
    """Move the finished file `part`, on the same disk, to its place as the only entry of `key`.

    Raises
    ------
    OSError
        When the place cannot be written.
    """
    digest = yield from _hash(part, stage)
    entry = folder / f"{key}-{digest}{suffix}"
    try:
        put(part, entry)
    except PermissionError:  # another process has the same entry open, on systems that mind
        if not entry.exists():
            raise
    for other in _of_key(folder, key):
        if other != entry:
            discard(other)
    return entry


def read_array(entry: Path, stage: str) -> Steps["npt.NDArray[Any] | None"]:
    """Return the array of an entry, which stays in its file; None where that is not what was stored."""
    import numpy as np

    if (yield from is_whole(entry, stage)):
        with suppress(*_UNREADABLE):
            array: npt.NDArray[Any] = np.load(entry, mmap_mode="r", allow_pickle=False)
            return array
    return None


def keep_array(array: "npt.NDArray[Any]", folder: Path, key: str, stage: str) -> Steps[Path | None]:
    """Store `array` as the only entry of `key`; None where the cache cannot be written.

    The next run is slower then, and nothing else.
    """
    import numpy as np

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder / f"{key}.npy") as place:
            with place.open("wb") as stream:
                np.save(stream, array)
            return (yield from store(place, folder, key, ".npy", stage))
    except (OSError, Unwritable):
        return None


def make_room(folder: Path, most: int, spared: str, *, outdated: str = "", coming: int = 0) -> None:
    """Delete entries of `folder`: those that begin with `outdated`, then what was unused for longest.

    Files that are no entries neither count nor go.

    Parameters
    ----------
    folder
        Where they lie.
    most
        Bytes of all that may stay.
    spared
        Begin of the names of entries that stay, whatever their size.
    outdated
        Begin of the names of entries that will not be asked for again.
    coming
        Bytes that will be stored under names that are spared.
    """
    files = sorted(filter(_is_entry, folder.glob("[!.]*")), key=_last_used, reverse=True)
    used = coming + sum(_size(file) for file in files if file.name.startswith(spared))
    for file in files:
        if file.name.startswith(spared):
            continue
        used += _size(file)
        if used > most or (outdated and file.name.startswith(outdated)):
            discard(file)


def discard(entry: Path) -> None:
    """Delete `entry`; one that is in use, on systems that mind, stays."""
    with suppress(OSError):
        entry.unlink()


def contents() -> tuple[Kind, ...]:
    """Return what is in the user's cache: entries, and what is unfinished."""
    found = []
    for name in MOST_BYTES:
        folder = cache_folder(name)
        ours = [place for place in folder.glob("*") if _is_entry(place) or is_unfinished(place)]
        files = [file for place in ours for file in (place, *place.rglob("*")) if file.is_file()]
        found.append(Kind(name, folder, len(files), sum(map(_size, files))))
    return tuple(found)


def clear(kinds: tuple[str, ...] = tuple(MOST_BYTES)) -> tuple[Kind, ...]:
    """Delete all entries of these kinds, leftovers of killed runs too, and return what there was.

    Raises
    ------
    UserError
        Before anything is deleted, when the folder of one of them is a link to another folder.
    """
    was = tuple(kind for kind in contents() if kind.name in kinds)
    for kind in was:
        if (there := kind.folder.resolve()) != kind.folder.parent.resolve() / kind.folder.name:
            raise UserError(
                f"{kind.folder} is a link to {there}, so nothing was deleted; delete there what you do not "
                "need and remove the link, or name the other kinds (cache --clear KIND)."
            )
    for kind in was:
        sweep(kind.folder)
        for place in filter(_is_entry, kind.folder.glob("*")):
            discard(place)
    return was


def _is_entry(place: Path) -> bool:
    return _ENTRY.fullmatch(place.name) is not None


def _of_key(folder: Path, key: str) -> Iterator[Path]:
    return (file for file in folder.glob(f"{glob.escape(key)}-*") if len(_content_of(file)) == _DIGITS)


def _content_of(entry: Path) -> str:
    return entry.stem.rpartition("-")[2]


def _hash(file: Path, stage: str) -> Steps[str]:
    digest, done, size = hashlib.sha256(), 0, file.stat().st_size
    with file.open("rb") as stream:
        while part := stream.read(_AT_ONCE):
            digest.update(part)
            done += len(part)
            if done < size:
                yield Step(stage, done // MEGABYTE, size // MEGABYTE, "MB")
    return digest.hexdigest()[:_DIGITS]


def _last_used(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0
