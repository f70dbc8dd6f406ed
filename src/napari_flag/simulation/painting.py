"""Hematoxylin and eosin staining as optical density, and its conversion to RGB."""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from napari_flag.simulation.anatomy import Anatomy
from napari_flag.simulation.cells import KINDS, LOOKS, Cells
from napari_flag.simulation.fields import (
    Canvas,
    Field,
    Points,
    resized,
    smeared,
    smooth_noise,
    soft,
    standardised,
)

HEMATOXYLIN: Final = (0.66, 0.68, 0.31)
EOSIN: Final = (0.13, 0.86, 0.33)
"""Optical density per unit of stain in red, green, blue; near Ruifrok and Johnston (2001)."""


@dataclass(slots=True)
class Stains:
    """Hematoxylin and eosin as optical density, (size, size) float32 each."""

    hematoxylin: Field
    eosin: Field

    def cover(self, where: Field, hematoxylin: Field | float, eosin: Field | float) -> None:
        """Replace the stains by others where `where` is 1, in part where it is between 0 and 1."""
        self.hematoxylin += where * (hematoxylin - self.hematoxylin)
        self.eosin += where * (eosin - self.eosin)


def grain(canvas: Canvas, rng: np.random.Generator, scale_um: float) -> Field:
    """Return noise of a scale in µm, mean 0, variance 1, at full resolution."""
    scale = scale_um / canvas.mpp
    if scale > 6:
        return canvas.refine(canvas.noise(rng, scale_um))
    return smooth_noise(rng, canvas.size_px, scale)


