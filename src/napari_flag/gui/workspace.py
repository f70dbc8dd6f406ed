"""The slides of one viewer: each with its picture, spots, counts, predictions and regions.

Only the layers of the slide that is shown are visible, so that nothing of one slide is drawn over another.
A layer records the number of its slide (`keys.LAYER_OF`); it is placed by the frame of that slide, and goes
where its picture goes: moved, hidden, removed.
"""

import itertools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject, QTimer, Signal

from napari_flag import keys
from napari_flag.gui.controls.gl_context import later_in
from napari_flag.gui.slide_state import Result, SlideState, free_name, name_for, state_on_disk
from napari_flag.layers import slide_layers
from napari_flag.layers.frame import AXES, napari_units, place
from napari_flag.layers.spot_layers import selection_kept, set_shown, shown_together
from napari_flag.prediction_file import output_name
from napari_flag.slide_identity import belongs_on, belongs_with, has_content_of, is_made_on

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import SpotTable


UNNAMED: Final = "Prediction"
"""What a slide is called of which only a prediction is known, and that without a name."""
STILL_MS: Final = 200
"""A picture that is dragged moves many times a second; it lies still this long after the last."""
_NUMBERS: Final = itertools.count(1)
"""Of the slides of all viewers: a layer that is given to another viewer is of none of its slides."""
DERIVED: Final = ("gene", "local", "unlike")
"""Kinds of layers that are drawn anew from the prediction of the slide that is shown."""


