"""Makers of slide files: small, with known pixels, in the formats of scanners and programs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from napari_flag.slides.formats.readers import Reader

UInt8Array = npt.NDArray[np.uint8]

LABEL_COLOUR = (0, 0, 255)
"""Pure blue of every label and macro image made here: no slide pixel may come out like it."""


def picture(width: int, height: int, seed: int = 0) -> UInt8Array:
    """Return (height, width, 3) uint8: smooth colour with a fine pattern, different everywhere."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    noise = np.random.default_rng(seed).integers(0, 12, (height, width, 1))
    red = 120 + 90 * x / width
    green = 60 + 90 * y / height
    blue = 150 + 40 * np.sin(x / 37) * np.cos(y / 53)
    return (np.stack([red, green, blue], axis=-1) + noise).astype(np.uint8)


def tissue_picture(width: int, height: int, box: tuple[int, int, int, int], seed: int = 0) -> UInt8Array:
    """Return glass with a textured violet rectangle, `box` = (left, top, right, bottom)."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (236, 230, 238), np.uint8)
    left, top, right, bottom = box
    coarse = rng.random(((bottom - top) // 12 + 1, (right - left) // 12 + 1))
    nuclei = np.kron(coarse, np.ones((12, 12)))[: bottom - top, : right - left, None]
    image[top:bottom, left:right] = np.where(nuclei > 0.5, (90, 60, 140), (205, 140, 190))
    noise = rng.integers(-2, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def halves(image: UInt8Array, times: int) -> list[UInt8Array]:
    """Return `image` and its 2×2 means, `times` of them."""
    levels = [image]
    for _ in range(times):
        last = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
        blocks = last.reshape(last.shape[0] // 2, 2, last.shape[1] // 2, 2, 3)
        levels.append(blocks.mean(axis=(1, 3)).round().astype(np.uint8))
    return levels


def label_image(width: int, height: int) -> UInt8Array:
    return np.full((height, width, 3), LABEL_COLOUR, np.uint8)


def aperio_svs(
    path: Path, image: UInt8Array, mpp: float = 0.5, profile: bytes | None = None, private: str = ""
) -> Path:
    """Write an Aperio-like SVS: tiled JPEG levels, thumbnail, a large label and a macro image.

    What is `private` stands where scanners write title, file name and user, and on label and macro.
    """
    owner = f"|Title = {private}|Filename = {private}|User = {private}" if private else ""
    levels = halves(image, 4)[::2]
    height, width = image.shape[:2]
    head = f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] (256x256)"
    options = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    options["compressionargs"] = {"level": 95}
    with tifffile.TiffWriter(path) as tiff:
        for i, level in enumerate(levels):
            described = f"{head} JPEG/RGB Q=95|AppMag = 20|MPP = {mpp}{owner}"
            tiff.write(level, tile=(256, 256), description=described, iccprofile=profile, **options)
            if i == 0:
                tiff.write(levels[-1], rowsperstrip=16, description=head, **options)
        for name in ("label", "macro"):
            described = f"Aperio Image Library v12.0.15\r\n{name} {width * 2}x{height * 2}{owner}"
            options["compression"], options["compressionargs"] = "lzw", None
            glass = label_image(width * 2, height * 2)
            tiff.write(glass, subfiletype=1, rowsperstrip=64, description=described, **options)
    return path


def pyramid_tiff(
    path: Path, image: UInt8Array, *, mpp: float | None = None, sub_images: bool = False
) -> Path:
    """Write a tiled pyramidal TIFF, its levels as further pages (libvips) or as sub-images."""
    resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp)}
    if resolution:
        resolution["resolutionunit"] = "CENTIMETER"
    options = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib", "metadata": None}
    levels = halves(image, 3)
    with tifffile.TiffWriter(path) as tiff:
        first = {"subifds": 3} if sub_images else {}
        tiff.write(levels[0], **first, **options, **resolution)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    return path


def ome_tiff(
    path: Path,
    image: npt.NDArray[np.generic],
    *,
    axes: str = "YXS",
    pyramid: bool = True,
    size: tuple[float, str] = (0.25, "µm"),
    with_label: bool = False,
    bigtiff: bool = False,
) -> Path:
    """Write an OME-TIFF; with a label image as its first series if asked."""
    with tifffile.TiffWriter(path, ome=True, bigtiff=bigtiff) as tiff:
        if with_label:
            label = label_image(3000, 2000)
            tiff.write(label, photometric="rgb", metadata={"axes": "YXS", "Name": "label image"})
        metadata = {"axes": axes, "Name": "slide"}
        metadata |= {f"PhysicalSize{a}": size[0] for a in "XY"}
        metadata |= {f"PhysicalSize{a}Unit": size[1] for a in "XY"}
        levels = halves(image, 2) if pyramid else [image]  # type: ignore[arg-type]
        photometric = "rgb" if axes.endswith("S") else "minisblack"
        options = {"photometric": photometric, "tile": (128, 128)}
        tiff.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    return path


def plain_tiff(path: Path, image: npt.NDArray[np.generic], **options: object) -> Path:
    """Write a TIFF without pyramid, in strips, as the images that come with Visium data."""
    settings: dict[str, object] = {"photometric": "rgb", "rowsperstrip": 32, "metadata": None}
    tifffile.imwrite(path, image, **(settings | options))
    return path


def plain_image(path: Path, image: npt.NDArray[np.generic], **options: object) -> Path:
    """Write a JPEG, PNG, ... by the path's ending."""
    from PIL import Image

    Image.fromarray(image).save(path, **options)
    return path


def dicom_slide(path: Path, image: UInt8Array, mpp: float = 0.5, tile: int = 128) -> Path:
    """Write one level of a DICOM whole-slide image (VL WSI, TILED_FULL, JPEG tiles)."""
    import imagecodecs
    from pydicom.encaps import encapsulate

    height, width = image.shape[:2]
    down, across = -(-height // tile), -(-width // tile)
    missing = ((0, down * tile - height), (0, across * tile - width), (0, 0))
    padded = np.pad(image, missing, mode="edge")
    frames = [
        imagecodecs.jpeg8_encode(
            np.ascontiguousarray(padded[y : y + tile, x : x + tile]), level=95, subsampling="444"
        )
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]
    data = _dicom_header(image, mpp, tile)
    data.NumberOfFrames = len(frames)
    data.PixelData = encapsulate(frames)
    data["PixelData"].VR = "OB"
    data.save_as(path, enforce_file_format=True)
    return path


def _dicom_header(image: UInt8Array, mpp: float, tile: int) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    data.StudyInstanceUID = data.SeriesInstanceUID = data.FrameOfReferenceUID = generate_uid()
    data.Modality, data.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.DimensionOrganizationType = "TILED_FULL"
    data.Rows = data.Columns = tile
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = image.shape[:2]
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    data.SamplesPerPixel, data.PlanarConfiguration = 3, 0
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.LossyImageCompression = "01"
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    measures.SliceThickness = 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    optical = Dataset()
    optical.OpticalPathIdentifier = "1"
    data.OpticalPathSequence = [optical]
    return data


class CountedReader:
    """A reader that counts the pixels it is asked for."""

    def __init__(self, reader: Reader) -> None:
        self.inner, self.pixels = reader, 0
        self.levels, self.resolution = reader.levels, reader.resolution
        self.random_access = True

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        self.pixels += width * height
        return self.inner.read(x, y, width, height, level)

    def rows(self, y: int, height: int) -> UInt8Array:
        return self.inner.rows(y, height)

    def close(self) -> None:
        self.inner.close()
