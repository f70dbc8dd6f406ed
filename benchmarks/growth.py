r"""How do time and memory of a prediction grow with the spots?  Linear and flat is what is wanted.

One draw and the expectation on a synthetic slide: the bundled one, repeated, with spots at the array pitch of
the weights.  Every size is a process of its own with an empty cache; its peak memory is that of the process.
With ``--without-encoder`` features are made up, which leaves everything else as it is: for large sizes on
machines where encoding them would take hours.

    python -m benchmarks.growth --spots 200 1000 5000 20000 --write
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.tables import machine, write_between

from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.prediction import predict_slide
from napari_flag.progress import finish
from napari_flag.simulation import demo_slide
from napari_flag.slides.formats.readers import mirrored
from napari_flag.slides.resolution import UNKNOWN
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.spots import Spots

HERE: Final = Path(__file__).resolve().parents[1]


class Mosaic:
    """A picture repeated, mirrored at its borders, as a slide of any size (a `readers.Reader`)."""

    random_access: Final = True
    resolution = UNKNOWN
    profile = None

    def __init__(self, picture: npt.NDArray[np.uint8], width: int, height: int) -> None:
        self.picture = picture
        self.levels = tuple((-(-width // by), -(-height // by)) for by in (1, 4, 16, 64))

    def read(self, x: int, y: int, width: int, height: int, level: int) -> npt.NDArray[np.uint8]:
        """Return a window of a level: every n-th pixel."""
        by = 4**level
        rows = mirrored(0, (y + height) * by, self.picture.shape[0])[y * by :: by]
        columns = mirrored(0, (x + width) * by, self.picture.shape[1])[x * by :: by]
        return self.picture[np.ix_(rows, columns)]

    def rows(self, y: int, height: int) -> npt.NDArray[np.uint8]:
        """Return full-width rows of level 0."""
        return self.read(0, y, self.levels[0][0], height, 0)

    def close(self) -> None:
        """Nothing to close."""


class MadeUp:
    """An encoder that looks at no tile (a `registry.Encoder`): features are like the training slides'."""

    name, fingerprint = "made up", ""
    tile_px = 8

    def __init__(self, checkpoint: Checkpoint, mpp: float) -> None:
        self.mpp = mpp
        (self.mean,) = (t.numpy() for n, t in checkpoint.tensors.items() if n.endswith("feature_mean"))
        (self.spread,) = (t.numpy() for n, t in checkpoint.tensors.items() if n.endswith("feature_spread"))
        self.dim = len(self.mean)
        self.random = np.random.default_rng(0)

    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return (b, dim) features."""
        noise = self.random.normal(size=(len(tiles), self.dim))
        return (self.mean + self.spread * noise).astype(np.float32)


def predict(args: argparse.Namespace, spots: int) -> dict[str, float]:
    """Predict so many spots; return seconds, processor seconds and the peak of memory in MB."""
    import resource

    checkpoint = Checkpoint.load(find_weights(args.weights))
    array, mpp = checkpoint.card["array"], checkpoint.card["um_per_px"]
    with open_slide(demo_slide()) as bundled:
        picture = np.asarray(bundled.read_region(0, 0, *bundled.size))
    side = int(np.ceil(np.sqrt(spots)))
    pitch = array["pitch_um"] / mpp
    rows, columns = np.divmod(np.arange(spots), side)
    size = int((side + 1) * pitch)
    slide = Slide(Path("synthetic"), mpp, "set by hand", Mosaic(picture, size, size))
    placed = Spots(
        ids=tuple(f"{row}x{column}" for row, column in zip(rows, columns, strict=True)),
        xy=np.stack([columns, rows], 1) * pitch + pitch,
        diameter_um=array["diameter_um"],
        pitch_um=array["pitch_um"],
        lattice="square",
        array=np.stack([rows, columns], 1),
    )
    made_up = patch.object(Checkpoint, "build_encoder", lambda self, device: MadeUp(self, mpp))
    stages: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = predict_slide(
            slide, placed, checkpoint, draws=1, steps=args.steps, device="cpu", cache=Path(folder)
        )
        began, used = time.perf_counter(), time.process_time()
        if args.without_encoder:
            with made_up:
                finish(work, lambda step: stages.setdefault(step.stage, time.process_time() - used))
        else:
            finish(work, lambda step: stages.setdefault(step.stage, time.process_time() - used))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    sys.stderr.write(f"{spots}: stages begin at {stages}\n")
    return {"s": time.perf_counter() - began, "cpu_s": time.process_time() - used, "peak_mb": peak}


def main() -> None:
    """Print the table, and write it into the README if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spots", type=int, nargs="+", default=[200, 1000, 5000, 20000])
    parser.add_argument("--weights", default="her2st")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--without-encoder", action="store_true", help="make features up")
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        sys.stdout.write(json.dumps(predict(args, args.only)))
        return
    found: list[dict[str, Any]] = []
    for spots in args.spots:
        command = [sys.executable, "-m", "benchmarks.growth", *sys.argv[1:], "--only", str(spots)]
        said = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True).stdout
        found.append({"spots": spots} | json.loads(said))
    lines = ["| spots | s | processor s | processor ms a spot | peak MB |", "|---:|---:|---:|---:|---:|"]
    for row in found:
        each = 1e3 * row["cpu_s"] / row["spots"]
        lines.append(
            f"| {row['spots']:,} | {row['s']:.0f} | {row['cpu_s']:.1f} | {each:.1f} | {row['peak_mb']:,.0f} |"
        )
    text = f"`python -m benchmarks.growth {' '.join(sys.argv[1:])}`; {machine(args.threads)}.\n\n"
    text += "\n".join(lines)
    sys.stdout.write(text + "\n")
    if args.write:
        write_between("growth", text)


if __name__ == "__main__":
    main()
