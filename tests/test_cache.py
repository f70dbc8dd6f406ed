"""The user's cache: entries whose names hold the hash of their content."""

import json
import os

import pytest

from napari_flag import cache
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
    (home / "pyramids" / ".building-x").mkdir()
    (home / "pyramids" / ".building-x" / "0.raw").write_bytes(bytes(7))
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
