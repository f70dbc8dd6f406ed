import subprocess
import sys

import pytest

from napari_flag.cli import main, predict
from napari_flag.cli.main import build_parser
from napari_flag.errors import UserError

COMMANDS = ("predict", "compare", "demo", "weights", "encoders", "doctor")


def failing(monkeypatch, error):
    def run(args):
        raise error

    monkeypatch.setattr(predict, "run_predict", run)


def test_every_command_has_help_and_those_with_measures_name_their_unit(capsys):
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
    assert main(["predict", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--mpp UM µm per pixel" in text
    assert "(default: balanced)" in text


def test_the_command_line_loads_neither_torch_nor_qt():
    code = (
        "import sys, napari_flag.cli; napari_flag.cli.main(['predict', '--help']);"
        "print([m for m in ('torch', 'qtpy', 'PyQt6', 'napari', 'anndata') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("The slide is upside down; turn it."), 2, "The slide is upside down; turn it."),
        (KeyboardInterrupt(), 130, "cancelled, nothing was written"),
        (MemoryError(), 2, "ran out of memory"),
        (ZeroDivisionError("oh\nno"), 1, "ZeroDivisionError: oh"),
    ],
)
def test_whatever_goes_wrong_is_one_sentence_and_an_exit_code(monkeypatch, capsys, error, code, said):
    failing(monkeypatch, error)
    assert main(["predict", "slide.svs"]) == code
    text = capsys.readouterr().err
    assert said in text
    assert len(text.splitlines()) == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("line", [["--debug", "predict", "slide.svs"], ["predict", "slide.svs", "--debug"]])
def test_debug_shows_where_it_came_from_before_or_after_the_command(monkeypatch, capsys, line):
    failing(monkeypatch, ZeroDivisionError("oh"))
    assert main(line) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        ["predict"],
        ["nonsense"],
        [],
        ["predict", "a.svs", "--mpp", "zero"],
        ["predict", "a.svs", "--mpp", "-1"],
        ["predict", "a.svs", "--samples", "0"],
        ["predict", "a.svs", "--quality", "perfect"],
    ],
)
def test_a_wrong_argument_exits_with_2_and_says_which(capsys, wrong):
    assert main(wrong) == 2
    assert "error:" in capsys.readouterr().err


def test_a_decimal_comma_is_understood():
    assert build_parser().parse_args(["predict", "a.svs", "--mpp", "0,683"]).mpp == 0.683


def test_training_commands_appear_with_the_training_package(monkeypatch, tmp_path, capsys):
    package = tmp_path / "flag_pretend"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(
        "def add_commands(commands):\n    commands.add_parser('train').set_defaults(run=lambda args: 7)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("napari_flag.cli.main.TRAINING", "flag_pretend")
    assert main(["train"]) == 7
    monkeypatch.setattr("napari_flag.cli.main.TRAINING", "not_there_at_all")
    assert main(["train"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(files):
    code = f"{sys.executable} -m napari_flag compare predicted.h5ad measured.h5ad --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {code}"],
        capture_output=True, text=True, check=False, timeout=60, cwd=files,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
