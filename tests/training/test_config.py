from dataclasses import replace
from pathlib import Path

import pytest
from tests.training.conftest import make_config

from flag_training.config import PriorConfig, read_config
from napari_flag import keys
from napari_flag.cli.main import USER_CAN_FIX, main
from napari_flag.errors import UserError
from napari_flag.model.config import FlagConfig
from napari_flag.slides.colours import SCANNED, SRGB

FOLDER = Path(__file__).parents[2] / "training" / "configs"
CONFIGS = sorted(FOLDER.glob("*.toml"))
ABLATIONS = sorted((FOLDER / "ablations").glob("*.toml"))
HER2ST = FOLDER / "her2st.toml"


@pytest.mark.parametrize("path", [*CONFIGS, *ABLATIONS], ids=lambda p: p.stem)
def test_every_config_in_the_repository_can_be_read(path):
    config = read_config(path)
    assert config.slides or config.store
    assert config.card["not_for"]
    sizes = FlagConfig(features=1024, genes=200, slides=5, **config.network)
    assert sizes.width % sizes.heads == 0 == sizes.context_width % sizes.context_heads


def test_an_ablation_differs_from_the_default_in_what_its_name_says():
    stated = {path.stem: read_config(path) for path in ABLATIONS}
    default = read_config(HER2ST)
    off = {"without_diffusion": "diffusion", "without_graph": "spatial_graph"}
    for name, switch in off.items():
        assert stated[name].network == default.network | {switch: False}
        assert stated[name].fit == default.fit
    aligned = stated["gene_alignment"]
    assert aligned.network == default.network
    targets = {"alignment_targets": None, "alignment_cells": aligned.fit.alignment_targets}
    assert stated["cell_alignment"].fit == replace(aligned.fit, **targets)
    assert stated["without_alignment"].fit == replace(aligned.fit, alignment_targets=None)
    proper = FlagConfig(features=8, genes=5, slides=2, **stated["flag_proper"].network)
    assert (proper.mean_head, proper.covariance, proper.attention) == (False, False, "channels")
    assert {config.name for config in stated.values()} == set(stated)
    assert len({config.card[keys.CARD_METHOD] for config in stated.values()}) == len(stated) == 6
    assert keys.CARD_METHOD not in default.card


def test_the_default_takes_levels_from_the_counts_of_all_patients():
    assert read_config(HER2ST).prior == PriorConfig("counts/*.tsv.gz", 1, ("C6", "SPA137"))
    assert make_config().prior is None


def test_sections_can_be_left_out_and_unknown_ones_are_named():
    config = read_config(HER2ST)
    assert [slide.name for slide in config.without(("C5",)).slides] == ["B4", "C2", "C3", "C4"]
    with pytest.raises(UserError, match="C9"):
        config.without(("C9",))


def test_a_section_keeps_its_number_where_others_are_left_out():
    config = read_config(HER2ST)
    for less in (config, config.without(("C2",)), config.without(("B4",)).without(("C2",))):
        assert [less.number_of(name) for name in ("C3", "C4", "C5")] == [2, 3, 4]


def test_the_last_section_to_stop_early_by_cannot_be_left_out():
    config = read_config(HER2ST)
    watched = replace(config, fit=replace(config.fit, validation=("C3", "C4")))
    assert watched.without(("C3",)).fit.validation == ("C4",)
    with pytest.raises(UserError, match="no section to stop early by"):
        watched.without(("C3", "C4"))


def test_a_config_with_an_unknown_value_says_so(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "x"\n[[slides]]\nname = "a"\npatient = "a"\nimage = "i"\nspots = "s"\n[fit]\nlr = 1\n'
    )
    with pytest.raises(UserError, match="lr"):
        read_config(path)


def test_colours_are_as_scanned_unless_the_config_says_otherwise(tmp_path):
    place = tmp_path / "run.toml"
    for line, found in (("", SCANNED), ('colours = "srgb"', SRGB)):
        place.write_text(f'{line}\nextends = "{HER2ST}"')
        assert read_config(place).colours == found
    place.write_text(f'colours = "adobe"\nextends = "{HER2ST}"')
    with pytest.raises(UserError, match=r'run\.toml names the colours "adobe"'):
        read_config(place)


def test_a_missing_config_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_a_config_may_extend_another_and_change_single_values(tmp_path):
    base = (
        'name = "base"\npanel = "genes.txt"\n'
        '[[slides]]\nname = "a"\npatient = "a"\nimage = "i"\nspots = "s"\n'
        "[network]\nwidth = 64\n[fit]\nscore_rate = 1e-4\nema = 0.9\n"
    )
    (tmp_path / "base.toml").write_text(base)
    (tmp_path / "ablations").mkdir()
    path = tmp_path / "ablations" / "without.toml"
    path.write_text(
        'extends = "../base.toml"\nname = "without"\n[network]\ndiffusion = false\n[fit]\nema = 0.5\n'
        'validation = ["a"]\n'
    )
    config = read_config(path)
    assert (config.name, config.panel) == ("without", "genes.txt")
    assert config.network == {"width": 64, "diffusion": False}
    assert (config.fit.score_rate, config.fit.ema, config.fit.validation) == (1e-4, 0.5, ("a",))


def test_a_config_that_extends_itself_is_one_sentence(tmp_path):
    (tmp_path / "a.toml").write_text('extends = "b.toml"\n')
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n')
    with pytest.raises(UserError, match="extends itself"):
        read_config(tmp_path / "a.toml")


@pytest.mark.parametrize("text", ["name = her2st\n", "a = " + "[" * 100_000], ids=["no text", "nested"])
def test_a_config_that_is_not_toml_is_one_sentence(text, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="no TOML file"):
        read_config(path)


@pytest.mark.parametrize("line", ["extends = ", "name = 'x'\n[prior]\ncounts = ", "panel = "])
def test_a_zero_byte_in_a_path_of_a_config_is_one_sentence_and_exit_2(line, tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(line + r'"her2st\u0000.toml"')
    command = ["train", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    assert main(command) == USER_CAN_FIX
    said = capsys.readouterr().err
    assert r'"her2st\u0000.toml" holds a zero byte' in said
    assert f"{path}" in said
    assert "correct it there." in said
