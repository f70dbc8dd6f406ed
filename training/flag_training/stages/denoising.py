"""The score stage: batches of latents to denoise, the objective, and the loss on held-out sections."""

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import FitConfig
from flag_training.engine.loop import Draw, Held, Objective
from flag_training.stages.alignment import Alignment
from flag_training.stages.frames import FramedCohort
from flag_training.stages.latents import Latents, ResidualModel, Slides, draw_latents
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
    rows
        (b,) positions among the n spots.
    clean, noise
        (b, G) what is diffused, of unit variance, and unit noise.
    level, depth
        (b, G) expected log-rate and (b,) depth residual, ln(counts).
    sigma
        (b,) noise levels.
    targets
        Of the alignment terms, for these spots (`Alignment.targets`).
    share
        Share of the batch's spots that are in `rows`.
    """

    features: Tensor
    graph: GraphTensors
    rows: Tensor
    clean: Tensor
    noise: Tensor
    level: Tensor
    depth: Tensor
    sigma: Tensor
    targets: tuple[tuple[Tensor, Tensor], ...]
    share: float

    @property
    def spots(self) -> int:
        """Spots denoised."""
        return len(self.rows)

    def to(self, device: torch.device) -> Self:
        """Return it on `device`."""
        names = ("features", "graph", "rows", "clean", "noise", "level", "depth", "sigma")
        moved = {name: getattr(self, name).to(device) for name in names}
        targets = tuple((vectors.to(device), weights.to(device)) for vectors, weights in self.targets)
        return replace(self, **moved, targets=targets)


@dataclass(frozen=True, slots=True)
class Diffused:
    """What the score loop denoises: training spots, each with several draws of its latent.

    Parameters
    ----------
    clean
        (samples, n, G) float32, of unit variance.
    level
        (n, G) float32 expected log-rate, ln(counts).
    depth
        (n,) float32 depth residual, ln(counts).
    """

    clean: Tensor
    level: Tensor
    depth: Tensor


class SlideBatches:
    """Draws batches of whole slides with a sample of their spots; an epoch visits every slide.

    Parameters
    ----------
    cohort
        Training slides in their frames.
    diffused
        What is denoised.
    alignment
        What reads the targets of a batch's spots, ahead of the loop.
    spots
        Spots to denoise per batch.
    slides
        Slides per batch; 0 takes all.
    seed
        Keys the order of slides.
    """

    def __init__(
        self,
        cohort: FramedCohort,
        diffused: Diffused,
        alignment: Alignment,
        spots: int,
        slides: int,
        seed: int,
    ) -> None:
        self._cohort, self._diffused, self._alignment = cohort, diffused, alignment
        self._spots, self._seed = spots, seed
        self._members = cohort.members()
        self._per_batch = slides or len(self._members)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self._members) / self._per_batch)

    def draw(self, draw: Draw) -> ScoreBatch:
        """Draw slides, a view, spots, latents and noise; then take the process's share of the spots.

        Raises
        ------
        UserError
            When there are more processes than spots to share out.
        """
        generator = torch.Generator().manual_seed(draw.key)
        view = int(torch.randint(len(self._cohort.features), (1,), generator=generator))
        members = self._slides(draw)
        rows = torch.randperm(len(members), generator=generator)[: self._spots]
        samples = torch.randint(len(self._diffused.clean), (len(rows),), generator=generator)
        noise = torch.randn(len(rows), self._diffused.level.shape[1], generator=generator)
        sigma = noise_levels(len(rows), generator)
        if len(rows) < draw.processes:
            raise UserError(
                f"A batch of {len(rows)} spots cannot be shared out to {draw.processes} processes; raise "
                "score_batch in the config, or run fewer."
            )
        mine = slice(draw.process, None, draw.processes)
        places = members[rows[mine]]
        features, graph = self._cohort.part(view, members)
        return ScoreBatch(
            features=features,
            graph=graph,
            rows=rows[mine],
            clean=self._diffused.clean[samples[mine], places],
            noise=noise[mine],
            level=self._diffused.level[places],
            depth=self._diffused.depth[places],
            sigma=sigma[mine],
            targets=self._alignment.targets(places),
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
        spatial = self.network.spatial(batch.features, batch.graph)[batch.rows]
        condition = self.network.gene_dit.condition(spatial, batch.depth)
        score, tokens = self.network.score_loss(batch.clean, batch.noise, batch.sigma, condition, batch.level)
        aligned = self.helping(tokens, batch.targets)
        return score + self._weight * aligned, {"denoising": score, "alignment": aligned}


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
    framed, graph
        (n, d) features, and graph.
    rows
        (b,) spots that are denoised.
    diffused
        Of those spots, one draw each.
    """

    framed: Tensor
    graph: GraphTensors
    rows: Tensor
    diffused: Diffused


