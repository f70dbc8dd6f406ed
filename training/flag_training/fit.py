"""Train FLAG: tile encoder → features → mean head → score loop → one weights file.

Every stage keeps what it finished in the run folder; a killed run goes on from there.
"""

import copy
import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flag_training.alignment import Alignment
from flag_training.checkpointing import load_state, save_state
from flag_training.cohort import Cohort, load_cohort
from flag_training.config import FitConfig, RunConfig
from flag_training.mean_head import (
    FramedCohort,
    assign_folds,
    fit_mean_head,
    rate_factor,
    update_average,
)
from flag_training.tile_encoder import train_tile_encoder
from napari_flag.encoders.embedded import TILE_UM_PER_PX, TileNet
from napari_flag.model.checkpoint import save_checkpoint
from napari_flag.model.diffusion import noise_levels, precondition
from napari_flag.model.flag import Flag, FlagConfig, GraphTensors
from napari_flag.model.frame import Frames
from napari_flag.progress import Step, Steps

_SAVE_EVERY = 100


def train(config: RunConfig, data: Path, run: Path, out: Path) -> Steps[Path]:
    """Train the weights that `config` describes.

    Parameters
    ----------
    config
        Values of the run.
    data
        Folder that the config's files are relative to.
    run
        Folder of states and features; created, and gone on from.
    out
        The weights file to write.
    """
    net = yield from tile_encoder(config, data, run)
    cohort = yield from load_cohort(config, data, run, net)
    network = yield from fit(cohort, config, run / states_name(config))
    card = _card(config, cohort)
    save_checkpoint(out, network, net.state_dict(), encoder="embedded", genes=cohort.genes, card=card)
    return out


def tile_encoder(config: RunConfig, data: Path, run: Path) -> Steps[TileNet]:
    """Train the tile encoder on the run's slides, or take it from a finished stage."""
    from napari_flag.slides.slide import open_slide

    images = []
    entries = [s for s in config.slides if s.name in (config.encoder_slides or [s.name])]
    state = run / f"tile_encoder_{'-'.join(entry.name for entry in entries)}.pt"
    for entry in entries:
        with open_slide(data / entry.image, entry.mpp) as slide:
            factor = (slide.mpp or TILE_UM_PER_PX) / (2 * TILE_UM_PER_PX)
            images.append(slide.thumbnail(round(max(slide.size) * factor)))
        yield Step("Reading slides", len(images), len(entries), "slides")
    return (yield from train_tile_encoder(images, config.encoder, state))


def states_name(config: RunConfig) -> str:
    """Name the folder of this fit's states: other sections or values never share one."""
    told = repr(([s.name for s in config.slides], config.fit, sorted(config.network.items())))
    return f"fit-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def fit(cohort: Cohort, config: RunConfig, run: Path) -> Steps[Flag]:
    """Fit mean head and diffusion on features that are there."""
    values = config.fit
    folds = assign_folds(cohort.slides)
    sizes = FlagConfig(
        features=cohort.features[0].shape[2],
        genes=len(cohort.genes),
        slides=len(cohort.slides),
        members=int(max(fold.max() for fold in folds)) + 1,
        **config.network,
    )
    torch.manual_seed(values.seed)
    network = Flag(sizes)
    _remember(network, cohort)
    framed = _frame(cohort, network.frames, folds)
    head, expected = yield from fit_mean_head(framed, sizes, values, run)
    network.mean_head.load_state_dict(head.state_dict())
    residual = framed.targets - expected[0]
    _describe_residuals(network, residual, values.shrinkage)
    return (yield from _fit_score(network, framed, expected, cohort.genes, values, run))


def _remember(network: Flag, cohort: Cohort) -> None:
    """Store the training slides' frames in the network."""
    clean = torch.cat([views[0] for views in cohort.features])
    mean, spread = clean.mean(0), clean.std(0, correction=0) + 1e-6
    levels = [torch.from_numpy(slide.expression) for slide in cohort.slides]
    buffers = {
        "feature_mean": mean,
        "feature_spread": spread,
        "slide_centres": torch.stack([((v[0] - mean) / spread).mean(0) for v in cohort.features]),
        "slide_location": torch.stack([level.mean(0) for level in levels]),
        "slide_scale": torch.stack([level.std(0, correction=0) + 0.1 for level in levels]),
    }
    for name, value in buffers.items():
        network.get_buffer(name).copy_(value)


