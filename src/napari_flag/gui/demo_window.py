"""The demo in napari's window: operates the main dock as a user would."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QEventLoop, QObject, QTimer, Signal

from napari_flag.demo import GENE, DemoFiles, demo_files, has_display, some_display
from napari_flag.errors import UserError
from napari_flag.files import check_writable
from napari_flag.gui.area import open_area
from napari_flag.gui.dock import Dock
from napari_flag.gui.predict.steps import TABLE
from napari_flag.gui.session import Session

if TYPE_CHECKING:
    from napari_flag.gui.predict.predict_dock import PredictDock


CHECK_EVERY_MS: Final = 100
PATIENCE_S: Final = 120.0
"""How long a step before the prediction may take, which is seconds; the prediction takes its time."""
SETTLE_MS: Final = 2500
"""Time for tiles to load and for layers and docks to be painted before the picture is taken."""
WINDOW: Final = (1760, 960)
DEFAULT_PICTURE: Final = "napari-flag-demo.png"


class DemoTour(QObject):
    """Leads the main dock from slide to result, as a user would.

    Parameters
    ----------
    dock
        The main dock of the viewer.
    files
        What to open.
    """

    arrived = Signal()
    """The prediction is there."""
    stopped = Signal(str)
    """The demo cannot continue: the messages of the dock."""

    def __init__(self, dock: "PredictDock", files: DemoFiles) -> None:
        super().__init__(dock)
        self._dock, self._files = dock, files
        self._steps: list[tuple[Callable[[], bool], Callable[[], None]]] = [
            (lambda: bool(dock.model_step.weights), self._open),
            (lambda: dock.section.slide is not None, self._choose_spots),
            (self._is_ready, dock.predict),
            (lambda: dock.session.adata is not None, self.arrived.emit),
        ]
        self._since = time.monotonic()
        self._clock = QTimer(self)
        self._clock.setInterval(CHECK_EVERY_MS)
        self._clock.timeout.connect(self._advance)

    def start(self) -> None:
        """Start to watch the dock and act."""
        self._clock.start()

    def _advance(self) -> None:
        ready, act = self._steps[0]
        if ready():
            self._steps.pop(0)
            self._since = time.monotonic()
            if not self._steps:
                self._clock.stop()
            act()
        elif self._is_stuck():
            self._clock.stop()
            self.stopped.emit(self._messages())

    def _open(self) -> None:
        dock, weights = self._dock, self._files.weights
        dock.model_step.set_weights(dock.model_step.weights, weights)
        dock.load_weights(weights)
        dock.section.open_slide(self._files.slide)

    def _choose_spots(self) -> None:
        self._dock.spots_step.origin.value = TABLE
        self._dock.spots_step.table.set_path(self._files.table)

    def _is_ready(self) -> bool:
        dock = self._dock
        return dock.section.measured is not None and dock.run_panel.predict.isEnabled()

    def _is_stuck(self) -> bool:
        """Whether the prediction ended without a result, or what comes before it does not end."""
        if len(self._steps) == 1:
            return bool(self._dock.run_panel.predict.isEnabled())
        return time.monotonic() - self._since > PATIENCE_S

    def _messages(self) -> str:
        dock = self._dock
        said = [
            text
            for part in (dock.slide_step, dock.spots_step, dock.model_step, dock.run_panel)
            for text in part.messages.texts
        ]
        return " ".join(said) or "The demo does not continue; close it and try again."


def show_result(viewer: Any) -> None:
    """Show the demo's gene, prediction beside truth."""
    area = open_area(viewer, "Genes")
    area.show_side_by_side()
    Session.of(viewer).select_gene(GENE)


def when_docks_rest(viewer: Any, act: Callable[[], None], settle_ms: int = 0) -> None:
    """Call `act` once all docks are at rest, and are so still `settle_ms` later.

    On a busy machine the second canvas comes long after the page that opened it.
    """

    def rest() -> bool:
        return all(dock.at_rest for dock in viewer.window._qt_window.findChildren(Dock))

    def look(rested: bool = False) -> None:
        if not rest():
            QTimer.singleShot(CHECK_EVERY_MS, look)
        elif rested or not settle_ms:
            act()
        else:
            QTimer.singleShot(settle_ms, partial(look, True))

    look()


def open_demo(files: DemoFiles) -> tuple[Any, DemoTour]:
    """Open napari with the demo under way; return the viewer and the tour."""
    import napari

    viewer = napari.Viewer(title="napari-flag demo: synthetic H&E")
    viewer.window.resize(*WINDOW)
    tour = DemoTour(open_area(viewer).predict, files)
    tour.arrived.connect(partial(show_result, viewer))
    tour.start()
    return viewer, tour


def run_demo(screenshot: Path | None = None) -> int:
    """Show the demo, or write a picture of it.

    Parameters
    ----------
    screenshot
        Where to write a PNG of the window, which is then closed.  None keeps the window open for
        the user; without any display the picture goes to ``napari-flag-demo.png`` instead.

    Returns
    -------
    Exit code, 0.

    Raises
    ------
    UserError
        When a file is missing, the picture cannot be written, or there is no display at all.
    """
    files = demo_files()
    if screenshot is not None:
        screenshot = screenshot.expanduser().absolute()
        check_writable(screenshot)
    if has_display():
        _show_window(files, screenshot)
    else:
        screenshot = screenshot or Path(DEFAULT_PICTURE).absolute()
        check_writable(screenshot)
        _draw_elsewhere(screenshot)
    if screenshot is not None:
        sys.stdout.write(f"The demo's picture is in {screenshot}\n")
    return 0


def _draw_elsewhere(screenshot: Path) -> None:
    """Draw the window on a virtual display, in a process that ends before the display does."""
    sys.stdout.write("There is no display here, so the demo is drawn on a virtual one.\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "napari_flag", "demo", "--screenshot", str(screenshot)]
    with some_display():
        child = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if child.returncode == 0 and screenshot.is_file():
        return
    last = (child.stderr.strip().splitlines() or ["no reason given"])[-1]
    if child.returncode == 2:  # a message for the user
        raise UserError(last)
    raise RuntimeError(f"the demo's window ended with code {child.returncode}: {last}")


def _show_window(files: DemoFiles, screenshot: Path | None) -> None:
    import napari

    viewer, tour = open_demo(files)
    if screenshot is None:
        napari.run()
        return
    wait = QEventLoop()
    problems: list[str] = []
    tour.arrived.connect(lambda: when_docks_rest(viewer, wait.quit, SETTLE_MS))
    tour.stopped.connect(problems.append)
    tour.stopped.connect(wait.quit)
    wait.exec()
    try:
        if problems:
            raise UserError(f"The demo could not go on: {problems[0]}")
        viewer.window.screenshot(str(screenshot), canvas_only=False, flash=False)
    finally:
        viewer.close()
