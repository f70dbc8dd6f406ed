"""Our own fuzzer: good files changed by chance, used in a child process, and what became of them counted."""

import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tests.fuzz.kinds import KINDS, Kind, copied

SLOW_S = 60.0
"""Seconds after which a case hangs: ten on a free core, and more where others use it."""
STARTING_S = 300.0
MOST_CPU_S, MOST_MB = 10.0, 2048.0
"""What one file may take: seconds of a core, and memory beyond what the process had before."""
ENDS = ("tried", "refused", "accepted", "exit 1", "crashed", "hung", "over limits", "silently wrong")


@dataclass
class Counts:
    """What became of the files of one kind; `found` lists the cases that must not be, with what was said."""

    kind: str
    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    found: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0

    def add(self, end: str, case: str, said: str = "") -> None:
        self.ends["tried"] += 1
        self.ends[end] += 1
        if end not in ("refused", "accepted"):
            self.found.append(f"{self.kind}, {case}: {end} {said}".strip())


class Child:
    """A process that uses files, started again when one of them ended it; a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self._kind, self._good = "", Path()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self, kind: str, good: Path) -> None:
        """Use a good file of a kind, so that all is imported before any other is."""
        self._kind, self._good = kind, good
        if self._process is None:
            command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.child"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            self._lines = queue.Queue()
            threading.Thread(target=self._listen, args=(self._process, self._lines), daemon=True).start()
        found = self._ask(good, STARTING_S, good=True)
        assert found is not None, f"a good file of {kind} ended the process"
        assert found["end"] == "accepted", f"a good file of {kind} was not accepted: {found}"

    def use(self, path: Path) -> dict[str, Any]:
        """Return what became of one file."""
        if self._process is None:
            self.ready(self._kind, self._good)
        found = self._ask(path, SLOW_S)
        if found is not None:
            return found
        assert self._process is not None
        ended = self._process.poll()
        self.close()
        return {"end": "hung" if ended is None else "crashed", "said": f"(process ended with {ended})"}

    @staticmethod
    def _listen(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        process.wait()
        lines.put("")  # the process has ended

    def _ask(self, path: Path, seconds: float, *, good: bool = False) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(
                json.dumps({"kind": self._kind, "path": str(path), "good": good}) + "\n"
            )
            self._process.stdin.flush()
            line = self._lines.get(timeout=seconds)
        except (OSError, queue.Empty):
            return None
        found: dict[str, Any] | None = json.loads(line) if line else None
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def fuzz(
    kind: Kind,
    folder: Path,
    child: Child,
    *,
    seed: int = 0,
    seconds: float = 1.0,
    fewest: int = 3,
    only: int | None = None,
) -> Counts:
    """Change and use files of one kind for so many seconds, `fewest` cases at least; wrong ones once each."""
    counts = Counts(kind.name)
    good = folder / "good"
    good.mkdir(parents=True)
    made = kind.make(good)
    child.ready(kind.name, made)
    for name, change in kind.wrong.items() if only is None else ():
        _count(counts, child, good, made, folder / "case", change, name, seed, wrong=True)
    until = time.monotonic() + seconds
    for number in _numbers(until, fewest) if only is None else [only]:
        random = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), number])
        change = kind.changes[int(random.integers(len(kind.changes)))]
        _count(counts, child, good, made, folder / "case", change, f"seed {seed} case {number}", random)
    return counts


def _numbers(until: float, fewest: int) -> Iterator[int]:
    number = 0
    while number < fewest or time.monotonic() < until:
        yield number
        number += 1


def _count(
    counts: Counts, child: Child, good: Path, made: Path, case: Path, change: Any, name: str, random: Any,
    *, wrong: bool = False,
) -> None:  # fmt: skip
    shutil.rmtree(case, ignore_errors=True)
    copied(good, case)
    path = case / made.relative_to(good)
    change(path, np.random.default_rng(random) if isinstance(random, int) else random)
    found = child.use(path)
    end = found["end"]
    seconds, peak = found.get("cpu_seconds", 0.0), found.get("peak_mb", 0.0)
    counts.cpu_seconds, counts.peak_mb = max(counts.cpu_seconds, seconds), max(counts.peak_mb, peak)
    if end in ("refused", "accepted") and (seconds > MOST_CPU_S or peak > MOST_MB):
        end, found["said"] = "over limits", f"({seconds:.1f} s of a core, {peak:,.0f} MB)"
    if wrong and end == "accepted" and not found["notices"]:
        end = "silently wrong"
    counts.add(end, name, str(found.get("said", "")))


def table_of(counts: Sequence[Counts]) -> str:
    """Return the counts as text, a row per kind, with the most that one file took."""

    def most(of: Sequence[Counts]) -> list[str]:
        return [f"{max(c.cpu_seconds for c in of):.1f}", f"{max(c.peak_mb for c in of):,.0f}"]

    rows = [["", *ENDS, "most s", "most MB"]]
    rows += [[c.kind, *(f"{c.ends[end]:,}" for end in ENDS), *most([c])] for c in counts]
    total = ["all", *(f"{sum(c.ends[end] for c in counts):,}" for end in ENDS), *most(counts)]
    widths = [max(len(row[i]) for row in [*rows, total]) for i in range(len(total))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [*rows, total]
    ]
    return "\n".join(lines)


def page_of(by_seed: Mapping[int, Sequence[Counts]], command: str) -> str:
    """Return a page of Markdown: the counts of each kind over all seeds, of each seed, and what was found."""

    def row(name: str, of: Sequence[Counts]) -> str:
        most = f"{max(c.cpu_seconds for c in of):.1f}", f"{max(c.peak_mb for c in of):,.0f}"
        cells = (name, *(f"{sum(c.ends[end] for c in of):,}" for end in ENDS), *most)
        return f"| {' | '.join(cells)} |"

    heading = f"| | {' | '.join(ENDS)} | most s | most MB |\n|---|{'---:|' * (len(ENDS) + 2)}"
    every = [counts for of_seed in by_seed.values() for counts in of_seed]
    kinds = list(dict.fromkeys(counts.kind for counts in every))
    lines = [
        "# Files changed by chance\n",
        f"Written by `{command}` ({os.cpu_count()} cores, {platform.system()}, Python "
        f"{platform.python_version()}, HDF5 {h5py.version.hdf5_version}). What is changed, and what counts "
        "as what, is on the page of [security](../security.md#fuzzing).\n",
        heading,
        *(row(kind, [counts for counts in every if counts.kind == kind]) for kind in kinds),
        row("**all**", every),
        f"\n{heading}",
        *(row(f"seed {seed}", of_seed) for seed, of_seed in by_seed.items()),
    ]
    found = [line for counts in every for line in counts.found]
    if found:
        lines += ["\nWhat must not be:\n", *(f"- `{' '.join(line.split())[:300]}`" for line in found)]
    return "\n".join(lines) + "\n"


def kinds_named(names: Sequence[str]) -> tuple[Kind, ...]:
    """Return the kinds of these names, or all."""
    known = {kind.name: kind for kind in KINDS}
    return tuple(known[name] for name in names) or KINDS
