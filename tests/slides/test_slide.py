"""Slides of every format, made here, with known pixels."""

import errno
import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from tests import slide_files
from tests.slide_files import LABEL_COLOUR, CountedReader, picture

from napari_flag.errors import UserError
from napari_flag.slides.formats import readers
from napari_flag.slides.formats.tiff import _refuse_foreign
from napari_flag.slides.resolution import UNKNOWN, check_mpp, stated
from napari_flag.slides.slide import Slide, napari_levels, open_slide

IMAGE = picture(620, 410)
LOSSY = 4.0
"""Mean difference that JPEG may make, in grey levels."""

Make = Callable[[Path], Path]
FORMATS: dict[str, tuple[Make, float | None, float]] = {
    "aperio svs": (lambda d: slide_files.aperio_svs(d / "s.svs", IMAGE, mpp=0.5), 0.5, LOSSY),
    "pyramidal tiff": (lambda d: slide_files.pyramid_tiff(d / "s.tif", IMAGE, mpp=0.4), 0.4, 0),
    "tiff with sub-images": (
        lambda d: slide_files.pyramid_tiff(d / "s.tif", IMAGE, sub_images=True),
        None,
        0,
    ),
    "ome-tiff": (lambda d: slide_files.ome_tiff(d / "s.ome.tif", IMAGE), 0.25, 0),
    "ome-tiff in planes and nm, bigtiff": (
        lambda d: slide_files.ome_tiff(
            d / "s.ome.tif",
            IMAGE.transpose(2, 0, 1),
            axes="CYX",
            pyramid=False,
            size=(500, "nm"),
            bigtiff=True,
        ),
        0.5,
        0,
    ),
    "plain tiff": (lambda d: slide_files.plain_tiff(d / "s.tif", IMAGE), None, 0),
    "lzw tiff": (lambda d: slide_files.plain_tiff(d / "s.tif", IMAGE, compression="lzw"), None, 0),
    "jpeg": (lambda d: slide_files.plain_image(d / "s.jpg", IMAGE, quality=95), None, LOSSY),
    "png": (lambda d: slide_files.plain_image(d / "s.png", IMAGE), None, 0),
    "svs named .jpg": (lambda d: slide_files.aperio_svs(d / "s.jpg", IMAGE), 0.5, LOSSY),
    "png named .tif": (
        lambda d: slide_files.plain_image(d / "s.png", IMAGE).rename(d / "s.tif"),
        None,
        0,
    ),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_pixels_and_its_resolution(kind: str, tmp_path: Path) -> None:
    make, mpp, difference = FORMATS[kind]
    with open_slide(make(tmp_path)) as slide:
        assert slide.size == (620, 410)
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp))
        assert bool(slide.mpp_source) == (mpp is not None)
        window = slide.read_region(100, 200, 300, 150)
        assert window.dtype == np.uint8
        expected = IMAGE[200:350, 100:400].astype(int)
        assert abs(window - expected).mean() <= difference


@pytest.mark.parametrize("kind", FORMATS)
def test_beyond_the_border_the_slide_is_mirrored(kind: str, tmp_path: Path) -> None:
    make, _, difference = FORMATS[kind]
    with open_slide(make(tmp_path)) as slide:
        window = slide.read_region(-30, -20, 700, 60).astype(int)
    mirrored = np.pad(IMAGE, ((20, 0), (30, 50), (0, 0)), mode="symmetric")[:60, :700]
    assert window.shape == (60, 700, 3)
    assert abs(window - mirrored).mean() <= difference


def test_a_window_larger_than_the_slide_is_mirrored_again_and_again(tmp_path: Path) -> None:
    with open_slide(slide_files.plain_image(tmp_path / "s.png", IMAGE[:20, :30])) as slide:
        window = slide.read_region(-100, -70, 250, 180)
    expected = np.pad(IMAGE[:20, :30], ((70, 90), (100, 120), (0, 0)), mode="symmetric")
    assert (window == expected).all()


def test_levels_show_the_same_place(tmp_path: Path) -> None:
    with open_slide(slide_files.pyramid_tiff(tmp_path / "s.tif", IMAGE)) as slide:
        assert slide.downsamples == (1.0, 2.0, 4.0, 8.0)
        fine = slide.read_region(200, 120, 160, 80).reshape(20, 4, 40, 4, 3).mean(axis=(1, 3))
        coarse = slide.read_region(200, 120, 40, 20, level=2)
    assert abs(fine - coarse).max() <= 2


