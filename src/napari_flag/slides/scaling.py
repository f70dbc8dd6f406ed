"""Scale factors: whether the image at hand is the one a table counts in, or a smaller copy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag.errors import UserError
from napari_flag.slides.readers import Size
from napari_flag.slides.spots import FloatArray

if TYPE_CHECKING:
    from napari_flag.slides.slide import Slide

ALIKE: Final = 0.03
"""Relative difference of image sizes that rounding and re-exporting explain; copies differ more."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """Smaller copies of the full-resolution image a table counts its pixels in.

    Parameters
    ----------
    factors
        Pixels of the copy per full-resolution pixel, by the copy's name: "hires", "lowres".
    sizes
        (width, height) of the copies whose image is at hand.
    """

    factors: Mapping[str, float] = field(default_factory=dict)
    sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def full_size(self) -> tuple[float, float] | None:
        """(width, height) of the full-resolution image, from its largest copy; None if unknown."""
        known = [name for name in self.sizes if name in self.factors]
        if not known:
            return None
        name = max(known, key=lambda n: self.factors[n])
        width, height = self.sizes[name]
        return width / self.factors[name], height / self.factors[name]

    def fit(self, slide: "Slide", xy: FloatArray, path: Path) -> tuple[float, tuple[str, ...]]:
        """Return px of `slide` per px of the table, and a notice when that is not 1.

        Parameters
        ----------
        slide
            The slide at hand.
        xy
            (n, 2) positions in the table's pixels.
        path
            The table, for messages.

        Raises
        ------
        UserError
            When the slide is none of the images the table knows.
        """
        if not self.factors or len(xy) == 0:
            return 1.0, ()
        candidates = {"full-resolution": 1.0, **self.factors}
        fits = [name for name, factor in candidates.items() if self._fits(slide, xy, factor)]
        if not fits:
            raise self._misfit(slide, xy, path)
        name = max(fits, key=lambda n: candidates[n])
        factor = float(candidates[name])
        if factor == 1.0:
            return 1.0, ()
        notice = (
            f"{slide.path.name} is the {name} image of {path.name}, so positions are scaled by "
            f"{factor:.4g}; the full-resolution image shows more detail."
        )
        return factor, (notice,)

    def _fits(self, slide: "Slide", xy: FloatArray, factor: float) -> bool:
        full = self.full_size
        if full is not None:
            ratio = np.array(slide.size) / (np.array(full) * factor)
            return bool((abs(ratio - 1) <= ALIKE + 1 / min(slide.size)).all())
        return bool((xy * factor <= slide.size).all() and (xy >= 0).all())

    def _misfit(self, slide: "Slide", xy: FloatArray, path: Path) -> UserError:
        full = self.full_size
        if full is None:
            expected = f"spots reach to x {xy[:, 0].max():.0f}, y {xy[:, 1].max():.0f} px"
        else:
            expected = f"its full-resolution image is {full[0]:.0f} × {full[1]:.0f} px"
        copies = " or ".join(f"{name} ({factor:.4g})" for name, factor in self.factors.items())
        return UserError(
            f"{slide.path.name} ({slide.size[0]} × {slide.size[1]} px) does not belong to "
            f"{path.name}: {expected}, or a {copies} copy of that; choose the image this table "
            "was made on."
        )
