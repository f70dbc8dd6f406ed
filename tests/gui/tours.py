"""Many tours, one after the other, each in a process of its own: a crash ends a process.

``python -m tests.gui.tours [SEED …]`` prints a line for each; without seeds it plays all that are to go well.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.gui.tour import say

ROOT = Path(__file__).parents[2]
STEPS = 200
SEEDS = tuple(int(seed) for seed in os.environ.get("TOUR_SEEDS", "").split()) or tuple(range(1, 21))
"""All, or those named in the environment (the continuous run has no time for all)."""
PATIENCE_S = 3600


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a tour.

    Parameters
    ----------
    seed, steps
        Which it was.
    seconds
        What it took, with the start of the process.
    status
        Of the process, 0 where all went well.
    said
        Each step, and what was wrong.
    """

    seed: int
    steps: int
    seconds: float
    status: int
    said: str

    def __str__(self):
        """Return the line of a summary."""
        outcome = "well" if self.status == 0 else f"wrong (status {self.status})"
        return f"seed {self.seed:3d}, {self.steps} steps: {outcome}, {self.seconds:.0f} s"


def play(seed, steps=STEPS):
    """Play a tour in a process of its own."""
    begun = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.gui.tour", str(seed), str(steps)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    again = f"again: python -m tests.gui.tour {seed} {steps}"
    said = f"{ended.stdout}\n{ended.stderr[-4000:]}\n{again}\n"
    return Played(seed, steps, time.monotonic() - begun, ended.returncode, said)


def main(seeds):
    """Play tours; return how many did not go well."""
    wrong = 0
    for seed in seeds:
        played = play(seed)
        say(str(played))
        if played.status:
            wrong += 1
            say(played.said)
    say(f"{len(seeds) - wrong} of {len(seeds)} tours went well.")
    return wrong


if __name__ == "__main__":
    sys.exit(1 if main(tuple(map(int, sys.argv[1:])) or SEEDS) else 0)
