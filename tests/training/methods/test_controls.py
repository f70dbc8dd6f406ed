from dataclasses import replace

import numpy as np
import pytest

from flag_training.cohort import Cohort
from flag_training.methods import blinded, controls
from flag_training.methods.controls import IMAGE_BLIND, Pasted, centred_array
from flag_training.scoring import score
from napari_flag.errors import UserError
from napari_flag.progress import finish


@pytest.fixture(scope="module")
def rest(cohort):
    return Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)


def paste(method, rest, slide):
    return finish(method.fit(rest, 0))(blinded(slide), np.full((len(slide.spots), 1), np.nan))


def test_sections_of_the_same_patient_are_pasted_place_by_place(rest, cohort):
    found = paste(Pasted(), rest, cohort.slides[3])
    expected = (cohort.slides[1].expression + cohort.slides[2].expression) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_section_pasted_is_that_section(rest, cohort):
    np.testing.assert_array_equal(
        paste(Pasted(last_only=True), rest, cohort.slides[3]), rest.slides[2].expression
    )


def test_mirroring_turns_each_row_of_the_array_round(rest, cohort):
    straight = paste(Pasted(), rest, cohort.slides[3]).reshape(6, 6, -1)
    mirrored = paste(IMAGE_BLIND["other sections pasted mirrored"], rest, cohort.slides[3])
    np.testing.assert_allclose(mirrored.reshape(6, 6, -1), straight[:, ::-1], atol=1e-6)


def test_another_patient_is_pasted_when_there_is_no_section_of_its_own(rest, cohort):
    alone = Cohort(rest.slides[:1], rest.features[:1], rest.genes)
    np.testing.assert_array_equal(paste(Pasted(), alone, cohort.slides[3]), rest.slides[0].expression)


def test_without_array_the_place_on_the_glass_counts(cohort):
    slide = cohort.slides[3]
    bare = replace(slide, spots=replace(slide.spots, array=None))
    np.testing.assert_allclose(centred_array(bare), centred_array(slide), atol=0.01)


def test_nothing_to_paste_is_said(cohort):
    with pytest.raises(UserError, match="no section left to paste"):
        finish(Pasted().fit(Cohort((), (), cohort.genes), 0))


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


def test_constants_of_the_section_itself_agree_with_it_and_are_averaged_over_sections(cohort):
    slide = cohort.slides[3]
    alone = Cohort((slide,), cohort.features[3:], cohort.genes)
    assert controls.Constants.of(alone).scores(slide) == pytest.approx({"GSC": 1, "SSC": 1})
    first, both = (
        controls.Constants.of(Cohort(cohort.slides[:n], cohort.features[:n], cohort.genes)) for n in (1, 2)
    )
    second = controls.Constants.of(Cohort(cohort.slides[1:2], cohort.features[1:2], cohort.genes))
    np.testing.assert_allclose(both.together, (first.together + second.together) / 2)
    np.testing.assert_allclose(both.clustered, (first.clustered + second.clustered) / 2)
