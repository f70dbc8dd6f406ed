"""Long work: how it reports progress, how it is cancelled, and how long it will take.

Every long function of this package is a generator: it yields a `Step` at least twice a second
and returns its result.  The command line drains it with `finish`; the docks hand it to napari's
``thread_worker``.  Work is cancelled by closing its generator: its ``finally`` blocks then close files,
and nothing more is written.

`TimeLeft` estimates the rest from the steps so far, and from the `Timings` of earlier runs.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO, TypeAlias, TypeVar

from napari_flag.errors import UserError
from napari_flag.files import Unwritable, parse_json, read_text, replacing
from napari_flag.formatting import LINE_ENDS, duration, legible, whole

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """Progress of long work, and what it has to report on the way.

    Parameters
    ----------
    stage
        Name of the stage, as shown to the user: "Reading tiles".
    done, total
        Units finished in this stage, and how many there are (None if not known).
    unit
        Plural of what is counted: "spots", "tiles", "rows".
    notice
        A sentence for the user, shown while the work continues, e.g. that the batch was halved.
    partial
        An intermediate result; its type is stated by the function that yields it.
    detail
        What a long unit is at, where a stage has few of them.
    """

    stage: str
    done: int
    total: int | None = None
    unit: str = "spots"
    notice: str | None = None
    partial: Any = field(default=None, compare=False)
    detail: str = ""


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


def one_step(stage: str, work: Callable[..., T], *args: Any) -> Steps[T]:
    """Run ``work(*args)`` as long work of a single `Step`, which is shown before it begins."""
    yield Step(stage, 0)
    return work(*args)


WAIT_S: Final = 0.25
"""Seconds between the steps of work that has none of its own."""


def in_background(step: Step | str, work: Callable[..., T], *args: Any, **options: Any) -> Steps[T]:
    """Run ``work(*args, **options)`` in a thread of its own, so that what takes seconds can be cancelled.

    Parameters
    ----------
    step
        Yielded until it is done, or the name of its stage.
    work
        Changes nothing: once cancelled, it runs to its end, and what it returns is let be.
    """
    step = Step(step, 0) if isinstance(step, str) else step
    yield step
    pool = ThreadPoolExecutor(1, thread_name_prefix="background")
    try:
        doing = pool.submit(work, *args, **options)
        while wait([doing], WAIT_S).not_done:
            yield step
        return doing.result()
    finally:
        pool.shutdown(wait=False)


class ProgressBar:
    """A bar for the stages of long work, in terminals and notebooks; a context manager that clears it.

    Nothing is drawn where `stream` is neither, as a log file; notices are written everywhere.

    Parameters
    ----------
    stream
        Where to write; stderr.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a notebook without ipywidgets has a bar of text
            from tqdm.auto import tqdm

        self._stream = sys.stderr if stream is None else stream
        notebook = type(self._stream).__module__.startswith("ipykernel")
        drawn = notebook or self._stream.isatty()
        self._bar: Any = tqdm(file=self._stream, disable=not drawn, leave=False, dynamic_ncols=True)
        self._stage = ""
        self._done = 0
        self._written: set[str] = set()

    def __call__(self, step: Step) -> None:
        """Show `step`."""
        if step.stage != self._stage or step.done < self._done:
            self._stage = step.stage
            self._bar.reset()
            self._bar.total = step.total  # unlike that of `reset`, None as well
            self._bar.unit = f" {step.unit}"
            self._bar.set_description(legible(step.stage))
        self._bar.update(step.done - self._bar.n)
        self._done = step.done
        if step.notice and step.notice not in self._written:
            self._written.add(step.notice)
            self._bar.write(f"Note: {legible(step.notice, keep=LINE_ENDS)}", file=self._stream)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()


TRUST_AFTER_S: Final = 1.0
"""Seconds after which a stage's own pace is extrapolated; its first items often include loading."""
CACHED_BELOW: Final = 0.05
"""Share of the recorded time below which a stage is assumed to have read its result from a cache."""


