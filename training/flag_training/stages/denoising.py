"""The score stage: batches of residuals to denoise, the objective, and the loss on held-out sections."""

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import FitConfig
from flag_training.engine.loop import Draw, Held, Objective
from flag_training.stages.alignment import (
    Alignment,
)
from flag_training.stages.expectation import FramedCohort
from napari_flag.errors import UserError
from napari_flag.model.diffusion import noise_levels
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Slides of a batch and this process's share of the spots to denoise.

    Parameters
    ----------
    features, graph
        (n, d) features in the slides' frames, and their graphs side by side.
    expected
        (n, G) expectation in units of the residual spread.
    rows
        (b,) positions among the n spots.
    residual, noise
        (b, G) residuals in units of their spread, and unit noise.
    sigma
        (b,) noise levels.
    places
        (b,) rows among all spots of the training slides.
    share
        Share of the batch's spots that are in `rows`.
    """

    features: Tensor
    graph: GraphTensors
    expected: Tensor
    rows: Tensor
    residual: Tensor
    noise: Tensor
    sigma: Tensor
    places: Tensor
    share: float

    @property
    def spots(self) -> int:
        """Spots denoised."""
        return len(self.rows)

    def to(self, device: torch.device) -> Self:
        """Return it on `device`."""
        names = ("features", "graph", "expected", "rows", "residual", "noise", "sigma", "places")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class SlideBatches:
    """Draws batches of whole slides with a sample of their spots; an epoch visits every slide.

    Parameters
    ----------
    cohort
        Training slides in their frames.
    expected
        (views, n, G) what the mean head expects, cross-fitted, in the slides' frames.
    spread
        (G,) of the residuals.
    spots
        Spots to denoise per batch.
    slides
        Slides per batch; 0 takes all.
    seed
        Keys the order of slides.
    """

    def __init__(
        self, cohort: FramedCohort, expected: Tensor, spread: Tensor, spots: int, slides: int, seed: int
    ) -> None:
        self._cohort = cohort
        self._expected = expected / spread
        self._residual = (cohort.targets - expected) / spread
        self._spots, self._seed = spots, seed
        self._members = [
            torch.nonzero(cohort.slides == slide)[:, 0] for slide in range(int(cohort.slides.max()) + 1)
        ]
        self._per_batch = slides or len(self._members)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self._members) / self._per_batch)

    def draw(self, draw: Draw) -> ScoreBatch:
        """Draw slides, a view, spots and noise; then take the process's share of the spots.

        Raises
        ------
        UserError
            When there are more processes than spots to share out.
        """
        generator = torch.Generator().manual_seed(draw.key)
        view = int(torch.randint(len(self._cohort.features), (1,), generator=generator))
        members = self._slides(draw)
        rows = torch.randperm(len(members), generator=generator)[: self._spots]
        noise = torch.randn(len(rows), self._expected.shape[2], generator=generator)
        sigma = noise_levels(len(rows), generator)
        if len(rows) < draw.processes:
            raise UserError(
                f"A batch of {len(rows)} spots cannot be shared out to {draw.processes} processes; raise "
                "score_batch in the config, or run fewer."
            )
        mine = slice(draw.process, None, draw.processes)
        places = members[rows[mine]]
        return ScoreBatch(
            features=self._cohort.features[view][members],
            graph=_part(self._cohort.graphs[view], members),
            expected=self._expected[view][members],
            rows=rows[mine],
            residual=self._residual[view][places],
            noise=noise[mine],
            sigma=sigma[mine],
            places=places,
            share=len(places) / len(rows),
        )

    def _slides(self, draw: Draw) -> Tensor:
        """Return the (n,) rows of the slides of a batch, slide by slide."""
        if self.batches == 1:
            return torch.cat(self._members)
        order = np.random.default_rng([self._seed, draw.epoch]).permutation(len(self._members))
        first = draw.number * self._per_batch
        return torch.cat([self._members[slide] for slide in order[first : first + self._per_batch]])


class Denoising(Objective[ScoreBatch]):
    """The denoising loss of the network, and λ times the alignment loss.

    Parameters
    ----------
    network
        Whose gene DiT and encoder of H_spatial learn.
    alignment, weight
        The alignment loss and λ.
    """

    parts: ClassVar[tuple[str, ...]] = ("denoising", "alignment")

    def __init__(self, network: Flag, alignment: Alignment, weight: float) -> None:
        learning = {"gene_dit": network.gene_dit, "spatial_encoder": network.spatial_encoder}
        super().__init__(nn.ModuleDict(learning), alignment)
        self.network = network.requires_grad_(False)
        self.learning.requires_grad_(True)
        self._weight = weight

    def forward(self, held: Held[ScoreBatch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss over the batch's spots, and its parts."""
        batch = held.batch
        spatial = self.network.spatial(batch.features, batch.expected, batch.graph)[batch.rows]
        score, tokens = self.network.score_loss(
            batch.residual, batch.noise, batch.sigma, spatial, batch.expected[batch.rows]
        )
        aligned = self.helping(tokens, batch.places)
        return score + self._weight * aligned, {"denoising": score, "alignment": aligned}


