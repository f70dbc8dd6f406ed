"""The longest freeze of every action: the event loop held, drawing left out, with all pages opened.

A freeze is one stretch in which the event loop does not return: the action itself, a timer, a queued signal,
an event.  Drawing with OpenGL is taken off, since here a processor does the work of a graphics card: vispy's
drawing of a scene, its queue of GL commands, and Qt's composing of the window.  What napari computes on the
way, slices, textures and widgets among it, counts.  The main figure is the processor time of the main thread;
wall time stands beside it, and is larger where the machine is busy.  Beside each action stands where most of
its longest stretch was spent, by a thread that looks at the main thread's stack.

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.freezes [--spots 50000] [--json OUT]

Without ``--spots`` the bundled slide is predicted with the demo's weights; with it a section of that many
spots and ``--genes`` genes on a slide of its own is made, whose numbers are smooth patterns.  A copy of it is
the second slide.  Predictions are prepared (`layers.ahead`) before they are shown, as the jobs do that make
and read them.  Napari's own share is what its bare calls take for the same layers in this process, before
the plugin is opened: one picture added, one layer removed, one canvas.  What is left is of our making.

The FLAG area is opened, and each of its pages made, before anything else of the plugin is imported and before
a prediction is read or made: as in a person's window, the first click pays for what it imports.  Napari's own
share is taken before, with which napari imports a part of that; ``--opening`` measures these two alone, in a
window where nothing was ever shown, and takes nothing off:

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.freezes --opening
"""

import argparse
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import QEvent, QObject, QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_flag import keys
from napari_flag.gui.controls.gl_context import keep_context
from napari_flag.progress import finish

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.gui.area import FlagArea
    from napari_flag.gui.workspace import SlideState

SEED: Final = 1
LIMIT_MS: Final = 100.0
PATIENCE_S: Final = 600.0
QUIET_S: Final = 0.5
"""An action is over once nothing has happened for so long and no job runs; longer than any timer of ours."""
LOOK_EVERY_S: Final = 0.004
FLOOR_PX: Final = 2048
"""Side of the pictures napari alone is given: `layers.raster.LONGEST_PX`, not imported before the area."""
SHORT_S: Final = 0.03
"""Stretches shorter than this are not looked into."""
OUR_ROOMS: Final = ("gui.", "layers.", "analysis.", "statistics.", "slides.", "inputs")
COMPOSING: Final = (QEvent.Type.UpdateRequest, QEvent.Type.Expose)
"""Events in which Qt composes the window, canvases among it."""


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

    def tell(self, call: str) -> None:
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
            looking.stacks[";".join(at for at in reversed(stack) if not at.startswith("__main__:"))] += 1


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
        watcher.tell(
            "add shapes"
            if isinstance(layer, Shapes)
            else "add slide"
            if getattr(layer, "multiscale", False)
            else "add map"
        )
        insert(layers, index, layer)

    def noted_delete(layers: Any, key: Any) -> None:
        watcher.tell("remove layer")
        delete(layers, key)

    def noted_make(canvas: Any, *args: Any, **options: Any) -> None:
        watcher.tell("make canvas")
        make(canvas, *args, **options)

    LayerList.insert, LayerList.__delitem__ = noted_insert, noted_delete  # type: ignore[method-assign]
    QtViewer.__init__ = noted_make  # type: ignore[method-assign]


# --- what is opened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Material:
    """A slide's file, its table of spots where it has one, and its prediction."""

    slide: Path
    table: Path | None
    adata: "AnnData"

    def copy(self, folder: Path) -> "Material":
        """Return the same as another slide."""
        path = folder / f"second{self.slide.suffix}"
        shutil.copyfile(self.slide, path)
        adata = self.adata.copy()
        adata.uns[keys.PROVENANCE] = {**adata.uns[keys.PROVENANCE], keys.SLIDE_NAME: path.stem}
        return Material(path, self.table, adata)


def bundled() -> Material:
    """Return the bundled slide, predicted with the weights of the demo."""
    from napari_flag.demo import demo_files
    from napari_flag.inputs import predict_inputs, prepare
    from napari_flag.model.checkpoint import Checkpoint

    files = demo_files()
    checkpoint = Checkpoint.load(files.weights)
    inputs = finish(prepare(files.slide, checkpoint, spots=files.table))
    with inputs.slide:
        return Material(files.slide, files.table, finish(predict_inputs(inputs, checkpoint)))


