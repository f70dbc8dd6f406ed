"""Which reader opens a file: decided by what is in it, not by its ending."""

from pathlib import Path
from typing import Final

from napari_flag.errors import UserError
from napari_flag.files import ending, files_ending, refuse_missing, refuse_special
from napari_flag.slides.formats.readers import ImageReader, OpenSlideReader, Reader

TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of classic TIFF and BigTIFF, little and big endian."""
MOST_OPENED: Final = 64
"""Files of a DICOM folder that are opened to see whether they are of one slide; most slides have ten."""
KNOWN: Final = "SVS, TIFF, OME-TIFF, NDPI, SCN, MRXS, BIF, DICOM, JPEG or PNG"


def open_reader(path: Path) -> Reader:
    """Return a reader of the main image of `path`.

    OpenSlide reads the vendors' formats, tifffile every other TIFF (OpenSlide's "generic-tiff"
    would miss pyramids in sub-images and take other series of an OME-TIFF for levels), Pillow
    plain images, SpatialData the images of its zarrs (``STORE.zarr/images/NAME``), fastslide what
    OpenSlide lacks.
    """
    import openslide

    from napari_flag.slides.formats import fast_slide, spatial_data

    if spatial_data.is_store(path):
        path = spatial_data.choose(path).image
    if spatial_data.element_of(path, spatial_data.IMAGES) is not None:
        return spatial_data.StoreImageReader(path)
    path = _file(path)
    # the vendor's library looks into every DICOM file of the folder
    for file in files_ending(path.parent, ".dcm") if ending(path) == ".dcm" else (path,):
        refuse_special(file)
    if ending(path) in fast_slide.ENDINGS:
        return fast_slide.FastSlideReader(path)
    try:
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor not in (None, "generic-tiff"):
            return OpenSlideReader(openslide.OpenSlide(path), path)
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise UserError(
            f"{path} could not be read ({error.strerror or error}); check that you may open it."
        ) from error
    except openslide.OpenSlideError as error:
        raise UserError(
            f"{path.name} looks like a slide of {vendor} but could not be opened ({error}), so it "
            "is damaged or incomplete; copy it again with all files that belong to it."
        ) from error
    if not head:
        raise UserError(f"{path.name} is an empty file; copy or export it again.")
    return open_tiff(path) if head[:4] in TIFF_MAGIC else _image(path)


def _file(path: Path) -> Path:
    """Return the file to open; of a DICOM folder, which may hold one slide, its first file."""
    if path.is_dir():
        files = files_ending(path, ".dcm")
        if not files:
            raise UserError(
                f"{path} is a folder without DICOM files (*.dcm), not a slide; choose the slide file in it."
            )
        for file in files:
            refuse_special(file)
        _refuse_several_slides(path, files)
        return files[0]
    refuse_missing(path)
    return path


def _refuse_several_slides(folder: Path, files: list[Path]) -> None:
    """Refuse a folder whose DICOM files are of several slides: a series is all files of one."""
    import openslide

    first: dict[str, Path] = {}
    for file in files[:MOST_OPENED]:
        try:
            with openslide.OpenSlide(file) as slide:
                series = slide.properties.get("dicom.SeriesInstanceUID")
        except (openslide.OpenSlideError, OSError):
            continue  # a label alone, or another kind of DICOM
        if series:
            first.setdefault(series, file)
        if len(first) > 1:
            one, other = (found.name for found in first.values())
            raise UserError(
                f"{folder} holds DICOM files of several slides (such as {one} and {other}), so it is not "
                "clear which is meant; choose one of these files."
            )


def open_tiff(path: Path) -> Reader:
    """Return a reader of a TIFF file; whatever is wrong with it is a `UserError`."""
    from napari_flag.slides.formats.tiff import FAULTS, TiffReader

    try:
        return TiffReader(path)
    except FAULTS as error:
        raise UserError(
            f"{path.name} begins as a TIFF file but could not be opened ({error}), so it is "
            "damaged or incomplete; copy or export it again."
        ) from error


def _image(path: Path) -> Reader:
    from PIL import UnidentifiedImageError

    try:
        return ImageReader(path)
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path.name} is not an image napari-flag can read; choose a slide as {KNOWN}."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"{path.name} could not be opened ({error}), so it is damaged or incomplete; copy or "
            "export it again."
        ) from error
