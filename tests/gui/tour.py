"""A tourist in the workspace: does what a person does with three slides, in an order drawn from a seed.

``python -m tests.gui.tour SEED STEPS`` plays a tour again, and prints each step before it is taken.
"""

import faulthandler
import gc
import os
import random
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np

REST_S = 60.0
"""Longest time that work may take to come to rest."""
HURRIED = 0.3
"""Share of steps after which the next comes before the work has come to rest."""


class Tourist:
    """Acts on a viewer, and remembers what must be there.

    Attributes
    ----------
    results
        (slide, run) of each prediction that was in the workspace.
    regions
        Number of the slide → corners of each region, level-0 (x, y).
    saved
        File → corners of the regions that were saved with it.
    met
        Predictions of the workspace whose coming was noted.
    """

    def __init__(self, seed, folder, monkeypatch):
        import napari
        from tests.gui.tour_checks import Witness
        from tests.gui.tour_files import TourWork, write_slides

        from napari_flag.gui.session import Session

        self.seed, self.folder = seed, folder
        self.slides = write_slides(folder)
        self.work = TourWork(self.slides)
        self.work.install(monkeypatch)
        self.viewer = napari.Viewer(show=False)
        self.window = self.viewer.window._qt_window
        self.window.resize(860, 560)
        self.window.show()
        self.witness = Witness()
        self.witness.listen()
        self.session = Session.of(self.viewer)
        self.results, self.regions, self.saved = set(), {}, {}
        self.met = set()
        self.pardoned, self.rasters = set(), {}
        self.area = None
        self.open_area()

    # --- going along -----------------------------------------------------------------------------
    def go(self, steps):
        """Take `steps` steps, as long as all is well; return what is wrong then."""
        for number in range(1, steps + 1):
            rng = random.Random(f"{self.seed} {number}")
            wrong = self.step(number, rng)
            if wrong:
                return wrong
        self.rest()
        return self.faults()

    def step(self, number, rng):
        names = list(WEIGHTS)
        begun = time.monotonic()
        while True:
            name = rng.choices(names, [WEIGHTS[n] for n in names])[0]
            say(f"{number:4d} {name}" if names == list(WEIGHTS) else f", {name}", end="")
            try:
                said = getattr(self, name)(rng)
            except Exception as error:  # noqa: BLE001 - reported with the steps that led to it
                return [f"{name}: {''.join(traceback.format_exception(error))}"]
            if said is not None:
                break
            say(" not now", end="")
            names.remove(name)
        hurried = rng.random() < HURRIED
        say(f" {said}{' (hurried)' if hurried else ''}", end="")
        if hurried:
            self.pump(rng.choice((0.0, 0.03, 0.12)))
        rested = hurried or self.rest()
        wrong = [] if rested else ["work did not come to rest"]
        wrong += self.faults()
        say(f" [{time.monotonic() - begun:.1f} s]")
        return wrong

    def faults(self):
        from tests.gui.tour_checks import faults

        return faults(self)

    def pump(self, seconds=0.0):
        from qtpy.QtCore import QEvent
        from qtpy.QtWidgets import QApplication

        until = time.monotonic() + seconds
        for _ in range(3):
            QApplication.processEvents()
            QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        while time.monotonic() < until:
            QApplication.processEvents()
            time.sleep(0.002)
        self.note_arrivals()

    def answer_with(self, text):
        """Press the button `text` of whatever is asked from now on."""
        from qtpy.QtCore import QTimer
        from qtpy.QtWidgets import QApplication, QMessageBox

        def answer():
            asked = QApplication.activeModalWidget()
            if isinstance(asked, QMessageBox):
                next(button for button in asked.buttons() if text in button.text()).click()

        self.answers = QTimer()
        self.answers.timeout.connect(answer)
        self.answers.start(100)

    def rest(self):
        """Wait until no work runs and nothing waits to be settled; True when it came to that."""
        from napari_flag.gui.jobs import Job

        until = time.monotonic() + REST_S
        self.pump(0.02)
        while time.monotonic() < until:
            if not Job._running and (self.area is None or self.area.predict._watch.settled):
                self.pump(0.02)
                if not Job._running:
                    self.pardon_or_expect()
                    return True
            self.pump(0.01)
        return False

    def wait_for(self, purpose):
        """Wait until a job of the area has ended, whatever else goes on."""
        until = time.monotonic() + REST_S
        while self.area.predict.jobs.running(purpose) and time.monotonic() < until:
            self.pump(0.01)

    def note_arrivals(self):
        """Regions saved with a prediction come back with it, where they are not drawn any more.

        A file that is opened in the background arrives while events are handled, on any slide of its name.
        What was predicted just now has no file, and without the area napari reads no regions.
        """
        from tests.gui.tour_checks import same_corners

        for state in self.session.workspace.slides:
            for result in set(state.results) - self.met:
                self.met.add(result)
                if result.file is None or self.area is None:
                    continue
                drawn = self.regions.setdefault(state.number, [])
                drawn += [
                    corners
                    for corners in self.saved[result.file]
                    if not any(same_corners(corners, known) for known in drawn)
                ]

    def pardon_or_expect(self):
        """What was predicted to the end, and not cancelled, must have arrived."""
        self.results |= set(self.work.returned) - self.pardoned
        self.pardoned |= set(self.work.begun) - set(self.work.returned)

    # --- what is there -----------------------------------------------------------------------------
    def slide_named(self, name):
        return next(slide for slide in self.slides if slide.name == name)

    def predicting(self, state):
        return self.area is not None and state is not None and self.area.predict._run.waiting(state)

    @property
    def opening(self):
        """Whether files are read in the background."""
        jobs = () if self.area is None else self.area.predict.jobs.active
        return any(job.name.startswith("Open ") for job in jobs)

    def alive_docks(self):
        from napari_flag.gui.dock import Dock

        return [dock for dock in self.window.findChildren(Dock) if dock._docked or dock.parent() is not None]

    @property
    def state(self):
        return self.session.state

    @property
    def predict_page(self):
        return None if self.area is None else self.area.predict

    def open_area(self):
        from napari_flag.gui.area import open_area

        self.area = open_area(self.viewer)
        gc.freeze()  # napari searches all for garbage when a layer goes, a quarter of what a tour takes

    def page(self, name):
        return self.area.show_page(name)

    def pick(self, rng, things):
        things = list(things)
        return rng.choice(things) if things else None

    # --- opening -----------------------------------------------------------------------------------
    def open_slide(self, rng):
        slide = rng.choice(self.slides)
        states = self.session.workspace.slides
        there = [
            s for s in states if s.slide is not None and s.slide.path == slide.path and s.layer is not None
        ]
        if there and (len(states) > 4 or rng.random() > 0.1):
            return None
        others_come = self.opening  # within napari's own opening perhaps, and are shown after this one
        self.viewer.open(str(slide.path), plugin="napari-flag")
        pictures = {s.slide.path for s in states if s.layer is not None}
        assert slide.path in pictures, "the slide opened is not there"
        assert self.session.slide is not None, "no slide is shown after one was opened"
        assert others_come or self.session.slide.path == slide.path, "the slide opened is not shown"
        return slide.name

    def open_prediction(self, rng):
        """Where the area is open it is read in the background, and arrives at this step or a later one."""
        saved = self.pick(rng, [path for path in self.saved if path.exists()])
        if saved is None or sum(len(s.results) for s in self.session.workspace.slides) > 12:
            return None
        if self.area is not None and rng.random() < 0.5:
            self.area.predict.opener.open([saved])
        else:
            self.viewer.open(str(saved), plugin="napari-flag")
        return saved.name

    def choose_table(self, rng):
        from napari_flag.gui.predict.steps import TABLE

        if self.area is None or self.state is None or self.state.slide is None:
            return None
        slide = self.slide_named(self.state.slide.name)
        if slide.table is None or not self.area.predict._steps.isEnabled():
            return None
        step = self.area.predict.spots_step
        step.origin.value = TABLE
        step.table.set_path(slide.table)
        return slide.table.name

    def choose_grid(self, rng):
        from napari_flag.gui.predict.steps import GRID

        if self.area is None or not self.area.predict._steps.isEnabled():
            return None
        step = self.area.predict.spots_step
        if step.origin.value == GRID:
            step.pitch.value = rng.choice((180.0, 200.0, 240.0))
        else:
            step.origin.value = GRID
        return f"{step.pitch.value} µm"

    def import_regions(self, rng):
        if self.area is None or self.session.adata is None or self.state.layer is None:
            return None
        slide = self.slide_named(self.state.slide.name)
        if len(self.regions.get(self.state.number, ())) > 6:
            return None
        from napari_flag.slides.formats.geojson import read_annotations

        self.page("Regions").import_regions(slide.regions)
        for annotation in read_annotations(slide.regions):
            corners = [np.asarray(part.exterior.coords)[:-1] for part in annotation.polygons]
            self.regions.setdefault(self.state.number, []).extend(corners)
        return slide.regions.name

    # --- which slide ---------------------------------------------------------------------------------
    def switch_by_list(self, rng):
        if self.area is None or not self.session.workspace.slides:
            return None
        row = rng.randrange(len(self.session.workspace.slides))
        name = self.session.workspace.slides[row].name
        self.area.slides.list.setCurrentItem(self.area.slides.list.topLevelItem(row))
        assert self.state.name == name, f"{name} was clicked, {self.state.name} is shown"
        return name

    def switch_by_eye(self, rng):
        of = self.session.workspace.of_layer
        hidden = [la for la in self.viewer.layers if not la.visible and of(la) not in (None, self.state)]
        layer = self.pick(rng, hidden)
        if layer is None:
            return None
        said = f"{layer.name} of {of(layer).name}"
        layer.visible = True
        return said

    def toggle_layer(self, rng):
        layer = self.pick(rng, self.session.workspace.layers_of(self.state))
        if layer is None or layer is self.state.layer:
            return None
        layer.visible = not layer.visible
        return f"{layer.name} {'shown' if layer.visible else 'hidden'}"

    def blink_picture(self, rng):
        if self.state is None or self.state.layer is None:
            return None
        picture = self.state.layer
        if picture.visible:
            before = {la for la in self.session.workspace.layers_of(self.state) if la.visible}
            picture.visible = False
            left = [la.name for la in self.session.workspace.layers_of(self.state) if la.visible]
            assert not left, f"{left} are seen though their picture was hidden"
            if rng.random() < 0.5:
                self.pump()
                picture.visible = True
                after = {la for la in self.session.workspace.layers_of(self.state) if la.visible}
                if not self.predicting(self.state):
                    assert after == before, f"hidden and shown again: {before ^ after}"
        else:
            picture.visible = True
        return f"{self.state.name} {'shown' if picture.visible else 'hidden'}"

    # --- predicting ----------------------------------------------------------------------------------
    def predict(self, rng):
        if self.area is None or not self.area.predict.run_panel.predict.isEnabled():
            return None
        self.work.pace = rng.choice((0.0, 0.004, 0.02))
        self.page("Predict")
        self.area.predict.run_panel.predict.click()
        return self.state.name

    def predict_all(self, rng):
        if self.area is None or not self.area.slides.predict_all.isVisible():
            return None
        self.work.pace = rng.choice((0.0, 0.004, 0.02))
        self.area.slides.predict_all.click()
        return ""

    def cancel(self, rng):
        if self.area is None or not self.area.predict.jobs.active:
            return None
        self.pardoned |= set(self.work.begun) - self.results
        self.area.predict.strip.cancel.click()
        self.pardoned |= set(self.work.begun) - self.results
        return ""

    def other_prediction(self, rng):
        if self.area is None or self.state is None or len(self.state.results) < 2:
            return None
        result = self.pick(rng, [r for r in self.state.results if r is not self.state.shown])
        self.area.slides.result.value = result
        assert self.session.result is result, "the prediction chosen is not shown"
        return result.name

    def save(self, rng):
        from tests.gui.tour_files import marker

        if self.area is None or self.session.adata is None:
            return None
        adata = self.session.adata
        name = adata.uns["napari_flag"]["slide_name"]
        path = self.folder / f"{name}_{marker(adata)}_{len(self.saved) + 1}.h5ad"
        self.saved[path] = list(self.regions.get(self.state.number, ()))
        self.area.predict.save(path)
        self.wait_for("save")
        return path.name

    # --- place -----------------------------------------------------------------------------------------
    def set_mpp(self, rng):
        if self.area is None or self.state is None or self.state.layer is None:
            return None
        if not self.area.predict._steps.isEnabled():
            return None
        value = rng.choice((0.8, 1.0, 1.1, 1.25))
        self.area.predict.slide_step.mpp.value = value
        return f"{self.state.name} {value}"

    def move(self, rng):
        if self.state is None or self.state.layer is None:
            return None
        layer, way = self.state.layer, rng.choice(("translate", "rotate", "scale", "affine"))
        if way == "translate":
            away = np.array([rng.uniform(-300, 300), rng.uniform(-300, 300)])
            layer.translate = layer.translate + away
        elif way == "rotate":
            layer.rotate = rng.choice((0.0, 15.0, 90.0, -40.0))
        elif way == "scale":
            layer.scale = np.asarray(layer.scale) * rng.choice((0.8, 1.25))
        else:
            angle = rng.uniform(-1, 1)
            cos, sin = np.cos(angle), np.sin(angle)
            turn = np.array([[cos, -sin, rng.uniform(-200, 200)], [sin, cos, 30.0], [0, 0, 1]])
            layer.affine = turn @ np.asarray(layer.affine.affine_matrix)
        return f"{self.state.name} {way}"

    # --- layers that go --------------------------------------------------------------------------------
    def forget_regions_in(self, layers):
        """Regions whose layer a person removes are not missed."""
        from tests.gui.tour_checks import _pixels

        for layer in layers:
            state = self.session.workspace.of_layer(layer)
            if layer._type_string != "shapes" or state is None or state.number not in self.regions:
                continue
            for corners in layer.data:
                known = self.regions[state.number]
                there = _pixels(state.layer, layer, np.asarray(corners, float)) if state.layer else None
                apart = [
                    0.0 if there is None else np.abs(k - there).max() if len(k) == len(there) else np.inf
                    for k in known
                ]
                if apart:
                    del known[int(np.argmin(apart))]

    def remove_picture(self, rng):
        states = [state for state in self.session.workspace.slides if state.layer is not None]
        state = self.pick(rng, states)
        if state is None:
            return None
        self.viewer.layers.remove(state.layer)
        self.pump()
        return state.name

    def remove_several(self, rng):
        layers = list(self.viewer.layers)
        if len(layers) < 3:
            return None
        chosen = rng.sample(layers, rng.randint(2, min(4, len(layers))))
        said = [layer.name for layer in chosen]
        self.forget_regions_in(chosen)
        self.viewer.layers.selection = set(chosen)
        self.viewer.layers.remove_selected()
        self.pump()
        return ", ".join(said)

    def clear(self, rng):
        if not len(self.viewer.layers):
            return None
        self.forget_regions_in(list(self.viewer.layers))
        self.viewer.layers.clear()
        self.pump()
        return ""

    def bring_back(self, rng):
        states = self.session.workspace.slides
        away = [state for state in states if state.slide is not None and state.layer is None]
        state = self.pick(rng, away)
        if self.area is None or state is None:
            return None
        self.area.slides.list.setCurrentItem(self.area.slides.list.topLevelItem(states.index(state)))
        assert self.state is state, f"{state.name} was clicked, {self.state.name} is shown"
        until = time.monotonic() + REST_S
        while state.layer is None and time.monotonic() < until:  # it comes in a turn of its own
            self.pump(0.01)
        assert state.layer is not None, f"the picture of {state.name} did not come back"
        return state.name

    def delete_map(self, rng):
        maps = ("gene", "local", "unlike", "domains", "spots")
        layer = self.pick(
            rng, [la for la in self.viewer.layers if la.metadata.get("napari_flag.kind") in maps]
        )
        if layer is None:
            return None
        name = layer.name
        self.viewer.layers.selection = {layer}
        self.viewer.layers.remove_selected()
        return name

    def duplicate(self, rng):
        from napari.layers._layer_actions import _duplicate_layer
        from tests.gui.tour_checks import _pixels

        layers = self.session.workspace.layers_of(self.state)
        layer = self.pick(rng, layers)
        if layer is None or sum("copy" in la.name for la in self.viewer.layers) > 3:
            return None
        name, state = layer.name, self.state
        shapes = layer._type_string == "shapes"
        if shapes and (state.layer is None or len(layer.data) > 3):
            return None
        self.viewer.layers.selection = {layer}
        _duplicate_layer(self.viewer.layers)
        if shapes:
            corners = [_pixels(state.layer, layer, np.asarray(c, float)) for c in layer.data]
            self.regions.setdefault(state.number, []).extend(corners)
        return name

    # --- regions -----------------------------------------------------------------------------------------
    def region_layer(self):
        from napari_flag.layers import region_shapes

        return region_shapes.find_layer(self.session.workspace.layers_of(self.state))

    def draw_region(self, rng):
        if self.area is None or self.session.adata is None or self.state.layer is None:
            return None
        if len(self.regions.get(self.state.number, ())) > 6:
            return None
        slide = self.slide_named(self.state.slide.name)
        left, top, right, bottom = slide.box
        x, y = rng.uniform(left, (left + right) / 2), rng.uniform(top, (top + bottom) / 2)
        corners = np.array([[x, y], [x + 380, y + 10], [x + 390, y + 330], [x - 5, y + 350]])
        self.page("Regions").regions.buttons["Polygon"].click()
        layer = self.viewer.layers.selection.active
        picture = self.state.layer
        layer.add_polygons(
            [np.array([layer.world_to_data(picture.data_to_world(c[::-1]))[-2:] for c in corners])]
        )
        layer.mode = "pan_zoom"
        self.regions.setdefault(self.state.number, []).append(corners)
        return self.state.name

    def edit_region(self, rng):
        from tests.gui.tour_checks import read_regions

        if self.state is None or self.state.layer is None:
            return None
        layer = self.region_layer()
        if layer is None or not len(layer.data):
            return None
        data = [np.array(corners) for corners in layer.data]
        data[rng.randrange(len(data))][0] += rng.uniform(5, 25)
        layer.data = data
        self.regions[self.state.number] = read_regions(self, self.state)
        return self.state.name

    def rename_region(self, rng):
        entries = self._drawn_entries()
        if not entries:
            return None
        row = rng.choice(entries)
        name = rng.choice(("tumour", "stroma", "in situ"))
        self.area.pages["Regions"].regions.list.topLevelItem(row).setText(0, name)
        return name

    def remove_region(self, rng):
        from tests.gui.tour_checks import read_regions

        entries = self._drawn_entries()
        if not entries:
            return None
        row, dock = rng.choice(entries), self.area.pages["Regions"]
        dock.regions.list.setCurrentItem(dock.regions.list.topLevelItem(row))
        before = len(read_regions(self, self.state))
        dock.regions.buttons["Remove"].click()
        after = read_regions(self, self.state)
        assert len(after) < before, "the region is still there"
        self.regions[self.state.number] = after
        return f"row {row}"

    def undo_region(self, rng):
        from tests.gui.tour_checks import read_regions

        if self.area is None or self.session.adata is None or self.state.layer is None:
            return None
        dock = self.page("Regions")
        what = rng.choice(("Undo", "Redo"))
        if not dock.regions.buttons[what].isEnabled():
            return None
        before = len(read_regions(self, self.state))
        dock.regions.buttons[what].click()
        after = read_regions(self, self.state)
        assert abs(len(after) - before) <= 4, f"{before} regions became {len(after)}"
        self.regions[self.state.number] = after
        return what

    def _drawn_entries(self):
        if self.area is None or self.session.adata is None or self.state.layer is None:
            return []
        dock = self.page("Regions")
        return [row for row, entry in enumerate(dock.regions.entries) if entry.drawn is not None]

    def find_domains(self, rng):
        if self.area is None or self.session.adata is None:
            return None
        self.page("Regions").choice.search.native.click()
        return self.state.name

    def paint_domains(self, rng):
        from napari_flag.layers.overlays import Paint

        if self.area is None or self.session.adata is None:
            return None
        paint = rng.choice(list(Paint))
        self.page("Regions").choice.paint.value = paint
        return paint.value

    # --- the map -----------------------------------------------------------------------------------------
    def click_gene(self, rng):
        from tests.gui.tour_files import GENES

        if self.session.adata is None:
            return None
        gene = rng.choice(GENES)
        self.session.select_gene(gene)
        return gene

    def second_gene(self, rng):
        from tests.gui.tour_files import GENES

        if self.session.adata is None or self.area is None:
            return None
        gene = rng.choice(("", *GENES))
        self.page("Genes").second.value = gene
        return gene

    def choose_quantity(self, rng):
        from napari_flag.layers.gene_values import Quantity

        if self.session.adata is None:
            return None
        quantity = rng.choice(list(Quantity))
        self.session.show_quantity(quantity)
        return quantity.value

    def map_kind(self, rng):
        from napari_flag.layers.local_map import MapKind

        if self.session.adata is None or self.area is None:
            return None
        kind = rng.choice(list(MapKind))
        self.page("Spatial").choice.kindChosen.emit(kind)
        return kind.value

    # --- docks -------------------------------------------------------------------------------------------
    def show_page(self, rng):
        from napari_flag.gui.area import PAGES

        if self.area is None:
            return None
        name = rng.choice(list(PAGES))
        self.area.switcher.buttons[name].click()
        return name

    def close_area(self, rng):
        if self.area is None:
            return None
        self.pardoned |= set(self.work.begun) - self.results
        self._close_dock_of(self.area)
        self.area = None
        self.pardoned |= set(self.work.begun) - self.results
        return ""

    def reopen_area(self, rng):
        if self.area is not None:
            return None
        self.open_area()
        return ""

    def side_by_side(self, rng):
        if self.area is None:
            return None
        from napari_flag.gui.side_by_side_dock import SideBySideDock

        docks = [d for d in self.window.findChildren(SideBySideDock) if d in self.alive_docks()]
        if not docks:
            self.area.show_side_by_side()
            return "open"
        dock = docks[0]
        if rng.random() < 0.3:
            self._close_dock_of(dock)
            return "close"
        wanted = rng.choice([value for _, value in dock.slide.entries])
        dock.slide.value = wanted
        if rng.random() < 0.3 and dock.others:
            dock.free.click()
        return f"{wanted}"

    def _close_dock_of(self, widget):
        from napari._qt.widgets.qt_viewer_dock_widget import QtViewerDockWidget

        dock = widget.parentWidget()
        while not isinstance(dock, QtViewerDockWidget):
            dock = dock.parentWidget()
        dock.destroyOnClose()
        self.pump()

    def toggle_theme(self, rng):
        self.viewer.theme = "light" if self.viewer.theme == "dark" else "dark"
        return self.viewer.theme


