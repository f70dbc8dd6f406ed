import csv
import os
import socket

import pytest
from tensorboardX.proto.event_pb2 import Event

from flag_training.engine.run_log import RunLog
from napari_flag.errors import UserError

COLUMNS = ("step", "epoch", "loss", "seconds")


def write(folder, steps, first=0, **how):
    with RunLog(folder, "score", COLUMNS, **how) as log:
        spent = log.resume_after(first)
        for step in steps:
            log.step({"step": step, "epoch": step, "loss": step / 8, "seconds": 2.0 * step})
            log.epoch({"step": step, "epoch": step, "seconds": 2.0, "spots": 64, "peak_memory_mb": 9.5})
    return spent


def rows(path):
    with path.open() as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_a_run_that_goes_on_takes_back_what_came_after_its_state(tmp_path):
    write(tmp_path, range(1, 6))
    assert write(tmp_path, range(4, 7), first=3) == 6.0
    assert rows(tmp_path / "score.csv") == [1, 2, 3, 4, 5, 6]
    assert rows(tmp_path / "score_epochs.csv") == [1, 2, 3, 4, 5, 6]


def test_half_a_row_of_a_killed_run_is_taken_back(tmp_path):
    write(tmp_path, range(1, 4))
    with (tmp_path / "score.csv").open("a") as file:
        file.write("4,4,0.")
    write(tmp_path, [4], first=3)
    assert rows(tmp_path / "score.csv") == [1, 2, 3, 4]


def test_a_pipe_in_place_of_a_log_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "score.csv")
    with pytest.raises(UserError, match="is a pipe or a device"):
        write(tmp_path, [1])


def test_other_processes_write_nothing(tmp_path):
    write(tmp_path / "second", [1], writes=False, tensorboard=True)
    assert not (tmp_path / "second").exists()


def test_tensorboard_shows_every_value(tmp_path):
    write(tmp_path, range(1, 4), tensorboard=True)
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events, place = path.read_bytes(), [], 0
    while place < len(content):  # a record is its length (8 bytes), a checksum (4), itself, a checksum (4)
        length = int.from_bytes(content[place : place + 8], "little")
        events.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += length + 16
    stated = {(v.tag, event.step): v.simple_value for event in events for v in event.summary.value}
    assert stated["score/loss", 3] == 0.375
    assert stated["score/peak_memory_mb", 1] == 9.5


def test_no_file_is_named_after_the_computer(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-workstation")
    for first in (0, 2):
        write(tmp_path, range(first + 1, first + 3), first, tensorboard=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if "tfevents" in path.name]) == 2
    assert not [path for path in files if b"secret" in path.name.encode() + path.read_bytes()]
