"""What an earlier version wrote still holds: its prediction files, and what lies in caches.

``golden/earlier_prediction.h5ad`` was written by a version whose ``X`` was sharpened and whose ``sample``
held no counts: the first 20 spots of the bundled slide, beside the measurement.
"""

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from napari_flag import keys
from napari_flag.analysis.compare import compare
from napari_flag.analysis.truth import measured_counts
from napari_flag.encoders.features import _cache_file
from napari_flag.prediction_file import read_prediction
from napari_flag.simulation import demo_slide
from napari_flag.slides.formats.pyramid import cache_file
from napari_flag.slides.slide import open_slide

PREDICTION = Path(__file__).parent / "golden" / "earlier_prediction.h5ad"
SCORES = {
    "PCC": 0.7420411241677454,
    "MSE": 0.782839784864315,
    "GSC": 0.8268432975536127,
    "SSC": 0.6368269830669278,
    "cPCC": 0.6960545414812713,
    "amplitude": 0.4491785346161248,
}


def test_an_earlier_prediction_file_opens_with_the_numbers_written_in_it():
    adata = read_prediction(PREDICTION)
    with h5py.File(PREDICTION) as file:
        for found, place in (
            (adata.X, "X"),
            (adata.layers[keys.SAMPLE], "layers/sample"),
            (adata.layers[keys.SPREAD], "layers/sd"),
        ):
            np.testing.assert_array_equal(found, file[place][:])


def test_an_earlier_prediction_file_is_scored_as_it_was():
    adata = read_prediction(PREDICTION)
    scores = compare(adata, measured_counts(adata)).to_dict()["X"]
    assert {name: scores[name] for name in SCORES} == pytest.approx(SCORES, abs=1e-5)


class Encoder:
    name, tile_px, mpp, dim = "embedded", 224, 0.5, 8


def test_cached_features_keep_their_names(tmp_path):
    with open_slide(demo_slide()) as slide:
        xy = np.arange(8.0).reshape(4, 2)
        found = _cache_file(slide, xy, Encoder(), "abc", tmp_path)
        stat = slide.path.stat()
        told = (str(slide.path.resolve()), stat.st_size, stat.st_mtime_ns, slide.size, slide.mpp)
    digest = hashlib.sha256(repr((told, "embedded", 224, 0.5, "abc")).encode() + xy.tobytes()).hexdigest()
    assert found == tmp_path / f"{digest[:32]}.npy"


def test_cached_pyramids_keep_their_names(tmp_path):
    slide = tmp_path / "slide.png"
    slide.write_bytes(b"pixels")
    stat = slide.stat()
    place = hashlib.sha256(str(slide.resolve()).encode()).hexdigest()[:12]
    version = hashlib.sha256(f"1 {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    assert cache_file(slide, tmp_path) == tmp_path / f"{place}-{version}.tif"
