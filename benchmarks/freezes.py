"""The longest freeze of every action: the event loop held, drawing left out, with all pages opened.

A freeze is one stretch in which the event loop does not return: the action itself, a timer, a queued signal,
an event.  Drawing with OpenGL is taken off, since here a processor does the work of a graphics card: vispy's
drawing of a scene, its queue of GL commands, and Qt's composing of the window.  What napari computes on the
way, slices, textures and widgets among it, counts.  The main figure is the processor time of the main thread;
wall time stands beside it, and is larger where the machine is busy.  Beside each action stands where most of
its longest stretch was spent, by a thread that looks at the main thread's stack.  `benchmarks.stretches`
measures all of it.

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
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from benchmarks.stretches import (
    REPORTED,
    Doing,
    Stretch,
    WatchedApplication,
    Watcher,
    print_stacks,
    watch_drawing,
    watch_layers,
    where,
)
from benchmarks.tables import processor
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QWidget

from napari_flag import keys
from napari_flag.formatting import whole
from napari_flag.gui.controls.gl_context import keep_context
from napari_flag.progress import finish

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.gui.area import FlagArea
    from napari_flag.gui.workspace import SlideState

SEED: Final = 1
LIMIT_MS: Final = 100.0
FLOOR_PX: Final = 2048
"""Side of the pictures napari alone is given: `layers.raster.LONGEST_PX`, not imported before the area."""

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
            f"| {row['action']} | {row['times']} | {whole(row['freeze_ms'])} | {whole(row['median_ms'])} | "
            f"{whole(row['wall_ms'])} | {whole(row['napari_alone_ms'])} | "
            f"{over}{whole(row['ours_ms'])}{over} | "
            f"{row['where']} |"
        )
    return "\n".join(lines)


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
            print_stacks(tour.found, LIMIT_MS)
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
