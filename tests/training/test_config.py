from pathlib import Path

import pytest

from flag_training.config import read_config
from napari_flag.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_in_the_repository_can_be_read(path):
    config = read_config(path)
    assert config.slides
    assert config.card["not_for"]


def test_sections_can_be_left_out_and_unknown_ones_are_named():
    config = read_config(Path(__file__).parents[2] / "training" / "configs" / "her2st.toml")
    assert [slide.name for slide in config.without(("C5",)).slides] == ["B4", "C2", "C3", "C4"]
    with pytest.raises(UserError, match="C9"):
        config.without(("C9",))


def test_a_config_with_an_unknown_value_says_so(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "x"\n[[slides]]\nname = "a"\npatient = "a"\nimage = "i"\nspots = "s"\n[fit]\nlr = 1\n'
    )
    with pytest.raises(UserError, match="lr"):
        read_config(path)


def test_a_missing_config_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
