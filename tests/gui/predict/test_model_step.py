from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.fakes import FakeSlide

from napari_flag.formatting import resolution
from napari_flag.gui.predict.model_step import (
    ModelStep,
    describe_card,
    describe_encoder,
    differences,
    why_no_estimate,
    why_not_ready,
)
from napari_flag.gui.settings import Preferences, from_settings
from napari_flag.slides.colours import SCANNED, SRGB
from napari_flag.slides.spots import Spots

XY = np.column_stack([np.arange(30.0), np.arange(30) % 3]) * 100
SPOTS = Spots(tuple(map(str, range(30))), XY, diameter_um=100.0, pitch_um=200.0, lattice="none")
CARD = {
    "tissue": "breast",
    "patients": ["C"],
    "sections": ["her2st-C2", "B4"],
    "array": {"technology": "ST", "pitch_um": 200, "diameter_um": 100},
    "um_per_px": 0.683,
}


def slide(mpp=0.683, name="C5"):
    return SimpleNamespace(mpp=mpp, mpp_source="", name=name, path=Path(f"{name}.tif"), reader=FakeSlide)


def model(card=CARD):
    return SimpleNamespace(card=card, name="fake", encoder="embedded", colours=SCANNED)


def test_what_is_missing_is_named_in_the_order_of_the_steps():
    assert why_not_ready(None, None, None, None) == "Open a slide first."
    assert "µm/px" in why_not_ready(slide(None), SPOTS, model(), None)
    assert "step 2" in why_not_ready(slide(), None, None, None)
    assert "step 3" in why_not_ready(slide(), SPOTS, None, None)
    assert "step 4" in why_not_ready(slide(), SPOTS, model(), 0)
    assert why_not_ready(slide(), SPOTS, model(), None) is None


def test_a_slide_like_the_training_gives_no_warning():
    assert differences(model(), slide(0.72), SPOTS) == ()


@pytest.mark.parametrize("mpp", [0.25, 0.9])
def test_finer_and_coarser_slides_are_warned_of(mpp):
    (sentence,) = differences(model(), slide(mpp), SPOTS)
    assert resolution(mpp) in sentence


def test_another_pitch_and_a_training_section_are_warned_of():
    spots = Spots(SPOTS.ids, XY, diameter_um=100.0, pitch_um=100.0, lattice="none")
    trained, pitch = differences(model(), slide(name="c2"), spots)
    assert "c2 is among the sections these weights were trained on" in trained
    assert "100 µm" in pitch


def test_of_sections_that_differ_the_page_compares_with_the_range_they_span():
    array = {"technology": "ST", "pitch_um": [100.0, 200.0], "diameter_um": [55.0, 100.0]}
    differing = model(CARD | {"array": array, "um_per_px": [0.25, 0.683]})
    between = Spots(SPOTS.ids, XY, diameter_um=80.0, pitch_um=150.0, lattice="none")
    assert differences(differing, slide(0.5), between) == ()
    wide = Spots(SPOTS.ids, XY, diameter_um=80.0, pitch_um=400.0, lattice="none")
    pitch, scale = differences(differing, slide(2.0), wide)
    assert "is 400 µm, but the model was trained on 100 µm to 200 µm:" in pitch
    assert "coarser than the 0.25 µm/px to 0.683 µm/px of the training slides" in scale


@pytest.mark.parametrize("array", [None, {}, "Visium", {"pitch_um": None}])
def test_a_card_without_an_array_is_shown_and_compared_without_one(array):
    silent = model(CARD | {"array": array, "um_per_px": None})
    assert differences(silent, slide(), SPOTS) == ()
    assert describe_card(silent.card, 9)[1] == "array not stated"


def test_a_grid_is_doubted_where_the_card_does_not_state_one_distance():
    grid = Spots(SPOTS.ids, XY, diameter_um=100.0, pitch_um=200.0, lattice="square", laid=True)
    assert differences(model(), slide(), grid) == ()
    (unknown,) = differences(model(CARD | {"array": None}), slide(), grid)
    assert "do not state how far apart the spots they were trained on lie" in unknown
    assert "--spacing" in unknown
    (several,) = differences(model(CARD | {"array": {"pitch_um": [100.0, 200.0]}}), slide(), grid)
    assert "a grid of 200 µm, and the weights were trained on arrays with 100 µm to 200 µm" in several


def test_the_card_says_what_is_not_stated():
    trained, array, genes, licence = describe_card(CARD, 1234)
    assert trained == "Trained on breast: 1 patient, 2 sections"
    assert array == "ST, pitch 200 µm, Ø 100 µm, 0.683 µm/px"
    assert genes == "1,234 genes · encoder not stated"
    assert licence == "Licence not stated (weights)"


