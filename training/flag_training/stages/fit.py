"""Fit a network on a cohort, stage by stage, and write its weights with their data card."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from flag_training.cohort import (
    Cohort,
    FloatArray,
    are_earlier,
    fingerprint,
    load_cohort,
    stored_encoder,
)
from flag_training.config import RunConfig, StoreConfig
from flag_training.engine import checkpointing
from flag_training.engine.devices import from_first, in_turn, leave, open_fabric, precision_notice
from flag_training.engine.loop import Keeping, Schedule, log_columns, run_loop
from flag_training.engine.run_log import RunLog
from flag_training.run_folders import encoder_file, trained_folder
from flag_training.stages.alignment import Alignment
from flag_training.stages.denoising import (
    Denoising,
    Diffused,
    HeldOut,
    SlideBatches,
    counts_of,
    diffused_around,
    split_validation,
)
from flag_training.stages.expectation import fit_mean_head
from flag_training.stages.frames import (
    FramedCohort,
    Frames,
    assign_folds,
    frame,
    known_sections,
    left_out,
    levels_of,
    remember,
)
from flag_training.stages.latents import ResidualModel, Slides, fit_latents
from flag_training.stages.spread import Spread, choose_spread, sd_factor
from flag_training.stages.tile_encoder import train_tile_encoder
from flag_training.stages.training_tissue import describe_for_card, fit_familiarity
from flag_training.store.store import open_store
from napari_flag import keys
from napari_flag.encoders.embedded import TILE_UM_PER_PX, TileNet
from napari_flag.encoders.registry import find_encoder
from napari_flag.files import write_json, write_whole
from napari_flag.model.checkpoint import save_checkpoint
from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import precondition
from napari_flag.model.flag import LEAST, Flag, latent_of, latent_scale
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import Colours, colours_of
from napari_flag.slides.file_identity import content_hash


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
            "pitch_um": _one_or_all(slide.spots.pitch_um for slide in training.slides),
            "diameter_um": _one_or_all(slide.spots.diameter_um for slide in training.slides),
            "lattice": _one_or_all(slide.spots.lattice for slide in training.slides),
        },
        keys.MPP: _one_or_all(slide.mpp for slide in training.slides),
        keys.COLOURS: _colours(config, first.entry.name, data),
        "encoder": _encoder(config.store, first.entry.name, data),
        "seed": config.fit.seed,
        "sampler": {"solver": "dpmpp_2m", "steps": 10},
        keys.CARD_SCORE: describe_for_card(training),
        "values": {k: v for k, v in config.as_dict().items() if k not in ("card", "slides", "listed")},
    }
    files = [data / slide.entry.image for slide in training.slides if slide.entry.image]
    if hashes := sorted(filter(None, map(content_hash, files))):
        card[keys.CARD_HASHES] = hashes
    if held_out.slides:
        card["validation"] = [slide.entry.name for slide in held_out.slides]
    for key, value in config.card.items():
        card[key] = card[key] | value if isinstance(value, dict) and key in card else value
    if keys.CARD_METHOD in config.card:  # an ablation has the title of the run that it extends
        card["title"] = f"{card['title']} ({config.name})"
    return card


def _one_or_all(values: Iterable[Any]) -> Any:
    """Return what all slides have; their distinct values in order where they differ; None of none."""
    distinct = sorted({value for value in values if value is not None})
    return distinct if len(distinct) > 1 else next(iter(distinct), None)


def _colours(config: RunConfig, slide: str, data: Path) -> Colours:
    """Return the colours of the slides' pixels; of a store, those all its features were made in."""
    if config.store is None:
        return config.colours
    settings = open_store(data / config.store.path).slide(slide).feature_settings(config.store.encoder)
    return colours_of(settings.get(keys.COLOURS), f"The store {config.store.path}")


def _encoder(store: StoreConfig | None, slide: str, data: Path) -> dict[str, str]:
    """Return name and licence of the encoder, and which weights of it made the features of a store."""
    name = store.encoder if store else "embedded"
    description = {"name": name, "licence": find_encoder(name).licence}
    if store:
        description["fingerprint"] = open_store(data / store.path).slide(slide).encoder_weights(name)
    return description


