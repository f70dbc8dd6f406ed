"""The benchmark of growing gene panels (`benchmarks/gene_dimension.py`), tiny and from end to end."""

import csv
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.fakes import counts_for, fake_prediction

from flag_training.config import SlideEntry
from napari_flag.errors import UserError

pytest.importorskip("torch_geometric")
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gene_dimension.py"
TINY = [
    "--simulated", "2", "--tests", "1", "--spots", "40", "--genes", "6", "12", "--seeds", "0",
    "--budget", "1e-4", "--width", "8", "--blocks", "1", "--solver-steps", "2", "--draws", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("gene_dimension", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def run(bench, tmp_path_factory):
    """Every method at two sizes, in this process."""
    folder = tmp_path_factory.mktemp("genes")
    args = bench.parse(["--run", str(folder), *TINY])
    for genes in args.genes:
        for method in args.methods:
            bench.measure(args, bench.Point(method, genes, 0))
    return folder


@pytest.mark.slow
def test_every_point_holds_scores_losses_and_the_measures_of_why(bench, run):
    results = bench.read_results(run)
    assert {(each["method"], each["genes"]) for each in results} == {
        (method, genes) for method in bench.METHODS for genes in (6, 12)
    }
    for each in results:
        (section,) = each["scores"]
        if each["genes"] == 6:  # its panel is the smallest
            assert section["all"] == section["smallest panel"]
        if each["method"] in bench.FLOORS:
            assert set(section["all"]) == {"PCC", "MSE"}  # of a floor no draws are made
            continue
        assert np.isfinite([section["all"][name] for name in ("PCC", "MSE", "GSC")]).all()
        assert np.isfinite(each["spot_loss"]).all()
        assert ("edge_score" in each) == each["method"].startswith("joint")
    of = {(each["method"], each["genes"]): each for each in results}
    published = of["joint", 12]["correlations"]["published"]
    assert 1 - published["mean"] < 1 - of["joint", 6]["correlations"]["published"]["mean"] < 0.5


@pytest.mark.slow
def test_every_point_gets_the_same_operations_but_flag_with_the_steps_of_joint(bench, run):
    results = [each for each in bench.read_results(run) if each["method"] not in bench.FLOORS]
    for each in results:
        if each["method"] != bench.AS_MANY:
            given = each["steps"] * each["operations_per_step"]
            assert given == pytest.approx(1e8, abs=each["operations_per_step"] / 2 + 1)  # whole steps
        point = bench.Point(each["method"], each["genes"], 0)
        with (run / point.name / "train.csv").open() as file:
            assert len(list(csv.DictReader(file))) == each["steps"]
    steps = {(each["method"], each["genes"]): each["steps"] for each in results}
    for genes in (6, 12):
        assert steps[bench.AS_MANY, genes] == steps[bench.JOINT, genes]
    assert steps["FLAG", 12] < steps["FLAG", 6]  # a step takes the more the more genes


@pytest.mark.slow
def test_the_figures_are_drawn_from_the_files_alone(bench, run, tmp_path, capsys):
    assert bench.main(["--run", str(run), "--figures", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| score | method | 6 genes | 12 genes |" in printed
    for line in ("| steps | FLAG |", "| PCC | ridge |", "| SSC | joint |"):
        assert printed.count(line) == 1
    drawn = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(drawn) == {f"gene_dimension_{name}.png" for name in ("scores", "mechanism", "training")}
    assert min(drawn.values()) > 10_000
    files, without_logs = tmp_path / "files", tmp_path / "without_logs"
    files.mkdir()
    for path in run.glob("*.json"):
        (files / path.name).write_bytes(path.read_bytes())
    assert bench.main(["--run", str(files), "--figures", str(without_logs)]) == 0
    assert {path.stem for path in without_logs.iterdir()} == {
        "gene_dimension_scores",
        "gene_dimension_mechanism",
    }


@pytest.mark.slow
def test_results_of_other_settings_are_refused(bench, run, capsys):
    words = [word if word != "1e-4" else "1e-3" for word in TINY]
    assert bench.main(["--run", str(run), *words]) == 2
    assert "results of another budget" in capsys.readouterr().err


def test_slides_that_are_scored_are_of_a_patient_each(bench):
    words = [word if word != "1" else "3" for word in TINY[:4]]
    parts = bench.read_parts(bench.parse(["--run", "unused", *words]), 6, 0)
    assert len({slide.entry.patient for slide in parts.test.slides}) == 3


def test_no_slide_is_trained_on_and_scored(bench, tmp_path):
    args = bench.parse(["--run", str(tmp_path), "--simulated", "501", "--genes", "6"])
    with pytest.raises(UserError, match="give --simulated 500 at most"):
        bench.read_parts(args, 6, 0)


def test_a_panel_is_of_the_sections_it_was_chosen_on(bench, tmp_path, monkeypatch):
    """A run that was stopped and repeated with another section to score chooses its panel anew."""
    one = counts_for(fake_prediction(30, n_genes=6))
    chosen_on = []

    def select(counts, rule, common):
        chosen_on.append("".join(counts))
        return tuple(f"{''.join(counts)}{k}" for k in range(rule.genes))

    monkeypatch.setattr(bench, "read_measured", lambda path: one)
    monkeypatch.setattr(bench, "select_panel", select)
    config = SimpleNamespace(slides=tuple(SlideEntry(name, name, f"{name}.jpg", name) for name in "ABC"))
    args = SimpleNamespace(run=tmp_path, data=tmp_path, genes=[50])
    for rest in ("AB", "BC", "AB"):
        genes = bench.panel_of(args, config, list(rest), 50).read_text("utf-8").split()
        assert genes == [f"{rest}{k}" for k in range(50)]
    assert chosen_on == ["AB", "BC"]


def test_an_empty_run_has_nothing_to_draw(bench, tmp_path, capsys):
    assert bench.main(["--run", str(tmp_path), "--figures", str(tmp_path)]) == 2
    assert "holds no result to draw" in capsys.readouterr().err


@pytest.mark.slow
def test_the_grid_computes_what_is_missing_each_in_a_process(bench, run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(bench.subprocess, "run", lambda command, check: asked.append(command[-3:]))
    for path in run.glob("*_12_0.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert bench.main(["--run", str(tmp_path), *TINY]) == 0
    assert asked == [[method, "6", "0"] for method in bench.METHODS]


def test_a_gaussian_edge_score_is_as_steep_as_its_variance_says(bench):
    """The network's derivative where its edge score is that of a known Gaussian."""
    args = bench.parse(["--run", "unused", *TINY])
    parts = bench.read_parts(args, 12, 0)

    class Gaussian(bench.Joint):
        def scores(self, state, t, windows):
            variance = bench.sigma_at(t).square()[:, None, None]
            return state[0], -state[1] / (2 * 0.04 + variance)

    form = bench.form_of("joint", 100.0, 1, args)
    network = Gaussian(form.graph_sizes(12, parts.test.features[0].shape[2]))
    windows = bench.windows_of(form, network, parts.test)
    for t in (0.1, 0.8):
        variance = float(bench.sigma_at(torch.tensor(t))) ** 2
        found = bench.edge_gain(network, windows, "mean", t)
        assert found["network"] == pytest.approx(1 / (2 * 0.04 + variance), rel=1e-3)


def test_the_spread_of_correlations_leaves_spots_without_counts_out(bench):
    parts = bench.read_parts(bench.parse(["--run", "unused", *TINY]), 12, 0)
    (slide,), (views,) = parts.test.slides, parts.test.features
    counts = slide.expression.copy()
    counts[0] = 0
    emptied = replace(parts.test, slides=(replace(slide, expression=counts),))
    kept = replace(slide, spots=slide.spots.take(np.arange(1, len(counts))), expression=counts[1:])
    without = replace(parts.test, slides=(kept,), features=(views[:, 1:],))
    form = bench.form_of("joint", 100.0, 1, bench.parse(["--run", "unused", *TINY]))
    network = form.network(12, views.shape[2])
    for centre in ("mean", "sum"):
        found, expected = (
            bench.spread_of(bench.windows_of(form, network, cohort), centre) for cohort in (emptied, without)
        )
        assert found == pytest.approx(expected)


def test_sections_to_score_must_not_be_validated_on(bench, tmp_path):
    config = Path(__file__).parents[2] / "training" / "configs" / "her2st.toml"
    words = ["--run", str(tmp_path), "--config", str(config), "--data", str(tmp_path)]
    args = bench.parse([*words, "--validate", "C5", "--test", "C5"])
    with pytest.raises(UserError, match="name them with --validate and --test"):
        bench.read_parts(args, 50, 0)


@pytest.mark.slow
def test_a_grid_of_one_point_runs_as_a_command(bench, tmp_path):
    words = [word for word in TINY if word != "12"]
    assert bench.main(["--run", str(tmp_path), *words, "--methods", "joint"]) == 0
    assert json.loads((tmp_path / "joint_6_0.json").read_text())["genes"] == 6