def scan(canvas: Canvas, stains: Stains, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return what the scanner sees, uint8 (size, size, 3).

    Stain strength of the day, uneven thickness, uneven light, blur of the optics, noise.
    """
    size = canvas.size_px
    thick = 1 + 0.07 * grain(canvas, rng, 300) + 0.03 * grain(canvas, rng, 60)
    hematoxylin = stains.hematoxylin * thick * np.float32(rng.uniform(0.92, 1.18))
    eosin = stains.eosin * thick * np.float32(rng.uniform(0.75, 1.05))
    white = np.array([243, 240, 243]) + rng.normal(0, 1.5, 3)
    light = 1 + 0.008 * grain(canvas, rng, 700)
    hue_h, hue_e = rng.normal(0, 0.018, 3), rng.normal(0, 0.018, 3)
    noise = rng.standard_normal((size, size), np.float32)
    picture = np.empty((size, size, 3), np.uint8)
    for band in range(3):
        density = hematoxylin * np.float32(HEMATOXYLIN[band] + hue_h[band])
        density += eosin * np.float32(EOSIN[band] + hue_e[band])
        shade = np.float32(white[band]) * light * np.exp(-np.float32(np.log(10)) * density)
        shade = gaussian_filter(shade, 0.35 / canvas.mpp)
        picture[..., band] = np.clip(shade + 1.1 * noise + 0.5, 0, 255)
    return picture


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
    """Draw blood into the lumen of some vessels."""
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
    offset = rng.normal(0, 0.25, (len(cells), 2)) * cells.short[:, None]
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
            dot = disc(canvas, (x + offset[i, 0], y + offset[i, 1]), (1.0, 0.9), 0.0)
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


FAT_CELL_UM: Final = 27.0
"""Half the distance between neighbouring fat cells' centres."""


class Painter:
    """Paints one section at full resolution."""

    def __init__(self, canvas: Canvas, plan: Anatomy, cells: Cells, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self.plan = plan
        self.cells = cells
        self.rng = rng
        self.size = canvas.size_px
        self.half = max(8, self.size // 2)
        blank = np.zeros((self.size, self.size), np.float32)
        self.stains = Stains(blank.copy(), blank)

    def paint(self) -> npt.NDArray[np.uint8]:
        """Return the picture, uint8 (size, size, 3)."""
        self._stroma()
        self._fat()
        self._epithelium()
        self._vessels()
        draw_cells(self.canvas, self.cells, self.stains, self.rng)
        return scan(self.canvas, self.stains, self.rng)

    def _full(self, field: Field) -> Field:
        return self.canvas.refine(field)

    def _grain(self, scale_um: float) -> Field:
        return grain(self.canvas, self.rng, scale_um)

    def _fibres(self) -> tuple[Field, Field]:
        """Return collagen along the plan's direction: bundles (0 to 1) and the streaks in them."""
        half, per_um = self.half, self.half / self.canvas.side_um
        angle_cos = resized(np.cos(self.plan.fibre_angle), half)
        angle_sin = resized(np.sin(self.plan.fibre_angle), half)
        # wavy at the scale of a cell, as collagen shrinks when fixed
        wave = 0.30 * smooth_noise(self.rng, half, 17 * per_um)
        angle = np.arctan2(angle_sin, angle_cos) + wave
        mask = self.canvas.refine(self.plan.tissue, half) > -4
        coarse = smooth_noise(self.rng, half, 4.8 * per_um)
        coarse = coarse + 0.8 * smooth_noise(self.rng, half, 9.8 * per_um)
        bundles = smeared(standardised(coarse), angle, mask, round(18 * per_um))
        bundles = smeared(bundles, angle, mask, round(15.4 * per_um))
        bundles = standardised(bundles - gaussian_filter(bundles, 20 * per_um))
        fine = smooth_noise(self.rng, half, 1.8 * per_um)
        streaks = standardised(smeared(fine, angle, mask, round(12.6 * per_um)))
        return soft(resized(bundles, self.size), 0.62), resized(streaks, self.size)

    def _stroma(self) -> None:
        plan = self.plan
        bundle, streak = self._fibres()
        young = self._full(plan.desmoplasia)
        loose = soft(self._full(plan.lobule), 8.0)
        patchy = self._full(self.canvas.fractal(self.rng, 130, 3))
        dense = np.clip(0.62 + 0.17 * patchy + 0.08 * young - 0.30 * loose, 0.14, 1.0)
        dense = dense * (1 - 0.30 * self._full(plan.inflamed))
        eosin = dense * (0.20 + 0.44 * bundle) * (1 + 0.13 * streak)
        # slits between bundles; more of them where tissue is loose
        slit = bundle - 0.02 - 0.24 * (1 - dense) - 0.05 * self._grain(28)
        cleft = soft(slit, 0.03)
        eosin = np.clip(eosin, 0.0, 2.0) * (0.10 + 0.90 * cleft)
        hematoxylin = (0.045 + 0.06 * loose + 0.05 * young) * (1 + 0.1 * streak)
        hematoxylin = hematoxylin * (0.25 + 0.75 * cleft)
        edge = self._full(plan.tissue) + 1.2 * self._grain(5)
        self.stains.cover(soft(edge, 0.9), hematoxylin, eosin)
        # cut edges fold up a little and take more stain
        rim = np.exp(-(((edge - 5) / 4) ** 2)) * soft(edge, 0.9)
        self.stains.eosin += 0.10 * rim

    def _fat(self) -> None:
        plan, canvas = self.plan, self.canvas
        border = self._full(plan.adipose)
        if border.max() < -20:
            return
        scale = canvas.side_um / self.half
        inside = resized(plan.adipose, self.half) > -12
        rows, cols = np.nonzero(inside)
        centres = self._fat_centres()
        if len(centres) < 4 or not len(rows):
            return
        place = np.column_stack([cols, rows]) * scale + scale / 2
        # bent membranes: the distance is taken from a slightly displaced place
        for axis in (0, 1):
            place[:, axis] += 4.5 * smooth_noise(self.rng, self.half, 26 / scale)[rows, cols]
        near, _ = cKDTree(centres).query(place, k=3)
        wall = np.full((self.half, self.half), 40.0, np.float32)
        corner = wall.copy()
        wall[rows, cols] = near[:, 1] - near[:, 0]
        corner[rows, cols] = near[:, 2] - near[:, 0]
        wall = resized(wall, self.size) + 0.7 * self._grain(14)
        corner = resized(corner, self.size)
        thick = np.clip(0.85 + 0.35 * self._grain(60), 0.45, 2.0)
        # rounded cells: the wall widens towards the corners where three of them meet
        round_ = wall - 26 / (corner + 4.0)
        membrane = soft(-round_ + 1.2 * thick, 0.55)
        fill = soft(5.0 - corner, 1.2)
        eosin = (0.24 - 0.08 * fill) * membrane * (1 + 0.2 * self._grain(3)) + 0.01
        where = soft(border, 2.5) * soft(self._full(plan.tissue), 0.9)
        self.stains.cover(where, 0.05 * membrane, eosin)

    def _fat_centres(self) -> Points:
        """Return centres (x, y) in µm of fat cells, roughly packed."""
        side, step = self.canvas.side_um, 2 * FAT_CELL_UM
        axis = np.arange(-step, side + 2 * step, step)
        x, y = np.meshgrid(axis, axis * 0.866)
        x = x + (np.arange(len(axis)) % 2)[:, None] * step / 2
        xy = np.column_stack([x.ravel(), y.ravel()])
        return np.asarray(xy + self.rng.normal(0, 0.27 * step, xy.shape))

    def _epithelium(self) -> None:
        plan = self.plan
        glands = np.maximum(plan.duct, plan.dcis)
        nest = self._full(plan.nest)
        tissue = soft(self._full(plan.tissue), 0.9)
        borders = self._cell_borders()
        mottle = 1 + 0.13 * self._grain(2.2) + 0.12 * self._grain(40)
        grade = self._full(plan.grade)
        # nests shrink away from the stroma around them when fixed
        cleft = soft(nest + 3.4, 0.7) * soft(self._grain(45) - 0.25, 0.25)
        self.stains.cover(cleft * tissue * (nest < 1.5), 0.01, 0.03)
        self.stains.cover(
            soft(nest, 0.7) * tissue,
            (0.13 + 0.09 * (1 - grade)) * mottle * borders,
            (0.26 + 0.10 * grade) * mottle * borders,
        )
        wall = self._full(glands)
        basement = np.exp(-(((wall + 1.3) / 1.5) ** 2))
        self.stains.eosin += 0.16 * basement * tissue
        self.stains.cover(soft(wall, 0.7) * tissue, 0.15 * mottle * borders, 0.27 * mottle * borders)
        dead = soft(self._full(plan.necrosis), 2.2) * tissue
        crumbs = np.clip(0.44 + 0.13 * self._grain(2.0) + 0.10 * self._grain(9), 0.1, 1)
        self.stains.cover(dead, 0.05 + 0.04 * self._grain(3), crumbs)
        hole = self._full(plan.lumen) + 0.5 * self._grain(4)
        secretion = 0.10 * soft(self._grain(70) - 0.8, 0.1) * (1 + 0.15 * self._grain(3))
        self.stains.cover(soft(hole, 0.6), 0.0, np.clip(secretion, 0, 1))
        # the apical border of the lining
        self.stains.eosin += 0.14 * np.exp(-(((hole + 1.4) / 1.2) ** 2)) * tissue

    def _cell_borders(self) -> Field:
        """Return about 1 inside epithelial cells and less where two of them meet."""
        cells = self.cells.xy[self.cells.of("tumour", "in situ", "luminal")]
        plan = self.plan
        solid = np.maximum(np.maximum(plan.duct, plan.dcis), plan.nest)
        rows, cols = np.nonzero(resized(solid, self.half) > -1)
        flat = np.ones((self.half, self.half), np.float32)
        if len(cells) > 2 and len(rows):
            scale = self.canvas.side_um / self.half
            place = np.column_stack([cols, rows]) * scale + scale / 2
            near, _ = cKDTree(cells).query(place, k=2)
            gap = near[:, 1] - near[:, 0]
            flat[rows, cols] = 1 - 0.42 * np.exp(-((gap / 1.5) ** 2)) - 0.25 * (near[:, 0] > 9)
        return resized(flat, self.size)

    def _vessels(self) -> None:
        plan = self.plan
        wall = self._full(plan.vessel)
        lumen = self._full(plan.vessel_lumen)
        tissue = soft(self._full(plan.tissue), 0.9)
        ringed = 1 + 0.18 * np.sin(lumen / 0.9) + 0.1 * self._grain(3)
        self.stains.cover(soft(wall, 0.8) * tissue, 0.06 * ringed, 0.50 * ringed)
        self.stains.cover(soft(lumen, 0.6) * tissue, 0.0, 0.015)
        draw_red_cells(self.canvas, plan, self.stains, self.rng)


def paint(canvas: Canvas, plan: Anatomy, cells: Cells, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the picture of a section, uint8 (size, size, 3)."""
    return Painter(canvas, plan, cells, rng).paint()
