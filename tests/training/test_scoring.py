import numpy as np
import pytest

from flag_training.scoring import COMPARED, FAIR, OF_DRAWS, Section, is_better, score
from napari_flag.analysis.scores import METRICS, PROPER, STRUCTURE, scoring_draws
from napari_flag.progress import finish
from napari_flag.statistics import scoring_rules


@pytest.fixture
def section(cohort):
    return Section.of(cohort.slides[3])


def noisy(slide, sd, seed=0, number=16):
    """Draws around the truth, so that less noise is a better distribution."""
    noise = np.random.default_rng(seed).normal(0, sd, (number, *slide.expression.shape))
    return (slide.expression + noise).astype(np.float32)


def test_the_truth_scores_perfectly(cohort):
    slide = cohort.slides[3]
    found = score(slide.expression, slide)
    assert found["PCC"] == pytest.approx(1)
    assert found["MSE"] == 0
    assert found["GSC"] == pytest.approx(1)
    assert found["SSC"] == pytest.approx(1)
    assert found["amplitude"] == pytest.approx(1)


def test_an_array_has_all_metrics_with_intervals_around_them(section):
    read = section.array(noisy(section.slide, 0.5)[0])
    assert set(read.scores) == set(METRICS)
    for name, (low, high) in read.intervals.items():
        assert low < high, name
    assert read.intervals["MSE"][0] < read.scores["MSE"] < read.intervals["MSE"][1]


def test_a_calibrated_sd_covers_what_it_says(section):
    sd = np.full_like(section.slide.expression, 0.5)
    found = section.expectation(noisy(section.slide, 0.5)[0], sd).scores
    assert found["coverage_50"] == pytest.approx(0.5, abs=0.15)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.06)
    assert found["spread/error"] == pytest.approx(1, abs=0.15)


def test_without_sd_nothing_is_said_of_calibration(section):
    assert "coverage_50" not in section.expectation(section.slide.expression, None).scores


def test_draws_score_as_compare_scores_them(section):
    drawn = noisy(section.slide, 0.7)
    ours = section.draws(drawn)
    truth = section.slide.expression.astype(np.float64)
    theirs = finish(scoring_draws(list(drawn[:8]), truth, section.neighbours, section.blocks, 0))
    assert set(ours.scores) == set(OF_DRAWS)
    assert {name: ours.scores[name] for name in PROPER} == pytest.approx(theirs.proper)
    assert {name: ours.scores[name] for name in STRUCTURE} == pytest.approx(
        {name: theirs.values[name] for name in STRUCTURE}
    )
    for name in PROPER:
        low, high = ours.intervals[name]
        assert low < ours.scores[name] < high


def test_fair_scores_are_of_two_blocks_of_eight(section):
    drawn = noisy(section.slide, 0.7)
    found = section.draws(drawn).scores
    truth = section.slide.expression.astype(np.float64)
    work = scoring_rules.scoring_draws(list(drawn), truth, section.neighbours.weights, block=8)
    wanted = finish(work).means()
    assert {name: found[name] for name in FAIR} == {name: wanted[plain] for name, plain in FAIR.items()}


def test_a_difference_is_below_zero_where_ours_are_better_and_is_sure_of_it(section):
    good, bad = (section.draws(noisy(section.slide, sd)) for sd in (0.3, 2.0))
    found = section.difference(good, bad)
    assert set(found) == set(COMPARED)
    for name, (difference, low, high) in found.items():
        assert difference == pytest.approx(good.scores[name] - bad.scores[name])
        assert low <= difference <= high < 0


def test_draws_do_not_differ_from_themselves(section):
    drawn = section.draws(noisy(section.slide, 0.7))
    assert set(section.difference(drawn, drawn).values()) == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [
        ("PCC", 0.7, 0.6), ("MSE", 0.8, 0.9), ("ES", 8, 9), ("CRPS fair", 0.4, 0.5),
        ("amplitude", 0.9, 1.3), ("coverage_80", 0.78, 0.9), ("SSC", 0.1, float("nan")),
    ],
)  # fmt: skip
def test_which_of_two_values_is_better(metric, good, bad):
    assert is_better(metric, good, bad)
    assert not is_better(metric, bad, good)
