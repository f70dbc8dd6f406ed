"""The longest freeze of every action: the event loop held, drawing left out, with all docks open.

A freeze is one stretch in which the event loop does not return: the action itself, a timer, a queued signal,
an event.  Drawing with OpenGL is taken off, since here a processor does the work of a graphics card: vispy's
drawing of a scene, its queue of GL commands, and Qt's composing of the window.  What napari computes on the
way, slices, textures and widgets among it, counts.  The main figure is the processor time of the main thread;
wall time stands beside it, and is larger where the machine is busy.  Beside each action stands where most of
its longest stretch was spent, by a thread that looks at the main thread's stack.

    xvfb-run -a -s "-screen 0 1280x800x24" python benchmarks/freezes.py [--spots 50000] [--json OUT]

Without ``--spots`` the bundled slide is predicted with the demo's weights; with it a section of that many
spots and ``--genes`` genes on a slide of its own is made, whose numbers are smooth patterns.
"""

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from anndata import AnnData
from qtpy.QtCore import QEvent, QObject, QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from napari_flag import keys
from napari_flag.gui.regions.regions_dock import RegionsDock
from napari_flag.gui.session import Session
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.local_map import MapKind

PLUGIN: Final = "napari-flag"
SIDE_BY_SIDE: Final = "Side by side"
LIMIT_MS: Final = 100.0
PATIENCE_S: Final = 600.0
QUIET_S: Final = 0.5
"""An action is over once nothing has happened for so long and no job runs; longer than any timer of ours."""
LOOK_EVERY_S: Final = 0.004
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
    """

    def __init__(self) -> None:
        self.drawing = Clock()
        self.stretches: list[Stretch] = []
        self._depth = 0
        self._looking: Stretch | None = None
        self._main = threading.main_thread().ident
        threading.Thread(target=self._look, daemon=True).start()

    def reset(self) -> None:
        """Forget all stretches."""
        self.stretches = []

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
            if max(found.cpu_s, found.wall_s) > SHORT_S:
                self.stretches.append(found)

    def longest(self) -> Stretch:
        """Return the stretch that took most processor time."""
        return max(self.stretches, key=lambda s: s.cpu_s, default=Stretch())

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


# --- what is opened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Material:
    """A slide's file, its table of spots where it has one, and its prediction."""

    slide: Path
    table: Path | None
    adata: AnnData


def bundled() -> Material:
    """Return the bundled slide, predicted with the weights of the demo."""
    from napari_flag.demo import demo_files, predict_demo
    from napari_flag.progress import finish

    files = demo_files()
    return Material(files.slide, files.table, finish(predict_demo()))


PITCH_PX: Final = 48.0


def made(n_spots: int, n_genes: int, folder: Path) -> Material:
    """Return a hexagonal section with a smooth pattern per gene, and a slide as large as it is.

    The slide is the bundled picture, side by side until it is large enough, in tiles and with a pyramid.
    """
    from gene_click import make_prediction

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


def write_table(adata: AnnData, path: Path) -> Path:
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


