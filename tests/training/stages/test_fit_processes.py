"""Runs that are killed, and runs of several processes, each in processes of their own."""

import csv
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow  # each process imports PyTorch anew
FIT = ["-m", "tests.training.fit_process"]
VALUES = ["slides_per_batch=1", "accumulate=3", "score_steps=8"]
"""Four slides: an epoch is a step of three batches and a step of one."""


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def losses(folder):
    with (folder / "score.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Losses of one process that was left alone."""
    folder = tmp_path_factory.mktemp("alone")
    done = run(*FIT, folder, *VALUES)
    assert done.returncode == 0, done.stderr
    found = losses(folder)
    assert len(found) == 8
    return found


def test_a_run_killed_mid_epoch_goes_on_with_the_same_losses(alone, tmp_path):
    killed = run(*FIT, tmp_path, "--kill-after", 11, *VALUES)  # within the sixth step, state of the third
    assert killed.returncode == -signal.SIGKILL
    assert losses(tmp_path) == alone[:5]
    assert run(*FIT, tmp_path, *VALUES).returncode == 0
    assert losses(tmp_path) == alone


def test_two_processes_have_the_losses_of_one(alone, tmp_path):
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    done = run(*launch, *FIT, tmp_path, *VALUES)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-4)


def test_two_processes_of_torchrun_train_the_network_of_the_papers_size_as_one_does(tmp_path):
    values = ["slides_per_batch=1", "accumulate=2", "score_steps=2"]
    done = run(*FIT, tmp_path / "1", "--paper", *values)
    assert done.returncode == 0, done.stderr
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    done = run(*launch, *FIT, tmp_path / "2", "--paper", *values)
    assert done.returncode == 0, done.stderr
    expected = losses(tmp_path / "1")
    assert len(expected) == 2
    assert losses(tmp_path / "2") == pytest.approx(expected, rel=1e-3)


def test_processes_that_the_config_asks_for_are_started(alone, tmp_path):
    done = run(*FIT, tmp_path, "--devices", 2, *VALUES)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path) == pytest.approx(alone, rel=1e-4)


def test_two_processes_fit_flag_proper_as_one_does(tmp_path):
    """Every parameter of its attention takes part, or processes would wait for each other."""
    for devices in (1, 2):
        done = run(*FIT, tmp_path / str(devices), "--devices", devices, "--proper", *VALUES)
        assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)
