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

from tests.fuzz.kinds import KINDS

from napari_flag.errors import UserError

ROOM = 3 * 2**30
"""Bytes of address space beyond those that imports take: 2 GB to use and one to spare."""


def answer(kind: str, path: Path) -> dict[str, object]:
    use = next(known.use for known in KINDS if known.name == kind)
    began, busy, taken = time.monotonic(), time.process_time(), memory_mb("VmRSS", reset=True)
    try:
        found: dict[str, object] = {"end": "accepted", "notices": list(use(path))}
    except UserError as error:
        found = {"end": "refused", "said": str(error)}
    except BaseException as error:  # noqa: BLE001 - that is what is looked for
        said = "".join(traceback.format_exception(error)[-4:])
        found = {"end": "exit 1", "said": f"{type(error).__name__}: {str(error)[:300]}\n{said[-1500:]}"}
    found |= {"cpu_seconds": time.process_time() - busy, "peak_mb": memory_mb("VmHWM") - taken}
    return found | {"seconds": round(time.monotonic() - began, 2)}


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
    for line in sys.stdin:
        case = json.loads(line)
        if case["good"]:  # everything is imported before the limit holds
            limit(None)
            found = answer(case["kind"], Path(case["path"]))
            limit(ROOM)
        else:
            found = answer(case["kind"], Path(case["path"]))
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
