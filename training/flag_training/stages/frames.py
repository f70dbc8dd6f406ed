"""Training slides in their own frames: which folds leave a spot out, and what is then guessed of its slide.

Expression is relative to the level and scale of a slide (`napari_flag.model.normalization`).  On the slides
trained on these are known; of a section that a fold leaves out they are guessed from the others, as at
prediction.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flag_training.cohort import Cohort, FloatArray, SectionLevel, TrainingSlide
from flag_training.config import FitConfig
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors

_MOST_FOLDS: Final = 5
_LEAST_COUNT: Final = 0.05
"""Added to mean counts before their logarithm."""


@dataclass(frozen=True, slots=True)
class FramedCohort:
    """Training slides in their own frames, concatenated.

    Parameters
    ----------
    features
        Per view, (n, c) components in the slides' frames.
    graphs
        Per view, the slides' graphs side by side.
    targets
        (n, G) expression in the slides' frames.
    folds
        (n,) int64, the fold that leaves a spot out.
    slides
        (n,) int64, position of the spot's slide.
    """

    features: tuple[Tensor, ...]
    graphs: tuple[GraphTensors, ...]
    targets: Tensor
    folds: Tensor
    slides: Tensor

    def members(self) -> list[Tensor]:
        """Return the rows of each slide."""
        return [torch.nonzero(self.slides == slide)[:, 0] for slide in range(int(self.slides.max()) + 1)]

    def part(self, view: int, members: Tensor) -> tuple[Tensor, GraphTensors]:
        """Return features and graph of the spots `members` alone: whole slides, so that no edge is cut."""
        graph = self.graphs[view]
        place = torch.empty(len(graph.neighbours), dtype=torch.long)
        place[members] = torch.arange(len(members))
        part = GraphTensors(
            place[graph.neighbours[members]],
            graph.present[members],
            graph.distance[members],
            graph.likeness[members],
        )
        return self.features[view][members], part


@dataclass(frozen=True, slots=True)
class Frames:
    """What each spot's slide looks like to folds that left the spot out.

    Parameters
    ----------
    location, scale
        (n, G) level and spread guessed from the other slides, log2(count + 1).
    novelty
        (n,) how unlike those slides it is, 0 to 1.
    resemblance
        (m, m) shares that residuals of each training slide (column) have in those of each slide (row).
    """

    location: Tensor
    scale: Tensor
    novelty: Tensor
    resemblance: Tensor


def assign_folds(slides: Sequence[TrainingSlide]) -> tuple[npt.NDArray[np.int64], ...]:
    """Return, per slide, the (n,) fold of each spot: whole sections, or strips of a lone one."""
    of_patient: dict[str, list[int]] = defaultdict(list)
    for position, slide in enumerate(slides):
        of_patient[slide.entry.patient].append(position)
    most = max(len(sections) for sections in of_patient.values())
    count = min(_MOST_FOLDS, max(3, most))
    folds: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * len(slides)
    for sections in of_patient.values():
        for order, position in enumerate(sections):
            n = len(slides[position].spots)
            if len(sections) > 1:
                folds[position] = np.full(n, order % count)
                continue
            xy = slides[position].spots.xy
            axis = np.linalg.svd(xy - xy.mean(0), full_matrices=False)[2][0]
            rank = np.argsort(np.argsort(xy @ axis))
            folds[position] = rank * count // n
    return tuple(folds)


def known_sections(cohort: Cohort, config: FitConfig) -> tuple[SectionLevel, ...]:
    """Return the other sections whose counts may be known: not those of the cohort, nor any left out."""
    names = {slide.entry.name for slide in cohort.slides} | set(config.left_out)
    return tuple(
        section
        for section in cohort.others
        if section.name not in names and section.patient not in config.left_out_patients
    )


def levels_of(cohort: Cohort, kept: Sequence[Tensor] | None = None) -> dict[str, list[SectionLevel]]:
    """Return the levels of all sections, patient by patient; of the slides' spots `kept` alone."""
    found: dict[str, list[SectionLevel]] = defaultdict(list)
    for number, slide in enumerate(cohort.slides):
        expression = slide.expression if kept is None else slide.expression[kept[number].numpy()]
        if len(expression):
            entry = slide.entry
            found[entry.patient].append(SectionLevel.of(entry.name, entry.patient, expression))
    for section in cohort.others:
        found[section.patient].append(section)
    return dict(found)


def remember(network: Flag, cohort: Cohort, levels: dict[str, list[SectionLevel]]) -> None:
    """Store the training slides' frames, and the levels of all patients, in the network."""
    clean = torch.cat([views[0] for views in cohort.features])
    mean, spread = clean.mean(0), clean.std(0, correction=0) + 1e-6
    frames = [_slide_frame(slide, views[0], mean, spread) for slide, views in _pairs(cohort)]
    buffers = {"feature_mean": mean, "feature_spread": spread} | _stack(frames) | prior_of(levels)
    buffers["slide_shares"] = shares_of([slide.entry.patient for slide in cohort.slides])
    for name, value in buffers.items():
        network.get_buffer(name).copy_(value)
    framed = torch.cat([network.normalization.standardise(views[0]) for views in cohort.features]).double()
    values, axes = torch.linalg.eigh(framed.T @ framed / len(framed))
    network.get_buffer("axes").copy_(axes.flip(1)[:, : network.config.components])
    along = values.flip(0)[: network.config.components].clamp_min(0).sqrt()
    network.get_buffer("lift").copy_((along[0] * along.clamp_min(1e-3)).rsqrt())


