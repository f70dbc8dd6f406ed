"""The benchmark of speed against the published network, on the toy cohort."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.published_forms import Form, forms_of
from tests.training.conftest import make_cohort
from tests.training.methods.test_published import SMALL
from tests.training.test_equal_budgets import CONFIG

from benchmarks import published_speed
from flag_training.methods.window_training import untrained
from flag_training.scoring import COMPARED
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import Flag
from napari_flag.model.samplers import SamplerSettings

SMALL_NETWORK = {"mean_width": 16, "mean_layers": 1, "context_width": 16, "context_layers": 1, "width": 16}
FIT = 'branch_steps = 2\nscore_steps = 2\nscore_batch = 16\n[machine]\naccelerator = "cpu"\n'


@pytest.fixture(scope="module")
def cohort():
    return make_cohort()


@pytest.fixture(scope="module")
def published(cohort):
    """A network with weights of chance, of which the graph transformer does not see what is drawn."""
    network = untrained(replace(SMALL["FLAG, published form"], solver_steps=20), cohort, 0).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        network.network.graph.spots_in[0].weight.zero_()
    return network


def drawn(published, cohort, steps, settings, until=-1):
    flag = FlagPredictor(Flag(FlagConfig(8, 5, 1, landmarks=3, members=1)).eval(), cohort.genes)
    forms = forms_of(published, flag, cohort.slides[1], cohort.features[1][0].numpy(), [steps])
    return [form.draw(settings) for form in forms[:until]]


def test_what_takes_a_cause_of_cost_away_draws_the_same(published, cohort):
    """The graph transformer does not see what is drawn here, so that all may run it once."""
    _, few, *others = drawn(published, cohort, 4, SamplerSettings(3, first=9))
    assert few.shape == (3, 36, 5)
    assert np.unique(few).size > 50
    for other in others:
        np.testing.assert_array_equal(other, few)


def test_few_evaluations_solve_what_the_published_schedule_solves(published, cohort):
    schedule, solved = drawn(published, cohort, 40, SamplerSettings(2), until=2)
    assert np.abs(schedule - solved).mean() < 0.05 * schedule.std()


def test_factors_are_of_neighbours_and_their_product_is_the_whole():
    forms = [Form(name, cause, True, None) for name, cause in (("a", ""), ("b", "x"), ("c", "y"))]
    seconds = np.array([[[9, 8], [5, 4], [1, 1]], [[9, 6], [5, 3], [1, 1]], [[9, 60], [5, 5], [1, 1]]], float)
    first, second, third = published_speed.timed(forms, seconds)
    assert [row["cpu_s"] for row in (first, second, third)] == [8, 4, 1]
    assert [row["factor"] for row in (first, second, third)] == [1, 2, 4]
    assert third["so_far"] == 8


def test_forms_draw_in_turns_and_rounds_that_are_there_are_not_drawn_again(tmp_path):
    asked = []

    def form(name, scored):
        def draw(settings):
            asked.append((name, *settings.numbers))
            return np.full((settings.draws, 2, 1), settings.first, np.float32)

        return Form(name, "", scored, draw)

    forms = [form("a", True), form("b", False), form("c", True)]
    seconds, draws = published_speed.in_turns(forms, 3, tmp_path)
    assert [name for name, *_ in asked[:2]] == ["b", "c"], "what is fast is warmed up"
    eights = [tuple(range(first, first + 8)) for first in (1, 9, 17)]
    assert asked[2:] == [(name, *eight) for eight in eights for name in "abc"]
    assert seconds.shape == (3, 3, 2)
    assert set(draws) == {"a", "c"}
    np.testing.assert_array_equal(draws["c"][:, 0, 0], [1] * 8 + [9] * 8)
    asked.clear()
    again, _ = published_speed.in_turns(forms, 3, tmp_path)
    assert not asked
    np.testing.assert_array_equal(again, seconds)


def test_both_are_trained_alike_and_both_tables_are_written(cohort, tmp_path, monkeypatch):
    network = "".join(f"{name} = {value}\n" for name, value in SMALL_NETWORK.items())
    (tmp_path / "toy.toml").write_text(f"{CONFIG}[network]\n{network}[fit]\n{FIT}", "utf-8")
    page, out = tmp_path / "page.md", tmp_path / "found.json"
    page.write_text("<!-- begin published-speed -->\n<!-- end published-speed -->\n", "utf-8")

    def encoded(*_):
        return cohort
        yield

    monkeypatch.setattr(published_speed, "PAGE", page)
    monkeypatch.setattr(published_speed, "fold_cohort", encoded)
    monkeypatch.setattr(published_speed, "operations", lambda *_: 1e8)
    monkeypatch.setattr(published_speed, "read_baseline", lambda _: ("", SMALL["FLAG, published form"]))
    typed = ["published_speed", str(tmp_path / "toy.toml"), "--data", str(tmp_path), "--run", str(tmp_path)]
    typed += ["--test", "C4", "--heun-steps", "2", "--steps", "3", "2", "--rounds", "2"]
    typed += ["--write", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", typed)
    published_speed.main()
    found = json.loads(out.read_text("utf-8"))
    assert found["training"]["sections"] == ["C2", "C3"]
    assert found["training"]["TFLOP"]["published"] == pytest.approx(1e-4, rel=0.5)
    assert np.prod([row["factor"] for row in found["forms"]]) == pytest.approx(found["forms"][-1]["so_far"])
    assert [row["name"] for row in found["scores"]][2:] == ["ours", "ours, 2 evaluations"]
    assert set(found["scores"][2]["less_published"]) == set(COMPARED)
    written = page.read_text("utf-8")
    assert "| published network, 3 evaluations | 5 → 3 evaluations |" in written
    assert "| ours, less published |" in written


def test_without_a_config_nothing_is_done(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["published_speed"])
    published_speed.main()
    assert capsys.readouterr().out.startswith("Skipped")
