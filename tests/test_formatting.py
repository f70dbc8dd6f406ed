import math

import pytest

from napari_flag.formatting import interval, number, probability, whole


def test_a_number_has_its_decimals_and_no_negative_zero():
    assert (number(0.254), number(0.2541, 3)) == ("0.25", "0.254")
    assert (number(-0.001), number(-0.0004, 3)) == ("0.00", "0.000")
    assert number(-0.25) == "-0.25"


def test_what_is_not_known_is_a_dash_or_the_word_given():
    assert [write(math.nan) for write in (number, probability, whole)] == ["–", "–", "–"]
    assert number(math.nan, 3, "not defined") == "not defined"
    assert interval((math.nan, math.nan)) == interval(None) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.25"), (0.01, "0.01"), (0.0042, "0.004"), (0.00002, "2e-05")]
)
def test_small_probabilities_stay_readable(value, text):
    assert probability(value) == text


def test_intervals_and_whole_numbers():
    assert interval((0.1234, -0.001)) == "[0.12, 0.00]"
    assert interval((0.1234, 0.5), 3) == "[0.123, 0.500]"
    assert whole(1204.0) == "1,204"
