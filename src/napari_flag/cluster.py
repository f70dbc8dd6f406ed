"""Many tasks, here one after another or on the workers of a Dask cluster; no scheduler of our own.

Placing tasks on workers, giving those of a worker that ended to another, and waiting for workers that come
and go are Dask's work.  Here it is started, asked and put into words.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from napari_flag import __version__
from napari_flag.errors import UserError
from napari_flag.formatting import counted
from napari_flag.progress import Step, Steps, describe_step, finish

if TYPE_CHECKING:
    from distributed import Client

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL: Final = "local:"
"""``local:4`` stands for four processes on this computer."""
GPU: Final = "GPU"
"""Resource that a worker with a GPU states (``dask worker … --resources GPU=1``)."""
STARTING: Final = "starting workers"
"""Detail of the step that is shown until they are connected."""
LOOK_EVERY_S: Final = 0.2
COUNT_EVERY_S: Final = 2.0
"""How often the scheduler is asked how many workers there are."""
PATIENCE_S: Final = 10
"""How long a scheduler may take to answer."""


@dataclass(frozen=True, slots=True)
class Finished(Generic[Result]):
    """A task that came to its end.

    Parameters
    ----------
    place
        Of the task, from 0.
    result
        What its work returned; None where it was lost.
    lost
        Why Dask gave it up, as one sentence; empty where it did not.
    """

    place: int
    result: Result | None
    lost: str = ""


def spread(
    work: Callable[[Task], Steps[Result]],
    tasks: Sequence[Task],
    cluster: "str | Client | None",
    *,
    stage: str,
    unit: str,
    names: Sequence[str],
    before: int = 0,
    gpu: bool = False,
) -> Steps[None]:
    """Do every task, each wholly.

    Parameters
    ----------
    work
        Done with one task; on a cluster a function that workers can import.  Its result says too what failed:
        what it raises ends everything.  A task may be done twice when a worker is lost.
    tasks
        Sent to workers, so they and results are small.
    cluster
        Address of a Dask scheduler, ``local:N`` for N processes on this computer, a client that is
        connected, or None for one task after another in this process.
    stage, unit
        Of the steps; units are tasks.
    names
        What each task is called.
    before
        Tasks that were done earlier; they count among those done and in all.
    gpu
        Whether a task needs a worker with a GPU (the resource `GPU`).

    Yields
    ------
    Steps, whose ``partial`` is a `Finished` for each task as it ends, in any order.

    Raises
    ------
    UserError
        When Dask is not installed, or the scheduler does not answer or ends.
    """
    total = before + len(tasks)
    if cluster is None:
        for place, task in enumerate(tasks):
            yield Step(stage, before + place, total, unit, detail=names[place])
            result = yield from _within(work(task), Step(stage, before + place, total, unit), names[place])
            yield Step(stage, before + place + 1, total, unit, partial=Finished(place, result))
        return
    yield Step(stage, before, total, unit, detail=STARTING)
    with connected(cluster, gpu=gpu) as client:
        yield from _on_workers(work, tasks, client, Step(stage, before, total, unit), gpu)


def _within(steps: Steps[Result], outer: Step, name: str) -> Steps[Result]:
    """Show steps as the detail of a longer stage."""
    try:
        while True:
            step = next(steps)
            detail = f"{name}: {describe_step(step, None)}"
            yield Step(outer.stage, outer.done, outer.total, outer.unit, detail=detail)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    finally:
        steps.close()


def _drained(work: Callable[[Task], Steps[Result]], task: Task) -> Result:
    """Do one task on a worker."""
    return finish(work(task))


def _on_workers(
    work: Callable[[Task], Steps[Result]], tasks: Sequence[Task], client: "Client", first: Step, gpu: bool
) -> Steps[None]:
    from distributed import as_completed

    workers = _Workers(client)
    for notice in workers.look(gpu):
        yield Step(first.stage, first.done, first.total, first.unit, notice=notice)
    futures = client.map(
        partial(_drained, work), list(tasks), pure=False, resources={GPU: 1} if gpu else None
    )
    places = {future.key: place for place, future in enumerate(futures)}
    done = first.done
    try:
        completed = as_completed(futures, loop=client.loop)
        while completed.count():
            for future in completed.next_batch(block=False):
                if future.status == "lost" and client.status == "running":
                    completed.add(future)  # its worker died with the result, and it is done anew
                    continue
                done += 1
                finished = _finished(places[future.key], future)
                yield Step(first.stage, done, first.total, first.unit, partial=finished)
            yield Step(first.stage, done, first.total, first.unit, detail=workers.in_words())
            time.sleep(LOOK_EVERY_S)
    finally:
        if client.status == "running":
            client.cancel(futures)


def _finished(place: int, future: Any) -> Finished[Any]:
    from distributed import KilledWorker

    if future.status == "finished":
        return Finished(place, future.result())
    if future.status in ("cancelled", "lost"):
        raise UserError(
            "The Dask scheduler ended or gave up the tasks before all were done; start it again and run the "
            "same command: what is done is kept."
        )
    error = future.exception()
    if isinstance(error, KilledWorker):
        return Finished(
            place,
            None,
            f"Each of {error.allowed_failures + 1} workers that worked on it ended before it was done, most "
            "likely for want of memory; run it again with fewer processes or with more memory for each.",
        )
    if isinstance(error, ImportError):
        return Finished(
            place,
            None,
            f"A worker cannot import {error.name or 'napari-flag'}; install the same version of napari-flag "
            "where the workers run.",
        )
    raise error


class _Workers:
    """What is known of the workers of a scheduler, asked now and then."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._asked = -float("inf")
        self._words = ""

    def look(self, gpu: bool) -> tuple[str, ...]:
        """Return what to say of the workers before tasks are sent.

        Raises
        ------
        UserError
            When a GPU is needed and there are workers, but none states to have one.
        """
        workers = self._ask()
        if gpu and workers and not any(one["resources"].get(GPU) for one in workers.values()):
            raise UserError(
                f"None of the {len(workers)} workers states that it has a GPU; start those that have one "
                f"so: dask worker ADDRESS --nthreads 1 --resources {GPU}=1, or choose another --device."
            )
        several = max((one["nthreads"] for one in workers.values()), default=1)
        if several == 1 or gpu:
            return ()
        return (
            f"A worker takes up to {several} tasks at a time, whose memory adds up; start workers with "
            "--nthreads 1 where that is too much.",
        )

    def in_words(self) -> str:
        """Return how many there are."""
        if time.monotonic() - self._asked > COUNT_EVERY_S:
            self._ask()
        return self._words

    def _ask(self) -> dict[str, Any]:
        self._asked = time.monotonic()
        if self._client.status != "running":
            return {}
        workers: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        self._words = counted(len(workers), "worker") if workers else "waiting for a worker"
        return workers


