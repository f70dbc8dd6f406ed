"""What must hold after every step of the tour, asked of the layers rather than of what placed them."""

import logging
import sys
import threading
import time
import traceback
import warnings

import numpy as np
from napari.utils.notifications import NotificationSeverity, notification_manager
from qtpy.QtCore import qInstallMessageHandler
from qtpy.QtWidgets import QApplication
from tests.gui.tour_files import encoded, marker

from napari_flag import keys
from napari_flag.formatting import counted
from napari_flag.gui.controls.forms import MessageList
from napari_flag.gui.side_by_side_dock import SideBySideDock
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.raster import raster_of

MAPS = ("gene", "local", "unlike", "domains")
FOLLOWS_S = 2.0
"""Longest that a second canvas may lag behind its slide."""
QUIET = (
    "propagateSizeHints",
    "Could not parse stylesheet",
    "This plugin does not support",
    "XDG_RUNTIME_DIR",
)
"""What Qt says under Xvfb whatever is shown."""
EXPECTED = ("µm per pixel is not known", "Inconsistent units across layers")
"""Warnings that are meant for the person; the second one napari gives while a slide without µm/px is added to
others, before a plugin hears of it."""


class Witness:
    """Hears what nobody catches: exceptions, warnings, errors in the log, of napari and of Qt."""

    def __init__(self):
        self.heard = []

    def listen(self):
        sys.excepthook = lambda kind, error, trace: self.hear_error("exception", error)
        threading.excepthook = lambda args: self.hear_error("exception in a thread", args.exc_value)
        sys.unraisablehook = lambda args: self.hear_error("unraisable", args.exc_value)
        notification_manager.notification_ready.connect(self._on_notification)
        warnings.showwarning = self._on_warning
        qInstallMessageHandler(self._on_qt)
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._on_log
        logging.getLogger().addHandler(handler)
        logging.getLogger("vispy").addHandler(handler)

    def hear_error(self, what, error):
        self.heard.append(f"{what}: {''.join(traceback.format_exception(error))}")

    def _on_notification(self, said):
        if said.severity >= NotificationSeverity.WARNING and not any(e in said.message for e in EXPECTED):
            self.heard.append(f"notification: {said.message}")

    def _on_warning(self, message, category, filename, lineno, file=None, line=None):
        if issubclass(category, RuntimeWarning | UserWarning) and not any(
            e in str(message) for e in EXPECTED
        ):
            self.heard.append(f"{category.__name__}: {message} ({filename}:{lineno})")

    def _on_qt(self, kind, context, text):
        if not any(quiet in text for quiet in QUIET):
            self.heard.append(f"Qt: {text}")

    def _on_log(self, record):
        self.heard.append(f"log of {record.name}: {record.getMessage()}")

    def take(self):
        heard, self.heard = self.heard, []
        return heard


def faults(tourist):
    """Return a sentence for everything that is not as it must be now."""
    found = tourist.witness.take()
    for check in (_visible, _placed, _second_canvases, _nothing_lost, _drawn, _listed, _messages):
        try:
            found += check(tourist)
        except Exception as error:  # noqa: BLE001 - a check that cannot even look is a fault too
            found.append(f"{check.__name__}: {''.join(traceback.format_exception(error))}")
    return found


# --- layers ------------------------------------------------------------------------------------------
def _visible(tourist):
    """Only layers of the slide that is shown can be seen."""
    workspace = tourist.session.workspace
    shown = workspace.current
    found = [
        f"{layer.name!r} of {_name(workspace.of_layer(layer))} is seen on {_name(shown)}"
        for layer in tourist.viewer.layers
        if layer.visible and workspace.of_layer(layer) is not shown
    ]
    found += [
        f"the picture of {state.name} is not in the viewer"
        for state in workspace.slides
        if state.layer is not None and state.layer not in tourist.viewer.layers
    ]
    return found


def _name(state):
    return "no slide" if state is None else state.name


