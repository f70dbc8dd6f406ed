"""Small pictures of whole slides: read once, then taken from the cache."""

import os

import numpy as np
import pytest
from tests.slide_files import CountedReader, pyramid_tiff, tissue_picture

from napari_flag import cache
from napari_flag.progress import finish
from napari_flag.slides.overview import KIND, overview
from napari_flag.slides.slide import Slide, open_slide

IMAGE = tissue_picture(900, 700, (200, 200, 700, 500))


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda kind: tmp_path / "cache" / kind)
    return tmp_path / "cache" / KIND


@pytest.fixture
def path(tmp_path):
    return pyramid_tiff(tmp_path / "slide.tif", IMAGE)


def looked(path, longest=100, mpp=0.5):
    """What the overview is, and how many pixels were read for it."""
    with open_slide(path, mpp=mpp) as slide:
        reader = CountedReader(slide.reader)
        found = overview(Slide(slide.path, slide.mpp, slide.mpp_source, reader), longest)
        return found, reader.pixels


def test_an_overview_is_the_thumbnail_and_is_read_once_whatever_the_scale(path):
    with open_slide(path) as slide:
        wanted = slide.thumbnail(100)
    first, read = looked(path)
    assert read > 0
    again, read = looked(path, mpp=0.7)
    assert read == 0
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(again, wanted)
    again[:] = 0  # is the caller's own
    np.testing.assert_array_equal(looked(path)[0], wanted)


def test_another_size_and_a_file_written_anew_are_read(path):
    before, _ = looked(path)
    assert looked(path, longest=50)[1] > 0
    pyramid_tiff(path, 255 - IMAGE)
    os.utime(path, ns=(1, 1))
    after, read = looked(path)
    assert read > 0
    assert np.abs(after.astype(int) - before).max() > 10


def test_a_damaged_one_is_read_anew(path, kept):
    first, _ = looked(path)
    (entry,) = kept.iterdir()
    stored = bytearray(entry.read_bytes())
    stored[-3] ^= 1
    entry.write_bytes(stored)
    again, read = looked(path)
    assert read > 0
    np.testing.assert_array_equal(again, first)
    assert looked(path)[1] == 0


@pytest.mark.parametrize(
    "other",
    [
        lambda image: image[:, :-1],
        lambda image: image[..., 0],
        lambda image: image.astype(float),
        lambda image: image.astype(str),
    ],
)
def test_one_that_is_whole_and_no_picture_of_the_slide_is_read_anew(path, kept, other):
    first, _ = looked(path)
    (entry,) = kept.iterdir()
    finish(cache.keep_array(other(first), kept, entry.stem.rpartition("-")[0], "Keeping"))
    again, read = looked(path)
    assert read > 0
    np.testing.assert_array_equal(again, first)
    assert looked(path)[1] == 0


def test_only_so_many_stay(path, kept, monkeypatch):
    monkeypatch.setenv("NAPARI_FLAG_OVERVIEWS_GB", str(30_000 / 1e9))
    for longest in (90, 91, 92):
        looked(path, longest)
    assert len(list(kept.iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(path, kept):
    kept.parent.write_text("no folder")
    assert looked(path)[1] == looked(path)[1] > 0
