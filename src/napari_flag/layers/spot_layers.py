"""What all maps of spots have in common: image layers in a viewer, whose user may delete them.

napari's setters redraw whether or not anything changed; what is set here is set with as few as possible.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.layers.frame import Frame, announced_once, napari_units
from napari_flag.layers.gene_values import Limits
from napari_flag.layers.raster import SpotRaster

Slot = TypeVar("Slot")

BLENDING: Final = "translucent_no_depth"


class SpotLayers(Generic[Slot]):
    """Image layers over the spots of a prediction, each in a slot of its own.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).

    Attributes
    ----------
    frame
        Of the slide the spots lie on.
    bars
        Whether colour bars are shown; a map in the colours of another next to it needs none.
    later
        What is called with whatever can wait until napari has drawn what is there; by default nothing waits.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.frame = Frame()
        self._layers: dict[Slot, Any] = {}
        self._bars: dict[int, bool] = {}
        self.bars = True
        self.later: Callable[[Callable[[], Any]], Any] = lambda act: act()

    def _present(self) -> dict[Slot, Any]:
        """Return the layers that the user has not deleted."""
        self._layers = {slot: layer for slot, layer in self._layers.items() if layer in self._viewer.layers}
        return self._layers

    def _add(
        self,
        slot: Slot,
        picture: npt.NDArray[np.float32] | None,
        raster: SpotRaster,
        metadata: dict[str, Any],
        *,
        select: bool = False,
        **options: Any,
    ) -> Any:
        """Add and return the layer of `slot`, over all pictures and under the regions drawn on them.

        Parameters
        ----------
        slot
            Its name among the layers of this map.
        picture
            (h, w) float32 on `raster`; None for an empty one.
        raster
            Of the spots of the prediction.
        metadata
            Of the layer.
        select
            Whether it becomes the active layer; else the one that was stays so.
        options
            Of napari's image layer.
        """
        from napari.layers import Image

        if picture is None:
            picture = np.full(raster.lookup.shape, np.nan, np.float32)
        options = {"interpolation2d": "nearest", "blending": BLENDING, **options}
        layer = Image(picture, **options, **raster.options(self.frame, metadata))
        with nullcontext() if select else selection_kept(self._viewer):
            self._viewer.layers.insert(_over_pictures(self._viewer.layers), layer)
        self._layers[slot] = layer
        return layer

    def _show(self, layer: Any, *, bar: bool = True) -> None:
        """Show a layer, and its colour bar; a first bar takes napari about as long as a layer, and waits."""
        bar = bar and self.bars
        self._bars[id(layer)] = bar

        def show_bar() -> None:
            if layer.visible and layer in self._viewer.layers:
                set_shown(layer, True, bar=self._bars[id(layer)])

        if not layer.visible:
            layer.visible = True
        if bar and not layer.colorbar.visible:
            self.later(show_bar)
        else:
            show_bar()

    def _place(self, raster: SpotRaster) -> None:
        """Place all layers in the frame."""
        for layer in self._present().values():
            set_place(layer, raster.options(self.frame))

    def _remove(self) -> None:
        """Hide all layers that are still there, and remove each in a turn of its own."""
        layers = list(self._present().values())
        self._layers.clear()
        for layer in layers:
            set_shown(layer, False)
            self.later(partial(self._take_out, layer))

    def _take_out(self, layer: Any) -> None:
        if layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


def _over_pictures(layers: Sequence[Any]) -> int:
    """Return where a map goes in among `layers`: over all pictures, under what is drawn on them."""
    from napari.layers import Image

    pictures = (
        place
        for place, layer in enumerate(layers)
        if isinstance(layer, Image) and layer.metadata.get(keys.LAYER_KIND) != "spots"
    )
    return 1 + max(pictures, default=-1)


class SpotLayer(SpotLayers[None]):
    """One image layer over the spots of a prediction."""

    @property
    def layer(self) -> Any:
        """The layer, or None while there is none or after the user deleted it."""
        return self._present().get(None)


def set_shown(layer: Any, shown: bool, *, bar: bool = True) -> None:
    """Show or hide a layer, and its colour bar; without `bar` that stays away: a legend names the colours."""
    if layer.visible != shown:
        layer.visible = shown
    if getattr(layer, "colorbar", None) is not None and layer.colorbar.visible != (shown and bar):
        layer.colorbar.visible = shown and bar


def is_drawn_in(layer: Any) -> bool:
    """Return whether a person is adding shapes or points to `layer`, which ends where it is deselected."""
    return str(getattr(layer, "mode", "")).startswith("add")


