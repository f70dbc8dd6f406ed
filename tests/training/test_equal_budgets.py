"""The benchmark of equal budgets (`benchmarks/equal_budgets.py`) on the toy cohort."""

import importlib.util
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.training.conftest import make_config, make_slide
from tests.training.methods.test_published import SMALL
from torch.utils.flop_counter import FlopCounterMode

from flag_training.cohort import Cohort
from flag_training.methods.floors import Ridge
from napari_flag import keys
from napari_flag.cli.main import main
from napari_flag.prediction_file import read_prediction
from napari_flag.progress import finish

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "equal_budgets.py"
CONFIG = 'name = "toy"\n' + "".join(
    f'[[slides]]\nname = "{name}"\npatient = "{name[0]}"\nimage = "none.jpg"\nspots = "none.tsv"\n'
    for name in ("B4", "C2", "C3", "C4")
)
BLEEP = """method = "BLEEP"
[values]
width = 16
dropout = 0.1
temperature = 1.0
neighbours = 5
batch = 36
[training]
steps = 999
rate = 1e-3
"""


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("equal_budgets", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("name", ["BLEEP", "HisToGene", "STFlow"])
def test_a_method_gets_as_many_steps_as_the_budget_pays(bench, cohort, name):
    one = replace(SMALL[name], training=replace(SMALL[name].training, steps=1))
    each = bench.within(one, cohort, 1.0).operations
    paid = bench.within(SMALL[name], cohort, 12.4 * each)
    method = bench.trained_for(SMALL[name], paid)
    assert method.training.steps == paid.steps["training"] == 12
    assert paid.operations == pytest.approx(12 * each)
    assert replace(method, training=SMALL[name].training) == SMALL[name]


LONGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("STFlow", "TRIPLEX")]


@pytest.mark.parametrize("name", ["HisToGene", "regression", *LONGER])
def test_a_method_of_one_slide_a_step_spends_its_budget_whichever_slides_the_first_steps_draw(bench, name):
    """One slide of four has four times the spots; the first steps may not draw it at all."""
    made = [make_slide(f"S{n}", "P", n, side=12 if n == 0 else 6) for n in range(4)]
    unlike = Cohort(tuple(slide for slide, _ in made), tuple(views for _, views in made), tuple("ABCDE"))
    method = SMALL[name]
    each = bench.operations_of_a_step(method, unlike)
    small, large = (
        bench.operations_of_a_step(method, bench.keep(unlike, names)) for names in (["S1"], ["S0"])
    )
    assert large > 2 * small
    assert each == pytest.approx((large + 3 * small) / 4)
    paid = bench.within(method, unlike, 80 * each)
    with FlopCounterMode(display=False) as counter:
        finish(bench.trained_for(method, paid).fit(unlike, 0))
    spent = counter.get_total_flops() - bench.operations_of(method, unlike, 0)
    assert spent == pytest.approx(paid.operations, rel=0.2)


