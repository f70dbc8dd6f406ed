import io
import threading
import time

import pytest

from napari_flag.progress import ProgressBar, Step, TimeLeft, Timings, finish, in_background, say_duration


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_no_time_is_given_while_nothing_is_known():
    assert TimeLeft(clock=Clock()).update(Step("Reading tiles", 0, 100)) is None


def test_a_steady_stage_is_extrapolated():
    clock = Clock()
    left = TimeLeft(clock=clock)
    left.update(Step("Reading tiles", 0, 100))
    clock.now = 10.0
    assert left.update(Step("Reading tiles", 25, 100)) == pytest.approx(30.0)


def test_a_stage_that_runs_once_more_has_a_pace_of_its_own():
    """As an evaluation, which predicts one slide after the other."""
    clock = Clock()
    left = TimeLeft(clock=clock)
    for second, done in ((0.0, 0), (100.0, 100), (101.0, 0), (111.0, 50)):
        clock.now = second
        last = left.update(Step("Predicting expression", done, 100))
    assert last == pytest.approx(10.0)


def test_stages_still_to_come_are_counted_and_scaled_by_the_pace_so_far():
    clock = Clock()
    left = TimeLeft({"Reading tiles": 10.0, "Sampling": 20.0}, clock=clock)
    assert left.update(Step("Reading tiles", 0, 100)) == pytest.approx(30.0)
    clock.now = 5.0
    assert left.update(Step("Reading tiles", 50, 100)) == pytest.approx(25.0)
    clock.now = 20.0  # twice as slow as expected
    assert left.update(Step("Sampling", 0, 50)) == pytest.approx(40.0)
    clock.now = 30.0
    assert left.update(Step("Sampling", 25, 50)) == pytest.approx(10.0)
    assert left.seconds == {"Reading tiles": pytest.approx(20.0), "Sampling": pytest.approx(10.0)}


def test_a_stage_without_total_falls_back_to_what_is_expected_of_it():
    clock = Clock()
    left = TimeLeft({"Loading": 4.0}, clock=clock)
    left.update(Step("Loading", 0))
    clock.now = 3.0
    assert left.update(Step("Loading", 0)) == pytest.approx(1.0)
    clock.now = 9.0
    assert left.update(Step("Loading", 0)) == 0.0


def test_timings_start_from_a_first_guess_and_are_recorded_after_a_run(tmp_path):
    timings = Timings(tmp_path / "new" / "timings.json", {"Sampling": 0.1})
    assert timings.expected("cpu", 200) == {"Sampling": pytest.approx(20.0)}
    assert not timings.known("cpu")
    timings.record("cpu", {"Sampling": 50.0}, 100)
    again = Timings(tmp_path / "new" / "timings.json", {"Sampling": 0.1})
    assert again.known("cpu")
    assert again.expected("cpu", 200) == {"Sampling": pytest.approx(100.0)}


def test_a_damaged_timings_file_only_loses_the_timings(tmp_path):
    file = tmp_path / "timings.json"
    file.write_text('{"cpu": [1, 2]}')
    assert Timings(file, {"Sampling": 0.1}).expected("cpu", 10) == {"Sampling": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (1, "a few seconds"),
        (42, "about 40 s"),
        (61, "about 1 min"),
        (1000, "about 17 min"),
        (3600, "about 1 h"),
        (5400, "about 1 h 30 min"),
    ],
)
def test_durations_are_written_in_words(seconds, words):
    assert say_duration(seconds) == words


def test_a_stage_served_from_a_cache_keeps_its_time_and_a_slow_run_counts_half(tmp_path):
    timings = Timings(tmp_path / "timings.json", {"Reading tiles": 0.2})
    timings.record("cpu", {"Reading tiles": 0.01, "Sampling": 10.0}, 100)
    timings.record("cpu", {"Reading tiles": 0.01, "Sampling": 30.0}, 100)
    expected = timings.expected("cpu", 100)
    assert expected == {
        "Reading tiles": pytest.approx(20.0),
        "Sampling": pytest.approx(20.0),
    }


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_names_the_stages_in_turn_and_is_cleared_away():
    terminal = Terminal()
    with ProgressBar(terminal) as bar:
        for stage, total in (("Reading tiles", 3), ("Sampling", None)):
            for done in range(3):
                bar(Step(stage, done, total, "tiles"))
    text = terminal.getvalue()
    assert "Reading tiles" in text
    assert "Sampling" in text
    assert text.endswith("\r")


def test_a_log_file_has_no_bar_but_every_notice_once():
    log = io.StringIO()
    with ProgressBar(log) as bar:
        for done in range(3):
            bar(Step("Sampling", done, 3, notice="The batch was halved."))
    assert log.getvalue() == "Note: The batch was halved.\n"


def test_work_without_steps_yields_some_and_is_let_be_when_cancelled():
    go_on, said = threading.Event(), []

    def work(number, *, more):
        go_on.wait(10)
        if number < 0:
            raise ValueError("below 0")
        return number + more

    def on_step(step):
        said.append(step.stage)
        if len(said) == 3:
            go_on.set()

    assert finish(in_background("Adding", work, 1, more=2), on_step) == 3
    assert said[:3] == ["Adding"] * 3
    with pytest.raises(ValueError, match="below 0"):
        finish(in_background(Step("Adding", 0), work, -1, more=0))
    go_on.clear()
    steps = in_background("Adding", work, 1, more=2)
    next(steps), next(steps)
    started = time.monotonic()
    steps.close()
    assert time.monotonic() - started < 5
    go_on.set()
