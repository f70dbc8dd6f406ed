"""Several slides, listed in one CSV file: what is trained on, and what is predicted in one go."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from napari_flag.errors import UserError
from napari_flag.files import place_in, raw_cell, read_csv, read_text
from napari_flag.slides.formats.text_tables import separator_of
from napari_flag.slides.slide import slide_name

COLUMNS: Final = ("name", "patient", "image", "spots", "counts", "mpp")
"""Of a list; ``image``, or ``slide``, must be there.  Paths are relative to the file."""
IMAGE_TOO: Final = "slide"


@dataclass(frozen=True, slots=True)
class ListedSlide:
    """One line of a list.

    Parameters
    ----------
    name
        Of the slide; its file's where the line states none.  It can be the name of a file on every system.
    image
        The slide, or a folder with one.
    spots, counts
        Table of spots, and raw counts in a file of their own; None where the line names none.
    patient
        Whose it is; empty where the line does not state it.
    mpp
        µm per pixel of the full-resolution slide stated by hand; None where the line does not state it.
    """

    name: str
    image: Path
    spots: Path | None = None
    counts: Path | None = None
    patient: str = ""
    mpp: float | None = None


def read_listing(path: Path, *, spots_needed: bool = False) -> tuple[ListedSlide, ...]:
    """Return the slides that a CSV file lists, in its order; their files are not read.

    Parameters
    ----------
    path
        UTF-8, separated by commas, semicolons or tabs, its first line with names of `COLUMNS`; other columns
        are not read.
    spots_needed
        Whether every line must name a table of spots.

    Raises
    ------
    UserError
        When it cannot be read or lists nothing, a line names no image, or no spots where it must, or a name
        cannot be that of a file.
    """
    names, rows = _rows(path)
    image = "image" if "image" in names or IMAGE_TOO not in names else IMAGE_TOO
    needed = (image, "spots") if spots_needed else (image,)
    in_words = " and ".join(needed)
    absent = [name for name in needed if name not in names]
    if absent:
        raise UserError(
            f"{path} has no column {' and no column '.join(absent)}; its first line must name the columns: "
            f"{', '.join(COLUMNS)}, of which {in_words} must be there."
        )
    listed = []
    for line, row in enumerate(rows, start=2):
        if any("\n" in cell for cell in row.values() if isinstance(cell, str)):
            raise UserError(
                f"Line {line} of {path} opens a quote that another line closes, so lines between are lost; "
                "correct it."
            )
        cells = {key: raw_cell((row.get(key) or "").strip()) for key in (*COLUMNS, image)}
        if not any(cells.values()):
            continue  # an empty line, as spreadsheets leave them at the end
        if not all(cells[key] for key in needed):
            raise UserError(
                f"Line {line} of {path} names no {' or no '.join(needed)}; the columns are "
                f"{', '.join(COLUMNS)}, of which {in_words} must be filled."
            )
        slide = path.parent / cells[image]
        name = cells["name"] or slide_name(slide)
        if place_in(path.parent, name).name != name:
            raise UserError(
                f"Line {line} of {path} names a section {name[:40]!r}, which cannot be the name of a file on "
                "every system; use letters, digits, - and _, at most a hundred of them."
            )
        spots, counts = (path.parent / cells[key] if cells[key] else None for key in ("spots", "counts"))
        mpp = _number(cells["mpp"], f"Line {line} of {path}")
        listed.append(ListedSlide(name, slide, spots, counts, cells["patient"], mpp))
    if not listed:
        raise UserError(f"{path} lists no slide; give a line per slide, with its file in the column {image}.")
    return tuple(listed)


def refuse_same_names(source: Path, names: Sequence[str]) -> None:
    """Raise a `UserError` where two sections of a list or folder have one name."""
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise UserError(f"{source} has two sections called {', '.join(twice)}; give each its own name.")


def _rows(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    try:
        header = read_text(path).partition("\n")[0]
        return read_csv(path, separator_of(header.encode()))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}); check the path, and that you may open it."
        ) from error


def _number(text: str, where: str) -> float | None:
    """Return µm per pixel, with a decimal point or comma; None where nothing is stated."""
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{where} has {text} as µm per pixel, which is no number above 0; correct it.")
    return value
