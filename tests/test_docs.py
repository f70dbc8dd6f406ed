"""What the pages promise: links lead somewhere, commands parse, names exist."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import napari_flag
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
    """(page's name, text) of every fenced block of `language`; those of CONTRIBUTING are outlines."""
    for page in PAGES:
        if page.name != "CONTRIBUTING.md":
            for text in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.S):
                yield page.name, text


def commands():
    """(page's name, words) of every napari-flag command shown in a shell block."""
    for page, block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "napari-flag" in words[:4]:
                yield page, words[words.index("napari-flag") + 1 :]


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


def test_every_link_leads_somewhere():
    broken = []
    for page in PAGES:
        for target, anchor in LINK.findall(page.read_text("utf-8")):
            file = page if not target else (page.parent / target).resolve()
            known = file.exists() and (not anchor or file.suffix != ".md" or anchor in anchors(file))
            if not known:
                broken.append(f"{page.name}: {target}#{anchor}")
    assert not broken


def test_every_command_shown_is_understood(capsys):
    parser, wrong, seen = build_parser(), [], 0
    for page, words in commands():
        seen += 1
        try:
            parser.parse_args(words)
        except SystemExit:
            wrong.append(
                f"{page}: napari-flag {shlex.join(words)}: {capsys.readouterr().err.splitlines()[-1]}"
            )
    assert seen > 20
    assert not wrong


def test_every_name_used_in_an_example_exists():
    missing = []
    for page, code in blocks("python"):
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                missing += [f"{page}: {a.name}" for a in node.names if not hasattr(module, a.name)]
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("nf", "napari_flag"):
                missing += [] if hasattr(napari_flag, node.attr) else [f"{page}: nf.{node.attr}"]
    assert not missing