def _placed(tourist):
    """Every map lies on its own slide's tissue, and is painted with the values of its prediction."""
    session = tourist.session
    found = []
    for layer in tourist.viewer.layers:
        state = session.workspace.of_layer(layer)
        if state is None or state.layer is None:
            continue
        found += [f"{layer.name!r}: {fault}" for fault in _on_tissue(tourist, layer, state.layer, state)]
    gene_map = session.gene_map
    if gene_map.values is not None and not gene_map.covered:
        found += _painted(tourist, gene_map, session.state)
    values = gene_map.values
    drawn = None if values is None else values.adata
    if drawn is not session.adata and not tourist.predicting(session.state):
        found.append(f"the map is not of the prediction shown, {_name(session.result)}")
    return found


def _on_tissue(tourist, layer, picture, state):
    """Return where spots of `layer` are not where `picture` shows them, or not on tissue."""
    kind = layer.metadata.get(keys.LAYER_KIND)
    slide = tourist.slide_named(state.slide.name)
    if kind == "spots" and layer._type_string == "points":
        there = _pixels(picture, layer, np.asarray(layer.data, float))
        expected = np.asarray(state.table.spots.xy) if state.table is not None else there
        step = 1e-3
    elif kind in MAPS:
        adata = layer.metadata[keys.LAYER_ADATA]
        raster, centres = _raster(tourist, adata)
        if layer.data.shape != raster.lookup.shape:
            return [f"its raster {layer.data.shape} is not that of its prediction {raster.lookup.shape}"]
        there = _pixels(picture, layer, centres)
        expected, step = np.asarray(adata.obsm[keys.SPATIAL], float), abs(raster.matrix[0, 0])
        made_on = adata.uns[keys.PROVENANCE][keys.SLIDE_NAME]
        if made_on != slide.name:
            return [f"a prediction of {made_on} is drawn on {slide.name}"]
    else:
        return []
    found = []
    if len(there) != len(expected):
        return [f"{len(there)} spots drawn, {len(expected)} known"]
    away = np.abs(there - expected).max() if len(there) else 0.0
    if not away <= 2 * step + 0.5:
        found.append(f"spots lie {away:.1f} px from where they belong")
    left, top, right, bottom = slide.box
    slack = 14  # the tissue mask is coarser than the picture
    off = (there < (left - slack, top - slack)).any(1) | (there > (right + slack, bottom + slack)).any(1)
    if off.any():
        found.append(f"{int(off.sum())} of {len(off)} spots lie off the tissue of {slide.name}")
    return found


def _raster(tourist, adata):
    """Return the raster of a prediction, and the centre of each spot in it; worked out once."""
    known = tourist.rasters.get(id(adata))
    if known is None:
        raster = raster_of(adata)
        known = tourist.rasters[id(adata)] = (adata, raster, _centres(raster))
    return known[1:]


def _centres(raster):
    """(n, 2) mean (row, column) of the pixels of each spot."""
    seen = raster.lookup.ravel()
    rows, cols = (grid.ravel() for grid in np.indices(raster.lookup.shape, sparse=False))
    count = np.bincount(seen, minlength=raster.n_spots + 1)[1:]
    sums = [np.bincount(seen, place, minlength=raster.n_spots + 1)[1:] for place in (rows, cols)]
    return np.stack(sums, 1) / count[:, None]


def _pixels(picture, layer, points):
    """(n, 2) level-0 (x, y) of the picture where `points`, (n, 2) in the data of `layer`, are drawn."""
    ends = np.array([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]])
    there = np.array([picture.world_to_data(layer.data_to_world(end))[-2:] for end in ends])
    matrix = np.stack([(there[1] - there[0]) / 1000, (there[2] - there[0]) / 1000])
    return (points[:, -2:] @ matrix + there[0])[:, ::-1]


