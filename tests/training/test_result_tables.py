import json

import pytest

from flag_training.evaluate import Plan, Record
from flag_training.result_tables import markdown, read_results, results_of
from napari_flag.errors import UserError

ZERO = {"PCC": 0.0, "MSE": 2.0, "GSC": 0.0, "SSC": 0.0, "cPCC": 0.0, "amplitude": 0.0}


def record(method, pcc, kind="FLAG", training="all others", section="C2", seed=0, **scores):
    return Record("her2st", kind, method, training, section, seed, ZERO | {"PCC": pcc} | scores)


RECORDS = [
    record("X", 0.6, MSE=0.9, coverage_50=0.5, coverage_80=0.8, coverage_95=0.9, **{"spread/error": 1.0}),
    record("X", 0.7, MSE=0.9, section="C3"),
    record("X", 0.8, MSE=0.9, seed=1),
    record("X", 0.7, MSE=0.9, section="C3", seed=1),
    record("X, turned and re-stained 1", 0.5),
    record("X, turned and re-stained 2", 0.3),
    record("ridge", 0.5, "floor", MSE=0.8),
    record("ridge", 0.55, "floor", training="without B4", MSE=0.85),
    record("replicate sections", float("nan"), "landmark"),
]
PLAN = Plan(("C2", "C3"), seeds=(0, 1))


@pytest.fixture
def told(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(
        json.dumps(results_of(RECORDS, PLAN, "napari-flag evaluate some.toml", 10), allow_nan=False)
    )
    return path


def line_of(page, start):
    return next(line for line in page.splitlines() if line.startswith(start))


def test_records_come_back_as_they_were(told):
    back = read_results(told)["records"]
    assert back[0] == RECORDS[0]
    assert back[-1].scores["PCC"] != back[-1].scores["PCC"]  # NaN


def test_the_mean_over_sections_is_told_with_its_spread_over_seeds(told):
    page = markdown([read_results(told)], "Scores")
    assert "| X | all others | 0.700 ± 0.071 |" in page  # (0.65, 0.75): mean and sd


def test_a_floor_stands_with_its_better_training_set(told):
    page = markdown([read_results(told)], "Scores")
    assert line_of(page, "| ridge |").startswith("| ridge | without B4 | 0.550 |")


def test_turned_views_are_one_row(told):
    assert "| X, turned and re-stained | all others | 0.400 |" in markdown([read_results(told)], "Scores")


def test_the_lead_over_the_best_rival_has_the_sign_of_better(told):
    page = markdown([read_results(told)], "Scores")
    assert line_of(page, "| all others | PCC |").endswith("| ridge (without B4) | +0.150 |")
    assert line_of(page, "| all others | MSE |").endswith("| -0.050 |")


def test_command_seeds_and_split_are_in_the_header(told):
    page = markdown([read_results(told)], "Scores")
    assert "`napari-flag evaluate some.toml` (sections left out one by one; seeds 0, 1; 10 samples)" in page


def test_unknown_values_are_dashes_and_null(told):
    assert "| replicate sections | all others | – |" in markdown([read_results(told)], "Scores")
    assert json.loads(told.read_text())["records"][-1]["scores"]["PCC"] is None


def test_the_card_gets_mean_over_seeds_per_section(told):
    scores = json.loads(told.read_text())["scores"]
    assert scores["C2"]["X"]["PCC"] == pytest.approx(0.7)
    assert set(scores) == {"C2", "C3"}


def test_runs_of_an_ablation_are_told_apart(told):
    other = read_results(told)
    other["records"] = [
        Record(
            "without_graph", *[getattr(r, f) for f in ("kind", "method", "training", "section", "seed")], ZERO
        )
        for r in other["records"]
    ]
    page = markdown([read_results(told), other], "Ablations", only=["X"])
    assert "| her2st: X |" in page
    assert "| without_graph: X | all others | 0.000" in page
    assert "ridge" not in page


@pytest.mark.parametrize("text", ["", "[]", '{"records": [{}]}'])
def test_what_is_no_scores_is_refused(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError, match="holds no scores"):
        read_results(path)


def test_missing_scores_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "none.json")
