"""TIFF slides through tifffile and zarr: OME-TIFF, BigTIFF, pyramidal and plain TIFF."""

import itertools
import math
import re
import struct
import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tifffile
import zarr

from napari_flag.errors import UserError
from napari_flag.formatting import counted, counted_of, data_size, px, whole
from napari_flag.slides.formats import readers
from napari_flag.slides.formats.readers import (
    Alpha,
    PixelFormat,
    Size,
    UInt8Array,
    bands,
    damaged,
    refuse_too_large,
)
from napari_flag.slides.formats.stored_arrays import DAMAGED
from napari_flag.slides.formats.stored_tiles import StoredTiles, coded_size
from napari_flag.slides.resolution import MICRONS, UNKNOWN, Resolution, stated

FAULTS: Final = (*DAMAGED, tifffile.TiffFileError, ArithmeticError, struct.error)
"""What tifffile and zarr raise on a file that is not what it says."""
NOT_THE_SLIDE: Final = re.compile(r"label|macro|overview|thumbnail|barcode", re.IGNORECASE)
"""Names of images that show the glass and its label rather than the tissue."""
MOST_PAGES: Final = 20_000
"""Pages of one file; a Z stack of 50 planes with pyramids has 500."""
MOST_REPEATED: Final = 4
"""Places at which one stored tile may be used whatever it shows."""
PLAIN: Final = 48
"""Difference of the values of an empty tile, in 8 bits: glass with dust and the noise of JPEG."""
WITH_YCBCR: Final = (6, 7, 33003, 33004, 33005, 34712)
"""Compressions, of JPEG and JPEG 2000, that turn YCbCr into RGB when they decode."""
USUAL: Final = 0.999
"""Share of the values by which full intensity is found."""
SAMPLED: Final = 2**22
"""Values that are looked at for it."""
FLOATS: Final = 1.5
"""Largest usual value of a picture from 0 to 1, with what sharpening adds."""
_HEAD: Final = 2**14
"""Bytes in which a JPEG states its size."""
BLOCK_LIMIT: Final = 64 * 2**20
"""Bytes of one decoded strip up to which rows are read strip by strip."""


