import numpy as np
import pytest

from flag_training.store.splits import Split, share_out, split_patients, split_slides
from napari_flag.errors import UserError

NAMES = [f"S{i:02d}" for i in range(36)]
PATIENTS = {name: "ABCDEFGH"[i // 6 if i < 24 else 4 + (i - 24) // 3] for i, name in enumerate(NAMES)}


def draw(seed=0):
    return np.random.default_rng(seed)


def parts(split):
    return split.train, split.validation, split.test


def test_the_papers_shares_of_36_slides():
    split = split_slides(NAMES, (7, 2, 1), draw())
    assert [len(part) for part in parts(split)] == [25, 7, 4]
    assert sorted(sum(parts(split), ())) == NAMES


def test_the_same_seed_splits_alike_whatever_the_order_and_another_otherwise():
    one = split_slides(NAMES, (7, 2, 1), draw())
    assert split_slides(NAMES[::-1], (7, 2, 1), draw()) == one
    assert split_slides(NAMES, (7, 2, 1), draw(1)) != one
    assert split_patients(dict(reversed(PATIENTS.items())), (7, 2, 1), draw()) == split_patients(
        PATIENTS, (7, 2, 1), draw()
    )


@pytest.mark.parametrize("seed", range(10))
def test_no_patient_is_in_two_parts_and_none_is_empty(seed):
    split = split_patients(PATIENTS, (7, 2, 1), draw(seed))
    seen = [{PATIENTS[name] for name in part} for part in parts(split)]
    assert all(seen)
    assert sum(map(len, seen)) == len(set(PATIENTS.values()))
    assert sorted(sum(parts(split), ())) == NAMES
    assert 22 <= len(split.train) <= 28


@pytest.mark.parametrize("seed", range(5))
def test_a_slide_held_for_testing_is_only_ever_tested_on(seed):
    by_slide = split_slides(NAMES, (7, 2, 1), draw(seed), ["S13"])
    by_patient = split_patients(PATIENTS, (7, 2, 1), draw(seed), ["S13"])
    assert "S13" in by_slide.test
    assert [len(part) for part in parts(by_slide)] == [25, 7, 4]
    assert {name for name in NAMES if PATIENTS[name] == PATIENTS["S13"]} <= set(by_patient.test)
    assert by_patient.train
    assert by_patient.validation


def test_three_slides_give_one_to_each_part():
    assert [len(part) for part in parts(split_slides(["a", "b", "c"], (7, 2, 1), draw()))] == [1, 1, 1]
    assert share_out(12, (7, 2, 1)) == [9, 2, 1]


def test_a_split_that_cannot_be_made_says_why():
    two = split_patients({"a": "P", "b": "P", "c": "Q"}, (7, 2, 1), draw())
    assert two.unmade == "2 patients cannot be split into 3 parts."
    unknown = split_patients({"a": "P", "b": None, "c": "Q"}, (7, 2, 1), draw())
    assert "patient of b is not known" in unknown.unmade
    with pytest.raises(UserError, match="2 patients"):
        two.part("test")
    with pytest.raises(UserError, match='no part "all"'):
        Split(("a",), ("b",), ("c",)).part("all")