class Tour:
    """Does what a person does, in one window with all docks open.

    Parameters
    ----------
    viewer
        A napari viewer with its window shown.
    material
        What is opened.
    watcher
        What measures.
    """

    def __init__(self, viewer: Any, material: Material, watcher: Watcher) -> None:
        self.viewer, self.material, self.watcher = viewer, material, watcher
        self.session = Session.of(viewer)
        self.window = viewer.window._qt_window
        self.found: dict[str, list[Stretch]] = {}

    def run(self, rounds: int) -> None:
        """Do everything, in the order a person would."""
        self.do("open a slide", self._open)
        self.do("read its spots", self._read_spots)
        self.do("show a prediction", self._predict)
        genes = [str(name) for name in self.material.adata.var_names]
        random = np.random.default_rng(1)
        quantities = [q for q in Quantity if self.session.gene_map.values.why_not(q) is None]
        for number in range(rounds):
            gene, other, third = random.choice(genes, 3, replace=False).tolist()
            self.do("click a gene", lambda gene=gene: self.session.select_gene(gene))
            for quantity in [*quantities[1:], quantities[0]]:
                self.do("change the quantity", lambda q=quantity: self.session.show_quantity(q))
            self.do("local Moran's I", lambda: self.session.set_map_kind(MapKind.LOCAL))
            self.do("click a gene, local Moran's I", lambda gene=other: self.session.select_gene(gene))
            self.do("clusters", lambda: self.session.set_map_kind(MapKind.CLASSES))
            self.do("click a gene, clusters", lambda gene=third: self.session.select_gene(gene))
            self.do("back to the gene", lambda: self.session.set_map_kind(MapKind.EXPRESSION))
            self.draw_polygon()
            self.do("set µm/px", lambda n=number: self._set_mpp(0.9 + 0.02 * n))
            self.close_dock(SIDE_BY_SIDE)
            self.do("open Side by side", lambda: self.open_dock(SIDE_BY_SIDE))
        self.do("remove a slide", self._remove)
        self.do("open it again", self._open)

    def do(self, name: str, act: Callable[[], Any]) -> None:
        """Act, wait until all is at rest, and keep the longest stretch under `name`."""
        gc.collect()
        self.watcher.reset()
        with self.watcher.stretch("the action itself"):
            act()
        self.settle()
        self.found.setdefault(name, []).append(self.watcher.longest())

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
                raise TimeoutError("the docks did not come to rest")

    def open_dock(self, name: str) -> None:
        """Open a dock of the plugin as a tab."""
        self.viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)

    def open_all(self) -> list[str]:
        """Open every dock of the manifest, and return their names."""
        from npe2 import PluginManifest

        names = [w.display_name for w in PluginManifest.from_distribution(PLUGIN).contributions.widgets]
        for name in names:
            self.do(f"open {name}, empty", lambda name=name: self.open_dock(name))
        return names

    def close_dock(self, name: str) -> None:
        """Close a dock."""
        docks = self.viewer.window.dock_widgets
        for title in [title for title in docks if title.startswith(name)]:
            self.viewer.window.remove_dock_widget(docks[title])
        self.settle()

    def draw_polygon(self) -> None:
        """Draw a polygon with the mouse while the Regions dock is open."""
        dock = self.window.findChild(RegionsDock)
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

    # --- the plugin's own ways in ----------------------------------------------------------------
    def _open(self) -> None:
        self.viewer.open(self.material.slide, plugin=PLUGIN)

    def _slide_layer(self) -> Any:
        return next(la for la in self.viewer.layers if la.metadata.get(keys.LAYER_SLIDE) is not None)

    def _section(self) -> Any:
        from napari_flag.gui.predict.predict_dock import PredictDock

        return self.window.findChild(PredictDock).section

    def _read_spots(self) -> None:
        if self.material.table is not None:
            self._section().read_spots(self.material.table)

    def _predict(self) -> None:
        self.session.set_prediction(self.material.adata, self._slide_layer().metadata[keys.LAYER_SLIDE])

    def _set_mpp(self, mpp: float) -> None:
        self._section().set_mpp(mpp, "set by hand")

    def _remove(self) -> None:
        self.viewer.layers.remove(self._slide_layer())


# --- the report ----------------------------------------------------------------------------------


def row_of(name: str, stretches: list[Stretch]) -> dict[str, Any]:
    """Return one row: the longest stretch of an action over its repetitions."""
    worst = max(stretches, key=lambda s: s.cpu_s)
    return {
        "action": name,
        "times": len(stretches),
        "freeze_ms": round(1e3 * worst.cpu_s, 1),
        "median_ms": round(1e3 * float(np.median([s.cpu_s for s in stretches])), 1),
        "wall_ms": round(1e3 * max(s.wall_s for s in stretches), 1),
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
        "| action | times | longest freeze, ms | median, ms | wall, ms | most of it in |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        over = "**" if row["freeze_ms"] > LIMIT_MS else ""
        lines.append(
            f"| {row['action']} | {row['times']} | {over}{row['freeze_ms']:.0f}{over} | "
            f"{row['median_ms']:.0f} | {row['wall_ms']:.0f} | {row['where']} |"
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


def main() -> None:
    """Measure, print the table, and write JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spots", type=int, help="make a section of so many spots; else the bundled slide")
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stacks", action="store_true", help="print where the time of long freezes goes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import napari

    sys.setswitchinterval(0.001)  # or the stack would be seen only where a call lets other threads run
    watcher = Watcher()
    watch_drawing(watcher)
    app = WatchedApplication(watcher)  # napari uses the application there is
    with tempfile.TemporaryDirectory() as folder:
        n_spots, n_genes = options.spots, options.genes
        material = made(n_spots, n_genes, Path(folder)) if n_spots else bundled()
        viewer = napari.Viewer(show=False)
        viewer.window.resize(1280, 800)
        viewer.window._qt_window.show()
        tour = Tour(viewer, material, watcher)
        docks = tour.open_all()
        tour.run(options.rounds)
        rows = [row_of(name, stretches) for name, stretches in tour.found.items()]
        print(markdown(rows))
        if options.stacks:
            print_stacks(tour.found)
        report = {
            "command": "python benchmarks/freezes.py",
            "spots": int(material.adata.n_obs),
            "genes": int(material.adata.n_vars),
            "docks_open": docks,
            "limit_ms": LIMIT_MS,
            "actions": rows,
            "cores": os.cpu_count(),
            "machine": platform.processor() or platform.machine(),
            "napari": napari.__version__,
        }
        if options.json is not None:
            options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        viewer.close()
    app.processEvents()


if __name__ == "__main__":
    main()