@pytest.mark.parametrize("maker", [slide_files.aperio_svs, None], ids=["svs", "ome-tiff"])
def test_label_and_macro_images_are_never_shown(maker: Make | None, tmp_path: Path) -> None:
    if maker is None:
        path = slide_files.ome_tiff(tmp_path / "s.ome.tif", IMAGE, with_label=True)
    else:
        path = maker(tmp_path / "s.svs", IMAGE)
    with open_slide(path) as slide:
        assert slide.size == (620, 410)
        for level, size in enumerate(slide.levels):
            pixels = slide.read_region(0, 0, *size, level=level).astype(int)
            assert (abs(pixels - LABEL_COLOUR).max(axis=2) > 40).all()


def test_dicom_file_and_folder_open(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="pydicom writes the DICOM file of this test")
    path = slide_files.dicom_slide(tmp_path / "slide.dcm", IMAGE, mpp=0.5)
    for name in (path, tmp_path):
        with open_slide(name) as slide:
            assert (slide.size, slide.mpp) == ((620, 410), pytest.approx(0.5))
            window = slide.read_region(100, 200, 300, 150)
            assert abs(window - IMAGE[200:350, 100:400].astype(int)).mean() <= LOSSY


def test_a_pipe_in_a_dicom_folder_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.dcm")
    (tmp_path / "0.dcm").rename(tmp_path / "pipe.DCM")
    (tmp_path / "0.dcm").write_bytes(b"")
    for name in (tmp_path, tmp_path / "0.dcm"):
        with pytest.raises(UserError, match=r"pipe\.DCM is a pipe or a device"):
            open_slide(name)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_signed_values_that_are_not_negative_are_scaled_to_eight_bit(tmp_path: Path, dtype: type) -> None:
    full = np.iinfo(dtype).max
    stored = np.rint(IMAGE * (full / 255)).astype(dtype)
    stored[0, 0] = full
    stored[-1, -1] = full
    with open_slide(slide_files.ome_tiff(tmp_path / "s.ome.tif", stored, pyramid=False)) as slide:
        window = slide.read_region(10, 10, 600, 380)
    assert abs(window.astype(int) - IMAGE[10:390, 10:610]).max() <= 1


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_negative_values_are_refused_since_their_colours_cannot_be_known(tmp_path: Path, dtype: type) -> None:
    wrapped = IMAGE.astype(np.int8).astype(dtype)  # 245 stored as -11
    path = slide_files.ome_tiff(tmp_path / "s.ome.tif", wrapped, pyramid=False)
    with pytest.raises(UserError, match=r"negative values.*export it as 8-bit RGB"):
        open_slide(path)


def test_grey_sixteen_bit_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = IMAGE[..., 0]
    clear = np.dstack([IMAGE, np.where(np.arange(620) < 300, 255, 0)[None].repeat(410, 0)])
    on_white = IMAGE.copy()
    on_white[:, 300:] = 255
    deep = IMAGE.astype(np.uint16) * 257
    twelve = np.rint(IMAGE * (4095 / 255)).astype(np.uint16)
    twelve[0, 0] = 4095
    cases = {
        "grey.png": (slide_files.plain_image, grey, {}, np.repeat(grey[..., None], 3, axis=2)),
        "alpha.png": (slide_files.plain_image, clear.astype(np.uint8), {}, on_white),
        "grey16.png": (slide_files.plain_image, deep[..., 0], {}, grey[..., None].repeat(3, 2)),
        "deep.tif": (slide_files.plain_tiff, deep, {}, IMAGE),
        "twelve.tif": (slide_files.plain_tiff, twelve, {}, IMAGE),
        "grey.tif": (
            slide_files.plain_tiff,
            grey,
            {"photometric": "minisblack"},
            grey[..., None].repeat(3, 2),
        ),
        "white.tif": (
            slide_files.plain_tiff,
            255 - grey,
            {"photometric": "miniswhite"},
            grey[..., None].repeat(3, 2),
        ),
        "ycbcr.tif": (slide_files.plain_tiff, IMAGE, {"compression": "jpeg"}, IMAGE),
    }
    for name, (write, image, options, expected) in cases.items():
        with open_slide(write(tmp_path / name, image, **options)) as slide:
            pixels = slide.read_region(1, 1, 600, 400).astype(int)
            limit = 12 if name.startswith("ycbcr") else 1
            assert abs(pixels - expected[1:401, 1:601]).mean() <= limit, name


