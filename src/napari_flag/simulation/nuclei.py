"""Draws cells one by one: nuclei, the bodies that show, red cells."""

from typing import TypeAlias

import numpy as np

from napari_flag.simulation.anatomy import Anatomy
from napari_flag.simulation.cells import KINDS, LOOKS, Cells
from napari_flag.simulation.noise import Canvas, Field
from napari_flag.simulation.stains import Stains, grain

Patch: TypeAlias = tuple[tuple[slice, slice], Field]
"""Where in the picture, and how much of each pixel there is covered (0 to 1)."""


def disc(
    canvas: Canvas,
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    bend: tuple[float, ...] | None = None,
) -> Patch | None:
    """Return an ellipse, or None when it lies outside the picture.

    Parameters
    ----------
    canvas
        The slide.
    centre, axes, angle
        Centre (x, y) and half axes in µm, direction in radians.
    bend
        Four amplitudes by which the outline departs from the ellipse.
    """
    (x, y), (long, short), mpp = centre, axes, canvas.mpp
    reach = int(np.ceil((long * 1.35 + 1.2) / mpp))
    col, row = int(x / mpp), int(y / mpp)
    rows = slice(max(0, row - reach), min(canvas.size_px, row + reach + 1))
    cols = slice(max(0, col - reach), min(canvas.size_px, col + reach + 1))
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return None
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5)[:, None] * mpp - y
    dx = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5)[None, :] * mpp - x
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short
    away = np.sqrt(u * u + v * v)
    if bend is not None:
        p, q = u / (away + 1e-3), v / (away + 1e-3)
        wave = bend[0] * p + bend[1] * q + bend[2] * p * q + bend[3] * p * (4 * p * p - 3)
        away = away * np.clip(1 + wave, 0.6, 1.6)
    sharp = short / (0.42 * mpp)
    ink = 1 / (1 + np.exp(np.clip((away - 1) * sharp, -30, 30)))
    return (rows, cols), ink.astype(np.float32)


def draw_red_cells(canvas: Canvas, section: Anatomy, stains: Stains, rng: np.random.Generator) -> None:
    """Draw blood into the bore of some vessels."""
    blood = (section.vessel_lumen > 2.0) & (section.tissue > 3.0)
    field = np.clip(canvas.noise(rng, 90) + 0.4, 0, 1) * blood
    rows, cols = np.nonzero(field)
    keep = rng.random(len(rows)) < 0.30 * field[rows, cols]
    xy = (np.column_stack([cols, rows])[keep] + 0.5) * canvas.step_um
    for x, y in xy + rng.normal(0, 0.8, xy.shape):
        patch = disc(canvas, (x, y), (3.1, 2.8), rng.uniform(0, np.pi))
        if patch is not None:
            where, ink = patch
            np.maximum(stains.eosin[where], 0.72 * ink, out=stains.eosin[where])


def draw_cells(canvas: Canvas, cells: Cells, stains: Stains, rng: np.random.Generator) -> None:
    """Draw every cell's nucleus, and the bodies of plasma cells and macrophages."""
    chromatin = 0.75 * grain(canvas, rng, 1.5) + 0.65 * grain(canvas, rng, 3.0)
    clumped = np.array([LOOKS[k].clumped for k in KINDS])[cells.kind]
    uneven = np.where(cells.of("tumour"), 0.10, 0.045)[:, None]
    bend = rng.normal(0, 1, (len(cells), 4)) * uneven
    nucleolus = cells.of("tumour", "in situ") & (rng.random(len(cells)) < 0.55) & ~cells.dividing
    aside = rng.normal(0, 0.25, (len(cells), 2)) * cells.short[:, None]
    bodied = cells.of("plasma cell", "macrophage")
    for i in range(len(cells)):
        x, y, angle = float(cells.xy[i, 0]), float(cells.xy[i, 1]), float(cells.angle[i])
        if bodied[i]:
            _draw_body(canvas, stains, (x, y), angle, KINDS[cells.kind[i]] == "plasma cell")
        # a dividing cell shows its chromosomes as a bar
        axes = (4.2, 1.5) if cells.dividing[i] else (float(cells.long[i]), float(cells.short[i]))
        patch = disc(canvas, (x, y), axes, angle, tuple(bend[i]))
        if patch is None:
            continue
        where, ink = patch
        _draw_nucleus(stains, where, ink, float(cells.dark[i]), float(clumped[i]), chromatin[where])
        if nucleolus[i]:
            dot = disc(canvas, (x + aside[i, 0], y + aside[i, 1]), (1.0, 0.9), 0.0)
            if dot is not None:
                stains.hematoxylin[dot[0]] += 0.28 * dot[1]


def _draw_nucleus(
    stains: Stains,
    where: tuple[slice, slice],
    ink: Field,
    dark: float,
    clumped: float,
    chromatin: Field,
) -> None:
    # chromatin gathers at the membrane: darker rim, paler and clumped inside
    rim = 4 * ink * (1 - ink)
    body = 1 - 0.22 * clumped + 0.38 * clumped * (chromatin + 0.5 * rim)
    shade = dark * ink * np.clip(body, 0.35, 1.7)
    here = stains.hematoxylin[where]
    # two nuclei on top of each other are darker than one, but not twice: they are cut by the blade
    np.copyto(here, np.maximum(here, shade) + 0.22 * np.minimum(here, shade))
    stains.eosin[where] *= 1 - 0.45 * ink


def _draw_body(
    canvas: Canvas, stains: Stains, centre: tuple[float, float], angle: float, plasma: bool
) -> None:
    """Draw the body of a plasma cell (blue, to one side) or of a macrophage (pale, round)."""
    away = 2.3 if plasma else 0.6
    middle = (centre[0] + away * np.cos(angle), centre[1] + away * np.sin(angle))
    patch = disc(canvas, middle, (5.8, 4.4 if plasma else 5.4), angle)
    if patch is None:
        return
    where, ink = patch
    here = Stains(stains.hematoxylin[where], stains.eosin[where])
    here.cover(0.8 * ink, 0.30 if plasma else 0.06, 0.34 if plasma else 0.20)
