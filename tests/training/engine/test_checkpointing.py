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
    assert load_state(path, {"net": net}, SETTINGS) == 6
    assert net.weight[0, 0] == 6
    assert load_state(previous_of(path), {"net": net}, SETTINGS) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["score.previous.pt", "score.pt"]


def test_without_a_state_a_stage_starts_at_its_beginning(tmp_path):
    assert load_state(tmp_path / "score.pt", {}, SETTINGS) == 0


def test_a_single_flipped_bit_is_noticed(tmp_path):
    path = saved_twice(tmp_path)
    flip_a_bit(path)
    with pytest.raises(UserError, match=r"damaged.*after step 3, is sound.*--use-previous"):
        load_state(path, {"net": layer(0)}, SETTINGS)


def test_a_state_cut_short_without_one_before_it_can_only_be_deleted(tmp_path):
    path = tmp_path / "score.pt"
    save_state(path, {"net": layer(1)}, SETTINGS, 3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="delete it") as refused:
        load_state(path, {"net": layer(0)}, SETTINGS)
    assert "--use-previous" not in str(refused.value)


def test_the_previous_state_is_taken_only_where_the_newest_is_damaged(tmp_path):
    damaged, sound = saved_twice(tmp_path / "a"), saved_twice(tmp_path / "b")
    flip_a_bit(damaged)
    assert use_previous(tmp_path) == (damaged,)
    assert load_state(damaged, {"net": layer(0)}, SETTINGS) == 3
    assert load_state(sound, {"net": layer(0)}, SETTINGS) == 6
    assert damaged.with_suffix(".damaged").exists()


def test_a_damaged_previous_state_is_no_way_out(tmp_path):
    path = saved_twice(tmp_path)
    flip_a_bit(path)
    flip_a_bit(previous_of(path))
    assert use_previous(tmp_path) == ()
    with pytest.raises(UserError, match="delete it"):
        load_state(path, {"net": layer(0)}, SETTINGS)


def test_other_settings_are_named(tmp_path):
    with pytest.raises(UserError, match=r"other settings .rate 0.1 there, 0.2 here"):
        load_state(saved_twice(tmp_path), {"net": layer(0)}, SETTINGS | {"rate": 0.2})


def test_a_state_of_another_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="another version"):
        load_state(saved_twice(tmp_path), {"net": torch.nn.Linear(2, 2)}, SETTINGS)


def test_a_kill_while_writing_leaves_the_state_that_was_there(tmp_path, monkeypatch):
    path = saved_twice(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flag_training.engine.checkpointing.torch.save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_state(path, {"net": layer(9)}, SETTINGS, 9)
    assert load_state(path, {"net": layer(0)}, SETTINGS) == 6
