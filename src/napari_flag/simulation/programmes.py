"""Gene programmes of each cell kind, and simulated counts of spots.

The genes are real symbols with the company they keep in breast tissue; the amounts are ours.  They
exist to have a truth that is known, not to be a reference for any tissue.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from napari_flag.simulation.anatomy import Anatomy
from napari_flag.simulation.cells import KINDS, Cells
from napari_flag.simulation.fields import Canvas, Mask, Points

MAKERS: Final[dict[str, dict[str, float]]] = {
    # amplicon: scaled by the grade that is drawn
    "ERBB2": {"tumour": 9.0, "in situ": 10.0, "luminal": 1.0},
    "GRB7": {"tumour": 3.2, "in situ": 3.4, "luminal": 0.2},
    "PGAP3": {"tumour": 2.4, "in situ": 2.6, "luminal": 0.3},
    "STARD3": {"tumour": 2.6, "in situ": 2.8, "luminal": 0.3},
    # epithelium
    "EPCAM": {"tumour": 2.6, "in situ": 2.6, "luminal": 2.2},
    "KRT8": {"tumour": 5.0, "in situ": 5.0, "luminal": 4.2},
    "KRT18": {"tumour": 4.6, "in situ": 4.6, "luminal": 3.8},
    "KRT19": {"tumour": 6.0, "in situ": 5.2, "luminal": 4.4},
    "KRT7": {"tumour": 2.2, "in situ": 2.4, "luminal": 3.6},
    "MUC1": {"tumour": 3.0, "in situ": 3.0, "luminal": 2.4},
    "CLDN4": {"tumour": 2.6, "in situ": 2.6, "luminal": 2.6},
    "FASN": {"tumour": 3.4, "in situ": 3.0, "luminal": 0.6, "adipocyte": 2.0},
    "XBP1": {"tumour": 3.0, "in situ": 2.8, "luminal": 1.8, "plasma cell": 4.0},
    "AGR2": {"tumour": 1.6, "in situ": 2.4, "luminal": 5.0},
    "SCGB2A2": {"tumour": 0.5, "in situ": 1.2, "luminal": 9.0},
    "LTF": {"luminal": 6.0},
    "KRT5": {"myoepithelial": 8.0, "luminal": 0.5},
    "KRT14": {"myoepithelial": 10.0, "luminal": 0.4},
    "KRT17": {"myoepithelial": 7.0, "luminal": 0.5, "tumour": 0.1},
    # division and want of oxygen: scaled by states that are drawn
    "MKI67": {"tumour": 1.6, "in situ": 1.3, "B cell": 0.25},
    "TOP2A": {"tumour": 1.8, "in situ": 1.4, "B cell": 0.2},
    "VEGFA": {"tumour": 1.6, "in situ": 1.9, "macrophage": 0.5},
    "NDRG1": {"tumour": 2.4, "in situ": 2.8},
    "SLC2A1": {"tumour": 1.9, "in situ": 2.3},
    # collagen and company
    "COL1A1": {"fibroblast": 7.0, "activated fibroblast": 26.0},
    "COL1A2": {"fibroblast": 9.0, "activated fibroblast": 19.0},
    "COL3A1": {"fibroblast": 10.0, "activated fibroblast": 20.0},
    "FN1": {"fibroblast": 2.2, "activated fibroblast": 12.0, "endothelial": 1.2, "tumour": 0.2},
    "SPARC": {"fibroblast": 4.0, "activated fibroblast": 14.0, "endothelial": 4.0},
    "POSTN": {"fibroblast": 1.0, "activated fibroblast": 10.0},
    "ACTA2": {"activated fibroblast": 5.0, "myoepithelial": 8.0, "endothelial": 7.0},
    "TAGLN": {"activated fibroblast": 5.5, "myoepithelial": 6.5, "endothelial": 6.5},
    "DCN": {"fibroblast": 15.0, "activated fibroblast": 6.0, "adipocyte": 0.8},
    "LUM": {"fibroblast": 10.0, "activated fibroblast": 7.5},
    "CFD": {"fibroblast": 7.0, "adipocyte": 7.0},
    # vessels and blood
    "PECAM1": {"endothelial": 6.0},
    "VWF": {"endothelial": 7.0},
    "RGS5": {"endothelial": 5.0},
    "HBB": {"blood": 14.0},
    # lymphocytes and myeloid cells
    "CD3D": {"T cell": 2.6},
    "TRBC2": {"T cell": 3.4},
    "IL7R": {"T cell": 2.4},
    "CCL5": {"T cell": 3.0},
    "CXCR4": {"T cell": 2.2, "B cell": 2.6, "plasma cell": 1.0},
    "MS4A1": {"B cell": 3.6},
    "CD79A": {"B cell": 3.2, "plasma cell": 1.6},
    "CD74": {"B cell": 8.0, "macrophage": 14.0, "T cell": 0.8, "endothelial": 1.0, "tumour": 0.5},
    "HLA-DRA": {"B cell": 6.0, "macrophage": 11.0, "T cell": 0.6, "tumour": 0.3},
    "IGKC": {"plasma cell": 42.0, "B cell": 2.5},
    "IGHG3": {"plasma cell": 30.0},
    "JCHAIN": {"plasma cell": 14.0},
    "CXCL9": {"macrophage": 3.0, "T cell": 0.2},
    "CD68": {"macrophage": 5.0},
    "C1QA": {"macrophage": 6.5},
    "APOE": {"macrophage": 9.0, "adipocyte": 3.0},
    # fat
    "FABP4": {"adipocyte": 17.0, "endothelial": 1.6},
    "PLIN1": {"adipocyte": 9.0},
    "ADIPOQ": {"adipocyte": 10.0},
    "LPL": {"adipocyte": 6.5, "macrophage": 0.3},
    # every cell
    "ACTB": {"any": 3.6},
    "GAPDH": {"any": 3.0},
    "B2M": {"any": 3.2},
    "EEF1A1": {"any": 4.2},
    "TMSB4X": {"any": 2.6, "T cell": 2.2, "B cell": 2.0, "macrophage": 3.0},
    "FTL": {"any": 2.4, "macrophage": 6.0},
}
"""Gene symbol → kind of cell → molecules caught per cell at ordinary depth."""

GENES: Final = tuple(MAKERS)

PROGRAMMES: Final[dict[str, tuple[str, ...]]] = {
    "amplicon": GENES[0:4],
    "epithelium": GENES[4:19],
    "division": ("MKI67", "TOP2A"),
    "hypoxia": ("VEGFA", "NDRG1", "SLC2A1"),
    "stroma": GENES[24:35],
    "vessels": GENES[35:39],
    "immune": GENES[39:55],
    "fat": GENES[55:59],
    "housekeeping": GENES[59:],
}
"""Genes that also vary together in ways the picture does not show."""

ADIPOCYTE_PER_MM2: Final = 1100.0
BLOOD_PER_MM2: Final = 9000.0
"""Cells whose bodies, not nuclei, are drawn: counted by the area they cover."""

CONTENT: Final[dict[str, float]] = {
    "tumour": 1.7, "in situ": 1.5, "luminal": 1.1, "myoepithelial": 0.8, "fibroblast": 0.8,
    "activated fibroblast": 1.3, "endothelial": 0.8, "T cell": 0.5, "B cell": 0.6,
    "plasma cell": 1.2, "macrophage": 1.3, "adipocyte": 1.0, "debris": 0.1, "blood": 0.0,
}  # fmt: skip
"""RNA per cell, relative; scales what every cell makes."""

SOURCES: Final = (*KINDS, "blood")


@dataclass(frozen=True, slots=True)
class Truth:
    """What was there to measure.

    Parameters
    ----------
    amounts
        (n, len(SOURCES)) float64, cells of each kind under each spot.
    rate
        (n, len(GENES)) float64, expected counts, all causes included but chance.
    visible
        (n, len(GENES)) float64, expected counts given only what is drawn, at ordinary depth.
    """

    amounts: Points
    rate: Points
    visible: Points


def weights() -> Points:
    """Return `MAKERS` as (len(SOURCES), len(GENES)) float64."""
    table = np.zeros((len(SOURCES), len(GENES)))
    for column, makers in enumerate(MAKERS.values()):
        for row, source in enumerate(SOURCES):
            table[row, column] = makers.get(source, 0.0) + makers.get("any", 0.0) * CONTENT[source]
    return table


def cells_under(canvas: Canvas, plan: Anatomy, cells: Cells, spots_um: Points, radius_um: float) -> Points:
    """Return how many cells of each kind lie under each spot, (n, len(SOURCES)).

    A little RNA spreads sideways before it is caught, so the edge of a spot is soft (4 µm).
    """
    amounts = np.zeros((len(spots_um), len(SOURCES)))
    if len(cells) and len(spots_um):
        reach = radius_um + 14.0
        near = cKDTree(spots_um).sparse_distance_matrix(cKDTree(cells.xy), reach, output_type="ndarray")
        caught = 1 / (1 + np.exp((near["v"] - radius_um) / 4.0))
        np.add.at(amounts, (near["i"], cells.kind[near["j"]]), caught)
    area_mm2 = np.pi * radius_um**2 * 1e-6
    fat = _share(canvas, (plan.adipose > 0) & (plan.tissue > 0), spots_um, radius_um)
    blood = _share(canvas, (plan.vessel_lumen > 2) & (plan.tissue > 0), spots_um, radius_um)
    amounts[:, SOURCES.index("adipocyte")] += fat * area_mm2 * ADIPOCYTE_PER_MM2
    amounts[:, SOURCES.index("blood")] += blood * area_mm2 * BLOOD_PER_MM2
    return amounts


def _share(canvas: Canvas, mask: Mask, spots_um: Points, radius_um: float) -> Points:
    """Return the share of each spot's area where `mask` is true."""
    ring = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radii = radius_um * np.sqrt((np.arange(5) + 0.5) / 5)
    offsets = np.array([[r * np.cos(t + r), r * np.sin(t + r)] for r in radii for t in ring])
    places = (spots_um[:, None, :] + offsets).reshape(-1, 2)
    inside = canvas.at(mask.astype(np.float32), places) > 0.5
    return np.asarray(inside.reshape(len(spots_um), -1).mean(axis=1), np.float64)


