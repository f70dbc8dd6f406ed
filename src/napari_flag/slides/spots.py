"""Spots: where on the slide expression is measured or predicted."""

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
Lattice: TypeAlias = Literal["square", "hex", "none"]


@dataclass(frozen=True, slots=True)
class Spots:
    """Spots of one slide, in the order given.

    Parameters
    ----------
    ids
        One unique name per spot: ``10x21``, a barcode, or ``row_col`` on a grid.
    xy
        (n, 2) float64, (x, y) centres in level-0 pixels.
    diameter_um, pitch_um
        Diameter and centre-to-centre distance on the glass in µm, nominal for the technology
        (legacy ST 100 / 200, Visium 55 / 100) or as chosen for a grid; None if not known.
    lattice
        How the array is laid out; decides which spots are first-ring neighbours.
    array
        (n, 2) int64, (array_row, array_col), or None where the array is not known.
        Square: neighbours differ by (0, ±1), (±1, 0).  Hex: by (0, ±2), (±1, ±1), as Visium counts.
    """

    ids: tuple[str, ...]
    xy: FloatArray
    diameter_um: float | None = None
    pitch_um: float | None = None
    lattice: Lattice = "none"
    array: IntArray | None = field(default=None)

    def __post_init__(self) -> None:
        """Refuse what cannot be spots."""
        if self.xy.ndim != 2 or self.xy.shape != (len(self.ids), 2):
            raise ValueError(f"xy has shape {self.xy.shape}, expected ({len(self.ids)}, 2)")
        if self.array is not None and self.array.shape != self.xy.shape:
            raise ValueError(f"array has shape {self.array.shape}, expected {self.xy.shape}")
        if len(set(self.ids)) != len(self.ids):
            raise UserError(
                "The spot table names some spots twice, so results could not be told apart; "
                "make the spot ids unique."
            )
        if not np.isfinite(self.xy).all():
            raise UserError(
                "Some spots have no position (empty or not a number), so they cannot be placed on "
                "the slide; fill in or remove these rows of the spot table."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, keep: npt.NDArray[np.bool_] | IntArray) -> "Spots":
        """Return the spots that `keep` (boolean mask or positions) selects, in its order."""
        rows = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            xy=self.xy[rows],
            array=None if self.array is None else self.array[rows],
        )
