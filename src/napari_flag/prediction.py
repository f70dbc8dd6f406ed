"""The chain on one screen: slide + spots + weights → prediction."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys, prediction_file, scratch
from napari_flag.cluster import LOCAL
from napari_flag.errors import UserError
from napari_flag.formatting import counted, first_of, length, resolution, spread
from napari_flag.model.checkpoint import FLAG, Checkpoint, TrainedArray, encoder_of, trained_array
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import IN_WORDS, SRGB, Colours
from napari_flag.slides.file_identity import content_hash
from napari_flag.slides.lattice import pitch_of
from napari_flag.slides.resolution import unknown_scale
from napari_flag.slides.slide import Slide
from napari_flag.slides.spots import Spots, inside
from napari_flag.slides.tiles import reading_threads, tile_window

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from distributed import Client
    from shapely.geometry.base import BaseGeometry

    from napari_flag.methods.moments import Sampler
    from napari_flag.methods.predictor import EncodedSlide
    from napari_flag.model.out_of_distribution import SlideScore


Quality: TypeAlias = Literal["fast", "balanced", "best"]
COMPARING: Final = "Comparing with the training tissue"
"""Stage whose notice, if any, warns that most of the slide is unlike the training slides."""
UNLIKE: Final = 0.15
"""Relative difference from the training array above which a notice says so."""
_ENCODED_BYTES: Final = 10_000
"""Of a spot while the network encodes it: components, neighbours, hidden values of each branch."""
FEWEST: Final = 20
"""Spots below which a notice says that normalisation over the slide is uncertain."""


@dataclass(frozen=True, slots=True)
class KnownDepth:
    """The depth of a slide, as some of its spots say it.

    Parameters
    ----------
    rows, columns
        Positions of the spots and genes that were counted.
    total
        Mean total count of these genes in one of these spots.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    total: float


