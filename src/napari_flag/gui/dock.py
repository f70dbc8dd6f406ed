"""What every dock is built on: the session, messages, jobs with their progress strip, and closing."""

import inspect
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_flag.analysis.pathways import read_gmt
from napari_flag.errors import UserError
from napari_flag.gui.controls.file_filters import GENE_SET_FILES
from napari_flag.gui.controls.forms import MessageList, ask_open
from napari_flag.gui.jobs import Jobs, ProgressStrip
from napari_flag.gui.session import Session
from napari_flag.layers import slide_layers
from napari_flag.progress import one_step

SETTLE_MS: Final = 200
"""Drawing a shape sends many events; `shapesEdited` is emitted once, this long after the last."""

NOTHING_YET: Final = "No prediction yet. Use the Predict page, or open a prediction (.h5ad) with File › Open."


class Docked(QWidget):
    """A widget that napari docks, and that closes with its dock: napari only takes its parent away then."""

    _docked = False  # Qt sends events from within its own constructor

    def event(self, event: QEvent | None) -> bool:
        """Close when napari takes the dock's parent away."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self._docked and self.parent() is None:
                self.close()
                self.deleteLater()
            self._docked = self.parent() is not None
        return super().event(event)


class Dock(Docked):
    """A widget that napari docks, and that is deleted when its dock is closed.

    napari only takes the parent away then; the widget would live on unseen, compute for every new
    prediction and keep its keys.  A closed dock cancels its jobs and disconnects from the session.

    Parameters
    ----------
    napari_viewer
        The viewer; gene, gene set and region are shared with its other docks through `Session`.

    Attributes
    ----------
    jobs
        The dock's long work.
    messages
        Errors, warnings and notices.
    """

    hide_strip = True
    """Whether the progress strip goes while nothing runs."""
    sleeps = True
    """Whether the dock follows the session only while it can be seen, where it is a page of several."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.session = Session.of(napari_viewer)
        self.messages = MessageList()
        self.jobs = Jobs(self, self.messages.show_error)
        self._awake = True
        self._missed: dict[Callable[..., Any], tuple[Any, ...]] = {}
        self._undo: list[Callable[[], Any]] = []
        self._finish: list[Callable[[], Any]] = []
        undo = self._undo
        self.destroyed.connect(lambda: run_all(undo))

    @cached_property
    def strip(self) -> ProgressStrip:
        """What shows the dock's long work."""
        return ProgressStrip(self.jobs, self, hide_when_idle=self.hide_strip)

    def column(self) -> QVBoxLayout:
        """Return the column that the dock's parts are laid out in, as narrow as napari's own docks."""
        box = QVBoxLayout(self)
        box.setContentsMargins(6, 6, 6, 6)
        box.setSpacing(4)
        self.setMinimumWidth(300)
        return box

    def notify(self, text: str) -> None:
        """Show a notice among the messages."""
        self.messages.add("notice", text)

    def write_file(self, path: Path, write: Callable[[], Path | None]) -> None:
        """Call `write`, then say where the file is (the path returned, else `path`) or what went wrong."""
        self.messages.clear()
        try:
            written = write() or path
        except UserError as error:
            self.messages.show_error(error)
        else:
            self.notify(f"Saved {written}.")

    # --- connections -----------------------------------------------------------------------------
    def listen(self, signal: Any, slot: Callable[..., Any], *, always: bool = False) -> None:
        """Connect a signal of the session (or an event of the viewer) until the dock is closed.

        While the dock sleeps the last call waits, unless `always`.
        """
        takes = _positional(slot)

        def call(*given: Any) -> None:
            if self._awake or always:
                slot(*given[:takes])
            else:
                self._missed.pop(slot, None)
                self._missed[slot] = given[:takes]

        signal.connect(call)
        owners = (self.session, self.session.workspace)  # a signal does not keep its owner alive

        def stop() -> None:
            if all(isalive(owner) for owner in owners):  # type: ignore[no-untyped-call]  # else Qt crashes
                signal.disconnect(call)

        self.when_closed(stop)

    @property
    def at_rest(self) -> bool:
        """Whether the dock shows all it is going to show, and computes nothing."""
        return not self.jobs.active

    @property
    def awake(self) -> bool:
        """Whether the dock follows the session now."""
        return self._awake

    def set_awake(self, awake: bool) -> None:
        """Sleep while another page is shown; on waking up, what was missed is caught up with, once each."""
        self._awake = awake or not self.sleeps
        while self._awake and self._missed:
            slot = next(iter(self._missed))
            slot(*self._missed.pop(slot))

    def ask_sets(self) -> None:
        """Ask for a GMT file, and look for its gene sets."""
        path = ask_open(self, "Gene sets", GENE_SET_FILES)
        if path is not None:
            self.read_sets(path)

    def read_sets(self, path: Path) -> None:
        """Read gene sets in a job, to look for them on every page; what goes wrong is said."""
        self.messages.clear()
        self.jobs.run(
            "read sets",
            one_step("Reading gene sets", read_gmt, path),
            f"Read {path.name}",
            on_result=lambda sets: self.session.set_gene_sets(sets, path),
            on_cancelled=lambda: self.notify("Reading gene sets was cancelled."),
        )

    def when_closed(self, action: Callable[[], Any]) -> None:
        """Call `action` once, when the dock is closed or deleted."""
        self._undo.append(action)

    def when_closing(self, action: Callable[[], Any]) -> None:
        """Call `action` once, when the dock is closed while its widgets are there; not once they are gone."""
        self._finish.append(action)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Cancel the jobs and disconnect from session and viewer."""
        self.jobs.close()
        run_all(self._finish)
        run_all(self._undo)
        super().closeEvent(event)


def _positional(slot: Callable[..., Any]) -> int:
    """Return how many arguments `slot` takes; Qt leaves out those too many."""
    kinds = [parameter.kind for parameter in inspect.signature(slot).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 1
    return sum(
        k in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for k in kinds
    )


def run_all(actions: list[Callable[[], Any]]) -> None:
    """Call each of `actions`, the last first, and forget it."""
    while actions:
        with suppress(TypeError, RuntimeError):  # Qt has disconnected a deleted receiver by itself
            actions.pop()()


def single_shot(parent: QObject, wait_ms: int, action: Any) -> QTimer:
    """Return a timer that calls `action` (or emits it, a signal) once, `wait_ms` after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(wait_ms)
    timer.timeout.connect(action)
    return timer


