"""Check this installation: packages, device, slide library, weights, folders, window system.

Each check is a plain sentence.  Nothing here imports napari or Qt: whether a window opens is tried
in a process of its own, so that a crash there is a finding and not the end.
"""

import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from napari_flag.cache import cache_folder
from napari_flag.errors import UserError
from napari_flag.files import read_text, sha256_of
from napari_flag.formatting import data_size

if TYPE_CHECKING:
    from napari_flag.encoders.foundation.hub import HuggingFace


State: TypeAlias = Literal["good", "warning", "bad"]

PACKAGES: Final = ("napari-flag", "torch", "timm", "numpy", "scipy", "anndata", "zarr", "tifffile")
BINDINGS: Final = ("PyQt6", "PySide6", "PyQt5", "PySide2")
SUMS: Final = "SHA256SUMS"
"""Beside the bundled weights: what their hashes should be, as ``sha256sum`` writes it."""
WINDOW_S: Final = 60.0

TRY_GL: Final = """
from qtpy.QtGui import QOffscreenSurface, QOpenGLContext
from qtpy.QtWidgets import QApplication
app = QApplication([])
context, surface = QOpenGLContext(), QOffscreenSurface()
surface.create()
made = context.create() and context.makeCurrent(surface)
print("GL", context.format().majorVersion(), context.format().minorVersion(), made)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Parameters
    ----------
    what
        What was checked: "torch".
    state
        "good"; "warning": predictions run, something else may not; "bad": they do not.
    sentence
        What was found and, unless good, what to do.
    """

    what: str
    state: State
    sentence: str


def examine(gated: Sequence[str] | None = None) -> Iterator[Finding]:
    """Run every check, in the order a person would read them.

    Parameters
    ----------
    gated
        Also ask the hub for access to these encoders, to all gated ones when empty; None asks nothing.
    """
    yield check_packages()
    yield check_device()
    yield check_slide_library()
    yield from check_weights(Path(str(files("napari_flag"))) / "weights")
    yield from check_folders()
    yield check_window()
    if gated is not None:
        yield from check_gates(gated)


