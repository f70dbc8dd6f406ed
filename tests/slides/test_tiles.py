"""Tiles: the right pixels, in order, at the asked µm/px."""

import os
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tests import slide_files
from tests.slide_files import picture

from napari_flag.cluster import cores
from napari_flag.errors import UserError
from napari_flag.slides import tiles as tiles_module
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.tiles import (
    FEWEST_THREADS,
    MOST_THREADS,
    read_tiles,
    reading_threads,
    tile_window,
)

IMAGE = picture(900, 700)
CENTRES = np.array([[300.0, 200.0], [450.4, 349.6], [0.0, 0.0], [900.0, 700.0], [620.2, 77.7]])


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    return open_slide(slide_files.pyramid_tiff(tmp_path / "s.tif", IMAGE, mpp=0.5))


def tiles(slide: Slide, xy: np.ndarray, **options: float) -> np.ndarray:
    settings = {"size_px": 64, "mpp": 0.5, "batch_size": 2} | options
    return np.concatenate(list(read_tiles(slide, xy, **settings)))


def window(centre: np.ndarray, size: int) -> np.ndarray:
    padded = np.pad(IMAGE, ((size, size), (size, size), (0, 0)), mode="symmetric")
    x, y = np.round(centre - size / 2).astype(int) + size
    return padded[y : y + size, x : x + size]


@pytest.mark.parametrize("mpp", [0.5, 0.5015])
def test_at_the_slides_own_resolution_pixels_are_untouched(slide: Slide, mpp: float) -> None:
    found = tiles(slide, CENTRES, mpp=mpp)
    for tile, centre in zip(found, CENTRES, strict=True):
        assert (tile == window(centre, 64)).all()


def test_batches_are_full_but_the_last_and_in_order(slide: Slide) -> None:
    batches = list(read_tiles(slide, CENTRES, size_px=32, mpp=0.5, batch_size=2, workers=3))
    assert [b.shape for b in batches] == [(2, 32, 32, 3), (2, 32, 32, 3), (1, 32, 32, 3)]
    singly = [next(read_tiles(slide, c[None], size_px=32, mpp=0.5, batch_size=1)) for c in CENTRES]
    assert (np.concatenate(batches) == np.concatenate(singly)).all()
    assert list(read_tiles(slide, np.empty((0, 2)), size_px=32, mpp=0.5, batch_size=4)) == []


@pytest.mark.parametrize(("mpp", "level"), [(1.0, 1), (2.0, 2), (1.25, 1), (0.75, 0), (0.4, 0)])
def test_resampled_tiles_cover_the_asked_field(slide: Slide, mpp: float, level: int) -> None:
    assert tile_window(slide, size_px=64, mpp=mpp).level == level
    centre = np.array([[448.0, 352.0]])
    (tile,) = tiles(slide, centre, mpp=mpp)
    span = round(64 * mpp / 0.5)
    field = window(centre[0], span).astype(float)
    for part in (np.s_[: span // 2], np.s_[:, : span // 2], np.s_[span // 2 :]):
        halved = tuple(slice(s.start and 32, s.stop and 32) for s in np.atleast_1d(part))
        assert abs(tile[halved].mean((0, 1)) - field[part].mean((0, 1))).max() < 1.5


def test_resampling_is_antialiased(tmp_path: Path) -> None:
    stripes = np.repeat(np.where(np.arange(600) % 2, 255, 0)[None, :, None], 600, 0).repeat(3, 2)
    path = slide_files.plain_image(tmp_path / "s.png", stripes.astype(np.uint8))
    (tile,) = tiles(open_slide(path, mpp=0.3), np.array([[300.0, 300.0]]), mpp=1.0)
    assert abs(tile.astype(int) - 127).max() < 25


def test_slides_with_and_without_pyramid_give_alike_tiles(slide: Slide, tmp_path: Path) -> None:
    flat = open_slide(slide_files.plain_image(tmp_path / "f.png", IMAGE), mpp=0.5)
    for mpp in (1.0, 1.6):
        a, b = (tiles(s, CENTRES, mpp=mpp).astype(int) for s in (slide, flat))
        assert abs(a - b).mean() < 3


def test_unknown_resolution_is_asked_for(tmp_path: Path) -> None:
    slide = open_slide(slide_files.plain_image(tmp_path / "s.png", IMAGE))
    with pytest.raises(UserError, match="--mpp"):
        read_tiles(slide, CENTRES, size_px=64, mpp=0.5, batch_size=2)


def test_a_slide_too_coarse_is_refused_with_both_numbers(slide: Slide) -> None:
    with pytest.raises(UserError, match=r"2 µm/px.*0\.5 µm/px"):
        read_tiles(slide.with_mpp(2.0), CENTRES, size_px=64, mpp=0.5, batch_size=2)


def test_centres_off_the_slide_are_counted(slide: Slide) -> None:
    with pytest.raises(UserError, match=r"2 of 3 positions .*900 × 700"):
        read_tiles(slide, np.array([[5, 5], [901, 5], [5, -1]]), size_px=64, mpp=0.5)


def test_as_many_threads_read_at_once_as_there_are_cores_however_small_the_batch(slide, monkeypatch) -> None:
    monkeypatch.setattr(tiles_module, "cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    together = threading.Barrier(5)

    class Waiting(slide_files.CountedReader):
        def read(self, *window: int) -> np.ndarray:
            together.wait(10)  # broken, and so raises, unless five threads are here
            return super().read(*window)

    watched = Slide(slide.path, 0.5, "", Waiting(slide.reader))
    assert len(list(read_tiles(watched, np.full((10, 2), 300.0), size_px=64, mpp=0.5, batch_size=1))) == 10


def test_threads_follow_the_cores_of_this_process_or_its_share(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert cores() == 12
    found = []
    for share in ("", "4", "1", "64"):
        monkeypatch.setenv("OMP_NUM_THREADS", share)
        found.append(reading_threads())
    assert found == [12, 4, FEWEST_THREADS, 12]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert reading_threads() == MOST_THREADS


def test_reading_takes_no_more_memory_than_is_said_of_it(slide: Slide) -> None:
    tile = 64 * 64 * 3
    as_stored = tile_window(slide, size_px=64, mpp=0.5)
    assert as_stored.memory(8, 2) == (2 * 8 + 8 + 2) * tile
    assert as_stored.memory(1, 5) == (2 * 1 + 5 + 5) * tile

    def read(positions: int) -> None:
        xy = np.full((positions, 2), 300.0)
        for _ in read_tiles(slide, xy, size_px=256, mpp=0.75, batch_size=8, workers=4):
            pass

    read(4)  # so that Pillow is loaded
    tracemalloc.start()
    read(80)
    peak = tracemalloc.get_traced_memory()[1]  # of NumPy alone
    tracemalloc.stop()
    stated = tile_window(slide, size_px=256, mpp=0.75).memory(8, 4)
    assert stated / 6 < peak < stated


def test_reading_ahead_is_bounded_and_stops_with_the_reader(slide: Slide) -> None:
    counted = slide_files.CountedReader(slide.reader)
    watched = Slide(slide.path, 0.5, "", counted)
    batches = read_tiles(watched, np.full((500, 2), 300.0), size_px=64, mpp=0.5, batch_size=8)
    next(batches)
    batches.close()
    assert counted.pixels <= 3 * 8 * 64 * 64
