"""A workspace as one JSON file: which slides were open, with their tables, predictions and regions.

The file names other files and holds none of them but the outlined regions.  It may tell where a person
keeps slides of patients, so only its owner may read it.  Autosaves are workspaces in the cache folder, each
in a folder of its own with the predictions that were not saved elsewhere.
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from napari_flag.cache import cache_folder
from napari_flag.errors import UserError
from napari_flag.files import check_writable, is_claimed, refuse_special, write_whole
from napari_flag.foreign_prediction import UNITS
from napari_flag.formatting import data_size
from napari_flag.inputs import Grid
from napari_flag.slides.formats.geojson import Annotation, annotations_in, collection_of

MARK: Final = "napari_flag_workspace"
"""First key of the file; its value is the number of the format."""
FORMAT: Final = 1
MOST_BYTES: Final = 32_000_000
"""Of a file; only outlines take room, and a hundred detailed ones take about one megabyte."""
HEAD_BYTES: Final = 1024
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
AUTOSAVE: Final = "autosave-"
"""Begins the name of an autosave's folder."""
AUTOSAVED: Final = "workspace.json"
LATEST_AUTOSAVES: Final = 5
AUTOSAVE_BYTES: Final = 2_000_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkspacePrediction:
    """One prediction of a slide.

    Parameters
    ----------
    name
        What it is called.
    path
        Its file.
    unit
        What the file of another program holds (`foreign_prediction.UNITS`), "" of our own.
    """

    name: str
    path: Path
    unit: str = ""


