"""Fit the mean head, cross-fitted: no spot is expected by a member that saw its expression.

The score loop must learn how far expression strays from what the image lets one expect on a slide
that was not trained on.  Residuals of spots the head was fitted to are too small for that, so each
fold leaves out whole sections where a patient has several, and strips of the section where it has
one.  The members of the folds stay together as the ensemble that predicts.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flag_training.checkpointing import load_state, save_state
from flag_training.cohort import TrainingSlide
from flag_training.config import FitConfig
from napari_flag.model.flag import FlagConfig, GraphBranch, GraphTensors, MeanHead
from napari_flag.progress import Step, Steps

_MOST_FOLDS = 5


@dataclass(frozen=True, slots=True)
class FramedCohort:
    """Training slides in their own frames, laid side by side.

    Parameters
    ----------
    features
        Per view, (n, d) in the slides' frames.
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


def fit_mean_head(
    cohort: FramedCohort, sizes: FlagConfig, config: FitConfig, folder: Path
) -> Steps[tuple[MeanHead, Tensor]]:
    """Fit ridge and graph branches fold by fold, then the ridge on everything.

    Parameters
    ----------
    cohort
        Spots of all training slides.
    sizes
        ``members`` must be the number of folds.
    config
        Values.
    folder
        Where finished branches are kept, so that a killed run goes on.

    Returns
    -------
    The head, and (views, n, G) what it expects of each spot without that spot's fold.
    """
    head = MeanHead(sizes)
    expected = torch.zeros(len(cohort.features), *cohort.targets.shape)
    for fold in range(sizes.members):
        kept = cohort.folds != fold
        ridge = _ridge(cohort, kept, config.ridge_penalty)
        branch = yield from _fit_branch(cohort, kept, sizes, config, fold, folder)
        head.branches[fold] = branch
        out = ~kept
        for view, (features, graph) in enumerate(zip(cohort.features, cohort.graphs, strict=True)):
            both = torch.cat([features, graph.ring_mean(features)], 1)
            with torch.no_grad():
                linear, learnt = both @ ridge[0].T + ridge[1], branch(features, graph)
            mixed = (1 - sizes.graph_share) * linear + sizes.graph_share * learnt
            expected[view, out] = mixed[out]
    weight, bias = _ridge(cohort, torch.ones_like(kept), config.ridge_penalty)
    with torch.no_grad():
        head.ridge.weight.copy_(weight)
        head.ridge.bias.copy_(bias)
    return head.eval(), expected


def _ridge(cohort: FramedCohort, kept: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Return (G, 2 d) weight and (G,) bias of ridge regression over all views."""
    width = 2 * cohort.features[0].shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64)
    cross = torch.zeros(width, cohort.targets.shape[1], dtype=torch.float64)
    bias = cohort.targets[kept].mean(0)
    target = (cohort.targets[kept] - bias).double()
    for features, graph in zip(cohort.features, cohort.graphs, strict=True):
        both = torch.cat([features, graph.ring_mean(features)], 1)[kept].double()
        gram += both.T @ both
        cross += both.T @ target
    gram += len(cohort.features) * penalty * torch.eye(width, dtype=torch.float64)
    return torch.linalg.solve(gram, cross).T.float(), bias


def _fit_branch(
    cohort: FramedCohort,
    kept: Tensor,
    sizes: FlagConfig,
    config: FitConfig,
    fold: int,
    folder: Path,
) -> Steps[GraphBranch]:
    """Train one graph branch on the spots `kept`, each step on one view of every slide."""
    torch.manual_seed(config.seed * 1000 + fold)
    branch = GraphBranch(sizes)
    averaged = copy.deepcopy(branch).eval()
    place = folder / f"branch{fold}.pt"
    settings = {"branch": fold, "steps": config.branch_steps, "seed": config.seed}
    done = load_state(place, {"branch": averaged}, settings)
    optimiser = torch.optim.AdamW(
        branch.parameters(), lr=config.branch_rate, weight_decay=config.branch_decay
    )
    generator = np.random.default_rng([config.seed, fold])
    for step in range(done, config.branch_steps):
        for group in optimiser.param_groups:
            group["lr"] = config.branch_rate * rate_factor(step, config.branch_steps, warm=30)
        view = int(generator.integers(len(cohort.features)))
        branch.train()
        out = branch(cohort.features[view], cohort.graphs[view])
        loss = ((out - cohort.targets)[kept] ** 2).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        update_average(averaged, branch, 0.98 if step > 50 else 0.0)
        yield Step(f"Fitting graph branch {fold + 1}", step + 1, config.branch_steps, "steps")
    save_state(place, {"branch": averaged}, settings, config.branch_steps)
    return averaged


def rate_factor(step: int, steps: int, warm: int) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine to 0."""
    return float(min(1.0, (step + 1) / warm) * 0.5 * (1 + np.cos(np.pi * step / steps)))


@torch.no_grad()
def update_average(averaged: torch.nn.Module, live: torch.nn.Module, decay: float) -> None:
    """Move the exponential moving average of the parameters towards `live`."""
    for kept, new in zip(averaged.parameters(), live.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
