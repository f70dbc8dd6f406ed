"""The user's cache: entries whose names hold the hash of their content."""

import hashlib
import json
import os

import numpy as np
import pytest

from napari_flag import cache, files
from napari_flag.cli.main import main
from napari_flag.progress import describe_step, finish


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "cache_folder", lambda kind: tmp_path / kind)
    return tmp_path


def put(folder, key, content, used=None):
    folder.mkdir(exist_ok=True)
    part = folder / ".part"
    part.write_bytes(content)
    entry = finish(cache.store(part, folder, key, ".npy", "Keeping"))
    if used is not None:
        os.utime(entry, (used, used))
    return entry


def killed_while_writing(path):
    place = files._unfinished(path)
    files._OURS.discard(place.name)
    return place


def whole(entry):
    return finish(cache.is_whole(entry, "Checking"))


def test_an_entry_is_found_by_its_key_and_is_whole(home):
    entry = put(home / "features", "a", b"content")
    assert cache.find(home / "features", "a") == entry
    assert cache.find(home / "features", "b") is None
    assert whole(entry)


@pytest.mark.parametrize("damaged", [b"", b"conten", b"cOntent"])
def test_an_entry_of_other_content_is_not_whole(home, damaged):
    entry = put(home / "features", "a", b"content")
    entry.write_bytes(damaged)
    assert not whole(entry)


def test_a_file_that_is_gone_is_not_whole(home):
    entry = put(home / "features", "a", b"content")
    entry.unlink()
    assert not whole(entry)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_an_entry_is_not_waited_for_and_is_replaced(home):
    entry = put(home / "features", "a", b"content")
    entry.unlink()
    os.mkfifo(entry)
    assert not whole(cache.find(home / "features", "a"))
    assert whole(put(home / "features", "a", b"content"))


def test_storing_again_leaves_one_entry_of_the_key(home):
    put(home / "features", "a", b"one")
    other = put(home / "features", "b", b"one")
    entry = put(home / "features", "a", b"two")
    assert sorted((home / "features").iterdir()) == sorted([entry, other])


def test_room_is_made_by_what_was_unused_for_longest(home):
    folder = home / "features"
    old, new, last = (put(folder, key, bytes(10), used) for key, used in (("a", 1), ("b", 2), ("c", 3)))
    whole(old)  # used now
    cache.make_room(folder, 25, last.name)
    assert sorted(folder.iterdir()) == sorted([old, last])
    assert new not in folder.iterdir()


def test_outdated_entries_go_whatever_room_there_is(home):
    folder = home / "pyramids"
    outdated, other, kept = (put(folder, key, bytes(9)) for key in ("p-1", "q-1", "p-2"))
    cache.make_room(folder, 1000, kept.name, outdated="p-")
    assert sorted(folder.iterdir()) == sorted([other, kept])
    assert outdated not in folder.iterdir()


def test_what_is_spared_and_what_is_coming_of_it_take_room_from_others_alone(home):
    folder = home / "features"
    spared = [put(folder, f"a_{number}", bytes(10), number) for number in (1, 2, 3)]
    old, new = (put(folder, key, bytes(10), used) for key, used in (("b", 4), ("c", 5)))
    cache.make_room(folder, 45, "a", coming=5)
    assert sorted(folder.iterdir()) == sorted([*spared, new])
    assert not old.exists()
    cache.make_room(folder, 20, "a")
    assert sorted(folder.iterdir()) == sorted(spared)


def test_a_large_entry_is_hashed_with_progress(home, monkeypatch):
    monkeypatch.setattr(cache, "_AT_ONCE", 4)
    entry = put(home / "features", "a", b"0123456789")
    steps = []
    assert finish(cache.is_whole(entry, "Checking"), steps.append)
    assert [step.stage for step in steps] == ["Checking"] * 2


def test_progress_counts_megabytes_of_a_million_bytes_as_sizes_of_files_do(home, monkeypatch):
    monkeypatch.setattr(cache, "_AT_ONCE", 10**6)
    entry, steps = put(home / "features", "a", bytes(3 * 10**6)), []
    assert finish(cache.is_whole(entry, "Checking"), steps.append)
    assert [describe_step(step, None) for step in steps] == ["Checking · 1 of 3 MB", "Checking · 2 of 3 MB"]