def train(config: RunConfig, data: Path, run: Path, out: Path, *, use_previous: bool = False) -> Steps[Path]:
    """Train the weights that `config` describes.

    Parameters
    ----------
    config
        Values of the run; of a store with the slides to train on (`cohort.with_store`).
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
    net: TileNet | None = None
    if config.store is None:
        net = yield from from_first(fabric, lambda: tile_encoder(config, data, run))
        cohort = yield from in_turn(fabric, lambda: load_cohort(config, data, run, net))
        encoder, tensors = "embedded", net.state_dict()
    else:  # whose features are there
        cohort = yield from in_turn(fabric, lambda: load_cohort(config, data, run, None))
        encoder, tensors = stored_encoder(config.store, data)
    known = are_earlier(cohort, config, run, net)
    states, notice = trained_folder(run, config, fingerprint(cohort), known)
    if notice:
        yield Step("Starting", 0, notice=notice)
    network = yield from fit(cohort, config, states, fabric)
    if fabric.is_global_zero:
        yield from write_weights(out, network, tensors, encoder, cohort, config, data)
    leave(fabric)
    return out


def write_weights(
    out: Path,
    network: Flag,
    tensors: dict[str, Tensor],
    encoder: str,
    cohort: Cohort,
    config: RunConfig,
    data: Path = Path(),
) -> Steps[None]:
    """Write weights with their card, and what tells how far a slide lies from their training tissue.

    Beside what `make_card` states, the card names the sections of which the levels alone were read.

    Parameters
    ----------
    out
        The file.
    network
        Fitted.
    tensors, encoder
        Of the encoder that is stored with the weights, empty for a foundation encoder; and its name.
    cohort, config, data
        What it was fitted to, as `make_card` takes them.
    """
    yield Step("Describing the training tissue", 0, 1, "cohorts")
    seen = fit_familiarity(split_validation(cohort, config.fit)[0])
    card, genes = make_card(config, cohort, data), cohort.genes
    if known := known_sections(cohort, config.fit):
        patients = sorted({section.patient for section in known})
        card["levels"] = {"patients": patients, "sections": [section.name for section in known]}
    save_checkpoint(out, network, tensors, encoder=encoder, genes=genes, card=card, out_of_distribution=seen)


def tile_encoder(config: RunConfig, data: Path, run: Path) -> Steps[TileNet]:
    """Train the tile encoder on the run's slides, or take it from a finished stage on the same images."""
    from napari_flag.slides.slide import open_slide

    images, seen = [], []
    entries = [s for s in config.slides if s.name in (config.encoder_slides or [s.name])]
    for entry in entries:
        with open_slide(data / entry.image, entry.mpp).in_colours(config.colours) as slide:
            mpp = slide.mpp or TILE_UM_PER_PX
            factor = mpp / (2 * TILE_UM_PER_PX)
            images.append(slide.thumbnail(round(max(slide.size) * factor)))
            seen.append((content_hash(slide.path), mpp))
        yield Step("Reading slides", len(images), len(entries), "slides")
    state, notice = encoder_file(run, [entry.name for entry in entries], seen, config.colours)
    if notice:
        yield Step("Reading slides", len(images), len(entries), "slides", notice=notice)
    return (yield from train_tile_encoder(images, config.encoder, state))