@dataclass(frozen=True, slots=True)
class WorkspaceSlide:
    """One slide of a workspace.

    Parameters
    ----------
    name
        As it is listed.
    slide
        Its file, or None where a prediction is shown without one.
    um_per_px, um_per_px_source
        µm per level-0 pixel and where that came from; None and "" when unknown.
    table, measured
        Files of spots and of counts, or None.
    grid
        The grid laid where there is no table, or None.
    predictions
        In the order listed.
    shown
        Index of the prediction shown, or None.
    regions
        In level-0 pixels.
    """

    name: str
    slide: Path | None
    um_per_px: float | None = None
    um_per_px_source: str = ""
    table: Path | None = None
    grid: Grid | None = None
    measured: Path | None = None
    predictions: tuple[WorkspacePrediction, ...] = ()
    shown: int | None = None
    regions: tuple[Annotation, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file it names."""
        named = (self.slide, self.table, self.measured, *(p.path for p in self.predictions))
        return tuple(path for path in named if path is not None)


@dataclass(frozen=True, slots=True)
class WorkspaceFile:
    """The slides that were open, in the order listed, and what was looked at.

    Parameters
    ----------
    slides
        The slides.
    current
        Index of the slide in view, or None.
    gene, quantity
        What the maps showed; "" where nothing.
    gene_sets
        The GMT file of the gene sets looked for, or None of those that come along.
    """

    slides: tuple[WorkspaceSlide, ...]
    current: int | None = None
    gene: str = ""
    quantity: str = ""
    gene_sets: Path | None = None

    @property
    def missing(self) -> tuple[Path, ...]:
        """The files named that are not there now."""
        named = [path for slide in self.slides for path in slide.files]
        named += [] if self.gene_sets is None else [self.gene_sets]
        return tuple(dict.fromkeys(path for path in named if not os.path.exists(path)))


# --- writing -------------------------------------------------------------------------------------


def write_workspace(workspace: WorkspaceFile, path: str | Path) -> None:
    """Write a workspace, whole or not at all, readable by its owner only.

    Files in the workspace's folder or below it are named relative to that folder, so that it can be moved
    with them; others by their full path.

    Raises
    ------
    UserError
        When the place cannot be written.
    """
    path = Path(path).expanduser().absolute()
    check_writable(path)
    stored = {MARK: FORMAT, **_stored(workspace, path.parent)}
    text = json.dumps(stored, indent=1, allow_nan=False) + "\n"  # ASCII: names of files may be no Unicode

    def write(place: Path) -> None:
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_FILE), "wb") as stream:
            stream.write(text.encode())

    write_whole(path, write)


def _stored(workspace: WorkspaceFile, folder: Path) -> dict[str, Any]:
    return {
        "current": workspace.current,
        "gene": workspace.gene,
        "quantity": workspace.quantity,
        "gene_sets": _stored_path(workspace.gene_sets, folder),
        "slides": [_stored_slide(slide, folder) for slide in workspace.slides],
    }


def _stored_slide(slide: WorkspaceSlide, folder: Path) -> dict[str, Any]:
    grid = slide.grid
    return {
        "name": slide.name,
        "slide": _stored_path(slide.slide, folder),
        "um_per_px": slide.um_per_px,
        "um_per_px_source": slide.um_per_px_source,
        "table": _stored_path(slide.table, folder),
        "grid": None
        if grid is None
        else {"spacing_um": grid.spacing_um, "diameter_um": grid.diameter_um, "lattice": grid.lattice},
        "measured": _stored_path(slide.measured, folder),
        "predictions": [
            {"name": p.name, "path": _stored_path(p.path, folder), "unit": p.unit} for p in slide.predictions
        ],
        "shown": slide.shown,
        "regions": collection_of(slide.regions),
    }


def _stored_path(path: Path | None, folder: Path) -> str | None:
    if path is None:
        return None
    full = Path(os.path.abspath(path.expanduser()))  # not resolved: a link is what the person chose
    return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else str(full)


# --- reading -------------------------------------------------------------------------------------


def is_workspace(path: Path) -> bool:
    """Return whether a file begins as a workspace does; it may still be damaged."""
    try:
        refuse_special(path)
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except (OSError, UserError):
        return False
    return f'"{MARK}"'.encode() in head


def read_workspace(path: str | Path) -> WorkspaceFile:
    """Read a workspace; files that it names and that are gone stay in it (see `WorkspaceFile.missing`).

    Raises
    ------
    UserError
        When the file is no workspace, of a newer version, damaged, or too large.
    """
    path = Path(path).expanduser().absolute()
    content = _content(path)
    if not isinstance(content, dict) or MARK not in content:
        raise UserError(
            f"{path.name} is no workspace of napari-flag; choose a file that was saved with “Save workspace”."
        )
    version = content[MARK]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _damaged(path, f"its format {version!r} is no number")
    if version > FORMAT:
        raise UserError(
            f"{path.name} was saved by a newer napari-flag (format {version}, this one reads {FORMAT}); "
            "update napari-flag to open it."
        )
    try:
        return _read(_Fields(content, "the workspace"), path.parent)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _content(path: Path) -> Any:
    try:
        refuse_special(path)
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise UserError(
            f"{path} could not be read ({error.strerror or error}); check that it is a file you may open."
        ) from error
    if len(data) > MOST_BYTES:
        raise UserError(
            f"{path.name} is larger than {data_size(MOST_BYTES)}, as no workspace is; choose a file "
            "that was saved with “Save workspace”."
        )
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _damaged(path, str(error)) from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"The workspace {path.name} is damaged ({reason}); copy it again, or open its slides one by one."
    )


@dataclass(frozen=True, slots=True)
class _Fields:
    """Fields of one JSON object, each checked when it is asked for; what is wrong is a `ValueError`."""

    values: Mapping[str, Any]
    owner: str

    def get(self, name: str, kind: type[T], default: T) -> T:
        """Return a value of `kind`, or `default` where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} of {self.owner} is {_short(value)}")
        return value

    def text(self, name: str) -> str:
        """Return a text, "" where there is none."""
        return self.get(name, str, "")

    def positive(self, name: str) -> float | None:
        """Return a number above 0, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1e9
        if not good or not math.isfinite(value):
            raise ValueError(f"{name} of {self.owner} is {_short(value)}")
        return float(value)

    def index(self, name: str, length: int) -> int | None:
        """Return a place in a list of `length`, or None."""
        value = self.get(name, int, -1)
        if self.values.get(name) is not None and not 0 <= value < length:
            raise ValueError(f"{name} of {self.owner} is {value}, of {length}")
        return None if value == -1 else value

    def file(self, name: str, folder: Path) -> Path | None:
        """Return a path, joined to the workspace's folder where it is relative."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"{name} of {self.owner} is {_short(value)}")
        return folder / value

    def objects(self, name: str) -> "Iterator[_Fields]":
        """Return the objects of a list."""
        for i, item in enumerate(self.get(name, list, [])):
            if not isinstance(item, dict):
                raise ValueError(f"{name} {i + 1} of {self.owner} is {_short(item)}")
            yield _Fields(item, f"{name} {i + 1} of {self.owner}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _read(fields: _Fields, folder: Path) -> WorkspaceFile:
    slides = tuple(_read_slide(slide, folder) for slide in fields.objects("slides"))
    return WorkspaceFile(
        slides,
        fields.index("current", len(slides)),
        fields.text("gene"),
        fields.text("quantity"),
        fields.file("gene_sets", folder),
    )


def _read_slide(fields: _Fields, folder: Path) -> WorkspaceSlide:
    predictions = tuple(_read_prediction(each, folder) for each in fields.objects("predictions"))
    regions = fields.get("regions", dict, {})
    um_per_px = fields.positive("um_per_px")
    return WorkspaceSlide(
        name=fields.text("name"),
        slide=fields.file("slide", folder),
        um_per_px=um_per_px,
        um_per_px_source=fields.text("um_per_px_source") if um_per_px is not None else "",
        table=fields.file("table", folder),
        grid=_read_grid(fields),
        measured=fields.file("measured", folder),
        predictions=predictions,
        shown=fields.index("shown", len(predictions)),
        regions=tuple(annotations_in(regions)) if regions else (),
    )


def _read_prediction(fields: _Fields, folder: Path) -> WorkspacePrediction:
    path = fields.file("path", folder)
    if path is None:
        raise ValueError(f"{fields.owner} has no path")
    unit = fields.text("unit")
    return WorkspacePrediction(fields.text("name") or path.stem, path, unit if unit in UNITS else "")


def _read_grid(fields: _Fields) -> Grid | None:
    values = fields.get("grid", dict, {})
    if not values:
        return None
    grid = _Fields(values, f"grid of {fields.owner}")
    spacing, diameter = grid.positive("spacing_um"), grid.positive("diameter_um")
    lattice = grid.text("lattice")
    if spacing is None or diameter is None or lattice not in ("square", "hex"):
        raise ValueError(f"{grid.owner} is incomplete")
    return Grid(spacing, diameter, "square" if lattice == "square" else "hex")


# --- autosaves -----------------------------------------------------------------------------------


def autosave_folder() -> Path:
    """Return the folder of all autosaves, in the user's cache."""
    return cache_folder("workspaces")


def new_autosave() -> Path:
    """Make a folder for the autosaves of one session, and return where its workspace is to be written.

    Predictions go beside the workspace, which then names them by relative paths.

    Raises
    ------
    UserError
        When the cache cannot be written.
    """
    folder = autosave_folder()
    try:
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        made = tempfile.mkdtemp(prefix=f"{AUTOSAVE}{stamp}-", dir=folder)  # for its owner only
    except OSError as error:
        raise UserError(
            f"The cache folder {folder} cannot be written ({error.strerror or error}), so the workspace is "
            "not kept by itself; save it by hand, or free space there."
        ) from error
    return Path(made) / AUTOSAVED


def last_autosave() -> Path | None:
    """Return the workspace that was autosaved last by a session that has ended, or None.

    What a session still writes to (`files.claim`), in this window or another, is nobody else's to restore.
    """
    whole = (folder for folder in _autosaves() if (folder / AUTOSAVED).is_file())
    return next((folder / AUTOSAVED for folder in whole if not is_claimed(folder)), None)


def prune_autosaves(
    max_bytes: int = AUTOSAVE_BYTES, keep: int = LATEST_AUTOSAVES, spare: Path | None = None
) -> tuple[Path, ...]:
    """Delete old autosaves: the newest `keep` stay, as far as they take `max_bytes` together.

    One that a session still writes to (`files.claim`), of this process or another, stays too.

    Parameters
    ----------
    max_bytes
        Of all that stay; the newest one stays whatever its size.
    keep
        How many stay at most, 1 or more.
    spare
        Folder of an autosave that stays whatever its age and size, or None.

    Returns
    -------
    The folders deleted.
    """
    used, deleted = 0, []
    for place, folder in enumerate(_autosaves()):
        size = _bytes_in(folder)
        too_much = place >= keep or used + size > max_bytes
        if place > 0 and too_much and folder != spare and not is_claimed(folder):
            shutil.rmtree(folder, ignore_errors=True)  # may be in use elsewhere, on systems that mind
        if folder.exists():
            used += size
        else:
            deleted.append(folder)
    return tuple(deleted)


def _autosaves() -> list[Path]:
    """Return the folders of autosaves, the last written first."""
    with suppress(OSError):
        folders = [f for f in autosave_folder().glob(f"{AUTOSAVE}*") if f.is_dir() and not f.is_symlink()]
        return sorted(folders, key=_last_written, reverse=True)
    return []


def _last_written(folder: Path) -> tuple[int, str]:
    for path in (folder / AUTOSAVED, folder):
        with suppress(OSError):
            return path.stat().st_mtime_ns, folder.name
    return 0, folder.name


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total
