"""How long the event loop is held at a time: an instrument for benchmarks with a window.

A stretch is one action, timer, queued signal or event.  Drawing with OpenGL is taken off it, since here a
processor does the work of a graphics card.  A thread looks at the main thread's stack meanwhile.
"""

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QWidget

PATIENCE_S: Final = 600.0
QUIET_S: Final = 0.5
"""An action is over once nothing has happened for so long and no job runs; longer than any timer of ours."""
LOOK_EVERY_S: Final = 0.004
SHORT_S: Final = 0.03
"""Stretches shorter than this are not looked into."""
OUR_ROOMS: Final = ("gui.", "layers.", "analysis.", "statistics.", "slides.", "inputs")
COMPOSING: Final = (QEvent.Type.UpdateRequest, QEvent.Type.Expose)
"""Events in which Qt composes the window, canvases among it."""
OURSELVES: Final = ("__main__:", "benchmarks.")
"""Modules that measure, left out of stacks."""


@dataclass(slots=True)
class Stretch:
    """One stretch in which the event loop was held: seconds, drawing left out, and where they went."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    what: str = ""
    stacks: Counter[str] = field(default_factory=Counter)
    calls: set[str] = field(default_factory=set)
    """Which of `REPORTED` happened in it."""


class Clock:
    """Processor and wall time spent in one kind of call of the main thread, however nested."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self._depth = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add what the block takes."""
        if self._depth or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._depth += 1
        cpu, wall = time.thread_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu_s += time.thread_time() - cpu
            self.wall_s += time.perf_counter() - wall
            self._depth -= 1


class Watcher:
    """Measures stretches of the main thread, and looks at its stack meanwhile.

    Attributes
    ----------
    drawing
        What is taken off each stretch.
    stretches
        Those since `reset`, that took longer than `SHORT_S`.
    longest
        The one of all since `reset` that took most processor time.
    """

    def __init__(self) -> None:
        self.drawing = Clock()
        self.stretches: list[Stretch] = []
        self.longest = Stretch()
        self._depth = 0
        self._looking: Stretch | None = None
        self._main = threading.main_thread().ident
        threading.Thread(target=self._look, daemon=True).start()

    def reset(self) -> None:
        """Forget all stretches."""
        self.stretches = []
        self.longest = Stretch()

    @contextmanager
    def stretch(self, what: str) -> Iterator[None]:
        """Measure the block as one stretch; within another it is part of that one."""
        if self._depth:
            yield
            return
        self._depth += 1
        found = Stretch(what=what)
        before = (self.drawing.cpu_s, self.drawing.wall_s)
        cpu, wall = time.thread_time(), time.perf_counter()
        self._looking = found
        try:
            yield
        finally:
            self._looking = None
            self._depth -= 1
            found.cpu_s = time.thread_time() - cpu - (self.drawing.cpu_s - before[0])
            found.wall_s = time.perf_counter() - wall - (self.drawing.wall_s - before[1])
            if found.cpu_s > self.longest.cpu_s:
                self.longest = found
            if max(found.cpu_s, found.wall_s) > SHORT_S:
                self.stretches.append(found)

    def note(self, call: str) -> None:
        """Note that napari was asked for `call` in the stretch that is running."""
        if self._looking is not None and threading.current_thread() is threading.main_thread():
            self._looking.calls.add(call)

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            looking, frame = self._looking, sys._current_frames().get(self._main or 0)
            if looking is None or frame is None or self.drawing._depth:
                continue
            stack = []
            while frame is not None:
                module, code = frame.f_globals.get("__name__", "?"), frame.f_code
                stack.append(f"{module.removeprefix('napari_flag.')}:{code.co_name}:{frame.f_lineno}")
                frame = frame.f_back
            looking.stacks[";".join(at for at in reversed(stack) if not at.startswith(OURSELVES))] += 1


