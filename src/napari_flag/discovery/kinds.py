"""What a file is, by its name and header."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from napari_flag import prediction_file
from napari_flag.errors import UserError
from napari_flag.files import ending, is_zipped
from napari_flag.slides.formats import fast_slide, in_situ, space_ranger
from napari_flag.slides.formats.counts import is_10x_h5, is_mex
from napari_flag.slides.formats.readers import Size, opened_image
from napari_flag.slides.formats.stored_arrays import DAMAGED, opened_h5
from napari_flag.slides.spot_tables import COUNT_ENDINGS, TEXT
from napari_flag.workspace_file import is_workspace

VENDOR_ENDINGS: Final = (
    ".svs",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".bif",
    ".vms",
    ".vmu",
    ".svslide",
    *fast_slide.ENDINGS,
)
"""Endings only slides have."""
PICTURE_ENDINGS: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""Endings of pictures that may be slides; of two alike the first named is taken."""
REGION_ENDINGS: Final = (".geojson", ".json")
"""Endings of regions; a workspace ends in the latter too."""
ENDINGS: Final = (
    *VENDOR_ENDINGS,
    ".dcm",
    *PICTURE_ENDINGS,
    *COUNT_ENDINGS,
    *REGION_ENDINGS,
)
"""Endings of everything that `kind_of` knows."""
SLIDE_SIDE_PX: Final = 2000
"""An RGB picture this long may be a slide; smaller ones are left to napari's own readers."""
FEWEST_GENES: Final = 10
"""Columns of whole numbers from which a table without positions is taken for counts."""
HEAD_BYTES: Final = 1 << 20
"""Read of a text table or a JSON file: the header of a count table is some hundred kilobytes."""
NO_SLIDE: Final = frozenset(
    {"mask", "masks", "thumb", "thumbnail", "overview", "label", "macro", "preview"}
    | {"hires", "lowres", "fiducials", "cytassist"}
)
"""Words in the name of a picture that was made from a slide, or beside it; not taken from a folder."""
DERIVED: Final = ("detected_tissue_image", "aligned_tissue_image")
"""Further pictures of Space Ranger, without such a word."""

Kind: TypeAlias = Literal["slide", "prediction", "annotated", "spots", "counts", "regions", "workspace", ""]


def kind_of(path: Path) -> Kind:
    """Return what a file is, by name and header; "" for what cannot be opened.

    "annotated" is an h5ad of another program, "prediction" one of ours.
    """
    end = ending(path)
    if not path.is_file() and not path.is_dir():
        return ""  # a pipe or a device may have no end
    try:
        if end == ".h5ad":
            return _kind_of_h5ad(path)
        if end == ".geojson":
            return "regions"
        if end == ".json":
            return "workspace" if is_workspace(path) else "regions" if _is_geojson(path) else ""
        if path.name in space_ranger.POSITIONS:
            return "spots"
        if is_mex(path) or _is_of_run(path):
            return "counts"
        if end in TEXT:
            return _kind_of_text(path)
        if end == ".h5":
            with opened_h5(path) as file:
                return "counts" if is_10x_h5(file) else ""
    except DAMAGED:
        return ""
    return "slide" if looks_like_slide(path) else ""


def looks_like_slide(path: Path) -> bool:
    """Return whether `path` may be a slide: by its ending a scanner's, by its header a large RGB picture."""
    if ending(path) in VENDOR_ENDINGS:
        return True
    if ending(path) == ".dcm":
        return is_dicom_slide(path)
    size = rgb_size(path)
    return size is not None and max(size) >= SLIDE_SIDE_PX


def rgb_size(path: Path) -> Size | None:
    """Return (width, height) of an 8-bit RGB picture from its header; None for any other file."""
    try:
        return _rgb_size(path)
    except _UNREADABLE:
        return None


def is_unreadable(path: Path) -> bool:
    """Return whether a file is called a picture (`PICTURE_ENDINGS`) and its header cannot be read."""
    try:
        _rgb_size(path)
    except _UNREADABLE:
        return True
    return False


_UNREADABLE: Final = (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError)
"""What Pillow and tifffile raise of files that are no pictures, or damaged."""


def _rgb_size(path: Path) -> Size | None:
    match ending(path):
        case ".tif" | ".tiff":
            return _rgb_tiff(path)
        case ".jpg" | ".jpeg" | ".png":
            with opened_image(path) as picture:  # reads the header only
                return picture.size if picture.mode in ("RGB", "RGBA", "CMYK") else None
    return None


def _rgb_tiff(path: Path) -> Size | None:
    import tifffile

    from napari_flag.slides.formats.tiff import FAULTS

    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            rgb = getattr(page, "samplesperpixel", 0) in (3, 4) and page.dtype == "uint8"
            return (int(page.imagewidth), int(page.imagelength)) if rgb else None
    except FAULTS as error:
        raise ValueError(str(error)) from error


def is_dicom_slide(path: Path) -> bool:
    """Return whether a DICOM file is of a whole-slide image."""
    import openslide

    try:
        return openslide.OpenSlide.detect_format(path) == "dicom"
    except OSError:
        return False


def size_of(path: Path) -> Size | None:
    """Return (width, height) of a slide of any format; None for what cannot be opened."""
    from napari_flag.slides.formats.opening import open_reader

    try:
        reader = open_reader(path)
    except UserError:
        return None
    size = reader.levels[0]
    reader.close()
    return size


def _groups(path: Path) -> frozenset[str]:
    """Return the names at the root of an HDF5 file."""
    with opened_h5(path) as file:
        return frozenset(file)


def _kind_of_h5ad(path: Path) -> Kind:
    if prediction_file.is_prediction(path):
        return "prediction"
    return "annotated" if {"obs", "var"} <= _groups(path) else ""


def _is_of_run(path: Path) -> bool:
    """Return whether a path is a Xenium or CosMx run, or its transcripts or cells."""
    try:
        return in_situ.find_run(path) is not None
    except UserError:  # of several sections, which is said when it is read
        return True


def _is_geojson(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    return b'"coordinates"' in head or b'"FeatureCollection"' in head


def _kind_of_text(path: Path) -> Kind:
    """Return what a table is, from its header and first row."""
    from napari_flag.slides.formats.text_tables import column_names, holds_positions

    header, row = _first_lines(path)
    if holds_positions(column_names(header)):
        return "spots"
    numbers = [cell.strip() for cell in row[1:]]
    try:
        whole = all(float(cell) >= 0 and float(cell).is_integer() for cell in numbers)
    except ValueError:
        return ""
    return "counts" if whole and len(numbers) >= FEWEST_GENES else ""


def _first_lines(path: Path) -> tuple[list[str], list[str]]:
    """Return the cells of the first two lines of a text table, also of a gzipped one."""
    import gzip
    import zlib

    from napari_flag.slides.formats.text_tables import separator_of

    opener = gzip.open if is_zipped(path) else open
    try:
        with opener(path, "rb") as stream:
            lines = [bytes(stream.readline(HEAD_BYTES)) for _ in range(2)]
    except (EOFError, zlib.error):
        return [], []
    separator = separator_of(lines[0])
    header, row = (line.decode("utf-8-sig", "replace").strip("\r\n").split(separator) for line in lines)
    return header, row


def is_derived(path: Path) -> bool:
    """Return whether a picture's name says that it was made from a slide: a mask, a thumbnail."""
    stem = path.stem.lower()
    words = stem.replace("-", "_").replace(".", "_").replace(" ", "_").split("_")
    return stem in DERIVED or not NO_SLIDE.isdisjoint(words)