def _frame(cohort: Cohort, frames: Frames, folds: tuple[Any, ...]) -> FramedCohort:
    """Put every slide into its own frame and lay all side by side, once per view."""
    views = range(cohort.features[0].shape[0])
    targets = [
        (torch.from_numpy(slide.expression) - location) / scale
        for slide, location, scale in zip(cohort.slides, frames.location, frames.scale, strict=True)
    ]
    return FramedCohort(
        features=tuple(
            torch.cat([frames.features(features[v]) for features in cohort.features]) for v in views
        ),
        graphs=tuple(
            GraphTensors.of(
                *(
                    slide.graph(features[v].numpy())
                    for slide, features in zip(cohort.slides, cohort.features, strict=True)
                )
            )
            for v in views
        ),
        targets=torch.cat(targets),
        folds=torch.from_numpy(np.concatenate(folds)),
        slides=torch.cat([torch.full((len(slide.spots),), i) for i, slide in enumerate(cohort.slides)]),
    )


def _describe_residuals(network: Flag, residual: Tensor, shrinkage: float) -> None:
    """Store spread and covariance of the cross-fitted residuals."""
    spread = residual.std(0) + 1e-3
    unit = residual / spread
    p = precondition(torch.cov(unit.T), shrinkage)
    network.get_buffer("spread").copy_(spread)
    network.get_buffer("eigenvalues").copy_(p.eigenvalues)
    network.get_buffer("eigenvectors").copy_(p.eigenvectors)


def _fit_score(
    network: Flag,
    cohort: FramedCohort,
    expected: Tensor,
    genes: tuple[str, ...],
    config: FitConfig,
    run: Path,
) -> Steps[Flag]:
    """Train the gene DiT and the encoder of H_spatial by denoising the cross-fitted residuals."""
    torch.manual_seed(config.seed + 1)
    learning = torch.nn.ModuleDict({"gene_dit": network.gene_dit, "spatial_encoder": network.spatial_encoder})
    averaged = copy.deepcopy(learning)
    alignment = Alignment.load(config, genes, network.config.width)
    parameters = [*learning.parameters(), *alignment.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.score_rate, weight_decay=config.score_decay)
    modules = {"live": learning, "averaged": averaged, "alignment": alignment, "optimiser": optimiser}
    settings, place = asdict(config), run / "score.pt"
    spread = network.get_buffer("spread")
    for step in range(load_state(place, modules, settings), config.score_steps):
        for group in optimiser.param_groups:
            group["lr"] = config.score_rate * rate_factor(step, config.score_steps, warm=50)
        learning.train()
        seeds = torch.Generator().manual_seed(config.seed * 10**6 + step)
        torch.manual_seed(config.seed * 10**6 + step)  # dropout resumes as if never stopped
        view = int(torch.randint(len(cohort.features), (1,), generator=seeds))
        rows = torch.randperm(len(cohort.targets), generator=seeds)[: config.score_batch]
        told = expected[view] / spread
        spatial = network.spatial(cohort.features[view], told, cohort.graphs[view])[rows]
        residual = (cohort.targets - expected[view])[rows] / spread
        noise = torch.randn(residual.shape, generator=seeds)
        sigma = noise_levels(len(rows), seeds)
        score, tokens = network.score_loss(residual, noise, sigma, spatial, told[rows])
        loss = score + config.alignment_weight * alignment(tokens)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        update_average(averaged, learning, config.ema if step > 100 else 0.9)
        if (step + 1) % _SAVE_EVERY == 0:
            save_state(place, modules, settings, step + 1)
        yield Step(
            "Training the gene transformer", step + 1, config.score_steps, "steps", partial=score.item()
        )
    learning.load_state_dict(averaged.state_dict())
    return network.eval()


def _card(config: RunConfig, cohort: Cohort) -> dict[str, Any]:
    """Return the data card: what the run knows of itself, and what the config adds."""
    first = cohort.slides[0]
    card: dict[str, Any] = {
        "title": config.name,
        "sections": [slide.entry.name for slide in cohort.slides],
        "patients": sorted({slide.entry.patient for slide in cohort.slides}),
        "spots": sum(len(slide.spots) for slide in cohort.slides),
        "array": {"pitch_um": first.spots.pitch_um, "diameter_um": first.spots.diameter_um},
        "um_per_px": first.mpp,
        "encoder": {"name": "embedded", "licence": "BSD-3-Clause"},
        "seed": config.fit.seed,
        "sampler": {"solver": "dpmpp_2m", "steps": 10, "samples": config.samples},
        "values": {k: v for k, v in config.as_dict().items() if k not in ("card", "slides")},
    }
    for key, value in config.card.items():
        card[key] = card[key] | value if isinstance(value, dict) and key in card else value
    return card
