"""Remake the bundled slide: ``python -m napari_flag.simulation [FOLDER]``."""

import sys
from pathlib import Path

from napari_flag.simulation.bundle import DEMO_SEED, write_bundle
from napari_flag.simulation.simulator import simulate

if __name__ == "__main__":
    package_data = Path(__file__).parents[1] / "data"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else package_data
    for path in write_bundle(folder, simulate(DEMO_SEED)):
        sys.stdout.write(f"{path} ({path.stat().st_size / 1e6:.2f} MB)\n")