PITCH_PX: Final = 48.0


def made(n_spots: int, n_genes: int, folder: Path) -> Material:
    """Return a hexagonal section with a smooth pattern per gene, and a slide as large as it is.

    The slide is the bundled picture, side by side until it is large enough, in tiles and with a pyramid.
    """
    from benchmarks.gene_click import make_prediction

    adata = make_prediction(n_spots, n_genes)
    adata.obsm[keys.SPATIAL] = adata.obsm[keys.SPATIAL] * (PITCH_PX / 200.0) + PITCH_PX
    width, height = (int(v) for v in adata.obsm[keys.SPATIAL].max(axis=0) + PITCH_PX)
    provenance = adata.uns[keys.PROVENANCE]
    provenance[keys.MPP] = 100.0 / PITCH_PX
    provenance[keys.SLIDE_NAME] = "large"
    provenance[keys.SLIDE_WIDTH], provenance[keys.SLIDE_HEIGHT] = width, height
    path = folder / "large.tif"
    write_slide(path, width, height, 100.0 / PITCH_PX)
    return Material(path, write_table(adata, folder / "spots.tsv"), adata)


def write_slide(path: Path, width: int, height: int, mpp: float) -> None:
    """Write a pyramid of the bundled picture repeated."""
    import tifffile

    from napari_flag.simulation import demo_slide
    from napari_flag.slides.slide import open_slide

    with open_slide(demo_slide()) as slide:
        part = slide.read_region(0, 0, *slide.size)
    down, across = -(-height // part.shape[0]), -(-width // part.shape[1])
    whole = np.tile(part, (down, across, 1))[:height, :width]
    levels = [whole]
    while max(levels[-1].shape[:2]) > 1000:
        levels.append(levels[-1][::2, ::2])
    per_cm = 1e4 / mpp
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                np.ascontiguousarray(level),
                photometric="rgb",
                tile=(256, 256),
                compression="zlib",
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=1 if number else 0,
                resolution=(per_cm / 2**number, per_cm / 2**number),
                resolutionunit="CENTIMETER",
            )


def write_table(adata: "AnnData", path: Path) -> Path:
    """Write the spots as a table with pixels."""
    import pandas as pd

    xy = adata.obsm[keys.SPATIAL]
    pd.DataFrame(
        {
            "x": adata.obs[keys.ARRAY_COL],
            "y": adata.obs[keys.ARRAY_ROW],
            "pixel_x": xy[:, 0],
            "pixel_y": xy[:, 1],
        }
    ).to_csv(path, sep="\t", index=False)
    return path


# --- actions -------------------------------------------------------------------------------------


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


class Floor(Doing):
    """What napari takes alone, without the plugin: each thing once to load what it needs, then measured."""

    def run(self, viewer: Any, side_px: int, rounds: int) -> dict[str, float]:
        """Return the median processor time of each, ms.

        Parameters
        ----------
        viewer
            An empty napari viewer with its window shown.
        side_px
            Of the pictures.
        rounds
            How often each is done.
        """
        keep_context(viewer.layers, viewer.window._qt_viewer.canvas)  # else napari alone may crash
        picture = np.zeros((side_px, side_px), np.float32)
        self._once(viewer, picture)
        gc.collect()
        gc.freeze()  # as the plugin does, or removals alone would look dearer than they are with it
        try:
            for _ in range(rounds):
                self._once(viewer, picture)
        finally:
            gc.unfreeze()
        return {
            name: round(1e3 * float(np.median([s.cpu_s for s in all_[1:]])), 1)
            for name, all_ in self.found.items()
        }

    def _once(self, viewer: Any, picture: Any) -> None:
        from napari.components import ViewerModel
        from napari.qt import QtViewer

        window = viewer.window
        slide = self.do("add slide", lambda: self._add_slide(viewer, picture.shape))
        layer = self.do("add map", lambda: viewer.add_image(picture, contrast_limits=(0, 1)))
        layer.colorbar.visible = True
        self.settle()
        self.do("repaint map", lambda: setattr(layer, "data", picture + 1))
        self.do("place map", lambda: setattr(layer, "scale", (2, 2)))
        self.do("hide map", lambda: setattr(layer, "visible", False))
        self.do("show map", lambda: setattr(layer, "visible", True))
        self.do("hide slide", lambda: setattr(slide, "visible", False))
        self.do("show slide", lambda: setattr(slide, "visible", True))
        self.do("add shapes", lambda: viewer.add_shapes(ndim=2))
        viewer.layers.pop()
        canvas = self.do("make canvas", lambda: QtViewer(ViewerModel()))
        dock = self.do("dock canvas", lambda: window.add_dock_widget(canvas, name="canvas"))
        self._add_slide(canvas.viewer, picture.shape)
        canvas.viewer.add_image(picture, contrast_limits=(0, 1))
        self.settle()
        self.do("close canvas", lambda: (window.remove_dock_widget(dock), canvas.close()))
        dock = self.do("add dock", lambda: window.add_dock_widget(QWidget(), name="dock"))
        window.remove_dock_widget(dock)
        viewer.layers.remove(layer)
        self.do("remove layer", lambda: viewer.layers.remove(slide))

    def _add_slide(self, viewer: Any, shape: tuple[int, int]) -> Any:
        rgb = np.zeros((*shape, 3), np.uint8)
        return viewer.add_image([rgb, rgb[::4, ::4]], rgb=True, multiscale=True)


