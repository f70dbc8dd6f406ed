"""Fit the mean head, cross-fitted: no spot is expected by a member that saw its expression.

The residuals must be those of a slide that was not trained on.  Each fold therefore leaves out whole sections
where a patient has several, and strips of the section where it has one, and what is left out is framed as a
new slide is at prediction: its level and scale are guessed from the slides that are kept.  The members of the
folds stay together as the ensemble that predicts.
"""

import copy
import math
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from flag_training.config import FitConfig
from flag_training.engine.checkpointing import load_state, save_state
from flag_training.engine.loop import update_average
from flag_training.stages.frames import FramedCohort, Frames
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import LEAST
from napari_flag.model.mean_head import GraphBranch, KernelBranch, MeanHead, surroundings
from napari_flag.progress import Step, Steps

_SAVE_EVERY: Final = 100
_SPOTS: Final = 4000
"""Spots of whole slides in a step of a graph branch: memory stays bounded on large cohorts."""


def fit_mean_head(
    cohort: FramedCohort,
    frames: Frames,
    lift: Tensor,
    sizes: FlagConfig,
    config: FitConfig,
    folder: Path,
    device: torch.device | str = "cpu",
) -> Steps[tuple[MeanHead, Tensor]]:
    """Fit kernel and graph branches fold by fold, then the kernel branch on everything.

    Parameters
    ----------
    cohort
        Spots of all training slides.
    frames
        What is guessed of each spot's slide without it.
    lift
        (c,) factors of the components for the graph branches.
    sizes
        ``members`` must be the number of folds.
    config
        Values.
    folder
        Where states of the branches are kept, so that a killed run goes on.
    device
        Where the branches are trained.

    Returns
    -------
    The head, and (n, G) what it expects of each spot without that spot's fold, log2(count + 1).
    """
    head = MeanHead(sizes)
    expected = torch.zeros_like(cohort.targets)
    features, graph = cohort.features[0], cohort.graphs[0]
    for fold in range(sizes.members):
        kept = cohort.folds != fold
        mixed = fit_kernel(cohort, kept, sizes, config)(features, graph)
        if sizes.graph_share:
            branch = yield from _fit_branch(cohort, kept, lift, sizes, config, fold, folder, device)
            head.branches[fold] = branch
            with torch.no_grad():
                learnt = branch(features * lift, graph)
            mixed = mixed + sizes.graph_share * (1 - frames.novelty[:, None]) * (learnt - mixed)
        expected[~kept] = mixed[~kept]
    head.kernel.load_state_dict(fit_kernel(cohort, torch.ones_like(kept), sizes, config).state_dict())
    return head.eval(), (frames.location + frames.scale * expected).clamp_min(LEAST)


def fit_kernel(cohort: FramedCohort, kept: Tensor, sizes: FlagConfig, config: FitConfig) -> KernelBranch:
    """Fit the kernel branch to the spots `kept` of the plain view, in closed form.

    The targets' principal components are fitted one by one: the j-th with the penalty α (1 + β j), since
    the leading ones (library size above all) are predicted best and the later ones mostly noise.
    """
    branch = KernelBranch(sizes)
    seen = surroundings(cohort.features[0], cohort.graphs[0])[kept]
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(seen), generator=generator)[: sizes.landmarks].sort().values
    landmarks = seen[chosen]
    branch.register_buffer("landmarks", landmarks)
    between = torch.cdist(landmarks, landmarks).square()
    branch.get_buffer("bandwidth").copy_(between.median() / config.kernel_sharpness)
    branch.get_buffer("length").copy_(landmarks.square().sum(1).mean() / config.kernel_linear)
    own = branch.similarity(landmarks).double()
    values, vectors = torch.linalg.eigh(own)
    whiten = vectors * values.clamp_min(1e-8).rsqrt()
    starts = range(0, len(seen), 4096)
    near = torch.cat([branch.similarity(seen[i : i + 4096]) for i in starts]).double() @ whiten  # (n, m)
    u, s, v = torch.linalg.svd(cohort.targets[kept].double(), full_matrices=False)
    order = torch.arange(len(s), dtype=torch.float64)
    penalty = config.kernel_penalty * (1 + config.kernel_penalty_growth * order)
    gram, basis = torch.linalg.eigh(near.T @ near)
    weights = basis @ ((basis.T @ (near.T @ (u * s))) / (gram[:, None] + penalty))
    branch.register_buffer("weights", (whiten @ weights @ v).float())
    return branch


def _fit_branch(
    cohort: FramedCohort,
    kept: Tensor,
    lift: Tensor,
    sizes: FlagConfig,
    config: FitConfig,
    fold: int,
    folder: Path,
    device: torch.device | str,
) -> Steps[GraphBranch]:
    """Train one graph branch on the spots `kept`, each step on one view of some slides, whole."""
    torch.manual_seed(config.seed * 1000 + fold)
    branch = GraphBranch(sizes).to(device)
    averaged = copy.deepcopy(branch).eval()
    optimiser = torch.optim.AdamW(
        branch.parameters(), lr=config.branch_rate, weight_decay=config.branch_decay
    )
    modules: dict[str, nn.Module | torch.optim.Optimizer] = {
        "branch": branch, "averaged": averaged, "optimiser": optimiser,
    }  # fmt: skip
    place = folder / f"branch{fold}.pt"
    settings = {"branch": fold, "steps": config.branch_steps, "seed": config.seed}
    members = [rows for rows in cohort.members() if kept[rows].any()]
    together = max(1, math.floor(_SPOTS / max(len(rows) for rows in members)))
    for step in range(load_state(place, modules, settings, config.branch_steps), config.branch_steps):
        for group in optimiser.param_groups:
            group["lr"] = config.branch_rate * min(1.0, (step + 1) / 30)
        generator = np.random.default_rng([config.seed, fold, step])
        view = int(generator.integers(len(cohort.features)))
        slides = generator.permutation(len(members))[:together]
        rows = torch.cat([members[slide] for slide in sorted(slides)])
        seen = kept[rows].to(device)
        features, graph = cohort.part(view, rows)
        torch.manual_seed(config.seed * 10**6 + fold * 10**4 + step)  # dropout goes on as if never stopped
        branch.train()
        out = branch((features * lift).to(device), graph.to(device))
        loss = ((out - cohort.targets[rows].to(device))[seen] ** 2).mean()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        update_average(averaged, branch, 0.98 if step > 50 else 0.0)
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == config.branch_steps:
            save_state(place, modules, settings, step + 1)
        yield Step(f"Fitting graph branch {fold + 1}", step + 1, config.branch_steps, "steps")
    return averaged.cpu()
