import argparse
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.fakes import fake_prediction

from flag_training.cli import add_commands, command_of, identity_of, plan_of
from napari_flag import fitting, keys
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.files import write_json
from napari_flag.model.checkpoint import FORMAT
from napari_flag.prediction_file import write_prediction


def parse(*words):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    return parser.parse_args(words)


def plan(*words, part=()):
    asked = ["evaluate", "c.toml", "--data", "d", "--out", "o.json", *words]
    return plan_of(parse(*asked), 7, part)


def test_without_a_choice_everything_simple_is_scored():
    made = plan("--test", "C2")
    assert {kind for kind, _ in (made.methods or {}).values()} == {"floor", "image-blind"}
    assert made.flag
    assert made.seeds == (7,)


def test_methods_are_chosen_by_name_or_group():
    made = plan("--test", "C2", "--methods", "ridge", "image-blind")
    assert "ridge" in made.methods
    assert "kNN, k = 1" not in made.methods
    assert not made.flag


def test_baselines_are_added_from_their_configs(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'method = "regression"\n[values]\nwidth = 8\nheads = 2\nlayers = 1\ndropout = 0.1\n'
        "[training]\nsteps = 2\nrate = 1e-3\n"
    )
    made = plan("--test", "C2", "--methods", "FLAG", "--baselines", str(path), "--reseed", "regression")
    assert list(made.methods) == ["regression"]
    with pytest.raises(UserError, match=r"r\.toml is of regression, which is scored already"):
        plan("--test", "C2", "--methods", "FLAG", "--baselines", str(path), str(path))
    assert made.reseeded == ("regression",)


def test_a_split_is_scored_at_once_where_no_section_is_named():
    made = plan(part=("S1", "S2"))
    assert made.test == ("S1", "S2")
    assert made.together


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--test", "C2", "--methods", "magic"), "no method called magic"),
        (("--test", "C2", "--reseed", "STFlow"), "cannot be reseeded"),
        ((), "nothing to score"),
        (("--test", "C2", "--once"), "--once trains without the sections of --train-without only"),
    ],
)
def test_what_there_is_not_is_said(words, said):
    with pytest.raises(UserError, match=said):
        plan(*words)


def test_the_panel_of_a_fit_is_named_or_in_a_file_as_that_of_a_prediction():
    fit = ["fit", "folder", "--out", "mine.safetensors", "--genes"]
    assert parse(*fit, "ERBB2", "ESR1").genes == ("ERBB2", "ESR1")
    assert parse(*fit, "panel.txt").genes == Path("panel.txt")


def test_seeds_are_said_once(evaluation):
    _, run, _ = evaluation
    assert "--seed and --seeds both say" in run("--seed", "3", "--seeds", "1", "2")


def test_overwrite_without_a_page_is_refused(tmp_path, capsys):
    assert main(["tables", str(tmp_path / "a.json"), "--overwrite"]) == 2
    assert "--overwrite replaces the file of --out" in capsys.readouterr().err


def test_tables_are_written_as_markdown_with_their_command(tmp_path, monkeypatch, capsys):
    scores = {"PCC": 0.5, "MSE": 1.0, "GSC": 0.5, "SSC": 0.5, "cPCC": 0.5, "amplitude": 0.5}
    row = {"run": "r", "kind": "FLAG", "method": "X", "training": "all others", "section": "C2", "seed": 0}
    stated = {
        "command": "c",
        "split": "s",
        "test": ["C2"],
        "unseen": [],
        "seed": 0,
        "seeds": [0],
        "draws": 8,
        "comparisons": [],
        "scores": {},
    }
    source, page = tmp_path / "a.json", tmp_path / "docs" / "a.md"
    source.write_text(json.dumps(stated | {"records": [row | {"scores": scores}]}))
    line = ["tables", str(source), "--title", "Held out", "--out", str(page)]
    monkeypatch.setattr("sys.argv", ["napari-flag", *line])
    assert main(line) == 0
    text = page.read_text()
    assert text.startswith("# Held out\n")
    assert "\nThe page itself: `napari-flag tables a.json --title 'Held out' --out a.md`.\n" in text
    assert str(page) in capsys.readouterr().out


def test_a_recorded_command_tells_no_folder_of_this_machine(monkeypatch):
    typed = ["evaluate", "configs/run.toml", "--data", "../store", "--run", "/home/someone/runs/one"]
    typed += ["--out=/home/someone/scores.json", "--predictions", "../elsewhere/held", "--test", "C5"]
    typed += ["--overwrite"]
    monkeypatch.setattr("sys.argv", ["napari-flag", *typed])
    assert command_of(Namespace(data=Path("../store"))) == (
        "napari-flag evaluate configs/run.toml --data DATA --run one --out=scores.json --predictions held "
        "--test C5"
    )


