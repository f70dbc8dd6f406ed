"""Reads the imports of both packages and holds the order of rooms that CONTRIBUTING.md states.

Each test lists every offender, so one run shows all there is to repair.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "napari_flag"
TRAINING = ROOT / "training" / "flag_training"
QT = {"qtpy", "superqt", "PyQt5", "PyQt6", "PySide2", "PySide6", "magicgui"}
WINDOWS = {*QT, "napari", "vispy"}
HEADLESS = {"figures", "exports", "report", "api", "pl", "lazyslide"}
HEAVY = {"torch", "anndata", "qtpy", "napari", "PyQt6", "PySide6"}
UNUSED_IN_PREDICTION = {"flag_training", "transformers", "lightning_fabric"}


def order_of_rooms() -> dict[str, int]:
    """Room → its place from first to last; those between the same arrows see each other."""
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    stated = re.search(r"the order `([^`]+)`", text)
    assert stated, "CONTRIBUTING.md no longer states the order of the rooms"
    groups = enumerate(stated[1].split("→"))
    return {name.strip(): place for place, group in groups for name in group.split(",")}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(package: Path = PACKAGE) -> list[Path]:
    return sorted(p for p in package.rglob("*.py") if p.name != "__main__.py")


def inner(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Every name that `path` imports anywhere in it, type-checking blocks included."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    own = {name.split(".")[1] for name in imported(path) if name.startswith("napari_flag.")}
    return own - {"__version__"}


def test_every_room_has_its_place_in_the_order():
    assert {room_of(p) for p in modules()} - {"__init__"} == set(order_of_rooms())


def test_modules_import_only_from_rooms_before_their_own():
    place = order_of_rooms()
    wrong = {
        inner(path): later
        for path in modules()
        if (room := room_of(path)) != "__init__"
        and (later := {other for other in rooms_imported(path) if place[other] > place[room]})
    }
    assert not wrong


def test_nothing_headless_imports_a_window_system():
    place = order_of_rooms()
    wrong = {
        inner(path): seen
        for path in modules()
        if (place.get(room_of(path), -1) < place["layers"] or room_of(path) in HEADLESS)
        and (seen := {name.split(".")[0] for name in imported(path)} & WINDOWS)
    }
    assert not wrong


def test_layers_are_made_without_qt():
    wrong = {
        inner(path): seen
        for path in modules()
        if room_of(path) == "layers" and (seen := {name.split(".")[0] for name in imported(path)} & QT)
    }
    assert not wrong


def test_analysis_alone_computes_statistics_for_the_rooms_after_it():
    place = order_of_rooms()
    wrong = {
        inner(path)
        for path in modules()
        if place.get(room_of(path), -1) > place["analysis"] and "statistics" in rooms_imported(path)
    }
    assert not wrong


def test_layers_alone_adds_layers_to_a_viewer():
    adds = re.compile(r"add_(image|points|shapes|labels|vectors|tracks|surface)")
    wrong = {
        f"{inner(path)}:{node.lineno}"
        for path in modules()
        if room_of(path) != "layers"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and adds.fullmatch(node.func.attr)
    }
    assert not wrong


def test_the_package_never_imports_its_training():
    """But for the command line, which looks by name whether it is there."""
    wrong = {inner(p) for p in modules() if any(n.startswith("flag_training") for n in imported(p))}
    assert not wrong


def compares_endings(node: ast.AST) -> bool:
    """Whether code asks for the ending of a name otherwise than by `files.ending`."""
    if isinstance(node, ast.Compare | ast.Match):
        asked = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject]
        inner = (part for each in asked for part in ast.walk(each))
        return any(isinstance(part, ast.Attribute) and part.attr in ("suffix", "suffixes") for part in inner)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    if node.func.attr in ("lower", "casefold"):
        return isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "suffix"
    texts = (part for argument in node.args for part in ast.walk(argument) if isinstance(part, ast.Constant))
    return node.func.attr == "endswith" and any(str(text.value).startswith(".") for text in texts)


def test_files_alone_says_what_the_ending_of_a_name_is():
    for code in (
        "p.suffix == '.a'",
        "p.suffix.lower() in x",
        "p.name.endswith('.a')",
        "k = p.suffix.lower()",
    ):
        assert any(map(compares_endings, ast.walk(ast.parse(code)))), code
    wrong = {
        f"{path.name}:{node.lineno}"
        for path in (*modules(), *modules(TRAINING))
        if path != PACKAGE / "files.py"
        for node in ast.walk(tree_of(path))
        if compares_endings(node)
    }
    assert not wrong


def test_files_alone_hashes_a_file_that_is_read_at_once():
    wrong = {
        f"{path.name}:{node.lineno}"
        for path in (*modules(), *modules(TRAINING))
        if path != PACKAGE / "files.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and node.attr == "file_digest"
    }
    assert not wrong


def imports_between(package: Path) -> dict[str, set[str]]:
    """Module → the modules of the same package that it imports."""
    files = {
        ".".join(p.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): p
        for p in modules(package)
    }
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        found[module] = set()
        for name in imported(path):
            target = name if name in files else name.rpartition(".")[0]
            if target in files and target != module and module != package.name:
                found[module].add(target)
    return found


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return what is left when modules that import nothing of the rest are taken away, and again."""
    left = dict(graph)
    while free := [module for module, targets in left.items() if not targets & set(left)]:
        for module in free:
            del left[module]
    while unused := set(left) - {t for targets in left.values() for t in targets}:
        for module in unused:
            del left[module]
    return sorted(left)


def test_no_modules_import_each_other_in_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert circles(imports_between(PACKAGE)) == []
    assert circles(imports_between(TRAINING)) == []


def test_importing_loads_no_heavy_package_and_predicting_loads_neither_training_nor_transformers():
    light = "napari_flag, napari_flag.cli, napari_flag.prediction_file, napari_flag.inputs, napari_flag.api"
    predicting = "napari_flag.prediction, napari_flag.sampling, napari_flag.encoders.registry"
    code = (
        f"import sys, {light}; napari_flag.cli.main(['predict', '--help']);"
        f"print(sorted({HEAVY!r} & set(sys.modules)));"
        f"seen = set(sys.modules); import {predicting};"  # the command line has looked for the training
        "new = {name.partition('.')[0] for name in set(sys.modules) - seen};"
        f"print(sorted({UNUSED_IN_PREDICTION!r} & new))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]


def test_importing_the_window_and_its_pages_loads_nothing_of_scipy():
    code = (
        "import sys, importlib, napari.viewer; seen = set(sys.modules);"
        "from napari_flag.gui import area, opening;"
        "pages = [where.partition(':')[0] for _, where in area.PAGES.values()];"
        "[importlib.import_module(f'napari_flag.gui.{page}') for page in pages];"
        "print(sorted(name for name in set(sys.modules) - seen if name.startswith('scipy.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"
