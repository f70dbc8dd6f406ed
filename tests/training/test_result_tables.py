import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from flag_training.evaluate import Comparison, Outcome, Plan, Record
from flag_training.result_tables import markdown, read_results, read_several, results_of
from flag_training.scoring import COMPARED, FAIR
from napari_flag.analysis.scores import PROPER
from napari_flag.errors import UserError
from napari_flag.formatting import in_markdown

ZERO = {"PCC": 0.0, "MSE": 2.0, "GSC": 0.0, "SSC": 0.0, "cPCC": 0.0, "amplitude": 0.0}
OF_DRAWS = dict.fromkeys((*PROPER, *FAIR), 1.0) | {"GSC": 0.8, "SSC": 0.5, "amplitude": 1.0}
WITHOUT = "without B4"


def record(method, pcc, kind="FLAG", training="all others", section="C2", seed=0, intervals=None, **scores):
    stated = ZERO | {"PCC": pcc} | scores
    return Record("her2st", kind, method, training, section, seed, stated, intervals or {})


def draws(method, es, kind="rival", training="all others", section="C2", **scores):
    stated = OF_DRAWS | {"ES": es} | scores
    return Record("her2st", kind, method, training, section, 0, stated, {"ES": (es - 1, es + 1)})


def comparison(rival, es, training="all others", section="C2", kind="rival", seed=0, other=0.0):
    """FLAG's draws less a rival's: the energy score as given, the others sure to be `other`."""
    differences = dict.fromkeys(COMPARED, (other, other, other)) | {"ES": es}
    return Comparison("her2st", "all others", section, seed, kind, rival, training, differences)


RECORDS = (
    record(
        "X", 0.6, MSE=0.9, coverage_50=0.5, coverage_80=0.8, coverage_95=0.9, intervals={"PCC": (0.55, 0.66)}
    ),
    record("X", 0.7, MSE=0.9, section="C3", coverage_50=0.5, coverage_80=0.8, coverage_95=0.9),
    record("X", 0.8, MSE=0.9, seed=1, intervals={"PCC": (0.7, 0.85)}),
    record("X", 0.7, MSE=0.9, section="C3", seed=1),
    record("X, turned and re-stained 1", 0.5),
    record("X, turned and re-stained 2", 0.3),
    record("one draw", 0.45),
    record("ridge", 0.5, "floor", MSE=0.8),
    record("ridge", 0.55, "floor", training=WITHOUT, MSE=0.85),
    record("replicate sections", float("nan"), "landmark", GSC=0.9, SSC=0.65),
    draws("draws", 8.0, "FLAG"),
    draws("draws", 9.0, "FLAG", section="C3"),
    draws("counting noise", 8.5, CRPS=0.5),
    draws("counting noise", 8.8, training=WITHOUT, CRPS=0.4),
    draws("counting noise", 9.5, section="C3", CRPS=0.5),
    draws("counting noise", 9.8, training=WITHOUT, section="C3", CRPS=0.4),
    record("ridge", 0.5, "floor", section="C3", MSE=0.8),
    record("ridge", 0.55, "floor", training=WITHOUT, section="C3", MSE=0.85),
)
COMPARISONS = (
    comparison("counting noise", (-0.5, -0.9, -0.1), other=-0.1),
    comparison("counting noise", (-0.8, -1.0, -0.2), training=WITHOUT, other=0.3),
    comparison("counting noise", (-0.3, -0.7, 0.1), section="C3", other=-0.1),
    comparison("counting noise", (-0.6, -1.0, 0.1), training=WITHOUT, section="C3", other=0.3),
)
PLAN = Plan(("C2", "C3"), seeds=(0, 1))


@pytest.fixture
def stated(tmp_path):
    path = tmp_path / "scores.json"
    results = results_of(Outcome(RECORDS, COMPARISONS), PLAN, "napari-flag evaluate some.toml")
    path.write_text(json.dumps(results, allow_nan=False))
    return path


@pytest.fixture
def page(stated):
    return markdown([read_results(stated)], "Scores")


def table_of(page, title):
    """The lines of the first table under the heading `title`."""
    lines = iter(page.split(f"# {title}\n", 1)[1].splitlines())
    table = list(itertools.dropwhile(lambda line: not line.startswith("|"), lines))
    return list(itertools.takewhile(lambda line: line.startswith("|"), table))


def cells_of(table, start):
    """Column → cell, of the line that starts with the cell `start`."""
    names = [name.strip() for name in table[0].strip("|").split("|")]
    line = next(line for line in table if line.startswith(f"| {start} |"))
    return dict(zip(names, [cell.strip() for cell in line.strip("|").split("|")], strict=True))