@pytest.mark.parametrize("command", ["train", "evaluate", "sweep"])
def test_a_missing_package_is_named_before_anything_is_done(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fitting, "NEEDED", ("flag_training", "no_such_package"))
    asked = {"evaluate": ["--out", "o.json"], "sweep": ["--vary", "fit.ema=0", "--validate", "C2"]}.get(
        command, []
    )
    assert main([command, "no.toml", "--data", str(tmp_path), *asked]) == 2
    said = capsys.readouterr().err
    assert 'no_such_package); run: pip install "napari-flag[training]"' in said


BEGUN = "There is no file"
"""Said by a command that nothing keeps from its work: its data holds no image."""


@pytest.fixture
def evaluation(tmp_path, monkeypatch, capsys):
    """A command that scores a section of data without images; what it says on stderr is returned."""
    config = Path(__file__).parents[2] / "training" / "configs" / "her2st.toml"
    out = tmp_path / "scores.json"
    line = ["evaluate", str(config), "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--test", "C2"]
    line += ["--out", str(out)]

    def run(*options):
        monkeypatch.setattr("sys.argv", ["napari-flag", *line, *options])
        assert main([*line, *options]) == 2
        return capsys.readouterr().err

    return out, run, hash_of(line)


@pytest.mark.parametrize("command", [["evaluate", "--test", "C2"], ["train"]])
def test_a_cancelled_training_says_that_the_same_command_goes_on(command, tmp_path, monkeypatch, capsys):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("openslide.OpenSlide.detect_format", interrupted)
    (tmp_path / "images").mkdir()
    for name in ("B4", "C2", "C3", "C4", "C5"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"a picture")
    config = Path(__file__).parents[2] / "training" / "configs" / "her2st.toml"
    out = tmp_path / ("scores.json" if command[0] == "evaluate" else "mine.safetensors")
    line = [command[0], str(config), "--data", str(tmp_path), "--run", str(tmp_path / "run"), *command[1:]]
    assert main([*line, "--out", str(out)]) == 130
    assert "goes on" in capsys.readouterr().err


def hash_of(line):
    """The hash by which the command `line`, with its run folder, is known."""
    arguments = parse(*line)
    return identity_of(line[0], arguments, arguments.folder)


def test_scores_replace_those_of_the_same_command_and_nothing_else_unasked(evaluation):
    out, run, identity = evaluation
    assert BEGUN in run()
    command = "napari-flag evaluate her2st.toml --data DATA --run run --test C2 --out scores.json"
    write_json({"command": command, keys.COMMAND_HASH: identity}, out)
    ours = out.read_text()
    of_earlier_version = json.dumps({"command": command, keys.COMMAND_HASH: identity}, indent=2)
    for held, options, said in (
        ("notes", [], "already exists and is not a result of this very command"),
        ("notes", ["--overwrite"], "was not written by napari-flag"),
        (ours, [], BEGUN),
        (ours.replace("--test C2", "--test C3"), [], "was changed since"),
        (of_earlier_version, [], "already exists"),
        (of_earlier_version, ["--overwrite"], BEGUN),
        (ours, ["--debug"], BEGUN),
        (ours, ["--json", "--use-previous"], BEGUN),
        (ours, ["--seed", "3"], "already exists"),
        (ours, ["--seed", "3", "--overwrite"], BEGUN),
        (json.dumps({"command": command}, indent=2), [], "already exists"),
        (json.dumps({"command": command}, indent=2), ["--overwrite"], BEGUN),
    ):
        out.write_text(held)
        assert said in run(*options)
        assert out.read_text() == held


def test_the_same_words_of_other_files_and_folders_are_another_command(tmp_path):
    line = ["evaluate", "a/her2st.toml", "--data", "one", "--run", "a/run", "--test", "C2", "--out", "s.json"]
    known = hash_of(line)
    for place, other in ((1, "b/her2st.toml"), (3, "two"), (5, "b/run"), (7, "C3")):
        assert hash_of([*line[:place], other, *line[place + 1 :]]) != known, other
    assert hash_of([line[0], str(Path(line[1]).resolve()), *line[2:-1], "elsewhere.json"]) == known
    assert hash_of([line[0], *line[2:], line[1]]) == known
    train = ["train", "c.toml", "--data", "d", "--run", "r", "--method"]
    assert hash_of([*train, "bleep.toml"]) == hash_of([*train, str(Path("bleep.toml").resolve())])
    assert hash_of([*train, "bleep.toml"]) != hash_of([*train, "a/bleep.toml"])


def test_the_order_of_names_makes_another_command_only_where_it_means_something():
    begun = ["evaluate", "c.toml", "--data", "d", "--run", "r", "--out", "s.json", "--test", "C2", "C3"]
    for option in ("--unseen", "--train-without", "--methods", "--baselines", "--reseed"):
        assert hash_of([*begun, option, "a", "b"]) == hash_of([*begun, option, "b", "a"]), option
        assert hash_of([*begun, option, "a", "b"]) != hash_of([*begun, option, "a"]), option
    assert hash_of([*begun[:-2], "C3", "C2"]) == hash_of(begun)
    assert hash_of([*begun, "--seeds", "1", "2"]) != hash_of([*begun, "--seeds", "2", "1"])
    train = ["train", "c.toml", "--data", "d", "--run", "r", "--leave-out"]
    assert hash_of([*train, "C3", "C2"]) == hash_of([*train, "C2", "C3"])
    tables = ["tables", "a.json", "b.json", "--only"]
    assert identity_of("tables", parse(*tables, "X", "ridge")) == identity_of(
        "tables", parse(*tables, "ridge", "X")
    )
    assert identity_of("tables", parse("tables", "b.json", "a.json")) != identity_of(
        "tables", parse("tables", "a.json", "b.json")
    )
    named = plan("--test", "C2", "--train-without", "C3", "B4")
    assert named.train_without == ("B4", "C3"), "tables name the training the same"


