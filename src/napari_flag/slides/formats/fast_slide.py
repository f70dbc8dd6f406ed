"""Formats that OpenSlide lacks, read by fastslide, an extra: Zeiss CZI, Philips iSyntax, Olympus VSI."""

from pathlib import Path
from typing import Final

import numpy as np

from napari_flag.errors import UserError
from napari_flag.slides.formats.readers import PixelFormat, Size, UInt8Array, damaged
from napari_flag.slides.resolution import Resolution, stated

ENDINGS: Final = (".czi", ".isyntax", ".i2syntax", ".vsi")
FAULTS: Final = (ValueError, RuntimeError, OSError)
"""What fastslide raises for a file it cannot open or read."""


class FastSlideReader:
    """The largest image of a slide of any format fastslide knows.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    UserError
        When fastslide is not installed, the file is damaged, or it is no H&E of three channels.
    """

    random_access: Final = True
    profile: bytes | None = None

    def __init__(self, path: Path) -> None:
        try:
            import fastslide
        except ImportError as error:
            raise UserError(
                f"{path.name} is in a format that OpenSlide lacks, and fastslide, which reads it, is not "
                'installed; install it with pip install "napari-flag[fastslide]" (Python 3.11), or convert '
                "the slide to OME-TIFF, e.g. with bfconvert or QuPath."
            ) from error
        self.path = path
        try:
            self._slide = fastslide.FastSlide.from_file_path(path)
        except FAULTS as error:
            reason = str(error).splitlines()[0].rpartition(": ")[2]
            raise UserError(
                f"{path.name} could not be opened ({reason}), so it is damaged or incomplete; copy it again "
                "with all files that belong to it, or convert it to OME-TIFF."
            ) from error
        self._image = self._slide.images.primary
        if self._image.num_channels not in (3, 4) or self._slide.dtype not in ("uint8", "uint16"):
            found = f"{self._image.num_channels} channels of {self._slide.dtype}"
            self.close()
            raise UserError(
                f"{path.name} has {found}, so it is no H&E in 8 or 16 bits; choose another image."
            )
        self._format = PixelFormat(255.0 if self._slide.dtype == "uint8" else 65535.0)
        self.levels: tuple[Size, ...] = tuple((int(w), int(h)) for w, h in self._image.level_dimensions)
        self.resolution = self._resolution()

    def _resolution(self) -> Resolution:
        across, down = self._image.mpp
        found = stated(float(across), float(down), "fastslide")
        others = len(self._slide.images) - 1
        if not others:
            return found
        notice = (
            f"{self.path.name} holds {others + 1} images, of which the largest, {self._image.name}, is "
            "taken; convert another one to OME-TIFF to predict from it."
        )
        return Resolution(found.mpp, found.source, (*found.notices, notice))

    def read(self, x: int, y: int, width: int, height: int, level: int) -> UInt8Array:
        """Return a window; fastslide is thread-safe."""
        try:
            region = self._image.read_region((x, y), level, (width, height)).to_interleaved()
        except FAULTS as error:
            raise damaged(self.path, error) from error
        return self._format.rgb(np.asarray(region.numpy()))

    def rows(self, y: int, height: int) -> UInt8Array:
        """Return full-width rows."""
        return self.read(0, y, self.levels[0][0], height, 0)

    def close(self) -> None:
        """Close the file."""
        self._slide.close()
