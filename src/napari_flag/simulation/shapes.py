"""Shapes for the plan of a section: irregular discs, ragged outlines, signed distances."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_flag.simulation.noise import Canvas, Field, Mask

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
