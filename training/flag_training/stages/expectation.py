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

from flag_training.cohort import TrainingSlide
from flag_training.config import FitConfig
from flag_training.engine.checkpointing import load_state, save_state
from flag_training.engine.loop import update_average
from napari_flag.model.config import FlagConfig
from napari_flag.model.graph import GraphTensors
from napari_flag.model.mean_head import GraphBranch, KernelBranch, MeanHead, Sharpening, moran
from napari_flag.progress import Step, Steps

_MOST_FOLDS = 5


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
    """Fit kernel and graph branches fold by fold, then the kernel branch on everything.

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
    The head, and (views, n, G) what it expects of each spot without that spot's fold, sharpened.
    """
    head = MeanHead(sizes)
    spread = cohort.features[0].std(0)
    head.get_buffer("lift").copy_((spread[0] * spread.clamp_min(1e-3)).rsqrt())
    expected = torch.zeros(len(cohort.features), *cohort.targets.shape)
    for fold in range(sizes.members):
        kept = cohort.folds != fold
        kernel = fit_kernel(cohort, kept, sizes, config)
        branch = yield from _fit_branch(cohort, kept, head.get_buffer("lift"), sizes, config, fold, folder)
        head.branches[fold] = branch
        for view, (features, graph) in enumerate(zip(cohort.features, cohort.graphs, strict=True)):
            with torch.no_grad():
                smooth = kernel(features, graph)
                learnt = branch(features * head.get_buffer("lift"), graph)
            mixed = (1 - sizes.graph_share) * smooth + sizes.graph_share * learnt
            expected[view, ~kept] = mixed[~kept]
    head.kernel.load_state_dict(fit_kernel(cohort, torch.ones_like(kept), sizes, config).state_dict())
    return head.eval(), _sharpened(cohort, expected, sizes)


def fit_kernel(cohort: FramedCohort, kept: Tensor, sizes: FlagConfig, config: FitConfig) -> KernelBranch:
    """Fit the kernel branch to the spots `kept` of the plain view, in closed form.

    The targets' principal components are fitted one by one: the j-th with the penalty α (1 + β j), since
    the leading ones (library size above all) are predicted best and the later ones mostly noise.
    """
    branch = KernelBranch(sizes)
    features, graph = cohort.features[0], cohort.graphs[0]
    both = torch.cat([features, graph.ring_mean(features)], 1)[kept]
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(both), generator=generator)[: sizes.landmarks].sort().values
    landmarks = both[chosen]
    branch.register_buffer("landmarks", landmarks)
    between = torch.cdist(landmarks, landmarks).square()
    branch.get_buffer("bandwidth").copy_(between.median() / config.kernel_sharpness)
    branch.get_buffer("length").copy_(landmarks.square().sum(1).mean())
    own = branch.similarity(landmarks).double()
    values, vectors = torch.linalg.eigh(own)
    whiten = vectors * values.clamp_min(1e-8).rsqrt()
    starts = range(0, len(both), 4096)
    seen = torch.cat([branch.similarity(both[i : i + 4096]) for i in starts]).double() @ whiten  # (n, m)
    u, s, v = torch.linalg.svd(cohort.targets[kept].double(), full_matrices=False)
    order = torch.arange(len(s), dtype=torch.float64)
    penalty = config.kernel_penalty * (1 + config.kernel_penalty_growth * order)
    gram, basis = torch.linalg.eigh(seen.T @ seen)
    weights = basis @ ((basis.T @ (seen.T @ (u * s))) / (gram[:, None] + penalty))
    branch.register_buffer("weights", (whiten @ weights @ v).float())
    return branch


def _sharpened(cohort: FramedCohort, expected: Tensor, sizes: FlagConfig) -> Tensor:
    """Sharpen the cross-fitted expectation slide by slide, as `Flag.encode` does."""
    out = torch.empty_like(expected)
    for view, graph in enumerate(cohort.graphs):
        for slide in range(int(cohort.slides.max()) + 1):
            rows = (cohort.slides == slide).nonzero()[:, 0]
            own = graph.rows(rows)
            aim = Sharpening(moran(cohort.targets[rows], own), sizes.sharp, sizes.rough)
            out[view, rows], _ = aim.apply(expected[view, rows], own)
    return out


def _fit_branch(
    cohort: FramedCohort,
    kept: Tensor,
    lift: Tensor,
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
            group["lr"] = config.branch_rate * min(1.0, (step + 1) / 30)
        view = int(generator.integers(len(cohort.features)))
        branch.train()
        out = branch(cohort.features[view] * lift, cohort.graphs[view])
        loss = ((out - cohort.targets)[kept] ** 2).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        update_average(averaged, branch, 0.98 if step > 50 else 0.0)
        yield Step(f"Fitting graph branch {fold + 1}", step + 1, config.branch_steps, "steps")
    save_state(place, {"branch": averaged}, settings, config.branch_steps)
    return averaged