SWITCH: Final = ("hide slide", "hide map", "show slide", "repaint map")
FLOORS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "open the FLAG area": (("add dock",),),
    "open a slide": (("add slide",),),
    "read its spots": (("add map",),),
    "show a prediction": (("add map",),),
    "open Side by side": (("make canvas",), ("dock canvas",), ("add slide",), ("add map",)),
    "switch slides": (SWITCH,),
    "click a gene": (("repaint map",),),
    "change the quantity": (("repaint map",),),
    "local Moran's I": (("add map",),),
    "click a gene, local Moran's I": (("repaint map",),),
    "clusters": (("repaint map",),),
    "click a gene, clusters": (("repaint map",),),
    "back to the gene": (("hide map", "show map"),),
    "start a polygon": (("add shapes",),),
    "close Side by side": (("close canvas",),),
    "remove a slide": (SWITCH, ("remove layer",), ("add slide",)),  # the next one's, on the second canvas
    "show it again": (SWITCH, ("add slide",), ("add shapes",)),
    "take a slide out": (SWITCH, ("remove layer",), ("add slide",)),
}
"""Action → the calls of napari that it cannot do without; each group may come in a turn of its own."""
PLACED: Final = "set µm/px"
"""The action that places every layer of a slide, and of its copies on the second canvas."""


