"""Make the pictures of every page, with two slides open, at two sizes of window and in both themes.

    xvfb-run -a -s "-screen 0 1920x1080x24" python docs/make_screenshots.py OUT [FOLDER, WORKSPACE OR SLIDES]

opens two simulated slides, or what is named; slides without a prediction are predicted with ``--weights``.
``--pages Train`` alone takes the pictures of the Train dock, fitted to the sections of the folder.
``--methods`` takes one picture of one gene by all predictions of a slide, which are named with it.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import napari
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_flag.demo import GENE, WEIGHTS
from napari_flag.gui.area import FlagArea, open_area
from napari_flag.gui.settings import PLUGIN
from napari_flag.gui.side_by_side_dock import OTHERS, SideBySideDock
from napari_flag.gui.train.train_dock import TRAIN, TrainDock
from napari_flag.layers.local_map import MapKind
from napari_flag.layers.overlays import Paint
from napari_flag.layers.slide_layers import fit
from napari_flag.model.checkpoint import find_weights
from napari_flag.simulation.simulator import simulate, write_simulated

SIZES: Final = ((1280, 800), (1920, 1080))
THEMES: Final = ("dark", "light")
PATIENCE_S: Final = 900.0
TRAINING_S: Final = 7200.0
"""How long a fit may take."""
SETTLE_S: Final = 1.5
COLOURS: Final = 256
TRAINING: Final = "Train"
SEEDS: Final = (1, 2)
LONG_WORK: dict[str, dict[str, Callable[[Any, Path], object]]] = {
    "Samples": {"draw": lambda dock, weights: dock.use_weights(weights)},
    "Regions": {"domains": lambda dock, _: dock.find_domains()},
}
"""Per page, the job to wait for before its picture, and what starts it."""


def main() -> None:
    """Read the arguments and make the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the pages.")
    parser.add_argument("out", type=Path, help="folder for the PNG files")
    parser.add_argument("paths", type=Path, nargs="*", help="what to open; default: two simulated slides")
    parser.add_argument("--weights", default=WEIGHTS, help="name or file of the weights")
    parser.add_argument("--gene", default=GENE, help="gene to show")
    parser.add_argument("--pages", nargs="*", help="only these")
    parser.add_argument("--methods", action="store_true", help="the predictions of one slide, side by side")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "two_slides"  # the name is in the pictures
        if not given.paths:
            folder.mkdir()
            for seed in SEEDS:
                write_simulated(folder, f"sim{seed}", simulate(seed))
        paths = given.paths or [folder]
        pictures = Pictures(given.out, Path(find_weights(given.weights)), given.gene)
        if given.methods:
            pictures.take_methods(paths)
        elif given.pages != [TRAINING]:
            pictures.predict(paths)
            pictures.take_pages(given.pages)
        if TRAINING in (given.pages or ()):  # which takes long
            pictures.train(paths[0])
        pictures.viewer.close()