def _pairs(cohort: Cohort) -> list[tuple[TrainingSlide, Tensor]]:
    return list(zip(cohort.slides, cohort.features, strict=True))


def _slide_frame(
    slide: TrainingSlide, features: Tensor, mean: Tensor, spread: Tensor, kept: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the centre, location and scale of a slide, of its spots `kept` alone."""
    rows = torch.ones(len(features), dtype=torch.bool) if kept is None else kept
    expression = torch.from_numpy(slide.expression)[rows]
    centre = ((features[rows] - mean) / spread).mean(0)
    return centre, expression.mean(0), expression.std(0, correction=0) + 0.1


def _stack(frames: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
    names = ("slide_centres", "slide_location", "slide_scale")
    return {name: torch.stack(parts) for name, parts in zip(names, zip(*frames, strict=True), strict=True)}


def shares_of(patients: Sequence[str]) -> Tensor:
    """Return (m,) weights, summing to 1, of slides of these patients: every patient counts alike."""
    sections = Counter(patients)
    return torch.tensor([1 / (len(sections) * sections[patient]) for patient in patients])


def prior_of(levels: dict[str, list[SectionLevel]]) -> dict[str, Tensor]:
    """Return the level of a patient of whom nothing is known, and how patients differ."""

    def over_patients(measure: Callable[[SectionLevel], FloatArray]) -> Tensor:
        of_sections = (torch.from_numpy(np.stack([measure(s) for s in found])) for found in levels.values())
        return torch.stack([sections.nanmean(0) for sections in of_sections])  # (p, G)

    log_mean = over_patients(lambda section: np.log(section.mean + _LEAST_COUNT))  # (p, G)
    log_mean = torch.where(log_mean.isnan(), log_mean.nanmean(0), log_mean)
    found = {
        "prior_location": over_patients(lambda section: section.location).nanmean(0),
        "prior_scale": over_patients(lambda section: section.scale).nanmean(0) + 0.1,
    }
    if len(levels) > 1:
        found["patients"] = (log_mean - log_mean.mean(0)) / (len(levels) - 1) ** 0.5
    return found


def left_out(network: Flag, cohort: Cohort, folds: tuple[npt.NDArray[np.int64], ...]) -> Frames:
    """Return what is guessed of each spot's slide by the folds that left the spot out, as at prediction."""
    stored, pairs = network.normalization, _pairs(cohort)
    count = int(max(fold.max() for fold in folds)) + 1
    location, scale = ([torch.empty(slide.expression.shape) for slide in cohort.slides] for _ in range(2))
    novelty = [torch.empty(len(slide.expression)) for slide in cohort.slides]
    resemblance = torch.zeros(len(pairs), len(pairs))
    for left in range(count):
        kept = [torch.from_numpy(fold != left) for fold in folds]
        frames = [
            _slide_frame(slide, features[0], stored.mean, stored.spread, rows)
            for (slide, features), rows in zip(pairs, kept, strict=True)
            if rows.any()
        ]
        used = [number for number, rows in enumerate(kept) if rows.any()]
        parts = _stack(frames) | prior_of(levels_of(cohort, kept))
        seen = replace(
            stored,
            centres=parts["slide_centres"],
            location=parts["slide_location"],
            scale=parts["slide_scale"],
            prior_location=parts["prior_location"],
            prior_scale=parts["prior_scale"],
            shares=shares_of([cohort.slides[number].entry.patient for number in used]),
        )
        for number, ((_, features), rows) in enumerate(zip(pairs, kept, strict=True)):
            if rows.all():
                continue
            centre = seen.centre(features[0])
            level, width = seen.expression(centre)
            location[number][~rows], scale[number][~rows] = level, width
            novelty[number][~rows] = seen.novelty(centre)
            resemblance[number, used] += seen.resemblance(centre) * (~rows).float().mean()
    return Frames(torch.cat(location), torch.cat(scale), torch.cat(novelty), resemblance)


def frame(network: Flag, cohort: Cohort, folds: tuple[npt.NDArray[np.int64], ...]) -> FramedCohort:
    """Put every slide into its own frame and concatenate them, once per view."""
    frames = network.normalization
    views = range(cohort.features[0].shape[0])
    targets = [
        (torch.from_numpy(slide.expression) - location) / scale
        for slide, location, scale in zip(cohort.slides, frames.location, frames.scale, strict=True)
    ]
    graphs = (
        GraphTensors.of(*(slide.graph(features[view].numpy()) for slide, features in _pairs(cohort)))
        for view in views
    )
    return FramedCohort(
        features=tuple(
            torch.cat([frames.features(features[view]) for features in cohort.features]) for view in views
        ),
        graphs=tuple(network.seen(graph) for graph in graphs),
        targets=torch.cat(targets),
        folds=torch.from_numpy(np.concatenate(folds)),
        slides=torch.cat([torch.full((len(slide.spots),), i) for i, slide in enumerate(cohort.slides)]),
    )