class HeldOut:
    """The denoising loss of averaged parameters on slides that contributed to nothing.

    Parameters
    ----------
    network
        Trained but for its gene DiT and encoder of H_spatial, which are loaded from what is validated.
    model
        The residuals' distribution on the training slides.
    cohort
        The slides.
    batch
        Spots denoised at a time.
    device
        Where.
    """

    def __init__(
        self, network: Flag, model: ResidualModel, cohort: Cohort, batch: int, device: torch.device
    ) -> None:
        self._network = copy.deepcopy(network).eval().to(device)
        self._validated = nn.ModuleDict(
            {"gene_dit": self._network.gene_dit, "spatial_encoder": self._network.spatial_encoder}
        )
        self._batch = batch
        self._slides = [
            self._frame(views[0], slide, model, device)
            for slide, views in zip(cohort.slides, cohort.features, strict=True)
        ]

    @torch.no_grad()
    def __call__(self, averaged: nn.Module) -> float:
        """Return the loss, averaged over slides."""
        self._validated.load_state_dict(averaged.state_dict())
        return float(np.mean([self._loss(slide) for slide in self._slides]))

    @torch.no_grad()
    def _frame(
        self, features: Tensor, slide: TrainingSlide, model: ResidualModel, device: torch.device
    ) -> HeldOutSlide:
        graph = GraphTensors.of(slide.graph(features.numpy()), device=device)
        raw = features.to(device)
        context = self._network.encode(raw, graph)
        rows = torch.randperm(len(raw), generator=_generator())[:_SPOTS]
        base, scale = context.latent[rows.to(device)].cpu().double(), context.scale.cpu()
        if context.expected is not None:
            scale = model.variance.sqrt().float()  # as fitted: draws may be narrower
        counts = counts_of(slide.expression)[rows]
        diffused = diffused_around(base, scale, model, counts, self._network, _generator(), 1)
        parts = {name: getattr(diffused, name).to(device) for name in ("clean", "level", "depth")}
        return HeldOutSlide(
            framed=self._network.normalization.features(raw),
            graph=self._network.seen(graph),
            rows=rows.to(device),
            diffused=Diffused(**parts),
        )

    def _loss(self, slide: HeldOutSlide) -> float:
        generator = _generator()
        clean = slide.diffused.clean[0]
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        sigma = noise_levels(len(slide.rows), generator).to(clean.device)
        spatial = self._network.spatial(slide.framed, slide.graph)[slide.rows]
        condition = self._network.gene_dit.condition(spatial, slide.diffused.depth)
        total = 0.0
        for first in range(0, len(slide.rows), self._batch):
            part = slice(first, first + self._batch)
            loss, _ = self._network.score_loss(
                clean[part], noise[part], sigma[part], condition[part], slide.diffused.level[part]
            )
            total += loss.item() * len(clean[part])
        return total / len(slide.rows)


def diffused_around(
    base: Tensor,
    scale: Tensor,
    model: ResidualModel,
    counts: Tensor,
    network: Flag,
    generator: torch.Generator,
    samples: int,
    latents: Latents | None = None,
) -> Diffused:
    """Return what is diffused of spots with (n, G) `counts`; of one slide, where `latents` are not given.

    Parameters
    ----------
    base, scale
        (n, G) log-rate that residuals are added to, and (G,) or (n, G) one unit of them, as `Context` has
        them.
    model
        The residuals' distribution.
    counts
        float64.
    network
        Its form says whether the depth is part of what is diffused.
    generator, samples
        Of the draws.
    latents
        Latents that are there already.
    """
    found = latents or draw_latents(model, counts, base, Slides.alike([len(counts)]), samples, generator)
    if network.mean_head is not None:
        return Diffused(found.residual / scale, base.float(), found.centred.float())
    drawn = (found.latent + found.depth[:, None]).float() + found.residual
    return Diffused(((drawn - base) / scale).float(), base.float(), torch.zeros(len(counts)))


def counts_of(expression: npt.NDArray[np.float32]) -> Tensor:
    """Return the (n, G) float64 counts of log2(count + 1)."""
    return torch.from_numpy(np.rint(np.exp2(expression.astype(np.float64)) - 1))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_KEY)


def _take(cohort: Cohort, places: list[int]) -> Cohort:
    return replace(
        cohort,
        slides=tuple(cohort.slides[place] for place in places),
        features=tuple(cohort.features[place] for place in places),
    )