def _part(graph: GraphTensors, members: Tensor) -> GraphTensors:
    """Return the graph of the spots `members` alone: whole slides, so that no edge is cut."""
    place = torch.empty(len(graph.neighbours), dtype=torch.long)
    place[members] = torch.arange(len(members))
    return GraphTensors(
        place[graph.neighbours[members]],
        graph.present[members],
        graph.distance[members],
        graph.likeness[members],
    )


_SPOTS = 512
"""Spots of a held-out slide that are denoised at each validation."""
_KEY = 7_777_777
"""The same spots and noise at every validation, so that losses can be compared."""


def split_validation(cohort: Cohort, config: FitConfig) -> tuple[Cohort, Cohort]:
    """Return the slides to train on and those to stop early by, which may be none.

    Raises
    ------
    UserError
        When the config names a section that is not there, or leaves none to train on.
    """
    names = [slide.entry.name for slide in cohort.slides]
    unknown = set(config.validation) - set(names)
    if unknown:
        raise UserError(
            f"The config names {', '.join(sorted(unknown))} for validation, but the run has "
            f"{', '.join(names)}; correct validation under [fit]."
        )
    held_out = {names.index(name) for name in config.validation}
    if config.validation_share and not held_out:
        count = max(1, round(config.validation_share * len(names)))
        drawn = np.random.default_rng([config.seed, _KEY]).permutation(len(names))[:count]
        held_out = {int(place) for place in drawn}
    if len(held_out) == len(names):
        raise UserError(
            "All sections of the run are held out for validation, so none is left to train on; name fewer "
            "under [fit] in the config."
        )
    rest = [place for place in range(len(names)) if place not in held_out]
    return _take(cohort, rest), _take(cohort, sorted(held_out))


@dataclass(frozen=True, slots=True)
class HeldOutSlide:
    """A slide framed as at prediction, with what the score loop would have to denoise on it.

    Parameters
    ----------
    framed, expected, graph
        (n, d) features, (n, G) expectation in units of the residual spread, and graph.
    rows
        (b,) spots that are denoised.
    residual
        (b, G) of those spots, in units of the residual spread.
    """

    framed: Tensor
    expected: Tensor
    graph: GraphTensors
    rows: Tensor
    residual: Tensor


class HeldOut:
    """The denoising loss of averaged parameters on slides that contributed to nothing.

    Parameters
    ----------
    network
        Trained but for its gene DiT and encoder of H_spatial, which are loaded from what is validated.
    cohort
        The slides.
    batch
        Spots denoised at a time.
    device
        Where.
    """

    def __init__(self, network: Flag, cohort: Cohort, batch: int, device: torch.device) -> None:
        self._network = copy.deepcopy(network).eval().to(device)
        self._validated = nn.ModuleDict(
            {"gene_dit": self._network.gene_dit, "spatial_encoder": self._network.spatial_encoder}
        )
        self._batch = batch
        self._slides = [
            self._frame(views[0], slide, device)
            for slide, views in zip(cohort.slides, cohort.features, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, averaged: nn.Module) -> float:
        """Return the loss, averaged over slides."""
        self._validated.load_state_dict(averaged.state_dict())
        return float(np.mean([self._loss(slide) for slide in self._slides]))

    @torch.no_grad()
    def _frame(self, features: Tensor, slide: TrainingSlide, device: torch.device) -> HeldOutSlide:
        graph = GraphTensors.of(slide.graph(features.numpy()), device=device)
        raw = features.to(device)
        context = self._network.encode(raw, graph)
        rows = torch.randperm(len(raw), generator=_generator())[:_SPOTS].to(device)
        truth = torch.from_numpy(slide.expression).to(device)[rows]
        return HeldOutSlide(
            framed=self._network.normalization.features(raw),
            expected=context.expected,
            graph=self._network.seen(graph),
            rows=rows,
            residual=(truth - context.location) / context.scale - context.expected[rows],
        )

    def _loss(self, slide: HeldOutSlide) -> float:
        generator = _generator()
        noise = torch.randn(slide.residual.shape, generator=generator).to(slide.residual.device)
        sigma = noise_levels(len(slide.rows), generator).to(slide.residual.device)
        spatial = self._network.spatial(slide.framed, slide.expected, slide.graph)
        total = 0.0
        for first in range(0, len(slide.rows), self._batch):
            part = slice(first, first + self._batch)
            rows = slide.rows[part]
            loss, _ = self._network.score_loss(
                slide.residual[part], noise[part], sigma[part], spatial[rows], slide.expected[rows]
            )
            total += loss.item() * len(rows)
        return total / len(slide.rows)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_KEY)


def _take(cohort: Cohort, places: list[int]) -> Cohort:
    return replace(
        cohort,
        slides=tuple(cohort.slides[place] for place in places),
        features=tuple(cohort.features[place] for place in places),
    )
