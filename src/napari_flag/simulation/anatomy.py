"""Anatomy of a simulated section of breast tissue: ducts, tumour nests, vessels, stroma, fat.

Every structure is a signed distance in µm (positive inside) on the coarse grid of a `Canvas`, so
that painting and gene expression read the same plan.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_flag.simulation.fields import Canvas, Field, Mask, Planner, blob, signed_distance, standardised


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The plan of one section; every field is float32 (cells, cells) on the canvas' coarse grid.

    Parameters
    ----------
    tissue, adipose, bed
        Signed distances: the section, its fat, and the tumour bed.
    duct, dcis, nest
        Signed distances to the outer border of normal epithelium (ducts and acini), of ducts filled
        with in-situ tumour, and of invasive tumour.
    lumen, necrosis
        Holes in any epithelium, and dead centres of in-situ tumour.
    vessel, vessel_lumen, aggregate
        Blood vessels, their lumen, and lymphoid aggregates.
    lobule
        Loose stroma around acini.
    fibre_angle
        Direction of collagen in radians, x to the right and y down.
    grade
        0 to 1: how large and irregular tumour nuclei are; correlates with ERBB2 amplification.
    proliferation, hypoxia, inflamed, desmoplasia
        0 to 1: drawn as mitoses, smudged nuclei, lymphocytes, and dense young collagen.
    """

    tissue: Field
    adipose: Field
    bed: Field
    duct: Field
    dcis: Field
    nest: Field
    lumen: Field
    necrosis: Field
    vessel: Field
    vessel_lumen: Field
    aggregate: Field
    lobule: Field
    fibre_angle: Field
    grade: Field
    proliferation: Field
    hypoxia: Field
    inflamed: Field
    desmoplasia: Field


def plan(canvas: Canvas, rng: np.random.Generator) -> Anatomy:
    """Return the plan of one section.

    A slow gradient across the section orders it as surgery finds it: tumour bed at one side,
    fibrous tissue with ducts and lobules in the middle, fat at the other.
    """
    planner = Planner(canvas, rng)
    tissue = planner.outline()
    inside = tissue > 0
    half = canvas.side_um / 2
    way = rng.uniform(0, 2 * np.pi)
    slope = ((planner.x - half) * np.cos(way) + (planner.y - half) * np.sin(way)) / half
    order = standardised(1.15 * slope + 0.55 * canvas.fractal(rng, 420, 4))
    bed = planner.quantile_border(order, rng.uniform(0.36, 0.52), inside, 170)
    adipose = planner.quantile_border(-order, rng.uniform(0.14, 0.26), inside, 170)
    adipose = (adipose + 14 * canvas.fractal(rng, 70, 2)).astype(np.float32)

    glands = _glands(planner, tissue, bed, adipose)
    nest, tubules = _nests(planner, bed, glands["dcis"], glands["duct"])
    vessel, lumen = _vessels(planner, tissue, nest)
    aggregate = _aggregates(planner, tissue, bed)
    solid = np.maximum(np.maximum(glands["duct"], glands["dcis"]), vessel)
    return Anatomy(
        tissue=tissue,
        adipose=np.minimum(adipose, -solid - 6).astype(np.float32),
        bed=bed,
        duct=glands["duct"],
        dcis=glands["dcis"],
        nest=np.minimum(nest, -vessel - 2).astype(np.float32),
        lumen=np.maximum(glands["lumen"], tubules),
        necrosis=glands["necrosis"],
        vessel=vessel,
        vessel_lumen=lumen,
        aggregate=aggregate,
        lobule=glands["lobule"],
        fibre_angle=_fibres(planner, np.maximum(glands["duct"], glands["dcis"])),
        **_states(planner, bed, vessel, aggregate, glands["necrosis"]),
    )


