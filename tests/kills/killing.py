"""Commands killed at random moments, and what they leave: whole files, nothing unfinished.

Every run is a process forked from this one, which has imported everything: a kill costs what the command
costs, and not seconds of imports.  Half of the moments are drawn in time; the other half are a few
milliseconds after a change of the file system (opening to write, renaming, deleting), which is drawn too.
"""

import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kills.commands import OUT, Command, brief, used

IMPORTED = (
    "torch", "anndata", "spatialdata", "tifffile", "h5py", "safetensors.torch", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "scipy.sparse", "PIL.Image", "shapely", "skimage", "sklearn",
    "tests.fakes", "tests.section_files", "tests.cohort_files", "tests.tiny_weights", "lightning_fabric",
    "flag_training.stages.fit", "flag_training.evaluate", "flag_training.store.building",
    "flag_training.own_sections", "flag_training.result_tables", "napari_flag.api", "napari_flag.report.page",
    "napari_flag.analysis.compare", "napari_flag.exports.formats", "napari_flag.exports.spatial_data",
    "napari_flag.exports.ome_tiff", "napari_flag.exports.qupath", "napari_flag.prediction",
)  # fmt: skip
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree")
AFTER_S = 0.012
"""Most seconds after a change of the file system at which a run is killed."""
PATIENCE_S = 600.0
ENDS = ("kills", "before first write", "old or absent", "torn", "leftovers", "rerun failed", "not resumed")


@dataclass
class Counts:
    """What became of the kills of one command; `found` lists what must not be."""

    command: str
    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    found: list[str] = field(default_factory=list)

    def wrong(self, end: str, case: str, said: str) -> None:
        self.ends[end] += 1
        self.found.append(f"{self.command}, {case}: {end}: {said}")


@dataclass(frozen=True)
class Run:
    """A process that was forked for one command line."""

    process: int
    changes: int
    """File descriptor that can be read once the change was made at which to kill."""


