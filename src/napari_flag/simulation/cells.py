"""Positions of cells by kind, with size, angle and darkness of their nuclei."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_flag.simulation.anatomy import Anatomy
from napari_flag.simulation.fields import Canvas, Field, Points

KINDS: Final = (
    "tumour",
    "in situ",
    "luminal",
    "myoepithelial",
    "fibroblast",
    "activated fibroblast",
    "endothelial",
    "T cell",
    "B cell",
    "plasma cell",
    "macrophage",
    "adipocyte",
    "debris",
)
"""Every kind of cell the simulator knows."""


@dataclass(frozen=True, slots=True)
class Look:
    """How nuclei of one kind look.

    Parameters
    ----------
    long, short
        Half axes in µm, mean over cells.
    spread
        Relative standard deviation of the size between cells.
    dark
        Hematoxylin, as optical density of the nucleus.
    clumped
        How uneven the chromatin is: 0 smooth, 1 clumped.
    room
        Half the least distance in µm to another cell.
    """

    long: float
    short: float
    spread: float
    dark: float
    clumped: float
    room: float


LOOKS: Final[dict[str, Look]] = {
    "tumour": Look(4.5, 3.6, 0.15, 0.72, 0.55, 4.4),
    "in situ": Look(4.2, 3.5, 0.11, 0.74, 0.50, 4.2),
    "luminal": Look(4.2, 2.7, 0.09, 0.85, 0.35, 2.55),
    "myoepithelial": Look(4.4, 1.6, 0.12, 0.95, 0.20, 2.6),
    "fibroblast": Look(6.4, 1.35, 0.20, 0.88, 0.15, 3.4),
    "activated fibroblast": Look(6.0, 2.2, 0.20, 0.72, 0.30, 3.4),
    "endothelial": Look(5.0, 1.4, 0.15, 0.92, 0.15, 2.8),
    "T cell": Look(3.0, 2.75, 0.09, 1.10, 0.40, 2.9),
    "B cell": Look(3.2, 2.9, 0.09, 1.00, 0.45, 3.0),
    "plasma cell": Look(3.3, 2.9, 0.08, 1.05, 0.60, 3.8),
    "macrophage": Look(4.4, 3.2, 0.15, 0.60, 0.30, 4.2),
    "adipocyte": Look(4.8, 1.2, 0.15, 0.95, 0.10, 4.0),
    "debris": Look(1.8, 1.5, 0.35, 1.00, 0.00, 1.4),
}


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one section, n of them.

    Parameters
    ----------
    kind
        (n,) int64, position in `KINDS`.
    xy
        (n, 2) float64, centres (x, y) in µm.
    long, short, angle
        (n,) half axes in µm and direction in radians.
    dark
        (n,) hematoxylin as optical density.
    dividing
        (n,) bool, mitotic figures.
    """

    kind: npt.NDArray[np.int64]
    xy: Points
    long: Points
    short: Points
    angle: Points
    dark: Points
    dividing: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.kind)

    def of(self, *kinds: str) -> npt.NDArray[np.bool_]:
        """Return which cells are of these kinds."""
        return np.isin(self.kind, [KINDS.index(k) for k in kinds])


def densities(plan: Anatomy) -> dict[str, Field]:
    """Return cells per mm² that are expected at each place, by kind.

    The density of epithelium exceeds what fits, so that it is packed; the rest is sparse.
    """
    tissue = plan.tissue > 2
    hole = (plan.lumen > -1.5) | (plan.vessel_lumen > -0.5)
    epithelium = np.maximum(np.maximum(plan.duct, plan.dcis), plan.nest)
    solid = np.maximum(epithelium, plan.vessel)
    stroma = tissue & (solid < -2.5) & (plan.adipose < 0)
    depth_in_duct = np.where(hole, -1, plan.duct)
    dense = np.float32(1) * stroma
    lymph = np.clip(plan.aggregate / 12 + 0.5, 0, 1)
    hot = plan.inflamed**1.6
    # lymphocytes also wander into fat and into tumour
    reach = tissue & ~hole & (plan.adipose < 12)
    t_field = (dense + 0.10 * (plan.nest > 0)) * reach
    alive = plan.necrosis < 0
    sparse = (1 - 0.75 * plan.desmoplasia) * (1 + 0.9 * (plan.lobule > 0))
    return {
        "luminal": 120000.0 * (tissue & (depth_in_duct > 4.6) & (depth_in_duct < 9.5)),
        "myoepithelial": 60000.0 * (tissue & (depth_in_duct > 0.6) & (depth_in_duct < 2.6)),
        "in situ": 42000.0 * (tissue & (plan.dcis > 2.5) & ~hole & alive),
        "tumour": 42000.0 * (tissue & (plan.nest > 1.2) & ~hole),
        "endothelial": 16000.0 * (tissue & (plan.vessel > 0.5) & (plan.vessel_lumen < -0.6)
                                  & (plan.vessel_lumen > -4.5)),
        "debris": 2600.0 * (tissue & (plan.necrosis > 2)),
        "B cell": 26000.0 * lymph * dense,
        "T cell": (9500.0 * hot + 8000.0 * lymph + 90.0) * t_field,
        "plasma cell": 2600.0 * hot * (1 - lymph) * dense,
        "macrophage": (900.0 * hot + 220.0 * plan.desmoplasia + 60.0) * dense,
        "activated fibroblast": 1500.0 * plan.desmoplasia * dense,
        "fibroblast": 1150.0 * sparse * dense,
        "adipocyte": 0.0 * dense,
    }  # fmt: skip


