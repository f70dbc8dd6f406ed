import io
import json
import os
import sys
from pathlib import Path

import pytest

from napari_flag.cli import main
from napari_flag.cli.terminal import ProgressLine, fingerprint, say, say_columns, say_json
from napari_flag.progress import Step, describe_step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(stream, ticks, seconds_each):
    clock = Clock()
    with ProgressLine(stream, clock) as line:
        for i in range(ticks):
            line(Step("Reading tiles", i, ticks, "tiles"))
            clock.now += seconds_each
        line(Step("Sampling", 0, 1))
    return stream.getvalue()


def test_a_terminal_has_one_line_that_is_cleaned_away():
    text = run(Terminal(), 50, 0.2)
    assert "\n" not in text
    assert "Reading tiles · 20 of 50 tiles · about 5 s left" in text
    assert text.endswith("\r\x1b[K")


def test_a_log_file_has_few_plain_lines():
    text = run(io.StringIO(), 1000, 0.1)
    assert "\r" not in text
    assert len(text.splitlines()) <= 10
    assert text.splitlines()[-1] == "Sampling"


def test_fast_steps_do_not_flood_the_terminal():
    assert run(Terminal(), 10_000, 0.0001).count("\r") < 20


def test_a_notice_stays_and_is_written_once():
    stream = Terminal()
    with ProgressLine(stream, Clock()) as line:
        for _ in range(3):
            line(Step("Sampling", 0, 10, notice="The batch was halved."))
    assert stream.getvalue().count("Note: The batch was halved.\n") == 1


def test_steps_are_described_with_what_is_known():
    assert describe_step(Step("Opening slide", 0), None) == "Opening slide"
    assert describe_step(Step("Reading", 3, None, "rows"), None) == "Reading · 3 rows"
    assert describe_step(Step("Reading", 10, 10, "rows"), 3.0) == "Reading · 10 of 10 rows"


def test_columns_are_aligned(capsys):
    say_columns([["a", "1"], ["longer", "2"]], indent="  ")
    assert capsys.readouterr().out == "  a       1\n  longer  2\n"
    say_columns([])


@pytest.mark.parametrize("name", ["x" * 300, "~nobody-of-that-name/x", "a" * 5000])
def test_a_name_that_no_file_can_have_is_said_in_one_sentence(name, capsys):
    assert main(["report", name, "--out", "out"]) == 2
    assert "is no path here" in capsys.readouterr().err


def test_what_a_file_says_does_not_act_on_the_terminal(capsys, tmp_path):
    hostile = "spot \x1b[2J\x9b31m\x07 of\ra.tsv"
    stream = Terminal()
    with ProgressLine(stream) as line:
        line.notice(hostile)
        line(Step(hostile, 0, 1))
    say(hostile)
    say_json({"spot": hostile})
    out = capsys.readouterr().out
    own = stream.getvalue().replace("\r\x1b[K", "")
    for text in (own, out):
        assert not any(sign in text for sign in "\x1b\x9b\x07\r")
    assert "spot ␛[2J�31m␇ of␍a.tsv" in own
    assert json.loads(out.partition("\n")[2]) == {"spot": hostile}, "JSON keeps what was said"
    assert main(["export", str(tmp_path / "\x1b[2J.h5ad"), "--to", "csv"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_command_on_a_file_whose_name_is_no_unicode_has_a_hash(tmp_path):
    one, other = (tmp_path / os.fsdecode(name) for name in (b"s\xff.png", b"s\xfe.png"))
    hashes = {fingerprint(["predict", path]) for path in (one, other, tmp_path / "s\ufffd.png")}
    assert len(hashes) == 3
    assert fingerprint(["predict", Path("ä.png")]) == fingerprint(["predict", Path("ä.png")])


def printed_in(encoding, monkeypatch, line):
    """What a command prints to a terminal of that encoding, and its exit code."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    code = main(line)
    stream.flush()
    return code, stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_a_terminal_lacks_are_written_as_escapes(encoding, monkeypatch):
    code, text = printed_in(encoding, monkeypatch, ["compare", "--help"])
    assert code == 0
    assert "gene\\u2013gene" in text
    code, text = printed_in(encoding, monkeypatch, ["weights", "show", "demo"])
    assert code == 0
    assert ("pitch \\xb5m 100" if encoding == "ascii" else "pitch µm 100") in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_stays_json_where_a_terminal_lacks_characters(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stream)
    say_json({"name": "5 µm … ä"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue().decode(encoding)) == {"name": "5 µm … ä"}


@pytest.mark.parametrize(
    "line", [["weights", "show", "demo"], ["cache", "--json"], ["weights", "list", "--json"]]
)
def test_closed_streams_end_no_command(line, monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(line) == 0
    assert main(["weights", "show", "nonsense"]) == 2
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        assert stream.fileno() > 2
        stream.close()