EXPECTATION, DRAWN = "The expectation, `X`", "Draws"
AGAINST = "FLAG's draws against the others"
ONE_ARRAY = "As the paper's table reads it: every metric from one array"


def test_records_and_comparisons_come_back_as_they_were(stated):
    back = read_results(stated)
    assert back["records"][0] == RECORDS[0]
    assert back["records"][10] == RECORDS[10]
    assert back["records"][9].scores["PCC"] != back["records"][9].scores["PCC"]  # NaN
    assert back["comparisons"] == list(COMPARISONS)


def test_the_mean_over_sections_is_stated_with_its_spread_over_seeds(page):
    cells = cells_of(table_of(page, EXPECTATION), "`X`")
    assert cells["PCC"] == "0.700 ± 0.071"  # (0.65, 0.75): mean and sd
    assert cells["in 80 %"] == "0.800"


def test_x_and_draws_stand_in_tables_of_their_own(page):
    expectation, drawn = table_of(page, EXPECTATION), table_of(page, DRAWN)
    assert not any(
        line.startswith(("| draws |", "| counting noise |", "| one draw |")) for line in expectation
    )
    assert not any(line.startswith(("| `X`", "| ridge |", "| one draw |")) for line in drawn)
    assert cells_of(drawn, "draws")["ES"] == "8.500"
    assert cells_of(drawn, "replicate sections (C2 alone)")["SSC"] == "0.650"
    assert cells_of(drawn, "replicate sections (C2 alone)")["ES"] == "–"


def test_the_papers_reading_has_x_and_one_draw(page):
    table = table_of(page, ONE_ARRAY)
    assert cells_of(table, "one draw (C2 alone)")["PCC"] == "0.450"
    assert cells_of(table, "`X`")["GSC"].startswith("0.000")
    assert not any(line.startswith("| draws |") for line in table)


def test_a_floor_stands_with_the_better_training_set_for_each_metric(page):
    cells = cells_of(table_of(page, EXPECTATION), "ridge")
    assert (cells["PCC"], cells["MSE"]) == ("0.550", "0.800")
    assert cells["trained on"] in ("all others; PCC: without B4", "without B4; MSE, cPCC: all others")
    drawn = cells_of(table_of(page, DRAWN), "counting noise")
    assert (drawn["ES"], drawn["CRPS"]) == ("9.000", "0.4000")


def test_turned_views_are_one_row(page):
    row = cells_of(table_of(page, EXPECTATION), "`X`, turned and re-stained (C2 alone)")
    assert row["PCC"] == "0.400"


def test_a_section_has_intervals_which_span_those_of_the_seeds(page):
    section = page.split("\n## C2\n")[1].split("\n## C3\n")[0]
    assert cells_of(table_of(section, EXPECTATION), "`X`")["PCC"] == "0.700 ± 0.141 [0.550, 0.850]"
    assert cells_of(table_of(section, DRAWN), "draws")["ES"] == "8.000 [7.000, 9.000]"


def test_draws_are_compared_with_a_rival_under_its_better_training_for_the_metric(page):
    """By ES that is all others, by CRPS without B4, over both sections."""
    table = table_of(page, AGAINST)
    line = next(line for line in table if "counting noise" in line)
    assert "| −0.4000 (better in 1 of 2) |" in line
    assert "| +0.3000 (better in 0, worse in 2 of 2) |" in line
    one = table_of(page.split("\n## C2\n")[1], AGAINST)
    assert "| **−0.5000 [−0.9000, −0.1000]** |" in one[-1]


def test_what_read_levels_of_further_patients_says_so_and_whose(tmp_path):
    floors = [record(name, 0.5, "floor") for name in ("ridge", "mean of patients")]
    scored = (record("X", 0.6), *floors, draws("counting noise around X", 9), draws("pasted", 9))
    levels = {"C2": {"all others": ("A", "D")}}
    path = tmp_path / "levels.json"
    path.write_text(json.dumps(results_of(Outcome(scored, (), levels), PLAN, "c")))
    page = markdown([read_results(path)], "Scores")
    assert "were read too: of patients A, D (C2, all others)." in page
    expectation, drawn = table_of(page, EXPECTATION), table_of(page, DRAWN)
    for name in ("`X`", "mean of patients"):
        assert cells_of(expectation, name)["trained on"] == "all others + levels"
    assert cells_of(expectation, "ridge")["trained on"] == "all others"
    assert cells_of(drawn, "counting noise around X")["trained on"] == "all others + levels"
    assert cells_of(drawn, "pasted")["trained on"] == "all others"
    assert "levels" not in page_of(*scored)


