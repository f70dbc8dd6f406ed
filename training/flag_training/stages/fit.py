"""The data card of trained weights: what a run knows of itself, and what its config adds."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from flag_training.cohort import Cohort, load_cohort, stored_encoder
from flag_training.config import RunConfig, StoreConfig
from flag_training.engine import checkpointing
from flag_training.engine.devices import from_first, in_turn, leave, open_fabric, precision_notice
from flag_training.engine.loop import Keeping, Schedule, log_columns, run_loop
from flag_training.engine.run_log import RunLog
from flag_training.run_folders import states_folder
from flag_training.stages.alignment import Alignment
from flag_training.stages.denoising import Denoising, HeldOut, SlideBatches, split_validation
from flag_training.stages.expectation import FramedCohort, assign_folds, fit_mean_head
from flag_training.stages.tile_encoder import train_tile_encoder
from flag_training.stages.training_tissue import describe_for_card, fit_familiarity
from flag_training.store.store import open_store
from napari_flag import keys
from napari_flag.encoders.embedded import TILE_UM_PER_PX, TileNet
from napari_flag.encoders.registry import find_encoder
from napari_flag.model.checkpoint import save_checkpoint
from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import precondition
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors
from napari_flag.model.mean_head import moran
from napari_flag.progress import Step, Steps


def make_card(config: RunConfig, cohort: Cohort, data: Path) -> dict[str, Any]:
    """Return the card of weights that `config` trained on `cohort`.

    Parameters
    ----------
    config, cohort
        The run and its slides; those of its validation are named apart.
    data
        Folder that the run's store is relative to.
    """
    training, held_out = split_validation(cohort, config.fit)
    first = training.slides[0]
    card: dict[str, Any] = {
        "title": config.name,
        "sections": [slide.entry.name for slide in training.slides],
        "patients": sorted({slide.entry.patient for slide in training.slides}),
        "spots": sum(len(slide.spots) for slide in training.slides),
        "array": {
            "pitch_um": first.spots.pitch_um,
            "diameter_um": first.spots.diameter_um,
            "lattice": first.spots.lattice,
        },
        "um_per_px": first.mpp,
        "encoder": _encoder(config.store, first.entry.name, data),
        "seed": config.fit.seed,
        "sampler": {"solver": "dpmpp_2m", "steps": 10, "samples": config.samples},
        keys.CARD_SCORE: describe_for_card(training),
        "values": {k: v for k, v in config.as_dict().items() if k not in ("card", "slides")},
    }
    if held_out.slides:
        card["validation"] = [slide.entry.name for slide in held_out.slides]
    for key, value in config.card.items():
        card[key] = card[key] | value if isinstance(value, dict) and key in card else value
    return card


def _encoder(store: StoreConfig | None, slide: str, data: Path) -> dict[str, str]:
    """Return name and licence of the encoder, and which weights of it made the features of a store."""
    name = store.encoder if store else "embedded"
    description = {"name": name, "licence": find_encoder(name).licence}
    if store:
        settings = open_store(data / store.path).slide(slide).feature_settings(name)
        description["fingerprint"] = str(settings["fingerprint"])
    return description


def train(config: RunConfig, data: Path, run: Path, out: Path, *, use_previous: bool = False) -> Steps[Path]:
    """Train the weights that `config` describes.

    Parameters
    ----------
    config
        Values of the run; of a store with the slides to train on (`stored.with_store`).
    data
        Folder that the config's files are relative to.
    run
        Folder of states and features; created, or resumed.
    out
        The weights file to write.
    use_previous
        Whether damaged training states give way to those saved before them.
    """
    fabric = open_fabric(config.machine)
    yield Step("Starting", 0, notice=precision_notice(config.machine, fabric))
    if use_previous and fabric.is_global_zero:
        for path in checkpointing.use_previous(run):
            yield Step("Starting", 0, notice=f"{path} was damaged; resuming from the state before it.")
    if config.store is None:
        net = yield from from_first(fabric, lambda: tile_encoder(config, data, run))
        cohort = yield from in_turn(fabric, lambda: load_cohort(config, data, run, net))
        encoder, tensors = "embedded", net.state_dict()
    else:  # whose features are there
        cohort = yield from in_turn(fabric, lambda: load_cohort(config, data, run, None))
        encoder, tensors = stored_encoder(config.store, data)
    network = yield from fit(cohort, config, states_folder(run, config), fabric)
    if fabric.is_global_zero:
        yield Step("Describing the training tissue", 0, 1, "cohorts")
        seen = fit_familiarity(split_validation(cohort, config.fit)[0])
        card, genes = make_card(config, cohort, data), cohort.genes
        save_checkpoint(
            out, network, tensors, encoder=encoder, genes=genes, card=card, out_of_distribution=seen
        )
    leave(fabric)
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


def fit(cohort: Cohort, config: RunConfig, run: Path, fabric: Fabric | None = None) -> Steps[Flag]:
    """Fit mean head and diffusion on features that are there.

    Parameters
    ----------
    cohort
        Slides with their features; those of the config's validation only decide when to stop.
    config
        Values of the run.
    run
        Folder of states and logs; created, or resumed.
    fabric
        Where; None opens what the config says.
    """
    fabric = fabric or open_fabric(config.machine)
    values = config.fit
    training, held_out = split_validation(cohort, values)
    folds = assign_folds(training.slides)
    sizes = FlagConfig(
        features=training.features[0].shape[2],
        genes=len(training.genes),
        slides=len(training.slides),
        members=int(max(fold.max() for fold in folds)) + 1,
        **_fitting(config.network, training),
    )
    torch.manual_seed(values.seed)
    network = Flag(sizes)
    _remember(network, training, values.location_penalty)
    framed = _frame(network, training, folds)
    head, expected = yield from from_first(fabric, lambda: fit_mean_head(framed, sizes, values, run))
    network.mean_head.load_state_dict(head.state_dict())
    _describe_residuals(network, framed.targets - expected[0], values.shrinkage)
    spread = network.get_buffer("spread")
    source = SlideBatches(framed, expected, spread, values.score_batch, values.slides_per_batch, values.seed)
    alignment = _alignment(config, training, sizes.width)
    return (yield from _fit_score(network, alignment, source, held_out, config, run, fabric))


def _fitting(network: dict[str, Any], cohort: Cohort) -> dict[str, Any]:
    """Return the config's sizes, none of them larger than the cohort allows."""
    n, d = sum(len(slide.spots) for slide in cohort.slides), cohort.features[0].shape[2]
    most = {"components": min(n, d), "landmarks": n}
    defaults = {field.name: field.default for field in fields(FlagConfig)}
    return network | {name: min(network.get(name, defaults[name]), cap) for name, cap in most.items()}


