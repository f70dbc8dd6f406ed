"""What an earlier version wrote still holds: its prediction files.

``golden/earlier_prediction.h5ad`` was written by a version whose ``X`` was sharpened and whose ``sample``
held no counts: the first 20 spots of the bundled slide, beside the measurement.
"""

from pathlib import Path

import h5py
import numpy as np
import pytest

from napari_flag import keys
from napari_flag.analysis.compare import comparing
from napari_flag.analysis.truth import truth_of
from napari_flag.prediction_file import read_prediction
from napari_flag.progress import finish

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
    scores = finish(comparing(adata, finish(truth_of(adata)))).to_dict()["X"]
    assert {name: scores[name] for name in SCORES} == pytest.approx(SCORES, abs=1e-5)
