"""How long work tells what it is doing, and how it is stopped.

Every long function of this package is a generator: it yields a `Step` at least twice a second
and returns its result.  The command line drains it with `finish`; the docks hand it to napari's
``thread_worker``.  Whoever stops asking for the next step has cancelled the work: the generator's
``finally`` blocks then close files, and nothing more is written.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One sign of life from long work.

    Parameters
    ----------
    stage
        What is being done, as a person would say it: "Reading tiles".
    done, total
        Units finished in this stage, and how many there are (None if not known).
    unit
        What is counted: "spots", "tiles", "rows".
    notice
        A sentence the user must see although work goes on, e.g. that the batch was halved.
    partial
        What can already be shown; its type is stated by the function that yields it.
    """

    stage: str
    done: int
    total: int | None = None
    unit: str = "spots"
    notice: str | None = None
    partial: Any = field(default=None, compare=False)


Steps: TypeAlias = Generator[Step, None, T]
"""Long work with a result of type T."""


def finish(steps: Steps[T], on_step: Callable[[Step], None] | None = None) -> T:
    """Run `steps` to the end and return its result.

    Parameters
    ----------
    steps
        The work.
    on_step
        Called with each `Step` as it arrives.  Closes the work if it raises.
    """
    try:
        while True:
            step = next(steps)
            if on_step is not None:
                on_step(step)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        steps.close()