def populate(canvas: Canvas, plan: Anatomy, rng: np.random.Generator) -> Cells:
    """Return the cells of a section."""
    kinds, places = [], []
    for name, field in densities(plan).items():
        xy = _sown(canvas, field, rng)
        places.append(xy)
        kinds.append(np.full(len(xy), KINDS.index(name)))
    kind, xy = np.concatenate(kinds), np.concatenate(places)
    room = np.array([LOOKS[k].room for k in KINDS])[kind] * rng.uniform(0.9, 1.25, len(kind))
    grown = np.isin(kind, [KINDS.index("tumour"), KINDS.index("in situ")])
    room = room * np.where(grown, 0.88 + 0.3 * canvas.at(plan.grade, xy), 1.0)
    keep = _spaced(xy, room, np.argsort(np.argsort(_urgency(kind, rng))))
    return _grown(canvas, plan, kind[keep], xy[keep], rng)


def _sown(canvas: Canvas, per_mm2: Field, rng: np.random.Generator) -> Points:
    """Return random points (x, y) in µm of a density."""
    expected = per_mm2 * (canvas.step_um**2 * 1e-6)
    rows, cols = np.nonzero(expected)
    many = rng.poisson(expected[rows, cols])
    rows, cols = np.repeat(rows, many), np.repeat(cols, many)
    xy = np.column_stack([cols, rows]) + rng.random((len(rows), 2))
    xy = xy * canvas.step_um
    return np.asarray(xy[(xy < canvas.side_um).all(axis=1)])


def _urgency(kind: npt.NDArray[np.int64], rng: np.random.Generator) -> Points:
    """Return who stays when two cells are too close: the layers of a duct first, then chance."""
    first = np.isin(kind, [KINDS.index(k) for k in ("luminal", "endothelial", "T cell")])
    return np.asarray(rng.random(len(kind)) + 0.6 * first)


def _spaced(xy: Points, room: Points, rank: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which points stay so that no two are nearer than the sum of their room.

    Luby's algorithm: a cell that outranks all undecided neighbours stays, its neighbours are removed.
    """
    if len(xy) < 2:
        return np.ones(len(xy), np.bool_)
    pairs = cKDTree(xy).query_pairs(float(2 * room.max()), output_type="ndarray")
    gap = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    pairs = pairs[gap < room[pairs[:, 0]] + room[pairs[:, 1]]]
    stays = np.zeros(len(xy), np.bool_)
    open_ = np.ones(len(xy), np.bool_)
    while open_.any():
        best = np.full(len(xy), -1)
        np.maximum.at(best, pairs[:, 0], rank[pairs[:, 1]])
        np.maximum.at(best, pairs[:, 1], rank[pairs[:, 0]])
        won = open_ & (rank > best)
        stays |= won
        beaten = pairs[won[pairs].any(axis=1)].ravel()
        open_[beaten] = False
        open_ &= ~won
        pairs = pairs[open_[pairs].all(axis=1)]
    return stays


def _grown(
    canvas: Canvas, plan: Anatomy, kind: npt.NDArray[np.int64], xy: Points, rng: np.random.Generator
) -> Cells:
    """Give each cell its size, direction and darkness, by kind and by the states at its place."""
    n = len(kind)
    looks = [LOOKS[k] for k in KINDS]
    size = np.exp(rng.normal(0, 1, n) * np.array([k.spread for k in looks])[kind])
    long = np.array([k.long for k in looks])[kind] * size
    short = np.array([k.short for k in looks])[kind] * size
    dark = np.array([k.dark for k in looks])[kind] * np.exp(rng.normal(0, 0.12, n))
    tumour = np.isin(kind, [KINDS.index("tumour"), KINDS.index("in situ")])
    grade = canvas.at(plan.grade, xy)
    large = np.where(tumour, 0.84 + 0.42 * grade + 0.16 * grade * rng.standard_normal(n), 1.0)
    large = np.clip(large, 0.7, 1.7)
    hypoxic = canvas.at(plan.hypoxia, xy)
    dark = dark * np.where(tumour, 1.12 - 0.28 * grade + 0.30 * hypoxic, 1.0)
    dividing = tumour & (rng.random(n) < 0.035 * canvas.at(plan.proliferation, xy) ** 2)
    return Cells(
        kind=kind,
        xy=xy,
        long=long * large,
        short=short * large,
        angle=_directions(canvas, plan, kind, xy, rng),
        dark=np.where(dividing, 1.35, dark),
        dividing=dividing,
    )


def _directions(
    canvas: Canvas, plan: Anatomy, kind: npt.NDArray[np.int64], xy: Points, rng: np.random.Generator
) -> Points:
    """Return nuclei's directions: columnar in ducts, along fibres and walls, else any."""
    n = len(kind)
    angle = rng.uniform(0, np.pi, n)

    def inwards(signed: Field) -> Points:
        down, right = np.gradient(np.maximum(signed, -40))
        return np.arctan2(canvas.at(down, xy), canvas.at(right, xy)).astype(np.float64)

    fibre = np.arctan2(canvas.at(np.sin(plan.fibre_angle), xy), canvas.at(np.cos(plan.fibre_angle), xy))
    columnar = kind == KINDS.index("luminal")
    lining = kind == KINDS.index("myoepithelial")
    wall = kind == KINDS.index("endothelial")
    spindle = np.isin(kind, [KINDS.index("fibroblast"), KINDS.index("activated fibroblast")])
    angle = np.where(columnar, inwards(plan.duct) + rng.normal(0, 0.25, n), angle)
    angle = np.where(lining, inwards(plan.duct) + np.pi / 2 + rng.normal(0, 0.15, n), angle)
    angle = np.where(wall, inwards(plan.vessel) + np.pi / 2 + rng.normal(0, 0.15, n), angle)
    return np.asarray(np.where(spindle, fibre + rng.normal(0, 0.3, n), angle))
