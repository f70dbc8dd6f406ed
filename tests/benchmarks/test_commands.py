"""The commands that the benchmarks' heads and the docs state run as they stand there."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}
PAGES = (ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md"))
COMMAND = re.compile(r"python (-m benchmarks\.|benchmarks/)(\w+)(?:\.py)?((?:\\\n|[^\n`])*)")
ASKED = """
import contextlib, io, json, runpy, sys
said = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        except SystemExit as ended:
            said[name] = text.getvalue() if not ended.code else f"ended with {ended.code}"
print(json.dumps(said))
"""


def documented():
    """Yield where a command stands, whether it names a module, what it runs and the options it gives."""
    for page in (*BENCHMARKS.values(), *PAGES):
        head = page.read_text("utf-8")
        if page.suffix == ".py":
            head = ast.get_docstring(ast.parse(head)) or ""
        for form, name, rest in COMMAND.findall(head):
            yield page.name, form.startswith("-m"), name, set(re.findall(r"--[a-z][\w-]*", rest))


def imported(path):
    """Return every module that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


def test_a_benchmark_that_needs_others_of_the_folder_is_run_as_a_module_of_it():
    found = list(documented())
    assert {name for _, _, name, _ in found} >= {"quality_cost", "freezes", "large_predictions"}
    for page, as_module, name, _ in found:
        assert name in BENCHMARKS, f"{page} names the benchmark {name}, which is not there"
        needs = {module for module in imported(BENCHMARKS[name]) if module.startswith("benchmarks")}
        assert as_module or not needs, f"{page} runs {name} as a script, which cannot import {needs}"
    for path in BENCHMARKS.values():
        assert not imported(path) & set(BENCHMARKS), f"{path.name} imports a neighbour that a module cannot"


def test_every_benchmark_is_in_the_list_of_the_folder():
    listed = set(re.findall(r"`(\w+)\.py`", (ROOT / "benchmarks" / "README.md").read_text("utf-8")))
    assert listed == set(BENCHMARKS) - {"tables"}


@pytest.mark.slow
def test_documented_commands_name_options_that_the_benchmarks_have():
    """Slow for what all of them import."""
    asked = sorted({name for _, _, name, _ in documented()})
    done = subprocess.run(
        [sys.executable, "-c", ASKED, *asked], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for page, _, name, options in documented():
        missing = {option for option in options if not re.search(rf"{option}\b", said[name])}
        assert not missing, f"{page} gives {name} the options {missing}: {said[name]}"