def test_what_flag_is_better_on_is_said_only_where_every_section_is_sure(page, tmp_path):
    assert (
        "every rival in each of C2, C3 by VS-gene, VS-space, fair ES, fair CRPS, fair VS-gene, "
        "fair VS-space:\n\n- by ES not than counting noise\n- by CRPS" in page
    )
    sure = [comparison("a", (-1, -2, -0.5), section=s, other=-1.0) for s in ("C2", "C3")]
    results = results_of(Outcome((draws("a", 9), *RECORDS[:2]), tuple(sure)), PLAN, "c")
    path = tmp_path / "sure.json"
    path.write_text(json.dumps(results))
    stated = markdown([read_results(path)], "Scores")
    assert (
        "better draws than every rival in each of C2, C3 by ES, CRPS, VS-gene, VS-space, fair ES," in stated
    )


def test_with_several_seeds_every_one_must_be_sure(tmp_path):
    each = [comparison("a", ends, seed=n) for n, ends in enumerate([(-1, -2, -0.5), (-0.6, -1, 0.2)])]
    results = results_of(Outcome((draws("a", 9),), tuple(each)), Plan(("C2",), seeds=(0, 1)), "c")
    path = tmp_path / "seeds.json"
    path.write_text(json.dumps(results))
    assert "| −0.8000 [−2.0000, +0.2000] |" in markdown([read_results(path)], "Scores")


def test_a_difference_that_is_not_known_is_a_dash_as_every_number():
    for sections in (("C2",), ("C2", "C3")):
        unknown = (float("nan"),) * 3
        each = tuple(comparison("a", unknown, section=name, other=-0.1) for name in sections)
        rows = tuple(draws("a", 9, section=name) for name in sections)
        results = json.loads(json.dumps(results_of(Outcome(rows, each), Plan(sections), "c")))
        path_free = markdown([results | {"records": list(rows), "comparisons": list(each)}], "Scores")
        assert "| all others | a | – |" in path_free
        assert "nan" not in path_free


def test_the_lead_over_the_best_learned_method_has_the_sign_of_better(page):
    table = table_of(page, "`X` against the best learned method, metric by metric")
    ends = {line.split("|")[2].strip(): line for line in table}
    assert ends["PCC"].endswith("| ridge (without B4) | +0.1500 |")
    assert ends["MSE"].endswith("| ridge (all others) | −0.1000 |")


UNLIKE = (
    record("X", 0.75),
    record("X", 0.55, section="C3"),
    record("ridge", 0.74, "floor"),
    record("ridge", 0.5, "floor", section="C3"),
    record("BLEEP", 0.73, "published"),
)
"""BLEEP is behind X in the one section that it was scored in, and ahead of X's mean over both."""
LEAD = "`X` against the best learned method, metric by metric"


def page_of(*records, comparisons=()):
    results = results_of(Outcome(records, tuple(comparisons)), PLAN, "c")
    return markdown([results | {"records": list(records), "comparisons": list(comparisons)}], "Scores")


def test_a_method_scored_in_fewer_sections_says_which_and_no_lead_is_counted_against_it():
    page = page_of(*UNLIKE)
    assert cells_of(table_of(page, EXPECTATION), "BLEEP (C2 alone)")["PCC"] == "0.730"
    assert cells_of(table_of(page, EXPECTATION), "ridge")["PCC"] == "0.620"
    line = next(line for line in table_of(page, LEAD) if "| PCC |" in line)
    assert line == "| all others | PCC | 0.650 | 0.620 | ridge (all others) | +0.0300 |"
    assert "Not compared, since scored in fewer sections than `X`: BLEEP (C2 alone)." in page


def test_where_no_method_has_every_section_of_x_no_lead_is_stated():
    page = page_of(*UNLIKE[:2], UNLIKE[4])
    assert "fewer sections than `X`: BLEEP (C2 alone)." in page
    assert "X ahead by" not in page


def test_x_is_compared_over_its_own_sections_where_others_have_more():
    page = page_of(UNLIKE[0], *UNLIKE[2:4])
    line = next(line for line in table_of(page, LEAD) if "| PCC |" in line)
    assert line == "| all others (C2 alone) | PCC | 0.750 | 0.740 | ridge (all others) | +0.0100 |"


