"""Reads the source and holds that files are read through `files.read_text` and `files.read_bytes`.

These refuse what is no regular file, where reading would wait for ever, and what is too large to be read.
What is read in parts is opened where `files.refuse_special` was asked before, in the same function.
"""

import ast

import pytest
from tests.test_direct_writes import ROOT, SOURCES, called, opens_to_write

READS = {"read_text", "read_bytes"}
OWN = {"files", "resources"}
"""Our module, and the standard library's for files of a package."""
OPENED_WITH = {"mode", "encoding", "newline", "errors", "buffering"}
"""What a path's own ``open`` is given by name."""
EXEMPT = {
    "src/napari_flag/cache.py": "files that the cache itself wrote",
    "src/napari_flag/discovery/kinds.py": "`kind_of` looks into files and folders alone",
    "src/napari_flag/exports/replacing.py": "looks into files alone",
    "src/napari_flag/slides/formats/stored_tiles.py": "a file that tifffile has open",
    "src/napari_flag/slides/formats/tiff.py": "a file that tifffile has open",
    "src/napari_flag/statistics/gene_sets.py": "a file of this package",
    "src/napari_flag/slides/formats/trial_reading.py": "a file of Linux, which is none on a disk",
}
"""Modules that may read otherwise, and why."""


def opens_to_read(node: ast.Call) -> bool:
    """Whether a call is ``open`` of a path, as function or method, and not to write."""
    of, _, name = called(node).rpartition(".")
    if name != "open" or of == "os" or opens_to_write(node):
        return False
    own = not node.args or (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str))
    return of in ("", "io", "gzip") or (own and {keyword.arg for keyword in node.keywords} <= OPENED_WITH)


def opened_after_refusing(tree: ast.AST) -> set[ast.Call]:
    """Calls that stand after `refuse_special` in their function."""
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        asked = [node.lineno for node in calls if called(node).rpartition(".")[2] == "refuse_special"]
        found |= {node for node in calls if asked and node.lineno > min(asked)}
    return found


def direct_reads(source: str) -> list[str]:
    """Calls in `source` that read or open a path by its own methods, or parse what `open` gives."""
    found, tree = [], ast.parse(source)
    refused = opened_after_refusing(tree)
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        of, _, name = called(node).rpartition(".")
        by_path = of and name in READS and of.partition(".")[0] not in OWN
        opened = opens_to_read(node) and node not in refused
        if by_path or opened or called(node) in ("json.load", "tomllib.load", "tomllib.loads", "yaml.load"):
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
     "(folder / 'a').read_text()", "tomllib.loads(text)", "path.open()", "path.open('rb')", "open(path)",
     "(folder / 'a').open(newline='', encoding='utf-8')", "gzip.open(path, 'rb')",
     "def f():\n    path.open('rb')\n    refuse_special(path)"],
)  # fmt: skip
def test_reading_past_it_is_found(line):
    assert len(direct_reads(line)) == 1


@pytest.mark.parametrize(
    "line",
    ["read_text(path)", "files.read_bytes(path)", "parse_json(read_text(path))", "json.loads(text)",
     "resources.files('napari_flag').joinpath(name).read_text()", "place.open('w')", "os.open(path, flags)",
     "Image.open(path)", "self.opener.open([path])",
     "def f():\n    refuse_special(path)\n    path.open('rb')"],
)  # fmt: skip
def test_reading_through_it_is_not(line):
    assert direct_reads(line) == []