def predict_slide(
    slide: Slide,
    spots: Spots,
    checkpoint: Checkpoint,
    *,
    region: "Sequence[BaseGeometry] | None" = None,
    genes: Sequence[str] | None = None,
    quality: Quality = keys.DEFAULT_QUALITY,
    depth: "float | KnownDepth | None" = None,
    draws: int | None = None,
    first_draw: int = 1,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    colours: Colours | None = None,
    cache: "Path | None" = None,
    cluster: "str | Client | None" = None,
) -> "Steps[AnnData]":
    """Predict the expression of `spots` on `slide`.

    Parameters
    ----------
    slide
        With known µm/px.
    spots
        All spots on the tissue: features are normalised, and the graph built, over all of them.
    checkpoint
        The weights.
    region
        Polygons in level-0 pixels; only spots inside are predicted, with the same numbers.
    genes
        Genes to keep; the whole panel is drawn and then cut, so numbers do not change.
    quality
        Solver steps: fast 4, balanced 6, best 10, with which the weights were scored.
    depth
        What is known of the slide's depth: the mean total count of the weights' genes in a spot, or that
        of some of its spots and genes; None expects the depth of the training slides.
    draws
        Joint draws to make, at most `keys.MOST_DRAWS`; ``X`` does not depend on them.  None makes
        one, or none of a method that states an expectation only.
    first_draw
        Number of the first of them: from 1, unless a prediction has some already.
    steps
        Solver steps; None takes those of the quality, or those that the weights fix.
    seed
        Of the draws.  Draw 3 of a seed is the same whether made alone or with others, but for at most 1 value
        in 10,000, which may round to another count.
    device
        "auto", "cpu", "cuda", "cuda:1", …; with a `cluster` on other computers that of its workers.  Where
        there is none here, the fastest one here computes the rest, which a notice says.
    colours
        "scanned", or "srgb" to convert pixels by the slide's colour profile; None takes those that the
        weights were trained on.
    cache
        Folder for features; None takes the user's cache folder.
    cluster
        Where tiles are read and encoded (`cluster.spread`); None does so here.

    Yields
    ------
    Steps; while expression is predicted ``partial`` is a `sampling.Preview` per chunk whose ``X`` is known.

    Returns
    -------
    AnnData as described in `prediction_file`.

    Raises
    ------
    UserError
        µm/px unknown or too coarse, no spots, spots off the slide, unknown genes, too many draws, draws or
        steps that the method does not have, no such device, more memory needed than there is, weights that
        give no numbers, or workers that are not there or end.
    """
    import torch

    from napari_flag.encoders.features import (
        Workers,
        choose_beside_workers,
        choose_device,
        extract_features,
        first_batch,
    )
    from napari_flag.methods.predictor import open_method
    from napari_flag.model.graph import Places, build_graph
    from napari_flag.model.samplers import SamplerSettings
    from napari_flag.sampling import sample_expression

    prediction_file.check_draws(first_draw + (draws or 1) - 1)
    _check_depth(depth)
    mpp = _check(slide, spots)
    rows = _rows_inside(spots, region)
    pitch = pitch_of(spots, mpp)
    columns = _columns_of(checkpoint, genes)
    if cluster is None or (isinstance(cluster, str) and cluster.startswith(LOCAL)):
        chosen, elsewhere = choose_device(device), None
    else:
        chosen, elsewhere = choose_beside_workers(device)
    yield Step("Loading the model", 0, 1, "files")
    encoder = checkpoint.build_encoder(chosen)
    predictor = open_method(checkpoint, chosen)
    _check_draws(checkpoint, predictor.sampler, draws, steps)
    settings = None
    if predictor.sampler is not None:
        chosen_steps = keys.STEPS_OF[quality] if steps is None else steps
        settings = SamplerSettings(
            draws=1 if draws is None else draws,
            first=first_draw,
            steps=predictor.sampler.steps or chosen_steps,
            seed=seed,
        )
    drawn = 0 if settings is None else settings.draws
    reading = 0
    if cluster is None:
        window = tile_window(slide, size_px=encoder.tile_px, mpp=encoder.mpp)
        reading = window.memory(first_batch(encoder, chosen), reading_threads())
    # every method but FLAG standardises all features at once, and Stem has a layer as wide
    beside = 0 if checkpoint.method == FLAG else 2 * 4 * len(spots) * encoder.dim
    _check_memory(len(spots), len(rows), encoder.dim, len(predictor.genes), drawn, reading + beside)
    wanted = colours or checkpoint.colours
    notices = (
        *compare_with_training(checkpoint, mpp, spots, slide),
        *compare_colours(checkpoint, slide, wanted),
        *(() if elsewhere is None else (elsewhere,)),
    )
    slide = slide.in_colours(wanted)
    for notice in notices:
        yield Step("Loading the model", 1, 1, "files", notice=notice)
    features = yield from extract_features(
        slide,
        spots.xy,
        encoder,
        encoder_hash=encoder.fingerprint,
        device=chosen,
        cache=cache,
        workers=None
        if cluster is None
        else Workers(cluster, partial(encoder_of, checkpoint.file.resolve()), device),
    )
    score = yield from _score(checkpoint, features)
    if score is not None and score.warning:
        notices = (*notices, score.warning)
    yield Step("Encoding the spatial graph", 0, 1, "slides")
    try:
        with _of_numbers(checkpoint):
            encoded = predictor.encode(features, build_graph(Places.of(spots, mpp, pitch), features))
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The graph of {counted(len(spots), 'spot')} does not fit in the memory of the GPU; predict a "
            "region, or choose the CPU. The features of its tiles are kept."
        ) from error
    if depth is not None:
        encoded = at_depth(encoded, depth, len(spots), len(predictor.genes))
    with _of_numbers(checkpoint):
        expression = yield from sample_expression(predictor, encoded, spots.ids, rows, settings, columns)
    predicted = replace(spots.take(rows), pitch_um=pitch)
    numbers = () if settings is None else settings.numbers
    drawn_layers = zip(numbers, expression.draws, strict=True)
    kept = np.arange(len(predictor.genes)) if columns is None else columns
    adata = prediction_file.build_prediction(
        expression.mean,
        predicted,
        [predictor.genes[column] for column in kept],
        prediction_file.describe_run(
            slide, predicted, checkpoint, predictor.sampler, settings, str(chosen), notices
        ),
        layers={
            **{prediction_file.layer_of(number): values for number, values in drawn_layers},
            keys.SPREAD: expression.spread,
        },
    )
    if depth is not None:  # as a number, from which further draws set the level alike
        everything = np.arange(len(spots)), np.arange(len(predictor.genes))
        adata.uns[keys.PROVENANCE][keys.DEPTH] = encoded.total(*everything)
    prediction_file.add_thumbnail(adata, slide)
    if score is not None:
        prediction_file.add_out_of_distribution(adata, score, rows)
    return adata


@contextmanager
def _of_numbers(checkpoint: Checkpoint) -> Iterator[None]:
    """Say which weights it was where a method gives values that are not numbers."""
    try:
        yield
    except FloatingPointError as error:
        raise UserError(
            f'The weights "{checkpoint.name}" give values that are not numbers on this slide, so their '
            "tensors cannot be right; get the file again, or choose other weights."
        ) from error


