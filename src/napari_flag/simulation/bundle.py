"""The synthetic slide that comes with the package, and how it was made.

Remake both files with ``python -m napari_flag.simulation``.  The pixels and counts are those
of the seed, the bytes may differ between versions of the JPEG and HDF5 libraries.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from napari_flag.errors import UserError
from napari_flag.simulation.simulator import Simulated

DEMO_SEED = 15
"""Seed of the bundled slide.  The demo weights are trained on others."""
NAME = "demo_slide"
TILE_PX = 256
JPEG_QUALITY = 76
SMALLEST_PX = 512


def demo_slide() -> Path:
    """Return the path of the bundled slide, a tiled pyramidal TIFF."""
    return _bundled(f"{NAME}.tif")


def demo_table() -> Path:
    """Return the path of the bundled slide's spots and raw counts, h5ad."""
    return _bundled(f"{NAME}.h5ad")


def _bundled(name: str) -> Path:
    path = Path(str(files("napari_flag").joinpath("data", name)))
    if not path.is_file():
        raise UserError(
            f"The demo file {name} is missing from this installation ({path.parent}); reinstall "
            "napari-flag, or make it with: python -m napari_flag.simulation"
        )
    return path


def write_slide(path: Path, image: npt.NDArray[np.uint8], mpp: float) -> None:
    """Write a tiled pyramidal TIFF, JPEG-compressed, µm/px in its resolution tags.

    Parameters
    ----------
    path
        The file, overwritten.
    image
        uint8 (height, width, 3).
    mpp
        µm per pixel.
    """
    levels = [image]
    while max(levels[-1].shape[:2]) > SMALLEST_PX:
        last = levels[-1]
        half = Image.fromarray(last).resize((last.shape[1] // 2, last.shape[0] // 2), Image.Resampling.BOX)
        levels.append(np.asarray(half))
    with tifffile.TiffWriter(path) as tif:
        for k, level in enumerate(levels):
            per_cm = 1e4 / (mpp * image.shape[1] / level.shape[1])
            tif.write(
                level,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=0 if k == 0 else 1,
                description="napari-flag synthetic H&E, no patient" if k == 0 else None,
                metadata=None,
                software="napari-flag simulator",
            )


def write_simulated(folder: Path, name: str, simulated: Simulated) -> tuple[Path, Path]:
    """Write ``name.tif`` and ``name.h5ad`` of a simulated slide into `folder`; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    slide, table = folder / f"{name}.tif", folder / f"{name}.h5ad"
    write_slide(slide, simulated.image, simulated.mpp)
    counts = simulated.counts.copy()
    for layer in list(counts.layers):
        counts.layers[layer] = counts.layers[layer].round(2)
    counts.write_h5ad(table, compression="gzip")
    return slide, table
