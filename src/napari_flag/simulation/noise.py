"""Random fields: the irregularity that everything drawn is made from."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

Field: TypeAlias = npt.NDArray[np.floating[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]
Points: TypeAlias = npt.NDArray[np.float64]

COARSE_UM = 2.8
"""Step of the grid the anatomy is laid out on: a third of a nucleus."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A square slide of `size_px` pixels of `mpp` µm, and the coarser grid it is planned on."""

    size_px: int
    mpp: float

    @property
    def factor(self) -> int:
        """Pixels per step of the coarse grid."""
        return max(1, round(COARSE_UM / self.mpp))

    @property
    def step_um(self) -> float:
        """Step of the coarse grid in µm."""
        return self.factor * self.mpp

    @property
    def cells(self) -> int:
        """Steps of the coarse grid along one side."""
        return -(-self.size_px // self.factor)

    @property
    def side_um(self) -> float:
        """Side of the slide in µm."""
        return self.size_px * self.mpp

    def grid_um(self) -> tuple[Field, Field]:
        """Return x and y in µm of the centres of the coarse grid, (cells, cells) each."""
        axis = ((np.arange(self.cells) + 0.5) * self.step_um).astype(np.float32)
        x, y = np.meshgrid(axis, axis)
        return x, y

    def noise(self, rng: np.random.Generator, scale_um: float) -> Field:
        """Return a smooth field on the coarse grid, mean 0, variance 1, about `scale_um` wide."""
        return smooth_noise(rng, self.cells, scale_um / self.step_um)

    def fractal(self, rng: np.random.Generator, scale_um: float, octaves: int = 3) -> Field:
        """Return `noise` with finer and weaker noise on top, as borders in tissue have it."""
        total = sum(
            (self.noise(rng, scale_um / 2**k) * np.float32(0.5**k) for k in range(octaves)),
            start=np.zeros((self.cells, self.cells), np.float32),
        )
        return standardised(total)

    def refine(self, field: Field, size_px: int | None = None) -> Field:
        """Return a coarse field at full resolution (or at `size_px` pixels a side)."""
        side = self.factor * self.cells
        keep = self.size_px
        if size_px is not None:
            side = round(side * size_px / self.size_px)
            keep = size_px
        return resized(field, side)[:keep, :keep]

    def at(self, field: Field, xy_um: Points) -> Field:
        """Return a coarse field at (n, 2) points (x, y) in µm."""
        place = (xy_um / self.step_um - 0.5).T[::-1]
        values: Field = map_coordinates(field, place, order=1, mode="nearest").astype(np.float32)
        return values


def resized(field: Field, side: int) -> Field:
    """Return a square field resampled bicubically to `side` pixels, pixel centres kept in place."""
    image = Image.fromarray(np.ascontiguousarray(field, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def standardised(field: Field) -> Field:
    """Return the field with mean 0 and variance 1."""
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def smooth_noise(rng: np.random.Generator, side: int, scale: float) -> Field:
    """Return (side, side) noise, mean 0 and variance 1, whose bumps are about `scale` pixels."""
    if scale < 2:
        grain = rng.standard_normal((side, side), np.float32)
        return standardised(gaussian_filter(grain, max(scale, 0.1) / 2))
    knots = max(4, int(np.ceil(side / scale)) + 3)
    grid = rng.standard_normal((knots, knots), np.float32)
    grown = resized(grid, int(np.ceil(knots * scale)))
    room = grown.shape[0] - side
    top, left = rng.integers(0, room + 1, 2) if room > 0 else (0, 0)
    return standardised(grown[top : top + side, left : left + side])


def smeared(noise: Field, angle: Field, mask: Mask, reach: int, step: float = 1.4) -> Field:
    """Return noise averaged along the direction `angle` (line integral convolution).

    Fibres come out of white noise this way.  Computed where `mask` is true, 0 elsewhere.

    References
    ----------
    Cabral and Leedom, "Imaging vector fields using line integral convolution", SIGGRAPH 1993.
    """
    side = noise.shape[0]
    rows, cols = np.nonzero(mask)
    dx, dy = np.cos(angle).ravel() * step, np.sin(angle).ravel() * step
    flat = noise.ravel()
    total = flat[rows * side + cols].copy()
    for way in (1.0, -1.0):
        x, y = cols.astype(np.float32), rows.astype(np.float32)
        for _ in range(reach):
            here = y.astype(np.int32) * side + x.astype(np.int32)
            x = np.clip(x + way * dx[here], 0, side - 1)
            y = np.clip(y + way * dy[here], 0, side - 1)
            total += flat[y.astype(np.int32) * side + x.astype(np.int32)]
    out = np.zeros_like(noise)
    out[mask] = total / (2 * reach + 1)
    return out


def soft(signed_um: Field, width_um: float) -> Field:
    """Return how much a place is inside (0 to 1) from its signed distance to the border."""
    return np.asarray(1 / (1 + np.exp(-np.clip(signed_um / width_um, -30, 30))), np.float32)
