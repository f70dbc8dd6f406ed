"""Make the pictures of the docks, at 1280 × 800 in napari's dark and light theme.

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/make_screenshots.py OUT

shows the bundled synthetic slide; with --slide, --spots and so on any other.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import napari
from qtpy.QtWidgets import QApplication

from napari_flag.gui.area import open_area
from napari_flag.gui.predict.steps import TABLE
from napari_flag.layers.local_map import MapKind

SIZE = (1280, 800)
PATIENCE_S = 600.0
SETTLE_S = 1.5
DOCKS = (
    ("Genes", "7-genes"),
    ("Spatial", "9-spatial"),
    ("Co-expression", "10-co-expression"),
    ("Compare", "11-compare"),
    ("Samples", "12-samples"),
    ("Regions", "13-regions"),
)
LONG_WORK: dict[str, dict[str, Callable[[Any, "Shown"], object]]] = {
    "Samples": {"draw": lambda dock, shown: dock.use_weights(shown.weights)},
    "Regions": {"domains": lambda dock, _: dock.find_domains()},
}
"""Per dock, the job to wait for before its picture, and what starts it."""
RUNNING_S = 3.0


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pictures show."""

    slide: Path
    spots: Path
    measured: Path | None
    weights: Path
    mpp: float | None
    gene: str | None


def main() -> None:
    """Read the arguments and make the pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the docks.")
    parser.add_argument("out", type=Path, help="folder for the PNG files")
    parser.add_argument("--slide", type=Path, help="default: the bundled synthetic slide")
    parser.add_argument("--spots", type=Path)
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--mpp", type=float, help="µm per pixel where the file does not state it")
    parser.add_argument("--gene", help="gene to show")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for theme in ("dark", "light"):
        make_pictures(_shown(given), given.out, theme)


def _shown(given: argparse.Namespace) -> Shown:
    if given.slide is not None:
        return Shown(given.slide, given.spots, given.measured, given.weights, given.mpp, given.gene)
    from napari_flag.demo import GENE, demo_files

    files = demo_files()
    return Shown(files.slide, files.table, None, files.weights, None, GENE)


def make_pictures(shown: Shown, out: Path, theme: str) -> None:
    """Lead the main dock from slide to result and take a picture at each stage."""
    viewer = napari.Viewer(show=False)
    viewer.theme = theme
    viewer.window.resize(*SIZE)
    viewer.window._qt_window.show()
    area = open_area(viewer)
    dock = area.predict

    def at_rest() -> bool:
        return not dock.jobs.active

    def take(name: str) -> None:
        spend(SETTLE_S)
        viewer.screenshot(str(out / f"{name}-{theme}.png"), canvas_only=False, flash=False)

    wait(at_rest)
    take("1-start")
    dock.load_weights(shown.weights)
    wait(at_rest)
    dock.section.open_slide(shown.slide)
    wait(lambda: at_rest() and dock.section.slide is not None)
    if shown.mpp is not None:
        take("2-unknown-scale")
        dock.section.set_mpp(shown.mpp, "set by hand")
    wait(at_rest)
    take("3-grid")
    dock.spots_step.origin.value = TABLE
    dock.spots_step.measured.set_path(shown.measured)
    dock.spots_step.table.set_path(shown.spots)
    wait(lambda: at_rest() and dock.section.spots is not None)
    take("4-ready")
    dock.predict()
    spend(RUNNING_S)
    if dock._run.running:
        take("5-running")
    wait(lambda: at_rest() and dock.session.adata is not None)
    if shown.gene is not None:
        dock.session.select_gene(shown.gene)
    take("6-result")
    for name, picture in DOCKS:
        widget = area.show_page(name)
        for purpose, start in LONG_WORK.get(name, {}).items():
            spend(SETTLE_S)
            start(widget, shown)
            wait(lambda widget=widget, purpose=purpose: not widget.jobs.running(purpose))
        take(picture)
        if name == "Spatial":
            dock.session.set_map_kind(MapKind.CLASSES)
            wait(lambda: not dock.session.local_map.missing())
            take(f"{picture}-clusters")
            dock.session.set_map_kind(MapKind.EXPRESSION)
    viewer.close()


def wait(ready: Callable[[], Any]) -> None:
    """Process events until `ready`."""
    end = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the dock did not finish; open it by hand and read its messages")
        spend(0.02)


def spend(seconds: float) -> None:
    """Process events for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


if __name__ == "__main__":
    main()
