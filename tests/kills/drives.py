"""Commands on a drive that is full, read-only or over its quota: one sentence, exit 2, nothing lost.

``python -m tests.kills.drives [--commands export predict]``.  The drive is a small one in memory, mounted for
the process of the command alone (Linux, where unprivileged mounts are allowed).
"""

import argparse
import ctypes
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.kills.commands import COMMANDS, OUT, Command
from tests.kills.killing import (
    Clean,
    end_of,
    faults,
    is_part,
    left_alone,
    main_of,
    outputs,
    start,
    warm,
)

NEW_NAMESPACES = 0x10000000 | 0x00020000
"""``CLONE_NEWUSER`` and ``CLONE_NEWNS`` of Linux."""
READ_ONLY, REMOUNT = 1, 32


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


def full(folder: Path, old: Path, needed: int) -> None:
    """Leave room for half of what the command writes, beside what is there."""
    there = sum(file.stat().st_size for file in old.rglob("*") if file.is_file())
    blocks = sum(4096 for _ in old.rglob("*"))
    own_drive(folder / OUT, there + blocks + max(needed // 2, 8192))
    shutil.copytree(old, folder / OUT, dirs_exist_ok=True)


def read_only(folder: Path, old: Path, needed: int) -> None:
    """Mount what is there without leave to write."""
    own_drive(folder / OUT, 1 << 28)
    shutil.copytree(old, folder / OUT, dirs_exist_ok=True)
    make_read_only(folder / OUT)


def limited(folder: Path, old: Path, needed: int) -> None:
    """Allow no file above a size, as some quotas do."""
    shutil.copytree(old, folder / OUT, dirs_exist_ok=True)
    largest = max(file.stat().st_size for file in old.rglob("*") if file.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))


DRIVES: dict[str, Callable[[Path, Path, int], None]] = {
    "full": full, "read-only": read_only, "files limited": limited,
}  # fmt: skip


def try_drive(command: Command, clean: Clean, folder: Path, drive: str) -> list[str]:
    """Run a command on such a drive and return what is wrong with how it ends."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / OUT).mkdir()
    os.symlink(clean.folder / "in", folder / "in")
    old = clean.folder / OUT
    needed = sum(file.stat().st_size for file in old.rglob("*") if file.is_file())

    def work() -> int:
        DRIVES[drive](folder, old, needed)
        before = {path: path.stat().st_mtime_ns for path in outputs(folder)}
        code = main_of(command, debug=False)()
        wrong = [f"{path.name} is gone" for path in before if not path.exists()] + faults(folder)
        left = [path for path in outputs(folder) if is_part(path.relative_to(folder)) and path not in before]
        sys.stdout.flush()
        os.write(1, "".join(f"\nLEFT {path}" for path in left).encode())
        os.write(1, "".join(f"\nWRONG {text}" for text in wrong).encode())
        return code

    code, _ = end_of(start(work, folder))
    said = (folder / "said.txt").read_text()
    wrong = [line for line in said.splitlines() if line.startswith(("LEFT", "WRONG"))]
    wrong += [] if code == 2 else [f"exit {code}: {said[-1500:]}"]
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
    count = 0
    for name in args.commands:
        with tempfile.TemporaryDirectory(prefix="drives-") as made:
            folder = Path(made)
            clean = left_alone(COMMANDS[name], folder / "clean")
            for drive in args.drives:
                wrong = try_drive(COMMANDS[name], clean, folder / "case", drive)
                count += bool(wrong)
                print(f"{name}, {drive}: {'; '.join(wrong) or 'one sentence, nothing lost'}", flush=True)  # noqa: T201
    return min(count, 1)


if __name__ == "__main__":
    raise SystemExit(main())
