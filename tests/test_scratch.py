import gc
import os
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from napari_flag import scratch
from napari_flag.errors import UserError


@pytest.fixture(autouse=True)
def small_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(scratch, "cache_folder", lambda: tmp_path / "kept")


def test_a_small_array_lies_in_memory(tmp_path):
    array = scratch.empty((25, 10), np.float32)
    assert scratch.size_on_disk((25, 10), np.float32) == 0
    assert array.shape == (25, 10)
    assert not (tmp_path / "kept").exists()


def test_a_large_array_lies_in_a_file_without_a_name_and_is_used_as_any_other(tmp_path):
    array = scratch.empty((26, 10), np.float32)
    assert scratch.size_on_disk((26, 10), np.float32) == 1040
    assert type(array) is np.ndarray
    assert isinstance(array.base, np.memmap)
    array[:] = np.arange(260).reshape(26, 10)
    np.testing.assert_array_equal(array[3], np.arange(30, 40))
    if os.name == "posix":
        assert not list((tmp_path / "kept").iterdir())


def test_all_of_its_room_is_taken_at_once(monkeypatch):
    taken = []
    if hasattr(os, "posix_fallocate"):
        fallocate = os.posix_fallocate

        def noted(file, start, size):
            taken.append((start, size))
            fallocate(file, start, size)

        monkeypatch.setattr(os, "posix_fallocate", noted)
        scratch.empty((26, 10), np.float64)
        assert taken == [(0, 2080)]
    monkeypatch.delattr(os, "posix_fallocate", raising=False)  # as on macOS and Windows
    array = scratch.empty((26, 10), np.float64)
    assert (array == 0).all()


def test_a_disk_that_is_full_is_one_sentence(monkeypatch):
    def full(file, start, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match=r"Results of 2 kB .*No space left on device.*free space"):
        scratch.empty((26, 10), np.float32)


def test_what_has_no_room_on_the_drive_is_refused_before_it_starts():
    scratch.refuse_beyond_drive(0)
    with pytest.raises(UserError, match=r"Results of 1,000,000\.0 GB do not fit in memory"):
        scratch.refuse_beyond_drive(10**15)


def test_what_needs_most_of_the_free_memory_is_refused_before_it_starts(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    scratch.refuse_beyond_memory(scratch.MEMORY_SHARE * 10**9, "It", "ask for less")
    said = "^It needs about 900 MB of memory while 1.0 GB are free; ask for less.$"
    with pytest.raises(UserError, match=said):
        scratch.refuse_beyond_memory(9e8, "It", "ask for less")


def test_a_file_is_gone_with_its_array():
    array = scratch.empty((1000, 1000), np.float64)
    number = len(os.listdir("/proc/self/map_files")) if os.path.isdir("/proc/self/map_files") else None
    del array
    gc.collect()
    if number is not None:
        assert len(os.listdir("/proc/self/map_files")) < number
