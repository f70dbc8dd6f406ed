import argparse
import errno
import os
import re
import sys
from pathlib import Path

import pytest
from tests.kills import commands as kills
from tests.slide_files import picture, plain_image

from napari_flag.cli import main, predict
from napari_flag.cli.main import build_parser
from napari_flag.cli.terminal import say
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


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("The slide is upside down; turn it."), 2, "The slide is upside down; turn it."),
        (KeyboardInterrupt(), 130, "cancelled"),
        (MemoryError(), 2, "ran out of memory"),
        (ZeroDivisionError("oh\nno"), 1, "ZeroDivisionError: oh"),
    ],
)
def test_whatever_goes_wrong_is_one_sentence_and_an_exit_code(monkeypatch, capsys, error, code, message):
    failing(monkeypatch, error)
    assert main(["predict", "slide.svs"]) == code
    text = capsys.readouterr().err
    assert message in text
    assert len(text.splitlines()) == 1
    assert "Traceback" not in text


class FailsAgainWhenClosed:
    def __init__(self, number):
        self.number = number

    def __del__(self):
        raise OSError(self.number, os.strerror(self.number))


def test_a_drive_that_fails_once_more_while_files_are_closed_is_not_said_twice(monkeypatch, capsys):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)

    def run(args):
        full = OSError(errno.ENOSPC, "no space")  # h5py hands its errors to this hook as well
        sys.excepthook(OSError, full, None)
        held = [FailsAgainWhenClosed(errno.ENOSPC), FailsAgainWhenClosed(errno.EINVAL)]
        held.append(held)  # as a traceback holds the file whose writing failed
        raise UserError("The drive is full; make room.")

    monkeypatch.setattr(predict, "run_predict", run)
    assert main(["predict", "slide.svs"]) == 2
    assert capsys.readouterr().err == "The drive is full; make room.\n"
    assert [heard.exc_value.errno for heard in said] == [errno.EINVAL]
    assert sys.unraisablehook == said.append


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
        ["predict", "a.svs", "--mpp", "1e308"],
        ["predict", "a.svs", "--spacing", "1e-300"],
        ["predict", "a.svs", "--draws", "0"],
        ["predict", "a.svs", "--draws", "33"],
        ["predict", "a.svs", "--quality", "perfect"],
    ],
)
def test_a_wrong_argument_exits_with_2_and_says_which(capsys, wrong):
    assert main(wrong) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "command", "said"),
    [
        (["predict", "a.svs", "--foo"], "predict", "--foo is not known here"),
        (["predict", "a.svs", "b.svs"], "predict", "b.svs is not known here; "),
        (["report", "p.h5ad", "--out", "o", "--overwrit"], "report", "(did you mean --overwrite?)"),
        (["weights", "show", "her2st", "--jsn=1"], "weights show", "(did you mean --json?)"),
        (["train", "c.toml", "--data", "d", "--leave-one-out", "C5"], "train", "--leave-one-out C5 is not"),
        (["--foo", "doctor"], "", "--foo is not known here"),
    ],
)
def test_what_a_command_does_not_know_is_said_with_its_own_usage(line, command, said, capsys):
    assert main(line) == 2
    text = capsys.readouterr().err
    prog = f"napari-flag {command}".strip()
    assert text.startswith(f"usage: {prog} [-h]")
    last = text.splitlines()[-1]
    assert last.startswith(f"{prog}: error: ")
    assert said in last
    assert last.endswith(f"`{prog} --help` lists what is")


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
    module = sys.modules["napari_flag.cli.main"]  # `cli.main` is the function
    monkeypatch.setattr(module, "TRAINING", "flag_pretend")
    assert main(["train"]) == 7
    monkeypatch.setattr(module, "TRAINING", "not_there_at_all")
    assert main(["train"]) == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(monkeypatch):
    """As ``napari-flag … | head`` does."""
    reading, writing = os.pipe()
    os.close(reading)
    monkeypatch.setattr(predict, "run_predict", lambda args: say("line\n" * 100_000))
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(["predict", "slide.svs"]) == 0