def expected(
    canvas: Canvas, plan: Anatomy, amounts: Points, spots_um: Points, rng: np.random.Generator
) -> Truth:
    """Return the counts to expect at each spot.

    On top of what is drawn come a depth per spot (log-normal, partly shared by neighbours) and one
    smooth field per programme that the picture does not show.
    """
    made = weights()
    visible = amounts @ made
    state = {
        "amplicon": 0.25 + 1.5 * canvas.at(plan.grade, spots_um) ** 1.5,
        "division": 0.15 + 2.4 * canvas.at(plan.proliferation, spots_um) ** 2,
        "hypoxia": 0.20 + 3.0 * canvas.at(plan.hypoxia, spots_um),
    }
    hidden = np.empty_like(visible)
    for name, genes in PROGRAMMES.items():
        columns = [GENES.index(g) for g in genes]
        visible[:, columns] *= np.asarray(state.get(name, np.ones(len(spots_um))))[:, None]
        hidden[:, columns] = canvas.at(0.28 * canvas.noise(rng, 230), spots_um)[:, None]
    visible = visible + 0.02
    hidden = hidden + rng.normal(0, 0.12, (1, visible.shape[1]))
    depth = canvas.at(0.18 * canvas.noise(rng, 320), spots_um)
    depth = depth + rng.normal(0, 0.24, len(spots_um)) + rng.normal(0, 0.25)
    return Truth(amounts, visible * np.exp(hidden + depth[:, None]), visible)


def overdispersed_counts(rate: Points, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return negative-binomial counts around `rate`, float32, each gene with its own dispersion."""
    shape = np.exp(np.random.default_rng(7).normal(np.log(9), 0.5, rate.shape[1]))
    return np.asarray(rng.poisson(rng.gamma(shape, rate / shape)), np.float32)
