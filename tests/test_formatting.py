import math

import pytest

from napari_flag.formatting import (
    area,
    counted,
    data_size,
    interval,
    length,
    number,
    percent,
    probability,
    resolution,
    whole,
)


def test_a_number_has_its_decimals_and_no_negative_zero():
    assert (number(0.254), number(0.2541, 3)) == ("0.25", "0.254")
    assert (number(-0.001), number(-0.0004, 3)) == ("0.00", "0.000")
    assert number(-0.25) == "−0.25"  # a minus sign, not a hyphen


def test_what_is_not_known_is_a_dash_or_the_word_given():
    assert [write(math.nan) for write in (number, probability, whole)] == ["–", "–", "–"]
    assert number(math.nan, 3, "not defined") == "not defined"
    assert interval((math.nan, math.nan)) == interval(None) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.25"),
        (0.01, "0.01"),
        (0.0098, "0.01"),
        (0.0042, "0.004"),
        (0.00098, "0.001"),
        (0.00002, "2e-05"),
    ],
)
def test_small_probabilities_stay_readable(value, text):
    assert probability(value) == text


def test_intervals_and_whole_numbers():
    assert interval((0.1234, -0.001)) == "[0.12, 0.00]"
    assert interval((0.1234, 0.5), 3) == "[0.123, 0.500]"
    assert whole(1204.0) == "1,204"
    assert number(1204.5, 1) == "1,204.5"


def test_counts_name_one_and_many():
    assert [counted(n, "spot") for n in (0, 1, 1204)] == ["0 spots", "1 spot", "1,204 spots"]


def test_a_blank_stands_between_a_number_and_its_unit():
    assert (percent(0.384), percent(0.384, 1), percent(math.nan)) == ("38 %", "38.4 %", "–")
    assert [length(um) for um in (55.0, 112.5, 1000.0, 6540.0)] == ["55 µm", "112.5 µm", "1 mm", "6.5 mm"]
    assert (resolution(0.6834), resolution(0.5), resolution(10.0)) == ("0.683 µm/px", "0.5 µm/px", "10 µm/px")
    assert [data_size(size) for size in (1.23e9, 1e9, 4.8e8, 10)] == ["1.2 GB", "1.0 GB", "480 MB", "0 MB"]


def test_areas_have_a_unit_and_about_three_digits():
    assert [area(v) for v in (0.1254, 1.254, 125.4)] == ["0.125 mm²", "1.25 mm²", "125 mm²"]
    assert area(1.254, unit=False) == "1.25"
    assert (area(math.nan), area(math.nan, unknown="")) == ("–", "")