def _glands(planner: Planner, tissue: Field, bed: Field, adipose: Field) -> dict[str, Field]:
    rng = planner.rng
    fields = {k: planner.empty() for k in ("duct", "dcis", "lumen", "necrosis", "lobule")}
    margin = tissue > 70
    for _ in range(planner.count(3.4, margin & (bed > -260) & (adipose < -40))):
        _in_situ(planner, fields, margin & (bed > -260) & (adipose < -40))
    free = margin & (bed < -20) & (adipose < -20)
    for _ in range(planner.count(9.0, free)):
        radius = float(rng.uniform(26, 62))
        spot = planner.place(free, radius, 45)
        if spot is None:
            continue
        wall = blob(rng, *spot, radius, 0.1)
        planner.stamp(fields["duct"], wall)
        planner.stamp(fields["lumen"], wall, -float(rng.uniform(12, 17)))
    for _ in range(planner.count(9.0, free)):
        _lobule(planner, fields, free)
    return fields


def _in_situ(planner: Planner, fields: dict[str, Field], allowed: Mask) -> None:
    rng = planner.rng
    radius = float(rng.uniform(60, 115))
    spot = planner.place(allowed, radius, 40)
    if spot is None:
        return
    wall = blob(rng, *spot, radius, 0.08)
    planner.stamp(fields["dcis"], wall)
    if radius > 85 and rng.random() < 0.55:
        planner.stamp(fields["necrosis"], wall, -radius * float(rng.uniform(0.5, 0.62)))
        return
    for _ in range(int(rng.integers(5, 15))):  # cribriform: punched-out round holes
        turn, away = rng.uniform(0, 2 * np.pi), radius * 0.72 * np.sqrt(rng.random())
        x, y = spot[0] + away * np.cos(turn), spot[1] + away * np.sin(turn)
        planner.stamp(fields["lumen"], blob(rng, x, y, float(rng.uniform(6, 14)), 0.03))


def _lobule(planner: Planner, fields: dict[str, Field], allowed: Mask) -> None:
    rng = planner.rng
    extent = float(rng.uniform(55, 105))
    spot = planner.place(allowed, extent, 35)
    if spot is None:
        return
    planner.stamp(fields["lobule"], blob(rng, *spot, extent * 1.12, 0.1))
    centres: list[tuple[float, float]] = []
    for _ in range(int(extent * 0.9)):
        turn, away = rng.uniform(0, 2 * np.pi), extent * np.sqrt(rng.random())
        x, y = spot[0] + away * np.cos(turn), spot[1] + away * np.sin(turn)
        if all(np.hypot(x - u, y - v) > 36 for u, v in centres):
            centres.append((x, y))
            acinus = blob(rng, x, y, float(rng.uniform(13, 19)), 0.08)
            planner.stamp(fields["duct"], acinus)
            planner.stamp(fields["lumen"], acinus, -float(rng.uniform(9.5, 13)))


def _nests(planner: Planner, bed: Field, dcis: Field, duct: Field) -> tuple[Field, Field]:
    """Return invasive tumour, from cords to solid sheets, and the tubules in it."""
    rng, canvas = planner.rng, planner.canvas
    grain = canvas.noise(rng, 62) + 0.55 * canvas.noise(rng, 26) + 0.22 * canvas.noise(rng, 11)
    grain = standardised(grain)
    level = rng.normal(0.25, 0.15) + 0.6 * canvas.noise(rng, 330)
    keep = (grain > level) & (bed + 22 * grain > 0)
    keep &= (dcis < -16) & (duct < -14)
    signed = signed_distance(keep, canvas.step_um)
    signed = (gaussian_filter(signed, 1.0) + 1.2 * canvas.noise(rng, 9)).astype(np.float32)
    tubules = planner.empty()
    deep = signed > 13
    for _ in range(planner.count(70, deep)):
        rows, cols = np.nonzero(deep)
        at = int(rng.integers(len(rows)))
        x, y = float(planner.x[rows[at], cols[at]]), float(planner.y[rows[at], cols[at]])
        planner.stamp(tubules, blob(rng, x, y, float(rng.uniform(4.5, 10)), 0.12))
    return signed, np.minimum(tubules, signed - 4).astype(np.float32)


