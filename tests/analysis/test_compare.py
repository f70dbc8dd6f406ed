import json

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from tests.fakes import add_draws, counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.compare import agree, comparing, section_of
from napari_flag.analysis.scores import METRICS
from napari_flag.analysis.truth import truth_of
from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics import scoring_rules
from napari_flag.statistics.scoring_rules import NAMES, proper_scores


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=81, n_genes=12)


@pytest.fixture
def measured(prediction):
    return counts_for(prediction)


def by_hand(guess: np.ndarray, truth: np.ndarray, array: np.ndarray) -> dict[str, float]:
    """The definitions of evaluation.md written a second time, plainly."""

    def pcc(p, y):
        return np.mean([np.corrcoef(p[:, g], y[:, g])[0, 1] for g in range(y.shape[1])])

    def moran(v):
        near = (np.abs(array[:, None] - array[None]).sum(-1) == 1).astype(float)
        near /= near.sum(1, keepdims=True)
        z = v - v.mean(0)
        return len(v) / near.sum() * (z * (near @ z)).sum(0) / (z * z).sum(0)

    pairs = np.triu_indices(truth.shape[1], 1)
    spot_mean = guess.mean(1, keepdims=True), truth.mean(1, keepdims=True)
    return {
        "PCC": pcc(guess, truth),
        "MSE": ((guess - truth) ** 2).mean(),
        "GSC": np.corrcoef(np.corrcoef(guess.T)[pairs], np.corrcoef(truth.T)[pairs])[0, 1],
        "SSC": np.corrcoef(moran(guess), moran(truth))[0, 1],
        "cPCC": pcc(guess - spot_mean[0], truth - spot_mean[1]),
        "amplitude": np.median(guess.var(0) / truth.var(0)),
    }


def test_the_scores_are_those_of_the_definitions_for_mean_and_sample(prediction, measured):
    result = finish(comparing(prediction, measured))
    truth = np.log2(measured.X.toarray().astype(np.float64) + 1)
    array = prediction.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy()
    for name, values in (("X", prediction.X), ("sample", prediction.layers[keys.SAMPLE])):
        expected = by_hand(values.astype(np.float64), truth, array)
        for metric in METRICS:
            assert result.scores[name].values[metric] == pytest.approx(expected[metric], abs=1e-9)
    assert result.scores["X"].values["PCC"] != result.scores["sample"].values["PCC"]
    assert result.neighbours == "4 first-ring neighbours on the square array"
    assert (result.spots, result.genes, result.slide) == (81, 12, "fake")


def test_intervals_hold_their_scores_and_repeat(prediction, measured):
    result, again = finish(comparing(prediction, measured)), finish(comparing(prediction, measured))
    assert result.to_dict() == again.to_dict()
    for scores in result.scores.values():
        for metric, (low, high) in scores.intervals.items():
            assert low <= scores.values[metric] <= high


def json_of(prediction, measured):
    """What `compare --json` prints."""
    return json.loads(json.dumps(finish(comparing(prediction, measured)).to_dict(), allow_nan=False))


def test_json_has_the_metrics_under_x_and_sample(prediction, measured):
    result = json_of(prediction, measured)
    for name in ("X", "sample"):
        assert set(METRICS) <= set(result[name])
        assert len(result[name]["intervals_95"]["PCC"]) == 2
    assert result["unmatched"]["genes_only_predicted"] == []
    assert result["trained_on_this_slide"] is False


def test_json_holds_the_draws_with_proper_scores_where_there_are_eight(prediction, measured):
    found = json_of(prediction, measured)["draws"]
    assert found["number"] == 1
    assert found["proper_scores"] is None
    assert "draw up to 8 on the Samples page" in found["why_no_proper_scores"]
    add_draws(prediction, 9)
    found = json_of(prediction, measured)["draws"]
    assert found["number"] == 9
    assert found["mean_over"] == 8
    assert found["why_no_proper_scores"] is None
    assert set(METRICS) <= set(found)
    assert found["proper_scores"]["draws"] == 8
    for score in NAMES:
        low, high = found["proper_scores"]["intervals_95"][score]
        assert 0 < low < found["proper_scores"][score] < high


