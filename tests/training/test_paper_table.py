import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from tests.training.test_result_tables import COMPARISONS, PLAN, RECORDS, record

from flag_training.evaluate import Outcome
from flag_training.paper_table import AUTHORS, SHOWN, SOURCE, PaperTable, check_ending
from flag_training.result_tables import read_results, results_of
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.exports.replacing import written_here

ROOT = Path(__file__).parents[2]


def results(*more):
    return [{"records": [*RECORDS, *more]}]


@pytest.fixture
def scores(tmp_path):
    path = tmp_path / "scores.json"
    found = results_of(Outcome(RECORDS, COMPARISONS), PLAN, "napari-flag evaluate some.toml")
    path.write_text(json.dumps(found, allow_nan=False))
    return path


def rows_of(table):
    return {(row["numbers_of"], row["method"]): row for row in csv.DictReader(io.StringIO(table.csv()))}


def test_x_and_one_draw_stand_beside_every_method_of_one_array():
    table = PaperTable.of(results(), "Held out")
    assert [row.method for row in table.rows][:2] == ["`X`", "one draw (C2 alone)"]
    assert not any(row.theirs for row in table.rows)
    found = rows_of(table)
    x = found["ours", "`X`"]
    assert float(x["PCC"]) == pytest.approx(((0.6 + 0.8) / 2 + 0.7) / 2)
    assert float(x["PCC_sd"]) == pytest.approx(math.sqrt(2) / 2 * (0.75 - 0.65))
    assert (x["data"], found["ours", "ridge"]["MSE"]) == ("C2 C3", "0.8")


def test_a_method_that_lacks_sections_says_which_it_has_in_every_format():
    table = PaperTable.of(results(record("BLEEP", 0.9, "published", section="C3")), "Held out")
    assert "| BLEEP (C3 alone) | all others | 0.900 |" in table.markdown()
    assert "BLEEP (C3 alone) & all others & 0.900" in table.latex()
    assert rows_of(table)["ours", "BLEEP (C3 alone)"]["data"] == "C3"


def test_the_authors_numbers_are_marked_theirs_with_their_source_in_every_format():
    table = PaperTable.of(results(), "Held out", cohort="HER2ST")
    found = rows_of(table)
    theirs = found["authors", "FLAG"]
    stated = AUTHORS["HER2ST"]["FLAG"]
    assert tuple(float(theirs[metric]) for metric in SHOWN) == stated
    assert (theirs["source"], theirs["data"], theirs["PCC_sd"]) == (SOURCE, "HER2ST", "")
    assert found["ours", "ridge"]["source"] == "napari-flag evaluate"
    page = table.markdown()
    assert f"| FLAG † |  | {' | '.join(f'{value:.4f}' for value in stated)} |" in page
    assert page.count("†") == len(AUTHORS["HER2ST"]) + 1
    assert SOURCE in page
    tex = table.latex()
    assert f"FLAG\\textsuperscript{{\\dag}} &  & {' & '.join(f'{value:.4f}' for value in stated)} \\\\" in tex
    assert "were not measured here" in tex


def test_the_authors_lead_in_ssc_as_their_slides_say():
    for cohort, methods in AUTHORS.items():
        best = max(methods, key=lambda method: methods[method][SHOWN.index("SSC")])
        assert best == "FLAG", cohort


def test_latex_is_balanced_and_escapes_what_tex_reads():
    odd = record("a_b & 50 % {x}", 0.5, "floor", training="without B_4")
    tex = PaperTable.of(results(odd), "100 % of C_2", cohort="KIDNEY").latex()
    assert "a\\_b \\& 50 \\% \\{x\\}" in tex
    assert "\\caption{100 \\% of C\\_2." in tex
    for part in ("table", "tabular"):
        assert tex.count(f"\\begin{{{part}}}") == tex.count(f"\\end{{{part}}}") == 1
    body = tex.split("\\toprule")[1].split("\\bottomrule")[0].strip().splitlines()
    lines = [line for line in body if line not in ("\\midrule",) and "multicolumn" not in line]
    assert all(line.replace("\\&", "").count("&") == 1 + len(SHOWN) for line in lines)
    assert all(line.endswith("\\\\") for line in lines)
    assert "±" not in tex
    assert "$\\pm$" in tex


def test_only_the_methods_asked_for_are_shown():
    assert [row.method for row in PaperTable.of(results(), "Held out", only=["ridge"]).rows] == ["ridge"]


