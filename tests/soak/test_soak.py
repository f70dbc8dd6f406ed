"""What counts as flat, a short soak, and soaks that leak on purpose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.soak.curve import FEWEST, FLAT, GROWS, LIMITS, ROUNDS, SWITCHES, TOO_SHORT, Mark, growths

ROOT = Path(__file__).parents[2]
LAYERS, MEMORY = "layers", "resident memory, MB"


def marks(quantity, values, phase=SWITCHES, step=1000):
    """Marks at which nothing changes but one quantity."""
    return [
        Mark(phase, step * place, float(place), dict.fromkeys(LIMITS, 10.0) | {quantity: value})
        for place, value in enumerate(values)
    ]


def judged(found):
    """Return quantity → verdict, of all that are not flat."""
    return {growth.quantity: growth.verdict for growth in growths(found) if growth.verdict != FLAT}


def test_what_never_changes_is_flat_and_what_grows_by_a_layer_is_not():
    assert judged(marks(LAYERS, [3.0] * 20)) == {}
    assert judged(marks(LAYERS, [3.0 + place // 2 for place in range(20)])) == {LAYERS: GROWS}


def test_of_growth_above_its_limit_that_is_no_more_than_noise_in_all_the_run_was_too_short_to_say():
    noise = LIMITS[MEMORY].noise
    short = [100.0 + 0.9 * noise * place / 20 for place in range(20)]
    assert judged(marks(MEMORY, short, step=100)) == {MEMORY: TOO_SHORT}
    assert judged(marks(MEMORY, short, step=100_000)) == {}, "the same growth over many more switches"
    assert judged(marks(MEMORY, [100.0 + 2 * noise * place / 20 for place in range(20)], step=100)) == {
        MEMORY: GROWS
    }


@pytest.mark.parametrize("name", ["soak", "soak_switches"])
def test_the_page_of_the_docs_says_what_its_marks_do(name):
    from tests.soak.result import page

    results = ROOT / "docs" / "results"
    written = json.loads((results / f"{name}.json").read_text("utf-8"))
    found = [Mark(**mark) for mark in written["marks"]]
    assert [growth["verdict"] for growth in written["growths"]] == [g.verdict for g in growths(found)]
    assert (results / f"{name}.md").read_text("utf-8") == page(found, written, f"{name}.png")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([800.0] * 20, "**Everything stayed flat.**"),
        ([800.0 + 0.1 * place for place in range(20)],
         "**Nothing was seen to grow. The run was too short to say it of: resident memory, MB (switches).**"),
        ([800.0 + 9 * place for place in range(20)], "**These grew: resident memory, MB (switches).**"),
        ([800.0] * 3, "**Too few marks to say anything.**"),
    ],
)  # fmt: skip
def test_a_page_begins_with_what_can_be_said(values, said):
    from tests.soak.result import page

    found, of = marks(MEMORY, values, step=100), {SWITCHES: 100 * (len(values) - 1)}
    about = {"arguments": "", "computer": "", "asked": of, "done": of, "frames": of}
    assert said in page(found, about, "soak.png").splitlines()


def test_growth_during_the_warm_up_and_a_single_jump_back_and_forth_are_no_leak():
    assert judged(marks(MEMORY, [100.0, 300.0, 500.0, 700.0] + [800.0] * 16)) == {}
    assert judged(marks(MEMORY, [800.0] * 10 + [2000.0] + [800.0] * 9)) == {}


def test_growth_is_stated_for_a_hundred_thousand_switches_and_a_hundred_rounds():
    by = {g.quantity: g for g in growths(marks(MEMORY, [100.0 + 2 * place for place in range(20)]))}
    assert by[MEMORY].per_unit == pytest.approx(200.0)
    assert by[MEMORY].over_all == pytest.approx(30.0)
    assert by[MEMORY].verdict == GROWS
    rounds = {
        g.quantity: g for g in growths(marks(MEMORY, [100.0 + place for place in range(20)], ROUNDS, 5))
    }
    assert rounds[MEMORY].per_unit == pytest.approx(20.0)


def test_a_slow_growth_over_a_long_run_is_held_to_its_slope_and_not_to_noise():
    limit = LIMITS[MEMORY]
    below = [100.0 + 0.9 * limit.growth * place / 2 for place in range(20)]
    above = [100.0 + 1.1 * limit.growth * place / 2 for place in range(20)]
    assert judged(marks(MEMORY, below, step=50_000)) == {}
    assert judged(marks(MEMORY, above, step=50_000)) == {MEMORY: GROWS}


def test_of_too_few_marks_nothing_is_said():
    assert growths(marks(LAYERS, [3.0] * (FEWEST - 1))) == []


def soak(out, *words):
    """Run a soak in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tests.soak", "--out", str(out), *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=3600,
    )


COUNTED = ("open file handles", "Python threads", LAYERS, "widgets", "top-level widgets")
"""What a few hundred switches can be held to; memory and objects still grow by what is shown first."""


@pytest.mark.slow
def test_a_short_soak_keeps_its_layers_widgets_threads_and_handles_and_writes_its_page(qapp, tmp_path):
    ran = soak(tmp_path / "soak.md", "--switches", "400", "--rounds", "5", "--marks", "5", "--seed", "5")
    assert "WRONG" not in ran.stdout, ran.stdout
    assert "Traceback" not in ran.stderr, ran.stderr[-3000:]
    written = json.loads((tmp_path / "soak.json").read_text())
    assert written["done"] == {SWITCHES: 400, ROUNDS: 5}
    counted = [growth for growth in written["growths"] if growth["quantity"] in COUNTED]
    assert len(counted) == 2 * len(COUNTED)
    assert [growth for growth in counted if growth["verdict"] == GROWS] == []
    assert "400 gene switches" in (tmp_path / "soak.md").read_text()
    assert (tmp_path / "soak.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(("leak", "quantity"), [("layers", LAYERS), ("handles", "open file handles")])
def test_a_leak_made_on_purpose_is_found(qapp, tmp_path, leak, quantity):
    words = ("--switches", "120", "--rounds", "0", "--marks", "6", "--leak", leak)
    ran = soak(tmp_path / "soak.md", *words)
    assert ran.returncode == 1, ran.stdout + ran.stderr[-3000:]
    found = json.loads((tmp_path / "soak.json").read_text())["growths"]
    assert quantity in {growth["quantity"] for growth in found if growth["verdict"] == GROWS}
    assert f"{quantity} (switches)" in (tmp_path / "soak.md").read_text()
