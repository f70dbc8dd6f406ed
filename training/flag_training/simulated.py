"""Cohorts of any size without a picture: tissue, features and counts of a slide in milliseconds.

Made for questions of scale: from how many slides, patients or genes on is a part of a model worth something?
A slide is an array of spots over smooth tissue; its features are a fixed nonlinear map of the cells under and
around each spot, shifted by patient and slide as stains are, with noise; its counts are drawn from a
distribution that is known (`napari_flag.simulation.expression`).  No score here is a claim about real tissue.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import SlideEntry
from napari_flag.progress import Step, Steps
from napari_flag.simulation.expression import (
    TISSUES,
    Depth,
    GeneModel,
    KnownExpression,
    cells_by_tissue,
    known_expression,
    mixing,
)
from napari_flag.simulation.fields import Points
from napari_flag.simulation.programmes import SOURCES
from napari_flag.slides.spots import IntArray, Spots
from napari_flag.statistics.neighbours import array_graph

FloatArray = npt.NDArray[np.float32]

MPP: Final = 0.5
PITCH_UM: Final = 100.0
DIAMETER_UM: Final = 55.0
"""Array geometry, as Visium has it."""
_FIELD: Final = 4.0
"""Length in pitches over which tissue changes."""
_CONTRAST: Final = 3.0
"""How pure tissues are: the spread of the logits of their shares."""
_KIND_SPREAD: Final = 0.5
"""ln: how much more or less of one kind of cell a place has than its tissue."""
_AROUND: Final = 0.3
"""Weight of the first ring in what a tile shows."""
_HIDDEN: Final = 4
"""Hidden units of the map from cells to features, per feature."""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedSlide:
    """One slide, and the exact distribution that its counts are drawn from.

    Parameters
    ----------
    slide
        As training reads it.
    features
        (views, n, d) float32.
    known
        The distribution of the counts for who knows tissue, patient and depth of the slide.
    """

    slide: TrainingSlide
    features: Tensor
    known: KnownExpression


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedCohort:
    """Slides as training reads them, and the distribution of each slide's counts."""

    cohort: Cohort
    known: tuple[KnownExpression, ...]


