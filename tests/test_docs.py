"""What the pages promise: links lead somewhere, commands parse, names exist."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from napari_flag.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")


def blocks(language):
    """Every fenced block of `language`, with the page it is on."""
    for page in PAGES:
        if page.name == "CONTRIBUTING.md":  # outlines, not examples
            continue
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S):
            yield pytest.param(text, id=f"{page.name}: {text.strip().splitlines()[0][:40]}")


def commands():
    """Every napari-flag command shown in a shell block."""
    for block in blocks("sh"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "napari-flag" in words[:4]:
                yield pytest.param(words[words.index("napari-flag") + 1 :], id=line.split("#")[0].strip())


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_readme_leads_with_the_two_commands_and_a_picture():
    text = (ROOT / "README.md").read_text("utf-8")
    first = re.search(r"```sh\n(.*?)```", text, re.S)
    assert [line.split("#")[0].strip() for line in first[1].strip().splitlines()] == [
        "make demo",
        "make test",
    ]
    assert "![" in text[: first.end() + 200]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        file = page if not target else (page.parent / target).resolve()
        assert file.exists(), f"{page.name} links to {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.name} links to #{anchor}"


@pytest.mark.parametrize("words", list(commands()))
def test_every_command_shown_is_understood(words):
    build_parser().parse_args(words)


@pytest.mark.parametrize("code", list(blocks("python")))
def test_every_name_imported_in_an_example_exists(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
