"""Writing files atomically: under a temporary name in the same folder, then renamed.

A file appears whole or not at all, and an existing one is replaced only by a whole one.
"""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_flag.errors import UserError
from napari_flag.progress import Steps, finish

if TYPE_CHECKING:
    import pandas as pd


def check_writable(path: Path) -> None:
    """Raise a `UserError` now if `path` could not be written later; leaves nothing behind."""
    folder = path.parent
    if path.is_dir():
        raise UserError(f"{path} is a folder, so nothing can be written there; give a file name.")
    if not folder.is_dir():
        raise UserError(
            f"The folder {folder} does not exist, so {path.name} cannot be written there; create "
            "it or choose another."
        )
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV: UTF-8, dot as decimal point, empty where there is no value."""
    check_writable(path)
    write_whole(path, lambda place: table.to_csv(place, index=False, float_format="%.6g"))


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write JSON that any program reads (numbers that are unknown are null)."""
    check_writable(path)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8."""
    check_writable(path)
    write_whole(path, lambda place: place.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, then rename; on failure nothing is left behind.

    Raises
    ------
    UserError
        When the place cannot be written or the disk is full.
    """

    def steps(place: Path) -> Steps[None]:
        write(place)
        yield from ()

    finish(write_whole_in_steps(path, steps))


def write_whole_in_steps(path: Path, write: Callable[[Path], Steps[None]]) -> Steps[None]:
    """Do the same as `write_whole` with long work; cancelled, it leaves nothing behind.

    What `write` makes may be a file or a folder; a file or a folder at `path` is replaced.

    Raises
    ------
    UserError
        When the place cannot be written or the disk is full.
    """
    place = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield from write(place)
        if path.is_dir():  # a folder with something in it cannot be replaced in one step
            shutil.rmtree(path)
        os.replace(place, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return UserError(
        f"{path} cannot be written ({reason}); choose another place, or make room or get permission there."
    )
