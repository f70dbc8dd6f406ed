import pytest
from tests.training.conftest import make_config

from flag_training.cohort import Cohort
from flag_training.evaluate import _score, rounded, score
from flag_training.fit import fit
from napari_flag.progress import finish


@pytest.fixture(scope="module")
def scores(cohort, tmp_path_factory):
    """Scores of C4 by weights trained without it."""
    config = make_config(branch_steps=60)
    rest = Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)
    network = finish(fit(rest, config, tmp_path_factory.mktemp("run")))
    return finish(_score(network, cohort.slides[3], cohort.features[3].numpy(), config, cohort.genes))


def test_the_truth_scores_perfectly(cohort):
    slide = cohort.slides[3]
    found = score(slide.expression, slide)
    assert found["PCC"] == pytest.approx(1)
    assert found["MSE"] == 0
    assert found["GSC"] == pytest.approx(1)
    assert found["SSC"] == pytest.approx(1)
    assert found["amplitude"] == pytest.approx(1)


def test_shuffled_tiles_lose_what_the_image_tells(scores):
    assert scores["X"]["PCC"] > scores["X, tiles shuffled"]["PCC"] + 0.3


def test_mean_head_kernel_branch_and_turned_section_are_scored_beside(scores):
    assert {"mean head", "kernel branch", "sample", "X, turned and re-stained 1"} <= scores.keys()
    assert scores["mean head"]["PCC"] > scores["sample"]["PCC"]


def test_several_sections_are_averaged():
    told = rounded({"a": {"X": {"PCC": 0.5}}, "b": {"X": {"PCC": 0.7}}})
    assert told["mean"]["X"]["PCC"] == 0.6
    assert "mean" not in rounded({"a": {"X": {"PCC": 0.5}}})
