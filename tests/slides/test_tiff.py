"""TIFF files that say of their colours, tiles and pages what is not so, or what is not read."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.slide_files import picture, plain_tiff

from napari_flag.errors import UserError
from napari_flag.slides.formats import tiff
from napari_flag.slides.slide import open_slide

IMAGE = picture(620, 410)


def entry(data: bytes, tag: int) -> int:
    """Where a tag stands in the first directory of a little-endian TIFF."""
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    return next(
        at
        for at in range(place + 2, place + 2 + 12 * count, 12)
        if data[at : at + 2] == tag.to_bytes(2, "little")
    )


def patched(path: Path, tag: int, at: int, form: str, *values: int) -> Path:
    """Change a tag: its kind at 2, its count at 4, its value at 8."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, entry(data, tag) + at, *values)
    path.write_bytes(data)
    return path


def pixels_of(path: Path):
    with open_slide(path) as slide:
        return slide.read_region(0, 0, 620, 410).astype(int), slide.notices


@pytest.mark.parametrize("photometric", [4, 5, 8, 9, 10, 32803, 34892, 32844, 32845, 65535])
def test_colours_that_are_no_rgb_are_refused(photometric, tmp_path):
    path = patched(plain_tiff(tmp_path / "s.tif", IMAGE), 262, 8, "<H", photometric)
    with pytest.raises(UserError, match=r"stores colours as \w+, which is not read; export it as RGB"):
        open_slide(path)


def test_cmyk_in_jpeg_is_not_taken_for_transparency(tmp_path):
    Image.fromarray(IMAGE).convert("CMYK").save(tmp_path / "s.tif", compression="jpeg")
    with pytest.raises(UserError, match="stores colours as SEPARATED"):
        open_slide(tmp_path / "s.tif")


def palette_file(path: Path) -> Path:
    colours = np.arange(256, dtype=np.uint16)[None].repeat(3, 0) * 257
    return plain_tiff(path, IMAGE[..., 0], photometric="palette", colormap=colours)


def test_a_palette_is_read(tmp_path):
    pixels, _ = pixels_of(palette_file(tmp_path / "s.tif"))
    np.testing.assert_array_equal(pixels[..., 1], IMAGE[..., 0])


def test_a_palette_that_lacks_colours_is_refused(tmp_path):
    path = patched(palette_file(tmp_path / "s.tif"), 320, 4, "<I", 48)
    with pytest.raises(UserError, match=r"a palette of 16 colours in 1 channel, where its values need 256"):
        open_slide(path)


def test_a_palette_with_a_further_channel_is_refused(tmp_path):
    two = IMAGE[..., :2].copy()
    path = plain_tiff(
        tmp_path / "s.tif", two, photometric="minisblack", extrasamples=[2], planarconfig="contig"
    )
    path = patched(path, 262, 8, "<H", 3)
    with pytest.raises(UserError, match=r"a palette of 0 colours in 2 channels"):
        open_slide(path)


def test_a_fourth_channel_that_is_not_called_transparency_is_left_out(tmp_path):
    path = plain_tiff(tmp_path / "s.tif", np.dstack([IMAGE, np.zeros_like(IMAGE[..., :1])]), extrasamples=[0])
    pixels, notices = pixels_of(path)
    np.testing.assert_array_equal(pixels, IMAGE)
    assert "The last of its 4 channels, which it does not call transparency, is left out." in notices


def test_colours_that_are_multiplied_by_their_transparency_are_put_on_white_once(tmp_path):
    half = np.full_like(IMAGE[..., :1], 128)
    multiplied = np.rint(IMAGE * (128 / 255)).astype(np.uint8)
    plain, _ = pixels_of(plain_tiff(tmp_path / "p.tif", np.dstack([IMAGE, half]), extrasamples=[2]))
    pixels, _ = pixels_of(plain_tiff(tmp_path / "m.tif", np.dstack([multiplied, half]), extrasamples=[1]))
    assert abs(pixels - plain).max() <= 1


def test_transparency_is_not_inverted_where_zero_is_white(tmp_path):
    stored = np.dstack([255 - IMAGE[..., 0], np.full(IMAGE.shape[:2], 255, np.uint8)])
    path = plain_tiff(
        tmp_path / "s.tif", stored, photometric="miniswhite", extrasamples=[2], planarconfig="contig"
    )
    np.testing.assert_array_equal(pixels_of(path)[0][..., 0], IMAGE[..., 0])


@pytest.mark.parametrize(
    ("dtype", "scale", "hot"),
    [("u2", 4095 / 255, 65535), ("u2", 1, 300), ("f4", 1 / 255, 1.0001), ("f4", 1 / 255, np.inf),
     ("f4", 1 / 255, np.nan), ("f4", 4095 / 255, 4095.0)],
)  # fmt: skip
def test_full_intensity_is_found_past_a_hot_pixel(dtype, scale, hot, tmp_path):
    stored = (np.rint(IMAGE * scale) if dtype == "u2" else IMAGE * scale).astype(dtype)
    stored[0, 0, 0] = hot
    pixels, notices = pixels_of(plain_tiff(tmp_path / "s.tif", stored))
    assert abs(pixels - IMAGE)[1:].max() <= 1
    assert ("the few beyond as white" in " ".join(notices)) == (
        (dtype == "u2" and hot == 65535) or hot == np.inf
    )


