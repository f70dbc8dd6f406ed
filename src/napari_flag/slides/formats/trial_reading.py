"""HDF5 files read on trial in a process of their own, before this one opens them.

The library that reads HDF5 trusts the file: damage in the right place ends the process, and with it whatever
else is open in it.  `refuse_crashing` has another process read all attributes and texts and the beginning of
every array first.  That process is started once, in a quarter of a second, and answers a small file in a few
milliseconds; one that a file ended is started again.
"""

import atexit
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from napari_flag.formatting import MEGABYTE, data_size, duration

PATIENCE_S: Final = 60.0
"""Seconds for one file; the largest take one."""
MOST_CPU_S: Final = 6.0
"""Seconds of a core for one file, after which its reader ends by itself, also where nobody waits for it."""
COMMAND: Final = (sys.executable, "-m", "napari_flag.slides.formats.trial_reading")
MOST_MB: Final = 1000.0
"""Memory for one file, of which parts alone are read; damage can state a text of two gigabytes."""
KEPT: Final = 256
"""Files remembered, by path, size and time of change."""
TOO_MUCH: Final = "too much\n"
"""The answer to a file that took more than `MOST_MB`."""
READ_WHOLE: Final = 2**24
"""Bytes of an array up to which all of it is read; of a larger one the beginning is."""


class TrialReader:
    """The other process; may be used from several threads.

    Parameters
    ----------
    command
        Reads a path per line and answers each with a line, after a first one when it is ready.
    patience_s
        Seconds for one file.
    """

    def __init__(self, command: Sequence[str] = COMMAND, patience_s: float = PATIENCE_S) -> None:
        self._command, self._patience_s = tuple(command), patience_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._known: OrderedDict[tuple[str, int, int], str] = OrderedDict()

    def fault_of(self, path: Path) -> str:
        """Return why a file must not be opened here, "" where it may be."""
        try:
            found = path.stat()
        except OSError:
            return ""  # said when it is opened
        key = (str(path.absolute()), found.st_size, found.st_mtime_ns)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._ask(key[0])
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
            return self._known[key]

    def _ask(self, path: str) -> str:
        if "\n" in path or not self._running():
            return ""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            answer = self._answers.get(timeout=self._patience_s)
        except OSError:
            answer = ""
        except queue.Empty:
            self.close()
            return f"reading it on trial did not end within {duration(self._patience_s)}"
        if answer == TOO_MUCH:
            self.close()  # what it took, it keeps
            return f"reading it on trial took more than {data_size(MOST_MB * MEGABYTE)} of memory"
        if answer:
            return ""
        ended = process.wait()
        self.close()
        if _TIMED and ended == -signal.SIGPROF:
            return f"reading it on trial did not end within {duration(MOST_CPU_S)} of a core"
        return "reading it on trial ended the process that read it"

    def _running(self) -> bool:
        if self._process is not None and self._process.poll() is None:
            return True
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, encoding="utf-8", errors="surrogateescape", env=environment,
            )  # fmt: skip
        except OSError:  # an application without an interpreter of its own: files are opened untried
            return False
        self._answers = queue.Queue()
        threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True).start()
        try:
            return bool(self._answers.get(timeout=PATIENCE_S))  # it says when it is ready
        except queue.Empty:
            self.close()
            return False

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _listen(process: "subprocess.Popen[str]", answers: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")  # it has ended


_READER: Final = TrialReader()
atexit.register(_READER.close)


def refuse_crashing(path: Path) -> None:
    """Raise a `ValueError` where reading an HDF5 file would end or hold up this process."""
    fault = _READER.fault_of(path)
    if fault:
        raise ValueError(fault)


def read_on_trial(path: str) -> None:
    """Read attributes, texts and the beginning of every array of a file."""
    import h5py

    with h5py.File(path, "r") as file:
        found: list[Any] = [file]
        file.visititems(lambda _, node: found.append(node))
        for node in found:
            for name in node.attrs:
                _tolerant(node.attrs.__getitem__, name)
            if not isinstance(node, h5py.Dataset):
                continue
            size = float(node.size) * node.dtype.itemsize
            if size <= READ_WHOLE:
                _tolerant(node.__getitem__, ())
            elif size / len(node) <= READ_WHOLE:
                _tolerant(node.__getitem__, slice(0, 1))


def _tolerant(read: Any, what: Any) -> None:
    try:
        read(what)
    except Exception:  # noqa: BLE001 - what is raised is said by whoever reads it; only an end counts here
        return


_TIMED: Final = hasattr(signal, "setitimer")
"""Whether the system ends a process after seconds of a core: not Windows, where `PATIENCE_S` alone holds."""


def _end_after(seconds: float) -> None:
    """Have the system end this process after seconds of a core from now; 0 takes that back."""
    if _TIMED:
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _peak_mb() -> float:
    """Return the most memory that this process ever had, as Linux states it; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / MEGABYTE for line in lines if line.startswith("VmHWM")), 0.0)


def main() -> None:
    """Answer each path on stdin with a line, if the process outlives it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        before = _peak_mb()
        _end_after(MOST_CPU_S)
        _tolerant(read_on_trial, line.rstrip("\n"))
        _end_after(0)
        answers.write(TOO_MUCH if _peak_mb() - before > MOST_MB else "read\n")
        answers.flush()


if __name__ == "__main__":
    main()