def _painted(tourist, gene_map, state):
    """Return what of a gene map is not painted with the numbers of its prediction."""
    adata, quantity = gene_map.values.adata, gene_map.quantity
    layer = gene_map.layer(quantity)
    if layer is None or not layer.visible or not gene_map.genes:
        return []
    code = tourist.slide_named(adata.uns[keys.PROVENANCE][keys.SLIDE_NAME]).code
    if state.slide is not None and tourist.slide_named(state.slide.name).code != code:
        return [f"values of slide {code} are shown on {state.name}"]
    raster, centres = _raster(tourist, adata)
    gene = list(adata.var_names).index(gene_map.genes[0])
    rows, cols = np.rint(centres).astype(int).T
    if not np.array_equal(raster.lookup[rows, cols], np.arange(1, raster.n_spots + 1)):
        return []
    shown = np.asarray(layer.data)[rows, cols]
    if keys.SEED not in adata.uns[keys.PROVENANCE]:  # a preview, NaN in spots that are still coming
        shown = shown[np.isfinite(shown)]
        good = (
            (shown > 3 * code) & (shown < 3 * code + 1) if quantity is Quantity.PREDICTED else shown == shown
        )
        return [] if good.all() else [f"the preview shows values of another slide than {code}: {shown[:3]}"]
    values = encoded(*marker(adata), adata.n_obs)[:, gene]
    expected = {
        Quantity.PREDICTED: values,
        Quantity.MEASURED: values + 1,
        Quantity.SAMPLE: values + 0.05,
        Quantity.SPREAD: 0.2 + 0.01 * values,
    }.get(quantity)
    if expected is None or np.allclose(shown, expected, atol=1e-4):
        return []
    return [
        f"{gene_map.genes[0]} {quantity.value} of {marker(adata)} is painted {shown[:4]}, not {expected[:4]}"
    ]


def _second_canvases(tourist):
    """What the second canvases show lies on the slide they name."""
    found = []
    for dock in tourist.window.findChildren(SideBySideDock):
        if dock not in tourist.alive_docks():
            continue
        state = tourist.session.state
        shows = [(dock.canvas, state, state), *((o.canvas, o.beside.state, o.beside) for o in dock.others)]
        for canvas, of, wanted in shows:
            shown = [la for la in canvas.model.layers if la.visible]
            pictures = [la for la in shown if la.metadata.get(keys.LAYER_KIND) == "slide"]
            if of is None or not pictures or of.slide is None:
                continue
            names = {la.metadata[keys.LAYER_SLIDE].name for la in pictures}
            if names != {of.slide.name}:
                found.append(f"second canvas of {of.name} shows the pictures {names}")
                continue
            for layer in canvas.model.layers:
                found += [
                    f"second canvas, {layer.name!r}: {f}" for f in _on_tissue(tourist, layer, pictures[0], of)
                ]
            if canvas.gene_map.values is not None:
                found += [f"second canvas: {f}" for f in _painted(tourist, canvas.gene_map, of)]
                if not _follows(tourist, canvas, wanted):
                    found.append(f"second canvas of {of.name} shows another prediction than it")
    return found


# --- nothing lost ------------------------------------------------------------------------------------
def _follows(tourist, canvas, wanted):
    """Say whether a second canvas shows the prediction it is to show, for which it has a turn of its own."""
    until = time.monotonic() + FOLLOWS_S
    while canvas.gene_map.values is not None and canvas.gene_map.values.adata is not wanted.adata:
        if time.monotonic() > until:
            return False
        tourist.pump(0.01)
    return True


def _nothing_lost(tourist):
    """Every prediction that was ever there is there, on its slide."""
    there = set()
    found = []
    for state in tourist.session.workspace.slides:
        if state.shown is not None and state.shown not in state.results:
            found.append(f"{state.name} shows a prediction that is not among its own")
        for result in state.results:
            code, run = marker(result.adata)
            there.add((code, run))
            name = tourist.slides[code].name
            if state.slide is not None and state.slide.name != name:
                found.append(f"prediction {code, run} of {name} is kept with {state.name}")
    lost = tourist.results - there
    tourist.results |= there
    if lost:
        found.append(f"predictions (slide, run) {sorted(lost)} are gone")
    return found


