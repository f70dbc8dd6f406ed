"""A made slide is a pyramid that reads alike at every level; a large one takes no more memory to read."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from benchmarks.large_slide import GLASS, PERIOD, write_large_slide

from napari_flag.slides.slide import needs_pyramid, open_slide
from napari_flag.slides.tissue import find_tissue

WIDTH, HEIGHT = 9000, 7000


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = write_large_slide(tmp_path_factory.mktemp("large") / "large.tif", WIDTH, HEIGHT, 0.5)
    with open_slide(path) as opened:
        yield opened


def test_it_is_a_pyramid_with_a_scale(slide):
    assert slide.levels == ((9000, 7000), (2250, 1750), (563, 438), (141, 110))
    assert slide.mpp == pytest.approx(0.5, rel=1e-4)
    assert not needs_pyramid(slide)


def test_the_picture_repeats_and_corners_are_glass(slide):
    here = slide.read_region(1500, 3000, 700, 500)
    np.testing.assert_array_equal(slide.read_region(1500 + PERIOD, 3000, 700, 500), here)
    assert here.std() > 20
    assert np.abs(slide.read_region(10, 10, 300, 300).astype(int) - GLASS).max() <= 3


def test_levels_show_the_same(slide):
    fine = slide.read_region(2048, 2048, 2048, 2048).reshape(512, 4, 512, 4, 3).mean((1, 3))
    coarse = slide.read_region(2048, 2048, 512, 512, level=1)
    assert np.abs(fine - coarse).mean() < 8  # chroma is stored at half the resolution


def test_other_programs_read_it(slide):
    with tifffile.TiffFile(slide.path) as tiff:
        assert tiff.is_bigtiff
        assert [level.shape[:2] for level in tiff.series[0].levels] == [
            (height, width) for width, height in slide.levels
        ]
        smallest = tiff.series[0].levels[-1].asarray()
    np.testing.assert_array_equal(smallest, slide.read_region(0, 0, 141, 110, level=3))


def test_equal_tiles_are_stored_once(slide):
    assert slide.path.stat().st_size < 6e6


FLAT = """
import json, resource, sys
import numpy as np
from napari_flag.slides.slide import napari_levels, open_slide
from napari_flag.slides.tiles import read_tiles
from napari_flag.slides.tissue import find_tissue

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

slide = open_slide(sys.argv[1])
tissue = find_tissue(slide)
levels = napari_levels(slide)
seen = [levels[-1][...].shape, levels[0][20_000:21_000, 15_000:16_000].shape]
opened = peak()
rows, columns = np.mgrid[8_000:24_000:400, 10_000:26_000:800]
places = np.stack([columns.ravel(), rows.ravel()], 1)
halves = []
for part in np.array_split(places, 2):
    number = sum(len(tiles) for tiles in read_tiles(slide, part, size_px=600, mpp=0.683, batch_size=8))
    halves.append((number, peak()))
print(json.dumps({"seen": seen, "opened": opened, "halves": halves, "share": float(tissue.mask.mean())}))
"""


@pytest.mark.slow
def test_a_slide_of_a_thousand_megapixels_is_opened_masked_and_read_in_flat_memory(tmp_path):
    path = write_large_slide(tmp_path / "large.tif", 40_000, 32_000, 0.25)
    words = [sys.executable, "-c", FLAT, str(path)]
    said = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert said["seen"] == [[500, 625, 3], [1000, 1000, 3]]
    assert said["share"] == pytest.approx(np.pi / 4, abs=0.04)  # an ellipse in its rectangle
    (first, after_first), (second, after_second) = said["halves"]
    assert first == second == 400
    assert after_second - after_first < 40  # MB: a thousand tiles are 1,080
    assert after_second - said["opened"] < 400  # of an image of 3,840


def test_tissue_is_found_on_it(slide):
    tissue = find_tissue(slide)
    assert tissue.mask.mean() == pytest.approx(np.pi / 4, abs=0.06)
    assert not tissue.contains(np.array([[50, 50], [8950, 6950]])).any()
