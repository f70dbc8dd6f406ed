"""A file that ends the process reading it ends another one, and is refused here."""

import sys
import time

import h5py
import numpy as np
import pytest
from tests.spot_files import annotated

from napari_flag.slides.formats.stored_arrays import opened_h5
from napari_flag.slides.formats.trial_reading import TrialReader, read_on_trial

FRAGILE = """
import os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    if "deadly" in line:
        os.kill(os.getpid(), 11)
    if "endless" in line:
        time.sleep(60)
    print("read", flush=True)
"""
"""Stands for the library: it falls over some files."""


@pytest.fixture
def reader():
    found = TrialReader((sys.executable, "-c", FRAGILE), patience_s=2.0)
    yield found
    found.close()


def made(folder, name):
    (folder / name).write_bytes(b"x")
    return folder / name


def test_a_file_that_ends_its_reader_is_refused_and_the_next_one_read(tmp_path, reader):
    assert reader.fault_of(made(tmp_path, "good.h5ad")) == ""
    assert "ended the process" in reader.fault_of(made(tmp_path, "deadly.h5ad"))
    assert reader.fault_of(made(tmp_path, "another.h5ad")) == ""
    assert "ended the process" in reader.fault_of(tmp_path / "deadly.h5ad"), "it is remembered"


def test_a_file_that_is_never_read_to_its_end_is_refused(tmp_path, reader):
    assert "did not end within 2 s" in reader.fault_of(made(tmp_path, "endless.h5ad"))
    assert reader.fault_of(made(tmp_path, "good.h5ad")) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such timer, only the patience")
def test_a_reader_that_works_without_end_ends_itself_and_the_file_is_refused(tmp_path):
    endless = """
from napari_flag.slides.formats import trial_reading

def read_on_trial(path):
    while "endless" in path:
        pass

trial_reading.MOST_CPU_S = 0.2
trial_reading.read_on_trial = read_on_trial
trial_reading.main()
"""
    reader = TrialReader((sys.executable, "-c", endless))
    assert reader.fault_of(made(tmp_path, "good.h5ad")) == ""
    assert "did not end" in reader.fault_of(made(tmp_path, "endless.h5ad"))
    assert reader.fault_of(made(tmp_path, "another.h5ad")) == ""
    reader.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone states the peak that is looked at")
def test_a_file_that_takes_too_much_memory_on_trial_is_refused(tmp_path):
    greedy = """
from napari_flag.slides.formats import trial_reading

def read_on_trial(path):
    if "greedy" in path:
        bytearray(b"1") * (64 * 2**20)

trial_reading.MOST_MB = 32
trial_reading.read_on_trial = read_on_trial
trial_reading.main()
"""
    reader = TrialReader((sys.executable, "-c", greedy))
    assert reader.fault_of(made(tmp_path, "good.h5ad")) == ""
    assert "of memory" in reader.fault_of(made(tmp_path, "greedy.h5ad"))
    assert reader.fault_of(made(tmp_path, "another.h5ad")) == ""
    reader.close()


def test_a_file_is_read_on_trial_once_until_it_changes(tmp_path, reader):
    path = made(tmp_path, "endless.h5ad")
    reader.fault_of(path)
    began = time.monotonic()
    reader.fault_of(path)
    assert time.monotonic() - began < 1.0
    path.rename(tmp_path / "good.h5ad")
    assert reader.fault_of(tmp_path / "good.h5ad") == ""


def test_where_no_other_process_can_be_started_files_are_opened_untried(tmp_path):
    assert TrialReader(("/no/such/program",)).fault_of(made(tmp_path, "a.h5ad")) == ""


def test_an_ordinary_file_is_opened_after_its_trial(tmp_path):
    annotated().write_h5ad(tmp_path / "a.h5ad")
    with opened_h5(tmp_path / "a.h5ad") as file:
        assert "obs" in file


def test_a_trial_tolerates_what_raises(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["texts"] = np.array([b"\xff"], "S1")
        file.create_dataset("huge", shape=(2, 10**12), dtype="f8", chunks=(1, 1000))
        file["elsewhere"] = h5py.ExternalLink("gone.h5", "/")
    read_on_trial(str(tmp_path / "a.h5"))
