import gc
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from qtpy.QtCore import QObject, QThreadPool
from qtpy.QtWidgets import QWidget

from napari_flag.gui.jobs import THREADS, Job, Jobs, ProgressStrip
from napari_flag.progress import Step


class Listener(QObject):
    """Records every signal of a job."""

    def __init__(self, job):
        super().__init__()
        self.steps, self.results, self.errors, self.cancels = [], [], [], 0
        job.stepped.connect(self.steps.append)
        job.finished.connect(self.results.append)
        job.failed.connect(self.errors.append)
        job.cancelled.connect(self._on_cancelled)

    def _on_cancelled(self):
        self.cancels += 1


def counting(n, log=None, pause=0.0, **extra):
    """Count to `n`, and say in `log` when it was closed."""
    try:
        for i in range(n):
            time.sleep(pause)
            yield Step("Counting", i, n, **extra)
        return n
    finally:
        if log is not None:
            log.append(threading.current_thread())


def test_result_arrives_and_fast_steps_are_thinned_out(qtbot):
    job = Job(counting(3_000), "Count")
    record = Listener(job)
    with qtbot.waitSignal(job.ended):
        job.start()
    assert record.results == [3_000]
    assert record.errors == []
    assert record.cancels == 0
    assert 1 <= len(record.steps) < 100
    assert not job.running


def test_steps_with_partial_results_or_notices_are_never_dropped(qtbot):
    job = Job(counting(300, partial="rows"), "Count")
    record = Listener(job)
    with qtbot.waitSignal(job.ended):
        job.start()
    assert [s.done for s in record.steps] == list(range(300))


def test_a_short_stage_that_was_not_expected_does_not_count_as_the_whole(qtbot):
    def work():
        yield Step("Reading", 0, 10, notice="begun")
        yield Step("Comparing", 1, 1, notice="compared")
        yield Step("Reading", 1, 10, notice="goes on")

    job, shares = Job(work(), "Read", expected={"Reading": 100.0}), []
    job.stepped.connect(lambda _: shares.append(job.fraction))
    with qtbot.waitSignal(job.ended):
        job.start()
    assert len(shares) == 3
    assert max(share or 0.0 for share in shares) < 0.2


def test_cancel_frees_the_window_within_a_second_and_closes_the_work(qtbot):
    log = []
    job = Job(counting(10**9, log, pause=0.01), "Count")
    record = Listener(job)
    with qtbot.waitSignal(job.stepped):
        job.start()
    begun = time.monotonic()
    with qtbot.waitSignal(job.cancelled):
        job.cancel()
    assert time.monotonic() - begun < 1.0
    n_steps = len(record.steps)
    qtbot.waitUntil(lambda: len(log) == 1)
    assert log[0] is not threading.main_thread()
    qtbot.wait(50)
    assert len(record.steps) == n_steps
    assert record.results == []
    assert record.cancels == 1


def test_cancel_frees_the_window_even_when_the_work_does_not_yield(qtbot):
    release = threading.Event()

    def stuck():
        yield Step("Stuck", 0)
        release.wait(10)
        yield Step("Stuck", 1)

    job = Job(stuck(), "Get stuck")
    with qtbot.waitSignal(job.stepped):
        job.start()
    begun = time.monotonic()
    with qtbot.waitSignal(job.cancelled, timeout=2000):
        job.cancel()
    assert time.monotonic() - begun < 1.0
    release.set()
    qtbot.waitUntil(lambda: job not in Job._running)


@pytest.fixture
def stuck(qtbot):
    """Return a function that starts jobs which do not yield, over a pool of two threads."""
    pool, released = QThreadPool.globalInstance(), threading.Event()
    before, begun = pool.maxThreadCount(), []

    def work():
        begun.append(True)
        released.wait(30)
        yield Step("Stuck", 0)

    def start(count):
        for _ in range(count):
            Job(work(), "Get stuck").start()
        qtbot.waitUntil(lambda: len(begun) == count, timeout=10_000)

    qtbot.waitUntil(lambda: not Job._running, timeout=30_000)
    pool.setMaxThreadCount(2)
    yield start
    released.set()
    qtbot.waitUntil(lambda: not Job._running, timeout=30_000)
    pool.setMaxThreadCount(before)


def test_two_jobs_that_do_not_yield_keep_no_other_waiting_on_two_cores(qtbot, stuck):
    stuck(2)
    job = Job(counting(5), "Count")
    with qtbot.waitSignal(job.finished, timeout=5_000):
        job.start()


def test_a_job_that_does_not_wait_runs_beside_any_number(qtbot, stuck):
    stuck(THREADS)
    owner = QObject()
    results = []
    Jobs(owner, print).run("count", counting(5), "Count", on_result=results.append, waits=False)
    qtbot.waitUntil(lambda: results == [5], timeout=5_000)


