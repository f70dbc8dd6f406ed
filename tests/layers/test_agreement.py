import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.compare import agree, compare, measured_counts
from napari_flag.errors import UserError
from napari_flag.progress import finish


@pytest.fixture
def predicted():
    adata = fake_prediction(64, n_genes=8)
    counts = np.random.default_rng(0).poisson(30, adata.shape)
    adata.layers[keys.MEASURED] = np.log2(counts + 1.0).astype(np.float32)
    adata.uns["counts"] = counts
    return adata


def test_counts_come_back_from_the_layer_exactly(predicted):
    assert np.array_equal(measured_counts(predicted).X, predicted.uns["counts"])


def test_spots_and_genes_never_measured_are_left_out(predicted):
    predicted.layers[keys.MEASURED][:5] = np.nan
    predicted.layers[keys.MEASURED][:, 2] = np.nan
    counts = measured_counts(predicted)
    assert counts.shape == (59, 7)
    assert counts.obs_names[0] == predicted.obs_names[5]
    told = finish(agree(predicted)).comparison
    assert (told.spots, told.genes) == (59, 7)


def test_the_comparison_is_that_of_the_command_line(predicted):
    told = finish(agree(predicted))
    expected = compare(predicted, measured_counts(predicted))
    assert told.comparison.scores["X"].values == expected.scores["X"].values
    assert told.comparison.scores["sample"].intervals == expected.scores["sample"].intervals
    assert list(told.tables) == ["X", "sample"]
    assert told.why_not == ""


def test_it_shows_signs_of_life_between_its_parts(predicted):
    stages = [step.stage for step in agree(predicted)]
    assert stages.count("Scoring the mean") == stages.count("Scoring one sample") > 5


def test_a_prediction_alone_is_described_and_the_reason_said():
    adata = fake_prediction(36, n_genes=5, measured=False)
    told = finish(agree(adata))
    assert told.comparison is None
    assert "choose the counts" in told.why_not
    assert list(told.tables["X"].columns) == ["gene", "moran_predicted", "mean_predicted", "spread"]
    assert told.tables["X"].mean_predicted.to_numpy() == pytest.approx(adata.X.mean(axis=0), rel=1e-5)


def test_what_cannot_be_compared_is_described_alone_with_the_reason(predicted):
    predicted.layers[keys.MEASURED][:] = 0
    told = finish(agree(predicted))
    assert told.comparison is None
    assert "same count in every measured spot" in told.why_not
    assert len(told.tables["X"]) == 8


def test_an_empty_layer_is_one_sentence(predicted):
    predicted.layers[keys.MEASURED][:] = np.nan
    with pytest.raises(UserError, match="is empty"):
        measured_counts(predicted)


def test_counts_that_do_not_fit_at_all_are_doubted(predicted):
    assert any("do not go together" in text for text in finish(agree(predicted)).mismatches)
    predicted.layers[keys.MEASURED] = np.log2(np.rint(np.exp2(predicted.X)) + 1).astype(np.float32)
    assert finish(agree(predicted)).mismatches == ()
