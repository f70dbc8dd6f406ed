"""The process in which changed files are used, since one of them may end it: ``python -m tests.fuzz.child``.

It reads a line of JSON per case from stdin and answers each with one: what became of it.
"""

import json
import logging
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path

from tests.fuzz.kinds import KINDS, Used, wrongly_read

from napari_flag.errors import UserError

ROOM = 3 * 2**30
"""Bytes of address space beyond those that imports take: 2 GB to use and one to spare."""


def answer(name: str, path: Path, good: tuple[Path, Used] | None) -> tuple[dict[str, object], Used | None]:
    """Say what became of a file, and return what was read of it; it is held against the good one."""
    kind, used = next(known for known in KINDS if known.name == name), None
    began, busy, taken = time.monotonic(), time.process_time(), memory_mb("VmRSS", reset=True)
    try:
        used = kind.use(path)
        found: dict[str, object] = {"end": "accepted", "notices": _new(used, good)}
    except UserError as error:
        found = {"end": "refused", "said": str(error)}
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        said = "".join(traceback.format_exception(error)[-4:])
        found = {"end": "exit 1", "said": f"{type(error).__name__}: {str(error)[:300]}\n{said[-1500:]}"}
    found |= {"cpu_seconds": time.process_time() - busy, "peak_mb": memory_mb("VmHWM") - taken}
    found |= {"seconds": round(time.monotonic() - began, 2)}
    if used is not None and good is not None and kind.altered is not None and not found["notices"]:
        wrong = wrongly_read(kind.altered(good[0], path), good[1], used)
        found |= {} if wrong is None else {"end": "silently wrong", "said": wrong}
    return found, used


def _new(used: Used, good: tuple[Path, Used] | None) -> list[str]:
    """Return the notices that the good file does not have."""
    known = () if good is None else good[1].notices
    return [notice for notice in used.notices if notice not in known]


def memory_mb(name: str, *, reset: bool = False) -> float:
    """Return a size of this process, as Linux states it; its peak begins anew with `reset`; 0 elsewhere."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def limit(room: int | None) -> None:
    """Allow so much more address space than is taken now, or (None) any."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard if room is None else taken + room, hard))


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers, sys.stdout = sys.stdout, sys.stderr
    good: tuple[Path, Used] | None = None
    for line in sys.stdin:
        case = json.loads(line)
        path = Path(case["path"])
        if case["good"]:  # everything is imported before the limit holds
            limit(None)
            found, used = answer(case["kind"], path, None)
            good = None if used is None else (path, used)
            limit(ROOM)
        else:
            found, _ = answer(case["kind"], path, good)
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