class TiffReader:
    """The largest image of a TIFF file and its pyramid."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # its OME-XML and the indexes of Micro-Manager may name other files, also elsewhere on this computer:
        # they are not read
        self._tiff = tifffile.TiffFile(path, _multifile=False, is_ndtiff=False, is_mmstack=False)
        try:
            self._open_levels()
        except BaseException:
            self._tiff.close()
            raise

    def _open_levels(self) -> None:
        _refuse_many_pages(self._tiff)
        _refuse_stated_planes(self._tiff)
        series, others = _main_series(self._tiff, self.path)
        _refuse_sizes(series)
        _refuse_foreign(self._tiff, series)
        _refuse_truncated(series, self.path)
        self.format, notices = _pixel_format(series, self.path)
        self._axes: str = series.axes
        same = [level for level in series.levels if level.axes == series.axes]
        self._keyframes = [level.keyframe for level in same]
        self.levels: tuple[Size, ...] = tuple(_size(level) for level in same)
        self._arrays = [self._array(series, i, level) for i, level in enumerate(same)]
        tiled = self._keyframes[0].is_tiled
        self.random_access: bool = tiled or isinstance(self._arrays[0], _Unpacked)
        found = _resolution(self._tiff, series)
        if self._tiff.is_ome and _names_other_files(self._tiff.ome_metadata or ""):
            notices.append("The file names others that belong to it; they are not read.")
        notices += _notices_of(self._keyframes[0], self._arrays[0])
        if others:
            notices.append(f"The file holds {others + 1} images; the largest is shown.")
        self.resolution = Resolution(found.mpp, found.source, (*found.notices, *notices))
        self.profile: bytes | None = self._keyframes[0].iccprofile
        self._whole: UInt8Array | None = None
        self._lock = threading.Lock()

    def _array(self, series: Any, i: int, level: Any) -> Any:
        keyframe = level.keyframe
        if keyframe.is_memmappable and level.dataoffset is not None:
            dtype = np.dtype(level.dtype).newbyteorder(self._tiff.byteorder)
            return _Unpacked(self.path, level.dataoffset, level.shape, dtype)
        white = int(self.format.white) if self.format.palette is None else 0
        fill = 0 if self.format.inverted else white
        as_page = (level.axes, tuple(level.shape)) == (keyframe.axes, keyframe.shape)  # OME may state others
        alone = len(level.pages) == 1 and series.transform is None
        if as_page and alone and StoredTiles.can_read(keyframe):
            return StoredTiles(self.path, keyframe, fill)
        _refuse_lying_strips(keyframe)
        return zarr.open_array(series.aszarr(level=i, fillvalue=fill), mode="r")

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return a window; an image without random access is decoded whole the first time."""
        if self.random_access or level:
            return self._window(x, y, width, height, level)
        with self._lock:
            if self._whole is None:
                refuse_too_large(self.path, self.memory_needed)
                self._whole = self._decode()
        return self._whole[y : y + height, x : x + width].copy()

    @property
    def memory_needed(self) -> int:
        """Bytes that decoding the whole image takes at its peak, where windows of it cannot be read.

        A strip is there unpacked, in its place among others, and as RGB; the rest is RGB.
        """
        width, height = self.levels[0]
        page = self._keyframes[0]
        stored = page.samplesperpixel * page.dtype.itemsize
        strip = width * min(height, page.rowsperstrip + readers.BAND // max(width, 1))
        return int(3 * (width * height - strip) + (2 * stored + 3) * strip + readers.OVERHEAD)

    def _decode(self) -> UInt8Array:
        """Return all of level 0, strip by strip."""
        width, height = self.levels[0]
        strip = self._keyframes[0].rowsperstrip
        if strip >= height:
            return self._window(0, 0, width, height, 0)
        whole = np.empty((height, width, 3), np.uint8)
        for rows in bands(height, width, least=strip):
            whole[rows] = self._window(0, rows.start, width, rows.stop - rows.start, 0)
        return whole

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows."""
        width = self.levels[0][0]
        keyframe = self._keyframes[0]
        strip = width * keyframe.rowsperstrip * 3 if not keyframe.is_tiled else 0
        if self._whole is None and (self.random_access or strip <= BLOCK_LIMIT):
            return self._window(0, y, width, height, 0)
        return self.read(0, y, width, height, 0)

    def _window(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        wanted = {"Y": slice(y, y + height), "X": slice(x, x + width)}
        every = slice(None)
        key = tuple(wanted.get(axis, every if axis in "SC" else 0) for axis in self._axes)
        try:
            stored = np.asarray(self._arrays[level][key])
            kept = [axis for axis in self._axes if axis in "YXSC"]
            return self.format.rgb(_last_channel(stored, kept))
        except FAULTS as error:
            raise damaged(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._whole = None
        for array in self._arrays:
            if isinstance(array, _Unpacked | StoredTiles):
                array.close()
        self._arrays = []
        self._tiff.close()


class _Unpacked:
    """An array that lies in a file as it is, read by windows.

    A file and no memory map: where it is cut short, or its drive goes away, reading a map ends the process.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self._offset = shape, dtype, offset
        self._stream = path.open("rb")
        self._lock = threading.Lock()

    def __getitem__(self, key: tuple[slice | int, ...]) -> npt.NDArray[Any]:
        # what is read at once: the last axes that are taken whole, and the one before them
        kept = [range(n)[k] for n, k in zip(self.shape, key, strict=True)]
        ranges = [k if isinstance(k, range) else range(k, k + 1) for k in kept]
        run = len(ranges) - 1
        while run and len(ranges[run]) == self.shape[run]:
            run -= 1
        strides = np.cumprod([1, *self.shape[:0:-1]])[::-1]
        count = len(ranges[run]) * int(strides[run])
        firsts = [r.start for r in ranges[run:]]
        begin = sum(int(f) * int(s) for f, s in zip(firsts, strides[run:], strict=True))
        found = np.empty((math.prod(len(r) for r in ranges[:run]), count), self.dtype)
        with self._lock:
            for row, place in zip(found, itertools.product(*ranges[:run]), strict=True):
                at = begin + sum(int(p) * int(s) for p, s in zip(place, strides, strict=False))
                self._stream.seek(self._offset + at * self.dtype.itemsize)
                if self._stream.readinto(row.data.cast("B")) < row.nbytes:
                    raise ValueError("the file has become shorter")
        return found.reshape([len(k) for k in kept if isinstance(k, range)])

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _refuse_many_pages(tiff: tifffile.TiffFile) -> None:
    """Raise a `ValueError` where there are more than `MOST_PAGES`; the others are not counted."""
    try:
        tiff.pages[MOST_PAGES]
    except IndexError:
        return
    raise ValueError(f"it holds more than {counted(MOST_PAGES, 'page')}")


def _notices_of(page: Any, array: Any) -> list[str]:
    """Return what the user must know of the tiles or strips of a page, and of how it is turned.

    Raises
    ------
    ValueError
        When most tiles are the same bytes and show something: empty ones alone may be stored once for all.
    """
    notices = []
    orientation = page.tags.get("Orientation")
    if orientation is not None and orientation.value not in (0, 1):
        notices.append(readers.TURNED)
    offsets, counts = (np.asarray(numbers, np.int64) for numbers in (page.dataoffsets, page.databytecounts))
    stored = (offsets[: len(counts)] > 0) & (counts[: len(offsets)] > 0)
    if empty := int((~stored).sum()):
        noun = "tile" if page.is_tiled else "strip"
        notices.append(f"{counted_of(empty, len(stored), noun)} are not stored and are shown as white.")
    if isinstance(array, StoredTiles):
        places = np.flatnonzero(stored)
        _, first, times = np.unique(offsets[places], return_index=True, return_counts=True)
        for i in np.flatnonzero(times >= MOST_REPEATED)[:MOST_REPEATED]:
            tile = array.tile(int(places[first[i]]))
            if (
                tile is not None
                and np.ptp(tile.reshape(-1, *tile.shape[2:]).astype(float), axis=0).max() > PLAIN
            ):
                what = f"{counted_of(int(times[i]), len(stored), 'tile')} are one and the same part of it"
                if 2 * times[i] > len(stored):
                    raise ValueError(what)
                notices.append(f"Of the slide, {what}, so it may be damaged; check it where tissue repeats.")
                break
    return notices


def _refuse_lying_strips(page: Any) -> None:
    """Raise a `ValueError` where a strip of JPEG says that it is larger than what is decoded at most."""
    if page.compression not in (6, 7, 33007):
        return
    stream = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        stream.seek(offset)
        sides = coded_size(stream.read(min(count, _HEAD)))
        if sides and 3 * sides[0] * sides[1] > readers.MOST_TILE:
            raise ValueError(f"a part of it says it has {px(sides)}")


def _last_channel(stored: npt.NDArray[Any], axes: list[str]) -> npt.NDArray[Any]:
    """Return `stored`, with `axes` out of Y, X, S, C, as (h, w) or (h, w, channels)."""
    order = [axes.index("Y"), axes.index("X")]
    order += [i for i, axis in enumerate(axes) if axis in "SC"]
    stored = stored.transpose(order)
    return stored.reshape(*stored.shape[:2], -1) if stored.ndim > 2 else stored


def _size(series: Any) -> Size:
    shape = dict(zip(series.axes, series.shape, strict=True))
    return shape["X"], shape["Y"]


def _main_series(tiff: tifffile.TiffFile, path: Path) -> tuple[Any, int]:
    """Return the series that shows the slide, and how many others look like slides too."""
    images = [s for s in tiff.series if "Y" in s.axes and "X" in s.axes and s.keyframe is not None]
    slides = [s for s in images if not NOT_THE_SLIDE.search(s.name or "")] or images
    if not slides:
        raise UserError(f"{path.name} is a TIFF file without an image in it; choose the slide itself.")
    main = max(slides, key=lambda s: _size(s)[0] * _size(s)[1])
    area = main.shape[main.axes.index("X")] * main.shape[main.axes.index("Y")]
    others = sum(4 * _size(s)[0] * _size(s)[1] >= area for s in slides) - 1
    return main, others


PLANES: Final = "XYCZT"
"""Axes of OME-XML; those beyond X and Y count planes."""


def _refuse_stated_planes(tiff: tifffile.TiffFile) -> None:
    """Raise a `ValueError` where OME-XML states more planes than a file can have.

    tifffile makes a list of as many pages, and of as many labels of an axis, before it looks for one.
    """
    try:
        root = ET.fromstring(tiff.ome_metadata or "") if tiff.is_ome else None
    except ET.ParseError:
        return
    planes = 0
    for element in () if root is None else root.iter():
        if element.tag.endswith("Pixels"):
            planes += _planes_of(element, tiff)
        elif element.tag[:-1].endswith("Along") and "Start" in element.attrib:
            first, last = float(element.attrib["Start"]), float(element.attrib["End"])
            labels = (last - first) / float(element.get("Step", 1))
            planes += int(abs(labels))
        if planes > MOST_PAGES:
            raise ValueError(
                f"its OME-XML states {counted(planes, 'plane')}, where up to {whole(MOST_PAGES)} are read"
            )


def _planes_of(pixels: "ET.Element", tiff: tifffile.TiffFile) -> int:
    """Return how many planes one image of OME-XML states, by its axes, its pixels or its lists of pages."""
    blocks = [child for child in pixels if child.tag.endswith("TiffData")]
    if not blocks:
        return 0
    order = pixels.get("DimensionOrder", "")
    if not order.startswith("XY") or sorted(order) != sorted(PLANES):
        raise ValueError("its OME-XML states axes in an order that OME does not know")
    x, y, channels, z, t = (abs(int(pixels.get(f"Size{axis}", 1))) for axis in PLANES)
    channel = next((child for child in pixels if child.tag.endswith("Channel")), None)
    samples = 1 if channel is None else max(int(channel.get("SamplesPerPixel", 1)), 1)
    listed, smallest = 0, x * y
    for first in {int(block.get("IFD", 0)) for block in blocks}:
        if not 0 <= first < len(tiff.pages):
            continue
        page = tiff.pages[first]
        smallest = min(smallest, math.prod(page.shape) or 1)
    for block in blocks:
        stated = int(block.get("PlaneCount", block.get("NumPlanes", 1 if "IFD" in block.attrib else 0)))
        listed += abs(stated) or len(tiff.pages)
    return max(z * t * max(channels // samples, 1), x * y * z * t * channels // max(smallest, 1), listed)


def _refuse_foreign(tiff: tifffile.TiffFile, series: Any) -> None:
    """Raise a `ValueError` where pages of an image lie in another file."""
    for level in series.levels:
        if any(page is not None and page.parent is not tiff for page in (*level.pages, level.keyframe)):
            raise ValueError("its pixels lie in another file, which is not read")


def _refuse_sizes(series: Any) -> None:
    """Raise a `ValueError` where what is stated of an image or its tiles cannot be so."""
    for level in series.levels:
        page = level.keyframe
        if not 0 < min(_size(level)) <= max(_size(level)) <= readers.MOST_SIDE:
            raise ValueError(f"an image of {px(_size(level))} is stated")
        tile = float(np.prod([float(side) for side in page.chunks])) * np.dtype(level.dtype).itemsize
        if page.is_tiled and not 0 < tile <= readers.MOST_TILE:
            raise ValueError(f"tiles of {data_size(tile)} are stated")
        sides = page.imagelength, page.imagewidth, page.tilelength, page.tilewidth, page.rowsperstrip
        stated = (sides, page.dataoffsets, page.databytecounts)
        if any(len(numbers) and np.asarray(numbers).dtype.kind not in "iu" for numbers in stated):
            raise ValueError("sizes or places are stated that are no whole numbers")


def _names_other_files(xml: str) -> bool:
    """Return whether OME-XML has planes, or all that it describes, in files other than its own."""
    own = re.search(r"<(?:\w+:)?OME\b[^>]*\bUUID=\"([^\"]*)\"", xml)
    named = set(re.findall(r"<(?:\w+:)?UUID\b[^>]*>([^<]*)<", xml)) - {own[1] if own else ""}
    return len(named) > (0 if own else 1) or "BinaryOnly" in xml


def _refuse_truncated(series: Any, path: Path) -> None:
    """Refuse a file that ends before its pixels do (a copy or download that was cut short)."""
    for level in series.levels:
        for page in level.pages:
            if page is None:
                continue
            ends = np.add(page.dataoffsets, page.databytecounts)
            if len(ends) and ends.max() > page.parent.filehandle.size:
                raise UserError(
                    f"{path.name} is cut short (pixels are expected up to byte {whole(ends.max())}, the "
                    f"file ends at {whole(page.parent.filehandle.size)}); copy or download it again."
                )


def _pixel_format(series: Any, path: Path) -> tuple[PixelFormat, list[str]]:
    """Return how the stored values of `series` become RGB, with what the user must know of it."""
    page, notices = series.keyframe, []
    shape = dict(zip(series.axes, series.shape, strict=True))
    extra = {a: n for a, n in shape.items() if a not in "YXSC" and n > 1}
    if extra:
        notices.append(
            f"The file is a stack ({', '.join(f'{n} along {a}' for a, n in extra.items())}); "
            "its first image is shown."
        )
    channels = shape.get("C", 1) * shape.get("S", 1)
    if channels not in (1, 2, 3, 4) or page.dtype is None:
        raise UserError(
            f"{path.name} has {channels} channels where an H&E slide has red, green and blue; "
            "export it as RGB."
        )
    photometric = int(page.photometric)
    if photometric not in (0, 1, 2, 3) and not (photometric == 6 and page.compression in WITH_YCBCR):
        raise UserError(
            f"{path.name} stores colours as {getattr(page.photometric, 'name', photometric)}, which is not "
            "read; export it as RGB."
        )
    if photometric == 3:
        return PixelFormat(palette=_palette(page, channels, path)), notices
    alpha: Alpha = "none"
    if page.extrasamples and page.extrasamples[-1] in (1, 2):
        alpha = "multiplied" if page.extrasamples[-1] == 1 else "plain"
    if channels in (2, 4) and alpha == "none":
        notices.append(
            f"The last of its {channels} channels, which it does not call transparency, is left out."
        )
    white, top = _white(series, path)
    beyond = ", the few beyond as white" if top > 1.5 * white else ""
    if beyond or (page.dtype != np.uint8 and white not in (65535.0, 1.0, 255.0)):
        notices.append(f"Stored values up to {whole(white)} are shown as 8-bit colours{beyond}.")
    return PixelFormat(white, photometric == 0, alpha=alpha), notices


def _palette(page: Any, channels: int, path: Path) -> UInt8Array:
    """Return the colours of a page's palette, of which there is one for each value that may be stored."""
    colours = page.colormap
    needed = 2 ** int(np.max(page.bitspersample))
    there = 0 if colours is None or colours.ndim != 2 or colours.dtype.kind != "u" else colours.shape[1]
    if channels != 1 or there < needed or page.dtype.kind != "u":
        raise UserError(
            f"{path.name} stores colours by a palette of {counted(there, 'colour')} in "
            f"{counted(channels, 'channel')}, where its values need {whole(needed)} in one; export it as RGB."
        )
    return np.ascontiguousarray((colours >> 8).astype(np.uint8).T)


def _white(series: Any, path: Path) -> tuple[float, float]:
    """Return the stored value of full intensity, 2^bits - 1 of the camera, and the largest value there is.

    By the top level, and by all but one in a thousand of its values: a camera has hot pixels.

    Raises
    ------
    UserError
        When values are negative: whether they wrapped around (245 stored as -11) or were shifted by
        half the range cannot be known, and each gives other colours.
    """
    dtype = np.dtype(series.dtype)
    if dtype == np.uint8:
        return 255.0, 255.0
    if dtype == np.bool_:
        return 1.0, 1.0
    smallest = series.levels[-1]
    usual = top = 0.0
    if np.prod(smallest.shape, dtype=float) * dtype.itemsize < 2**29:
        bottom, usual, top = _extremes(series)
        if dtype.kind == "i" and bottom < 0:
            raise UserError(
                f"{path.name} stores signed integers ({dtype}) with negative values, which are no "
                "colours of an H&E slide; export it as 8-bit RGB (uint8)."
            )
    if dtype.kind == "f" and usual <= FLOATS:
        return 1.0, top
    full = 16 if dtype.kind == "f" else 8 * dtype.itemsize - (dtype.kind == "i")  # a bit is the sign
    bits = (b for b in (8, 10, 12, 14, 16, 32) if b <= full)
    return float(next((2**b - 1 for b in bits if 0 < usual <= 2**b - 1), 2**full - 1)), top


def _extremes(series: Any) -> tuple[float, float, float]:
    """Return the smallest value of the smallest level, the one that 1 in 1,000 exceed, and the largest.

    Read a band at a time; values that are no numbers do not count.
    """
    level = series.levels[-1]
    stored = zarr.open_array(series.aszarr(level=len(series.levels) - 1), mode="r")
    width, height = _size(level)
    rows = bands(height, width, least=max(int(level.keyframe.rowsperstrip), 1))
    axis = level.axes.index("Y")
    step = max(int(np.prod(level.shape, dtype=float)) // SAMPLED, 1)
    step += step % 3 == 0  # of all channels
    low, high, some = np.inf, -np.inf, [np.zeros(0)]
    for band in rows:
        values = np.asarray(stored[(slice(None),) * axis + (band,)]).ravel()
        values = values[~np.isnan(values)] if values.dtype.kind == "f" else values
        if values.size:
            low, high = min(low, float(np.min(values))), max(high, float(np.max(values)))
            some.append(values[::step].astype(np.float64))
    found = np.concatenate(some)
    return low, float(np.quantile(found, USUAL, method="lower")) if len(found) else 0.0, high


def _resolution(tiff: tifffile.TiffFile, series: Any) -> Resolution:
    found = _ome_resolution(tiff, series) if tiff.is_ome else UNKNOWN
    if found.mpp is None and tiff.is_imagej:
        found = _imagej_resolution(tiff, series.keyframe)
    return found if found.mpp is not None or found.notices else _tag_resolution(series.keyframe)


def _ome_resolution(tiff: tifffile.TiffFile, series: Any) -> Resolution:
    try:
        root = ET.fromstring(tiff.ome_metadata or "")
    except ET.ParseError:
        return UNKNOWN
    pixels = [p for p in root.iter() if p.tag.rpartition("}")[2] == "Pixels"]
    width, height = _size(series)
    for p in pixels:
        if (p.get("SizeX"), p.get("SizeY")) != (str(width), str(height)):
            continue
        x = _length(p.attrib, "PhysicalSizeX")
        y = _length(p.attrib, "PhysicalSizeY") or x
        if x:
            return stated(x, y, "OME PhysicalSizeX")
    return UNKNOWN


def _length(attributes: Mapping[str, str], key: str) -> float:
    try:
        value = float(attributes.get(key, ""))
    except ValueError:
        return 0.0
    return value * MICRONS.get(attributes.get(key + "Unit", "µm").strip(), 0.0)


def _imagej_resolution(tiff: tifffile.TiffFile, page: Any) -> Resolution:
    unit = str((tiff.imagej_metadata or {}).get("unit", "")).strip()
    per_x, per_y = _per_unit(page, "XResolution"), _per_unit(page, "YResolution")
    micron = MICRONS.get(unit, 0.0)
    if not (micron and per_x):
        return UNKNOWN
    return stated(micron / per_x, micron / (per_y or per_x), f"ImageJ, {unit}")


def _tag_resolution(page: Any) -> Resolution:
    unit = page.tags.get("ResolutionUnit")
    micron = {2: 25400.0, 3: 1e4}.get(int(unit.value) if unit is not None else 2, 0.0)
    per_x, per_y = _per_unit(page, "XResolution"), _per_unit(page, "YResolution")
    if not (micron and per_x):
        return UNKNOWN
    return stated(micron / per_x, micron / (per_y or per_x), "TIFF XResolution")


def _per_unit(page: Any, name: str) -> float:
    """Return pixels per resolution unit, 0 where the tag is missing or malformed."""
    tag = page.tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or not tag.value[1]:
        return 0.0
    return float(tag.value[0] / tag.value[1])
