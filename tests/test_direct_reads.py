"""Reads the source and holds that files are read through `files.read_text` and `files.read_bytes`.

These refuse what is no regular file, where reading would wait for ever, and what is too large to be read.
"""

import ast

import pytest
from tests.test_direct_writes import ROOT, SOURCES, called

READS = {"read_text", "read_bytes"}
OWN = {"files", "resources"}
"""Our module, and the standard library's for files of a package."""
EXEMPT = {
    "src/napari_flag/statistics/gene_sets.py": "a file of this package",
    "src/napari_flag/slides/formats/trial_reading.py": "a file of Linux, which is none on a disk",
}
"""Modules that may read otherwise, and why."""


def direct_reads(source: str) -> list[str]:
    """Calls in `source` that read a path by its own methods, or parse what `open` gives."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name, of = called(node).rpartition(".")[2], ast.unparse(node.func.value)
        by_path = name in READS and of.partition(".")[0] not in OWN
        if by_path or called(node) in ("json.load", "tomllib.load", "tomllib.loads", "yaml.load"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_file_is_read_where_pipes_and_too_large_ones_are_refused(path):
    if path.relative_to(ROOT).as_posix() not in {*EXEMPT, "src/napari_flag/files.py"}:
        assert direct_reads(path.read_text("utf-8")) == []


def test_exemptions_are_needed():
    for name in EXEMPT:
        assert direct_reads((ROOT / name).read_text("utf-8")), f"{name} needs no exemption"


@pytest.mark.parametrize(
    "line",
    ["path.read_text()", "Path(a).read_bytes()", "json.loads(path.read_text('utf-8'))", "json.load(file)",
     "(folder / 'a').read_text()", "tomllib.loads(text)"],
)  # fmt: skip
def test_reading_past_it_is_found(line):
    assert len(direct_reads(line)) == 1


@pytest.mark.parametrize(
    "line",
    ["read_text(path)", "files.read_bytes(path)", "parse_json(read_text(path))", "json.loads(text)",
     "resources.files('napari_flag').joinpath(name).read_text()"],
)  # fmt: skip
def test_reading_through_it_is_not(line):
    assert direct_reads(line) == []
