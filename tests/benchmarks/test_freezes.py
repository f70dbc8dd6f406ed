"""The first opening of the FLAG area is measured with its imports, which a person's first click pays for."""

import subprocess
import sys
from pathlib import Path

from benchmarks.freezes import FLOOR_PX

from napari_flag.layers.raster import LONGEST_PX

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_that_the_area_needs_is_imported_before_it_is_opened():
    code = (
        "import sys, benchmarks.freezes;"
        "heavy = ('napari_flag.gui.', 'napari_flag.layers', 'napari_flag.analysis', 'scipy', 'anndata');"
        "print(sorted(name for name in sys.modules if name.startswith(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    light = ["napari_flag.gui.controls", "napari_flag.gui.controls.gl_context"]
    assert done.stdout.splitlines()[-1] == str(light)


def test_napari_alone_is_given_pictures_as_large_as_the_maps():
    assert FLOOR_PX == LONGEST_PX
