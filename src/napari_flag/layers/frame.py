"""From level-0 pixels to where napari draws: µm when the resolution is known, pixels when not.

A layer's place follows from its geometry in level-0 px and the frame of its slide, and the layer records the
frame it is placed with: to place it anew never multiplies twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.prediction_file import um_per_px

FloatArray: TypeAlias = npt.NDArray[np.float64]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]
"""(3, 3), as tuples, so that frames can be compared."""

AXES: Final = ("y", "x")
PIXELS_NOTICE: Final = (
    "The slide's µm per pixel is not known, so everything is drawn in pixels; "
    "set µm/px to see real distances."
)


@dataclass(frozen=True, slots=True)
class Frame:
    """How all layers of one slide are placed; one frame for all of them, so units never mix.

    Parameters
    ----------
    mpp
        µm per level-0 pixel, or None: then every layer is in pixels, and `notice` says so.
    moved
        Where a person moved, turned or scaled the slide's picture to, world (y, x, 1); None: nowhere.
    slide
        Which slide of the workspace the layers belong to; None outside of a workspace.
    """

    mpp: float | None = None
    moved: Matrix | None = None
    slide: int | None = None

    @property
    def unit(self) -> str:
        """The unit of every layer: "um" or "pixel"."""
        return "pixel" if self.mpp is None else "um"

    @property
    def notice(self) -> str | None:
        """What the user must know of the placement, if anything."""
        return PIXELS_NOTICE if self.mpp is None else None

    @property
    def um_per_px(self) -> float:
        """World units per level-0 pixel: µm, or 1 when the resolution is not known."""
        return 1.0 if self.mpp is None else self.mpp

    def options(
        self,
        step: float = 1.0,
        origin: tuple[float, float] = (0.0, 0.0),
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the layer options that place an array whose pixels are `step` level-0 px apart.

        Parameters
        ----------
        step
            Level-0 pixels per array pixel.
        origin
            (x, y) level-0 px of the centre of array pixel (0, 0).
        metadata
            Of the layer; what it is placed with is added.
        """
        unit = self.um_per_px
        moved = {} if self.moved is None else {"affine": np.array(self.moved)}
        return {
            "scale": (step * unit, step * unit),
            "translate": (origin[1] * unit, origin[0] * unit),
            **moved,
            **self._shared_options(metadata),
        }

    def affine_options(
        self, matrix: npt.NDArray[np.float64], metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the options that place an array by `matrix`.

        Parameters
        ----------
        matrix
            (3, 3), takes (row, column, 1) of the array to (y, x, 1) in level-0 px.
        metadata
            As of `options`.
        """
        return {"affine": self.matrix @ matrix, **self._shared_options(metadata)}

    @property
    def matrix(self) -> FloatArray:
        """(3, 3) float64, takes level-0 (y, x, 1) to the world."""
        scaled = np.diag([self.um_per_px, self.um_per_px, 1.0])
        return scaled if self.moved is None else np.array(self.moved) @ scaled

    def recorded(self) -> dict[str, Any]:
        """Return what a layer placed in this frame records in its metadata."""
        placed = {keys.LAYER_UM_PER_PX: self.um_per_px, keys.LAYER_MOVED: self.moved}
        return placed if self.slide is None else {**placed, keys.LAYER_OF: self.slide}

    def _shared_options(self, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
        return {
            "units": (self.unit, self.unit),
            "axis_labels": AXES,
            "metadata": {**(metadata or {}), **self.recorded()},
        }


def place(layer: Any, frame: Frame, otherwise: Frame) -> None:
    """Place `layer` in `frame`, wherever the user has moved it on the tissue.

    Parameters
    ----------
    layer
        A layer of ours, or of the user.
    frame
        Of the slide it lies on.
    otherwise
        The frame of a layer that does not record its own: that of its slide until now.
    """
    known = keys.LAYER_UM_PER_PX in layer.metadata
    if known:
        now = Frame(layer.metadata[keys.LAYER_UM_PER_PX], layer.metadata.get(keys.LAYER_MOVED))
        layer.metadata.update(frame.recorded())
    else:
        if otherwise.mpp is None and str(layer.units[-1]) != "pixel":
            return  # a picture that knows its own size in µm
        now = otherwise
    units = (*(str(unit) for unit in layer.units[:-2]), frame.unit, frame.unit)
    with announced_once(layer):
        _transform(layer, frame.matrix @ np.linalg.inv(now.matrix))
        if tuple(map(str, layer.units)) != napari_units(units):
            layer.units = units


PLACING: Final = ("scale", "translate", "rotate", "shear", "affine", "units")
"""What a layer tells of where it lies."""


@contextmanager
def announced_once(layer: Any) -> Iterator[None]:
    """Have `layer` tell where it lies after the block, and only of what changed.

    napari slices a layer, draws it and lays out all layers in each setter, between two of which the layer
    would lie where it never should.
    """
    slices = getattr(layer.events, "set_data", None)
    before = {name: getattr(layer, name) for name in PLACING}
    with ExitStack() as blocked:
        for name in PLACING:
            blocked.enter_context(getattr(layer.events, name).blocker())
        if slices is not None:
            blocked.enter_context(slices.blocker())
        yield
    changed = [name for name in PLACING if not _same(before[name], getattr(layer, name))]
    if changed and slices is not None and layer.visible:
        slices()
    for name in changed:
        getattr(layer.events, name)()


def _same(before: Any, now: Any) -> bool:
    if hasattr(before, "affine_matrix"):
        return np.array_equal(before.affine_matrix, now.affine_matrix)
    return before == now if isinstance(before, tuple) else np.array_equal(before, now)


def _transform(layer: Any, change: FloatArray) -> None:
    """Apply `change`, (3, 3) in the world, to where `layer` is."""
    if np.allclose(change, np.eye(3), rtol=0, atol=1e-12):
        return
    factor = change[0, 0]
    linear, shift = layer.affine.linear_matrix, layer.affine.translate
    if np.allclose(change, np.diag([factor, factor, 1.0]), rtol=1e-9, atol=1e-12):
        layer.scale = np.asarray(layer.scale) * _last_two(layer, factor)
        layer.translate = np.asarray(layer.translate) * _last_two(layer, factor)
        if np.any(shift):
            layer.affine = type(layer.affine)(
                linear_matrix=linear, translate=np.asarray(shift) * _last_two(layer, factor)
            )
        return
    whole = np.eye(layer.ndim + 1)
    whole[-3:, -3:] = change
    layer.affine = whole @ np.asarray(layer.affine.affine_matrix)


def moved_by_hand(layer: Any, mpp: float | None) -> Matrix | None:
    """Return where a person moved the slide's picture `layer` to, None where it lies as it was opened."""
    ends = np.array([layer.data_to_world(at)[-2:] for at in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))])
    placed = np.eye(3)
    placed[:2] = np.column_stack([ends[1] - ends[0], ends[2] - ends[0], ends[0]])
    moved = placed @ np.linalg.inv(Frame(mpp).matrix)
    if np.allclose(moved, np.eye(3), rtol=1e-9, atol=1e-9):
        return None
    return tuple(map(tuple, moved.tolist()))


def napari_units(units: Iterable[str]) -> tuple[str, ...]:
    """Return units as napari writes those it was given."""
    return tuple("micrometer" if unit == "um" else unit for unit in units)


def _last_two(layer: Any, factor: float) -> npt.NDArray[np.float64]:
    factors = np.ones(layer.ndim)
    factors[-2:] = factor
    return factors


def frame_of(adata: Any) -> Frame:
    """Return the frame that `adata` was predicted in."""
    return Frame(um_per_px(adata))
