"""What is released: wheel, sdist, and the files that name the version and the addresses."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import xml.etree.ElementTree as ET
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from tools.check_distributions import NEEDED, PICTURES, find_fault_of_sdist, find_fault_of_wheel

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = {p.name: yaml.safe_load(p.read_text("utf-8")) for p in (ROOT / ".github/workflows").glob("*.yml")}


def member(name, kind=tarfile.REGTYPE, size=10):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info


def test_a_wheel_that_lacks_weights_manifest_or_is_too_large_is_refused():
    whole = {*NEEDED, "napari_flag/weights/a.safetensors"}
    assert find_fault_of_wheel(whole, ["a.safetensors"], 1) is None
    assert "b.safetensors" in find_fault_of_wheel(whole, ["b.safetensors"], 1)
    assert "napari.yaml" in find_fault_of_wheel(whole - {"napari_flag/napari.yaml"}, [], 1)
    assert "41 MB" in find_fault_of_wheel(whole, ["a.safetensors"], 41)
    assert "a.safetensors, which SHA256SUMS does not list" in find_fault_of_wheel(whole, [], 1)


def test_no_weights_are_kept_here_but_those_listed_and_they_hold_nobodys_expression():
    """Weights of BLEEP and kNN hold the counts they were fitted to, in tensors called bank."""
    asked = subprocess.run(
        ["git", "ls-files", "*.safetensors"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if asked.returncode:
        pytest.skip("this is no clone, so git does not say what is kept")
    kept = [ROOT / line for line in asked.stdout.splitlines()]
    sums = (ROOT / "src/napari_flag/weights/SHA256SUMS").read_text("utf-8").split()
    assert [path.name for path in kept] == sums[1::2]
    for path in kept:
        with safe_open(path, "numpy") as held:
            names = list(held.keys())
        assert names
        assert not [name for name in names if "bank" in name]


def test_an_sdist_with_links_or_pictures_is_refused():
    assert find_fault_of_sdist([member("p/src/a.py")]) is None
    assert "p/napari.yaml" in find_fault_of_sdist([member("p/napari.yaml", tarfile.SYMTYPE)])
    assert "p/docs/a.png" in find_fault_of_sdist([member(f"p/docs/a{PICTURES[0]}")])
    assert "50 MB" in find_fault_of_sdist([member("p/src/a.py", size=50_000_000)])


@pytest.mark.slow
def test_wheel_and_sdist_are_whole_and_the_wheel_runs_in_a_new_environment():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_distributions.py")],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "runs in a new environment" in done.stdout


def test_package_and_citation_say_in_the_same_sentence_what_the_program_does():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["abstract"] == PROJECT["description"]


def test_version_licence_and_address_are_the_same_wherever_they_are_written():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["repository-code"] == PROJECT["urls"]["Source"]
    assert all(url.startswith(PROJECT["urls"]["Source"]) for name, url in PROJECT["urls"].items()
               if name in ("Issues", "Changelog"))  # fmt: skip


def imported(folder):
    """Distributions that the Python files below `folder` import, each by its module and its names."""
    files = (ROOT / folder).rglob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names = plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    modules = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    known = packages_distributions()
    return {module: {plain_name(n) for n in known.get(module, [module])} for module in modules}


def plain_name(requirement):
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


def test_what_is_imported_is_declared_and_what_every_user_installs_is_imported():
    base = {plain_name(requirement) for requirement in PROJECT["dependencies"]}
    extras = {
        name: {plain_name(each) for each in group} for name, group in PROJECT["optional-dependencies"].items()
    }
    ours = {"napari-flag", "flag-training", "flag_training", "napari_flag"}
    for folder, may in (("src", ("dask", "fastslide", "spatialdata")), ("training", ("training", "bench"))):
        declared = base.union(ours, *(extras[name] for name in may))
        undeclared = {module for module, names in imported(folder).items() if not names & declared}
        assert not undeclared, f"{folder} imports {undeclared}, which pyproject.toml does not declare"
    used = set().union(*imported("src").values())
    # the libraries behind openslide-python, and behind zarr's codecs (which no longer unpickle)
    assert base - used == {"openslide-bin", "numcodecs"}
    assert "npe2" in extras["test"]


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("make") is None, reason="needs make and bash")
def test_what_a_workflow_has_set_up_is_not_set_up_again_by_make(tmp_path):
    ready = tmp_path / "venv/bin/python"
    installs_nothing = tmp_path / "bin/apt-get"
    for program in (ready, installs_nothing):
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
    place = {"VENV": str(tmp_path / "venv"), "PATH": f"{installs_nothing.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", str(ROOT / "tools/setup"), "dev"], env=os.environ | place, check=True)
    for target in (".ready-dev", ".ready-demo"):
        asked = ["make", "-q", "-C", str(ROOT), f"VENV={place['VENV']}", f"{place['VENV']}/{target}"]
        assert subprocess.run(asked, env=os.environ | place).returncode == 0, f"{target} is made again"


def test_the_icon_is_a_small_drawing_of_its_own_that_fetches_nothing():
    text = files("napari_flag").joinpath("icon.svg").read_text("utf-8")
    assert ET.fromstring(text).tag.endswith("svg")
    assert len(text) < 4000
    assert not re.search(r"(href|url\(|<image|<script)", text)


def test_workflows_test_the_wheel_on_three_systems_and_every_python_that_is_promised():
    matrix = WORKFLOWS["test.yml"]["jobs"]["wheel"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["system"]} == {"ubuntu", "macos", "windows"}
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert set(named) <= set(matrix["python"])
    assert matrix["python"][0] == PROJECT["requires-python"].removeprefix(">=")
    lowest = WORKFLOWS["test.yml"]["jobs"]["oldest"]["steps"]
    assert any("--resolution lowest-direct" in step.get("run", "") for step in lowest)


def test_only_the_job_that_publishes_may_ask_for_a_token_and_it_waits_for_the_tests():
    publish = WORKFLOWS["release.yml"]["jobs"]["pypi"]
    assert set(publish["needs"]) == {"test", "version"}
    assert publish["permissions"] == {"id-token": "write"}
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}


def test_every_script_a_workflow_runs_is_there():
    used = re.findall(r"(?:tools|\.ci)/[\w.]+", "".join(p.read_text("utf-8") for p in
                      (ROOT / ".github/workflows").glob("*.yml")))  # fmt: skip
    assert used
    assert not [name for name in used if not (ROOT / name).is_file()]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    made = re.findall(r"run: make ([\w-]+)", "".join(p.read_text("utf-8") for p in
                      (ROOT / ".github/workflows").glob("*.yml")))  # fmt: skip
    assert made
    assert set(made) <= targets
