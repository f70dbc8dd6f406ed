"""A napari window in use for long: gene after gene, then slides opened, predicted and closed."""

import gc
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

PATIENCE_S = 300.0
"""Longest time to wait for work of the window."""
SPOTS, GENES, DRAWS = 49, 200, 8
"""Of the prediction that genes are switched on."""
DISC_PX = 8
"""Spots are painted this wide: what a window keeps of a map does not depend on its pixels, its time does."""
SHARES = {"gene": 0.95, "key": 0.04, "quantity": 0.005, "second": 0.004, "kind": 0.001}
"""How often each is what a switch does; all of them paint the map anew."""
KEPT = 10
"""Switches for which another quantity, second gene or kind of map stays."""
FRAME_EVERY = 50
"""Events are handled after each switch, and the window is drawn after so many."""
PAGE_EVERY = 250
"""Switches between two pages of the FLAG area."""
ENCODE_EVERY = 10
"""Rounds after which features are computed anew rather than found in the cache."""
SLIDE = "beta"


class Window:
    """A viewer with the FLAG area, and the files that it opens.

    Parameters
    ----------
    folder
        For slides, predictions and weights.
    seed
        Of what is done.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        from tests.tiny_weights import write_tiny_weights

        self.folder, self.random = folder, random.Random(seed)
        self.weights = write_tiny_weights(folder / "tiny.safetensors")
        self.slides, self.prediction = _files(folder)
        import napari
        from tests.gui.tour_checks import Witness

        from napari_flag.gui.area import open_area
        from napari_flag.gui.session import Session
        from napari_flag.layers import raster

        raster.FINEST_DISC_PX = DISC_PX
        self.viewer = napari.Viewer(show=False)
        self.window = self.viewer.window._qt_window
        self.window.resize(900, 600)
        self.window.show()
        self.witness = Witness()
        self.witness.listen()
        self.session = Session.of(self.viewer)
        self.area = open_area(self.viewer)
        self.frames, self._plain_from = 0, -1
        canvas = self.viewer.window._qt_viewer.canvas
        canvas._scene_canvas.events.draw.connect(self._on_draw)
        self._gl = canvas._scene_canvas.context.shared.parser
        self.begun = time.monotonic()
        self.wait(lambda: bool(self.area.predict.model_step.weights) and self.at_rest)
        self.area.predict.load_weights(self.weights)
        self.wait(lambda: self.at_rest)

    def _on_draw(self, event: Any = None) -> None:
        self.frames += 1

    # --- time ------------------------------------------------------------------------------------
    def pump(self) -> None:
        """Handle what waits, drawing included, and delete what Qt is to delete."""
        from qtpy.QtCore import QEvent
        from qtpy.QtWidgets import QApplication

        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    def wait(self, until: Callable[[], bool]) -> None:
        """Handle events until something holds."""
        latest = time.monotonic() + PATIENCE_S
        while not until():
            if time.monotonic() > latest:
                raise TimeoutError(f"waited {PATIENCE_S:.0f} s; heard: {self.witness.heard}")
            self.pump()
            time.sleep(0.002)

    @property
    def at_rest(self) -> bool:
        """Whether no work runs and nothing waits to be settled."""
        from napari_flag.gui.dock import Dock
        from napari_flag.gui.jobs import Job

        docks = [dock for dock in self.window.findChildren(Dock) if dock._docked]
        return not Job._running and self.area.predict._watch.settled and all(d.at_rest for d in docks)

    def settle(self) -> None:
        """Wait until the window is at rest, and still is after what comes in turns of its own."""
        for _ in range(3):
            self.wait(lambda: self.at_rest)
            for _ in range(5):
                self.pump()

    # --- measuring -------------------------------------------------------------------------------
    def _resize(self) -> None:
        """Make the window wider and narrow again, upon which vispy forgets layers that are gone."""
        for width in (920, 900):
            self.window.resize(width, 600)
            self.settle()

    def measure(self) -> dict[str, float]:
        """Return the keys of `curve.LIMITS` of the window at rest, without garbage."""
        from qtpy.QtCore import QObject
        from qtpy.QtWidgets import QApplication

        self._resize()
        self.settle()
        gc.collect()
        self.pump()
        gc.collect()
        process = psutil.Process()
        handles = process.num_fds() if os.name == "posix" else process.num_handles()
        return {
            "resident memory, MB": round(process.memory_info().rss / 2**20, 1),
            "open file handles": handles,
            "Python threads": threading.active_count(),
            "threads of the process": process.num_threads(),
            "layers": len(self.viewer.layers),
            "widgets": len(QApplication.allWidgets()),
            "top-level widgets": len(QApplication.topLevelWidgets()),
            "Qt objects of the window": len(self.window.findChildren(QObject)),
            "objects of Python": len(gc.get_objects()),
            "GL objects": len(self._gl._objects),
        }

    # --- gene switches ---------------------------------------------------------------------------
    def open_prediction(self) -> None:
        """Open the slide and the prediction that genes are switched on."""
        from napari_flag.gui.area import PAGES
        from napari_flag.layers.local_map import MapKind

        self.area.predict.opener.open([self.slides["soak"], self.prediction])
        self.wait(lambda: self.session.adata is not None and self.session.slide is not None)
        self.genes = [str(name) for name in self.session.adata.var_names]
        for name in PAGES:
            self.area.show_page(name)
            self.settle()
        for kind in MapKind:  # layers that are made when they are first shown, and kept
            self.session.set_map_kind(kind)
            self.settle()
        self.session.show_genes(self.genes[:2])
        self.settle()
        self.side_by_side(True)
        self.same_view()

    def same_view(self) -> None:
        """Show what is shown at every mark: one predicted gene, the Genes page, no second canvas."""
        self.side_by_side(False)
        self.plain()
        self.area.show_page("Genes")
        self.settle()

    def plain(self) -> None:
        """Show one predicted gene."""
        from napari_flag.layers.gene_values import Quantity
        from napari_flag.layers.local_map import MapKind

        self.session.set_map_kind(MapKind.EXPRESSION)
        self.session.show_quantity(Quantity.PREDICTED)
        self.session.show_genes(self.genes[:1])

    def side_by_side(self, shown: bool) -> None:
        """Open the second canvas, or close it as napari does."""
        from napari._qt.widgets.qt_viewer_dock_widget import QtViewerDockWidget

        from napari_flag.gui.side_by_side_dock import SideBySideDock

        docks = [dock for dock in self.window.findChildren(SideBySideDock) if dock._docked]
        if shown and not docks:
            self.area.show_side_by_side()
        for dock in () if shown else docks:
            around = dock.parentWidget()
            while not isinstance(around, QtViewerDockWidget):
                around = around.parentWidget()
            around.destroyOnClose()
        self.settle()

    def switch(self, number: int) -> None:
        """Paint the map anew, mostly with another gene, and draw it."""
        from napari_flag.gui.area import PAGES

        if number % PAGE_EVERY == 0:
            self.area.show_page(list(PAGES)[number // PAGE_EVERY % len(PAGES)])
        if number == self._plain_from:
            self.plain()
        (what,) = self.random.choices(list(SHARES), list(SHARES.values()))
        if what in ("quantity", "second", "kind"):
            self._plain_from = number + KEPT
        drawn = number % FRAME_EVERY == 0
        self.window.setUpdatesEnabled(drawn)
        getattr(self, f"_{what}")()
        self.pump()
        self.window.setUpdatesEnabled(True)

    def _gene(self) -> None:
        self.session.select_gene(self.random.choice(self.genes))

    def _key(self) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        canvas = self.viewer.window._qt_viewer.canvas.native
        QTest.keyClick(canvas, self.random.choice((Qt.Key.Key_Up, Qt.Key.Key_Down)))

    def _quantity(self) -> None:
        from napari_flag.layers.gene_values import Quantity

        self.session.show_quantity(self.random.choice(list(Quantity)))

    def _kind(self) -> None:
        from napari_flag.layers.local_map import MapKind

        self.session.set_map_kind(self.random.choice(list(MapKind)))

    def _second(self) -> None:
        self.session.show_genes(self.random.sample(self.genes, 2))

    # --- rounds ----------------------------------------------------------------------------------
    def close_slides(self) -> None:
        """Take every slide out of the workspace, as its menu in the list does."""
        self.side_by_side(False)
        for state in list(self.session.workspace.slides):
            self.area.slides.remove(state)
        self.wait(lambda: not self.session.workspace.slides and not len(self.viewer.layers))
        self.area.show_page("Predict")
        self.settle()

    def round(self, number: int) -> None:
        """Open a slide, predict it, look at it on a page, save the prediction and close the slide."""
        from napari_flag import cache
        from napari_flag.gui.area import PAGES
        from napari_flag.gui.predict.steps import TABLE

        if number % ENCODE_EVERY == 0:
            cache.clear(("features",))
        predict, slide = self.area.predict, self.slides[SLIDE]
        predict.opener.open([slide])
        self.wait(lambda: self.session.slide is not None and self.at_rest)
        predict.spots_step.origin.value = TABLE
        predict.spots_step.table.set_path(slide.with_suffix(".tsv"))
        self.wait(lambda: self.at_rest and predict.run_panel.predict.isEnabled())
        predict.run_panel.predict.click()
        self.wait(lambda: self.session.adata is not None and self.at_rest)
        pages = [name for name in PAGES if name != "Predict"]
        self.area.show_page(pages[number % len(pages)])
        for gene in self.session.adata.var_names:
            self.session.select_gene(str(gene))
            self.pump()
        self.settle()
        predict.save(self.folder / "saved" / f"{slide.stem}.h5ad")
        self.wait(lambda: self.at_rest and not self.session.workspace.unsaved)
        self.close_slides()

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()
        self.pump()


def _files(folder: Path) -> tuple[dict[str, Path], Path]:
    """Write the slides, with their tables, and the prediction that genes are switched on."""
    from tests.fakes import MPP, add_draws, fake_prediction
    from tests.gui.tour_files import write_slides
    from tests.slide_files import pyramid_tiff, tissue_picture

    from napari_flag import keys
    from napari_flag.prediction_file import write_prediction

    (folder / "saved").mkdir()
    slides = {slide.name: slide.path for slide in write_slides(folder)}
    made = add_draws(fake_prediction(SPOTS, GENES), DRAWS)
    provenance = made.uns[keys.PROVENANCE]
    width, height = provenance[keys.SLIDE_WIDTH], provenance[keys.SLIDE_HEIGHT]
    picture = tissue_picture(width, height, (100, 100, width - 100, height - 100))
    slides["soak"] = pyramid_tiff(folder / "soak.tif", picture, mpp=MPP)
    provenance |= {keys.SLIDE_NAME: "soak", keys.DRAWS: DRAWS}
    prediction = folder / "soak.h5ad"
    write_prediction(made, prediction)
    return slides, prediction
