"""A pyramidal BigTIFF of any size, made in seconds: a picture repeated over an ellipse of tissue on glass.

Tiles are JPEG, as scanners write them, and every tile that has the same pixels is stored once: the places of
tiles in a TIFF are a list, in which one may stand many times.  100,000 × 80,000 px so take a few MB on disk.
Reading and decoding a tile costs what it costs in a scan; only the disk has less to do, since all of the file
stays in the operating system's cache.

    python -m benchmarks.large_slide slide.tif --width 100000 --height 80000 --mpp 0.25
"""

import argparse
import struct
from pathlib import Path
from typing import BinaryIO, Final

import imagecodecs
import numpy as np
import numpy.typing as npt

from napari_flag.simulation import demo_slide
from napari_flag.slides.formats.readers import mirrored
from napari_flag.slides.slide import open_slide

UInt8Array = npt.NDArray[np.uint8]

TILE: Final = 256
DOWNSAMPLES: Final = (1, 4, 16, 64)
PERIOD: Final = 4096
"""Level-0 pixels after which the picture repeats: a whole number of tiles, or of pixels, at every level."""
CELL: Final = 1024
"""Side in level-0 pixels of the squares that the outline of the tissue is made of."""
GLASS: Final = (243, 243, 245)
QUALITY: Final = 80
_SHORT, _LONG, _RATIONAL, _LONG8 = 3, 4, 5, 16
_FORMATS: Final = {_SHORT: "H", _LONG: "I", _RATIONAL: "II", _LONG8: "Q"}
_SUB_IMAGES: Final = 330


def write_large_slide(path: Path, width: int, height: int, mpp: float) -> Path:
    """Write a slide of `width` × `height` pixels at `mpp` µm/px, and return its path.

    Tissue is an ellipse that touches the four sides, in steps of `CELL` pixels; around it is bare glass.
    """
    pictures, tissue = _pictures(), _ellipse(width, height)
    with path.open("wb") as stream:
        stream.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
        places = [_write_tiles(stream, pictures[d], tissue, _level(width, height, d), d) for d in DOWNSAMPLES]
        lower: list[int] = []
        for d, tiles in reversed(list(zip(DOWNSAMPLES, places, strict=True))):
            _align(stream)
            entries = _entries(_level(width, height, d), tiles, mpp, d)
            if d == 1:
                entries[_SUB_IMAGES] = (_LONG8, lower[::-1])
            lower.append(_write_directory(stream, entries))
        stream.seek(8)
        stream.write(struct.pack("<Q", lower[-1]))
    return path


def _level(width: int, height: int, downsample: int) -> tuple[int, int]:
    return -(-width // downsample), -(-height // downsample)


def _pictures() -> dict[int, UInt8Array]:
    """Return by downsample the picture that is repeated: the middle of the bundled slide, mirrored."""
    with open_slide(demo_slide()) as slide:
        side = PERIOD // 2
        left, top = ((size - side) // 2 for size in slide.size)
        picture = slide.read_region(left, top, side, side)
    whole = mirrored(0, PERIOD, side)
    picture = picture[np.ix_(whole, whole)]
    found = {}
    for d in DOWNSAMPLES:
        blocks = picture.reshape(PERIOD // d, d, PERIOD // d, d, 3)
        found[d] = blocks.mean((1, 3)).round().astype(np.uint8)
    return found


def _ellipse(width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return which squares of `CELL` pixels are tissue: (rows, columns)."""
    y, x = ((np.arange(-(-size // CELL)) + 0.5) * CELL / size * 2 - 1 for size in (height, width))
    inside: npt.NDArray[np.bool_] = (y**2)[:, None] + (x**2)[None] <= 1
    return inside


def _write_tiles(
    stream: BinaryIO,
    picture: UInt8Array,
    tissue: npt.NDArray[np.bool_],
    size: tuple[int, int],
    downsample: int,
) -> npt.NDArray[np.uint64]:
    """Write the different tiles of a level; return (tiles, 2) offset and number of bytes of each."""
    columns, rows = (-(-side // TILE) for side in size)
    step = min(TILE, CELL // downsample)
    written: dict[tuple[int, int, bytes], tuple[int, int]] = {}
    places = np.empty((rows * columns, 2), np.uint64)
    for place in range(rows * columns):
        top, left = (TILE * at for at in divmod(place, columns))
        coarse = _stained(tissue, top, left, downsample, step)
        key = top % len(picture), left % len(picture), coarse.tobytes()
        if not coarse.any():
            key = -1, -1, b""
        if key not in written:
            stained = _stained(tissue, top, left, downsample, 1)
            seen = np.ix_(*((np.arange(TILE) + at) % len(picture) for at in (top, left)))
            pixels = np.where(stained[..., None], picture[seen], np.uint8(GLASS))
            stored = imagecodecs.jpeg8_encode(pixels, QUALITY, subsampling="422")
            written[key] = stream.tell(), len(stored)
            stream.write(stored)
        places[place] = written[key]
    return places


def _stained(
    tissue: npt.NDArray[np.bool_], top: int, left: int, downsample: int, step: int
) -> npt.NDArray[np.bool_]:
    """Return which pixels of a tile, every `step`-th, are tissue."""
    pixels = np.arange(0, TILE, step)
    cells = (
        np.minimum((at + pixels) * downsample // CELL, side - 1)
        for at, side in zip((top, left), tissue.shape, strict=True)
    )
    return tissue[np.ix_(*cells)]


def _entries(
    size: tuple[int, int], tiles: npt.NDArray[np.uint64], mpp: float, downsample: int
) -> dict[int, tuple[int, list[int]]]:
    """Return the tags of a level: type and values by number."""
    per_cm = [round(1e7 / (mpp * downsample)), 1000]
    return {
        254: (_LONG, [int(downsample > 1)]),  # a reduced image
        256: (_LONG, [size[0]]),
        257: (_LONG, [size[1]]),
        258: (_SHORT, [8, 8, 8]),
        259: (_SHORT, [7]),  # JPEG
        262: (_SHORT, [6]),  # YCbCr
        277: (_SHORT, [3]),
        282: (_RATIONAL, per_cm),
        283: (_RATIONAL, per_cm),
        284: (_SHORT, [1]),
        296: (_SHORT, [3]),  # centimetres
        322: (_LONG, [TILE]),
        323: (_LONG, [TILE]),
        324: (_LONG8, tiles[:, 0].tolist()),
        325: (_LONG, tiles[:, 1].tolist()),
        530: (_SHORT, [2, 1]),
    }


def _write_directory(stream: BinaryIO, entries: dict[int, tuple[int, list[int]]]) -> int:
    """Write the long values of a level, then its directory; return where that is."""
    fields = []
    for tag, (kind, values) in sorted(entries.items()):
        form = _FORMATS[kind]
        count = len(values) // len(form)
        stored = struct.pack(f"<{form[0] * len(values)}", *values)
        if len(stored) > 8:
            place = stream.tell()
            stream.write(stored)
            _align(stream)
            stored = struct.pack("<Q", place)
        fields.append(struct.pack("<HHQ8s", tag, kind, count, stored))
    place = stream.tell()
    stream.write(struct.pack("<Q", len(fields)) + b"".join(fields) + struct.pack("<Q", 0))
    return place


def _align(stream: BinaryIO) -> None:
    stream.write(b"\0" * (-stream.tell() % 8))


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--height", type=int, default=80_000)
    parser.add_argument("--mpp", type=float, default=0.25)
    args = parser.parse_args()
    write_large_slide(args.path, args.width, args.height, args.mpp)


if __name__ == "__main__":
    main()