@pytest.mark.parametrize(
    "line",
    [
        ["predict", "PIPE"], ["predict", "SLIDE", "--spots", "PIPE"], ["predict", "SLIDE", "--genes", "PIPE"],
        ["predict", "SLIDE", "--region", "PIPE"], ["predict", "SLIDE", "--weights", "PIPE"],
        ["compare", "PIPE", "PIPE"], ["export", "PIPE", "--to", "csv", "--out", "out"],
        ["report", "PIPE", "--out", "out"], ["tables", "PIPE"],
        ["train", "PIPE", "--data", ".", "--run", "run"],
        ["evaluate", "PIPE", "--data", ".", "--run", "run", "--test", "C2", "--out", "o.json"],
        ["weights", "import", "SLIDE", "--config", "PIPE", "--genes", "CONFIG", "--mpp", "1"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("ending", [".h5ad", ".tsv", ".tif"])
def test_no_command_waits_for_a_pipe(line, ending, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(tmp_path / f"p{ending}")
    plain_image(tmp_path / "s.png", picture(64, 64))
    (tmp_path / "c.toml").write_text("")
    names = {"PIPE": f"p{ending}", "SLIDE": "s.png", "CONFIG": "c.toml"}
    assert main([names.get(word, word) for word in line]) == 2
    assert re.search(r"pipe|no such file", capsys.readouterr().err.splitlines()[-1])


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "ESTALE", "ENOENT"])
def test_a_drive_that_fails_within_a_run_is_a_sentence_and_not_our_fault(name, monkeypatch, capsys):
    number = getattr(errno, name)

    def fails(args):
        raise OSError(number, os.strerror(number), "slide.tif")

    monkeypatch.setattr(predict, "run_predict", fails)
    assert main(["predict", "slide.tif"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(
        f"The file slide.tif cannot be read or written any more ({os.strerror(number).lower()})"
    )


def test_another_error_of_the_system_stays_our_fault(monkeypatch, capsys):
    def fails(args):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(predict, "run_predict", fails)
    assert main(["predict", "slide.tif"]) == 1
    assert "inside napari-flag" in capsys.readouterr().err


def commands(parser, name=""):
    """Yield (name, parser) of every command, of subcommands too."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for choices in (action.choices for action in nested):
        for word, inner in choices.items():
            yield from commands(inner, f"{name} {word}".strip())
    if not nested:
        yield name, parser


def test_every_path_may_begin_with_the_home_folder():
    found = dict(commands(build_parser()))
    plain = [
        (name, action.dest) for name, one in found.items() for action in one._actions if action.type is Path
    ]
    assert plain == []
    asked = found["tables"].parse_args(["~/scores.json", "--out=~/t.md"])
    assert (asked.scores, asked.out) == ([Path.home() / "scores.json"], Path.home() / "t.md")


def test_no_command_takes_an_option_that_is_shortened(capsys):
    found = dict(commands(build_parser()))
    assert {"predict", "prepare", "train", "fit", "evaluate", "gene-targets check"} <= {*found}
    for name, one in found.items():
        for needed in (*one._actions, *one._mutually_exclusive_groups):
            needed.required = False
        options = {word for word in one._option_string_actions if word.startswith("--")}
        for short in {option[:-1] for option in options} - options:
            with pytest.raises(SystemExit):
                one.parse_known_args([short])
            assert f"{name}: error: {short} is not known here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit", ["s", "--out", "o"]),
        ("train", ["c", "--data", "d"]),
        ("evaluate", ["c", "--data", "d", "--out", "o"]),
    ],
)
def test_numbers_of_training_are_checked_as_those_of_predict_are(command, words, capsys):
    parser = dict(commands(build_parser()))[command]
    wrong = [["--seed", "-3"]]
    if command == "fit":
        wrong += [["--mpp", given] for given in ("-1", "0", "nan")]
    for options in wrong:
        with pytest.raises(SystemExit):
            parser.parse_args([*words, *options])
        assert f"argument {options[0]}: '{options[1]}' is not a" in capsys.readouterr().err
    if command == "fit":
        assert parser.parse_args([*words, "--mpp", "0,683"]).mpp == 0.683


def test_every_command_that_writes_is_killed_by_make_kills_or_excepted_with_a_reason():
    found = dict(commands(build_parser()))
    write = {
        name.split()[0] for name, one in found.items() if any(action.dest == "out" for action in one._actions)
    }
    assert write == {*kills.COMMANDS, *kills.EXCEPTIONS}
    assert not {*kills.COMMANDS} & {*kills.EXCEPTIONS}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "--genes", "ERBB2", "slide.svs"], "--genes takes every word that follows it"),
        (["fit", "--leave-out", "A", "folder", "--out", "w.safetensors"], "--leave-out takes every word"),
        (["predict", "--seed", "1"], "SLIDE --manifest is required\n"),
    ],
)
def test_a_file_that_an_option_has_taken_is_asked_for_before_it(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err
