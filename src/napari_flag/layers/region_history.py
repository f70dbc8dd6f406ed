"""Undo and redo of what is drawn: the states a Shapes layer went through, and the way back to each.

A step is what a person did at once: a shape drawn, moved or removed, a vertex set, a name, a file imported.
Holds no Qt.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt

from napari_flag.layers.region_shapes import NAME, drop_rows_without_shape, set_features

if TYPE_CHECKING:
    import pandas as pd


FloatArray = npt.NDArray[np.float64]
MOST_STEPS: Final = 100
"""Steps that one layer can go back."""
DONE: Final = ("added", "changed", "removed")
"""napari's actions on a Shapes layer that are over; "adding" and the like announce one."""
STYLE_EVENTS: Final = ("edge_color", "face_color", "edge_width")

_clock = count(1)


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a Shapes layer holds at one moment.

    Parameters
    ----------
    kinds
        "polygon", "ellipse" and so on, one a shape.
    corners
        (k, 2) float64 each, (y, x) in the layer's own coordinates.
    features
        One row a shape: name, class, colour, group, hole.
    edge_color, face_color
        (shapes, 4) float, red, green, blue, alpha from 0 to 1.
    edge_width, z_index
        One a shape.
    """

    kinds: tuple[str, ...]
    corners: tuple[FloatArray, ...]
    features: "pd.DataFrame"
    edge_color: FloatArray
    face_color: FloatArray
    edge_width: tuple[float, ...]
    z_index: tuple[int, ...]

    @classmethod
    def of(cls, layer: Any, before: "State | None" = None) -> "State":
        """Return the state of `layer`; corners that did not change are shared with `before`."""
        known = () if before is None else before.corners
        corners = []
        for row, data in enumerate(layer.data):
            same = row < len(known) and np.array_equal(known[row], data)
            corners.append(known[row] if same else np.array(data, np.float64))
        return cls(
            tuple(str(kind) for kind in layer.shape_type),
            tuple(corners),
            layer.features.copy(),
            np.array(layer.edge_color, float).reshape(-1, 4),
            np.array(layer.face_color, float).reshape(-1, 4),
            tuple(layer.edge_width),
            tuple(layer.z_index),
        )

    def shared(self, other: "State") -> int:
        """Return how many of the first shapes have the same outlines in both."""
        pairs = zip(self.kinds, self.corners, other.kinds, other.corners, strict=False)
        for row, (kind, here, other_kind, there) in enumerate(pairs):
            if kind != other_kind or not (here is there or np.array_equal(here, there)):
                return row
        return min(len(self.kinds), len(other.kinds))

    def outlines_equal(self, other: "State") -> bool:
        """Return whether both have the same shapes, whatever their names and colours."""
        return len(self.kinds) == len(other.kinds) == self.shared(other)

    def style_equals(self, other: "State") -> bool:
        """Return whether colours and widths are the same."""
        return (
            np.array_equal(self.edge_color, other.edge_color)
            and np.array_equal(self.face_color, other.face_color)
            and self.edge_width == other.edge_width
        )

    def equals(self, other: "State") -> bool:
        """Return whether nothing differs that a person could see."""
        return (
            self.outlines_equal(other) and self.style_equals(other) and self.features.equals(other.features)
        )

    def only_named(self, other: "State") -> bool:
        """Return whether `other` differs in names alone that were missing here."""
        if NAME not in self.features or not (self.outlines_equal(other) and self.style_equals(other)):
            return False
        rest = [column for column in self.features if column != NAME]
        if not self.features[rest].equals(other.features[rest]):
            return False
        names = zip(self.features[NAME], other.features[NAME], strict=True)
        return all(was == now or not was for was, now in names)

    def show(self, layer: Any) -> None:
        """Make `layer` hold this state; shapes that are the same stay untouched, which is faster."""
        now = State.of(layer)
        kept = self.shared(now)
        layer.selected_data = set()
        if kept < len(now.kinds):
            layer.remove(list(range(kept, len(now.kinds))))
        if kept < len(self.kinds):
            layer.add(
                [corners.copy() for corners in self.corners[kept:]],
                shape_type=list(self.kinds[kept:]),
                edge_width=list(self.edge_width[kept:]),
                edge_color=self.edge_color[kept:],
                face_color=self.face_color[kept:],
                z_index=list(self.z_index[kept:]),
            )
        set_features(layer, self.features.copy())
        if not self.style_equals(State.of(layer)):
            layer.edge_color, layer.face_color = self.edge_color, self.face_color
            layer.edge_width = list(self.edge_width)
        if tuple(layer.z_index) != self.z_index:
            layer.z_index = list(self.z_index)


class RegionHistory:
    """The steps of one Shapes layer; it follows the layer by itself.

    Parameters
    ----------
    layer
        A Shapes layer; it is not kept alive.

    Attributes
    ----------
    stamp
        Grows with every step, of any layer: the layer changed last has the highest.
    moved
        Each is called after an undo or redo.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = ref(layer)
        self._now = State.of(layer)
        self._past: list[State] = []
        self._future: list[State] = []
        self._held = 0
        self.stamp = 0
        self.moved: list[Callable[[], object]] = []
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_other)
        for name in STYLE_EVENTS:
            getattr(layer.events, name).connect(self._on_other)

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to do again."""
        return bool(self._future)

    def undo(self) -> bool:
        """Take the last step back; False where there is none, or while a shape is being drawn."""
        return self._go(self._past, self._future)

    def redo(self) -> bool:
        """Do again what was taken back last; False where there is none, or while a shape is being drawn."""
        return self._go(self._future, self._past)

    @contextmanager
    def one_step(self) -> Iterator[None]:
        """Count all that happens to the layer inside as one step."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._record()

    def _go(self, source: list[State], back: list[State]) -> bool:
        layer = self._layer()
        if layer is None or not source or layer._is_creating:
            return False
        back.append(self._now)
        self._now = source.pop()
        self._held += 1
        try:
            self._now.show(layer)
        finally:
            self._held -= 1
        self.stamp = next(_clock)
        for call in list(self.moved):
            call()
        return True

    def _on_data(self, event: Any) -> None:
        layer = self._layer()
        if layer is None or str(getattr(event, "action", "")) not in DONE:
            return
        if self._held == 0:
            rows = tuple(getattr(event, "data_indices", ()))
            drop_rows_without_shape(layer, rows[0] if str(event.action) == "changed" and rows else None)
        self._record()

    def _on_other(self, event: Any = None) -> None:
        layer = self._layer()
        if layer is not None and not layer._is_creating:
            self._record()

    def _record(self) -> None:
        """Add a step where the layer is not as it was."""
        layer = self._layer()
        if layer is None or self._held or len(layer.features) != len(layer.data):
            return
        state = State.of(layer, self._now)
        if state.equals(self._now):
            return
        self._future.clear()
        if not self._continues(state):
            self._past.append(self._now)
            del self._past[:-MOST_STEPS]
        self._now = state
        self.stamp = next(_clock)

    def _continues(self, state: State) -> bool:
        """Return whether `state` belongs to the last step: a name given by itself, a slider pulled on."""
        if self._now.only_named(state):
            return True
        before = self._past[-1] if self._past else None
        return (
            before is not None
            and before.outlines_equal(self._now)
            and self._now.outlines_equal(state)
            and not before.style_equals(self._now)
            and before.features.equals(self._now.features)
            and self._now.features.equals(state.features)
        )


_HISTORIES: "WeakKeyDictionary[Any, RegionHistory]" = WeakKeyDictionary()


def history_of(layer: Any) -> RegionHistory:
    """Return the history of a Shapes layer, which begins when it is first asked for.

    From then on Ctrl+Z and Ctrl+Shift+Z over the picture go through it while the layer is active
    (⌘ on macOS).
    napari has no such keys for Shapes; Ctrl+Y is its switch between 2-D and 3-D.
    """
    if layer not in _HISTORIES:
        from app_model.types import KeyCode, KeyMod

        history = _HISTORIES[layer] = RegionHistory(layer)
        for keys, act in (
            (KeyMod.CtrlCmd | KeyCode.KeyZ, history.undo),
            (KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyZ, history.redo),
        ):
            layer.bind_key(keys, lambda _, act=act: act() and None, overwrite=True)
    return _HISTORIES[layer]
