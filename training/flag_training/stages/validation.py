"""Inner validation: training slides held out of everything, for early stopping and nothing else."""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import FitConfig
from napari_flag.errors import UserError
from napari_flag.model.diffusion import noise_levels
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors

_SPOTS = 512
"""Spots of a held-out slide that are denoised at each look."""
_KEY = 7_777_777
"""The same spots and noise at every look, so that looks can be compared."""


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
    """Looks at averaged parameters: their denoising loss on slides that contributed to nothing.

    Parameters
    ----------
    network
        Trained but for its gene DiT and encoder of H_spatial, which are taken from what is looked at.
    cohort
        The slides.
    batch
        Spots denoised at a time.
    device
        Where.
    """

    def __init__(self, network: Flag, cohort: Cohort, batch: int, device: torch.device) -> None:
        self._network = copy.deepcopy(network).eval().to(device)
        self._looked_at = nn.ModuleDict(
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
        self._looked_at.load_state_dict(averaged.state_dict())
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