def test_the_better_of_two_trainings_is_that_over_the_sections_both_have():
    worse = [record("ridge", pcc, "floor", section=s) for s, pcc in (("C2", 0.7), ("C3", 0.5))]
    easier = record("ridge", 0.65, "floor", training=WITHOUT)
    cells = cells_of(table_of(page_of(*UNLIKE[:2], *worse, easier), EXPECTATION), "ridge")
    assert (cells["PCC"], cells["trained on"]) == ("0.600", "all others")


def test_a_metric_that_one_section_lacks_is_named():
    row = record("kNN", 0.5, "floor"), record("kNN", float("nan"), "floor", section="C3")
    table = table_of(page_of(*UNLIKE, *row), EXPECTATION)
    assert cells_of(table, "kNN (PCC: C2 alone)")["PCC"] == "0.500"


def test_the_spread_over_seeds_is_of_seeds_that_have_the_same_sections():
    seeds = [record("X", 0.95, seed=seed) for seed in (1, 2)]
    table = table_of(page_of(*UNLIKE, *seeds), EXPECTATION)
    assert "±" not in cells_of(table, "`X`")["PCC"], "one seed alone has C3"


def test_flag_is_not_called_better_than_what_was_scored_in_some_sections_alone():
    sure = (-1, -2, -0.5)
    two = [comparison("a", sure, section=s, other=-1.0) for s in ("C2", "C3")]
    one = comparison("b", sure, other=-1.0)
    scored = [draws(name, 9, section=s) for name in "ab" for s in ("C2", "C3")[: 2 if name == "a" else 1]]
    page = page_of(*UNLIKE, *scored, comparisons=[*two, one])
    assert "| all others | b (C2 alone) | −1.0000 (better in 1 of 1) |" in page
    assert "- by ES not than b (C2 alone)\n" in page


def test_where_flags_draws_were_compared_in_some_sections_alone_is_said():
    sure = comparison("a", (-1, -2, -0.5), other=-1.0)
    page = page_of(*UNLIKE, draws("a", 9), comparisons=[sure])
    assert "| all others (C2 alone) | a | −1.0000 (better in 1 of 1) |" in page
    assert "**FLAG (all others)** has better draws than every rival in C2 by ES," in page


def test_command_seeds_and_split_are_in_the_header(page):
    assert "`napari-flag evaluate some.toml` (sections left out one by one; seeds 0, 1; 8 draws)" in page


def test_the_card_gets_mean_over_seeds_per_section_and_no_structure_of_x(stated):
    scores = json.loads(stated.read_text())["scores"]
    assert scores["C2"]["X"]["PCC"] == pytest.approx(0.7)
    assert "GSC" not in scores["C2"]["X"]
    assert scores["C3"]["draws"]["ES"] == 9
    assert set(scores) == {"C2", "C3"}


def test_runs_of_an_ablation_are_distinguished(stated):
    other = read_results(stated)
    other["records"] = [replace(r, run="without_graph", scores=ZERO) for r in other["records"]]
    page = markdown([read_results(stated), other], "Ablations", only=["X"])
    assert "| her2st: `X` |" in page
    assert "| without_graph: `X` | all others | 0.000" in page
    assert "ridge" not in page


HOSTILE = "<script>|a\r\nb [x](javascript:alert(1)) \x1b[2J\u202e `c"


def test_no_text_of_scores_acts_in_the_page(stated):
    held = json.loads(stated.read_text())
    for one in (*held["records"], *held["comparisons"]):
        for name in ("run", "training", "section", "rival_training"):
            if name in one and one[name] != WITHOUT:
                one[name] = f"{HOSTILE} {name if name != 'rival_training' else 'training'} {one[name]}"
    hostile = f"{HOSTILE} training all others"
    held |= {"levels": {f"{HOSTILE} section C2": {hostile: [HOSTILE]}}, "unseen": [HOSTILE]}
    held |= {"command": f"x\n{HOSTILE}", "split": HOSTILE}
    stated.write_text(json.dumps(held))
    page = markdown([read_results(stated)], HOSTILE, command=HOSTILE)
    assert set(re.findall(r"[\x00-\x1f\u2028-\u202e]", page)) == {"\n"}
    without_code = re.sub(r"``[^`]+`[^`]+``", "", page)
    assert "<" not in without_code
    assert not re.search(r"(?<!\\)\]\(", without_code)
    widths = {
        title: {len(re.findall(r"(?<!\\)\|", line)) for line in table_of(page, title)}
        for title in (EXPECTATION, DRAWN, AGAINST, ONE_ARRAY)
    }
    assert all(len(found) == 1 for found in widths.values())
    assert "+ levels" in page