class TimeLeft:
    """Time left of work that goes through stages.

    The running stage is extrapolated from its own pace.  Stages still to come count with their expected
    seconds, scaled by the ratio of actual to expected seconds of the stages so far.

    Parameters
    ----------
    expected
        Seconds per stage, in the order they run; empty when nothing is known.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        expected: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._expected = dict(expected or {})
        self._clock = clock
        self._last = self._stage_begun = clock()
        self._stage: str | None = None
        self._first_done = self._done = 0
        self.seconds: dict[str, float] = {}
        """Seconds spent in each stage so far."""

    def update(self, step: Step) -> float | None:
        """Update with one step and return the seconds left, None while they cannot be estimated."""
        now = self._clock()
        ran = step.stage if self._stage is None else self._stage
        self.seconds[ran] = self.seconds.get(ran, 0.0) + now - self._last
        self._last = now
        if step.stage != self._stage or step.done < self._done:  # another, or the same once more
            self._stage, self._stage_begun, self._first_done = step.stage, now, step.done
            self.seconds.setdefault(step.stage, 0.0)
        self._done = step.done
        spent = now - self._stage_begun
        left = self._left_of_stage(step, spent)
        later = [s for stage, s in self._expected.items() if stage not in self.seconds]
        if left is None:
            return None
        return left + sum(later) * self._pace(step.stage)

    def _left_of_stage(self, step: Step, spent: float) -> float | None:
        done = step.done - self._first_done
        if step.total is not None and done > 0 and spent >= TRUST_AFTER_S:
            return spent / done * max(step.total - step.done, 0)
        if step.stage in self._expected:
            whole = self._expected[step.stage] * self._pace(step.stage)
            if step.total:
                return whole * max(step.total - step.done, 0) / step.total
            return max(whole - spent, 0.0)
        return None

    def _pace(self, running: str) -> float:
        """Return the ratio of actual to expected seconds of the finished stages; 1 if none was expected."""
        over = [s for s in self.seconds if s != running and s in self._expected]
        expected = sum(self._expected[s] for s in over)
        return sum(self.seconds[s] for s in over) / expected if expected > TRUST_AFTER_S else 1.0


class Timings:
    """Seconds that earlier runs on this computer took, stored in a small JSON file.

    Parameters
    ----------
    path
        The file; it need not exist.  Where it cannot be read or written, estimates fall back to
        `first_guess`.
    first_guess
        Seconds per spot and stage before the first run.
    """

    def __init__(self, path: Path, first_guess: Mapping[str, float]) -> None:
        self._path = path
        self._first_guess = dict(first_guess)

    def expected(self, key: str, n_spots: int) -> dict[str, float]:
        """Return the expected seconds of each stage for `n_spots` under `key`."""
        per_spot = self._read().get(key, self._first_guess)
        return {stage: seconds * n_spots for stage, seconds in per_spot.items()}

    def known(self, key: str) -> bool:
        """Return whether an earlier run under `key` was timed."""
        return key in self._read()

    def record(self, key: str, seconds: Mapping[str, float], n_spots: int) -> None:
        """Record the seconds that each stage of a finished run took.

        A stage that took less than `CACHED_BELOW` of its recorded time was read from a cache, which does
        not predict the next slide; its earlier record is kept.
        """
        everything = self._read()
        former = everything.get(key, {})
        known = {**self._first_guess, **former}
        kept = {}
        for stage, spent in seconds.items():
            now = spent / max(n_spots, 1)
            if now < CACHED_BELOW * known.get(stage, 0.0):
                kept[stage] = known[stage]
            else:  # averaged, since one run on a busy computer must not spoil the next estimates
                kept[stage] = (now + former.get(stage, now)) / 2
        everything[key] = kept
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as place:
                place.write_text(json.dumps(everything, indent=1))
        except (OSError, Unwritable):
            return

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            content = parse_json(read_text(self._path))
            return {
                str(key): {str(stage): float(s) for stage, s in stages.items()}
                for key, stages in content.items()
            }
        except (UserError, OSError, ValueError, AttributeError, TypeError):
            return {}


def say_duration(seconds: float) -> str:
    """Return a duration in words: "a few seconds", "about 40 s", "about 3 min"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 55:
        return f"about {duration(5 * max(round(seconds / 5), 1))}"
    return f"about {duration(60 * max(round(seconds / 60), 1))}"


def describe_step(step: Step, left_s: float | None) -> str:
    """Return "Reading tiles · 120 of 183 spots · about 10 s left", with the detail at the end."""
    parts = [step.stage]
    if step.total and step.total > 1:
        parts.append(f"{whole(step.done)} of {whole(step.total)} {step.unit}")
    elif step.done and step.total is None:
        parts.append(f"{whole(step.done)} {step.unit}")
    if left_s is not None and (step.total is None or step.done < step.total):
        parts.append(f"{say_duration(left_s)} left")
    if step.detail:
        parts.append(step.detail)
    return " · ".join(parts)
