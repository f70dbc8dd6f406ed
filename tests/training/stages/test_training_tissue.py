import dataclasses

import numpy as np
import pytest
import torch
from tests.training.conftest import make_slide

from flag_training.cohort import Cohort
from flag_training.stages.training_tissue import describe_for_card, fit_familiarity, left_out


def cohort_of(*who, side=8):
    made = [make_slide(name, patient, seed, side) for name, patient, seed in who]
    return Cohort(tuple(s for s, _ in made), tuple(f for _, f in made), tuple("ABCDE"))


FIVE = cohort_of(("B4", "B", 1), ("C2", "C", 2), ("C3", "C", 3), ("C4", "C", 4), ("C5", "C", 5))


def without(cohort, name):
    kept = [i for i, slide in enumerate(cohort.slides) if slide.entry.name != name]
    return Cohort(
        tuple(cohort.slides[i] for i in kept), tuple(cohort.features[i] for i in kept), cohort.genes
    )


def features_of(cohort, name):
    place = [slide.entry.name for slide in cohort.slides].index(name)
    return cohort.features[place][0].numpy()


@pytest.mark.parametrize("name", ["C2", "C5"])
def test_a_section_left_out_is_familiar_and_its_score_is_calibrated(name):
    stated = fit_familiarity(without(FIVE, name)).score(features_of(FIVE, name))
    assert stated.share < 0.2
    assert np.median(stated.unlike) == pytest.approx(0.5, abs=0.2)


def test_other_features_are_not(cohort):
    familiarity = fit_familiarity(FIVE)
    seen = features_of(FIVE, "C3")
    assert familiarity.score(seen + 10).mostly_unlike
    assert familiarity.score(5 * seen).mostly_unlike
    assert familiarity.score(seen[:, ::-1] * 3).mostly_unlike


def test_only_the_slides_as_they_are_teach_it():
    other = tuple(torch.stack([views[0], 100 * views[1]]) for views in FIVE.features)
    one, two = fit_familiarity(FIVE), fit_familiarity(dataclasses.replace(FIVE, features=other))
    for name, tensor in one.tensors().items():
        torch.testing.assert_close(two.tensors()[name], tensor)


def test_sections_are_left_out_whole_and_a_patients_only_one_in_strips():
    parts = left_out(FIVE)
    assert [[int(mask.sum()) for mask in part] for part in parts] == [
        [22, 0, 0, 0, 0],
        [21, 0, 0, 0, 0],
        [21, 0, 0, 0, 0],
        [0, 64, 0, 0, 0],
        [0, 0, 64, 0, 0],
        [0, 0, 0, 64, 0],
        [0, 0, 0, 0, 64],
    ]
    assert "strips" in str(describe_for_card(FIVE)["calibrated_on"])


def test_from_five_patients_on_whole_patients_are_left_out():
    many = cohort_of(*((f"{patient}{i}", patient, i) for patient in "ABCDE" for i in (1, 2)), side=4)
    parts = left_out(many)
    assert [[int(mask.sum()) for mask in part] for part in parts[:2]] == [
        [16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 16, 16, 0, 0, 0, 0, 0, 0],
    ]
    assert describe_for_card(many)["calibrated_on"] == "5 left out in turn: patients"


def test_one_section_alone_is_enough():
    lone = cohort_of(("A1", "A", 1))
    familiarity = fit_familiarity(lone)
    assert len(familiarity.reach) == 64
    assert familiarity.score(features_of(lone, "A1") + 10).mostly_unlike


def test_a_feature_that_never_varied_in_training_says_nothing():
    constant = tuple(torch.cat([views, torch.full((2, 64, 1), 3.0)], 2) for views in FIVE.features)
    familiarity = fit_familiarity(dataclasses.replace(FIVE, features=constant))
    seen = np.concatenate([features_of(FIVE, "C3"), np.full((64, 1), 7.0, np.float32)], 1)
    assert familiarity.spread[-1].isinf()
    assert familiarity.score(seen).share < 0.2


def test_many_spots_leave_a_table_of_quantiles(monkeypatch):
    monkeypatch.setattr("flag_training.stages.training_tissue.QUANTILES", 101)
    familiarity = fit_familiarity(FIVE)
    assert len(familiarity.reach) == len(familiarity.reach_aligned) == 101
    assert (familiarity.reach.diff() >= 0).all()
    assert fit_familiarity(FIVE).score(features_of(FIVE, "C2")).share < 0.2