def test_threads_read_what_one_thread_reads(tmp_path: Path) -> None:
    for path in (
        slide_files.aperio_svs(tmp_path / "a.svs", IMAGE),
        slide_files.pyramid_tiff(tmp_path / "b.tif", IMAGE),
        slide_files.plain_image(tmp_path / "c.png", IMAGE),
    ):
        with open_slide(path) as slide, ThreadPoolExecutor(4) as pool:
            corners = [(37 * i % 500, 53 * i % 350) for i in range(40)]
            together = list(pool.map(lambda c, s=slide: s.read_region(*c, 64, 48), corners))
            for corner, window in zip(corners, together, strict=True):
                assert (window == slide.read_region(*corner, 64, 48)).all()


def test_thumbnail_is_the_mean_of_what_it_covers(tmp_path: Path) -> None:
    with open_slide(slide_files.plain_image(tmp_path / "s.png", IMAGE[:400, :600])) as slide:
        assert slide.thumbnail(5000).shape == (400, 600, 3)
        small = slide.thumbnail(60)
    blocks = IMAGE[:400, :600].reshape(40, 10, 60, 10, 3).mean(axis=(1, 3))
    assert small.shape == (40, 60, 3)
    assert abs(small - blocks).max() <= 1.5


class Blank:
    """A reader of one level of glass, however large, which notes how many pixels each reading has."""

    resolution, profile, random_access = UNKNOWN, None, True

    def __init__(self, width: int, height: int) -> None:
        self.levels, self.read_at_once = ((width, height),), []

    def read(self, x: int, y: int, width: int, height: int, level: int) -> np.ndarray:
        assert x + width <= self.levels[0][0]
        assert y + height <= self.levels[0][1]
        self.read_at_once.append(width * height)
        return np.full((height, width, 3), 240, np.uint8)


@pytest.mark.parametrize(("width", "height"), [(60_000, 1_500), (1_500, 60_000), (12_000, 8_000)])
def test_a_slide_without_pyramid_is_made_small_in_windows_of_bounded_memory(width: int, height: int) -> None:
    reader = Blank(width, height)
    small = Slide(Path("blank.tif"), 0.5, "stated", reader).thumbnail(1_000)
    assert max(small.shape) == 1_000
    assert (small == 240).all()
    assert sum(reader.read_at_once) == width * height
    assert max(reader.read_at_once) <= 2**23


@pytest.mark.parametrize("at_once", [1, 5_000, 40_000])
def test_a_thumbnail_is_the_same_whatever_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    with open_slide(slide_files.plain_tiff(tmp_path / "s.tif", IMAGE, tile=(64, 64))) as slide:
        whole = slide.thumbnail(90)
        monkeypatch.setattr("napari_flag.slides.slide._AT_ONCE", at_once)
        monkeypatch.setattr("napari_flag.slides.slide._ROWS", 8)
        np.testing.assert_array_equal(slide.thumbnail(90), whole)


def test_an_image_beyond_pillows_limit_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    path = slide_files.plain_image(tmp_path / "s.png", IMAGE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with open_slide(path) as slide:
        assert (slide.read_region(0, 0, 620, 410) == IMAGE).all()
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_screen_dpi_is_no_resolution(dpi: int, tmp_path: Path) -> None:
    with open_slide(slide_files.plain_image(tmp_path / "s.jpg", IMAGE, dpi=(dpi, dpi))) as slide:
        assert (slide.mpp, slide.mpp_source) == (None, "")
    tiff = slide_files.plain_tiff(tmp_path / "s.tif", IMAGE, resolution=(dpi, dpi), resolutionunit="INCH")
    with open_slide(tiff) as slide:
        assert (slide.mpp, slide.mpp_source) == (None, "")
        assert f"{dpi} dpi" in " ".join(slide.notices)


def test_pixels_that_are_not_square_give_a_notice(tmp_path: Path) -> None:
    path = slide_files.plain_tiff(
        tmp_path / "s.tif", IMAGE, resolution=(20000, 25000), resolutionunit="CENTIMETER"
    )
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(np.sqrt(0.5 * 0.4))
        assert "not square" in slide.notices[0]


def test_imagej_states_microns_in_its_own_way(tmp_path: Path) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, IMAGE, imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.5)
        assert "ImageJ" in slide.mpp_source


