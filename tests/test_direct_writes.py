"""Reads the source and holds that nothing is written in place: only to what `files.replacing` gives.

By convention that is called ``place`` (or ``part``, inside a folder that is such a place), and what is opened
from it ``stream`` or ``file``.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("src/napari_flag", "training/flag_training") for path in (ROOT / folder).rglob("*.py")
)
BY_PATH = {"write_text", "write_bytes", "write_h5ad", "to_zarr", "to_csv", "to_parquet", "tofile"}
"""Methods whose receiver or first argument is the place."""
BY_ARGUMENT = {"save", "savez", "savez_compressed", "save_npz", "savefig", "TiffWriter",
               "imwrite", "open_memmap", "memmap", "setFileName", "copyfile", "copytree", "link"}  # fmt: skip
"""Functions with the place among their arguments."""
OWN_TEMPORARY = {"save_file"}
"""Functions that write by a temporary file of their own, which stays behind where they are killed."""
MOVES = {"os.replace", "os.rename", "shutil.move", "tempfile.mkdtemp", "tempfile.mkstemp",
         "tempfile.NamedTemporaryFile"}  # fmt: skip
PLACES = {"place", "part", "stream", "file"}
EXEMPT = {
    "src/napari_flag/files.py": "the one writing function",
    "training/flag_training/engine/run_log.py": "rows are appended; half a row is taken back on resuming",
    "src/napari_flag/workspace_file.py": "autosaves lie in a folder of their own each",
    "src/napari_flag/cli/terminal.py": "a folder of its own for what could not be written",
    "src/napari_flag/doctor.py": "tries whether a folder can be written",
    "training/flag_training/engine/checkpointing.py": "puts the previous state in place of a damaged one",
}
"""Modules that may move files or make temporary ones, and why."""


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def roots(node: ast.AST) -> set[str]:
    """Every plain name in an expression."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def opens_to_write(node: ast.Call) -> bool:
    if called(node).rpartition(".")[2] != "open":
        return False
    modes = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
    texts = [m.value for m in modes if isinstance(m, ast.Constant) and isinstance(m.value, str)]
    return any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)


def direct_writes(source: str) -> list[str]:
    """Calls in `source` that write to something other than a place to be put."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = called(node).rpartition(".")[2]
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        receiver = roots(node.func.value) if isinstance(node.func, ast.Attribute) else set()
        if not isinstance(node.func, ast.Attribute) and name not in ("open", "TiffWriter", "save_file"):
            continue  # a function of ours that is handed the path
        if name == "save" and not receiver & {"np", "numpy", "torch", "image"}:
            continue
        if name in BY_PATH or opens_to_write(node):
            wrong = not (receiver | set().union(*map(roots, values))) & PLACES
        elif name in BY_ARGUMENT and values:
            wrong = not set().union(*map(roots, values)) & PLACES
        else:
            wrong = called(node) in MOVES or name in OWN_TEMPORARY
        if wrong:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_written_in_place(path):
    if path.relative_to(ROOT).as_posix() not in EXEMPT:
        assert direct_writes(path.read_text("utf-8")) == []


def test_exemptions_are_needed():
    for name in EXEMPT:
        assert direct_writes((ROOT / name).read_text("utf-8")), f"{name} needs no exemption"


@pytest.mark.parametrize(
    "line",
    ["np.save(path, x)", "path.write_text('a')", "open(path, 'w')", "path.open('ab')",
     "adata.write_h5ad(path)", "figure.savefig(out)", "torch.save(x, path)", "os.replace(a, b)",
     "Path(a).open(mode='x')", "TiffWriter(path)", "shutil.copyfile(one, other)", "table.to_csv(path)"],
)  # fmt: skip
def test_writing_in_place_is_found(line):
    assert len(direct_writes(line)) == 1


@pytest.mark.parametrize(
    "line",
    ["np.save(place, x)", "place.open('w')", "np.save(stream, x)", "path.open('rb')", "path.read_text()",
     "adata.write_h5ad(place)", "zarr.open_group(path, mode='r')"],
)  # fmt: skip
def test_reading_and_writing_to_a_place_are_not(line):
    assert direct_writes(line) == []