def test_scores_of_draws_are_those_of_the_sample_layers(prediction, measured):
    add_draws(prediction, 9)
    found = finish(comparing(prediction, measured)).draws
    truth = np.log2(measured.X.toarray().astype(np.float64) + 1)
    array = prediction.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy()
    layers = [keys.SAMPLE, *(f"{keys.SAMPLE}_{number}" for number in range(2, 10))]
    drawn = [prediction.layers[layer].astype(np.float64) for layer in layers]
    expected = [by_hand(values, truth, array) for values in drawn]
    for metric in METRICS:
        assert found.by_draw[metric] == pytest.approx([values[metric] for values in expected], abs=1e-9)
        assert found.values[metric] == pytest.approx(np.mean([values[metric] for values in expected[:8]]))
    near = (np.abs(array[:, None] - array[None]).sum(-1) == 1).astype(float)
    assert found.proper == pytest.approx(proper_scores(drawn[:8], truth, sparse.csr_array(near)).means())


def test_wider_draws_than_the_tissue_score_worse_and_leave_the_expectation_alone(prediction, measured):
    narrow = finish(comparing(add_draws(prediction, 8, noise=0.3), measured))
    wide = finish(comparing(add_draws(prediction, 8, noise=3.0), measured))
    assert all(narrow.draws.proper[name] < wide.draws.proper[name] for name in NAMES)
    assert narrow.scores["X"] == wide.scores["X"]


def test_pairs_of_very_many_genes_are_left_out_and_said(prediction, measured, monkeypatch):
    monkeypatch.setattr(scoring_rules, "MOST_GENES", 11)
    result = finish(comparing(add_draws(prediction, 8), measured))
    found = result.to_dict()["draws"]["proper_scores"]
    assert found["VS-gene"] is found["intervals_95"]["VS-gene"] is None
    assert found["VS-space"] is not None
    assert any("VS-gene needs all pairs" in notice for notice in result.notices)


def test_the_table_has_one_row_per_gene_in_order(prediction, measured):
    table = finish(comparing(prediction, measured)).tables["X"]
    assert list(table.gene) == list(prediction.var_names)
    assert list(table.columns) == [
        "gene", "pcc", "cpcc", "spearman", "mse", "amplitude", "moran_predicted",
        "moran_compared", "moran_measured", "mean",
    ]  # fmt: skip
    assert table.notna().all().all()


def test_a_gene_constant_in_truth_is_left_out_and_one_predicted_constant_counts(prediction, measured):
    before = finish(comparing(prediction, measured))
    measured.X[:, 0] = 0
    measured.X.eliminate_zeros()
    prediction.X[:, 1] = 2.5
    scores = finish(comparing(prediction, measured)).scores["X"]
    assert scores.genes_constant_in_truth == 1
    assert scores.genes_predicted_constant == 1
    others = before.tables["X"].pcc[2:]
    assert scores.values["PCC"] == pytest.approx(others.sum() / 11)


def test_a_section_the_weights_were_trained_on_is_said(prediction, measured):
    made = prediction.uns[keys.PROVENANCE]
    for trained in (["her2st-C2", "her2st-FAKE"], np.array(["fake"], object), "fake"):
        made[keys.TRAINING_SLIDES] = trained
        result = finish(comparing(prediction, measured))
        assert result.trained_on_this_slide
        assert "say nothing about new tissue" in result.notices[0]
    made[keys.TRAINING_SLIDES] = ["notfake", "fake2"]
    assert not finish(comparing(prediction, measured)).trained_on_this_slide


def test_few_matched_spots_bring_a_notice(prediction, measured):
    notices = finish(comparing(prediction, measured[:30].copy())).notices
    assert any(notice.startswith("Only 30 of 81") for notice in notices)


def test_one_gene_has_its_accuracy_and_no_structure(prediction, measured):
    result = finish(comparing(prediction[:, :1].copy(), measured))
    values = result.scores["X"].values
    assert np.isfinite(values["PCC"])
    assert np.isnan([values["GSC"], values["SSC"]]).all()
    assert result.to_dict()["X"]["GSC"] is None
    assert any("at least 3 genes" in notice for notice in result.notices)


def test_three_spots_are_compared_without_made_up_intervals(prediction, measured):
    result = finish(comparing(prediction, measured[:3].copy()))
    assert result.to_dict()["X"]["intervals_95"]["PCC"] is None


