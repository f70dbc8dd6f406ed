"""What does a scan of 100,000 × 80,000 px with 50,000 spots take?  Opened, masked, read and encoded.

The scan is made by `benchmarks.large_slide`.  Opening is what the window does; tissue and spots are those of
``napari-flag predict`` without a table; tiles are read and encoded as by a prediction, of so many spots near
the middle of the slide.  Memory is that of the process, what belongs to no file apart.

    python -m benchmarks.large_scan --encoded 2000 --write
    python -m benchmarks.growth --spots 50000 --mpp 1 --made-up --silent     # the rest of such a prediction
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.growth import RESULTS, Memory
from benchmarks.large_slide import write_large_slide
from benchmarks.tables import machine, write_between

from napari_flag.formatting import counted_of, px, whole
from napari_flag.progress import finish

SPACING_UM: Final = 93.0
"""Of a hexagonal grid that has 50,000 spots on the ellipse of tissue."""
PARTS: Final = 4
"""Into which the encoded spots are divided, to see whether memory grows."""


def scan(args: argparse.Namespace, path: Path) -> list[tuple[str, str, float, float, float]]:
    """Return of each step: what, of what, seconds, processor seconds, and its peak of memory in MB."""
    import torch

    from napari_flag.encoders.features import _by_place, extract_features
    from napari_flag.inputs import Grid, lay_grid, open_with_pyramid
    from napari_flag.model.checkpoint import Checkpoint, find_weights
    from napari_flag.slides.slide import napari_levels
    from napari_flag.slides.tissue import find_tissue

    torch.set_num_threads(1)
    memory = Memory()
    found: list[tuple[str, str, float, float, float]] = []

    def timed(name: str, of: str, work: Callable[[], Any]) -> Any:
        memory.stage = f"{len(found)} {name}"
        began, used = time.perf_counter(), time.process_time()
        result = work()
        spent = time.perf_counter() - began, time.process_time() - used
        memory.look()
        found.append((name, of, *spent, memory.peaks[memory.stage]))
        return result

    size = px((args.width, args.height))
    timed("write the scan", size, lambda: write_large_slide(path, args.width, args.height, args.mpp))
    timed("load libraries and weights", "", lambda: Checkpoint.load(find_weights("her2st")))
    slide = timed("open it as the window does", size, lambda: finish(open_with_pyramid(path)))
    levels = napari_levels(slide)
    places = [tuple(side // 2 for side in level.shape[:2]) for level in levels]
    views = [(slice(y, y + 800), slice(x, x + 1200)) for y, x in places]
    show = lambda: [level[view].shape for level, view in zip(levels, views, strict=True)]  # noqa: E731
    timed("show 1,200 × 800 px of each level", f"{len(levels)} levels", show)
    timed("find tissue", size, lambda: find_tissue(slide))
    table = timed("lay spots", size, lambda: finish(lay_grid(slide, Grid(SPACING_UM, 55.0, "hex"))))
    xy = table.spots.xy
    encoder = Checkpoint.load(find_weights("her2st")).build_encoder(torch.device("cpu"))
    middle = xy[np.argsort(np.abs(xy[:, 1] - slide.size[1] / 2), kind="stable")]
    order = middle[: args.encoded][_by_place(middle[: args.encoded], 600 * encoder.mpp / args.mpp)]
    for part in np.array_split(order, PARTS):
        timed(
            "read and encode",
            counted_of(len(part), len(xy), "spot"),
            lambda part=part: finish(
                extract_features(
                    slide,
                    part,
                    encoder,
                    encoder_hash="",
                    device=torch.device("cpu"),
                    cache=path.parent / "features",
                )
            ),
        )
    each = sum(row[3] for row in found[-PARTS:]) / len(order)
    sys.stderr.write(f"{1e3 * each:.1f} ms of processor a spot: {each * len(xy) / 60:.0f} min for all\n")
    slide.close()
    return found


def main() -> None:
    """Print the table, and write it into the results if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--height", type=int, default=80_000)
    parser.add_argument("--mpp", type=float, default=0.25)
    parser.add_argument("--encoded", type=int, default=2000, help="spots read and encoded")
    parser.add_argument("--write", action="store_true", help="write the table into docs/results/growth.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = scan(args, Path(folder) / "scan.tif")
    lines = ["| step | of | s | processor s | of it no file, MB |", "|---|---|---:|---:|---:|"]
    lines += [f"| {what} | {of} | {s:.2f} | {cpu:.2f} | {whole(mb)} |" for what, of, s, cpu, mb in found]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    command = " ".join(["python -m benchmarks.large_scan", *sys.argv[1:]])
    text = f"`{command}`; {machine(1)}; peak of all memory {whole(peak)} MB.\n\n" + "\n".join(lines)
    sys.stdout.write(text + "\n")
    if args.write:
        write_between("scan", text, RESULTS)


if __name__ == "__main__":
    main()