@pytest.mark.parametrize(("mpp", "flagged"), [(0.0274, True), (0.1, False), (2, False), (5, True)])
def test_implausible_resolution_is_flagged(mpp: float, flagged: bool) -> None:
    assert (check_mpp(mpp) is not None) == flagged


def test_a_folder_of_two_dicom_slides_is_asked_about_and_of_one_is_opened(tmp_path: Path) -> None:
    slide_files.dicom_slide(tmp_path / "a.dcm", IMAGE)
    with open_slide(tmp_path) as slide:
        assert slide.size == (620, 410)
    slide_files.dicom_slide(tmp_path / "b.dcm", IMAGE)
    with pytest.raises(UserError, match=r"several slides \(such as a\.dcm and b\.dcm\), so it is not clear"):
        open_slide(tmp_path)
    with open_slide(tmp_path / "b.dcm") as slide:
        assert slide.size == (620, 410)


def test_a_scale_that_light_cannot_resolve_counts_as_unknown(tmp_path: Path) -> None:
    assert stated(1e-300, 1e-300, "MPP") == UNKNOWN == stated(0.5, 0.009, "MPP")
    assert stated(0.01, 0.01, "MPP").mpp == 0.01
    with open_slide(slide_files.plain_image(tmp_path / "s.png", IMAGE)) as slide:
        for mpp in (1e-300, 0.0, -0.5, np.nan):
            with pytest.raises(UserError, match=r"is not a size; give a number such as 0\.5"):
                slide.with_mpp(mpp)


def test_resolution_set_by_hand_wins(tmp_path: Path) -> None:
    path = slide_files.pyramid_tiff(tmp_path / "s.tif", IMAGE, mpp=0.4)
    with open_slide(path, mpp=0.683) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.683, "set by hand")
        assert slide.with_mpp(0.7, "fitted").mpp_source == "fitted"
        with pytest.raises(UserError, match="give a number"):
            slide.with_mpp(-1)


