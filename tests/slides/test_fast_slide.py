"""Slides read by fastslide; it reads the look-alikes of SVS too, so that OpenSlide says what is right."""

import sys

import numpy as np
import pytest
from tests.slide_files import aperio_svs, tissue_picture

from napari_flag.discovery import kind_of
from napari_flag.errors import UserError
from napari_flag.slides.formats.fast_slide import ENDINGS, FastSlideReader
from napari_flag.slides.slide import open_slide


@pytest.mark.slow
def test_windows_levels_and_micrometres_are_those_that_openslide_reads(tmp_path):
    pytest.importorskip("fastslide")
    path = aperio_svs(tmp_path / "a.svs", tissue_picture(2000, 2000, (300, 300, 1800, 1800), 0))
    with open_slide(path) as slide:
        reader = FastSlideReader(path)
        assert reader.levels == slide.levels
        assert reader.resolution.mpp == slide.mpp
        for level, (x, y) in ((0, (700, 900)), (1, (150, 220))):
            theirs = slide.read_level(x, y, 90, 60, level).astype(int)
            ours = reader.read(x, y, 90, 60, level)
            assert (ours.shape, ours.dtype) == ((60, 90, 3), np.uint8)
            assert np.abs(ours - theirs).mean() < 4  # two decoders of one JPEG
            elsewhere = slide.read_level(x + 40, y, 90, 60, level).astype(int)
            assert np.abs(ours - elsewhere).mean() > 8
        np.testing.assert_array_equal(reader.rows(900, 4)[:, 700:790], reader.read(700, 900, 90, 4, 0))
        reader.close()


def test_a_damaged_file_is_one_sentence(tmp_path):
    pytest.importorskip("fastslide")
    path = tmp_path / "a.czi"
    path.write_bytes(b"ZISRAWFILE" + bytes(1000))
    with pytest.raises(UserError, match=r"a\.czi could not be opened \(Missing CZI subblock directory\)"):
        open_slide(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_without_fastslide_one_sentence_says_what_to_do(ending, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastslide", None)
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"any")
    assert kind_of(path) == "slide"
    with pytest.raises(UserError, match=r'napari-flag\[fastslide\]".*convert the slide to OME-TIFF'):
        open_slide(path)