@pytest.mark.parametrize("turn", [3, 5, 6])
def test_an_orientation_is_said(turn, tmp_path):
    _, notices = pixels_of(plain_tiff(tmp_path / "s.tif", IMAGE, extratags=[(274, "H", 1, turn, True)]))
    assert "it is shown as stored" in " ".join(notices)
    _, notices = pixels_of(plain_tiff(tmp_path / "t.tif", IMAGE, extratags=[(274, "H", 1, 1, True)]))
    assert notices == pixels_of(plain_tiff(tmp_path / "u.tif", IMAGE))[1]


def tiled(path: Path, image=IMAGE, **options) -> tuple[Path, list[int], list[int]]:
    """Write tiles; return the places of their offsets and byte counts."""
    tifffile.imwrite(path, image, photometric="rgb", tile=(64, 64), metadata=None, **options)
    with tifffile.TiffFile(path) as file:
        tags = [file.pages[0].tags[code] for code in (324, 325)]
        return path, *(
            [tag.valueoffset + tag.valuebytecount // tag.count * i for i in range(tag.count)] for tag in tags
        )


def rewritten(path: Path, places: list[int], value: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        struct.pack_into("<H" if places[1] - places[0] == 2 else "<I", data, place, value)
    path.write_bytes(data)


def test_tiles_that_are_not_stored_are_said(tmp_path):
    path, _, counts = tiled(tmp_path / "s.tif")
    rewritten(path, counts[:20], 0)
    pixels, notices = pixels_of(path)
    assert "20 of 70 tiles are not stored and are shown as white." in notices
    assert (pixels[:64, :64] == 255).all()


def test_one_tile_for_all_is_refused_where_it_shows_something(tmp_path):
    path, offsets, _ = tiled(tmp_path / "s.tif")
    (first,) = struct.unpack_from("<I", path.read_bytes(), offsets[0])
    rewritten(path, offsets, first)
    with pytest.raises(UserError, match="70 of 70 tiles are one and the same part of it"):
        open_slide(path)


def test_a_few_tiles_of_one_part_are_said_where_it_shows_something(tmp_path):
    path, offsets, _ = tiled(tmp_path / "s.tif")
    (first,) = struct.unpack_from("<I", path.read_bytes(), offsets[0])
    rewritten(path, offsets[:6], first)
    assert any("6 of 70 tiles are one and the same part of it" in said for said in pixels_of(path)[1])


def test_an_empty_tile_may_be_stored_once_for_all(tmp_path):
    image = IMAGE.copy()
    image[:200] = 243
    path, offsets, _ = tiled(tmp_path / "s.tif", image)
    (first,) = struct.unpack_from("<I", path.read_bytes(), offsets[0])
    rewritten(path, offsets[:30], first)
    np.testing.assert_array_equal(pixels_of(path)[0], image)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_a_tile_that_lies_about_its_size_is_not_decoded(compression, tmp_path):
    path, offsets, _ = tiled(tmp_path / "s.tif", compression=compression)
    data = bytearray(path.read_bytes())
    for place in offsets:
        (at,) = struct.unpack_from("<I", data, place)
        if compression == "jpeg":
            struct.pack_into(">HH", data, data.find(b"\xff\xc0", at) + 5, 65000, 65000)
        else:
            struct.pack_into(">II", data, data.find(b"\xff\x4f\xff\x51", at) + 8, 65000, 65000)
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(UserError, match=r"a tile says it has 65,000 × 65,000"):
        slide.read_region(0, 0, 10, 10)


def test_a_strip_that_lies_about_its_size_is_refused(tmp_path):
    path = plain_tiff(tmp_path / "s.tif", IMAGE, compression="jpeg")
    data = bytearray(path.read_bytes())
    struct.pack_into(">HH", data, data.find(b"\xff\xc0") + 5, 65000, 65000)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"says it has 65,000 × 65,000"):
        open_slide(path)


def test_pages_beyond_the_most_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "MOST_PAGES", 5)
    with tifffile.TiffWriter(tmp_path / "s.tif") as writer:
        for _ in range(50):
            writer.write(IMAGE[:20, :20], photometric="rgb", metadata=None)
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        with pytest.raises(ValueError, match="more than 5 pages"):
            tiff._refuse_many_pages(file)
        assert len(file.pages._offsets) < 10, "all pages were sought"
    with pytest.raises(UserError, match="more than 5 pages"):
        open_slide(tmp_path / "s.tif")
