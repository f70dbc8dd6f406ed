import json
import os
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from flag_training.engine.checkpointing import load_state, previous_of, save_state, use_previous
from napari_flag.errors import UserError

SETTINGS = {"rate": 0.1, "steps": 9}


def layer(value):
    module = torch.nn.Linear(64, 64)
    torch.nn.init.constant_(module.weight, value)
    return module


def saved_twice(folder):
    path = folder / "score.pt"
    for step in (3, 6):
        save_state(path, {"net": layer(step)}, SETTINGS, step)
    return path


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_state_is_loaded_and_the_one_before_it_kept(tmp_path):
    path, net = saved_twice(tmp_path), layer(0)
    assert load_state(path, {"net": net}, SETTINGS, 9) == 6
    assert net.weight[0, 0] == 6
    assert load_state(previous_of(path), {"net": net}, SETTINGS, 9) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["score.previous.pt", "score.pt"]


def test_without_a_state_a_stage_starts_at_its_beginning(tmp_path):
    assert load_state(tmp_path / "score.pt", {}, SETTINGS, 9) == 0


def test_a_single_flipped_bit_is_noticed(tmp_path):
    path = saved_twice(tmp_path)
    flip_a_bit(path)
    with pytest.raises(UserError, match=r"damaged.*after step 3, is sound.*--use-previous"):
        load_state(path, {"net": layer(0)}, SETTINGS, 9)


def test_a_state_cut_short_without_one_before_it_can_only_be_deleted(tmp_path):
    path = tmp_path / "score.pt"
    save_state(path, {"net": layer(1)}, SETTINGS, 3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="delete it") as refused:
        load_state(path, {"net": layer(0)}, SETTINGS, 9)
    assert "--use-previous" not in str(refused.value)


def test_the_previous_state_is_taken_only_where_the_newest_is_damaged(tmp_path):
    damaged, sound = saved_twice(tmp_path / "a"), saved_twice(tmp_path / "b")
    flip_a_bit(damaged)
    assert use_previous(tmp_path) == (damaged,)
    assert load_state(damaged, {"net": layer(0)}, SETTINGS, 9) == 3
    assert load_state(sound, {"net": layer(0)}, SETTINGS, 9) == 6
    assert damaged.with_suffix(".damaged").exists()


def test_a_damaged_previous_state_is_no_way_out(tmp_path):
    path = saved_twice(tmp_path)
    flip_a_bit(path)
    flip_a_bit(previous_of(path))
    assert use_previous(tmp_path) == ()
    with pytest.raises(UserError, match="delete it"):
        load_state(path, {"net": layer(0)}, SETTINGS, 9)


def test_other_settings_are_named(tmp_path):
    with pytest.raises(UserError, match=r"other settings .rate 0.1 there, 0.2 here"):
        load_state(saved_twice(tmp_path), {"net": layer(0)}, SETTINGS | {"rate": 0.2}, 9)


def test_a_state_of_another_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="another version"):
        load_state(saved_twice(tmp_path), {"net": torch.nn.Linear(2, 2)}, SETTINGS, 9)


def test_a_kill_while_writing_leaves_the_state_that_was_there(tmp_path, monkeypatch):
    path = saved_twice(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flag_training.engine.checkpointing.torch.save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"net": layer(9)}, SETTINGS, 9)
    assert load_state(path, {"net": layer(0)}, SETTINGS, 9) == 6


def written(folder, **held):
    path = folder / "score.pt"
    sound = {"states": {"net": layer(1).state_dict()}, "config": json.dumps(SETTINGS), "step": 3}
    torch.save(sound | held, path)
    return path


@pytest.mark.parametrize(
    "held",
    [
        {"config": 5}, {"config": "{x"}, {"config": "[1]"}, {"config": "[" * 5000},
        {"config": torch.zeros(3)}, {"step": "x"}, {"step": -5}, {"step": float("nan")}, {"step": 10**30},
        {"step": 10}, {"step": True}, {"step": torch.zeros(3)}, {"states": [layer(1).state_dict()]},
        {"states": {"net": None}}, {"states": {"net": 5}},
        {"states": {"net": {name: value * torch.nan for name, value in layer(1).state_dict().items()}}},
        {"states": {"net": {"weight": torch.zeros(1).expand(10**10), "bias": torch.zeros(64)}}},
        {"states": {"net": {"weight": torch.zeros(64, 64).to_sparse(), "bias": torch.zeros(64)}}},
    ],
)  # fmt: skip
def test_what_no_training_leaves_is_damaged(tmp_path, held):
    path = written(tmp_path, **held)
    with pytest.raises(UserError, match=r"damaged.*delete it to start this stage again"):
        load_state(path, {"net": layer(0)}, SETTINGS, 9)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        ({name: value.long() for name, value in layer(1).state_dict().items()}, r"torch.int64 there"),
        ({1: torch.zeros(1)}, "another version"),
        ({"weight": "text", "bias": torch.zeros(64)}, "a str is there in place of a Tensor"),
    ],
)
def test_values_of_another_kind_than_the_networks_are_refused(tmp_path, net, said):
    with pytest.raises(UserError, match=said):
        load_state(written(tmp_path, states={"net": net}), {"net": layer(0)}, SETTINGS, 9)


def test_a_state_that_holds_the_same_thing_many_times_over_is_read_at_once(tmp_path):
    many = []
    for _ in range(60):
        many = [many, many]
    path = written(tmp_path, states={"net": layer(1).state_dict(), "stopper": {"best": many}})
    assert load_state(path, {"net": layer(0)}, SETTINGS, 9) == 3


@pytest.mark.parametrize(
    "pickled",
    [b"\x80\x02}q\0(.", b"\x80\x02\x86.", b"\x80\x02}}K\x03s.", b"\x80\x02K\x01Q.", b"\x80\x02J\x01", b""],
)
def test_a_damaged_pickle_is_a_damaged_state(tmp_path, pickled):
    path = tmp_path / "score.pt"
    with ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/version", "3")
        archive.writestr("a/byteorder", "little")
    with pytest.raises(UserError, match="is damaged"):
        load_state(path, {"net": layer(0)}, SETTINGS, 9)


def test_what_is_compressed_or_larger_than_the_file_is_not_unpacked(tmp_path, monkeypatch):
    path = written(tmp_path)
    with ZipFile(path) as archive:
        held = {one.filename: archive.read(one) for one in archive.infolist()}
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    monkeypatch.setattr(ZipFile, "testzip", lambda _: pytest.fail("it was unpacked"))
    with pytest.raises(UserError, match="is damaged"):
        load_state(path, {"net": layer(0)}, SETTINGS, 9)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    path = tmp_path / "score.pt"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"score\.pt is a pipe or a device"):
        load_state(path, {"net": layer(0)}, SETTINGS, 9)
    previous_of(path).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="is a pipe or a device"):
        use_previous(tmp_path)
