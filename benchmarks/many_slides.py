"""A cohort on Dask with one and two processes, a killed worker, a corrupt slide and a resumed run.

    python -m benchmarks.many_slides --out docs/results/many_slides.md

Small simulated slides are predicted by ``napari-flag predict --manifest`` with the demo's weights, each run
with a cache of its own and one thread per process.  A run is compared with that of one process by a hash of
each prediction: names, X, draws, standard deviation and provenance.
"""

import argparse
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import psutil

from napari_flag import keys
from napari_flag.cli.many_slides import REPORT_FILE
from napari_flag.formatting import duration, whole
from napari_flag.prediction_file import read_prediction
from napari_flag.simulation import simulate
from napari_flag.simulation.simulator import write_simulated

SLIDES: Final = 50
SIZE_PX: Final = 800
"""Side of a slide at .7 µm per pixel: about 25 spots of a Visium array."""
FIRST_SEED: Final = 500
LOOK_EVERY_S: Final = 0.05
HEADING: Final = "| run | s | s a slide | written | kept | failed | exit code | same files | lines twice |"
ONE_THREAD: Final = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run: its name, seconds, exit code, report and the hash of each prediction."""

    name: str
    seconds: float
    code: int
    report: pd.DataFrame
    hashes: dict[str, str]

    def row(self, reference: "Run") -> str:
        """Return the row of the table, compared with `reference`."""
        number = self.report["status"].value_counts()
        counts = " | ".join(str(number.get(status, 0)) for status in ("written", "kept", "failed"))
        spent = self.seconds / max(int(number.get("written", 0)), 1)
        same = sum(self.hashes[name] == reference.hashes[name] for name in self.hashes)
        twice = int(self.report["name"].duplicated().sum())
        return (
            f"| {self.name} | {whole(self.seconds)} | {spent:.1f} | {counts} | {self.code} | "
            f"{same} of {len(self.hashes)} | {twice} |"
        )


def main() -> None:
    """Make the cohort, run it in every way, and write the table."""
    parser = argparse.ArgumentParser(description="Predict a simulated cohort on one and two processes.")
    parser.add_argument("--slides", type=int, default=SLIDES, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, default=SIZE_PX, help="side in px (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="Markdown; printed only, when not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spots = make_cohort(folder / "slides", args.slides, args.size)
        rows = [HEADING, "|" + "---|" * HEADING.count(" |")]
        reference = None
        for made in all_runs(folder):
            reference = reference or made
            rows.append(made.row(reference))
            print(rows[-1], flush=True)
    words = " ".join(["python", "benchmarks/many_slides.py", *sys.argv[1:]])
    text = (
        f"{args.slides} simulated slides of {args.size} × {args.size} px with {spots} spots in all, weights "
        f"`demo`, one thread per process; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, distributed "
        f"{version('distributed')}. Command: `{words}`.\n\n" + "\n".join(rows) + "\n"
    )
    print(text)
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")


def make_cohort(folder: Path, slides: int, size: int) -> int:
    """Write slides, their spots, and the list of them; return the number of spots."""
    folder.mkdir()
    lines, spots = ["name,image,spots"], 0
    for number in range(slides):
        made = simulate(FIRST_SEED + number, size_px=size)
        spots += len(made.spots)
        image, table = write_simulated(folder, f"S{number:02d}", made)
        lines.append(f"S{number:02d},{image.name},{table.name}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return spots


def all_runs(folder: Path) -> Iterator[Run]:
    """Yield the runs, the reference first."""
    yield run(folder, "1 process", "one", "local:1")
    yield run(folder, "2 processes", "two", "local:2")
    with corrupt(folder / "slides" / "S07.tif"):
        yield run(
            folder, "2 processes, one killed in mid-run, S07 corrupt", "faults", "local:2", kill_a_worker
        )
    yield run(folder, "the same again, S07 mended", "faults", "local:2")
    yield run(folder, "2 processes, the command killed at half", "resumed", "local:2", kill_at_half)
    yield run(folder, "the same again", "resumed", "local:2")


def run(
    folder: Path,
    name: str,
    out: str,
    cluster: str | None,
    meanwhile: "Callable[[subprocess.Popen[bytes], Path], None] | None" = None,
) -> Run:
    """Run the command in a process of its own, and do something meanwhile."""
    place = folder / out
    words = [sys.executable, "-m", "napari_flag", "predict", "--manifest", str(folder / "slides/slides.csv")]
    words += ["--weights", "demo", "--out", str(place), "--draws", "2", "--device", "cpu"]
    words += [] if cluster is None else ["--cluster", cluster]
    place.mkdir(exist_ok=True)
    env = os.environ | ONE_THREAD | {"XDG_CACHE_HOME": str(folder / f"cache_{out}")}
    started = time.perf_counter()
    with subprocess.Popen(words, env=env) as process:
        if meanwhile is not None:
            threading.Thread(target=meanwhile, args=(process, place), daemon=True).start()
        code = process.wait()
    seconds = time.perf_counter() - started
    hashes = {path.stem: hash_of(path) for path in sorted(place.glob("S*.h5ad"))}
    left = [path.name for path in place.iterdir() if path.name.startswith(".")]
    sys.stderr.write(
        f"{name}: {duration(seconds)}, exit code {code}, {len(hashes)} predictions, left over: {left}\n"
    )
    return Run(name, seconds, code, pd.read_csv(place / REPORT_FILE), hashes)


def kill_a_worker(command: "subprocess.Popen[bytes]", place: Path) -> None:
    """Kill one of the processes that predict, once a fifth of the slides are there."""
    wait_for(place, 0.2)
    for process in psutil.Process(command.pid).children(recursive=True):
        if any("spawn_main" in word for word in process.cmdline()):
            process.send_signal(signal.SIGKILL)
            return


def kill_at_half(command: "subprocess.Popen[bytes]", place: Path) -> None:
    """Kill the command itself; its workers end with it."""
    wait_for(place, 0.5)
    command.kill()


def wait_for(place: Path, share: float) -> None:
    """Wait until so many of the slides have their predictions."""
    listed = len(list((place.parent / "slides").glob("*.tif")))
    while len(list(place.glob("S*.h5ad"))) < share * listed:
        time.sleep(LOOK_EVERY_S)


@contextmanager
def corrupt(path: Path) -> Iterator[None]:
    """Cut a file off for a while; size and time are as before afterwards."""
    kept = path.with_suffix(".whole")
    shutil.copy2(path, kept)
    path.write_bytes(path.read_bytes()[:5000])
    try:
        yield
    finally:
        os.replace(kept, path)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of all that a prediction says."""
    adata = read_prediction(path)
    digest = hashlib.sha256(repr([*adata.obs_names, *adata.var_names]).encode())
    for name in sorted(adata.layers):
        digest.update(np.ascontiguousarray(adata.layers[name]).tobytes())
    digest.update(np.ascontiguousarray(adata.X).tobytes())
    digest.update(repr(sorted((k, str(v)) for k, v in adata.uns[keys.PROVENANCE].items())).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