def truncated(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def bad_files(folder: Path) -> dict[str, Path]:
    text = folder / "notes.svs"
    text.write_text("This is no slide.")
    empty = folder / "empty.tif"
    empty.touch()
    head = folder / "head.tif"
    head.write_bytes(b"II*\0\xff\xff\xff\x7f")
    half_head = folder / "half_head.tif"
    half_head.write_bytes(b"II*\0\x08")
    return {
        "not an image": text,
        "empty": empty,
        "only a TIFF header": head,
        "half a TIFF header": half_head,
        "missing": folder / "nothing.svs",
        "a folder": folder,
        "truncated tiff": truncated(slide_files.plain_tiff(folder / "t.tif", IMAGE), 0.5),
        "truncated pyramid": truncated(slide_files.pyramid_tiff(folder / "p.tif", IMAGE), 0.5),
        "truncated jpeg": truncated(slide_files.plain_image(folder / "t.jpg", IMAGE), 0.5),
        "truncated png": truncated(slide_files.plain_image(folder / "t.png", IMAGE), 0.5),
        "unreadable svs": truncated(slide_files.aperio_svs(folder / "t.svs", IMAGE), 0.3),
    }


BAD = (
    "not an image", "empty", "only a TIFF header", "half a TIFF header", "missing", "a folder",
    "truncated tiff", "truncated pyramid", "truncated jpeg", "truncated png", "unreadable svs",
)  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_gives_one_clear_sentence(kind: str, tmp_path: Path) -> None:
    path = bad_files(tmp_path)[kind]
    with pytest.raises(UserError) as caught, open_slide(path) as slide:
        slide.read_region(0, 0, *slide.size)
    assert path.name in str(caught.value)
    assert str(caught.value).endswith(".")


def test_channels_of_fluorescence_are_refused(tmp_path: Path) -> None:
    path = slide_files.ome_tiff(
        tmp_path / "s.ome.tif", np.zeros((5, 256, 256), np.uint8), axes="CYX", pyramid=False
    )
    with pytest.raises(UserError, match="5 channels"):
        open_slide(path)


def test_lazy_levels_index_like_arrays_and_read_only_the_window(tmp_path: Path) -> None:
    with open_slide(slide_files.plain_image(tmp_path / "s.png", IMAGE)) as slide:
        counted = CountedReader(slide.reader)
        (level,) = napari_levels(Slide(slide.path, None, "", counted))
        assert (level.shape, level.ndim, level.dtype) == (IMAGE.shape, 3, np.uint8)
        for key in (
            np.s_[10:20, 30:90], np.s_[10:200:7, -50:], np.s_[5], np.s_[5, 7], np.s_[..., 0],
            np.s_[100:50:-2, 3:9, 1], np.s_[:0, :5], np.s_[400:900],
        ):  # fmt: skip
            assert (level[key] == IMAGE[key]).all()
            assert level[key].shape == IMAGE[key].shape
        counted.pixels = 0
        assert level[10:20, 30:90].shape == (10, 60, 3)
        assert counted.pixels == 600
        with pytest.raises(IndexError):
            level[410]
        assert (np.asarray(level) == IMAGE).all()


def test_ome_xml_pulls_in_no_other_file(tmp_path: Path) -> None:
    """tifffile would read the planes that a UUID places in another file, also with ``..`` in its name."""
    (tmp_path / "slides").mkdir()
    secret = slide_files.ome_tiff(tmp_path / "secret.tif", np.full((64, 64, 3), 7, np.uint8), pyramid=False)
    path = slide_files.ome_tiff(
        tmp_path / "slides" / "s.ome.tif", np.full((64, 64, 3), 200, np.uint8), pyramid=False
    )
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata or ""
    plane = 'IFD="0" PlaneCount="1"><UUID FileName="../secret.tif">urn:uuid:{}</UUID></TiffData>'
    hostile = re.sub(
        r'IFD="0"[^>]*(/>|>.*?</TiffData>)', plane.format("0" * 32), xml, count=1, flags=re.DOTALL
    )
    assert "secret" in hostile
    tifffile.tiffcomment(path, hostile.encode())
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].asarray().max() == 7, (
            "tifffile no longer follows it, and the test shows nothing"
        )
    with open_slide(path, mpp=0.5) as slide:
        assert slide.read_region(0, 0, 64, 64).min() == 200
        assert any("they are not read" in notice for notice in slide.notices)
    assert secret.exists()


def micro_manager_tiff(
    path: Path, image: np.ndarray, version: int, summary: str = "", index: tuple[tuple[int, ...], ...] = ()
) -> Path:
    """Write one page as Micro-Manager does: a header with the version, a summary and an index of planes."""
    text = (summary or "{}").encode()
    described = struct.pack("<2I", 2355492, len(text)) + text
    if version:
        head = struct.pack("<2I", 483729, version) + described
    else:
        stack = struct.pack("<6I", 54773648, 40 + len(text), 483765892, 0, 99384722, 0)
        head = stack + described + struct.pack("<2I", 3453623, len(index)) + np.array(index, "<u4").tobytes()
    height, width = image.shape[:2]
    place = 8 + len(head)
    bits = place + image.nbytes
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 2), (273, 4, place),
        (277, 3, 3), (278, 4, height), (279, 4, image.nbytes), (51123, 2, bits + 6),
    ]  # fmt: skip
    counts = {258: 3, 51123: 4}
    with path.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, bits + 10) + head + image.tobytes())
        file.write(struct.pack("<3H4sH", 8, 8, 8, b"{}", len(tags)))
        for tag, kind, value in tags:
            file.write(struct.pack("<HHII", tag, kind, counts.get(tag, 1), value))
        file.write(bytes(4))
    return path


def test_an_index_of_micro_manager_pulls_in_no_other_file(tmp_path: Path) -> None:
    """tifffile would read the planes that ``NDTiff.index`` places in another file, also with ``..``."""
    (tmp_path / "slides").mkdir()
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, np.full((60, 80, 3), 7, np.uint8), photometric="rgb", metadata=None)
    with tifffile.TiffFile(secret) as tiff:
        place = tiff.pages.first.dataoffsets[0]
    path = micro_manager_tiff(tmp_path / "slides" / "s.tif", np.full((60, 80, 3), 200, np.uint8), 2)
    with (path.parent / "NDTiff.index").open("wb") as index:
        for axes, name, at in ((b'{"z": 1}', b"s.tif", 26), (b'{"z": 0}', b"../secret.tif", place)):
            index.write(struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(name)) + name)
            index.write(struct.pack("<8I", at, 80, 60, 2, 0, 0, 0, 0))
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        assert series.asarray().min() == 7, "tifffile no longer follows it, and the test shows nothing"
        with pytest.raises(ValueError, match="its pixels lie in another file, which is not read"):
            _refuse_foreign(tiff, series)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.read_region(0, 0, 80, 60).min() == 200