def fit(cohort: Cohort, config: RunConfig, run: Path, fabric: Fabric | None = None) -> Steps[Flag]:
    """Fit expectation, residuals and diffusion on features that are there.

    Parameters
    ----------
    cohort
        Slides with their features; those of the config's validation only decide when to stop.
    config
        Values of the run.
    run
        Folder of states and logs; created, or resumed.  ``crossfit.npy`` in it holds the (n, G) cross-fitted
        residuals of the training spots, log2(count + 1).
    fabric
        Where; None opens what the config says.
    """
    fabric = fabric or open_fabric(config.machine)
    values = config.fit
    training, held_out = split_validation(cohort, values)
    training = replace(training, others=known_sections(cohort, values))
    folds = assign_folds(training.slides)
    levels = levels_of(training)
    sizes = FlagConfig(
        features=training.features[0].shape[2],
        genes=len(training.genes),
        slides=len(training.slides),
        patients=len(levels) if len(levels) > 1 else 0,
        members=int(max(fold.max() for fold in folds)) + 1,
        **_fitting(config.network, training),
    )
    torch.manual_seed(values.seed)
    network = Flag(sizes)
    remember(network, training, levels)
    framed = frame(network, training, folds)
    frames = left_out(network, training, folds)
    prepared = yield from from_first(
        fabric, lambda: _prepare(network, training, framed, frames, config, run, fabric.device)
    )
    network.load_state_dict(prepared.buffers)
    alignment = _alignment(config, training, sizes.width)
    source = SlideBatches(
        framed, prepared.diffused, alignment, values.score_batch, values.slides_per_batch, values.seed
    )
    return (yield from _fit_score(network, alignment, source, prepared.model, held_out, config, run, fabric))


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Everything that is fitted before the score loop.

    Parameters
    ----------
    buffers
        The network's state.
    model
        The residuals' distribution, before it is narrowed.
    diffused
        What the score loop denoises.
    """

    buffers: dict[str, Tensor]
    model: ResidualModel
    diffused: Diffused


def _prepare(
    network: Flag,
    cohort: Cohort,
    framed: FramedCohort,
    frames: Frames,
    config: RunConfig,
    run: Path,
    device: torch.device,
) -> Steps[_Prepared]:
    """Fit the expectation and the residuals, and choose how wide draws are."""
    values, sizes = config.fit, network.config
    expression = torch.cat([torch.from_numpy(slide.expression) for slide in cohort.slides])
    counts = torch.cat([counts_of(slide.expression) for slide in cohort.slides])
    generator = torch.Generator().manual_seed(values.seed)
    if network.mean_head is None:
        expected = frames.location.clamp_min(LEAST)
    else:
        head, expected = yield from fit_mean_head(
            framed, frames, network.get_buffer("lift"), sizes, values, run, device
        )
        network.mean_head.load_state_dict(head.state_dict())
    run.mkdir(parents=True, exist_ok=True)
    write_whole(run / "crossfit.npy", lambda place: _save_array(place, (expression - expected).numpy()))
    slides = Slides(framed.members(), frames.resemblance)
    latents = yield from fit_latents(counts, expected.double(), slides, values.latent_samples, values.seed)
    if network.mean_head is None:
        base, scale = latent_of(frames.location), latent_scale(frames.scale)
        unscaled = diffused_around(base, scale, latents.model, counts, network, generator, 0, latents)
        spread = unscaled.clean.flatten(0, 1).std(0) + 1e-3
        diffused = replace(unscaled, clean=unscaled.clean / spread)
    else:
        parts = [expected[rows] for rows in slides.members]
        chosen = yield from choose_spread(
            cohort.slides, latents.model, slides.resemblance, parts, values.seed
        )
        narrowed = chosen.model
        base = slides.latent(narrowed, expected)
        unit = latents.model.variance.sqrt().float()
        diffused = diffused_around(base, unit, latents.model, counts, network, generator, 0, latents)
        spread = narrowed.variance.sqrt().float()
        network.get_buffer("depth").copy_(torch.from_numpy(narrowed.depth))
        factor = sd_factor(expression - expected, slides.deviation(narrowed, expected))
        network.get_buffer("sd_factor").fill_(factor)
        write_json(_describe(chosen, factor, slides.resemblance), run / "spread.json")
    network.get_buffer("spread").copy_(spread)
    if sizes.covariance:
        p = precondition(torch.cov(diffused.clean.flatten(0, 1).T), values.shrinkage)
        network.get_buffer("eigenvalues").copy_(p.eigenvalues)
        assert p.eigenvectors is not None  # of a covariance
        network.get_buffer("eigenvectors").copy_(p.eigenvectors)
    return _Prepared(network.state_dict(), latents.model, diffused)


def _fitting(network: dict[str, Any], cohort: Cohort) -> dict[str, Any]:
    """Return the config's sizes, none of them larger than the cohort allows."""
    n, d = sum(len(slide.spots) for slide in cohort.slides), cohort.features[0].shape[2]
    most = {"components": min(n, d), "landmarks": n}
    defaults = {field.name: field.default for field in fields(FlagConfig)}
    return network | {name: min(network.get(name, defaults[name]), cap) for name, cap in most.items()}


def _describe(chosen: Spread, factor: float, resemblance: Tensor) -> dict[str, Any]:
    """Return the width chosen and what it was chosen by, for the run's folder."""
    return {
        "composition": chosen.composition,
        "sd_factor": factor,
        "scores": chosen.scores,
        "resemblance": resemblance.tolist(),
    }


def _save_array(place: Path, values: FloatArray) -> None:
    with place.open("wb") as file:
        np.save(file, values)


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
    model: ResidualModel,
    held_out: Cohort,
    config: RunConfig,
    run: Path,
    fabric: Fabric,
) -> Steps[Flag]:
    """Train the gene DiT and the encoder of H_spatial by denoising."""
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
    validate = None
    if held_out.slides:
        validate = HeldOut(network, model, held_out, values.score_batch, fabric.device)
    objective = Denoising(network, alignment, values.alignment_weight)
    columns, first = log_columns(Denoising), fabric.is_global_zero
    with RunLog(run, "score", columns, tensorboard=machine.tensorboard, writes=first) as log:
        settings = asdict(values) | {"network": config.network}
        keeping = Keeping(run / "score.pt", machine.save_every, settings, log)
        averaged = yield from run_loop(objective, source, schedule, fabric, keeping, validate)
    objective.learning.load_state_dict(averaged.state_dict())
    return network.requires_grad_(True).cpu().eval()
