from dataclasses import replace

import numpy as np
from tests.fakes import FakeSlide, counts_for, fake_prediction

from napari_flag.gui.predict import steps
from napari_flag.gui.predict.steps import SlideStep, SpotsStep, describe_slide, describe_spots
from napari_flag.inputs import LEGACY_ST
from napari_flag.prediction_file import spots_of
from napari_flag.slides.spots import Spots, SpotTable


def spots(n, pitch=99.8312, diameter=1500.0):
    return Spots(tuple(map(str, range(n))), np.zeros((n, 2)), diameter, pitch, "none")


def test_spots_and_their_lengths_are_written_as_everywhere():
    assert describe_spots(spots(1), "Visium") == "1 spot · Visium · pitch 99.8 µm, Ø 1.5 mm"
    assert describe_spots(spots(1204, None, None), "") == "1,204 spots · pitch and diameter unknown"


def test_a_slide_is_described_by_its_pixels_and_its_size_on_the_glass():
    slide = FakeSlide(1500, 1200, mpp=0.5)
    assert describe_slide(slide) == "1,500 × 1,200 px · 750 µm × 600 µm · 3 levels"
    slide.size, slide.mpp, slide.levels = (9272, 9920), 0.683, ((9272, 9920),)
    assert describe_slide(slide) == "9,272 × 9,920 px · 6.3 mm × 6.8 mm · 1 level"


def test_a_grid_begins_with_pitch_and_diameter_of_legacy_st(qtbot):
    step = SpotsStep()
    qtbot.addWidget(step)
    grid, _ = step.grid()
    assert (grid.spacing_um, grid.diameter_um) == (LEGACY_ST.spacing_um, LEGACY_ST.diameter_um)


def test_measured_expression_is_looked_at_as_where_it_is_compared(qtbot):
    step = SpotsStep()
    qtbot.addWidget(step)
    prediction = fake_prediction(36)
    table = SpotTable(spots_of(prediction), None, "a table")
    step.show_choice(table, counts_for(prediction))
    assert step.messages.texts == ("Measured expression of 36 spots, 10 genes, to compare.",)
    scaled = counts_for(prediction)
    scaled.X = scaled.X * 10
    step.show_choice(table, scaled)
    assert "were scaled; the Compare page uses them only if you insist." in step.messages.texts[-1]
    step.show_choice(table, counts_for(prediction)[:2].copy())
    assert "too few to compare" in step.messages.texts[-1]


def test_counts_are_looked_at_once_for_their_spots_however_often_they_are_shown(qtbot, monkeypatch):
    looked, look = [], steps.look_at_counts
    monkeypatch.setattr(steps, "look_at_counts", lambda *given: looked.append(given) or look(*given))
    step = SpotsStep()
    qtbot.addWidget(step)
    prediction = fake_prediction(36)
    table = SpotTable(spots_of(prediction), None, "a table")
    for counts in (counts_for(prediction), counts_for(prediction)[:2].copy()):
        step.show_choice(table, counts)
        said = step.messages.texts
        step.show_choice(replace(table, notices=("Another µm/px.",)), counts)
        assert step.messages.texts == ("Another µm/px.", *said)
    assert len(looked) == 2
    step.show_choice(SpotTable(spots_of(prediction), None, "others"), counts)
    assert len(looked) == 3


def test_step_1_says_only_the_doubts_about_the_scale_that_it_is_given(qtbot):
    step = SlideStep()
    qtbot.addWidget(step)
    slide = FakeSlide(1500, 1200, mpp=4.667)  # a reduced picture, as step 2 says once it has the array
    step.show_slide(slide)
    assert step.messages.texts == ()
    step.show_slide(slide, ["4.667 µm/px is outside the range of slide scanners."])
    assert len(step.messages.texts) == 1


def test_the_scale_shown_is_that_of_the_full_resolution_slide(qtbot):
    step = SlideStep()
    qtbot.addWidget(step)
    step.show_slide(FakeSlide(mpp=2.5), scale=0.2)
    assert step.mpp.value == 0.5
