import json

import pytest

from flag_training.evaluate import Outcome, Plan, Record
from flag_training.result_tables import metrics_of, read_results, results_of
from napari_flag.errors import UserError

SCORES = {"PCC": 0.5, "MSE": 1.0, "GSC": 0.6, "SSC": 0.4, "cPCC": 0.2, "amplitude": 0.9}
KINDS = ("X", "draws", "X, tiles shuffled", "one draw")


def scores_file(path, section, **plan):
    records = [Record("her2st", "FLAG", kind, "all others", section, 0, SCORES) for kind in KINDS]
    stated = results_of(
        Outcome(tuple(records), ()), Plan((section,), **plan), f"napari-flag evaluate {path.name}"
    )
    path.write_text(json.dumps(stated))
    return path


def test_the_card_tells_sections_and_patients_left_out_apart_with_the_commands_that_did_it(tmp_path):
    files = [
        scores_file(tmp_path / "C2.json", "C2"),
        scores_file(tmp_path / "C3.json", "C3"),
        scores_file(tmp_path / "B4.json", "B4", by_patient=True),
    ]
    stated = metrics_of([read_results(file) for file in files])
    assert set(stated["sections left out one by one, seed 0"]) == {"C2", "C3"}
    assert set(stated["whole patients left out one by one, seed 0"]) == {"B4"}
    assert stated["sections left out one by one, seed 0"]["C2"]["X"]["PCC"] == 0.5
    assert "one draw" not in stated["sections left out one by one, seed 0"]["C2"]
    assert stated["command"] == [f"napari-flag evaluate {file.name}" for file in files]


def test_two_files_with_other_scores_of_one_section_do_not_replace_each_other(tmp_path):
    one, other = (scores_file(tmp_path / f"{name}.json", "C2") for name in "ab")
    held = json.loads(other.read_text())
    held["scores"]["C2"]["X"]["PCC"] = 0.7
    other.write_text(json.dumps(held))
    with pytest.raises(UserError, match="other scores of section C2 left out"):
        metrics_of([read_results(file) for file in (one, other)])


def test_a_file_that_holds_no_scores_is_refused(tmp_path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    with pytest.raises(UserError, match="holds no scores"):
        read_results(wrong)