def _check_draws(
    checkpoint: Checkpoint, sampler: "Sampler | None", draws: int | None, steps: int | None
) -> None:
    """Refuse draws or solver steps that the method of these weights does not have."""
    named = f'The weights "{checkpoint.name}" are of {checkpoint.method_name}, which'
    if sampler is None and draws is not None:
        raise UserError(
            f"{named} states an expectation and no distribution, so nothing can be drawn of it; leave out "
            "the number of draws (--draws), or choose weights of a method that draws."
        )
    if sampler is None and steps is not None:
        raise UserError(
            f"{named} draws nothing, so it has no solver steps; leave out their number (--steps)."
        )
    if sampler is not None and sampler.steps is not None and steps not in (None, sampler.steps):
        raise UserError(
            f"{named} draws in {sampler.steps} steps, as it was made to, and not in {steps}; leave out their "
            "number (--steps)."
        )


def _check_depth(depth: "float | KnownDepth | None") -> None:
    """Refuse a depth that no slide has."""
    total = depth.total if isinstance(depth, KnownDepth) else depth
    if total is not None and not (total > 0 and np.isfinite(total)):
        raise UserError(
            "The depth is a mean total count of the weights' genes in a spot and must be above 0, but is "
            f"{total:g}; give another number, or counts of spots on the tissue."
        )


def at_depth(encoded: "EncodedSlide", depth: "float | KnownDepth", spots: int, genes: int) -> "EncodedSlide":
    """Return a slide of `spots` spots and `genes` genes with the level that the depth says.

    Raises
    ------
    UserError
        When the depth is not above 0.
    """
    _check_depth(depth)
    known = depth
    if not isinstance(known, KnownDepth):
        known = KnownDepth(np.arange(spots), np.arange(genes), float(known))
    usual = encoded.shifted(0.0)  # knowing a depth narrows what a patient's level may be, and so its mean
    return usual.shifted(float(np.log(known.total / usual.total(known.rows, known.columns))))


def _score(checkpoint: Checkpoint, features: npt.NDArray[np.float32]) -> "Steps[SlideScore | None]":
    """Return how far the slide lies from the training tissue; None where the weights have no score."""
    scorer = checkpoint.build_out_of_distribution_score()
    if scorer is None:
        return None
    yield Step(COMPARING, 0, len(features))
    score = scorer.score(features)
    yield Step(COMPARING, len(features), len(features), notice=score.warning)
    return score


def compare_with_training(
    checkpoint: Checkpoint, mpp: float, spots: Spots, slide: Slide | None = None
) -> tuple[str, ...]:
    """Return a sentence where the weights know this slide, and for each way in which its spots differ.

    Parameters
    ----------
    checkpoint
        The weights; their card states the arrays of the training slides.
    mpp
        µm per level-0 pixel of the slide.
    spots
        The spots; their distance, diameter and number are compared.
    slide
        Where there is one: it is compared by its name, and by its content where the card has hashes.
    """
    array = trained_array(checkpoint.card)
    seen = None if slide is None else _seen(checkpoint, slide)
    found = [] if seen is None else [seen]
    for what, value, trained in (
        ("distance between spots", pitch_of(spots, mpp), array.pitches_um),
        ("spot diameter", spots.diameter_um, array.diameters_um),
    ):
        if value and _unlike(value, trained):
            found.append(
                f"The {what} is {length(value)}, but the model was trained on {spread(trained, length)}: "
                "counts per spot, and so the level of all genes, may be off."
            )
    if spots.laid and len(array.pitches_um) != 1:
        found.append(_doubt_of_grid(pitch_of(spots, mpp), array))
    if sentence := compare_resolution(checkpoint, mpp):
        found.append(sentence)
    if len(spots) < FEWEST:
        found.append(
            f"There are only {len(spots)} spots: features are normalised over the spots of a "
            "slide, so give all spots on the tissue and use a region to predict only a part."
        )
    return tuple(found)


def _seen(checkpoint: Checkpoint, slide: Slide) -> str | None:
    """Return a sentence where the weights were trained on `slide`, by its name or its content."""
    hashes = prediction_file.texts(checkpoint.card.get(keys.CARD_HASHES))
    sections = prediction_file.texts(checkpoint.card.get("sections"))
    known = bool(hashes) and content_hash(slide.path) in hashes
    return prediction_file.seen_in_training(slide.name, sections, known)


def _unlike(value: float, trained: Sequence[float]) -> bool:
    """Return whether a value lies further than `UNLIKE` outside those of training, which ascend."""
    return bool(trained) and not trained[0] * (1 - UNLIKE) <= value <= trained[-1] * (1 + UNLIKE)