class WatchedApplication(QApplication):
    """An application whose event loop is watched."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__([])
        self._watcher = watcher
        self._in_widget = Clock()
        self._canvases: dict[int, bool] = {}

    def notify(self, receiver: QObject | None, event: QEvent | None) -> bool:
        """Deliver `event` as a stretch of its own, or as part of the one that caused it."""
        if event is None or receiver is None:
            return bool(super().notify(receiver, event))
        kind = event.type()
        if kind in COMPOSING and isinstance(receiver, QWidget) and not self._watcher.drawing._depth:
            return self._compose(receiver, event)
        if kind == QEvent.Type.Paint and not self._is_canvas(receiver):
            with self._in_widget.running(), self._watcher.stretch("paint"):
                return bool(super().notify(receiver, event))
        with self._watcher.stretch(f"{type(receiver).__name__} {kind.name}"):
            return bool(super().notify(receiver, event))

    def _compose(self, receiver: QObject, event: QEvent) -> bool:
        """Count what widgets paint in `event`, and what Python does in canvases; take off the rest."""
        drawing, painting = self._watcher.drawing, self._in_widget
        with self._watcher.stretch("compose"):
            clocks = (drawing, painting, DRAWING)
            before = [second for clock in clocks for second in (clock.cpu_s, clock.wall_s)]
            cpu, wall = time.thread_time(), time.perf_counter()
            done = bool(super().notify(receiver, event))
            ours_cpu = painting.cpu_s - before[2] + DRAWING.cpu_s - before[4]
            ours_wall = painting.wall_s - before[3] + DRAWING.wall_s - before[5]
            whole_cpu, whole_wall = time.thread_time() - cpu, time.perf_counter() - wall
            drawing.cpu_s = before[0] + max(whole_cpu - ours_cpu, 0.0)
            drawing.wall_s = before[1] + max(whole_wall - ours_wall, 0.0)
        return done

    def _is_canvas(self, widget: QObject) -> bool:
        return type(widget).__name__ == "CanvasBackendDesktop"


DRAWING: Final = Clock()
"""What napari does of its own before it draws: placing and slicing layers (`VispyCanvas.on_draw`)."""


def watch_drawing(watcher: Watcher) -> None:
    """Take the drawing of scenes, and the queue of GL commands, off what is measured."""
    from napari._vispy.canvas import VispyCanvas
    from vispy.gloo.glir import GlirQueue
    from vispy.scene import SceneCanvas

    def wrap(owner: Any, name: str, clock: Clock) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            with clock.running():
                return function(*args, **options)

        setattr(owner, name, timed)

    wrap(SceneCanvas, "_draw_scene", watcher.drawing)
    wrap(GlirQueue, "flush", watcher.drawing)
    wrap(VispyCanvas, "on_draw", DRAWING)


REPORTED: Final = ("add slide", "add map", "add shapes", "remove layer", "make canvas")
"""What is noted of each stretch: that of napari which cannot be divided."""


def watch_layers(watcher: Watcher) -> None:
    """Note in which stretches layers are added and removed, and canvases made."""
    from napari.components.layerlist import LayerList
    from napari.layers import Shapes
    from napari.qt import QtViewer

    insert, delete, make = LayerList.insert, LayerList.__delitem__, QtViewer.__init__

    def noted_insert(layers: Any, index: int, layer: Any) -> None:
        watcher.note(
            "add shapes"
            if isinstance(layer, Shapes)
            else "add slide"
            if getattr(layer, "multiscale", False)
            else "add map"
        )
        insert(layers, index, layer)

    def noted_delete(layers: Any, key: Any) -> None:
        watcher.note("remove layer")
        delete(layers, key)

    def noted_make(canvas: Any, *args: Any, **options: Any) -> None:
        watcher.note("make canvas")
        make(canvas, *args, **options)

    LayerList.insert, LayerList.__delitem__ = noted_insert, noted_delete  # type: ignore[method-assign]
    QtViewer.__init__ = noted_make  # type: ignore[method-assign]


class Doing:
    """Does one thing at a time, and keeps what it took.

    Parameters
    ----------
    watcher
        What measures.

    Attributes
    ----------
    found
        Name of an action → the longest stretch of each time it was done.
    """

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.found: dict[str, list[Stretch]] = {}
        self.every: dict[str, list[Stretch]] = {}
        """All stretches above `SHORT_S`, and the longest."""

    def do(self, name: str, act: Callable[[], Any]) -> Any:
        """Act, wait until all is at rest, and keep the longest stretch under `name`."""
        gc.collect()
        self.watcher.reset()
        with self.watcher.stretch("the action itself"):
            done = act()
        self.settle()
        self.found.setdefault(name, []).append(self.watcher.longest)
        self.every.setdefault(name, []).extend([*self.watcher.stretches, self.watcher.longest])
        return done

    def settle(self) -> None:
        """Let the event loop run until nothing happens any more."""
        from napari_flag.gui.jobs import Job

        end, quiet_since = time.monotonic() + PATIENCE_S, time.monotonic()
        while time.monotonic() - quiet_since < QUIET_S:
            seen = len(self.watcher.stretches)
            QApplication.processEvents()
            time.sleep(0.002)
            if Job._running or len(self.watcher.stretches) != seen:
                quiet_since = time.monotonic()
            if time.monotonic() > end:
                raise TimeoutError("the pages did not come to rest")


def where(stretch: Stretch) -> str:
    """Return the innermost function of ours that most of `stretch` was spent in."""
    ours: Counter[str] = Counter()
    for stack, count in stretch.stacks.items():
        inner = [at for at in stack.split(";") if at.startswith(OUR_ROOMS)]
        ours[inner[-1].rsplit(":", 1)[0] if inner else "napari, Qt"] += count
    if not ours:
        return ""
    name, count = ours.most_common(1)[0]
    return f"{name} ({100 * count // sum(ours.values())} %)"


def print_stacks(found: dict[str, list[Stretch]], limit_ms: float, lines: int = 14) -> None:
    """Print, for every action above half of `limit_ms`, where most of its longest stretch was spent."""
    for name, stretches in found.items():
        worst = max(stretches, key=lambda s: s.cpu_s)
        if worst.cpu_s < limit_ms / 2e3:
            continue
        print(
            f"\n== {name}: {1e3 * worst.cpu_s:.0f} ms cpu, {1e3 * worst.wall_s:.0f} ms wall, in {worst.what}"
        )
        inclusive: Counter[str] = Counter()
        for stack, count in worst.stacks.items():
            for at in set(stack.split(";")):
                inclusive[at] += count
        total = max(sum(worst.stacks.values()), 1)
        for at, count in inclusive.most_common(lines * 3):
            print(f"   {100 * count // total:3d} %  {at}")
