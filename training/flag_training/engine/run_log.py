"""Logs of a training run: CSV files, and TensorBoard's where configured.

``NAME.csv`` has a row per step, ``NAME_epochs.csv`` one per epoch.  A run that goes on from an earlier
state takes back the rows after it, so the files read as those of a run that was never stopped.
"""

import csv
import itertools
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from napari_flag.files import read_csv, replacing

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

EPOCH_COLUMNS = ("step", "epoch", "seconds", "spots", "peak_memory_mb")


class RunLog:
    """The logs of one stage; a context manager.

    Parameters
    ----------
    folder, name
        Where, and the stage's name.
    columns
        Of the file with a row per step; the first is ``step``.
    tensorboard
        Whether to write event files to ``folder/tensorboard`` too.
    writes
        False for all processes but the first, which write nothing.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        columns: Sequence[str],
        *,
        tensorboard: bool = False,
        writes: bool = True,
    ) -> None:
        self._places = {
            "step": (folder / f"{name}.csv", tuple(columns)),
            "epoch": (folder / f"{name}_epochs.csv", EPOCH_COLUMNS),
        }
        self._name, self._writes = name, writes
        self._events = folder / "tensorboard" if tensorboard and writes else None
        self._files: dict[str, TextIO] = {}
        self._board: SummaryWriter | None = None

    def resume_after(self, step: int) -> float:
        """Open the files after the row of `step`; return the seconds spent until there."""
        if not self._writes:
            return 0.0
        spent = 0.0
        for kind, (path, columns) in self._places.items():
            kept = _rows_until(path, columns, step)
            spent = float(kept[-1]["seconds"]) if kind == "step" and kept else spent
            self._files[kind] = _rewrite(path, columns, kept)
        if self._events is not None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._events), purge_step=step + 1, flush_secs=10)
            _take_host_away(self._events)
        return spent

    def step(self, row: Mapping[str, float | None]) -> None:
        """Write what one step did; None leaves a cell empty."""
        self._write("step", row)

    def epoch(self, row: Mapping[str, float | None]) -> None:
        """Write what one epoch took."""
        self._write("epoch", row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if self._board is not None:
            self._board.close()
            assert self._events is not None
            _take_host_away(self._events)  # on Windows an open file keeps its name

    def _write(self, kind: str, row: Mapping[str, float | None]) -> None:
        if kind not in self._files:
            return
        columns = self._places[kind][1]
        file = self._files[kind]
        csv.DictWriter(file, columns).writerow(row)
        file.flush()
        if self._board is None:
            return
        for column, value in row.items():
            if column not in ("step", "epoch") and value is not None:
                self._board.add_scalar(f"{self._name}/{column}", value, int(row["step"] or 0))


def _take_host_away(events: Path) -> None:
    """Rename event files, which tensorboardX names after this computer, by a number in its place."""
    host = f".{socket.gethostname()}"
    for file in sorted(events.glob(f"events.out.tfevents.*{host}")):
        named = file.name.removesuffix(host)
        free = next(n for n in itertools.count(1) if not (events / f"{named}.{n}").exists())
        with suppress(OSError):
            file.rename(events / f"{named}.{free}")


def _rows_until(path: Path, columns: tuple[str, ...], step: int) -> list[dict[str, str]]:
    """Return the whole rows of `path` up to `step`; a killed run may have left half a row."""
    if not path.exists():
        return []
    rows = [row for row in read_csv(path)[1] if None not in row.values() and tuple(row) == columns]
    return [row for row in rows if int(row["step"]) <= step]


def _rewrite(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> TextIO:
    """Write `rows` anew, whole or not at all, and return the file to append to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path.open("a", newline="", encoding="utf-8")