def test_the_first_plane_of_a_micro_manager_stack_is_shown_whatever_its_index_states(tmp_path: Path) -> None:
    summary = '{"MicroManagerVersion": "2", "Frames": 30000, "Slices": 30000, "Channels": 1, "Prefix": "x"}'
    index = ((0, 0, 0, 0, 8), (0, 30000, 30000, 0, 8))
    image = picture(80, 60)
    path = micro_manager_tiff(tmp_path / "x_MMStack.tif", image, 0, summary, index)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_mmstack, "tifffile no longer takes it for a stack, and the test shows nothing"
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.read_region(0, 0, 80, 60) == image).all()


def ome_with(path: Path, changed: dict[str, str]) -> Path:
    """Write an OME-TIFF of one plane, and change its OME-XML."""
    slide_files.ome_tiff(path, picture(80, 60), pyramid=False)
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata or ""
    for before, after in changed.items():
        assert before in xml
        xml = xml.replace(before, after)
    tifffile.tiffcomment(path, xml.encode())
    return path


@pytest.mark.parametrize(
    "changed",
    [
        {'SizeZ="1"': 'SizeZ="500000000"'},
        {'SizeZ="1"': 'SizeZ="1000000"', 'SizeT="1"': 'SizeT="1000000"'},
        {'SizeC="3"': 'SizeC="1000000000"', 'SamplesPerPixel="3"': 'SamplesPerPixel="1000000000"'},
        {'SizeX="80"': 'SizeX="1000000000"'},
        {'PlaneCount="1"': 'PlaneCount="2000000000"'},
        {'PlaneCount="1"': 'NumPlanes="2000000000"'},
        {"<Image ": '<X><ModuloAlongZ Type="z" Start="0" End="1e10"/></X><Image '},
    ],
)
def test_planes_that_ome_xml_states_without_end_are_refused_before_they_are_listed(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    path = ome_with(tmp_path / "s.ome.tif", changed)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"its OME-XML states [\d,]+ planes, where up to 20,000 are read"):
        open_slide(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_axes_in_an_order_that_ome_does_not_know_are_refused(tmp_path: Path) -> None:
    path = ome_with(tmp_path / "s.ome.tif", {'DimensionOrder="XYCZT"': 'DimensionOrder="ZCTXY"'})
    with pytest.raises(UserError, match="axes in an order that OME does not know"):
        open_slide(path)


def test_an_ome_tiff_of_several_series_and_a_stack_is_taken(tmp_path: Path) -> None:
    slide, stack = picture(300, 200), np.stack([picture(40, 30, seed) for seed in range(50)])
    path = tmp_path / "s.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(slide_files.label_image(40, 30), photometric="rgb", metadata={"Name": "label image"})
        tiff.write(stack, photometric="rgb", metadata={"axes": "ZYXS", "Name": "focus"})
        tiff.write(slide, photometric="rgb", metadata={"axes": "YXS", "Name": "slide"})
    with open_slide(path, mpp=0.5) as opened:
        assert (opened.read_region(0, 0, 300, 200) == slide).all()


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [("ImageWidth", 2**31 - 1, "px is stated"), ("TileWidth", 2**20, "GB are stated")],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_allocated(
    tmp_path: Path, tag: str, value: int, said: str
) -> None:
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, np.zeros((256, 256, 3), np.uint8), photometric="rgb", tile=(128, 128), metadata=None
    )
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        found = tiff.pages.first.tags[tag]
        found.overwrite(value, dtype="I")
        if tag == "TileWidth":
            tiff.pages.first.tags["TileLength"].overwrite(2**16, dtype="I")
    with pytest.raises(UserError, match=said):
        open_slide(path)


