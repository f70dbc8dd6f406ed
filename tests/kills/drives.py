"""Commands on a drive that is full, read-only or over its quota: one sentence, exit 2, nothing lost.

``python -m tests.kills.drives [--commands export predict]``.  The drive is a small one in memory, mounted for
the process of the command alone (Linux, where unprivileged mounts are allowed).
"""

import argparse
import ctypes
import itertools
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.kills.commands import COMMANDS, OUT, Command
from tests.kills.killing import (
    Clean,
    end_of,
    faults,
    is_part,
    left_alone,
    main_of,
    numbers,
    outputs,
    start,
    warm,
)

NEW_NAMESPACES = 0x10000000 | 0x00020000
"""``CLONE_NEWUSER`` and ``CLONE_NEWNS`` of Linux."""
READ_ONLY, REMOUNT = 1, 32
BLOCK = 4096
"""Bytes that a drive in memory gives at a time."""


def _system(name: str, *arguments: object) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    given = [os.fsencode(a) if isinstance(a, str | os.PathLike) else a for a in arguments]
    if getattr(system, name)(*given) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def mounts() -> bool:
    """Whether a process may mount a drive of its own here."""
    process = os.fork()
    if process == 0:
        try:
            own_drive(Path(tempfile.gettempdir()), 1 << 20)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(process, 0)[1] == 0


def own_drive(folder: Path, size: int) -> None:
    """Mount a drive of `size` bytes at `folder`, seen by this process alone."""
    user, group = os.getuid(), os.getgid()
    _system("unshare", NEW_NAMESPACES)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text)
    _system("mount", "none", folder, "tmpfs", 0, f"size={size}")


def make_read_only(folder: Path) -> None:
    """Mount again, without leave to write, what `own_drive` mounted."""
    _system("mount", "none", folder, "tmpfs", REMOUNT | READ_ONLY, 0)


@dataclass(frozen=True)
class Drive:
    """The output folder of a case, before it is mounted.

    Parameters
    ----------
    place
        The folder.
    old
        What is there when the command starts; None for nothing.
    largest
        Bytes of the largest file that the command writes.
    """

    place: Path
    old: Path | None
    largest: int

    @property
    def there(self) -> int:
        """Bytes that the drive takes for what is there, in whole blocks."""
        files = [] if self.old is None else [file for file in self.old.rglob("*") if file.is_file()]
        return sum(-(-file.stat().st_size // BLOCK) * BLOCK for file in files)

    def fill(self) -> None:
        """Put there what is there when the command starts."""
        if self.old is not None:
            shutil.copytree(self.old, self.place, dirs_exist_ok=True)


def full(drive: Drive) -> None:
    """Leave room for half of the largest file that the command writes, beside what is there."""
    own_drive(drive.place, drive.there + max(drive.largest // 2, 8192))
    drive.fill()


def read_only(drive: Drive) -> None:
    """Mount what is there without leave to write."""
    own_drive(drive.place, 1 << 28)
    drive.fill()
    make_read_only(drive.place)


def limited(drive: Drive) -> None:
    """Allow no file above half of the largest that the command writes, as some quotas do."""
    drive.fill()
    resource.setrlimit(resource.RLIMIT_FSIZE, (drive.largest // 2, drive.largest // 2))


DRIVES: dict[str, Callable[[Drive], None]] = {"full": full, "read-only": read_only, "files limited": limited}
BEFORE = {"nothing there": False, "an earlier result there": True}


def try_drive(command: Command, clean: Clean, folder: Path, drive: str, *, earlier: bool) -> list[str]:
    """Run a command on such a drive and return what is wrong with how it ends.

    It must end in one sentence with exit code 2.  A command that goes on from what is there may also find
    room for the rest, and end with 0 and the same numbers as one that was left alone.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / OUT).mkdir()
    os.symlink(clean.folder / "in", folder / "in")
    written = clean.folder / OUT
    largest = max(file.stat().st_size for file in written.rglob("*") if file.is_file())
    mounted = Drive(folder / OUT, written if earlier else None, largest)

    def work() -> int:
        DRIVES[drive](mounted)
        before = {path: path.stat().st_mtime_ns for path in outputs(folder)}
        code = main_of(command, debug=False)()
        wrong = [f"{path.name} is gone" for path in before if not path.exists()] + faults(folder)
        if code == 0 and numbers(folder) != clean.numbers:
            wrong.append("it ended with 0 and other numbers")
        left = [path for path in outputs(folder) if is_part(path.relative_to(folder)) and path not in before]
        sys.stdout.flush()
        os.write(1, "".join(f"\nLEFT {path}" for path in left).encode())
        os.write(1, "".join(f"\nWRONG {text}" for text in wrong).encode())
        return code

    code, _ = end_of(start(work, folder))
    said = (folder / "said.txt").read_text()
    wrong = [line for line in said.splitlines() if line.startswith(("LEFT", "WRONG"))]
    allowed = (0, 2) if earlier and command.resumes else (2,)
    wrong += [] if code in allowed else [f"exit {code}: {said[-1500:]}"]
    wrong += ["a traceback"] if "Traceback" in said else []
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--drives", nargs="+", choices=DRIVES, default=list(DRIVES))
    args = parser.parse_args()
    if not mounts():
        print("No process may mount a drive of its own here, so nothing was tried.")  # noqa: T201
        return 3
    warm()
    tried = count = 0
    for name in args.commands:
        with tempfile.TemporaryDirectory(prefix="drives-") as made:
            folder = Path(made)
            clean = left_alone(COMMANDS[name], folder / "clean")
            for drive, before in itertools.product(args.drives, BEFORE):
                wrong = try_drive(COMMANDS[name], clean, folder / "case", drive, earlier=BEFORE[before])
                tried += 1
                count += bool(wrong)
                print(f"{name}, {drive}, {before}: {'; '.join(wrong) or 'well'}", flush=True)  # noqa: T201
    print(f"{tried} tried, {count} not well.", flush=True)  # noqa: T201 - this is a command
    return min(count, 1)


if __name__ == "__main__":
    raise SystemExit(main())