def test_the_names_of_every_kept_score_stay_as_they_are_in_a_page():
    for path in sorted((Path(__file__).parents[2] / "docs" / "results").glob("*.json")):
        held = json.loads(path.read_text("utf-8"))
        for one in held.get("records", ()) if isinstance(held, dict) else ():
            for name in ("run", "method", "training", "section"):
                assert in_markdown(one[name]) == one[name]


@pytest.mark.parametrize("text", ["", "[]", '{"records": [{}]}', "[" * 100_000], ids=range(4))
def test_what_is_no_scores_is_refused(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(UserError, match="holds no scores"):
        read_results(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held.pop("command"),
        lambda held: held.pop("seeds"),
        lambda held: held.update(scores=["C2"]),
        lambda held: held.update(scores={"C2": {"X": {"PCC": "0.5"}}}),
        lambda held: held.update(command=["napari-flag"]),
        lambda held: held.update(seeds=["0"]),
        lambda held: held.update(seeds={"0": 0}),
        lambda held: held.update(seed="0"),
        lambda held: held.pop("seed"),
        lambda held: held.update(draws=10**400),
        lambda held: held.update(test=5),
        lambda held: held.update(test=["C2", 5]),
        lambda held: held.update(unseen="C2"),
        lambda held: held.update(levels={"C2": {"all others": [None]}}),
        lambda held: held.update(levels={"C2": {"all others": "B4"}}),
        lambda held: held["records"][0]["scores"].update(PCC="0.5"),
        lambda held: held["records"][0]["scores"].update(PCC=[0.5]),
        lambda held: held["records"][0]["scores"].update(PCC=1e300),
        lambda held: held["records"][0]["scores"].update(PCC=10**400),
        lambda held: held["records"][0]["scores"].update(PCC=True),
        lambda held: held["records"][0]["intervals"].update(PCC=[0.5]),
        lambda held: held["records"][0]["intervals"].update(PCC=[0.5, "0.6"]),
        lambda held: held["records"][0].update(kind="another"),
        lambda held: held["records"][0].update(method=None),
        lambda held: held["records"][0].update(seed=0.5),
        lambda held: held["comparisons"][0].update(rival="scored nowhere"),
        lambda held: held["comparisons"][0]["differences"].update(ES=[0.1, 0.2]),
        lambda held: held["comparisons"][0]["differences"].pop("ES"),
    ],
)
def test_scores_of_which_a_part_lacks_or_is_of_another_kind_are_refused(change, stated):
    held = json.loads(stated.read_text())
    change(held)
    stated.write_text(json.dumps(held))
    with pytest.raises(UserError, match="holds no scores"):
        read_results(stated)


def test_scores_that_state_a_part_twice_are_refused(stated):
    stated.write_text(stated.read_text()[:-1] + ', "records": [], "comparisons": []}')
    with pytest.raises(UserError, match="holds no scores"):
        read_results(stated)


def changed(stated, name, change):
    held = json.loads(stated.read_text())
    change(held)
    path = stated.with_name(name)
    path.write_text(json.dumps(held))
    return path


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (
            lambda held: held["records"][0]["scores"].update(PCC=0.9),
            "X of her2st, trained on all others, section C2",
        ),
        (lambda held: held["records"][0].update(intervals={}), "X of her2st"),
        (
            lambda held: held["comparisons"][0]["differences"].update(ES=[0, 0, 0]),
            "her2st against counting noise",
        ),
    ],
)
def test_two_files_with_other_numbers_of_one_answer_are_refused_by_name(stated, change, answer):
    other = changed(stated, "other.json", change)
    with pytest.raises(UserError, match=rf"scores.json and .*other.json state other numbers .*{answer}"):
        read_several([stated, other])


def test_what_two_files_state_alike_counts_once(stated):
    def one_seed_and_the_floors(held):
        held["records"] = [r for r in held["records"] if r["seed"] == 1 or r["method"] == "ridge"]
        held["comparisons"] = []

    def the_rest(held):
        held["records"] = [r for r in held["records"] if r["seed"] == 0]

    one, rest = changed(stated, "a.json", one_seed_and_the_floors), changed(stated, "b.json", the_rest)
    together = markdown(read_several([one, rest]), "Scores").partition("## ")[2]
    alone = markdown([read_results(stated)], "Scores").partition("## ")[2]
    assert sorted(together.splitlines()) == sorted(alone.splitlines())


def test_a_file_that_states_nothing_new_is_refused(stated):
    again = changed(stated, "again.json", lambda held: None)
    with pytest.raises(UserError, match=r"again.json states nothing that .*scores.json does not"):
        read_several([stated, again])


def test_missing_scores_are_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path / "none.json")