WEIGHTS = {
    "open_slide": 6,
    "open_prediction": 4,
    "choose_table": 4,
    "choose_grid": 2,
    "import_regions": 2,
    "switch_by_list": 10,
    "switch_by_eye": 4,
    "toggle_layer": 3,
    "blink_picture": 3,
    "predict": 10,
    "predict_all": 3,
    "cancel": 6,
    "other_prediction": 5,
    "save": 3,
    "set_mpp": 4,
    "move": 4,
    "remove_picture": 3,
    "remove_several": 2,
    "clear": 0.5,
    "bring_back": 4,
    "delete_map": 3,
    "duplicate": 2,
    "draw_region": 5,
    "edit_region": 2,
    "rename_region": 2,
    "remove_region": 1,
    "undo_region": 2,
    "find_domains": 3,
    "paint_domains": 2,
    "click_gene": 5,
    "second_gene": 2,
    "choose_quantity": 4,
    "map_kind": 3,
    "show_page": 5,
    "close_area": 1,
    "reopen_area": 6,
    "side_by_side": 5,
    "toggle_theme": 1,
}
"""How often each is done; what cannot be done is passed over."""


def say(text, end="\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()


def play(seed, steps):
    """Play one tour; return whether all went well."""
    import pytest
    from qtpy.QtWidgets import QApplication

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        home = Path(folder) / "home"
        home.mkdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        begun = time.monotonic()
        tourist = Tourist(seed, Path(folder), monkeypatch)
        wrong = tourist.go(steps)
        for fault in wrong:
            say(f"  WRONG {fault}")
        if not wrong:
            tourist.answer_with("Close")
            tourist.viewer.close()
            tourist.pump(0.1)
            wrong = tourist.witness.take()
            for fault in wrong:
                say(f"  WRONG on closing: {fault}")
        say(f"seed {seed}: {'wrong' if wrong else 'well'}, {time.monotonic() - begun:.0f} s")
        with suppress(RuntimeError):
            QApplication.processEvents()
    return not wrong


if __name__ == "__main__":
    faulthandler.enable()
    well = play(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0 if well else 1)