def _vessels(planner: Planner, tissue: Field, nest: Field) -> tuple[Field, Field]:
    rng = planner.rng
    vessel, lumen = planner.empty(), planner.empty()
    allowed = (tissue > 30) & (nest < -8)
    for _ in range(planner.count(16, allowed)):
        radius = float(np.clip(rng.lognormal(2.55, 0.5), 7, 45))
        spot = planner.place(allowed, radius, 14)
        if spot is None:
            continue
        wall = blob(rng, *spot, radius, 0.06)
        planner.stamp(vessel, wall)
        planner.stamp(lumen, wall, -max(2.6, 0.3 * radius * float(rng.uniform(0.6, 1.3))))
    return vessel, lumen


def _aggregates(planner: Planner, tissue: Field, bed: Field) -> Field:
    rng = planner.rng
    aggregate = planner.empty()
    edge = (tissue > 40) & (np.abs(bed + 30) < 110)
    for _ in range(planner.count(2.6, edge) + 1):
        spot = planner.place(edge, 50, 20)
        if spot is not None:
            planner.stamp(aggregate, blob(rng, *spot, float(rng.uniform(38, 95)), 0.13))
    return (aggregate + 5 * planner.canvas.noise(rng, 25)).astype(np.float32)


def _fibres(planner: Planner, solid: Field) -> Field:
    """Return the direction of collagen: in sheets, and around ducts and vessels in rings."""
    canvas, rng = planner.canvas, planner.rng
    way = rng.uniform(0, 2 * np.pi)
    # a steady slope keeps most fibres running one way, so that whorls stay rare
    stream = 0.75 * (planner.x * np.cos(way) + planner.y * np.sin(way))
    stream = stream + 110 * canvas.noise(rng, 520) + 17 * canvas.noise(rng, 150)
    stream = stream + 1.5 * canvas.noise(rng, 38)
    ring = np.exp(np.minimum(solid, 0) / 45)
    stream = stream * (1 - 0.75 * ring) + solid * ring * 2.2
    down, right = np.gradient(gaussian_filter(stream, 2.0))
    return np.asarray(np.arctan2(right, -down), np.float32)


def _states(
    planner: Planner, bed: Field, vessel: Field, aggregate: Field, necrosis: Field
) -> dict[str, Field]:
    """Return the slowly changing states that both the drawing and the genes depend on."""
    canvas, rng = planner.canvas, planner.rng

    def between(field: Field) -> Field:
        return (1 / (1 + np.exp(-field))).astype(np.float32)

    grade = between(1.9 * canvas.fractal(rng, 380, 2) + rng.normal(0, 0.4))
    hot = between(1.8 * canvas.fractal(rng, 260, 3) - 0.8)
    rim = np.exp(-(((bed - 5) / 90) ** 2))
    near_vessel = np.exp(np.minimum(vessel, 0) / 22)
    inflamed = hot * (0.35 + 0.9 * rim) + 0.35 * near_vessel * hot
    inflamed = np.maximum(inflamed, between(aggregate / 7))
    starved = between((-gaussian_filter(vessel, 6) - 190) / 45)
    hypoxia = np.maximum(
        np.exp(np.minimum(necrosis, 0) / 40), starved * between(1.4 * canvas.noise(rng, 220) - 0.6)
    )
    return {
        "grade": grade,
        "proliferation": between(1.7 * canvas.fractal(rng, 230, 2) + 1.6 * (grade - 0.5) - 0.4),
        "hypoxia": hypoxia.astype(np.float32),
        "inflamed": np.clip(inflamed, 0, 1).astype(np.float32),
        "desmoplasia": between((bed + 40 + 25 * canvas.noise(rng, 120)) / 35),
    }
