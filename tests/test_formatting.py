import math

import pytest

from napari_flag.formatting import (
    TYPED,
    area,
    counted,
    counted_of,
    data_size,
    interval,
    length,
    number,
    percent,
    percent_reached,
    probability,
    px,
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
    assert (counted_of(1203, 1204, "spot"), counted_of(1, 1, "spot")) == (
        "1,203 of 1,204 spots",
        "1 of 1 spot",
    )


def test_a_blank_stands_between_a_number_and_its_unit():
    assert (percent(0.384), percent(0.384, 1), percent(math.nan)) == ("38 %", "38.4 %", "–")
    assert [length(um) for um in (55.0, 112.5, 1000.0, 6540.0)] == ["55 µm", "112.5 µm", "1 mm", "6.5 mm"]
    assert (resolution(0.6834), resolution(0.5), resolution(10.0)) == ("0.683 µm/px", "0.5 µm/px", "10 µm/px")
    assert (px((9272, 9920)), px((600.4, 12.0)), px(None)) == (
        "9,272 × 9,920 px",
        "600 × 12 px",
        "unknown size",
    )
    assert [data_size(size) for size in (1.23e9, 1e9, 4.8e8, 7.4e4)] == [
        "1.2 GB",
        "1.0 GB",
        "480 MB",
        "74 kB",
    ]


def test_areas_have_a_unit_and_about_three_digits():
    assert [area(v) for v in (0.1254, 1.254, 125.4)] == ["0.125 mm²", "1.25 mm²", "125 mm²"]
    assert area(1.254, unit=False) == "1.25"
    assert (area(math.nan), area(math.nan, unknown="")) == ("–", "")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.29, "29 %"), (0.518, "51 %"), (0.9999999999, "99 %"), (1.0, "100 %"), (math.nan, "–")],
)
def test_nearly_all_spots_are_not_said_to_be_all(share, text):
    assert percent_reached(share) == text


def test_micrometres_per_pixel_to_type_have_four_decimals_and_what_is_far_too_small_is_not_zero():
    assert [resolution(mpp, TYPED, unit=False) for mpp in (0.68316, 0.5, 10.0)] == ["0.6832", "0.5", "10"]
    assert (resolution(0.0001), resolution(0.00001, unit=False)) == ("0.0001 µm/px", "1e-05")