def in_turn(viewer: Any, parent: QObject, *steps: Callable[[], Any]) -> QTimer:
    """Call each of `steps` in a turn of its own of the event loop, so that none waits for all of them.

    Where `viewer` has no window there is nothing to hold up, and they are called at once.

    Parameters
    ----------
    viewer
        The viewer.
    parent
        With which the steps end that are left; stop the timer that is returned to end them before.
    steps
        Without arguments, in this order.
    """
    timer = QTimer(parent)
    waiting = list(steps)

    def turn() -> None:
        if len(waiting) == 1:
            timer.stop()
        waiting.pop(0)()

    timer.timeout.connect(turn)
    if getattr(viewer, "window", None) is not None:
        timer.start(0)
    else:
        while waiting:
            turn()
    return timer


class ViewerWatch(QObject):
    """Signals for layers coming, going and being renamed, and for shapes being drawn.

    Names are those of pictures and of layers with shapes, which docks list; a map is named after its gene.

    Parameters
    ----------
    dock
        The dock that listens; all connections to napari end with it.
    viewer
        The viewer to watch.
    """

    layersChanged = Signal()
    shapesEdited = Signal()

    def __init__(self, dock: Dock, viewer: Any) -> None:
        super().__init__(dock)
        self._dock, self._viewer = dock, viewer
        self._settle = single_shot(self, SETTLE_MS, self.shapesEdited)
        self._tell = single_shot(self, 0, self.layersChanged)
        self._has_window = getattr(viewer, "window", None) is not None
        self._watched: list[Any] = []
        events = viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered):
            dock.listen(emitter, self._on_layers, always=True)
        self._watch(viewer.layers)
        dock.when_closed(partial(self._watch, ()))

    @property
    def settled(self) -> bool:
        """Whether no edited shape waits to be announced."""
        return not (self._settle.isActive() or self._tell.isActive())

    def _watch(self, layers: Collection[Any]) -> None:
        """Follow pictures and shapes among `layers`, and no others: a removed layer is to be freed."""
        shapes = slide_layers.shapes_layers(layers)
        pictures = [layer for layer in slide_layers.candidates(self._viewer) if layer in layers]
        wanted = [(layer, layer.events.name, self._announce) for layer in (*pictures, *shapes)]
        wanted += [(layer, layer.events.data, self._on_shapes) for layer in shapes]
        known = [emitter for _, emitter, _ in self._watched]
        for _, emitter, slot in wanted:
            if not any(emitter is other for other in known):
                emitter.connect(slot)
        kept = [emitter for _, emitter, _ in wanted]
        for _, emitter, slot in self._watched:
            if not any(emitter is other for other in kept):
                emitter.disconnect(slot)
        self._watched = wanted

    def _on_layers(self, event: Any = None) -> None:
        self._watch(self._viewer.layers)
        self._announce()

    def _announce(self, event: Any = None) -> None:
        if self._has_window:  # once for several layers, and not while napari adds one
            self._tell.start()
        else:
            self.layersChanged.emit()

    def _on_shapes(self, event: Any = None) -> None:
        self._settle.start()
