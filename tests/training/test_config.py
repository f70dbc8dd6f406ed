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


def refused(tmp_path, change):
    """What is said of the demo's config after `change` of its text."""
    path = tmp_path / "run.toml"
    path.write_text(change((FOLDER / "demo.toml").read_text("utf-8")), "utf-8")
    with pytest.raises(UserError, match=r"run\.toml does not describe a training run") as said:
        read_config(path)
    return str(said.value)


@pytest.mark.parametrize(
    "name", ["/tmp/elsewhere", "../../elsewhere", "..", "", "a/b", "a\\b", ".hidden", "x" * 200]
)
def test_a_name_that_is_a_path_is_refused(tmp_path, name):
    assert "cannot be that of a folder and of a file" in refused(
        tmp_path, lambda text: text.replace('name = "demo"', f"name = '{name}'")
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('name = "demo"', "name = 5", "name is no text"),
        ('name = "demo"', 'name = ["a"]', "name is no text"),
        ('name = "demo"', "name = 1979-05-27T07:32:00Z", "name is no text"),
        ('name = "demo"', 'name = "demo"\npanel = 3', "panel is no text"),
        ('image = "sim101.tif"', "image = 3", "image under slides is “3” and should be a text"),
        ('"sim102"', '"sim101"', "two slides have one name"),
        ("[fit]", "[other]\n[machine]\ndevices = true\n[fitted]", "devices under machine"),
        ('name = "demo"', 'name = "demo"\nencoder_slides = ["zz"]', "encoder_slides names zz"),
        ('name = "demo"', 'name = "demo"\nencoder_slides = 5', "encoder_slides is no list"),
        ("views = 2", 'views = "2"', "views under fit is “2” and should be a whole number"),
        ("views = 2", "views = -1", "views under fit"),
        ("views = 2", "views = 99999999999999999999999", "views under fit"),
        ("score_steps = 300", "score_steps = inf", "score_steps under fit"),
        ("ema = 0.98", "ema = nan", "ema under fit"),
        ("views = 2", 'views = 2\nvalidation = "sim101"', "validation under fit"),
        ("blocks = 2", "blocks = 2\nheads = 0", "width 64 cannot be divided among heads 0"),
        ("blocks = 2", "blocks = 2\nheads = 7", "width 64 cannot be divided among heads 7"),
        ("blocks = 2", "blocks = 2\ncontext_heads = 0", "context_width 48"),
        ("blocks = 2", "blocks = 2\ngenes = 5", "network has no value genes"),
        ("blocks = 2", "blocks = 1979-05-27", "blocks under network"),
        ("patients = []", "patients = [1979-05-27]", "not JSON serializable"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, before, after, said):
    assert said in refused(tmp_path, lambda text: text.replace(before, after, 1))


@pytest.mark.parametrize("table", ["fit", "card", "network", "encoder", "machine", "prior", "store"])
def test_a_table_that_is_a_value_is_named(tmp_path, table):
    assert f"{table} is no table" in refused(
        tmp_path, lambda text: f"{table} = 5\n" + text.replace(f"[{table}]", "[other]")
    )


def test_a_store_is_named_by_texts(tmp_path):
    said = refused(tmp_path, lambda _: 'name = "x"\n[store]\npath = 5\nencoder = "e"\n')
    assert "path under store is “5” and should be a text" in said
