"""Colours as the scanner stored them, or converted to sRGB by the slide's ICC profile.

Scanners store red, green and blue of their own, and an ICC profile that says what these look like.  Two
scanners' pixels of one piece of tissue are more alike after both were converted.  Weights know the colours
they were trained on, so theirs are taken unless a person asks for the others.
"""

import io
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from napari_flag.errors import UserError

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

    from napari_flag.slides.formats.readers import Reader, Size, UInt8Array
    from napari_flag.slides.resolution import Resolution

Colours: TypeAlias = Literal["scanned", "srgb"]
"""``"scanned"``: as stored in the file; ``"srgb"``: converted by its ICC profile."""
SCANNED: Final = "scanned"
SRGB: Final = "srgb"
COLOURS: Final[tuple[Colours, ...]] = get_args(Colours)
IN_WORDS: Final[dict[str, str]] = {SCANNED: "as scanned", SRGB: "in sRGB"}


def colours_of(value: object, where: str) -> Colours:
    """Return the colours that `value` names, ``"scanned"`` for None.

    Raises
    ------
    UserError
        When it names none; `where` says where it stands.
    """
    for colours in COLOURS:
        if value == colours or (value is None and colours == SCANNED):
            return colours
    raise UserError(
        f'{where} names the colours "{value}", which this version does not know; they are '
        f"{' or '.join(COLOURS)}."
    )


class SrgbReader:
    """A reader whose pixels are converted to sRGB.

    Conversion is perceptual, by LittleCMS, in 8 bits per channel.

    Parameters
    ----------
    reader
        With a ``profile``; it is taken over and closed by `close`.
    name
        Of the slide, for messages.

    Raises
    ------
    UserError
        When the profile cannot be used.
    """

    profile: bytes | None = None

    def __init__(self, reader: "Reader", name: str) -> None:
        if reader.profile is None:
            raise ValueError("a reader without a colour profile has nothing to convert by")
        self._reader = reader
        self._transform = _to_srgb(reader.profile, name)
        self.levels: tuple[Size, ...] = reader.levels
        self.resolution: Resolution = reader.resolution
        self.random_access: bool = reader.random_access

    def read(self, x: int, y: int, width: int, height: int, level: int) -> "UInt8Array":
        """Return a window, (height, width, 3) uint8 sRGB."""
        return self._converted(self._reader.read(x, y, width, height, level))

    def rows(self, y: int, height: int) -> "UInt8Array":
        """Return full-width rows of level 0."""
        return self._converted(self._reader.rows(y, height))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _converted(self, pixels: "UInt8Array") -> "UInt8Array":
        import numpy as np
        from PIL import Image

        return np.array(self._transform.apply(Image.fromarray(pixels)))


def _to_srgb(profile: bytes, name: str) -> "ImageCmsTransform":
    from PIL import ImageCms

    advice = "predict with the colours as scanned (--colours scanned), or export the slide again."
    try:
        found: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = found.profile.xcolor_space.strip()
        if space != "RGB":
            raise UserError(f"The colour profile of {name} is of {space} values and not of RGB; {advice}")
        return ImageCms.buildTransform(
            found,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
            ImageCms.Flags.NOCACHE,  # which makes it safe to share between threads
        )
    except (OSError, ImageCms.PyCMSError) as error:
        raise UserError(f"The colour profile of {name} is damaged ({error}); {advice}") from error