@pytest.mark.parametrize("error", [ValueError("bad"), RuntimeError("as torch raises them")])
def test_errors_are_handed_over_without_napari_popup(qtbot, error):
    from napari.utils.notifications import notification_manager

    def failing():
        yield Step("Failing", 0)
        raise error

    job = Job(failing(), "Fail")
    record = Listener(job)
    before = len(notification_manager.records)
    with qtbot.waitSignal(job.ended):
        job.start()
    assert record.errors == [error]
    assert record.results == []
    assert len(notification_manager.records) == before


def test_a_deleted_listener_gets_no_signal(qtbot):
    log = []
    job = Job(counting(20, log, pause=0.01), "Count")
    record = Listener(job)
    with qtbot.waitSignal(job.stepped):
        job.start()
    record.deleteLater()
    del record
    gc.collect()
    with qtbot.waitSignal(job.finished):
        pass
    assert len(log) == 1


def test_nobody_needs_to_hold_the_job(qtbot):
    log = []
    Job(counting(5, log, pause=0.01), "Count").start()
    gc.collect()
    qtbot.waitUntil(lambda: len(log) == 1)
    qtbot.waitUntil(lambda: not Job._running)


@pytest.fixture
def owner(qtbot):
    """A widget with jobs, a strip, and a record of what was called."""
    widget = QWidget()
    qtbot.addWidget(widget)
    widget.called = []
    widget.jobs = Jobs(widget, lambda error: widget.called.append(("error", str(error))))
    widget.strip = ProgressStrip(widget.jobs, widget)
    widget.show()
    return widget


def run(owner, purpose, steps, **options):
    return owner.jobs.run(
        purpose,
        steps,
        purpose.capitalize(),
        on_result=lambda result: owner.called.append((purpose, result)),
        on_cancelled=lambda: owner.called.append((purpose, "cancelled")),
        **options,
    )


def test_a_new_job_for_a_purpose_replaces_the_one_before_without_a_word(owner, qtbot):
    run(owner, "count", counting(10**9, pause=0.01))
    run(owner, "count", counting(3))
    with qtbot.waitSignal(owner.jobs.idle, timeout=5_000):
        pass
    assert owner.called == [("count", 3)]


def test_an_error_goes_to_the_owner(owner, qtbot):
    def failing():
        yield Step("Failing", 0)
        raise ValueError("bad")

    with qtbot.waitSignal(owner.jobs.idle):
        run(owner, "fail", failing())
    assert owner.called == [("error", "bad")]


def test_the_strip_shows_stage_count_and_time_left_of_the_job_started_last(owner, qtbot):
    first, second = threading.Event(), threading.Event()

    def waiting(stage, release):
        while not release.wait(0.02):
            yield Step(stage, 1, 4, "tiles")

    assert owner.strip.isHidden()
    run(owner, "first", waiting("Reading", first))
    run(owner, "second", waiting("Counting", second), expected={"Counting": 40.0})
    qtbot.waitUntil(lambda: "Counting · 1 of 4 tiles · about" in owner.strip.status.text(), timeout=3_000)
    second.set()
    qtbot.waitUntil(lambda: owner.strip.status.text() == "Reading · 1 of 4 tiles", timeout=3_000)
    assert owner.strip.bar.value() == owner.strip.bar.maximum() / 4
    first.set()
    qtbot.waitUntil(owner.strip.isHidden, timeout=3_000)


def test_cancel_on_the_strip_stops_all_that_runs_within_a_second(owner, qtbot):
    for purpose in ("first", "second"):
        run(owner, purpose, counting(10**9, pause=0.01))
    begun = time.monotonic()
    with qtbot.waitSignal(owner.jobs.idle, timeout=3_000):
        owner.strip.cancel.click()
    assert time.monotonic() - begun < 1.0
    assert sorted(owner.called) == [("first", "cancelled"), ("second", "cancelled")]


def test_jobs_of_a_deleted_owner_are_cancelled_and_call_nothing(qtbot):
    log, called, owner = [], [], QObject()
    begun = threading.Event()

    def work():
        begun.set()
        yield from counting(10**9, log, pause=0.01)

    jobs = Jobs(owner, called.append)
    jobs.run("count", work(), "Count", on_result=called.append)
    qtbot.waitUntil(begun.is_set, timeout=20_000)
    with qtbot.waitSignal(owner.destroyed):
        owner.deleteLater()
    qtbot.waitUntil(lambda: len(log) == 1 and not Job._running, timeout=20_000)
    assert called == []


@pytest.mark.slow
def test_python_ends_in_order_while_work_is_running(qapp):
    script = Path(__file__).with_name("ending_while_working.py")
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "ending\n"), ended.stderr[-2000:]
    assert time.monotonic() - begun < 30


def test_napari_keeps_nothing_of_a_job_that_has_ended(make_napari_viewer, qtbot):
    tasks = make_napari_viewer().window._task_status_manager._tasks
    job = Job(counting(3), "Count")
    assert len(tasks) == 1
    with qtbot.waitSignal(job._worker.finished):
        job.start()
    qtbot.waitUntil(lambda: not tasks)