class Pictures:
    """A viewer with the FLAG area, and the pictures taken of it.

    Parameters
    ----------
    out
        Folder of the pictures.
    weights
        Weights file to predict with.
    gene
        What is shown.
    """

    def __init__(self, out: Path, weights: Path, gene: str) -> None:
        self._out, self._weights, self._gene = out, weights, gene
        self.viewer = napari.Viewer(show=False)
        self.viewer.window.resize(*SIZES[0])
        self.viewer.window._qt_window.show()
        self.area: FlagArea = open_area(self.viewer)

    def predict(self, paths: Sequence[Path]) -> None:
        """Open slides, and predict those that have no prediction."""
        dock = self.area.predict
        self.rest()
        self.take("predict-start")
        dock.load_weights(self._weights)
        self.rest()
        dock.opener.open(paths)
        self.rest()
        self.take("predict-ready")
        if any(not state.results for state in dock.session.workspace.slides):
            dock.predict_all()
            wait(lambda: bool(dock.session.genes_shown))
            self.take("predict-running", themes=THEMES[:1], sizes=SIZES[:1])
            wait(lambda: all(state.results for state in dock.session.workspace.slides))
        self.rest()
        dock.session.select_gene(self._gene)
        self.take("predict-result")

    def take_pages(self, only: Sequence[str] | None) -> None:
        """Take the picture of each page, then of the second canvas with this and with the other slide."""
        session = self.area.session
        for name in self.area.switcher.buttons:
            if name in ("Predict", "Side by side") or (only and name not in only):
                continue
            page = self.area.show_page(name)
            for purpose, start in LONG_WORK.get(name, {}).items():
                spend(SETTLE_S)
                start(page, self._weights)
                spend(SETTLE_S)
                wait(lambda page=page, purpose=purpose: not page.jobs.running(purpose))
            if name == "Regions" and page.regions.entries:
                page.regions.choose(page.regions.entries[0].key)
            self.rest()
            self.take(name.lower())
            if name == "Spatial":
                session.set_map_kind(MapKind.CLASSES)
                self.rest()
                self.take("spatial-clusters")
                session.set_map_kind(MapKind.EXPRESSION)
            if name == "Regions":
                page.choice.paint.value = Paint.HIDDEN
        self.area.show_page("Genes")
        self.area.show_side_by_side()
        second = self.viewer.window._qt_window.findChild(SideBySideDock)
        spend(SETTLE_S)
        wait(lambda: second.at_rest)
        self.take("side-by-side-measured")
        others = [state for state in session.workspace.slides if state is not session.state]
        second.slide.value = others[0].number
        spend(SETTLE_S)
        wait(lambda: second.at_rest)
        self.take("side-by-side-slides")

    def take_methods(self, paths: Sequence[Path]) -> None:
        """Take the picture of one gene by all predictions of a slide, and as it was measured."""
        session = self.area.session
        self.rest()
        for path in paths:  # the last one is on the main canvas
            self.area.predict.opener.open([path])
            self.rest()
        session.select_gene(self._gene)
        self.viewer.window.resize(*SIZES[1])
        spend(SETTLE_S)
        self.area.show_side_by_side()
        second = self.viewer.window._qt_window.findChild(SideBySideDock)
        spend(SETTLE_S)
        wait(lambda: second.at_rest)
        second.slide.value = OTHERS
        spend(SETTLE_S)
        wait(lambda: second.at_rest and not any(page.jobs.active for page in self.area.pages.values()))
        spots = session.gene_map.layer(session.gene_map.quantity)
        fit(self.viewer, [spots], second.room_beside)
        self.take("methods", themes=THEMES[:1], sizes=SIZES[1:], fitted=True)

    def train(self, sections: Path) -> None:
        """Take pictures of the Train dock, the sections of a folder listed, then scored."""
        _, widget = self.viewer.window.add_plugin_dock_widget(PLUGIN, TRAIN)
        dock: TrainDock = getattr(widget, "__wrapped__", widget)
        for act, name in ((lambda: dock.source.set_path(sections), "train-listed"), (dock.fit, "train")):
            spend(SETTLE_S)
            wait(lambda: not dock.jobs.active)
            act()
            spend(SETTLE_S)
            wait(lambda: not dock.jobs.active, TRAINING_S)
            spend(SETTLE_S)
            dock.grab().save(str(self._out / f"{name}.png"))

    def take(
        self,
        name: str,
        themes: Sequence[str] = THEMES,
        sizes: Sequence[tuple[int, int]] = SIZES,
        fitted: bool = False,
    ) -> None:
        """Take a picture at every size in every theme; the view is reset unless it is fitted already."""
        for width, height in sizes:
            self.viewer.window.resize(width, height)
            spend(SETTLE_S / 3)
            if len(self.viewer.layers) and not fitted:
                self.viewer.reset_view()
            for theme in themes:
                self.viewer.theme = theme
                spend(SETTLE_S)
                pixels = self.viewer.screenshot(canvas_only=False, flash=False)
                picture = Image.fromarray(pixels[..., :3]).quantize(
                    COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE
                )
                picture.save(self._out / f"{name}-{width}-{theme}.png", optimize=True)

    def rest(self) -> None:
        """Wait until no page computes."""
        spend(0.2)
        wait(lambda: not any(page.jobs.active for page in self.area.pages.values()))


def wait(ready: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Process events until `ready`."""
    end = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the page did not finish; open it by hand and read its messages")
        spend(0.02)


def spend(seconds: float) -> None:
    """Process events for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


if __name__ == "__main__":
    main()
