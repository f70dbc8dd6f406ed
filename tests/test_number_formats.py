"""Reads the source and holds that numbers for people are written by `formatting`, with no format of its own.

``g`` and ``d`` are allowed: numbers as a person types them, those that programs read, and names.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORMATTING = ROOT / "src/napari_flag/formatting.py"
SOURCES = sorted(
    path for folder in ("src/napari_flag", "training/flag_training") for path in (ROOT / folder).rglob("*.py")
)
SCORES = (
    "domains", "draw_width", "gene_dimension", "int8", "published_speed", "quality_cost",
    "simulated_ceiling", "transformer_value",
)  # fmt: skip
"""Benchmarks that tabulate scores."""
OWN_DECIMALS = re.compile(r"[,%+]|[fe]$|\{")
OF_SCORES = re.compile(r"\+|\.[34]f$|\{")
NO_SCORES = {"np.median(error)", "change.mean()", "change.max()"}
"""What has three decimals in a benchmark and is no score."""


def specs(source: str) -> list[tuple[str, str]]:
    """Return (format, expression) of each formatted value of the f-strings in `source`."""
    return [
        (ast.unparse(node.format_spec)[2:-1], ast.unparse(node.value))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None
    ]


def own_decimals(source: str) -> list[str]:
    return [f"{value}:{spec}" for spec, value in specs(source) if OWN_DECIMALS.search(spec)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numbers_are_written_by_formatting(path):
    assert path == FORMATTING or own_decimals(path.read_text("utf-8")) == []


@pytest.mark.parametrize("name", SCORES)
def test_benchmarks_write_scores_as_everything_else_does(name):
    source = (ROOT / "benchmarks" / f"{name}.py").read_text("utf-8")
    assert [value for spec, value in specs(source) if OF_SCORES.search(spec) and value not in NO_SCORES] == []


@pytest.mark.parametrize("own", ["{x:.3f}", "{x:+.4f}", "{n:,}", "{x:.0%}", "{x:.{digits}f}", "{p:.0e}"])
def test_decimals_of_its_own_are_seen(own):
    assert own_decimals(f'f"{own}"')


@pytest.mark.parametrize("allowed", ["{x}", "{x:g}", "{x:.6g}", "{n:04d}", "{score(x, 'PCC'):>9}"])
def test_numbers_as_typed_and_names_are_not(allowed):
    assert not own_decimals(f'f"{allowed}"')
