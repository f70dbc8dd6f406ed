"""Write simulated slides: the bundled one, or others to train and test on.

``python -m napari_flag.simulation`` remakes the bundled slide and its counts;
``python -m napari_flag.simulation --seeds 101-112 --out FOLDER`` writes ``sim101.tif``,
``sim101.h5ad`` and so on; with ``--genes 200`` they measure generated genes instead of the named ones.
"""

import argparse
import sys
from pathlib import Path

from napari_flag.formatting import data_size
from napari_flag.simulation.expression import generated_genes
from napari_flag.simulation.simulator import DEMO_SEED, NAME, simulate, write_simulated


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(
        prog="python -m napari_flag.simulation", description="Write synthetic H&E slides."
    )
    parser.add_argument("--seeds", metavar="A-B", help="first and last seed, both included")
    parser.add_argument("--out", type=Path, help="folder (default: the package's own data)")
    parser.add_argument("--genes", type=int, metavar="N", help="measure N generated genes")
    args = parser.parse_args()
    if args.seeds is None:
        if args.genes:
            parser.error("the bundled slide has the named genes; --genes needs --seeds and --out")
        slides = {NAME: DEMO_SEED}
    else:
        first, _, last = args.seeds.partition("-")
        if args.out is None or not first.isdigit() or not (last or first).isdigit():
            parser.error("--seeds takes numbers like 101-112 and needs --out FOLDER")
        slides = {f"sim{seed}": seed for seed in range(int(first), int(last or first) + 1)}
    folder = args.out or Path(__file__).parents[1] / "data"
    genes = generated_genes(args.genes) if args.genes else None
    for name, seed in slides.items():
        for path in write_simulated(folder, name, simulate(seed, genes=genes)):
            sys.stdout.write(f"{path} ({data_size(path.stat().st_size)})\n")


if __name__ == "__main__":
    main()