class Tour(Doing):
    """Does what a person does, in one window with all pages opened.

    Parameters
    ----------
    viewer
        A napari viewer with its window shown.
    watcher
        What measures.
    """

    def __init__(self, viewer: Any, watcher: Watcher) -> None:
        super().__init__(watcher)
        self.placed = 0
        self.viewer = viewer
        self.window = viewer.window._qt_window
        self.area = self.do("open the FLAG area", self._open_area)
        self.session = self.area.session
        from napari_flag.gui.area import PAGES  # imported by the action before this line

        self.pages = tuple(PAGES)
        for page in self.pages:
            self.do("make a page", lambda page=page: self.area.show_page(page))
        self.area.show_page("Genes")

    def run(self, materials: Sequence[Material], rounds: int) -> None:
        """Do everything with two slides, in the order a person would."""
        states = [self._arrive(material) for material in materials]
        self.do("open Side by side", self.area.show_side_by_side)
        random = np.random.default_rng(SEED)
        for number in range(rounds):
            self.do("switch slides", lambda: self._show(states[0]))
            self.do("switch slides", lambda: self._show(states[1]))
            self._look_at_genes(random)
            self._look_at_clusters(random)
            self.draw_polygon()
            self.area.show_page("Genes")
            self.placed = self._count_layers(states[1])
            self.do(PLACED, lambda n=number: self._set_mpp(0.9 + 0.02 * n))
            self.do("close Side by side", self._close_side_by_side)
            self.do("open Side by side", self.area.show_side_by_side)
            self.do("remove a slide", lambda: self.viewer.layers.remove(states[1].layer))
            self.do("show it again", lambda: self._show(states[1]))
        self.do("take a slide out", lambda: self.session.workspace.remove(states[1]))

    def _open_area(self) -> "FlagArea":
        from napari_flag.gui.area import open_area

        return open_area(self.viewer)

    def _arrive(self, material: Material) -> "SlideState":
        from napari_flag.layers import ahead

        opener, section = self.area.predict.opener, self.area.predict.section
        self.do("open a slide", lambda: opener.open([material.slide]))
        state = self.session.state
        if material.table is not None:
            self.do("read its spots", lambda: section.read_spots(material.table))
        finish(ahead.prepare(material.adata))
        self.do("show a prediction", lambda: self.session.set_prediction(material.adata, state.slide))
        return state

    def _look_at_genes(self, random: np.random.Generator) -> None:
        from napari_flag.layers.gene_values import Quantity

        genes = self.session.adata.var_names
        for page in self.pages:
            self.do(f"turn to {page}", lambda page=page: self.area.show_page(page))
            gene = str(random.choice(genes))
            self.do("click a gene", lambda gene=gene: self.session.select_gene(gene))
        values = self.session.gene_map.values
        quantities = [q for q in Quantity if values.why_not(q) is None]
        for quantity in [*quantities[1:], quantities[0]]:
            self.do("change the quantity", lambda q=quantity: self.session.show_quantity(q))

    def _look_at_clusters(self, random: np.random.Generator) -> None:
        from napari_flag.layers.local_map import MapKind

        self.area.show_page("Spatial")
        self.settle()
        gene, other = random.choice(self.session.adata.var_names, 2, replace=False).tolist()
        self.do("local Moran's I", lambda: self.session.set_map_kind(MapKind.LOCAL))
        self.do("click a gene, local Moran's I", lambda: self.session.select_gene(gene))
        self.do("clusters", lambda: self.session.set_map_kind(MapKind.CLASSES))
        self.do("click a gene, clusters", lambda: self.session.select_gene(other))
        self.do("back to the gene", lambda: self.session.set_map_kind(MapKind.EXPRESSION))

    def draw_polygon(self) -> None:
        """Draw a polygon with the mouse on the Regions page."""
        dock = self.area.show_page("Regions")
        self.settle()
        canvas = self.viewer.window._qt_viewer.canvas.native
        middle = QPoint(canvas.width() // 2, canvas.height() // 2)
        self.do("start a polygon", lambda: dock._draw("add_polygon"))
        left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        places = [middle + QPoint(int(60 * np.cos(a)), int(60 * np.sin(a))) for a in np.arange(6) * np.pi / 3]

        def corner(place: QPoint) -> None:
            QTest.mouseMove(canvas, place)
            QTest.mouseClick(canvas, left, none, place)

        for place in places:
            self.do("corner of a polygon", lambda place=place: corner(place))
        self.do("end a polygon", lambda: QTest.mouseDClick(canvas, left, none, places[0]))
        layer = self.viewer.layers.selection.active
        if layer is None or not len(getattr(layer, "data", ())):
            raise RuntimeError("no polygon was drawn")
        layer.mode = "pan_zoom"
        self.settle()

    def _count_layers(self, state: "SlideState") -> int:
        """Return how many layers a slide has on both canvases."""
        from napari_flag.gui.side_by_side_dock import SideBySideDock

        second = self.window.findChild(SideBySideDock)
        return len(self.session.workspace.layers_of(state)) + len(second.canvas.model.layers)

    # --- the plugin's own ways in ----------------------------------------------------------------
    def _show(self, state: "SlideState") -> None:
        self.session.workspace.show(state)

    def _set_mpp(self, mpp: float) -> None:
        self.area.predict.section.set_mpp(mpp, "set by hand")

    def _close_side_by_side(self) -> None:
        from napari_flag.gui.area import SIDE_BY_SIDE

        docks = self.viewer.window.dock_widgets
        for title in [title for title in docks if title.startswith(SIDE_BY_SIDE)]:
            self.viewer.window.remove_dock_widget(docks[title])


# --- the report ----------------------------------------------------------------------------------


def share_of(name: str, stretch: Stretch, floors: dict[str, float], placed: int) -> float:
    """Return what napari alone takes, ms, for what an action needs of it in one of its stretches."""
    groups = (("place map",) * placed,) if name == PLACED else FLOORS.get(name, ())
    happened = [group for group in groups if all(c in stretch.calls for c in group if c in REPORTED)]
    return max((sum(floors.get(part, 0.0) for part in group) for group in happened), default=0.0)


def row_of(name: str, tour: Tour, floors: dict[str, float]) -> dict[str, Any]:
    """Return one row: the longest stretch of an action over its repetitions, and that which is most ours."""
    stretches = tour.found[name]
    shares = [share_of(name, stretch, floors, tour.placed) for stretch in tour.every[name]]
    ours = [1e3 * stretch.cpu_s - share for stretch, share in zip(tour.every[name], shares, strict=True)]
    most = int(np.argmax(ours))
    worst = max(stretches, key=lambda s: s.cpu_s)
    return {
        "action": name,
        "times": len(stretches),
        "freeze_ms": round(1e3 * worst.cpu_s, 1),
        "median_ms": round(1e3 * float(np.median([s.cpu_s for s in stretches])), 1),
        "wall_ms": round(1e3 * max(s.wall_s for s in stretches), 1),
        "napari_alone_ms": round(share_of(name, worst, floors, tour.placed), 1),
        "ours_ms": round(max(ours[most], 0.0), 1),
        "most_ours": [round(1e3 * tour.every[name][most].cpu_s, 1), round(shares[most], 1)],
        "in": worst.what,
        "where": where(worst),
    }


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


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table that goes into the README of the benchmarks."""
    lines = [
        "| action | times | longest freeze, ms | median, ms | wall, ms | napari alone, ms | ours, ms | "
        "most of it in |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        over = "**" if row["ours_ms"] > LIMIT_MS else ""
        lines.append(
            f"| {row['action']} | {row['times']} | {row['freeze_ms']:.0f} | {row['median_ms']:.0f} | "
            f"{row['wall_ms']:.0f} | {row['napari_alone_ms']:.0f} | {over}{row['ours_ms']:.0f}{over} | "
            f"{row['where']} |"
        )
    return "\n".join(lines)


def print_stacks(found: dict[str, list[Stretch]], lines: int = 14) -> None:
    """Print, for every action above the limit, the functions that most of its longest stretch was in."""
    for name, stretches in found.items():
        worst = max(stretches, key=lambda s: s.cpu_s)
        if worst.cpu_s < LIMIT_MS / 2e3:
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


def processor() -> str:
    """Return the name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure, print the table, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spots", type=int, help="make a section of so many spots; else the bundled slide")
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--opening", action="store_true", help="measure the first opening of the area alone")
    parser.add_argument("--stacks", action="store_true", help="print where the time of long freezes goes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import napari

    sys.setswitchinterval(0.001)  # or the stack would be seen only where a call lets other threads run
    watcher = Watcher()
    watch_drawing(watcher)
    watch_layers(watcher)
    app = WatchedApplication(watcher)  # napari uses the application there is
    with tempfile.TemporaryDirectory() as folder:
        n_spots, n_genes = options.spots, options.genes
        viewer = napari.Viewer(show=False)
        viewer.window.resize(1280, 800)
        viewer.window._qt_window.show()
        floors = {} if options.opening else Floor(watcher).run(viewer, FLOOR_PX, options.rounds)
        tour = Tour(viewer, watcher)
        if options.opening:
            print(markdown([row_of(name, tour, floors) for name in tour.found]))
            viewer.close()
            return
        material = made(n_spots, n_genes, Path(folder)) if n_spots else bundled()
        tour.run((material, material.copy(Path(folder))), options.rounds)
        rows = [row_of(name, tour, floors) for name in tour.found]
        print(markdown(rows))
        print(f"napari alone, ms: {floors}")
        if options.stacks:
            print_stacks(tour.found)
        report = {
            "command": "python -m benchmarks.freezes"
            + (f" --spots {n_spots} --genes {n_genes}" if n_spots else "")
            + f" --rounds {options.rounds}",
            "seed": SEED,
            "spots": int(material.adata.n_obs),
            "genes": int(material.adata.n_vars),
            "limit_ms": LIMIT_MS,
            "napari_alone_ms": floors,
            "actions": rows,
            "cores": os.cpu_count(),
            "machine": processor(),
            "napari": napari.__version__,
        }
        if options.json is not None:
            options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        viewer.close()
    app.processEvents()


if __name__ == "__main__":
    main()
