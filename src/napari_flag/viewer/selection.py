"""What may be selected beside a gene: a region of the tissue.  Holds no Qt."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import shapely

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Some spots of the current prediction, under a name.

    Parameters
    ----------
    name
        What it is called: of a shape drawn, of a QuPath annotation, of a domain.
    mask
        (n,) bool, which spots of the prediction belong to it.
    polygon
        Its outline in level-0 px, (x, y); None where it was never drawn (a domain).
    """

    name: str
    mask: BoolArray
    polygon: "shapely.Polygon | shapely.MultiPolygon | None" = None

    @property
    def spots(self) -> int:
        """How many spots belong to it."""
        return int(np.count_nonzero(self.mask))