@contextmanager
def selection_kept(viewer: Any) -> Iterator[None]:
    """Leave selected what is selected while layers are added.

    napari selects a new layer, and shows its controls, which takes a fifth of what adding it does.
    """
    selection = viewer.layers.selection
    chosen = set(selection)
    with selection.events.blocker_all():
        yield
        if set(selection) != chosen:
            selection.clear()
            selection.update(layer for layer in chosen if layer in viewer.layers)


@contextmanager
def shown_together(viewer: Any) -> Iterator[None]:
    """Have napari arrange its scene once, after the block, for all layers shown, hidden or moved in it.

    napari's canvas does so whenever a layer's visibility or the order of the list changes, for all layers
    each time.  Where a napari does it otherwise nothing is held back.
    """
    if id(viewer) in _TOGETHER:
        yield
        return
    emitters = [layer.events.visible for layer in viewer.layers]
    emitters.append(viewer.layers.events.reordered)
    before = _seen(viewer)
    arrange: dict[Any, None] = {}
    with ExitStack() as blocked:
        for emitter in emitters:
            for callback in _arranging(emitter):
                arrange[callback] = None
                blocked.enter_context(emitter.blocker(callback))
        _TOGETHER.add(id(viewer))
        blocked.callback(_TOGETHER.discard, id(viewer))
        yield
    if _seen(viewer) != before:
        for callback in arrange:
            callback()


def _seen(viewer: Any) -> list[tuple[Any, bool]]:
    return [(layer, bool(layer.visible)) for layer in viewer.layers]


def _arranging(emitter: Any) -> Iterable[Any]:
    """Return what arranges the scene of a canvas among the callbacks of `emitter`."""
    for callback in emitter.callbacks:
        owner, name = callback if isinstance(callback, tuple) else (None, "")
        if name == ARRANGES and owner() is not None:
            yield getattr(owner(), name)


_TOGETHER: Final[set[int]] = set()
"""Viewers within `shown_together`."""
ARRANGES: Final = "_update_scenegraph"
"""Of napari's canvas (0.9)."""


def set_place(layer: Any, options: Mapping[str, Any]) -> None:
    """Place a layer that another slide had as `options` say (see `SpotRaster.options`)."""
    with announced_once(layer):
        _set_place(layer, options)
    layer.metadata.update(options["metadata"])


def _set_place(layer: Any, options: Mapping[str, Any]) -> None:
    resting = {"scale": np.ones(2), "translate": np.zeros(2), "affine": np.eye(3)}
    for name, rest in resting.items():
        wanted = np.asarray(options.get(name, rest))
        now = layer.affine.affine_matrix if name == "affine" else getattr(layer, name)
        if not np.array_equal(np.asarray(now), wanted):
            setattr(layer, name, wanted)
    if tuple(map(str, layer.units)) != tuple(napari_units(options["units"])):
        layer.units = options["units"]


def empty(layer: Any, raster: SpotRaster, frame: Frame, metadata: Mapping[str, Any]) -> None:
    """Hide a layer, and have it show nothing where `raster` lies in `frame`, whoever turns it on."""
    set_shown(layer, False)
    layer.data = np.full(raster.lookup.shape, np.nan, np.float32)
    set_place(layer, raster.options(frame, metadata))


def set_limits(layer: Any, limits: Limits, span: Limits) -> None:
    """Set contrast limits, and the `span` of their slider, which includes them.

    Limits go first: napari widens the span by itself, but cuts limits that a new span does not include.
    """
    before = (tuple(layer.contrast_limits), tuple(layer.contrast_limits_range))
    limits_event, span_event = layer.events.contrast_limits, layer.events.contrast_limits_range
    with limits_event.blocker(), span_event.blocker():  # napari tells of each step, and draws the bar at each
        layer.contrast_limits = limits
        layer.contrast_limits_range = span
    now = (tuple(layer.contrast_limits), tuple(layer.contrast_limits_range))
    if now[1] != before[1]:
        span_event()
    if now != before:
        limits_event()


def set_colormap(layer: Any, colormap: Any) -> None:
    """Set a colour map, by its name or as napari's own object."""
    if layer.colormap.name != getattr(colormap, "name", colormap):
        layer.colormap = colormap


def banded_colormap(name: str, colours: Any) -> Any:
    """Return napari's colour map of whole numbers, a band for each of `colours`.

    With contrast limits −0.5 and ``len(colours) − 0.5``, number *i* has colour *i*.
    """
    from napari.utils.colormaps import Colormap

    edges = np.linspace(0.0, 1.0, len(colours) + 1)
    return Colormap(list(colours), name=name, controls=edges, interpolation="zero")
