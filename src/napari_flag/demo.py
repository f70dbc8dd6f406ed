"""The demo: a synthetic slide with known truth, predicted with weights made for such slides.

What needs napari, the prediction too, is in ``gui/demo_window.py``; here are the files, and the virtual
display for machines without one.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from napari_flag.errors import UserError
from napari_flag.simulation import demo_slide, demo_table

WEIGHTS: Final = "demo"
"""Name of the weights trained on other slides of the simulator."""
GENE: Final = "ERBB2"
"""The gene shown first: amplified in some tumour nests of the slide and not in others."""
SCREEN: Final = (1760, 960)
"""Size of the virtual screen in pixels."""
START_S: Final = 20.0
"""How long a virtual display may take to start on a busy machine."""


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo opens; all of it is in the package."""

    slide: Path
    table: Path
    weights: Path


def demo_files() -> DemoFiles:
    """Return the files of the demo.

    Raises
    ------
    UserError
        When one is missing from the installation.
    """
    from napari_flag.model.checkpoint import find_weights

    return DemoFiles(demo_slide(), demo_table(), Path(find_weights(WEIGHTS)))


def has_display() -> bool:
    """Return whether a window can be shown to somebody."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextmanager
def some_display() -> Iterator[None]:
    """Make sure there is a display while the block runs: the real one, or a virtual one (Xvfb).

    Raises
    ------
    UserError
        When there is neither.
    """
    if has_display():
        yield
        return
    server = shutil.which("Xvfb")
    if server is None:
        raise UserError(
            "There is no display here and no virtual one (Xvfb) either, so napari's window cannot "
            "be drawn; install xvfb (Debian, Ubuntu: sudo apt-get install xvfb) or run this on a "
            "desktop."
        )
    width, height = SCREEN
    reading, writing = os.pipe()
    # the server picks a free display number and writes it to `writing`
    command = [server, "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24"]
    process = subprocess.Popen(
        [*command, "-nolisten", "tcp"],
        pass_fds=(writing,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    before = os.environ.get("DISPLAY")
    try:
        os.environ["DISPLAY"] = f":{_display_number(reading)}"
        yield
    finally:
        os.close(reading)
        if before is None:
            os.environ.pop("DISPLAY", None)
        else:
            os.environ["DISPLAY"] = before
        process.terminate()
        process.wait()


def _display_number(pipe: int) -> int:
    from select import select

    ready, _, _ = select([pipe], [], [], START_S)
    answer = os.read(pipe, 16).strip() if ready else b""
    if not answer.isdigit():
        raise UserError(
            "The virtual display (Xvfb) did not start, so napari's window cannot be drawn; start "
            "one yourself and try again: xvfb-run -a napari-flag demo --screenshot demo.png"
        )
    return int(answer)
