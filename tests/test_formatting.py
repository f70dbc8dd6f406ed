import math

import numpy as np
import pytest

from napari_flag.formatting import (
    TYPED,
    area,
    as_code,
    counted,
    counted_of,
    data_size,
    difference,
    duration,
    entry,
    entry_name,
    first_of,
    in_markdown,
    interval,
    length,
    number,
    percent,
    percent_reached,
    probability,
    px,
    resolution,
    score,
    whole,
)


def test_a_number_has_its_decimals_and_no_negative_zero():
    assert (number(0.254), number(0.2541, 3)) == ("0.25", "0.254")
    assert (number(-0.001), number(-0.0004, 3)) == ("0.00", "0.000")
    assert number(-0.25) == "−0.25"  # a minus sign, not a hyphen


def test_what_is_not_known_is_a_dash_or_the_word_given():
    assert [write(math.nan) for write in (number, probability, whole)] == ["–", "–", "–"]
    assert number(math.nan, 3, "not defined") == "not defined"
    assert interval((math.nan, math.nan), "PCC") == interval(None, "PCC") == ""


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


def test_whole_numbers_have_a_comma_at_every_thousand():
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


def test_scores_have_three_decimals_those_that_differ_late_four_and_fair_ones_as_many():
    for name in ("PCC", "SSC", "ES", "Moran's I", "ARI", "amplitude"):
        assert score(0.70449, name) == "0.704"
    for name in ("CRPS", "VS-gene", "VS-space", "CRPS fair"):
        assert score(-0.51336, name) == "−0.5134"
    assert score(0.7, "PCC", sd=0.0012) == "0.700 ± 0.001"
    assert score(0.7, "CRPS", sd=0.0012) == "0.7000 ± 0.0012"
    assert (score(math.nan, "PCC", sd=0.1), score(math.nan, "PCC", "not defined")) == ("–", "not defined")


def test_intervals_have_the_decimals_of_their_score():
    assert (interval((0.1234, -0.0001), "SSC"), interval((0.1234, 0.5), "CRPS")) == (
        "[0.123, 0.000]",
        "[0.1234, 0.5000]",
    )


def test_differences_of_scores_have_a_sign_and_none_where_they_round_to_nothing():
    assert difference(0.01234, (-0.001, 0.02)) == "+0.0123 [−0.0010, +0.0200]"
    assert (difference(-0.5, error=0.01), difference(0.00001), difference(-0.00001)) == (
        "−0.5000 ± 0.0100",
        "0.0000",
        "0.0000",
    )
    assert difference(math.nan, (math.nan, math.nan)) == "–"
    assert difference(0.1, (math.nan, math.nan)) == "+0.1000", "an interval that is not known is none"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (42.4, "42 s"),
        (59.8, "1 min"),
        (372, "6 min 12 s"),
        (3599.8, "1 h"),
        (7384, "2 h 3 min"),
    ],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert duration(seconds) == text


def test_records_say_micrometres_and_lists_in_words():
    assert [entry_name(key) for key in ("um_per_px", "pitch_um", "umbrella_number")] == [
        "µm per px",
        "pitch µm",
        "umbrella number",
    ]
    assert entry({"pitch_um": 200.0, "seeds": [0, 1], "unseen": [], "depth": None}) == (
        "pitch µm 200, seeds 0, 1, unseen none, depth none"
    )
    assert entry(np.array([0.5, 2.0])) == "0.5, 2"
    assert entry(math.nan) == "–"


def test_hashes_in_a_list_are_shown_by_their_first_digits_and_one_alone_is_whole():
    one, other = "0123456789ab" + "c" * 52, "f" * 64
    assert entry([one, other]) == "0123456789ab…, ffffffffffff…"
    assert entry(one) == one
    assert entry(["f" * 63, other[:12]]) == "f" * 63 + ", " + "f" * 12


def test_a_name_of_many_lines_is_one_line_and_cut():
    said = first_of(["A", "b\nc" * 100, "D"], 2)
    assert said.startswith("A, b␊cb␊c")
    assert said.endswith("…, …")
    assert len(said) < 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("[x](javascript:alert(1)) ![i](http://e/x)", "[x\\](javascript:alert(1)) ![i\\](http://e/x)"),
        ("a\r\nb|c\n# h", "a␍␊b\\|c␊# h"),
        ("\x1b[2J\u202e", "␛[2J\ufffd"),
        ("**b** _i_ __b__ `a``b`", "\\*\\*b\\*\\* \\_i\\_ \\_\\_b\\_\\_ `a``b`"),
        ("a{: onclick=x }&lt;\\", "a\\{: onclick=x }&amp;lt;\\\\"),
    ],
)
def test_nothing_in_a_text_of_a_file_acts_in_markdown(text, shown):
    assert in_markdown(text) == shown


@pytest.mark.parametrize(
    "name",
    [
        "C5",
        "kNN, k = 10",
        "`X`",
        "`X`, tiles shuffled",
        "her2st_C5",
        "R&D #3",
        "0.5 [0.4, 0.6]",
        "Frau Groß (1)",
    ],
)
def test_ordinary_names_stay_as_they_are_in_markdown(name):
    assert in_markdown(name) == name


def test_a_command_with_backquotes_and_ends_of_lines_is_one_piece_of_code():
    assert as_code("napari-flag tables s.json") == "`napari-flag tables s.json`"
    assert as_code("a `x`\n<!-- ``y") == "``` a `x`␊<!-- ``y ```"
