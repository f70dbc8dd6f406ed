r"""How do time and memory of a prediction grow with the spots?  Linear and flat is what is wanted.

A whole ``napari-flag predict``, from file to file: one draw and the expectation of spots at the array pitch
of the weights, on a pyramidal slide made here (`benchmarks.large_slide`).  Every size is a process of its own
with an empty cache; its times and its peak of memory are those of the process, the start of Python included.

With ``--made-up`` features are drawn at random and with ``--silent`` the gene transformer is not asked, which
leaves the rest as it is: for sizes at which encoding and denoising would take hours.  ``--genes`` takes
untrained weights of so many genes.

    python -m benchmarks.growth --spots 200 1000 5000 --threads 2 --write whole
    python -m benchmarks.growth --spots 50000 --mpp 1 --made-up --silent --write made-up
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from benchmarks.large_slide import write_large_slide
from benchmarks.tables import machine, write_between

from napari_flag.formatting import counted, whole

HERE: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = HERE / "docs" / "results" / "growth.md"
PITCH_UM: Final = 200.0
LOOK_EVERY_S: Final = 0.02


class MadeUp:
    """An encoder that looks at no tile (a `registry.Encoder`): features are like the training slides'."""

    name, weights, fingerprint = "made up", "", ""
    tile_px = 8

    def __init__(self, checkpoint: Any, mpp: float) -> None:
        self.mpp = mpp
        (self.mean,) = (t.numpy() for n, t in checkpoint.tensors.items() if n.endswith("feature_mean"))
        (self.spread,) = (t.numpy() for n, t in checkpoint.tensors.items() if n.endswith("feature_spread"))
        self.dim = len(self.mean)
        self.random = np.random.default_rng(0)

    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return (b, dim) features."""
        noise = self.random.normal(size=(len(tiles), self.dim))
        return (self.mean + self.spread * noise).astype(np.float32)


class Memory:
    """The memory of this process that is no part of a file, watched by a thread; peaks in MB by stage."""

    def __init__(self) -> None:
        self.stage = "Starting"
        self.peaks: dict[str, float] = {}
        threading.Thread(target=self._watch, daemon=True).start()

    def look(self) -> None:
        """Keep what is taken now."""
        status = Path("/proc/self/status").read_text("ascii")
        taken = int(status.partition("RssAnon:")[2].split()[0]) / 1e3
        self.peaks[self.stage] = max(self.peaks.get(self.stage, 0.0), taken)

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(LOOK_EVERY_S)


def write_spots(path: Path, spots: int, mpp: float) -> int:
    """Write the table of a square array of so many spots; return the side of a slide that holds them."""
    pitch, side = PITCH_UM / mpp, int(np.ceil(np.sqrt(spots)))
    rows, columns = np.divmod(np.arange(spots), side)
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y"]
    for row, column in zip(rows, columns, strict=True):
        place = f"{(column + 1) * pitch:.1f}\t{(row + 1) * pitch:.1f}"
        lines.append(f"{column}\t{row}\t{column}\t{row}\t{place}")
    path.write_text("\n".join(lines) + "\n", "ascii")
    return int((side + 1) * pitch)


def write_untrained(path: Path, genes: int) -> None:
    """Write weights of so many genes that nobody trained, of the sizes that the shipped ones have."""
    import torch

    from napari_flag.encoders.embedded import DIM, TileNet
    from napari_flag.model.checkpoint import save_checkpoint
    from napari_flag.model.config import FlagConfig
    from napari_flag.model.flag import Flag

    torch.manual_seed(0)
    network = Flag(FlagConfig(features=DIM, genes=genes, slides=5, members=4, landmarks=1000)).eval()
    torch.nn.init.normal_(network.get_buffer("axes"), std=DIM**-0.5)
    network.get_buffer("slide_location").fill_(2.0)
    network.get_buffer("spread").fill_(0.4)
    card = {"array": {"pitch_um": PITCH_UM, "diameter_um": 100.0}, "um_per_px": 0.683}
    names = tuple(f"GENE{number}" for number in range(genes))
    save_checkpoint(path, network, TileNet().state_dict(), encoder="embedded", genes=names, card=card)


def predict(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Predict as the command does; return its stages: processor seconds, and peaks of memory."""
    memory = Memory()
    import torch

    from napari_flag.cli.main import build_parser
    from napari_flag.cli.one_slide import predicting
    from napari_flag.methods.flag import FlagPredictor, FlagSlide
    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.progress import finish

    torch.set_num_threads(args.threads)
    weights = str(folder / "untrained.safetensors") if args.genes else args.weights
    words = ["predict", str(folder / "slide.tif"), "--spots", str(folder / "spots.tsv"), "--device", "cpu"]
    words += ["--weights", weights, "--draws", str(args.draws), "--out", str(folder / "out.h5ad")]
    asked = build_parser().parse_args(words)
    encode = FlagPredictor.encode
    seconds: dict[str, float] = {}
    last = time.process_time()

    def stepped(step: Any) -> None:
        nonlocal last
        now = time.process_time()
        seconds[memory.stage] = seconds.get(memory.stage, 0.0) + now - last
        memory.look()
        last, memory.stage = now, step.stage

    def silenced(self: FlagPredictor, *given: Any) -> FlagSlide:
        return encode(self, *given).silenced()

    with ExitStack() as changes:
        if args.made_up:
            made_up = patch.object(Checkpoint, "build_encoder", lambda self, device: MadeUp(self, args.mpp))
            changes.enter_context(made_up)
        if args.silent:
            changes.enter_context(patch.object(FlagPredictor, "encode", silenced))
        finish(predicting(asked), stepped)
    seconds[memory.stage] = seconds.get(memory.stage, 0.0) + time.process_time() - last
    memory.look()
    return {"seconds": seconds, "peaks": memory.peaks, "file_mb": (folder / "out.h5ad").stat().st_size / 1e6}


