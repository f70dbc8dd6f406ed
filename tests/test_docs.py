"""What pages and notebooks promise: links lead somewhere, commands parse, examples call what exists."""

import ast
import importlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import napari_flag
from napari_flag.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
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


def test_the_readme_says_how_to_get_the_clone_and_which_extra_each_thing_needs():
    text = (ROOT / "README.md").read_text("utf-8")
    install = text.partition("## Install")[2].partition("\n## ")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"git clone {project['urls']['Source']} " in install
    for extra, what in (("spatialdata", "SpatialData"), ("training", "`fit`"), ("dask", "`--cluster`")):
        assert extra in project["optional-dependencies"]
        assert f"`{extra}`" in install
        assert what in install
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "installation.md").read_text("utf-8"), re.M))
    assert named == set(project["optional-dependencies"]) - {"all", "test", "docs", "dev"}


BEYOND_ALL = ("spatialdata", "lightning", "scanpy", "tensorboardX", "transformers", "dask", "torch_geometric")
"""Modules that the extras beyond ``[all]`` bring."""


@pytest.mark.slow
def test_the_commands_and_the_example_of_the_readme_run_as_written_with_no_further_extra(tmp_path):
    text = (ROOT / "README.md").read_text("utf-8").partition("## On the command line")[2]
    shell, python = (re.search(rf"```{name}\n(.*?)```", text, re.S)[1] for name in ("sh", "python"))
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.modules |= dict.fromkeys({BEYOND_ALL!r}, None)  # as where they are not installed\n"
    )
    folders = [tmp_path, ROOT / "src", ROOT / "training", Path(sys.executable).parent]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, folders[:3])),
        "PATH": os.pathsep.join([str(folders[3]), os.environ["PATH"]]),
    }
    lines = [*shell.strip().splitlines(), "python example.py"]
    (tmp_path / "example.py").write_text(python)
    for line in lines:
        done = subprocess.run(
            shlex.split(line, comments=True),
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    assert "'PCC'" in done.stdout
    made = {path.name for path in (tmp_path / "results").iterdir()}
    assert made >= {"sim11_report.html", "sim11.geojson", "sim11.ome.tif"}


def test_no_file_that_a_page_of_the_site_links_to_is_left_out_of_it():
    """The strict build passes links to what ``exclude_docs`` names."""
    stated = re.search(r"^exclude_docs: \|\n((?:  .+\n)+)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    excluded, linked, left_out = stated[1].split(), 0, []
    for page in (ROOT / "docs").rglob("*.md"):
        for target, _ in LINK.findall(page.read_text("utf-8")):
            file = (page.parent / target).resolve()
            if target and file.is_relative_to(ROOT / "docs"):
                linked += 1
                within = file.relative_to(ROOT / "docs")
                left_out += [f"{page.name}: {target}" for pattern in excluded if within.match(pattern)]
    assert linked > 100
    assert not left_out


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


def test_every_page_of_tables_says_the_command_that_makes_it_where_it_lies():
    texts = {page: page.read_text("utf-8") for page in PAGES}
    pages = {page: text for page, text in texts.items() if "\nWritten by `napari-flag tables` from:" in text}
    assert len(pages) > 5
    for page, text in pages.items():
        stated = re.findall(r"^The page itself: `napari-flag (.*)`\.$", text, re.M)
        assert len(stated) == 1, page.name
        made = build_parser().parse_args(shlex.split(stated[0]))
        assert ROOT / made.out == page
        assert text.startswith(f"# {made.title}\n")
        for file in made.scores:
            command = json.loads((ROOT / file).read_text("utf-8"))["command"]
            if file.parts[0] == "docs":  # what a benchmark keeps point by point has no place in its command
                assert f"--out {file.as_posix()}" in command
            assert f"- `{command}` (" in text


def examples():
    """(page's or notebook's name, code) of every example in Python."""
    yield from blocks("python")
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        lines = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "code").splitlines()
        yield path.name, "\n".join(line for line in lines if not line.startswith("%"))


def public(dotted):
    """What ``nf.…`` names; None where there is no such thing."""
    found = napari_flag
    for name in dotted.split(".")[1:]:
        found = getattr(found, name, None)
    return found


def faults_of(code):
    """Names that do not exist and calls that the functions would refuse, in `code`."""
    faults = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            faults += [a.name for a in node.names if not hasattr(module, a.name)]
        elif isinstance(node, ast.Attribute) and re.fullmatch(r"(nf|napari_flag)(\.\w+)+", ast.unparse(node)):
            faults += [] if public(ast.unparse(node)) is not None else [ast.unparse(node)]
        elif isinstance(node, ast.Call) and (called := public_call(node)) is not None:
            try:
                named = {word.arg: None for word in node.keywords}
                inspect.signature(called).bind(*node.args, **named)
            except TypeError as error:
                faults.append(f"{ast.unparse(node)}: {error}")
    return faults


def public_call(node):
    name = ast.unparse(node.func)
    return public(name) if re.fullmatch(r"nf(\.\w+)+", name) else None


def test_examples_name_what_exists_and_call_it_as_it_is_called():
    seen = dict(examples())
    assert len(seen) > 5
    assert not {name: faults for name, code in examples() if (faults := faults_of(code))}


def test_an_example_that_would_fail_is_found():
    assert faults_of("import napari_flag as nf\nnf.predcit('a')") == ["nf.predcit"]
    assert "um_per_px" in faults_of("nf.predict('a.svs', um_per_px=1)")[0]
    assert faults_of("nf.pl.gene(p)")[0].startswith("nf.pl.gene(p): missing")
    assert faults_of("from napari_flag.simulation import no_slide") == ["no_slide"]


def test_every_option_of_a_command_in_the_text_is_one_of_some_command():
    """Options named in a sentence, not only in blocks: ``--draws K``."""
    known, todo = set(), [build_parser()]
    while todo:
        for action in todo.pop()._actions:
            known |= set(action.option_strings)
            choices = action.choices if isinstance(action.choices, dict) else {}
            todo += list(choices.values())
    wrong = []
    for page in PAGES:
        if page.parent.name == "results" or page.name in ("CHANGELOG.md", "CONTRIBUTING.md"):
            continue
        for option in re.findall(r"`(--[a-z][a-z-]+)[^`\n]*`", page.read_text("utf-8")):
            if option not in known:
                wrong.append(f"{page.name}: {option}")
    assert not wrong


def test_every_kind_of_user_has_a_tutorial_and_every_picture_a_place():
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in ("pathologist", "biologist", "method-developer"):
        assert f"tutorials/{page}.md" in nav
    text = "".join(page.read_text("utf-8") for page in PAGES)
    unused = [p.name for p in (ROOT / "docs" / "images").iterdir() if f"images/{p.name}" not in text]
    assert not unused


def test_the_addresses_of_the_site_are_those_of_the_package():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert f"site_url: {urls['Documentation']}\n" in nav
    assert f"repo_url: {urls['Source']}\n" in nav


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    documented = set(re.findall(r"^::: napari_flag\.(?:\w+\.)*(\w+)$", text, re.M))
    names = {*napari_flag.__all__, *napari_flag.pl.__all__} - {"__version__", "pl"}
    assert names <= documented


def test_notebooks_hold_the_output_of_a_run_without_errors_or_machine_paths():
    assert len(NOTEBOOKS) >= 2
    for path in NOTEBOOKS:
        text = path.read_text("utf-8")
        cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "code"]
        assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1)), path.name
        assert not [o for c in cells for o in c["outputs"] if o["output_type"] == "error"]
        assert "image/jpeg" in text
        assert not re.search(r"/(home|root|tmp|Users)/", text)
        assert len(text) < 1_500_000


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "WARNING" not in said
    reference = (tmp_path / "api" / "index.html").read_text("utf-8")
    assert 'id="napari_flag.pl.gene"' in reference
    assert "log2(count + 1)" in (tmp_path / "prediction-file" / "index.html").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom_and_show_what_they_show_in_the_docs(path):
    from docs.run_notebooks import run

    def kinds(notebook):
        cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
        return [sorted(o["output_type"] for o in cell["outputs"]) for cell in cells]

    assert kinds(run(path)) == kinds(json.loads(path.read_text("utf-8")))
