import numpy as np
import pytest

from napari_flag.gui.controls.plots import Axis, axis_over, bin_edges, ticks


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.13, 0.72), (0, 4321), (2.001, 2.004), (-5e-7, 3e-7)])
def test_ticks_are_few_inside_and_evenly_spaced(low, high):
    marks = [value for value, _ in ticks(low, high, 5)]
    assert 2 <= len(marks) <= 6
    assert low - 1e-12 <= marks[0]
    assert marks[-1] <= high + 1e-12
    assert np.allclose(np.diff(marks), np.diff(marks)[0])


def test_ticks_are_written_as_what_they_are():
    for value, text in (*ticks(-0.1, 0.4), *ticks(0, 0.5, 2), *ticks(0, 30_000)):
        assert float(text.replace("−", "-")) == pytest.approx(value)
    assert ("−0.1") in [text for _, text in ticks(-0.1, 0.4)]


def test_an_axis_has_room_for_all_values_and_knows_their_place():
    axis = axis_over(np.array([1.0, np.nan, 3.0]))
    assert axis.low < 1 < 3 < axis.high
    assert Axis(0, 4).fraction([0, 1, 4]).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("values", [np.full(4, 2.0), np.array([np.nan]), np.array([])])
def test_an_axis_over_nothing_or_one_value_still_has_a_length(values):
    axis = axis_over(values)
    assert axis.high > axis.low
    assert len(bin_edges(values)) >= 2


def test_bins_hold_every_value_once():
    values = np.random.default_rng(0).normal(size=500)
    counts, _ = np.histogram(values, bin_edges(values))
    assert counts.sum() == 500
    assert len(counts) <= 31