def measured(args: argparse.Namespace, spots: int) -> dict[str, Any]:
    """Predict so many spots in a process of its own; return what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        side = write_spots(folder / "spots.tsv", spots, args.mpp)
        write_large_slide(folder / "slide.tif", side, side, args.mpp)
        if args.genes:
            write_untrained(folder / "untrained.safetensors", args.genes)
        command = [sys.executable, "-m", "benchmarks.growth", *sys.argv[1:], "--only", name]
        threads = {f"{library}_NUM_THREADS": str(args.threads) for library in ("OMP", "OPENBLAS", "MKL")}
        # threads that wait for each other sleep: on a busy machine they would count as work
        env = os.environ | threads | {"OMP_WAIT_POLICY": "passive", "XDG_CACHE_HOME": name}
        began = time.perf_counter()
        with subprocess.Popen(command, cwd=HERE, env=env, stdout=subprocess.PIPE, text=True) as process:
            said = process.stdout.read() if process.stdout else ""
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{counted(spots, 'spot')} ended with {process.returncode}")
        return {
            "spots": spots,
            "s": time.perf_counter() - began,
            "cpu_s": used.ru_utime + used.ru_stime,
            "peak_mb": used.ru_maxrss / 1e3,
        } | json.loads(said)


def table(found: list[dict[str, Any]]) -> str:
    """Return both tables as Markdown: the whole, and stage by stage."""
    stages = [stage for stage in found[-1]["peaks"] if stage in found[-1]["seconds"]]
    lines = [
        "| spots | s | processor s | processor ms a spot | peak, MB | of it no file, MB | result, MB |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        each, own = 1e3 * row["cpu_s"] / row["spots"], max(row["peaks"].values())
        lines.append(
            f"| {whole(row['spots'])} | {whole(row['s'])} | {whole(row['cpu_s'])} | {each:.1f} | "
            f"{whole(row['peak_mb'])} | {whole(own)} | {whole(row['file_mb'])} |"
        )
    lines += ["", "Processor seconds of each stage, its peak without a file behind it (MB):", ""]
    lines += ["| stage | " + " | ".join(f"{whole(row['spots'])} spots" for row in found) + " |"]
    lines += ["|---|" + "---:|" * len(found)]
    for stage in stages:
        cells = [
            f"{row['seconds'].get(stage, 0):.1f} s, {whole(row['peaks'].get(stage, 0))}" for row in found
        ]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and write them into the results if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spots", type=int, nargs="+", default=[200, 1000, 5000, 20000])
    parser.add_argument("--weights", default="her2st")
    parser.add_argument("--genes", type=int, help="take untrained weights of so many genes")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--mpp", type=float, default=0.5, help="µm per pixel of the slide (%(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--made-up", action="store_true", help="make features up")
    parser.add_argument("--silent", action="store_true", help="draw without the gene transformer")
    parser.add_argument("--write", metavar="NAME", help="write the tables into docs/results/growth.md")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only is not None:
        sys.stdout.write(json.dumps(predict(args, args.only)))
        return
    found = []
    for spots in args.spots:
        found.append(measured(args, spots))
        sys.stderr.write(json.dumps(found[-1]) + "\n")
    found.sort(key=lambda row: int(row["spots"]))
    command = f"python -m benchmarks.growth {' '.join(sys.argv[1:])}"
    text = f"`{command}`; {machine(args.threads)}.\n\n{table(found)}"
    sys.stdout.write(text + "\n")
    if args.write:
        write_between(args.write, text, RESULTS)


if __name__ == "__main__":
    main()