def leave_prediction(path, identity):
    """Write a prediction that states the hash of its command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    adata = fake_prediction(16, 4)
    adata.uns[keys.PROVENANCE][keys.COMMAND_HASH] = identity
    write_prediction(adata, path)


def test_held_out_predictions_of_another_command_are_not_replaced_unasked(evaluation, tmp_path):
    _, run, made = evaluation
    folder = tmp_path / "run" / "held_out" / "her2st"
    leave_prediction(folder / "seed_0" / "C2.h5ad", made)
    leave_prediction(folder / "seed_1" / "C2_ridge.h5ad", made)
    leave_prediction(tmp_path / "mine" / "C2.h5ad", made)
    for options, said in (
        ([], BEGUN),
        (["--unseen", "C3"], "seed_0/C2.h5ad already exists and is not a result of this very command"),
        (["--unseen", "C3"], "choose another --predictions, or add --overwrite"),
        (["--unseen", "C3", "--overwrite"], BEGUN),
        (["--unseen", "C3", "--methods", "ridge"], BEGUN),
        (["--seeds", "1"], "seed_1/C2_ridge.h5ad already exists"),
        (["--seeds", "1", "2", "--methods", "FLAG"], BEGUN),
        (["--predictions", str(tmp_path / "mine")], BEGUN),
        (["--predictions", str(tmp_path / "mine"), "--seed", "3"], "mine/C2.h5ad already exists"),
        (["--train-without", "B4", "--once"], BEGUN),
    ):
        assert said in run(*options), options


def test_each_config_leaves_its_held_out_predictions_in_a_folder_of_its_own(evaluation, tmp_path):
    _, run, _ = evaluation
    leave_prediction(tmp_path / "run" / "held_out" / "flag_proper" / "seed_0" / "C2.h5ad", "another")
    assert BEGUN in run()
    leave_prediction(tmp_path / "run" / "held_out" / "her2st" / "seed_0" / "C2.h5ad", "another")
    assert "her2st/seed_0/C2.h5ad already exists" in run()


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_figures_replace_what_they_drew_when_asked_and_nothing_of_others(tmp_path, monkeypatch, capsys, kind):
    from matplotlib.figure import Figure

    monkeypatch.setattr("flag_training.cli.draw_all", lambda found: {"moran": Figure()})
    line = ["figures", str(tmp_path), "--out", str(tmp_path / "new"), "--format", kind]
    assert main(line) == 0
    picture = tmp_path / "new" / f"moran.{kind}"
    before = picture.read_bytes()
    assert main(line) == 2
    assert "already exists; choose another place" in capsys.readouterr().err
    assert picture.read_bytes() == before
    assert main([*line, "--overwrite"]) == 0
    Figure().savefig(picture)
    before = picture.read_bytes()
    assert main([*line, "--overwrite"]) == 2
    assert "was not written by napari-flag" in capsys.readouterr().err
    assert picture.read_bytes() == before


def test_weights_trained_replace_those_of_the_same_command_and_nothing_else_unasked(
    tmp_path, monkeypatch, capsys
):
    config = Path(__file__).parents[2] / "training" / "configs" / "her2st.toml"
    line = ["train", str(config), "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--out"]

    def run(out, *options):
        monkeypatch.setattr("sys.argv", ["napari-flag", *line, str(out), *options])
        assert main([*line, str(out), *options]) == 2
        return capsys.readouterr().err

    out = tmp_path / "mine.safetensors"
    command = "napari-flag train her2st.toml --data DATA --run run --out mine.safetensors"
    header = {"format": FORMAT, "genes": ["A"], "config": {}, "encoder": "embedded"}
    same = {keys.COMMAND_HASH: hash_of([*line, str(out)])}
    for stated, said in (({}, "is not a result of this very command"), (same, BEGUN)):
        card = {"command": command, **stated}
        held = {"napari_flag": json.dumps(header | {"card": card})}
        save_file({"flag.a": np.zeros(2)}, out, metadata=held)
        assert said in run(out), card
    before = out.read_bytes()
    assert "is not a result of this very command" in run(out, "--seed", "3")
    assert BEGUN in run(out, "--seed", "3", "--overwrite")
    assert out.read_bytes() == before
    save_file({"a": np.zeros(2)}, out)
    assert "was not written by napari-flag" in run(out, "--overwrite")
    assert "in .safetensors" in run(tmp_path / "mine.txt")
