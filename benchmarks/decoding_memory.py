"""Peak memory of decoding a slide against what was estimated before: peak <= estimate for every kind of file.

python -m benchmarks.decoding_memory [--megapixels 24] [--kinds "JPEG" "PNG, RGBA"]

Each file is opened and read in a process of its own, whose peak of resident memory (Linux) is counted from
the moment before it is opened.  Files of tiles have no estimate: windows of them are read.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

READ = """
import json, sys
from pathlib import Path
import numpy, psutil, tifffile, zarr
from PIL import Image
from napari_flag.slides.formats import opening

def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

path, small = map(Path, sys.argv[1:])
for place in (small, path):  # the small one imports and warms what the large one needs
    Path("/proc/self/clear_refs").write_text("5")
    before = megabytes("VmRSS")
    reader = opening.open_reader(place)
    x, y = (side // 2 for side in reader.levels[0])
    reader.read(x, y, 64, 64, 0)
    need = getattr(reader, "memory_needed", 0) if not reader.random_access else 0
    found = {"estimate": need / 2**20, "peak": megabytes("VmHWM") - before}
    reader.close()
print(json.dumps(found))
"""


def picture(megapixels: float) -> np.ndarray:
    """Return uint8 (h, w, 3): smooth colours with noise, as hard to compress as tissue."""
    height = round(math.sqrt(megapixels * 1e6 / 1.25))
    width = round(1.25 * height)
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:height, :width]
    shade = (128 + 60 * np.sin(x / 90) * np.cos(y / 70)).astype(np.int16)[..., None]
    noise = rng.integers(-20, 20, (height, width, 1), dtype=np.int16)
    return np.clip(shade + np.array([40, -30, 30], np.int16) + noise, 0, 255).astype(np.uint8)


def _alpha(image: np.ndarray) -> np.ndarray:
    return np.dstack([image, np.where(image[..., :1] > 60, 255, 128).astype(np.uint8)])


def _pil(*changes: str, **options: object) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, image: np.ndarray) -> None:
        made = Image.fromarray(_alpha(image) if "alpha" in changes else image)
        made = made.convert(next((c for c in changes if c != "alpha"), made.mode))
        made.save(path, **options)

    return write


def _grey16(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(path)


def _tiff(change: Callable[[np.ndarray], np.ndarray] = lambda image: image, **options: object) -> Callable:
    def write(path: Path, image: np.ndarray) -> None:
        rows = {"rowsperstrip": len(image)} if options.get("whole") else {}
        written = {key: value for key, value in options.items() if key != "whole"}
        tifffile.imwrite(path, change(image), photometric="rgb", **written, **rows)

    return write


def _planes(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _sixteen(image: np.ndarray) -> np.ndarray:
    return image.astype(np.uint16) * 257


def _floating(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _pyramid(path: Path, image: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2, 4, 8):
            level = np.ascontiguousarray(image[::step, ::step])
            file.write(
                level, tile=(256, 256), compression="deflate", photometric="rgb", subfiletype=int(step > 1)
            )


KINDS: dict[str, tuple[str, Callable[[Path, np.ndarray], None]]] = {
    "JPEG": ("jpg", _pil(quality=90)),
    "JPEG, progressive": ("jpg", _pil(quality=90, progressive=True)),
    "JPEG, grey": ("jpg", _pil("L", quality=90)),
    "PNG": ("png", _pil(compress_level=1)),
    "PNG, RGBA": ("png", _pil("alpha", compress_level=1)),
    "PNG, palette": ("png", _pil("P", compress_level=1)),
    "PNG, 16 bit grey": ("png", _grey16),
    "BMP": ("bmp", _pil()),
    "WebP": ("webp", _pil(quality=80, method=0)),
    "JPEG 2000": ("jp2", _pil()),
    "TIFF, strips": ("tif", _tiff(compression="deflate", rowsperstrip=64)),
    "TIFF, one strip": ("tif", _tiff(compression="deflate", whole=True)),
    "TIFF, RGBA strips": ("tif", _tiff(_alpha, compression="deflate", rowsperstrip=64)),
    "TIFF, 16 bit strips": ("tif", _tiff(_sixteen, compression="deflate", rowsperstrip=64)),
    "TIFF, 16 bit, one strip": ("tif", _tiff(_sixteen, compression="deflate", whole=True)),
    "TIFF, float strips": ("tif", _tiff(_floating, compression="deflate", rowsperstrip=64)),
    "TIFF, float, one strip": ("tif", _tiff(_floating, compression="deflate", whole=True)),
    "TIFF, planes": ("tif", _tiff(_planes, compression="deflate", planarconfig="separate", rowsperstrip=64)),
    "TIFF, unpacked": ("tif", _tiff()),
    "TIFF, tiles": ("tif", _tiff(compression="deflate", tile=(256, 256))),
    "TIFF, tiled pyramid": ("tif", _pyramid),
}


def measure(kind: str, image: np.ndarray, folder: Path) -> dict[str, float]:
    """Return estimate and peak in MB of reading `image` as a file of `kind`."""
    ending, write = KINDS[kind]
    paths = [folder / f"large.{ending}", folder / f"small.{ending}"]
    for path, made in zip(paths, (image, image[:300, :400]), strict=True):
        write(path, np.ascontiguousarray(made))
    ran = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(ran.stdout)
    for path in paths:
        path.unlink()
    return found


def main() -> int:
    """Print a table, and return 1 where a peak is above its estimate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megapixels", type=float, default=24.0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()
    image, above = picture(args.megapixels), 0
    write = sys.stdout.write
    write(f"{args.megapixels:g} megapixels, {image.nbytes / 2**20:.0f} MB as RGB\n\n")
    write("| file | estimate MB | peak MB | peak / estimate |\n|---|---:|---:|---:|\n")
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.kinds:
            found = measure(kind, image, Path(folder))
            need = found["estimate"]
            shown = f"{need:.0f}" if need else "windows"
            share = f"{found['peak'] / need:.2f}" if need else ""
            above += bool(need) and found["peak"] > need
            write(f"| {kind} | {shown} | {found['peak']:.0f} | {share} |\n")
            sys.stdout.flush()
    return min(above, 1)


if __name__ == "__main__":
    raise SystemExit(main())