def test_lengths_of_the_card_are_written_as_everywhere_and_what_differs_as_a_range():
    array = {"technology": "ST", "pitch_um": [99.8312, 1000], "diameter_um": 55.04}
    _, line, *_ = describe_card(CARD | {"array": array, "um_per_px": [0.5, 0.68316]}, 9)
    assert line == "ST, pitch 99.8 µm to 1 mm, Ø 55 µm, 0.5 µm/px to 0.683 µm/px"


def test_another_method_than_flag_is_named_and_so_is_what_its_weights_hold():
    card = CARD | {"method": "BLEEP", "reference_bank": "the expression measured on 9 training spots"}
    lines = describe_card(card, 9)
    assert lines[0] == "Method BLEEP"
    assert lines[-1] == "Holds the expression measured on 9 training spots"


def test_one_licence_of_weights_and_encoder_is_said_once():
    card = CARD | {"licence": "BSD-3-Clause", "encoder": {"name": "embedded", "licence": "BSD-3-Clause"}}
    assert describe_card(card, 9)[-1] == "Licence BSD-3-Clause (weights and encoder)"
    card["encoder"] = {"name": "UNI", "licence": "CC BY-NC-ND 4.0"}
    assert describe_card(card, 9)[-1] == "Licence BSD-3-Clause (weights), CC BY-NC-ND 4.0 (encoder)"


def test_the_card_of_simulated_tissue_names_no_patients():
    card = {"tissue": "none: synthetic H&E", "patients": [], "sections": ["sim1", "sim2"]}
    assert describe_card(card, 65)[0] == "Trained on synthetic H&E: 2 sections"


def test_estimating_the_scale_needs_a_known_array():
    assert "array" in why_no_estimate(slide(), SPOTS)
    array = np.column_stack([np.zeros(30, int), np.arange(30)])
    known = Spots(SPOTS.ids, XY, pitch_um=200.0, lattice="square", array=array)
    assert why_no_estimate(slide(), known) is None


def test_preferences_keep_their_default_where_a_value_is_missing_or_not_valid():
    group = SimpleNamespace(device="tpu", quality="best", weights=" ")
    assert from_settings(SimpleNamespace(prediction=group)) == Preferences(quality="best")
    assert from_settings(None) == Preferences()


def test_insisting_on_spots_ends_with_another_table_that_begins_alike(qtbot):
    step = ModelStep()
    qtbot.addWidget(step)
    array = np.array([(row, column) for row in range(1, 7) for column in range(1, 7)])
    ids = tuple(f"{row}x{column}" for row, column in array)  # where column × row is meant
    wrong = Spots(ids, array * 100.0, pitch_um=200.0, lattice="square", array=array)
    again = replace(wrong, ids=tuple(ids), xy=wrong.xy.copy())
    step.offer_anyway(FakeSlide(), wrong)
    step._anyway.click()
    step.offer_anyway(FakeSlide(), replace(wrong, pitch_um=100.0))
    assert step.anyway, "the same table at another µm/px"
    step.offer_anyway(FakeSlide(), again)
    assert not step.anyway
    assert not step._anyway.isHidden()


def test_a_gated_encoder_is_shown_with_licence_page_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_FLAG_ENCODERS", str(tmp_path))
    monkeypatch.setattr("napari_flag.encoders.foundation.hub.HuggingFace.find_cached", lambda *_: None)
    licence, weights = describe_encoder("virchow2")
    assert "CC-BY-NC-ND-4.0" in licence
    assert "must be asked for at https://huggingface.co/paige-ai/Virchow2" in licence
    assert "not on this computer" in weights
    assert "encoders download virchow2" in weights
    (tmp_path / "virchow2").mkdir()
    (tmp_path / "virchow2" / "model.safetensors").write_bytes(b"weights")
    assert "found in the local folder" in describe_encoder("virchow2")[1]


def test_the_embedded_encoder_needs_no_word_and_an_unknown_one_does():
    assert describe_encoder("embedded") == ()
    assert "unicorn" in describe_encoder("unicorn")[0]


def test_colours_are_offered_for_slides_with_a_profile_and_start_as_the_model_was_trained(qtbot):
    step = ModelStep()
    qtbot.addWidget(step)
    scanned, profiled = FakeSlide(), FakeSlide()
    profiled.profile = b"of a scanner"
    step.offer_colours(profiled)
    assert step.colours is None  # no model yet
    for trained in (SCANNED, SRGB):
        step._checkpoint = SimpleNamespace(sha256=trained, colours=trained)
        step.offer_colours(profiled)
        assert step.colours == trained
        step.offer_colours(scanned)
        assert step.colours is None
    step.offer_colours(profiled)
    with qtbot.waitSignal(step.optionChanged):
        step._srgb.click()
    step.offer_colours(profiled)  # what was chosen stays chosen
    assert step.colours == SCANNED


def test_other_colours_than_the_models_are_a_doubt():
    [said] = [s for s in differences(model(), slide(), None, colours=SRGB) if "trained on colours" in s]
    assert said.endswith("so its numbers may be off.")
    assert not any("colours" in s for s in differences(model(), slide(), None))
