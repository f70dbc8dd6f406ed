import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from tests.slide_files import picture

from napari_flag.errors import UserError
from napari_flag.slides.formats import stored_tiles
from napari_flag.slides.formats.stored_tiles import StoredTiles, _Kept
from napari_flag.slides.slide import open_slide

SIZE = (70, 50)  # no whole number of tiles either way


@pytest.fixture
def image():
    return picture(*SIZE)


@pytest.fixture
def decoded(monkeypatch):
    """The tiles decoded, in turn."""
    seen, lock = [], threading.Lock()
    keep = _Kept.keep

    def noted(self, key, tile):
        with lock:
            seen.append(key[1])
        keep(self, key, tile)

    monkeypatch.setattr(_Kept, "keep", noted)
    return seen


def tiled(path, image, **options):
    tifffile.imwrite(path, image, tile=(16, 32), **{"compression": "zlib", "metadata": None} | options)
    return path


@pytest.mark.parametrize("options", [{"photometric": "rgb"}, {"photometric": "rgb", "predictor": True}])
def test_every_window_is_that_of_the_image(tmp_path, image, options):
    slide = open_slide(tiled(tmp_path / "a.tif", image, **options))
    assert isinstance(slide.reader._arrays[0], StoredTiles)
    for left, top, right, bottom in ((0, 0, 70, 50), (31, 15, 33, 17), (40, 20, 70, 50), (5, 5, 6, 6)):
        window = slide.read_region(left, top, right - left, bottom - top)
        np.testing.assert_array_equal(window, image[top:bottom, left:right])
    slide.close()


def test_one_channel_is_read_too(tmp_path, image):
    slide = open_slide(tiled(tmp_path / "grey.tif", image[..., 0], photometric="minisblack"))
    assert isinstance(slide.reader._arrays[0], StoredTiles)
    window = slide.read_region(10, 10, 40, 30)
    np.testing.assert_array_equal(window, np.repeat(image[10:40, 10:50, :1], 3, axis=2))
    slide.close()


def test_channels_that_lie_in_planes_of_their_own_are_left_to_zarr(tmp_path, image):
    path = tmp_path / "planes.tif"
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    tiled(path, planes, photometric="rgb", planarconfig="separate")
    slide = open_slide(path)
    assert not isinstance(slide.reader._arrays[0], StoredTiles)
    np.testing.assert_array_equal(slide.read_region(3, 4, 20, 20), image[4:24, 3:23])
    slide.close()


def test_a_tile_that_is_not_stored_is_white(tmp_path, image):
    path = tmp_path / "sparse.tif"
    tiles = (None if number == 4 else image_tile(image, number) for number in range(12))
    options = {"photometric": "rgb", "tile": (16, 32), "compression": "zlib", "metadata": None}
    tifffile.imwrite(path, tiles, shape=image.shape, dtype=np.uint8, **options)
    slide = open_slide(path)
    assert (slide.read_region(32, 16, 32, 16) == 255).all()
    np.testing.assert_array_equal(slide.read_region(0, 0, 32, 16), image[:16, :32])
    slide.close()


def image_tile(image, number):
    row, column = divmod(number, 3)
    part = image[16 * row : 16 * row + 16, 32 * column : 32 * column + 32]
    return np.pad(part, ((0, 16 - part.shape[0]), (0, 32 - part.shape[1]), (0, 0)))


def test_overlapping_windows_decode_a_tile_once(tmp_path, image, decoded):
    slide = open_slide(tiled(tmp_path / "a.tif", image, photometric="rgb"))
    for left in range(0, 30, 3):
        slide.read_region(left, 10, 40, 20)
    assert sorted(decoded) == [0, 1, 2, 3, 4, 5]
    slide.close()


def test_no_more_is_kept_than_the_limit_and_nothing_of_a_closed_file(tmp_path, image, monkeypatch):
    kept = _Kept(3 * 16 * 32 * 3)
    monkeypatch.setattr(stored_tiles, "_KEPT", kept)
    slide = open_slide(tiled(tmp_path / "a.tif", image, photometric="rgb"))
    for _ in range(2):
        np.testing.assert_array_equal(slide.read_region(0, 0, *SIZE), image)
        assert kept._bytes <= 3 * 16 * 32 * 3
        assert len(kept._tiles) == 3
    slide.close()
    assert kept._bytes == len(kept._tiles) == 0


def test_threads_read_the_same_as_one(tmp_path, image):
    slide = open_slide(tiled(tmp_path / "a.tif", image, photometric="rgb"))
    places = [(left, top) for left in range(0, 40, 5) for top in range(0, 30, 5)] * 3
    with ThreadPoolExecutor(4) as pool:
        windows = list(pool.map(lambda place: slide.read_region(*place, 30, 20), places))
    for (left, top), window in zip(places, windows, strict=True):
        np.testing.assert_array_equal(window, image[top : top + 20, left : left + 30])
    slide.close()


def test_a_file_that_becomes_shorter_is_one_sentence(tmp_path, image):
    path = tiled(tmp_path / "a.tif", image, photometric="rgb")
    slide = open_slide(path)
    with path.open("r+b") as stream:
        stream.truncate(400)
    with pytest.raises(UserError, match=r"a\.tif could not be decoded \(.*shorter"):
        slide.read_region(0, 0, *SIZE)
    slide.close()


@pytest.mark.parametrize("tag", ["ImageWidth", "TileLength", "TileOffsets"])
def test_a_size_or_place_that_is_no_whole_number_is_refused(tag, image, tmp_path):
    path = tiled(tmp_path / "C9.tif", image)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        found = tiff.pages.first.tags[tag]
        numbers = found.value if isinstance(found.value, tuple) else (found.value,)
        found.overwrite([number + 0.5 for number in numbers], dtype="f")
    with pytest.raises(UserError, match=r"C9\.tif"):
        open_slide(path).close()
