"""Tiles: the right pixels, in order, at the asked µm/px."""

from pathlib import Path

import numpy as np
import pytest
from tests import slide_files
from tests.slide_files import picture

from napari_flag.errors import UserError
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.tiles import read_tiles, tile_window

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


def test_reading_ahead_is_bounded_and_stops_with_the_reader(slide: Slide) -> None:
    counted = slide_files.CountedReader(slide.reader)
    watched = Slide(slide.path, 0.5, "", counted)
    batches = read_tiles(watched, np.full((500, 2), 300.0), size_px=64, mpp=0.5, batch_size=8)
    next(batches)
    batches.close()
    assert counted.pixels <= 3 * 8 * 64 * 64