def _doubt_of_grid(pitch_um: float, array: TrainedArray) -> str:
    """Return why the distance of a grid is a choice where the weights do not state one distance."""
    stated = (
        f"were trained on arrays with {spread(array.pitches_um, length)} between spots"
        if array.pitches_um
        else "do not state how far apart the spots they were trained on lie"
    )
    return (
        f"The spots are a grid of {length(pitch_um)}, and the weights {stated}; choose the distance that "
        "fits your tissue in step 2 (--spacing on the command line, spacing_um= in Python)."
    )


def compare_resolution(checkpoint: Checkpoint, mpp: float) -> str | None:
    """Return a sentence when `mpp` (µm per level-0 pixel) differs from the training slides'."""
    trained = trained_array(checkpoint.card).mpps
    if not _unlike(mpp, trained):
        return None
    theirs = spread(trained, resolution)
    if mpp > trained[-1]:
        return (
            f"The slide has {resolution(mpp)}, coarser than the {theirs} of the training "
            "slides: fine texture is missing, so expect less accurate maps."
        )
    return (
        f"The slide has {resolution(mpp)}, finer than the {theirs} of the training "
        "slides; it is read at theirs, but another scanner or stain may still give other numbers."
    )


def compare_colours(checkpoint: Checkpoint, slide: Slide, colours: Colours) -> tuple[str, ...]:
    """Return a sentence where `colours` are not those of the training slides, or `slide` has no profile."""
    found: list[str] = []
    if colours == SRGB and slide.reader.profile is None:
        found.append(f"{slide.path.name} has no colour profile, so its colours are taken to be sRGB.")
    if colours != checkpoint.colours:
        ours, theirs = (IN_WORDS[colours], IN_WORDS[checkpoint.colours])
        found.append(
            f"The slide's colours are taken {ours}, but the model was trained on colours {theirs}, so its "
            "numbers may be off."
        )
    return tuple(found)


def _check(slide: Slide, spots: Spots) -> float:
    """Return the slide's µm/px, or say what is missing."""
    if len(spots) == 0:
        raise UserError(
            "There are no spots to predict; choose another spot table, or a grid over the tissue."
        )
    if slide.mpp is None:
        raise UserError(unknown_scale(slide.path.name))
    return slide.mpp


def _rows_inside(spots: Spots, region: "Sequence[BaseGeometry] | None") -> npt.NDArray[np.int64]:
    if region is None:
        return np.arange(len(spots))
    kept = inside(region, spots.xy)
    if not kept.any():
        raise UserError(
            "No spot lies inside the chosen region; draw the region over the tissue, or check that "
            "it belongs to this slide."
        )
    return np.flatnonzero(kept)


def _columns_of(checkpoint: Checkpoint, genes: Sequence[str] | None) -> npt.NDArray[np.int64] | None:
    """Return which genes of the weights to keep, None for all of them."""
    if genes is None:
        return None
    place = {gene: i for i, gene in enumerate(checkpoint.genes)}
    unknown = [gene for gene in genes if gene not in place]
    if unknown or not genes:
        named = first_of(unknown, 10)
        raise UserError(
            f'The weights "{checkpoint.name}" cannot predict {named or "an empty list of genes"}; '
            f"they know {counted(len(place), 'gene')} (napari-flag weights show {checkpoint.name} lists "
            "them)."
        )
    return np.array([place[gene] for gene in dict.fromkeys(genes)])


def _check_memory(n_all: int, n: int, dim: int, genes: int, draws: int, other: int) -> None:
    """Refuse before it starts what would not fit in memory; `other` is in bytes."""
    arrays: list[tuple[tuple[int, ...], npt.DTypeLike]] = [
        ((n_all, dim), np.float32),  # features, and standardised for the graph
        ((n_all, dim), np.float32),
        ((n_all, genes), np.float64),  # what the slide's encoding expects, and its log-rates
        ((n_all, genes), np.float32),
        ((n, genes), np.float32),  # mean, standard deviation, draws
        ((n, genes), np.float32),
        ((draws, n, genes), np.float32),
    ]
    in_files = sum(scratch.size_on_disk(*array) for array in arrays)
    whole = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in arrays)
    needed = n_all * _ENCODED_BYTES + whole - in_files + other
    scratch.refuse_beyond_drive(in_files)
    scratch.refuse_beyond_memory(
        needed,
        f"Predicting {counted(n_all, 'spot')}",
        "choose a larger spot distance or close other programs",
    )