def _remember(network: Flag, cohort: Cohort, penalty: float) -> None:
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
    expression = torch.cat([torch.from_numpy(slide.expression) for slide in cohort.slides])
    buffers |= _regress_location((clean - mean) / spread, expression, penalty)
    for name, value in buffers.items():
        network.get_buffer(name).copy_(value)
    framed = torch.cat([network.normalization.standardise(views[0]) for views in cohort.features]).double()
    _, axes = torch.linalg.eigh(framed.T @ framed)
    network.get_buffer("axes").copy_(axes.flip(1)[:, : network.config.components])
    for row, (slide, views) in enumerate(zip(cohort.slides, cohort.features, strict=True)):
        graph = network.seen(GraphTensors.of(slide.graph(views[0].numpy())))
        network.get_buffer("slide_moran")[row] = moran(torch.from_numpy(slide.expression), graph)


def _regress_location(z: Tensor, expression: Tensor, penalty: float) -> dict[str, Tensor]:
    """Return ridge slopes and level of (n, G) `expression` on standardised (n, d) features `z`."""
    x, level = z.double(), expression.mean(0)
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    slope = torch.linalg.solve(gram, x.T @ (expression - level).double())
    return {"location_slope": slope.float(), "location_level": level}


def _frame(network: Flag, cohort: Cohort, folds: tuple[Any, ...]) -> FramedCohort:
    """Put every slide into its own frame and concatenate them, once per view."""
    frames = network.normalization
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
            network.seen(
                GraphTensors.of(
                    *(
                        slide.graph(features[v].numpy())
                        for slide, features in zip(cohort.slides, cohort.features, strict=True)
                    )
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


def _alignment(config: RunConfig, cohort: Cohort, width: int) -> Alignment:
    """Open what gene tokens are aligned to; nothing where the loss has no weight."""
    values = config.fit
    torch.manual_seed(values.seed + 1)
    if not values.alignment_weight:
        return Alignment()
    return Alignment.load(values, cohort.genes, width, cohort.slides)


def _fit_score(
    network: Flag,
    alignment: Alignment,
    source: SlideBatches,
    held_out: Cohort,
    config: RunConfig,
    run: Path,
    fabric: Fabric,
) -> Steps[Flag]:
    """Train the gene DiT and the encoder of H_spatial by denoising the cross-fitted residuals."""
    values, machine = config.fit, config.machine
    schedule = Schedule(
        stage="Training the gene transformer",
        steps=values.score_steps,
        rate=values.score_rate,
        decay=values.score_decay,
        warm=values.warm_steps,
        accumulate=values.accumulate,
        clip=values.clip,
        ema=values.ema,
        check_every=values.check_every,
        patience=values.patience if held_out.slides else 0,
        seed=values.seed,
    )
    validate = HeldOut(network, held_out, values.score_batch, fabric.device) if held_out.slides else None
    objective = Denoising(network, alignment, values.alignment_weight)
    columns, first = log_columns(Denoising), fabric.is_global_zero
    with RunLog(run, "score", columns, tensorboard=machine.tensorboard, writes=first) as log:
        settings = asdict(values) | {"network": config.network}
        keeping = Keeping(run / "score.pt", machine.save_every, settings, log)
        averaged = yield from run_loop(objective, source, schedule, fabric, keeping, validate)
    objective.learning.load_state_dict(averaged.state_dict())
    return network.requires_grad_(True).cpu().eval()
