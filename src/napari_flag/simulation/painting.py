"""From plan and cells to the picture a scanner would take.

Stains are laid down as optical density, hematoxylin and eosin apart, and light is taken away by
the Beer–Lambert law: intensity = white · 10^−(H·h + E·e).
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from napari_flag.simulation.anatomy import Anatomy
from napari_flag.simulation.cells import Cells
from napari_flag.simulation.noise import (
    Canvas,
    Field,
    Points,
    resized,
    smeared,
    smooth_noise,
    soft,
    standardised,
)
from napari_flag.simulation.nuclei import draw_cells, draw_red_cells
from napari_flag.simulation.stains import Stains, grain, scan

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
        bore = self._full(plan.vessel_lumen)
        tissue = soft(self._full(plan.tissue), 0.9)
        ringed = 1 + 0.18 * np.sin(bore / 0.9) + 0.1 * self._grain(3)
        self.stains.cover(soft(wall, 0.8) * tissue, 0.06 * ringed, 0.50 * ringed)
        self.stains.cover(soft(bore, 0.6) * tissue, 0.0, 0.015)
        draw_red_cells(self.canvas, plan, self.stains, self.rng)


def paint(canvas: Canvas, plan: Anatomy, cells: Cells, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the picture of a section, uint8 (size, size, 3)."""
    return Painter(canvas, plan, cells, rng).paint()
