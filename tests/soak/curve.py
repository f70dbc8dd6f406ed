"""What is recorded of a window at regular marks, and whether it stays flat.

A quantity is flat in a phase where, after the warm-up, it grows by no more than `Limit.growth` for each
`UNITS` of the phase.  Where it grows by more, but over all marks together by no more than `Limit.noise`, the
phase was too short to tell growth from noise.  Growth is the median slope between all pairs of marks (Theil
1950, Sen 1968), which no single mark moves.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from scipy.stats import theilslopes

SWITCHES, ROUNDS = "switches", "rounds"
UNITS: Final = {SWITCHES: 100_000, ROUNDS: 100}
"""Phase → for how many of them growth is stated."""
WARM_UP: Final = 0.2
"""Share of the marks of a phase that come before it is judged: caches fill and modules are imported."""
FEWEST: Final = 4
"""Marks after the warm-up below which nothing can be said."""
FLAT, GROWS, TOO_SHORT = "flat", "grows", "too short to say"
"""What can be said of a quantity in a phase."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What counts as flat.

    Parameters
    ----------
    growth
        Per 100,000 switches, and per 100 rounds.
    noise
        Growth over a whole phase that is no growth: pools of threads, caches, the allocator.
    """

    growth: float
    noise: float


LIMITS: Final = {
    "resident memory, MB": Limit(10.0, 10.0),
    "open file handles": Limit(0.5, 2.0),
    "Python threads": Limit(0.5, 2.0),
    "threads of the process": Limit(0.5, 4.0),
    "layers": Limit(0.0, 0.0),
    "widgets": Limit(0.5, 2.0),
    "top-level widgets": Limit(0.5, 1.0),
    "Qt objects of the window": Limit(1.0, 4.0),
    "objects of Python": Limit(1000.0, 1000.0),
    "GL objects": Limit(0.5, 4.0),
}
"""Quantity → what counts as flat.  A million switches and 500 rounds, a day of work, may thus cost 150 MB
and no handle, thread, layer or widget that anyone would notice."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A window at rest, always in the same view.

    Parameters
    ----------
    phase
        `SWITCHES` or `ROUNDS`.
    done
        How many of the phase were done.
    seconds
        Since the start.
    values
        Key of `LIMITS` → number.
    """

    phase: str
    done: int
    seconds: float
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """How a quantity grew in a phase.

    Parameters
    ----------
    first, last
        At the first mark after the warm-up and at the last.
    per_unit
        Per `UNITS` of the phase.
    over_all
        From the first of these marks to the last, by the slope.
    """

    phase: str
    quantity: str
    first: float
    last: float
    per_unit: float
    over_all: float

    @property
    def verdict(self) -> str:
        """`FLAT`, `GROWS`, or `TOO_SHORT` where growth above its limit is no more than noise in all."""
        limit = LIMITS[self.quantity]
        if self.per_unit <= limit.growth:
            return FLAT
        return TOO_SHORT if self.over_all <= limit.noise else GROWS


def judged(marks: Sequence[Mark], phase: str) -> list[Mark]:
    """Return the marks of a phase after its warm-up."""
    of_phase = [mark for mark in marks if mark.phase == phase]
    return of_phase[int(np.ceil(WARM_UP * len(of_phase))) :]


def growths(marks: Sequence[Mark]) -> list[Growth]:
    """Return the growth of every quantity in every phase that has marks enough."""
    found = []
    for phase, unit in UNITS.items():
        after = judged(marks, phase)
        if len(after) < FEWEST:
            continue
        done = np.array([mark.done for mark in after], float)
        for quantity in LIMITS:
            values = np.array([mark.values[quantity] for mark in after], float)
            slope = float(theilslopes(values, done).slope)
            over_all = slope * float(done[-1] - done[0])
            found.append(Growth(phase, quantity, float(values[0]), float(values[-1]), slope * unit, over_all))
    return found


def as_json(marks: Sequence[Mark], about: dict[str, Any]) -> dict[str, Any]:
    """Return marks and growths as they are written."""
    grown = [asdict(growth) | {"verdict": growth.verdict} for growth in growths(marks)]
    return about | {"growths": grown, "marks": [asdict(mark) for mark in marks]}
