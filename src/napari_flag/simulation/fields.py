"""Random fields and the canvas that anatomy and stains are drawn from."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

Field: TypeAlias = npt.NDArray[np.floating[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]
Points: TypeAlias = npt.NDArray[np.float64]

COARSE_UM = 2.8
"""Step of the grid the anatomy is laid out on: a third of a nucleus."""
SMEAR_STEP = 1.4
"""Pixels between two values that are averaged along a fibre."""


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


def smeared(noise: Field, angle: Field, mask: Mask, reach: int) -> Field:
    """Return noise averaged along the direction `angle` (line integral convolution).

    Fibres come out of white noise this way.  Computed where `mask` is true, 0 elsewhere.

    References
    ----------
    Cabral and Leedom, "Imaging vector fields using line integral convolution", SIGGRAPH 1993.
    """
    side = noise.shape[0]
    rows, cols = np.nonzero(mask)
    dx, dy = np.cos(angle).ravel() * SMEAR_STEP, np.sin(angle).ravel() * SMEAR_STEP
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


FAR = np.float32(-500.0)
"""Signed distance in µm where a structure is nowhere near."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A round structure with an irregular border."""

    x: float
    y: float
    radius: float
    stretch: float
    angle: float
    wave: tuple[tuple[float, float], ...]

    def signed(self, x: Field, y: Field) -> Field:
        """Return the signed distance in µm of places x, y in µm."""
        dx, dy = x - self.x, y - self.y
        u = (dx * np.cos(self.angle) + dy * np.sin(self.angle)) / self.stretch
        v = (dy * np.cos(self.angle) - dx * np.sin(self.angle)) * self.stretch
        turn = np.arctan2(v, u)
        border = 1 + sum(a * np.cos(k * turn + p) for k, (a, p) in enumerate(self.wave, start=2))
        return np.asarray(self.radius * border - np.hypot(u, v), np.float32)


def blob(rng: np.random.Generator, x: float, y: float, radius: float, uneven: float = 0.07) -> Blob:
    """Return a `Blob` of random shape."""
    wave = tuple(
        (float(rng.normal(0, uneven / k**0.5)), float(rng.uniform(0, 2 * np.pi))) for k in range(1, 6)
    )
    stretch = float(np.exp(abs(rng.normal(0, 0.22))))
    return Blob(x, y, radius, stretch, float(rng.uniform(0, np.pi)), wave)


class Planner:
    """Lays out one section on a canvas."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.rng = rng
        self.x, self.y = canvas.grid_um()
        self.taken: list[tuple[float, float, float]] = []

    def empty(self) -> Field:
        """Return a field with nothing in it."""
        return np.full(self.x.shape, FAR, np.float32)

    def stamp(self, field: Field, shape: Blob, shift_um: float = 0.0) -> None:
        """Add a blob to a signed field in place, its border moved outwards by `shift_um`."""
        step = self.canvas.step_um
        reach = shape.radius * shape.stretch * 1.4 + 120.0
        rows = slice(max(0, int((shape.y - reach) / step)), max(0, int((shape.y + reach) / step)))
        cols = slice(max(0, int((shape.x - reach) / step)), max(0, int((shape.x + reach) / step)))
        part = field[rows, cols]
        signed = shape.signed(self.x[rows, cols], self.y[rows, cols]) + np.float32(shift_um)
        np.maximum(part, signed, out=part)

    def place(self, allowed: Mask, radius: float, gap: float) -> tuple[float, float] | None:
        """Return a free place for a circle where `allowed` is true, or None when there is none."""
        rows, cols = np.nonzero(allowed)
        if not len(rows):
            return None
        for _ in range(12):
            at = int(self.rng.integers(len(rows)))
            x = float(self.x[rows[at], cols[at]])
            y = float(self.y[rows[at], cols[at]])
            if all(np.hypot(x - u, y - v) > radius + r + gap for u, v, r in self.taken):
                self.taken.append((x, y, radius))
                return x, y
        return None

    def count(self, per_mm2: float, allowed: Mask) -> int:
        """Return how many structures of a density fall on an area."""
        area = float(allowed.sum()) * self.canvas.step_um**2 * 1e-6
        return int(self.rng.poisson(per_mm2 * area))

    def outline(self) -> Field:
        """Return the section: cut straight by the blade here, torn there."""
        half = self.canvas.side_um / 2
        signed = np.full(self.x.shape, 1e4, np.float32)
        edges = 5
        start = self.rng.uniform(0, 2 * np.pi)
        for k in range(edges):
            turn = start + 2 * np.pi * (k + self.rng.uniform(-0.25, 0.25)) / edges
            away = half * self.rng.uniform(0.84, 1.08)
            across = (self.x - half) * np.cos(turn) + (self.y - half) * np.sin(turn)
            signed = np.minimum(signed, away - across).astype(np.float32)
        ragged = 9 * self.canvas.fractal(self.rng, 90, 2) + 4 * self.canvas.fractal(self.rng, 22, 3)
        return (signed + ragged).astype(np.float32)

    def quantile_border(self, field: Field, share: float, within: Mask, scale: float) -> Field:
        """Return the signed distance to where `field` is in its top `share` of `within`."""
        values = field[within] if within.any() else field.ravel()
        return ((field - np.quantile(values, 1 - share)) * np.float32(scale)).astype(np.float32)


def signed_distance(inside: Mask, step_um: float) -> Field:
    """Return the signed distance in µm to the border of a mask."""
    if not inside.any():
        return np.full(inside.shape, FAR, np.float32)
    within = distance_transform_edt(inside)
    outside = distance_transform_edt(~inside) if not inside.all() else np.zeros(inside.shape)
    # half a step each way puts the border between two grid points
    signed = (within - 0.5 * inside - outside + 0.5 * ~inside) * step_um
    return np.asarray(np.maximum(signed, FAR), np.float32)