def check_packages() -> Finding:
    """Name the versions in use."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    missing = [package for package, v in found.items() if not v]
    listed = ", ".join(f"{package} {v}" for package, v in found.items() if v)
    if missing:
        return Finding(
            "packages",
            "bad",
            f"{', '.join(missing)} missing; install napari-flag again with: pip install napari-flag",
        )
    return Finding("packages", "good", f"Python {platform.python_version()}, {listed}")


def check_device() -> Finding:
    """Name the device that ``--device auto`` takes."""
    try:
        from napari_flag.encoders.features import choose_device

        device = choose_device("auto")
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("device", "bad", f"PyTorch does not work ({error}); install it as pytorch.org says.")
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return Finding("device", "good", f"{name}, {data_size(free)} free")
    if device.type != "cpu":
        return Finding("device", "good", f"{device.type} on {platform.processor()}")
    return Finding(
        "device",
        "good",
        f"CPU with {torch.get_num_threads()} threads; PyTorch sees no graphics card, which is fine "
        "for sections of a few thousand spots",
    )


def check_slide_library() -> Finding:
    """Load OpenSlide."""
    try:
        import openslide
    except (ImportError, OSError) as error:
        return Finding(
            "slides",
            "bad",
            f"OpenSlide does not load ({error}); reinstall it with: pip install --force-reinstall "
            "openslide-bin openslide-python",
        )
    return Finding("slides", "good", f"OpenSlide {openslide.__library_version__}")


def check_weights(folder: Path) -> Iterator[Finding]:
    """Compare each bundled weights file with the hash it should have."""
    bundled = sorted(folder.glob("*.safetensors"))
    known = _read_sums(folder / SUMS)
    for name in sorted({path.name for path in bundled} | known.keys()):
        path = folder / name
        if not path.is_file():
            yield Finding("weights", "bad", f"{name} is missing from {folder}; install napari-flag again.")
            continue
        digest = sha256_of(path)
        if name not in known:
            yield Finding(
                "weights",
                "warning",
                f"{name} ({digest[:12]}…) is there, but {SUMS} does not say what its hash should be.",
            )
        elif digest != known[name]:
            yield Finding(
                "weights",
                "bad",
                f"{name} is not the file that was published (sha256 {digest[:12]}…, should be "
                f"{known[name][:12]}…); install napari-flag again.",
            )
        else:
            yield Finding("weights", "good", f"{name} is as published ({digest[:12]}…)")
    if not bundled and not known:
        yield Finding(
            "weights",
            "bad",
            f"There are no weights in {folder}; install napari-flag again, or import some with: "
            "napari-flag weights import FILE.safetensors",
        )


def check_gates(names: Sequence[str], hub: "HuggingFace | None" = None) -> Iterator[Finding]:
    """Ask the hub, by a HEAD request each, whether encoders may be downloaded with this account.

    Parameters
    ----------
    names
        Encoders that are needed; without any, all gated ones are asked for, and a closed gate is
        no more than a note.
    hub
        The hub; None takes huggingface.co.
    """
    from napari_flag.encoders.foundation.hub import check_access, find_weights
    from napari_flag.encoders.registry import find_encoder, list_encoders

    rows = [find_encoder(name) for name in names] or [row for row in list_encoders() if row.gated]
    for row in rows:
        if (found := find_weights(row, hub=hub)) is not None:
            yield Finding(row.name, "good", f"{row.title} is on this computer ({found.where})")
            continue
        try:
            _, size = check_access(row, hub)
        except UserError as error:
            yield Finding(row.name, "bad" if names else "warning", str(error))
        else:
            much = f" ({data_size(size)})" if size else ""
            yield Finding(row.name, "good", f"{row.title} may be downloaded{much}; licence: {row.licence}")


def _read_sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows = (line.split() for line in read_text(path).splitlines())
    return {row[1].lstrip("*"): row[0] for row in rows if len(row) == 2}


def check_folders() -> Iterator[Finding]:
    """Try to write where pyramids, features and imported weights are kept."""
    from platformdirs import user_data_path

    for what, folder in (
        ("cache", cache_folder()),
        ("imported weights", user_data_path("napari-flag")),
    ):
        yield check_folder(what, folder)


def check_folder(what: str, folder: Path) -> Finding:
    """Try to write into `folder`, or into the nearest folder above it that exists."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            return Finding(what, "good", f"{folder} can be written")
    except OSError as error:
        return Finding(
            what,
            "warning",
            f"{folder} cannot be written ({error.strerror}), so nothing can be kept there; make it "
            "writable or set XDG_CACHE_HOME and XDG_DATA_HOME to folders that are.",
        )


def check_window() -> Finding:
    """Look for napari, a Qt binding and a display, and try OpenGL in a process of its own."""
    if importlib.util.find_spec("napari") is None:
        return Finding("napari", "warning", 'not there; for the docks: pip install "napari-flag[all]"')
    here = f"napari {version('napari')}"
    binding = next((name for name in BINDINGS if importlib.util.find_spec(name)), None)
    if binding is None:
        return Finding(
            "napari",
            "warning",
            f"{here} without a window toolkit, so it cannot open; for the docks: pip install "
            '"napari-flag[all]"',
        )
    here += f" on {binding}"
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Finding(
            "napari",
            "warning",
            f"{here}, but there is no display, so the docks cannot open; the command line works",
        )
    return _try_gl(here)


def _try_gl(here: str) -> Finding:
    try:
        tried = subprocess.run(
            [sys.executable, "-c", TRY_GL],
            capture_output=True,
            text=True,
            timeout=WINDOW_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding("napari", "warning", f"{here}, but opening a window took over a minute")
    made = next((line for line in tried.stdout.splitlines() if line.startswith("GL ")), "").split()
    if len(made) == 4 and made[3] == "True":
        return Finding("napari", "good", f"{here}, OpenGL {made[1]}.{made[2]}")
    last = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding(
        "napari",
        "warning",
        f"{here}, but OpenGL does not work ({last}), so the docks may not open; install the "
        "graphics driver, on Debian or Ubuntu: sudo apt-get install libgl1 libegl1",
    )
