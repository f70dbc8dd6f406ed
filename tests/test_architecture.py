"""Reads the imports of the package and holds the order of rooms that CONTRIBUTING.md states."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_flag"
WINDOWS = {"napari", "qtpy", "superqt", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui"}
HEADLESS = {"figures", "exports", "report"}
HEAVY = {"torch", "qtpy", "napari", "PyQt6", "PySide6"}


def order_of_rooms() -> list[set[str]]:
    """Rooms from first to last; those between the same arrows see each other."""
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    stated = re.search(r"the order `([^`]+)`", text)
    assert stated, "CONTRIBUTING.md no longer states the order of the rooms"
    return [{name.strip() for name in group.split(",")} for group in stated[1].split("→")]


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name not in ("__main__.py",))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every module that `path` imports anywhere in it, type-checking blocks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    own = {name.split(".")[1] for name in imported(path) if name.startswith("napari_flag.")}
    return own - {"__version__"}


RANK = {name: i for i, group in enumerate(order_of_rooms()) for name in group}


def test_every_room_has_its_place_in_the_order():
    assert {room_of(p) for p in modules()} - {"__init__"} == set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_rooms_before_its_own(path):
    if room_of(path) == "__init__":
        assert not rooms_imported(path)
        return
    here = RANK[room_of(path)]
    later = {room for room in rooms_imported(path) if RANK[room] > here}
    assert not later, f"{path.name} imports {sorted(later)}, which come after it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_headless_imports_a_window_system(path):
    if RANK.get(room_of(path), -1) < RANK["layers"] or room_of(path) in HEADLESS:
        assert not {name.split(".")[0] for name in imported(path)} & WINDOWS


def test_the_package_never_imports_its_training():
    """But for the command line, which looks by name whether it is there."""
    for path in modules():
        assert not any(name.startswith("flag_training") for name in imported(path)), path


@pytest.mark.parametrize("name", ["napari_flag", "napari_flag.cli", "napari_flag.prediction_file"])
def test_importing_loads_neither_torch_nor_a_window_system(name):
    code = f"import sys, {name}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
