"""Colour profiles, on slides whose profile exchanges red and green."""

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from tests import slide_files
from tests.slide_files import picture

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.slides.colours import SCANNED, SRGB, colours_of
from napari_flag.slides.slide import build_pyramid, open_slide

IMAGE = picture(620, 410)
ROUNDING = 3
"""Grey levels that conversion to CIE XYZ and back may cost in 8 bits."""


def exchanging_profile() -> bytes:
    """sRGB with the primaries of red and green exchanged, so that to convert is to exchange the two."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = entries[b"rXYZ"] + 4, entries[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)


def png(folder: Path, profile: bytes | None) -> Path:
    Image.fromarray(IMAGE).save(folder / "s.png", icc_profile=profile)
    return folder / "s.png"


def tiff(folder: Path, profile: bytes | None) -> Path:
    options = {} if profile is None else {"iccprofile": profile}
    tifffile.imwrite(folder / "s.tif", IMAGE, photometric="rgb", tile=(128, 128), **options)
    return folder / "s.tif"


def svs(folder: Path, profile: bytes | None) -> Path:
    return slide_files.aperio_svs(folder / "s.svs", IMAGE, profile=profile)


FORMATS: dict[str, Callable[[Path, bytes | None], Path]] = {"png": png, "tiff": tiff, "aperio svs": svs}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_slide_is_converted_by_its_own_profile(kind: str, tmp_path: Path) -> None:
    with open_slide(FORMATS[kind](tmp_path, exchanging_profile())) as slide:
        scanned = slide.read_region(30, 20, 200, 150).astype(int)
        converted = slide.in_colours(SRGB)
        assert (slide.colours, converted.colours) == (SCANNED, SRGB)
        seen = converted.read_region(30, 20, 200, 150).astype(int)
        assert np.abs(seen - scanned[..., [1, 0, 2]]).max() <= ROUNDING
        assert np.abs(seen - scanned).max() > 10 * ROUNDING
        thumbnail = converted.thumbnail(100).astype(int)
        assert np.abs(thumbnail - slide.thumbnail(100).astype(int)[..., [1, 0, 2]]).mean() <= ROUNDING


@pytest.mark.parametrize("kind", FORMATS)
def test_a_slide_without_a_profile_keeps_its_pixels(kind: str, tmp_path: Path) -> None:
    with open_slide(FORMATS[kind](tmp_path, None)) as slide:
        assert slide.reader.profile is None
        converted = slide.in_colours(SRGB)
        assert converted.colours == SRGB
        np.testing.assert_array_equal(converted.read_region(0, 0, 90, 80), slide.read_region(0, 0, 90, 80))


@pytest.mark.slow
def test_a_pyramid_in_the_cache_keeps_the_profile_and_the_colours_as_scanned(tmp_path: Path) -> None:
    large = np.tile(IMAGE, (3, 8, 1))  # wider than what is shown without a pyramid
    Image.fromarray(large).save(tmp_path / "large.png", icc_profile=exchanging_profile())
    with finish(build_pyramid(open_slide(tmp_path / "large.png"), tmp_path / "cache")) as slide:
        assert len(slide.levels) > 1
        np.testing.assert_array_equal(slide.read_region(0, 0, 620, 410), IMAGE)
        seen = slide.in_colours(SRGB).read_region(0, 0, 620, 410).astype(int)
        assert np.abs(seen - IMAGE[..., [1, 0, 2]]).max() <= ROUNDING


def test_threads_convert_alike(tmp_path: Path) -> None:
    with open_slide(png(tmp_path, exchanging_profile())) as slide:
        converted = slide.in_colours(SRGB)
        alone = converted.read_region(0, 0, 300, 300)
        with ThreadPoolExecutor(4) as pool:
            many = pool.map(lambda _: converted.read_region(0, 0, 300, 300), range(32))
            assert all((seen == alone).all() for seen in many)


def test_a_slide_that_was_converted_is_not_taken_for_scanned(tmp_path: Path) -> None:
    with open_slide(png(tmp_path, exchanging_profile())) as slide:
        converted = slide.in_colours(SRGB)
        assert converted.in_colours(SRGB) is converted
        with pytest.raises(ValueError, match="open it again"):
            converted.in_colours(SCANNED)


def test_a_damaged_profile_and_one_of_other_values_are_refused(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name, profile, says in (("a", b"no profile at all", "damaged"), ("b", lab, "Lab values")):
        (tmp_path / name).mkdir()
        with open_slide(tiff(tmp_path / name, profile)) as slide:
            assert slide.read_region(0, 0, 9, 9).shape == (9, 9, 3)  # as scanned it is a slide like others
            with pytest.raises(UserError, match=rf"s\.tif .*{says}.*--colours scanned"):
                slide.in_colours(SRGB)


def test_colours_that_are_not_known_are_refused() -> None:
    assert colours_of(None, "The card") == SCANNED
    with pytest.raises(UserError, match='The card names the colours "adobe"'):
        colours_of("adobe", "The card")