def test_counts_that_never_vary_are_refused(prediction, measured):
    measured.X = np.ones(measured.shape, np.float32)
    with pytest.raises(UserError, match="same count in every measured spot"):
        finish(comparing(prediction, measured))


def test_an_anndata_of_someone_else_is_refused(measured):
    with pytest.raises(UserError, match="no prediction of napari-flag"):
        finish(comparing(AnnData(np.ones((4, 3), np.float32)), measured))


def test_without_array_positions_the_nearest_spots_are_used_and_said(prediction, measured):
    del prediction.obs[keys.ARRAY_ROW]
    assert finish(comparing(prediction, measured)).neighbours == "4 nearest spots"


@pytest.fixture
def predicted():
    adata = fake_prediction(64, n_genes=8)
    counts = np.random.default_rng(0).poisson(30, adata.shape)
    adata.layers[keys.MEASURED] = np.log2(counts + 1.0).astype(np.float32)
    adata.uns["counts"] = counts
    return adata


def test_counts_come_back_from_the_layer_exactly(predicted):
    assert np.array_equal(finish(truth_of(predicted)).X, predicted.uns["counts"])


def test_spots_and_genes_never_measured_are_left_out(predicted):
    predicted.layers[keys.MEASURED][:5] = np.nan
    predicted.layers[keys.MEASURED][:, 2] = np.nan
    counts = finish(truth_of(predicted))
    assert counts.shape == (59, 7)
    assert counts.obs_names[0] == predicted.obs_names[5]
    found = finish(agree(predicted)).comparison
    assert (found.spots, found.genes) == (59, 7)


def test_the_comparison_is_that_of_the_command_line(predicted):
    found = finish(agree(predicted))
    expected = finish(comparing(predicted, finish(truth_of(predicted))))
    assert found.comparison.scores["X"].values == expected.scores["X"].values
    assert found.comparison.scores["sample"].intervals == expected.scores["sample"].intervals
    assert list(found.tables) == ["X", "sample"]
    assert found.why_not == ""


def test_it_reports_progress_between_its_parts(predicted):
    stages = [step.stage for step in agree(predicted)]
    assert stages.count("Scoring the expectation") == stages.count("Scoring one draw") > 5
    assert "Scoring draws" in stages


def test_a_layer_in_which_no_spot_was_measured_is_as_none():
    adata, alone = (fake_prediction(36, n_genes=5, measured=measured) for measured in (True, False))
    adata.layers[keys.MEASURED][:] = np.nan
    assert finish(agree(adata)).why_not == finish(agree(alone)).why_not


def test_a_prediction_alone_is_described_and_the_reason_said():
    adata = fake_prediction(36, n_genes=5, measured=False)
    found = finish(agree(adata))
    assert found.comparison is None
    assert "choose the counts" in found.why_not
    assert list(found.tables["X"].columns) == ["gene", "moran_predicted", "mean_predicted", "spread"]
    assert found.tables["X"].mean_predicted.to_numpy() == pytest.approx(adata.X.mean(axis=0), rel=1e-5)


def test_what_cannot_be_compared_is_described_alone_with_the_reason(predicted):
    predicted.layers[keys.MEASURED][:] = 0
    found = finish(agree(predicted))
    assert found.comparison is None
    assert "only zeros" in found.why_not
    assert len(found.tables["X"]) == 8


def test_an_empty_layer_is_one_sentence(predicted):
    predicted.layers[keys.MEASURED][:] = np.nan
    with pytest.raises(UserError, match="is empty"):
        section_of(predicted)


def test_counts_that_do_not_fit_at_all_are_doubted(predicted):
    assert any("do not agree" in text for text in finish(agree(predicted)).comparison.notices)
    predicted.layers[keys.MEASURED] = np.log2(np.rint(np.exp2(predicted.X)) + 1).astype(np.float32)
    assert not any("do not agree" in text for text in finish(agree(predicted)).comparison.notices)


def test_spots_that_were_not_measured_are_left_out_of_the_section():
    adata = fake_prediction()
    adata.layers[keys.MEASURED][:5] = np.nan
    assert section_of(adata).truth.shape == (59, 10)
