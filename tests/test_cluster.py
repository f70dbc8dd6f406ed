"""Tasks are each done once, here or on workers, and what goes wrong with Dask is one sentence."""

import os
import signal
import time
from pathlib import Path

import pytest
from distributed import Client
from tests.dask_workers import threads

from napari_flag import cluster
from napari_flag.cluster import GPU, connected, processes_of, spread
from napari_flag.errors import UserError
from napari_flag.progress import Step, finish

NAMES = [f"S{number}" for number in range(6)]


def squared(number):
    """The work of these tests: a step, then the square."""
    yield Step("Squaring", 0, 1)
    return number * number


@pytest.fixture(scope="module")
def client():
    """A client of one worker, which states no GPU."""
    with threads() as workers, Client(workers, set_as_default=False) as connected_client:
        yield connected_client


def run(tasks, where, work=squared, **kwargs):
    """All steps, and results by the place of their task."""
    steps = []
    spreading = spread(
        work, tasks, where, stage="Squares", unit="numbers", names=NAMES[: len(tasks)], **kwargs
    )
    finish(spreading, steps.append)
    ended = [step.partial for step in steps if step.partial is not None]
    assert len({one.place for one in ended}) == len(ended)
    return steps, {one.place: one.result for one in ended}


def test_tasks_are_done_one_after_another_and_counted_with_those_done_before():
    steps, results = run([3, 4], None, before=2)
    assert results == {0: 9, 1: 16}
    counts = [(step.done, step.total) for step in steps]
    assert (counts[0], counts[-1]) == ((2, 4), (4, 4))
    assert any(step.detail == "S0: Squaring" for step in steps)


def test_workers_give_each_result_once(client):
    steps, results = run([1, 2, 3, 4, 5], client)
    assert results == {0: 1, 1: 4, 2: 9, 3: 16, 4: 25}
    assert (steps[-1].done, steps[-1].total) == (5, 5)
    assert any(step.detail == "1 worker" for step in steps)


def test_nothing_to_do_ends_at_once(client):
    assert run([], None) == ([], {})
    assert run([], client)[1] == {}


def test_a_gpu_that_no_worker_states_is_refused_rather_than_waited_for(client):
    with pytest.raises(UserError, match=r"states that it has a GPU.*--resources GPU=1"):
        run([1], client, gpu=True)


def test_a_task_that_needs_a_gpu_goes_to_a_worker_that_states_one():
    with threads({GPU: 1}) as workers, Client(workers, set_as_default=False) as client:
        assert run([2, 3], client, gpu=True)[1] == {0: 4, 1: 9}


def started_in(folder):
    """Work that leaves a file as it starts."""
    Path(folder).joinpath(f"{time.monotonic_ns()}").touch()
    time.sleep(0.2)
    yield Step("Working", 0, 1)


def test_closing_takes_back_the_tasks_that_have_not_started(client, tmp_path):
    steps = spread(started_in, [str(tmp_path)] * 6, client, stage="S", unit="tasks", names=NAMES)
    while not list(tmp_path.iterdir()):
        next(steps)
    begun = time.monotonic()
    steps.close()
    assert time.monotonic() - begun < 1
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 3


def failing(number):
    """Work with a fault that the user can mend."""
    yield Step("Failing", 0, 1)
    raise UserError(f"{number} is wrong; take another.")


@pytest.mark.parametrize("here", [True, False])
def test_what_the_work_raises_ends_everything_alike(client, here):
    with pytest.raises(UserError, match="7 is wrong; take another"):
        run([7], None if here else client, work=failing)


def test_a_missing_dask_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r'pip install "napari-flag\[dask\]"'):
        run([1], "local:2")
    assert run([1], None)[1] == {0: 1}


def test_an_address_at_which_nothing_answers_is_one_sentence(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.3)
    with pytest.raises(UserError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        run([1], "tcp://127.0.0.1:1")


@pytest.mark.parametrize("wrong", ["local:", "local:0", "local:two", "local:-1"])
def test_processes_are_a_number(wrong):
    with pytest.raises(UserError, match="names no number of processes"):
        processes_of(wrong)
    assert processes_of("local:3") == 3
    assert processes_of("tcp://host:8786") is None


def ends_its_process(number):
    """Work whose process dies of the first task, as of a decoder that crashes."""
    yield Step("Working", 0, 1)
    if number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_task_that_kills_every_worker_is_given_up_and_the_others_are_done():
    with connected("local:2") as client:
        steps, results = run([0, 1, 2, 3, 4, 5], client, work=ends_its_process)
    lost = [step.partial for step in steps if step.partial is not None and step.partial.lost]
    assert results == {0: None, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5}
    assert [one.place for one in lost] == [0]
    assert "ended before it was done" in lost[0].lost