def test_flag_is_asked_for_by_its_name_and_what_is_not_scored_is_refused(scores, capsys):
    assert main(["tables", str(scores), "--only", "FLAG"]) == 0
    page = capsys.readouterr().out
    assert "| `X` |" in page
    assert "ridge |" not in page
    assert main(["tables", str(scores), "--only", "Ridge"]) == 2
    assert "No file given scores Ridge; they score" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "starts", "number"),
    [("t.csv", "numbers_of,", "0.751"), ("t.TEX", "% Written by napari-flag", "0.7510")],
)
def test_the_ending_of_the_file_chooses_the_format(scores, tmp_path, name, starts, number, capsys):
    assert main(["tables", str(scores), "--out", str(tmp_path / name), "--authors", "PRAD"]) == 0
    text = (tmp_path / name).read_text("utf-8")
    assert text.startswith(starts)
    assert number in text


def test_a_page_has_the_authors_numbers_only_where_they_are_asked_for(scores, tmp_path):
    for options, there in (([], False), (["--authors", "HER2ST", "--overwrite"], True)):
        assert main(["tables", str(scores), "--out", str(tmp_path / "page.md"), *options]) == 0
        page = (tmp_path / "page.md").read_text("utf-8")
        assert ("Beside the authors' numbers" in page) is there
        assert "## As the paper's table reads it" in page


def test_another_ending_is_refused_before_anything_is_read(tmp_path, capsys):
    with pytest.raises(UserError, match=r"end the name in \.md"):
        check_ending(tmp_path / "table.xlsx")
    assert main(["tables", "missing.json", "--out", str(tmp_path / "table.xlsx")]) == 2
    assert "table.xlsx" not in {path.name for path in tmp_path.iterdir()}
    assert "cannot be written as" in capsys.readouterr().err


def test_tables_replace_those_of_the_same_scores_and_nothing_else_unasked(scores, tmp_path, capsys):
    page, table = tmp_path / "new" / "page.md", tmp_path / "table.csv"
    for out in (page, table):
        assert main(["tables", str(scores), "--out", str(out)]) == 0
        assert main(["tables", str(scores), "--out", str(out)]) == 0, "the same scores"
        before = out.read_bytes()
        other = ["tables", str(scores), "--title", "Another", "--only", "FLAG", "--out", str(out)]
        assert main(other) == 2
        assert "is not a result of this very command" in capsys.readouterr().err
        assert out.read_bytes() == before
        assert main([*other, "--overwrite"]) == 0
    elsewhere = tmp_path / "elsewhere" / scores.name
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(scores.read_bytes())
    title = ["--title", "Another", "--only", "FLAG", "--out", str(page)]
    assert main(["tables", str(elsewhere), *title]) == 2, "of another folder"
    scores.write_text(scores.read_text("utf-8").replace("0.8", "0.9"), "utf-8")
    assert main(["tables", str(scores), *title]) == 2, "scored again: the table of before would be lost"
    capsys.readouterr()
    notes = tmp_path / "notes.md"
    for options, said in (([], "already exists"), (["--overwrite"], "was not written by napari-flag")):
        notes.write_text("notes\n")
        assert main(["tables", str(scores), "--out", str(notes), *options]) == 2
        assert said in capsys.readouterr().err
        assert notes.read_text() == "notes\n"


@pytest.mark.parametrize("name", ["sections.md", "ablations_C2.md"])
def test_pages_of_the_docs_are_known_as_ours(name):
    page = ROOT / "docs" / "results" / name
    assert written_here(page)


def test_scores_of_the_docs_are_known_as_ours_with_their_command():
    held = ROOT / "docs" / "results" / "sections_C5.json"
    assert written_here(held)
    stated = read_results(held)["command"]
    assert stated.startswith("napari-flag evaluate training/configs/her2st.toml --data DATA")


def test_no_text_of_scores_acts_in_any_format():
    hostile = "<b>a\rb|c\n\x1b[2J\u202e"
    table = PaperTable.of(results(record(hostile, 0.9, "published", section="C3")), hostile)
    for text in (table.markdown(), table.csv(), table.latex()):
        assert "<b>a␍b" in text.replace("&lt;", "<")
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    assert table.markdown().startswith("## &lt;b>a␍b\\|c␊")
    assert "| &lt;b>a␍b\\|c␊␛[2J\ufffd (C3 alone) | all others |" in table.markdown()