# --- files that fail while they are read ---------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unpacked", "tiles"])
def test_a_slide_cut_short_while_it_is_open_is_a_sentence_and_no_crash(tmp_path: Path, kind: str) -> None:
    image = slide_files.picture(700, 600)
    options = {"tile": (256, 256), "compression": "deflate"} if kind == "tiles" else {}
    path = slide_files.plain_tiff(tmp_path / "slide.tif", image, **options)
    with open_slide(path) as slide:
        assert (slide.read_region(0, 0, 50, 50) == image[:50, :50]).all()
        with path.open("rb+") as file:
            file.truncate(5000)
        with pytest.raises(UserError, match=r"slide\.tif could not be decoded .*copy or export it again"):
            slide.read_region(300, 500, 300, 90)


def test_a_slide_whose_drive_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = slide_files.plain_tiff(tmp_path / "slide.tif", slide_files.picture(300, 200))
    with open_slide(path) as slide:
        stream = slide.reader._arrays[0]._stream
        failing = SimpleNamespace(seek=stream.seek, close=stream.close, readinto=_stale)
        monkeypatch.setattr(slide.reader._arrays[0], "_stream", failing)
        with pytest.raises(UserError, match=r"slide\.tif could not be decoded .*[Ss]tale file handle"):
            slide.read_region(0, 0, 50, 50)


def _stale(_: object) -> int:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", ">u2"])
def test_windows_of_an_unpacked_file_are_those_of_its_array(tmp_path: Path, planar: bool, dtype: str) -> None:
    image = slide_files.picture(130, 90)
    stored = (image.astype(np.uint16) * 257).astype(dtype) if dtype == ">u2" else image
    options: dict[str, object] = {"planarconfig": "separate"} if planar else {}
    stored = np.ascontiguousarray(stored.transpose(2, 0, 1)) if planar else stored
    path = slide_files.plain_tiff(tmp_path / "slide.tif", stored, photometric="rgb", **options)
    with open_slide(path) as slide:
        assert slide.reader.random_access
        for x, y, width, height in ((0, 0, 130, 90), (0, 7, 130, 20), (31, 7, 64, 20), (129, 89, 1, 1)):
            expected = image[y : y + height, x : x + width]
            assert (slide.reader.read(x, y, width, height, 0) == expected).all()


# --- memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_converting_takes_the_result_and_a_band(dtype: str) -> None:
    stored = np.ones((3000, 2000, 4), dtype)
    form = readers.PixelFormat(1.0)
    tracemalloc.start()
    try:
        result = form.rgb(stored)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (result == 255).all()
    assert peak < result.nbytes + 64 * readers.BAND


def test_what_decoding_needs_grows_with_what_is_stored(tmp_path: Path) -> None:
    image = slide_files.picture(600, 500)
    one = {"compression": "deflate", "rowsperstrip": 500}
    kinds = {
        "rgb": slide_files.plain_tiff(tmp_path / "a.tif", image, **one),
        "16 bit": slide_files.plain_tiff(tmp_path / "b.tif", image.astype(np.uint16) * 257, **one),
        "jpeg": slide_files.plain_image(tmp_path / "c.jpg", image),
        "webp": slide_files.plain_image(tmp_path / "d.webp", image),
    }
    need = {}
    for name, path in kinds.items():
        with open_slide(path) as slide:
            need[name] = (slide.reader.memory_needed - readers.OVERHEAD) / (600 * 500)
    assert need["rgb"] >= 6
    assert need["16 bit"] > need["rgb"]
    assert need["jpeg"] >= 7
    assert need["webp"] > need["jpeg"]


@pytest.mark.parametrize("rows", [1, 7, 64, 500])
def test_an_image_of_strips_is_decoded_to_the_same_pixels(tmp_path: Path, rows: int, monkeypatch) -> None:
    monkeypatch.setattr(readers, "BAND", 600 * 50)
    monkeypatch.setattr("napari_flag.slides.formats.tiff.BLOCK_LIMIT", 0)
    image = slide_files.picture(600, 500)
    path = slide_files.plain_tiff(
        tmp_path / "slide.tif", image, compression="deflate", rowsperstrip=rows, photometric="rgb"
    )
    with open_slide(path) as slide:
        assert not slide.reader.random_access
        assert (slide.reader.read(0, 0, 600, 500, 0) == image).all()
