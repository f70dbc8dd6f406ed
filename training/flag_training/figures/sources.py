"""Find in run folders what there is to draw: training logs, and predictions with their truth."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.figures.section import Section, section_of
from napari_flag.results import read_prediction
from napari_flag.statistics.accuracy import FloatArray

NOT_DRAWN = ("step", "epoch", "seconds")
"""Columns of a log that are no curve of their own."""


@dataclass(frozen=True, slots=True)
class Log:
    """The log of one stage of training.

    Parameters
    ----------
    name
        Folder and stage.
    columns
        Column → (rows,) float64; NaN where a cell is empty.
    """

    name: str
    columns: dict[str, FloatArray]

    def curves(self) -> tuple[str, ...]:
        """Return the columns that hold anything to draw; a part that is the whole loss is not drawn twice."""
        found: list[str] = []
        for name, values in self.columns.items():
            if name in NOT_DRAWN or not np.isfinite(values).any() or not np.nanmax(np.abs(values)):
                continue
            if name == "loss" or not np.array_equal(values, self.columns["loss"]):
                found.append(name)
        return tuple(found)


def find_logs(places: Sequence[Path]) -> tuple[Log, ...]:
    """Return the logs with a row per step in `places` (files, or folders searched to the bottom).

    Raises
    ------
    UserError
        When a place does not exist.
    """
    found = []
    for place in places:
        for path in _files(place, ".csv"):
            log = _read_log(path, place)
            if log is not None:
                found.append(log)
    return tuple(found)


def find_sections(places: Sequence[Path]) -> tuple[Section, ...]:
    """Return the predictions in `places` that carry their truth, as ``evaluate`` leaves them.

    Raises
    ------
    UserError
        When a place does not exist, or a file in it is damaged.
    """
    files = [path for place in places for path in _files(place, ".h5ad")]
    read = [read_prediction(path) for path in files]
    return tuple(section_of(adata) for adata in read if keys.MEASURED in adata.layers)


def _files(place: Path, suffix: str) -> list[Path]:
    if not place.exists():
        raise UserError(f"There is no {place} to draw from; give run folders, logs or predictions.")
    if place.is_file():
        return [place] if place.suffix == suffix else []
    return sorted(place.rglob(f"*{suffix}"))


def _read_log(path: Path, place: Path) -> Log | None:
    """Return the log in `path`; None for any other table, such as one per epoch."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        if "step" not in names or "loss" not in names:
            return None
        rows = list(reader)
    if not rows:
        return None
    columns = {name: np.array([_number(row[name]) for row in rows]) for name in names}
    inside = path.relative_to(place) if place.is_dir() else Path(path.name)
    folder = place if place.is_dir() else place.parent
    return Log(str(Path(folder.name) / inside.with_suffix("")), columns)


def _number(text: str | None) -> float:
    try:
        return float(text or math.nan)
    except ValueError:
        return math.nan
