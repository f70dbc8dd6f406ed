import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.scores import (
    MEANING,
    METRICS,
    PROPER,
    scoring,
    scoring_draws,
    scoring_section,
)
from napari_flag.progress import finish
from napari_flag.statistics import coexpression
from napari_flag.statistics.bootstrap import neighbouring_blocks
from napari_flag.statistics.neighbours import find_neighbours


@pytest.fixture(scope="module")
def section():
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.arange(64), 8)
    xy = np.column_stack([columns, rows]).astype(float)
    truth = rng.normal(3, 1, (64, 12)) + xy[:, :1] * rng.normal(0, 0.5, 12)
    guess = truth + rng.normal(0, 1, truth.shape)
    neighbours = find_neighbours(xy, np.column_stack([rows, columns]), "square")
    return guess, truth, neighbours, neighbouring_blocks(xy), [f"G{i}" for i in range(12)], 0


def test_scoring_reports_its_progress_and_repeats(section):
    steps = []
    found, table = finish(scoring(*section, stage="Scoring"), steps.append)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert set(done) == set(range(8))
    assert all(step.total == 7 for step in steps)
    again, _ = finish(scoring(*section))
    assert found.values == again.values
    assert found.intervals == again.intervals
    assert set(found.values) == set(METRICS)
    assert list(table.gene) == section[4]


def test_draws_are_scored_a_step_at_a_time_and_stop_when_closed(section):
    guess, truth, neighbours, blocks, _, seed = section
    drawn = [guess + shift for shift in np.linspace(0, 1, 8)]
    steps = []
    found = finish(scoring_draws(drawn, truth, neighbours, blocks, seed, "Scoring"), steps.append)
    assert len(steps) > 40, "of the pairs of draws too"
    assert {step.stage for step in steps} == {"Scoring"}
    assert set(found.by_draw) == set(METRICS)
    assert set(found.proper) == set(found.intervals) == set(PROPER)
    work = scoring_draws(drawn, truth, neighbours, blocks, seed)
    next(work)
    work.close()
    with pytest.raises(StopIteration):
        next(work)


def test_fewer_than_eight_draws_have_metrics_and_the_reason_why_no_more(section):
    guess, truth, neighbours, blocks, names, seed = section
    few = finish(scoring_draws([guess] * 7, truth, neighbours, blocks, seed))
    assert few.proper == few.intervals == {}
    alone, _ = finish(scoring(guess, truth, neighbours, None, names, seed))
    assert few.values == pytest.approx(alone.values)
    assert few.averaged == 7
    assert "7 draws" in few.why_not
    assert "draw up to 8 on the Samples page" in few.why_not
    assert finish(scoring_draws([guess] * 8, truth, neighbours, blocks, seed)).why_not is None


def test_draws_beyond_the_eighth_do_not_move_the_scores(section):
    guess, truth, neighbours, blocks, _, seed = section
    drawn = [guess + shift for shift in np.linspace(0, 1, 8)]
    eight = finish(scoring_draws(drawn, truth, neighbours, blocks, seed))
    nine = finish(scoring_draws([*drawn, truth], truth, neighbours, blocks, seed))
    assert nine.proper == eight.proper
    assert nine.intervals == eight.intervals
    assert nine.values == eight.values
    assert (nine.number, nine.averaged, nine.mean_of) == (9, 8, "mean of the first 8 draws")
    assert eight.mean_of == "mean of 8 draws"
    assert nine.by_draw["PCC"][8] > max(eight.by_draw["PCC"]), "the ninth has scores of its own"


def test_every_score_has_a_meaning():
    assert set(MEANING) == {*METRICS, *PROPER}


def test_with_very_many_genes_only_gsc_is_left_out(section, monkeypatch):
    before, _ = finish(scoring(*section))
    monkeypatch.setattr(coexpression, "MOST_GENES", 11)
    after, _ = finish(scoring(*section))
    assert np.isnan(after.values.pop("GSC"))
    assert np.isnan(after.intervals.pop("GSC")).all()
    for name, value in after.values.items():
        assert value == before.values[name]


def test_a_perfect_prediction_scores_best():
    adata = fake_prediction(49)
    adata.layers[keys.MEASURED] = adata.X.copy()
    scores = finish(scoring_section(adata))
    assert scores.overall == pytest.approx(dict.fromkeys(METRICS, 1.0) | {"MSE": 0.0})
    gene = scores.genes["ERBB2"]
    assert gene.moran_predicted == pytest.approx(gene.moran_measured)


def test_spots_without_measurement_are_left_out():
    adata = fake_prediction(49)
    adata.layers[keys.MEASURED][:5] = np.nan
    scores = finish(scoring_section(adata))
    assert scores.spots == 44
    assert np.isfinite(list(scores.overall.values())).all()


def test_without_measurement_there_are_no_scores():
    assert finish(scoring_section(fake_prediction(49, measured=False))) is None


def test_a_section_seen_in_training_is_named():
    adata = fake_prediction(49)
    assert not finish(scoring_section(adata)).trained_on
    adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "C2"
    assert finish(scoring_section(adata)).trained_on
