"""A person in the workspace with three slides, in random order; each tour in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT, LONG = 25, 200
PATIENCE_S = 3600


def play(seed, steps):
    """A crash ends the process; what was done until then is printed."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.gui.tour", str(seed), str(steps)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    again = f"\nagain: python -m tests.gui.tour {seed} {steps}\n"
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr[-4000:]}{again}"


@pytest.mark.parametrize("seed", [101, 102])
def test_a_short_tour_loses_nothing_and_draws_nothing_on_the_wrong_tissue(qapp, seed):
    play(seed, SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_a_long_tour_loses_nothing_and_draws_nothing_on_the_wrong_tissue(qapp, seed):
    play(seed, LONG)
