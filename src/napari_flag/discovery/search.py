"""Looking into folders within bounds, and which file is named after which slide."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from napari_flag.formatting import first_of, whole

MOST_FILES: Final = 1000
"""Names looked at in one call, over all folders; a folder of tiles may hold a hundred thousand."""
IMAGE_FOLDERS: Final = ("images", "image", "wsis", "slides")
TABLE_FOLDERS: Final = ("spots", "counts", "st")
"""Subfolders of legacy ST as her2st is laid out, and of HEST-1k."""


@dataclass(slots=True)
class Search:
    """How many more names may be looked at, and what there is to say."""

    left: int = MOST_FILES
    notices: list[str] = field(default_factory=list)

    def look(self, folder: Path) -> list[Path]:
        """Return the files and folders in a folder, hidden ones left out, by name; none where it is none."""
        try:
            with os.scandir(folder) as entries:
                first = list(islice(entries, self.left + 1))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.notices.append(
                f"The folder {folder} cannot be read ({error.strerror or error}) and was left out; ask for "
                "permission to read it."
            )
            return []
        if len(first) > self.left:
            first = first[: self.left]
            self.notices.append(
                f"Only {whole(MOST_FILES)} files were looked at, up to {folder}; choose a folder with "
                "fewer files, or the slide itself."
            )
        self.left -= len(first)
        shown = [entry for entry in first if not entry.name.startswith((".", "~$"))]
        names = sorted(entry.name for entry in shown if entry.is_file() or entry.is_dir())
        special = sorted({entry.name for entry in shown if os.path.exists(entry)} - set(names))
        if special:
            self.notices.append(
                f"{first_of(special, 5)} {'was' if len(special) == 1 else 'were'} left out, since pipes and "
                "devices are no files; save what is meant as a file."
            )
        return [folder / name for name in names]


def owner_of(file: str, names: Iterable[str]) -> str | None:
    """Return the slide's name that a file is named after, the longest where several fit."""
    folded = file.casefold()
    fitting = [
        name
        for name in names
        if folded.startswith(start := name.casefold()) and folded[len(start) :][:1] in ("", *"._- ")
    ]
    return max(fitting, key=len, default=None)


def inside_of(path: Path, folder: Path) -> str:
    """Return a path as seen from `folder`, whole where it lies elsewhere."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def listed(paths: Sequence[Path], folder: Path) -> str:
    """Return the first five paths as a person reads them, seen from `folder`."""
    return first_of([inside_of(path, folder) for path in paths], 5)
