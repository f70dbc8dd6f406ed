from dataclasses import replace

import numpy as np
import pytest

from flag_training.cohort import Cohort
from flag_training.evaluate import score
from flag_training.methods import controls


@pytest.fixture(scope="module")
def rest(cohort):
    return Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)


def test_the_true_depth_gives_each_gene_one_line(rest, cohort):
    found = controls.at_true_depth(rest, cohort.slides[3])
    order = np.argsort(cohort.slides[3].expression.mean(1))
    steps = np.diff(found[order], axis=0)
    assert ((steps >= -1e-5).all(0) | (steps <= 1e-5).all(0)).all()


def test_halves_share_the_spot_and_not_its_noise(cohort):
    deep = np.log2(np.rint(2.0 ** (cohort.slides[3].expression + 6)) + 1)
    slide = replace(cohort.slides[3], expression=deep)
    first, second = controls.halves(slide, 0)
    counts, total = np.rint(2.0**slide.expression - 1), np.rint((2.0**first + 2.0**second - 2) / 2)
    np.testing.assert_array_equal(total, counts)
    assert (first != second).any()
    assert np.corrcoef(first.mean(1), second.mean(1))[0, 1] > 0.9


def test_a_section_is_its_own_best_replicate(cohort):
    slide = cohort.slides[3]
    same = Cohort((slide,), cohort.features[3:], cohort.genes)
    found = controls.replicates(same, slide)
    assert found["GSC"] == pytest.approx(1)
    assert found["SSC"] == pytest.approx(1)
    assert set(found) < set(score(slide.expression, slide))


def test_without_another_section_there_is_no_replicate(rest, cohort):
    alone = Cohort(rest.slides[:1], rest.features[:1], rest.genes)
    assert np.isnan(list(controls.replicates(alone, cohort.slides[3]).values())).all()