@dataclass(frozen=True, slots=True, eq=False)
class CohortModel:
    """What simulated slides are drawn from; slide k is the same whatever others are made.

    Parameters
    ----------
    genes
        What is measured.
    seed
        The cohort.
    spots, slides_per_patient
        Spots of a slide, and slides of a patient: slide k is of patient k // `slides_per_patient`.
    width, views
        Width of the features, and their views.
    noise
        Standard deviation of the features' noise; what tissue does to a feature has about 1.
    stain
        The same of the shift of a feature between patients; between slides of one it is a third of that.
    level_spread, depth_spread, slide_depth_spread
        ln: standard deviations of a gene's level and of depth between patients, and of depth between slides
        of one.
    tissue_spread
        Of the logits of the tissues' shares between patients.
    depth
        Distribution of depth between the spots of a slide.
    """

    genes: GeneModel
    seed: int = 0
    spots: int = 300
    slides_per_patient: int = 4
    width: int = 128
    views: int = 1
    noise: float = 1.5
    stain: float = 0.5
    level_spread: float = 0.3
    depth_spread: float = 0.7
    slide_depth_spread: float = 0.25
    tissue_spread: float = 0.7
    depth: Depth = field(default_factory=Depth)

    def cohort(self, slides: int, first: int = 0) -> Steps[SimulatedCohort]:
        """Return slides `first` to `first` + `slides` − 1."""
        made = []
        for number in range(slides):
            yield Step("Simulating", number, slides, "slides")
            made.append(self.slide(first + number))
        cohort = Cohort(tuple(m.slide for m in made), tuple(m.features for m in made), self.genes.names)
        return SimulatedCohort(cohort, tuple(m.known for m in made))

    def slide(self, number: int) -> SimulatedSlide:
        """Return slide `number`, from 0."""
        laid, grown, seen, measured = self._stream("slide", number).spawn(4)
        patient = number // self.slides_per_patient
        levels, depths, shares, _ = self._patient(patient)
        spots = _array(self.spots, laid)
        xy_um = spots.xy * MPP
        amounts = _cells(xy_um, self.tissue_spread * shares.standard_normal(len(TISSUES)), grown)
        log_depth = self.depth_spread * depths.standard_normal()
        log_depth += self.slide_depth_spread * measured.standard_normal()
        level = self.level_spread * levels.standard_normal(len(self.genes))
        known = known_expression(
            self.genes,
            amounts,
            xy_um,
            PITCH_UM,
            depth=self.depth,
            level=level.astype(np.float32),
            log_depth=log_depth,
        )
        expression = np.log2(known.draw(measured) + 1)
        entry = SlideEntry(f"sim{number:04d}", f"patient{patient:03d}", "", "")
        features = self._features(amounts, _ring(spots), patient, seen)
        slide = TrainingSlide(entry, spots, MPP, expression)
        return SimulatedSlide(slide, torch.from_numpy(features), known)

    def _stream(self, what: str, number: int = 0) -> np.random.Generator:
        """Return the random numbers of one slide, one patient, or the map to features."""
        return np.random.default_rng([self.seed, *what.encode(), number])

    def _patient(self, patient: int) -> list[np.random.Generator]:
        """Return the streams of a patient's levels, depth, tissues and stain."""
        return self._stream("patient", patient).spawn(4)

    def _features(
        self, amounts: Points, ring: sparse.csr_array, patient: int, rng: np.random.Generator
    ) -> FloatArray:
        """Return (views, n, d) features: view 0 as the slide is, the others stained anew."""
        hidden = _HIDDEN * self.width
        map_rng = self._stream("map")
        into = map_rng.standard_normal((len(SOURCES), hidden))
        bias = map_rng.standard_normal(hidden)
        out = map_rng.standard_normal((hidden, self.width)) * 2 / np.sqrt(hidden)
        shown = np.log1p(amounts)
        shown = (1 - _AROUND) * shown + _AROUND * (ring @ shown)
        shown = shown - np.log1p(cells_by_tissue().mean(axis=0))
        clean = np.tanh(shown @ into / 2 + bias) @ out
        stain = self._patient(patient)[3]
        clean = clean * np.exp(0.1 * stain.standard_normal(self.width))
        clean += self.stain * stain.standard_normal(self.width)
        grain, *streams = rng.spawn(1 + self.views)  # one per view, so that more leave the first as they are
        grain_of_tissue = grain.standard_normal(clean.shape)
        views = np.empty((self.views, *clean.shape), np.float32)
        for view, stream in zip(views, streams, strict=True):
            shift = self.stain / 3 * stream.standard_normal(self.width)
            noise = np.sqrt(0.5) * (grain_of_tissue + stream.standard_normal(clean.shape))
            view[:] = clean + shift + self.noise * noise
        return views


def _array(number: int, rng: np.random.Generator) -> Spots:
    """Return `number` spots of a hexagonal array under a piece of tissue with an irregular border."""
    reach = int(np.ceil(1.3 * np.sqrt(number))) + 2
    rows, cols = np.meshgrid(np.arange(2 * reach), np.arange(4 * reach), indexing="ij")
    on_array = (rows + cols) % 2 == 0
    array: IntArray = np.column_stack([rows[on_array], cols[on_array]]).astype(np.int64)
    xy_um = array[:, ::-1] * np.array([PITCH_UM / 2, PITCH_UM * np.sqrt(3) / 2])
    away = xy_um - xy_um.mean(axis=0)
    turn = np.arctan2(away[:, 1], away[:, 0])
    wave = [rng.normal(0, 0.1 / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5)]
    distance = np.hypot(*away.T) / (1 + np.sum(wave, axis=0))
    keep = np.sort(np.argsort(distance, kind="stable")[:number])
    return Spots(
        ids=tuple(f"{row}_{col}" for row, col in array[keep]),
        xy=xy_um[keep] / MPP,
        diameter_um=DIAMETER_UM,
        pitch_um=PITCH_UM,
        lattice="hex",
        array=array[keep],
    )


def _cells(xy_um: Points, bias: Points, rng: np.random.Generator) -> Points:
    """Return (n, len(SOURCES)) cells of each kind under each spot; `bias` is the patient's, per tissue."""
    fields, sown = rng.spawn(2)
    kinds = len(TISSUES) + len(SOURCES)
    values = mixing(xy_um, PITCH_UM, _FIELD) @ fields.standard_normal((len(xy_um), kinds))
    logits = _CONTRAST * values[:, : len(TISSUES)] + bias
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    expected = share @ cells_by_tissue() * np.exp(_KIND_SPREAD * values[:, len(TISSUES) :])
    return np.asarray(sown.poisson(expected), np.float64)


def _ring(spots: Spots) -> sparse.csr_array:
    """Return the (n, n) matrix that averages over the first ring."""
    assert spots.array is not None
    return array_graph(spots.array, spots.lattice)