def _drawn(tourist):
    """Every region that was drawn and not removed is there, where it was drawn."""
    found = []
    for state in tourist.session.workspace.slides:
        wanted = tourist.regions.get(state.number, [])
        layers = [
            la
            for la in (*tourist.session.workspace.layers_of(state), *state.put_aside)
            if la._type_string == "shapes"
        ]
        count = sum(len(layer.data) for layer in layers)
        if count != len(wanted):
            found.append(f"{count} regions are drawn on {state.name}, {len(wanted)} must be")
        if state.layer is None:
            continue
        there = [_pixels(state.layer, la, np.asarray(corners, float)) for la in layers for corners in la.data]
        for corners in wanted:
            if not any(same_corners(t, corners) for t in there):
                now = [t[0].round().tolist() for t in there]
                found.append(f"a region of {state.name} was drawn from {corners[0].round()}, and is at {now}")
    unknown = set(tourist.regions) - {state.number for state in tourist.session.workspace.slides}
    if any(tourist.regions[number] for number in unknown):
        found.append(f"slides with regions are gone: {unknown}")
    return found


def same_corners(one, other):
    """Return whether two outlines have the same corners, whichever comes first: files do not keep that."""
    apart = np.abs(np.asarray(one)[:, None] - np.asarray(other)[None]).max(axis=2)
    return len(one) == len(other) and (apart.min(axis=0) < 1.0).all() and (apart.min(axis=1) < 1.0).all()


def read_regions(tourist, state):
    """Return the corners, level-0 (x, y), of what is drawn on `state` now."""
    layers = [la for la in tourist.session.workspace.layers_of(state) if la._type_string == "shapes"]
    return [_pixels(state.layer, la, np.asarray(corners, float)) for la in layers for corners in la.data]


# --- what is said ------------------------------------------------------------------------------------
def _listed(tourist):
    """List, result line and steps say what is so."""
    area, session = tourist.area, tourist.session
    if area is None:
        return []
    slides = session.workspace.slides
    listed = [area.slides.list.topLevelItem(row) for row in range(area.slides.list.topLevelItemCount())]
    found = []
    if [item.text(0) for item in listed] != [state.name for state in slides]:
        found.append(f"the list says {[item.text(0) for item in listed]}, not {[s.name for s in slides]}")
    bold = [item.text(0) for item in listed if item.font(0).bold()]
    if bold != ([session.state.name] if session.state is not None else []):
        found.append(f"the list shows {bold} as shown")
    if len({state.name for state in slides}) < len(slides):
        found.append("two slides have one name")
    adata = session.adata
    said = (
        "No result yet."
        if adata is None
        else f"{counted(adata.n_obs, 'spot')} × {counted(adata.n_vars, 'gene')}"
    )
    if area.predict.run_panel.result.text() != said:
        found.append(f"the Predict page says {area.predict.run_panel.result.text()!r}, not {said!r}")
    if session.result is not None and area.slides.result.value is not session.result:
        found.append("the list of predictions has another one chosen than is shown")
    found += [
        f"{state.name} is said to be {state.status!r}, and is not"
        for state in slides
        if state.status and not area.predict._run.waiting(state)
    ]
    step = area.predict.slide_step
    if session.state is not None and session.state.layer is not None:
        if step.choice.value is not session.state.layer:
            found.append(f"step 1 names {step.choice.value}, not {session.state.name}")
        mpp = session.slide.mpp or 0.0
        if abs(step.mpp.value - mpp) > 1e-4:
            found.append(f"step 1 says {step.mpp.value} µm/px, the slide {mpp}")
    return found


def _messages(tourist):
    """Nothing went wrong inside."""
    return [
        f"message: {text}"
        for widget in QApplication.allWidgets()
        if isinstance(widget, MessageList)
        for text in widget.texts
        if "Something went wrong" in text
    ]