class Workspace(QObject):
    """The slides of a viewer, of which one is shown.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).

    Attributes
    ----------
    slides
        In the order they were opened.
    current
        The one that is shown, None while there is none.
    later
        As of `layers.spot_layers.SpotLayers`.
    """

    listChanged = Signal()
    """A slide came or went, or what its line says changed."""
    currentChanged = Signal(object)
    """Another slide is shown: its `SlideState`, or None."""
    removed = Signal(object)
    """A slide is in the workspace no longer: its `SlideState`."""
    moved = Signal()
    """The slide that is shown is being moved; `framed` follows once it lies still."""
    framed = Signal()
    """The slide that is shown got another µm/px, or was moved."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.later = later_in(viewer)
        self._untouched = True
        self._arranging = False
        self._still = QTimer(self)
        self._still.setSingleShot(True)
        self._still.setInterval(STILL_MS)
        self._still.timeout.connect(self.framed)
        self._leaving: list[SlideState] = []
        self.slides: list[SlideState] = []
        self.current: SlideState | None = None

    # --- which slide -----------------------------------------------------------------------------
    def of_layer(self, layer: Any) -> SlideState | None:
        """Return the slide that `layer` belongs to; None for that of none, and for no layer."""
        number = None if layer is None else layer.metadata.get(keys.LAYER_OF)
        return next((state for state in self.slides if state.number == number), None)

    def layers_of(self, state: SlideState | None) -> list[Any]:
        """Return the layers of `state` in the viewer, the lowest first."""
        viewer = self._viewer()
        if viewer is None or state is None:
            return []
        return [layer for layer in viewer.layers if layer.metadata.get(keys.LAYER_OF) == state.number]

    @property
    def layers(self) -> list[Any]:
        """The layers of the slide that is shown, and those of none."""
        viewer = self._viewer()
        if viewer is None:
            return []
        wanted = (None,) if self.current is None else (None, self.current.number)
        return [layer for layer in viewer.layers if layer.metadata.get(keys.LAYER_OF) in wanted]

    def state_of(self, adata: "AnnData") -> SlideState | None:
        """Return the slide that `adata` was predicted on, None where it is not in the workspace.

        It is as `slide_identity.belongs_on` says of a slide, `belongs_with` of one of which only predictions
        are known.  A prediction that records no slide is taken for one of the slide shown, by its place.  Of
        several slides of one name and size it is that of the content recorded, else the one shown.
        """
        for state in self.slides:
            if any(result.adata is adata for result in state.results):
                return state
        shown_first = sorted(self.slides, key=lambda state: state is not self.current)
        fitting = [state for state in shown_first if self._fits(state, adata)]
        if len(fitting) > 1:
            slides = [(state, state.slide) for state in fitting if state.slide is not None]
            fitting = [state for state, slide in slides if has_content_of(adata, slide.path)] or fitting
        return next(iter(fitting), None)

    def _fits(self, state: SlideState, adata: "AnnData") -> bool:
        if state.slide is not None:
            return belongs_on(adata, state.slide, by_place=state is self.current)
        return bool(state.results) and belongs_with(adata, state.results[0].adata)

    @property
    def untouched(self) -> bool:
        """Whether there was no slide in it yet."""
        return self._untouched

    def add(self, name: str, slide: "Slide | None" = None) -> SlideState:
        """Add a slide; a name that is taken gets a number."""
        self._untouched = False
        state = SlideState(next(_NUMBERS), free_name(name, (state.name for state in self.slides)), slide)
        self.slides.append(state)
        self.listChanged.emit()
        return state

    def place_for(self, slide: "Slide", name: str = "") -> SlideState:
        """Return the slide of the workspace that `slide` is, or a new one, whose picture is not shown yet.

        Parameters
        ----------
        slide
            Open, with a pyramid.
        name
            As it is to be listed; "" takes its own.
        """
        with_slide_first = sorted(self.slides, key=lambda state: state.slide is None)
        same = next((state for state in with_slide_first if _is_picture_of(state, slide)), None)
        state = same or self.add(name or slide.name, slide)
        if state.slide is None:
            state.slide = slide
        return state

    def show(self, state: SlideState | None) -> None:
        """Show `state` and hide all others; a picture that is not there comes in a turn of its own."""
        viewer = self._viewer()
        if viewer is None or state is self.current:
            return
        camera = slide_layers.camera_of(viewer)
        if self.current is not None:
            self.current.camera = (tuple(camera.center), float(camera.zoom))
        with shown_together(viewer):
            with self._arrange():
                if self.current is not None:
                    self._hide(self.current)
                    self.current.visible = [la for la in self.current.visible if _kind(la) not in DERIVED]
                self.current = state
                self._share_units()  # before docks follow, who may have the canvas drawn
                if state is not None:
                    self._unhide(state)
            self.currentChanged.emit(state)
            self.listChanged.emit()
            if state is not None:
                self._raise(state)
        if state is not None:
            self._look_at(state)
            self.later(partial(self._select, state))
            if _is_incomplete(state):
                self.later(partial(self._bring_back, state))

    def _select(self, state: SlideState) -> None:
        """Select the picture that is shown where a layer of another slide is selected, which is hidden."""
        viewer = self._viewer()
        if viewer is None or state is not self.current or state.layer is None:
            return
        if self.of_layer(viewer.layers.selection.active) not in (None, state):
            viewer.layers.selection.active = state.layer

    def bring_picture(self, state: SlideState) -> None:
        """Show a slide, and its picture where that is not in the viewer."""
        if state is self.current:
            self._bring_back(state)
        else:
            self.show(state)

    def _look_at(self, state: SlideState) -> None:
        viewer = self._viewer()
        camera = slide_layers.camera_of(viewer)
        if state.camera is not None:
            camera.center, camera.zoom = state.camera
        elif self.layers_of(state):
            slide_layers.fit(viewer, self.layers_of(state))

    # --- results ---------------------------------------------------------------------------------
    def add_result(
        self, adata: "AnnData", state: SlideState | None = None, *, file: Path | None = None, name: str = ""
    ) -> SlideState:
        """Keep a prediction beside those of its slide, and show it there; return the slide.

        Parameters
        ----------
        adata
            The prediction.
        state
            Its slide; None finds it, or adds one of which only the prediction is known.
        file
            Where it was read from.
        name
            What it is called; "" takes that of the file, or of the weights, with the time.
        """
        state = state or self.state_of(adata) or self.add(output_name(adata) or UNNAMED)
        state.shown = next((result for result in state.results if result.adata is adata), None)
        if state.shown is None:
            state.shown = Result(
                adata, name_for(adata, state, file, name), file, as_filed=state_on_disk(file)
            )
            state.results.append(state.shown)
        self.listChanged.emit()
        return state

    def result_of(self, adata: "AnnData") -> Result | None:
        """Return what is known of a prediction, None where it is not in the workspace."""
        results = (result for state in self.slides for result in state.results)
        return next((result for result in results if result.adata is adata), None)

    def held(self, file: Path | None) -> Result | None:
        """Return the prediction that `file` holds, where it is open and neither was changed since."""
        now = state_on_disk(file)
        results = (result for state in self.slides for result in state.results if not result.unsaved)
        return None if now is None else next((result for result in results if result.as_filed == now), None)

    def changed(self, adata: "AnnData") -> None:
        """Record that draws, labels, domains or counts were added to a prediction, which its file lacks."""
        if (result := self.result_of(adata)) is not None:
            result.additions += 1
            self.listChanged.emit()

    def saved(self, adata: "AnnData", file: Path, additions: int | None = None) -> None:
        """Record that a prediction was saved as `file`, with so many additions; None for all there are."""
        if (result := self.result_of(adata)) is not None:
            result.file, result.as_filed = file, state_on_disk(file)
            result.in_file = result.additions if additions is None else additions
        self.listChanged.emit()

    @property
    def unsaved(self) -> tuple[Result, ...]:
        """Predictions of any slide that are not saved, or not with all that was added."""
        return tuple(result for state in self.slides for result in state.unsaved)

    def set_spots(self, state: SlideState, table: "SpotTable | None") -> None:
        """Give a slide its spots, or take them away."""
        state.table = table
        self.listChanged.emit()

    def set_status(self, state: SlideState, status: str) -> None:
        """Say what happens to a slide."""
        if state.status != status:
            state.status = status
            self.listChanged.emit()

    # --- layers that come and go -----------------------------------------------------------------
    def adopt(self, layer: Any) -> None:
        """Give a layer that was added to the viewer to its slide; a new picture is a slide that is shown."""
        layer.events.visible.connect(self._on_turned_on)
        if self.of_layer(layer) is not None:
            return
        slide = layer.metadata.get(keys.LAYER_SLIDE)
        if slide is not None:
            self._adopt_picture(layer, slide)
        elif self.current is not None and layer.metadata.get(keys.LAYER_ADATA) is None:
            layer.metadata[keys.LAYER_OF] = self.current.number

    def _adopt_picture(self, layer: Any, slide: "Slide") -> None:
        shown_first = sorted(self.slides, key=lambda state: state is not self.current)  # it is brought back
        state = next((s for s in shown_first if s.layer is None and _is_picture_of(s, slide)), None)
        if state is None:
            state = self.add(slide.name, slide)
        if state.slide is not slide:
            state.given_mpp = None
        state.slide, state.layer = slide, layer
        if layer.name != state.name:
            layer.name = state.name
        layer.metadata[keys.LAYER_OF] = state.number
        for change in ("scale", "translate", "rotate", "shear", "affine"):
            getattr(layer.events, change).connect(partial(self._on_moved, state))
        layer.events.visible.connect(partial(self._on_visible, state))
        layer.events.name.connect(partial(self._on_named, state))
        for other in self.layers_of(state):  # those of a prediction that was opened first
            if other is not layer:
                place(other, state.frame, state.frame)
        if self._arranging:
            return
        if state is not self.current:
            self.show(state)
        else:
            self.currentChanged.emit(state)
            self.listChanged.emit()
            self._look_at(state)

    def forget(self, layer: Any) -> None:
        """Follow a layer that was removed from the viewer: what belongs to a picture goes with it."""
        state = next((s for s in self.slides if s.layer is layer), None)
        if state is not None:
            before = state.frame
            state.layer = None
            for drawn in self.layers_of(state):
                if _is_drawn(drawn):  # the picture comes back as it was opened, not where it was moved to
                    place(drawn, state.frame, before)
            # napari may be removing several layers one by one; those of the slide follow after that
            QTimer.singleShot(0, partial(self._after_removal, state))

    def _after_removal(self, state: SlideState) -> None:
        viewer = self._viewer()
        if viewer is None or state.layer is not None or state not in self.slides:
            return
        drawn = any(_is_drawn(layer) for layer in self.layers_of(state))
        if not (state.results or state.put_aside or state.status or drawn):
            self.slides.remove(state)
            self.removed.emit(state)
        self._leave(state, [other for other in self.slides if other.layer is not None])

    def _leave(self, state: SlideState, others: list[SlideState]) -> None:
        """Show the last of `others` in place of a slide that goes, then take its layers out of the viewer.

        The maps of the slide that is shown stay: they show the next slide, or go with the last prediction.
        """
        if self.current is state and others:
            self.show(others[-1])
        elif self.current is state:
            with self._arrange():
                self._hide(state)
            self.current = None
            self.currentChanged.emit(None)
        self.listChanged.emit()
        self._leaving.append(state)
        self.later(partial(self._put_aside, state))

    def _put_aside(self, state: SlideState) -> None:
        """Take the layers of a slide out of the viewer, each in a turn of its own; what was drawn is kept."""
        viewer = self._viewer()
        going = [] if state is self.current or state.layer is not None else self.layers_of(state)
        if viewer is None or not going:  # nothing is left, or the slide came back
            if state in self._leaving:
                self._leaving.remove(state)
            return
        if _is_drawn(going[0]):
            state.put_aside.append(going[0])
        with self._arrange(), slide_layers.sliced_once(viewer, self.later):
            viewer.layers.remove(going[0])
        self.later(partial(self._put_aside, state))

    def _bring_back(self, state: SlideState) -> None:
        """Add the picture of the slide that is shown, and what was drawn on it, each in a turn of its own."""
        viewer = self._viewer()
        if viewer is None or state is not self.current or not _is_incomplete(state):
            return
        with self._arrange():
            if state.layer is None:
                self._add_picture(state)
            else:
                layer = state.put_aside.pop(0)
                with selection_kept(viewer):
                    viewer.add_layer(layer)
                place(layer, state.frame, state.frame)
                if layer in state.visible:
                    state.visible.remove(layer)
                    _show(layer, True)
        if _is_incomplete(state):
            self.later(partial(self._bring_back, state))

    def _add_picture(self, state: SlideState) -> None:
        """Add the picture of a slide beneath what lies on it."""
        viewer: Any = self._viewer()
        on_it = self.layers_of(state)
        assert state.slide is not None
        slide_layers.add_slide(viewer, state.slide, len(viewer.layers) - len(on_it))  # then see `adopt`
        for layer in on_it:  # of a prediction that was shown without its slide
            place(layer, state.frame, state.frame)
        self._look_at(state)
        self._share_units()
        self.later(partial(self._tell_of_picture, state))

    def _tell_of_picture(self, state: SlideState) -> None:
        if state is self.current:
            self.framed.emit()
        self.listChanged.emit()

    def remove(self, state: SlideState) -> None:
        """Take a slide out of the workspace, with its predictions."""
        if state in self.slides:
            self.slides.remove(state)
            self.removed.emit(state)
        state.layer = None
        self._leave(state, [other for other in self.slides if other.layer is not None] or self.slides)

    # --- one frame, one visibility -----------------------------------------------------------------
    def set_slide(self, state: SlideState, slide: "Slide") -> None:
        """Give a slide another µm/px; what is drawn stays put on the tissue, and on the screen."""
        viewer = self._viewer()
        if viewer is None:
            return
        before = state.frame
        if state.layer is not None:
            with self._arrange():
                slide_layers.set_mpp(viewer, state.layer, slide)
        state.slide = slide
        waiting = [] if state.layer is not None else [x for x in self.layers_of(state) if _is_drawn(x)]
        for layer in (*state.put_aside, *waiting):
            place(layer, state.frame, before)
        self._share_units()
        if state is self.current:
            self.framed.emit()
        self.listChanged.emit()

    def _on_moved(self, state: SlideState, event: Any = None) -> None:
        """Take all that lies on a picture along when a person moves it."""
        if self._arranging or state.layer is None:
            return
        frame = state.frame
        with self._arrange():
            for layer in self.layers_of(state):
                if layer is not state.layer:
                    place(layer, frame, frame)
        if state is self.current:
            self.moved.emit()
            self._still.start()

    def _on_visible(self, state: SlideState, event: Any = None) -> None:
        """Show the slide whose picture a person turned on; hide all of one whose picture was turned off."""
        if self._arranging or state.layer is None:
            return
        if state is not self.current:
            if state.layer.visible:
                self.show(state)
            return
        with self._arrange():
            if state.layer.visible:
                self._unhide(state)
            else:
                self._hide(state)

    def _on_turned_on(self, event: Any) -> None:
        """Show the slide of a hidden layer that a person turned on, whichever of its layers that is."""
        layer = event.source
        state = self.of_layer(layer)
        if layer.visible and not self._arranging and state is not None and state is not self.current:
            self.show(state)

    def _on_named(self, state: SlideState, event: Any = None) -> None:
        if state.layer is not None and state.layer.name != state.name:
            state.name = free_name(
                state.layer.name, (other.name for other in self.slides if other is not state)
            )
            if state.layer.name != state.name:  # of a slide whose picture napari does not know
                state.layer.name = state.name
            self.listChanged.emit()

    def _hide(self, state: SlideState) -> None:
        shown = [layer for layer in self.layers_of(state) if layer.visible]
        state.visible = [layer for layer in shown if layer is not state.layer]
        for layer in shown:
            _show(layer, False)

    def _raise(self, state: SlideState) -> None:
        """Move the layers of a slide to the top of the list, where they stand together."""
        viewer: Any = self._viewer()
        ours = self.layers_of(state)
        if ours and list(viewer.layers)[-len(ours) :] != ours:  # a slice would be a layer list of its own
            viewer.layers.move_multiple([viewer.layers.index(layer) for layer in ours], len(viewer.layers))

    def _unhide(self, state: SlideState) -> None:
        ours = self.layers_of(state)
        for layer in ours:
            if layer is state.layer or layer in state.visible:
                _show(layer, True)
        state.visible = [layer for layer in state.visible if layer in state.put_aside]

    def _share_units(self) -> None:
        """Give hidden layers the units of those shown: napari warns of different ones, seen or not."""
        shown = "pixel" if self.current is None else self.current.frame.unit
        for state in (*self.slides, *self._leaving):
            for layer in self.layers_of(state):
                units = (shown,) * layer.ndim
                if layer.ndim == len(AXES) and tuple(map(str, layer.units)) != napari_units(units):
                    layer.units = units

    @contextmanager
    def _arrange(self) -> Iterator[None]:
        """While layers are changed here, their events are not a person's."""
        before, self._arranging = self._arranging, True
        try:
            yield
        finally:
            self._arranging = before


def _is_picture_of(state: SlideState, slide: "Slide") -> bool:
    """Return whether `slide` is that of `state`, by its file, or what its predictions alone were made on."""
    if state.slide is not None:
        return state.slide.path == slide.path
    return bool(state.results) and is_made_on(state.results[0].adata, slide)


def _is_drawn(layer: Any) -> bool:
    """Return whether a person drew something in `layer`."""
    return _kind(layer) in (None, "region") and bool(len(layer.data))


def _is_incomplete(state: SlideState) -> bool:
    """Return whether the picture of a slide, or what was drawn on it, is not in the viewer."""
    return (state.layer is None and state.slide is not None) or bool(state.put_aside)


def _show(layer: Any, shown: bool) -> None:
    if _kind(layer) in DERIVED:
        set_shown(layer, shown)
    elif layer.visible != shown:
        layer.visible = shown


def _kind(layer: Any) -> Any:
    return layer.metadata.get(keys.LAYER_KIND)
