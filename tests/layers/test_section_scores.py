import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.compare import score_section


def test_a_perfect_prediction_scores_best():
    adata = fake_prediction(49)
    adata.layers[keys.MEASURED] = adata.X.copy()
    scores = score_section(adata)
    assert scores.overall == pytest.approx({"PCC": 1.0, "MSE": 0.0, "GSC": 1.0, "SSC": 1.0})
    gene = scores.genes["ERBB2"]
    assert gene.moran_predicted == pytest.approx(gene.moran_measured)


def test_spots_without_measurement_are_left_out():
    adata = fake_prediction(49)
    adata.layers[keys.MEASURED][:5] = np.nan
    scores = score_section(adata)
    assert scores.spots == 44
    assert np.isfinite(list(scores.overall.values())).all()


def test_without_measurement_there_are_no_scores():
    assert score_section(fake_prediction(49, measured=False)) is None


def test_a_section_seen_in_training_is_named():
    adata = fake_prediction(49)
    assert not score_section(adata).trained_on
    adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "C2"
    assert score_section(adata).trained_on
