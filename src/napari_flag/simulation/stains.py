"""Hematoxylin and eosin as optical density, and the light they let through."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from napari_flag.simulation.noise import Canvas, Field, smooth_noise

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
