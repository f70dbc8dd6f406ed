"""What a person sees in the terminal: results on stdout, progress and notices on stderr."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TextIO

from napari_flag.progress import Step
from napari_flag.widgets.time_left import TimeLeft, say_duration

REDRAW_S: Final = 0.1
LINE_EVERY_S: Final = 15.0
"""Seconds between lines of the same stage where the output is no terminal (a log file)."""


class ProgressLine:
    """One line that keeps itself up to date; a context manager that cleans it away.

    Where `stream` is no terminal, plain lines: one per stage, and one each `LINE_EVERY_S`.

    Parameters
    ----------
    stream
        Where to write; stderr.
    clock
        Seconds, monotonic.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._clock = clock
        self._left = TimeLeft(clock=clock)
        self._stage = ""
        self._written_at = -float("inf")
        self._drawn = False
        self._said: set[str] = set()

    def __call__(self, step: Step) -> None:
        """Show `step`."""
        left = self._left.update(step)
        if step.notice:
            self.notice(step.notice)
        now = self._clock()
        new_stage = step.stage != self._stage
        pause = REDRAW_S if self._live else LINE_EVERY_S
        if not new_stage and now - self._written_at < pause:
            return
        self._stage, self._written_at = step.stage, now
        self._draw(describe(step, left))

    def notice(self, sentence: str) -> None:
        """Write a sentence that stays, once however often it is said."""
        if sentence not in self._said:
            self._said.add(sentence)
            self._clean()
            self._stream.write(f"Note: {sentence}\n")
            self._stream.flush()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each stage."""
        return dict(self._left.seconds)

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean()

    def _draw(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
            self._drawn = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _clean(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def describe(step: Step, seconds_left: float | None) -> str:
    """Return "Reading tiles: 120 of 181 spots, about 20 s left"."""
    text = step.stage
    if step.total:
        text += f": {step.done:,} of {step.total:,} {step.unit}"
    elif step.done:
        text += f": {step.done:,} {step.unit}"
    if seconds_left is not None and (step.total is None or step.done < step.total):
        text += f", {say_duration(seconds_left)} left"
    return text


def say(text: str = "") -> None:
    """Write a line of the result to stdout."""
    sys.stdout.write(f"{text}\n")


def say_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a result as JSON to stdout."""
    say(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def say_columns(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Write rows of text in aligned columns, the last one ragged."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say(indent + "  ".join(cells).rstrip())