def warm() -> None:
    """Import what the commands use, without starting a thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in IMPORTED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # or each process copies all of this when it searches for garbage


def start(work: Callable[[], int], folder: Path, at_change: int | None = None) -> Run:
    """Fork a process that does `work` in `folder`, its home and caches there too."""
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return Run(process, read)
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for name, place in (("XDG_CACHE_HOME", "cache"), ("XDG_DATA_HOME", "data"), ("TMPDIR", "tmp")):
            (folder / place).mkdir(exist_ok=True)
            os.environ[name] = str(folder / place)
        said = os.open(folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        counted = _counting(folder, write, at_change)
        code = work()
        os.write(write, f"{counted[0]}\n".encode())
    except BaseException:  # noqa: BLE001 - the process must end here
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _counting(folder: Path, write: int, at_change: int | None) -> list[int]:
    counted, within = [0], str(folder)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            flags = args[2] if len(args) > 2 and isinstance(args[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in CHANGES:
            return
        named = isinstance(args[0], str | bytes | os.PathLike)
        if not named or not os.path.abspath(os.fsdecode(args[0])).startswith(within):
            return
        counted[0] += 1
        if counted[0] == at_change:
            os.write(write, b"!")

    sys.addaudithook(hook)
    return counted


def end_of(run: Run) -> tuple[int, int]:
    """Wait for a run, and return its exit code and how many changes it made."""
    said = b""
    while part := os.read(run.changes, 4096):
        said += part
    os.close(run.changes)
    _, status = os.waitpid(run.process, 0)
    digits = said.replace(b"!", b"").strip()
    return os.waitstatus_to_exitcode(status), int(digits or 0)


def killed(run: Run, after_s: float, waits: bool) -> bool:
    """Kill a run and whatever it started; False where it had ended before."""
    if waits and os.read(run.changes, 1) != b"!":
        end_of(run)
        return False
    time.sleep(after_s)
    ended, _ = os.waitpid(run.process, os.WNOHANG)
    if ended:
        os.close(run.changes)
        return False
    os.killpg(run.process, signal.SIGKILL)
    os.waitpid(run.process, 0)
    os.close(run.changes)
    return True


def in_child(work: Callable[[], Any], folder: Path) -> Any:
    """Return what `work` returns (JSON), done in a process of its own: this one stays as it was forked."""
    place = folder / ".answer.json"

    def do() -> int:
        place.write_text(json.dumps(work()))
        return 0

    code, _ = end_of(start(do, folder))
    if code:
        raise RuntimeError((folder / "said.txt").read_text()[-3000:])
    answer = json.loads(place.read_text())
    place.unlink()
    return answer


def main_of(command: Command, *, debug: bool = True) -> Callable[[], int]:
    def work() -> int:
        from napari_flag.cli.main import main

        brief()
        sys.argv = ["napari-flag", *command.words]  # cards record it
        return main([*(["--debug"] if debug else []), *command.words])

    return work


def outputs(folder: Path) -> list[Path]:
    """Everything in the output and cache folders, a zarr as one."""
    found = []
    for place in (folder / OUT, folder / "cache"):
        for path in sorted(place.rglob("*")):
            within = path.relative_to(place).parts
            if not any(part.endswith(".zarr") for part in within[:-1]):
                found.append(path)
    return found


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in outputs(folder)}


def is_part(path: Path) -> bool:
    """Whether a name is that of something unfinished, which nobody takes for a result."""
    return any(part.startswith(".") for part in path.parts) or path.suffix in (
        ".part",
        ".partial",
        ".keeping",
    )


def faults(folder: Path) -> list[str]:
    """What is torn among the finished files of a case: unreadable, or a kept entry without its hash."""
    found = []
    for path in outputs(folder):
        within = path.relative_to(folder)
        if is_part(within) or (path.is_dir() and path.suffix != ".zarr"):
            continue
        if within.parts[0] == "cache" and "napari-flag" in within.parts and "-" in path.stem:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
            if path.stem.rpartition("-")[2] != digest:
                found.append(f"{within}: not the content it was kept with")
        elif said := used(path):
            found.append(f"{within}: {said}")
    return found


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in outputs(folder)
    }


@dataclass
class Clean:
    """A run that was left alone: what it leaves, how long it takes, how often it changes the disk."""

    folder: Path
    names: set[str]
    seconds: float
    changes: int
    numbers: dict[str, str]


def numbers(folder: Path) -> dict[str, str]:
    """A hash per weights file or table of features: what a run that went on must have come to, too."""
    from safetensors.numpy import load_file

    found = {}
    for path in outputs(folder):
        digest = hashlib.sha256()
        if is_part(path.relative_to(folder)):
            continue
        if path.suffix == ".safetensors":
            for name, tensor in sorted(load_file(path).items()):
                digest.update(name.encode() + tensor.tobytes())
        elif path.suffix in (".npy", ".npz"):
            digest.update(path.read_bytes())
        elif path.suffix == ".h5ad":
            import anndata

            digest.update(anndata.read_h5ad(path).to_df().to_numpy().tobytes())
        else:
            continue
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def left_alone(command: Command, folder: Path) -> Clean:
    """Make the inputs of a command and run it twice, the second time for how long it takes."""
    (folder / "in").mkdir(parents=True)

    def make() -> None:
        command.make(folder / "in")

    in_child(make, folder)
    seconds = 0.0
    for _ in range(2):
        for place in (OUT, "cache", "data"):
            shutil.rmtree(folder / place, ignore_errors=True)
        (folder / OUT).mkdir()
        began = time.monotonic()
        code, changes = end_of(start(main_of(command), folder))
        seconds = time.monotonic() - began
        if code:
            raise RuntimeError(
                f"{command.name} ended with {code}: {(folder / 'said.txt').read_text()[-3000:]}"
            )
    if wrong := in_child(lambda: faults(folder), folder):
        raise RuntimeError(f"{command.name} left alone: {wrong}")
    return Clean(folder, names(folder), seconds, changes, in_child(lambda: numbers(folder), folder))


def kill(command: Command, clean: Clean, folder: Path, number: int, seed: int, counts: Counts) -> None:
    """Kill one run at a moment drawn from seed and number, look at what it left, and run it again."""
    draw = random.Random(f"{seed} {command.name} {number}")
    case = f"seed {seed} case {number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.symlink(clean.folder / "in", folder / "in")
    final = {name for name in clean.names if name.startswith(f"{OUT}/") and name.count("/") == 1}
    has_old = draw.random() < 0.5
    (folder / OUT).mkdir()
    if has_old:
        for name in final:
            old = clean.folder / name
            if old.is_file():
                shutil.copy2(old, folder / name)
            elif old.suffix == ".zarr":
                shutil.copytree(old, folder / name)
    before = state(folder)
    at_change = draw.randrange(1, clean.changes + 1) if draw.random() < 0.5 and clean.changes else None
    run = start(main_of(command), folder, at_change)
    after_s = draw.uniform(0, clean.seconds) if at_change is None else draw.uniform(0, AFTER_S)
    if not killed(run, after_s, at_change is not None):
        return
    counts.ends["kills"] += 1
    (folder / "cache").mkdir(exist_ok=True)
    if state(folder) == before:
        counts.ends["before first write"] += 1
    lost = [name for name in before if not (folder / name).exists()]
    torn = in_child(lambda: faults(folder), folder)
    if torn or lost:
        counts.wrong("torn", case, "; ".join([*torn, *(f"{name} is gone" for name in lost)]))
    elif all((folder / name).exists() == (name in before) for name in final):
        counts.ends["old or absent"] += 1
    code, changes = end_of(start(main_of(command), folder))
    if code:
        counts.wrong("rerun failed", case, f"{code}: {(folder / 'said.txt').read_text()[-600:]}")
        return
    more = sorted(name for name in names(folder) - clean.names if ".previous." not in name)
    missing = sorted(name for name in clean.names - names(folder) if ".previous." not in name)
    if more or missing:
        counts.wrong("leftovers", case, f"more {more}, missing {missing}")
    elif (wrong := in_child(lambda: faults(folder), folder)) != []:
        counts.wrong("torn", case, f"after running again: {wrong}")
    elif command.resumes and (found := in_child(lambda: numbers(folder), folder)) != clean.numbers:
        differ = sorted(name for name in clean.numbers if clean.numbers[name] != found.get(name))
        counts.wrong("not resumed", case, f"other numbers in {differ}")
    _ = changes


def kill_often(
    command: Command, folder: Path, kills: int, seed: int, only: int | None = None, most: float = 1e9
) -> Counts:
    """Kill a command so many times, for so many seconds at most."""
    counts = Counts(command.name)
    clean = left_alone(command, folder / "clean")
    until, number = time.monotonic() + most, 0
    while only is None and counts.ends["kills"] < kills and time.monotonic() < until:
        kill(command, clean, folder / "case", number, seed, counts)
        number += 1
    if only is not None:
        kill(command, clean, folder / "case", only, seed, counts)
    return counts


def table_of(counts: Sequence[Counts]) -> str:
    """Return the counts as a table of Markdown, a row per command."""
    lines = ["| command | " + " | ".join(ENDS) + " |", "|---|" + "---:|" * len(ENDS)]
    lines += [f"| {c.command} | " + " | ".join(f"{c.ends[end]:,}" for end in ENDS) + " |" for c in counts]
    return "\n".join(lines)