def processes_of(cluster: str) -> int | None:
    """Return N of ``local:N``; None of an address.

    Raises
    ------
    UserError
        When N is no number of processes.
    """
    if not cluster.startswith(LOCAL):
        return None
    number = cluster.removeprefix(LOCAL)
    if not number.isdecimal() or int(number) < 1:
        raise UserError(
            f"--cluster {cluster} names no number of processes; give one, as in {LOCAL}2, or the address of "
            "a Dask scheduler."
        )
    return int(number)


def cores() -> int:
    """Return how many cores this process may use: those it is bound to, as in a job of SLURM, else all."""
    bound = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(bound(0)) if bound else os.cpu_count() or 1


def require_dask() -> None:
    """Raise a `UserError` that says what to install where Dask is missing."""
    if find_spec("distributed") is None:
        raise UserError(
            'Dask is not installed, which --cluster needs; run: pip install "napari-flag[dask]", or leave '
            "--cluster out to do one after another."
        )


def require_version(version: str) -> None:
    """Raise a `UserError` on a worker whose napari-flag is not that of the command."""
    if version != __version__:
        raise UserError(
            f"A worker has napari-flag {__version__} and the command runs "
            f"{version}; install the same version in both places."
        )


@contextmanager
def connected(cluster: "str | Client", *, gpu: bool = False) -> "Iterator[Client]":
    """Connect to a scheduler, or start processes here, which end with the block; a client stays connected.

    The processes share the cores of this computer evenly; ``OMP_NUM_THREADS`` sets the threads of each.

    Parameters
    ----------
    cluster
        As of `spread`.
    gpu
        Whether processes that are started here may use the GPU; they share it.

    Raises
    ------
    UserError
        When Dask is not installed, or the scheduler does not answer.
    """
    if not isinstance(cluster, str):
        yield cluster
        return
    processes = processes_of(cluster)
    require_dask()
    import dask
    from distributed import Client, LocalCluster

    if processes is None:
        try:
            client = Client(cluster, timeout=PATIENCE_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise UserError(
                f"No Dask scheduler answers at {cluster} ({type(error).__name__}); check the address, which "
                "`dask scheduler` prints when it starts, as tcp://HOST:8786."
            ) from error
        with client:
            yield client
        return
    threads = max(cores() // processes, 1)
    limits = {f"distributed.nanny.pre-spawn-environ.{name}_NUM_THREADS": threads for name in ("OMP", "MKL")}
    with (
        dask.config.set({**limits, "distributed.scheduler.worker-saturation": 1.0}),
        LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            resources={GPU: 1} if gpu else None,
            dashboard_address="127.0.0.1:0",  # None listens at port 8787, and warns where that is taken
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        ) as workers,
        Client(workers, set_as_default=False) as client,
    ):
        yield client