def test_every_method_is_trained_with_both_training_sets_within_the_budget(
    bench, cohort, tmp_path, monkeypatch, capsys
):
    (tmp_path / "toy.toml").write_text(CONFIG, "utf-8")
    (tmp_path / "bleep.toml").write_text(BLEEP, "utf-8")
    typed = [str(tmp_path / "toy.toml"), "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    typed += ["--test", "B4", "C4", "--seeds", "0", "--budget", "1e-5", "--train-without", "B4"]
    typed += ["--methods", str(tmp_path / "bleep.toml"), "ridge"]
    args = bench.parse(typed)
    assert [
        (section, removed) for section, method, _, removed in bench.points_of(args) if method == "ridge"
    ] == [
        ("B4", ()),
        ("C4", ()),
        ("C4", ("B4",)),
    ], "B4 cannot be left out twice"

    def encoded(*_):
        return cohort
        yield

    monkeypatch.setattr(bench, "fold_cohort", encoded)
    for point in bench.points_of(args):
        found = bench.measure(args, *point)
        *_, removed = point
        assert {record["training"] for record in found["records"]} == {
            "without B4" if removed else "all others"
        }
        if "BLEEP" in {record["method"] for record in found["records"]}:
            assert found["operations"] == pytest.approx(1e7, rel=0.2)
    capsys.readouterr()
    assert bench.main(typed) == 0
    page = capsys.readouterr().out
    assert "--train-without B4" in page
    assert "| ridge | all others" in page or "| ridge | without B4" in page


def test_what_is_solved_in_closed_form_needs_no_budget(bench, cohort):
    floor = Ridge(30.0)
    paid = bench.within(floor, cohort, 1.0)
    assert paid == bench.Paid({}, 0.0)
    assert bench.trained_for(floor, paid) is floor


@pytest.mark.slow
def test_both_stages_of_flag_are_lengthened_alike(bench, cohort):
    config = make_config(branch_steps=2, score_steps=4)
    least = bench.flag_within(config, cohort, 1.0)
    assert least.steps == {"branch_steps": 1, "score_steps": 1}
    paid = bench.flag_within(config, cohort, 40 * least.operations)
    assert paid.steps["score_steps"] == pytest.approx(2 * paid.steps["branch_steps"], abs=1)
    assert paid.operations == pytest.approx(40 * least.operations, rel=0.1)


def test_points_that_are_there_are_not_computed_again_and_all_stand_in_one_table(
    bench, cohort, tmp_path, monkeypatch, capsys
):
    (tmp_path / "toy.toml").write_text(CONFIG, "utf-8")
    (tmp_path / "bleep.toml").write_text(BLEEP, "utf-8")
    typed = [str(tmp_path / "toy.toml"), "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    typed += ["--test", "C4", "--seeds", "0", "1", "--budget", "1e-5", "--authors", "HER2ST"]
    typed += ["--methods", str(tmp_path / "bleep.toml"), "ridge"]
    args = bench.parse(typed)
    points = bench.points_of(args)
    assert [seed for _, method, seed, _ in points if method == "ridge"] == [0], "no seed changes a floor"

    def encoded(*_):
        return cohort
        yield

    monkeypatch.setattr(bench, "fold_cohort", encoded)
    counted = []
    count = bench.within
    monkeypatch.setattr(bench, "within", lambda *given: counted.append(given) or count(*given))
    for point in points:
        bench.measure(args, *point)
    assert len(counted) == 2, "the second seed takes the steps that were counted with the first"
    found = json.loads(bench.file_of(args, "C4", args.methods[0], 1).read_text("utf-8"))
    assert found["operations"] == pytest.approx(1e7, rel=0.2)
    assert {record["seed"] for record in found["records"]} == {1}
    first = json.loads(bench.file_of(args, "C4", args.methods[0], 0).read_text("utf-8"))
    assert found["steps"] == first["steps"]
    for seed, names in ((0, ["C4_BLEEP.h5ad", "C4_ridge.h5ad"]), (1, ["C4_BLEEP.h5ad"])):
        kept = bench.predictions_of(args, seed)
        assert sorted(path.name for path in kept.iterdir()) == names
        made = read_prediction(kept / "C4_BLEEP.h5ad")
        assert made.n_vars == 5
        assert made.uns[keys.PROVENANCE][keys.SEED] == seed
    capsys.readouterr()
    assert bench.main(typed) == 0, "a point computed anew would miss the images"
    page = capsys.readouterr().out
    assert "C4 left out in turn, 1e-05 TFLOP of training each" in page
    assert "| BLEEP |" in page
    assert "| BLEEP † |" in page


@pytest.mark.slow
def test_an_ablation_is_a_method_that_stands_in_the_table_under_its_own_name(
    bench, cohort, tmp_path, monkeypatch
):
    (tmp_path / "toy.toml").write_text(CONFIG, "utf-8")
    sizes = "".join(f"{name} = {value}\n" for name, value in make_config().network.items())
    (tmp_path / "without_graph.toml").write_text(
        'extends = "toy.toml"\nname = "without_graph"\n[card]\nmethod = "FLAG without graph"\n'
        f"[network]\nspatial_graph = false\n{sizes}"
        "[fit]\nbranch_steps = 2\nscore_steps = 4\nscore_batch = 16\n",
        "utf-8",
    )
    ablation = str(tmp_path / "without_graph.toml")
    assert bench.is_flag(ablation)
    assert bench.is_flag("FLAG")
    assert not bench.is_flag("ridge")
    assert not bench.is_flag(str(bench.BASELINES / "bleep.toml"))
    typed = [str(tmp_path / "toy.toml"), "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    args = bench.parse([*typed, "--test", "C4", "--seeds", "0", "--budget", "1e-3", "--methods", ablation])

    def encoded(*_):
        return cohort
        yield

    monkeypatch.setattr(bench, "fold_cohort", encoded)
    results = bench.measure(args, "C4", ablation, 0)
    assert {record["run"] for record in results["records"]} == {"without_graph"}
    assert {record["kind"] for record in results["records"]} == {"FLAG", "rival"}
    assert results["steps"]["score_steps"] == pytest.approx(2 * results["steps"]["branch_steps"], abs=1)
    (kept,) = bench.predictions_of(args, 0).iterdir()
    assert kept.name == "C4_FLAG without graph.h5ad"
    assert read_prediction(kept).uns[keys.PROVENANCE][keys.METHOD] == "FLAG without graph"


def test_the_page_in_the_docs_is_what_the_kept_files_say(tmp_path):
    root = SCRIPT.parents[1]
    page = (root / "docs" / "results" / "equal_budgets.md").read_text("utf-8")
    title = page.partition("\n")[0].removeprefix("# ")
    (stated,) = re.findall(r"^The page itself: `napari-flag tables (.*)`\.$", page, re.M)
    kept = [root / word for word in shlex.split(stated) if word.endswith(".json")]
    assert len(kept) > 60
    words = ["tables", *map(str, kept), "--authors", "HER2ST", "--title", title]
    assert main([*words, "--out", str(tmp_path / "page.md")]) == 0
    written = (tmp_path / "page.md").read_text("utf-8")
    # the command names folders, which the two hashes follow
    of_command = re.compile(r"^(The page itself: |<!-- (?:command|content)_sha256: ).*$", re.M)
    of_numbers = [of_command.sub("", text) for text in (written, page)]
    assert of_numbers[0] == of_numbers[1]
    commands = [line for line in page.splitlines() if line.startswith("- `python")]
    assert len(commands) == len(set(commands)), "files of one command name it once"
    methods = (root / "docs" / "methods.md").read_text("utf-8")
    for path in kept:
        stated = json.loads(path.read_text("utf-8"))
        assert stated["budget"] == 2e12
        for steps in stated["steps"].values():
            assert f"{steps:,}" in methods


def test_without_a_config_nothing_is_done(bench, capsys):
    assert bench.main([]) == 0
    assert capsys.readouterr().out.startswith("Skipped")
