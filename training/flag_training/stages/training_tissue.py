"""Fit the score that says how far a slide lies from the training tissue."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flag_training.cohort import Cohort
from napari_flag.model.out_of_distribution import FAR, MOSTLY, OutOfDistributionScore

AXES: Final = 64
"""Principal axes; the rest is judged by its length alone."""
QUANTILES: Final = 1001
"""Left-out distances are kept as at most this many quantiles."""
STRIPS: Final = 3
PATIENTS: Final = 5
"""From this many patients on, whole patients are left out: fewer do not say how patients differ."""
CONSTANT: Final = 1e-6
"""A feature whose spread is below this share of its size holds rounding errors alone, and is left out."""


def fit_familiarity(cohort: Cohort) -> OutOfDistributionScore:
    """Describe the training tissue, and calibrate distances on sections left out.

    Parameters
    ----------
    cohort
        All training slides; their features as they are (view 0) are used, not the turned and re-stained.

    Returns
    -------
    For `save_checkpoint`; about 300 kB at 1,016 features and five slides.
    """
    slides = [views[0] for views in cohort.features]
    plain, aligned = [], []
    for held in left_out(cohort):
        kept = [rows[~out] for rows, out in zip(slides, held, strict=True)]
        described = _describe([rows for rows in kept if len(rows)])
        for rows, out in zip(slides, held, strict=True):
            if out.any():
                plain.append(described.distances(rows[out]))
                aligned.append(described.aligned_distances(rows[out]))
    return replace(_describe(slides), reach=_quantiles(plain), reach_aligned=_quantiles(aligned))


def describe_for_card(cohort: Cohort) -> dict[str, object]:
    """Return what the data card says of the score."""
    return {
        "calibrated_on": f"{len(left_out(cohort))} left out in turn: {_kind(cohort)}",
        "spots": sum(len(slide.spots) for slide in cohort.slides),
        "unlike_from": FAR,
        "warns_above_share": MOSTLY,
        "limits": "few patients, so calibrated optimistically; a new patient's slide may well be unlike",
    }


def left_out(cohort: Cohort) -> list[list[Tensor]]:
    """Return, for each part left out in turn, the (n,) bool mask of its spots on every slide.

    Parts are patients where there are `PATIENTS` or more, else sections; the only section of a patient is
    left out in three strips, as its patient would otherwise not be known at all.
    """
    owners = [slide.entry.patient for slide in cohort.slides]
    sizes = [len(slide.spots) for slide in cohort.slides]
    if len(set(owners)) >= PATIENTS:
        return [_masks(sizes, [owner == patient for owner in owners]) for patient in sorted(set(owners))]
    parts = []
    for place, slide in enumerate(cohort.slides):
        whole = _masks(sizes, [other == place for other in range(len(sizes))])
        if owners.count(slide.entry.patient) > 1:
            parts.append(whole)
            continue
        strip = torch.from_numpy(_strips(slide.spots.xy))
        for number in range(STRIPS):
            parts.append([*whole[:place], strip == number, *whole[place + 1 :]])
    return parts


def _kind(cohort: Cohort) -> str:
    owners = [slide.entry.patient for slide in cohort.slides]
    if len(set(owners)) >= PATIENTS:
        return "patients"
    lone = any(owners.count(owner) == 1 for owner in owners)
    return "sections, and strips of a patient's only section" if lone else "sections"


def _masks(sizes: Sequence[int], wanted: Sequence[bool]) -> list[Tensor]:
    return [torch.full((size,), want) for size, want in zip(sizes, wanted, strict=True)]


def _strips(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Cut the spots of one section into strips across its longer axis."""
    axis = np.linalg.svd(xy - xy.mean(0), full_matrices=False)[2][0]
    rank = np.argsort(np.argsort(xy @ axis, kind="stable"), kind="stable")
    strips: npt.NDArray[np.int64] = rank * STRIPS // len(xy)
    return strips


def _describe(slides: Sequence[Tensor]) -> OutOfDistributionScore:
    """Describe the tissue of `slides`, each (n, d); not calibrated yet."""
    centres = [rows.double().mean(0) for rows in slides]
    within = torch.cat([rows.double() - centre for rows, centre in zip(slides, centres, strict=True)])
    spread = (within * within).mean(0).sqrt()
    typical = torch.stack(centres).abs().amax(0).clamp_min(1)
    spread[spread <= CONSTANT * typical] = torch.inf
    z = within / spread
    values, vectors = torch.linalg.eigh(z.T @ z / len(z))  # rising
    count = min(AXES, len(z) - 1, int((values > CONSTANT).sum()))
    axes = vectors.flip(1)[:, :count].T
    left = z - z @ axes.T @ axes
    return OutOfDistributionScore(
        spread=spread.float(),
        centres=torch.stack(centres).float(),
        axes=axes.float().contiguous(),
        variances=values.flip(0)[:count].float(),
        rest=(left * left).sum(1).mean().clamp_min(CONSTANT).float(),
        reach=torch.empty(0),
        reach_aligned=torch.empty(0),
    )


def _quantiles(distances: Sequence[Tensor]) -> Tensor:
    """Return all distances, rising, or `QUANTILES` of them where there are more."""
    found = np.sort(torch.cat(list(distances)).numpy())
    if len(found) > QUANTILES:
        found = np.quantile(found, np.linspace(0, 1, QUANTILES))
    return torch.from_numpy(found).float()