def test_the_environment_says_how_much_may_stay(monkeypatch, capsys):
    assert cache.most_bytes("features") == cache.MOST_BYTES["features"]
    monkeypatch.setenv("NAPARI_FLAG_FEATURES_GB", "12.5")
    assert cache.most_bytes("features") == 12_500_000_000
    assert cache.most_bytes("pyramids") == cache.MOST_BYTES["pyramids"]
    assert main(["cache"]) == 0
    assert "at most 12.5 GB" in capsys.readouterr().out
    assert main(["cache", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["kinds"]
    assert {row["kind"]: row["most"] for row in rows} == cache.MOST_BYTES | {"features": 12_500_000_000}


@pytest.mark.parametrize("given", ["much", "-1", "0", "inf", "nan"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch, capsys, given):
    monkeypatch.setenv("NAPARI_FLAG_PYRAMIDS_GB", given)
    assert main(["cache"]) == 2
    assert f"NAPARI_FLAG_PYRAMIDS_GB is set to '{given}', which is no number" in capsys.readouterr().err


def test_the_command_says_what_is_kept_and_clears_one_kind(home, capsys):
    put(home / "features", "a", bytes(1000))
    put(home / "pyramids", "a", bytes(500))
    place = killed_while_writing(home / "pyramids" / "b")
    place.mkdir()
    (place / "0.raw").write_bytes(bytes(7))
    assert main(["cache", "--json"]) == 0
    found = {row["kind"]: row for row in json.loads(capsys.readouterr().out)["kinds"]}
    assert (found["features"]["files"], found["features"]["bytes"]) == (1, 1000)
    assert (found["pyramids"]["files"], found["pyramids"]["bytes"]) == (2, 507)
    assert main(["cache", "--clear", "pyramids"]) == 0
    assert "cleared" in capsys.readouterr().out
    assert list((home / "pyramids").iterdir()) == []
    assert list((home / "features").iterdir())
    assert main(["cache", "--clear"]) == 0
    assert list((home / "features").iterdir()) == []


def test_an_empty_cache_is_said_as_such(capsys):
    assert main(["cache"]) == 0
    assert capsys.readouterr().out.count("0 files") == 3


def test_files_of_others_in_the_cache_are_neither_counted_nor_deleted(home, capsys):
    entry = put(home / "features", "a", bytes(1000))
    mine = [home / "features" / name for name in ("mine.txt", "notes-2.npy", f"{'0' * 32}.npy", ".hidden")]
    for file in mine:
        file.write_bytes(bytes(10))
    (home / "features" / "sub").mkdir()
    cache.make_room(home / "features", 1005, "b")
    assert entry.exists()
    cache.make_room(home / "features", 1, "b")
    assert not entry.exists()
    assert main(["cache", "--clear"]) == 0
    assert "0 files" in capsys.readouterr().out
    assert sorted(home.joinpath("features").iterdir()) == sorted([*mine, home / "features" / "sub"])


def test_what_another_process_is_writing_is_not_cleared(home):
    (home / "features").mkdir()
    with files.unfinished(home / "features" / "a.npy") as place:
        place.write_bytes(b"1")
        cache.clear()
        assert place.exists()


def test_a_linked_folder_is_not_cleared_and_that_is_said_before_anything_is_deleted(home, tmp_path, capsys):
    documents = tmp_path / "documents"
    (documents / "sub").mkdir(parents=True)
    (documents / "thesis.txt").touch()
    (home / "overviews").symlink_to(documents)
    entry = put(home / "features", "a", b"1")
    assert main(["cache", "--clear"]) == 2
    said = capsys.readouterr().err
    assert f"{home / 'overviews'} is a link to {documents}, so nothing was deleted" in said
    assert sorted(documents.iterdir()) == [documents / "sub", documents / "thesis.txt"]
    assert entry.exists()
    assert main(["cache", "--clear", "features"]) == 0
    assert not entry.exists()


@pytest.mark.parametrize("heading", [b"(" * 8999, b"-" * 8999 + b"1", b"  x\n y\n", b"{'descr': 5}"])
def test_an_entry_whose_heading_is_no_arrays_holds_none(home, heading):
    content = b"\x93NUMPY\x02\x00" + (len(heading) + 1).to_bytes(4, "little") + heading + b"\n"
    entry = put(home / "features", "a", content)
    assert hashlib.sha256(content).hexdigest()[:32] in entry.name
    assert finish(cache.read_array(entry, "Reading")) is None


def test_an_array_that_was_kept_is_read_again(home):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    entry = finish(cache.keep_array(array, home / "features", "a", "Keeping"))
    np.testing.assert_array_equal(finish(cache.read_array(entry, "Reading")), array)
