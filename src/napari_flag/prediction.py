"""The way of the data on one screen: slide + spots + weights → prediction."""

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from anndata import AnnData
from scipy.spatial import cKDTree

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.progress import Step, Steps
from napari_flag.slides.slide import Slide
from napari_flag.slides.spots import Spots

if TYPE_CHECKING:
    from pathlib import Path

    from shapely.geometry.base import BaseGeometry

    from napari_flag.model.out_of_distribution import Judgement
    from napari_flag.sampling import Expression, SamplerSettings


Quality: TypeAlias = Literal["fast", "balanced", "best"]

STEPS_OF: Final[dict[str, int]] = {"fast": 6, "balanced": 10, "best": 20}
"""Solver steps behind each quality; the number of joint samples is the weights card's choice."""
COMPARING: Final = "Comparing with the training tissue"
"""Stage whose notice, if any, warns that most of the slide is unlike the training slides."""
UNLIKE: Final = 0.15
"""Relative difference from the training array from which on the user is told."""
FEWEST: Final = 20
"""Spots below which the slide's own frame is too uncertain not to say so."""


def predict_slide(
    slide: Slide,
    spots: Spots,
    checkpoint: Checkpoint,
    *,
    region: "Sequence[BaseGeometry] | None" = None,
    genes: Sequence[str] | None = None,
    quality: Quality = "balanced",
    samples: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    cache: "Path | None" = None,
) -> Steps[AnnData]:
    """Predict the expression of `spots` on `slide`.

    Parameters
    ----------
    slide
        With known µm/px.
    spots
        All spots on the tissue: the graph and the slide's frame are built over all of them.
    checkpoint
        The weights.
    region
        Polygons in level-0 pixels; only spots inside are predicted, with the same numbers.
    genes
        Genes to keep; the whole panel is sampled and then cut, so numbers do not change.
    quality
        Solver steps: fast 6, balanced 10, best 20.
    samples, steps
        Joint samples and solver steps; None takes the weights card's and the quality's.
    seed
        Same seed, same numbers (to 1e-4 on one device).
    device
        "auto", "cpu", "cuda", "cuda:1", …
    cache
        Folder for features; None takes the user's cache folder.

    Yields
    ------
    Steps; while expression is sampled ``partial`` is a `prediction.Preview` per finished chunk.

    Returns
    -------
    AnnData as described in `keys`.

    Raises
    ------
    UserError
        µm/px unknown or too coarse, no spots, spots off the slide, unknown genes, no such device,
        or more memory needed than there is.
    """
    from napari_flag.encoders.features import choose_device, extract_features
    from napari_flag.model.graph import build_graph
    from napari_flag.sampling import SamplerSettings, encode_slide, sample_expression

    mpp = _check(slide, spots)
    rows = _rows_inside(spots, region)
    columns = _columns_of(checkpoint, genes)
    chosen = choose_device(device)
    settings = SamplerSettings(
        samples=_samples_of(checkpoint) if samples is None else samples,
        steps=STEPS_OF[quality] if steps is None else steps,
        seed=seed,
    )
    yield Step("Loading the model", 0, 1, "files")
    encoder = checkpoint.build_encoder(chosen)
    network = checkpoint.build_network(chosen)
    _check_memory(len(spots), len(rows), encoder.dim, len(checkpoint.genes))
    pitch = spots.pitch_um or nearest_pitch(spots.xy) * mpp
    notices = compare_with_training(checkpoint, mpp, pitch, spots)
    for notice in notices:
        yield Step("Loading the model", 1, 1, "files", notice=notice)
    features = yield from extract_features(
        slide, spots.xy, encoder, encoder_hash=encoder.fingerprint, device=chosen, cache=cache
    )
    judged = yield from _judge(checkpoint, features)
    if judged is not None and judged.warning:
        notices = (*notices, judged.warning)
    yield Step("Encoding the spatial graph", 0, 1, "slides")
    graph = build_graph(spots.xy * mpp, features, pitch)
    context = encode_slide(network, features, graph)
    expression = yield from sample_expression(network, context, spots.ids, rows, checkpoint.genes, settings)
    adata = _assemble(
        slide, spots.take(rows), checkpoint, expression, columns, settings, str(chosen), pitch, notices
    )
    if judged is not None:
        _record_familiarity(adata, judged, rows)
    return adata


def _judge(checkpoint: Checkpoint, features: npt.NDArray[np.float32]) -> "Steps[Judgement | None]":
    """Say how far all spots of the slide lie from the training tissue; None where weights cannot."""
    familiarity = checkpoint.build_familiarity()
    if familiarity is None:
        return None
    yield Step(COMPARING, 0, len(features))
    judged = familiarity.judge(features)
    yield Step(COMPARING, len(features), len(features), notice=judged.warning)
    return judged


def _record_familiarity(adata: AnnData, judged: "Judgement", rows: npt.NDArray[np.int64]) -> None:
    """Write per spot and for the slide how far they lie from the training tissue."""
    from napari_flag.model.out_of_distribution import FAR

    adata.obs[keys.DISTANCE], adata.obs[keys.UNLIKE] = judged.distance[rows], judged.unlike[rows]
    told = {
        keys.UNLIKE_FROM: FAR,
        keys.SHARE_UNLIKE: judged.share,
        keys.SHARE_UNLIKE_ALIGNED: judged.share_aligned,
        keys.UNLIKE_WARNING: judged.warning,
    }
    adata.uns[keys.PROVENANCE][keys.FAMILIARITY] = {k: v for k, v in told.items() if v is not None}


def _samples_of(checkpoint: Checkpoint) -> int:
    """Return the number of joint samples chosen on validation sections, as the card states it."""
    return int(checkpoint.card.get("sampler", {}).get("samples", 4))


def compare_with_training(
    checkpoint: Checkpoint, mpp: float, pitch_um: float | None, spots: Spots
) -> tuple[str, ...]:
    """Return a sentence for each way in which these spots differ from those the weights know.

    Parameters
    ----------
    checkpoint
        The weights; their card states the array of the training slides.
    mpp
        µm per level-0 pixel of the slide.
    pitch_um
        Distance between spots in µm, None if not known.
    spots
        The spots; diameter and number are looked at.
    """
    array = checkpoint.card.get("array", {})
    found: list[str] = []
    for what, value, trained in (
        ("distance between spots", pitch_um, array.get("pitch_um")),
        ("spot diameter", spots.diameter_um, array.get("diameter_um")),
    ):
        if value and trained and abs(value / trained - 1) > UNLIKE:
            found.append(
                f"The {what} is {value:.0f} µm, but the model was trained on {trained:.0f} µm: "
                "counts per spot, and so the level of all genes, may be off."
            )
    if told := compare_resolution(checkpoint, mpp):
        found.append(told)
    if len(spots) < FEWEST:
        found.append(
            f"There are only {len(spots)} spots: the model judges a spot against the rest of its "
            "slide, so give it all the tissue and use a region to predict only a part."
        )
    return tuple(found)


def compare_resolution(checkpoint: Checkpoint, mpp: float) -> str | None:
    """Return a sentence when `mpp` (µm per level-0 pixel) differs from the training slides'."""
    trained = checkpoint.card.get("um_per_px")
    if not isinstance(trained, int | float) or abs(mpp / trained - 1) <= UNLIKE:
        return None
    if mpp > trained:
        return (
            f"The slide has {mpp:.3f} µm/px, coarser than the {trained:.3f} µm/px of the training "
            "slides: fine texture is missing, so expect less accurate maps."
        )
    return (
        f"The slide has {mpp:.3f} µm/px, finer than the {trained:.3f} µm/px of the training "
        "slides; it is read at theirs, but another scanner or stain may still give other numbers."
    )


def nearest_pitch(xy: npt.NDArray[np.float64]) -> float:
    """Return the median distance to the nearest other spot, in the unit of `xy`; 1 for one spot."""
    if len(xy) < 2:
        return 1.0
    distance, _ = cKDTree(xy).query(xy, k=2)
    return float(np.median(distance[:, 1]))


def _check(slide: Slide, spots: Spots) -> float:
    """Return the slide's µm/px, or say what is missing."""
    if len(spots) == 0:
        raise UserError(
            "There are no spots to predict; choose another spot table, or a grid over the tissue."
        )
    if slide.mpp is None:
        raise UserError(
            f"The slide {slide.path.name} does not say how large a pixel is, and guessing would "
            "give wrong genes; give µm per pixel (--mpp on the command line), e.g. 0.5 for a 20× scan."
        )
    return slide.mpp


def _rows_inside(spots: Spots, region: "Sequence[BaseGeometry] | None") -> npt.NDArray[np.int64]:
    if region is None:
        return np.arange(len(spots))
    from shapely import contains_xy, union_all

    inside = contains_xy(union_all(list(region)), spots.xy[:, 0], spots.xy[:, 1])
    if not inside.any():
        raise UserError(
            "No spot lies inside the chosen region; draw the region over the tissue, or check that "
            "it belongs to this slide."
        )
    return np.flatnonzero(inside)


def _columns_of(checkpoint: Checkpoint, genes: Sequence[str] | None) -> npt.NDArray[np.int64]:
    if genes is None:
        return np.arange(len(checkpoint.genes))
    place = {gene: i for i, gene in enumerate(checkpoint.genes)}
    unknown = [gene for gene in genes if gene not in place]
    if unknown or not genes:
        named = ", ".join(unknown[:10]) + (", …" if len(unknown) > 10 else "")
        raise UserError(
            f'The weights "{checkpoint.name}" cannot predict {named or "an empty list of genes"}; '
            f"they know {len(place)} genes (napari-flag weights show {checkpoint.name} lists them)."
        )
    return np.array([place[gene] for gene in dict.fromkeys(genes)])


def _check_memory(n_all: int, n: int, dim: int, genes: int) -> None:
    """Refuse before it starts what would not fit in memory."""
    needed = 4 * (6 * n_all * dim + 8 * n * genes)  # float32; features framed, gathered, concatenated
    available = _free_memory()
    if needed > 0.9 * available:
        raise UserError(
            f"{n_all:,} spots need about {needed / 2**30:.0f} GiB of memory, but only "
            f"{available / 2**30:.0f} GiB are free; choose a larger spot distance or close other programs."
        )


def _free_memory() -> int:
    """Return bytes of memory that are free."""
    import psutil

    return int(psutil.virtual_memory().available)


def _assemble(
    slide: Slide,
    spots: Spots,
    checkpoint: Checkpoint,
    expression: "Expression",
    columns: npt.NDArray[np.int64],
    settings: "SamplerSettings",
    device: str,
    pitch_um: float,
    notices: tuple[str, ...],
) -> AnnData:
    import pandas as pd

    obs = pd.DataFrame(index=pd.Index(spots.ids, dtype=str))
    if spots.array is not None:
        obs[keys.ARRAY_ROW], obs[keys.ARRAY_COL] = spots.array.T
    var = pd.DataFrame(index=pd.Index([checkpoint.genes[c] for c in columns], dtype=str))
    layers = {keys.SAMPLE: expression.sample[:, columns]}
    if expression.spread is not None:
        layers[keys.SPREAD] = expression.spread[:, columns]
    adata = AnnData(expression.mean[:, columns], obs=obs, var=var, layers=layers)
    adata.obsm[keys.SPATIAL] = spots.xy.astype(np.float64)
    adata.uns[keys.SPATIAL] = {slide.name: _scanpy_library(slide, spots, pitch_um)}
    adata.uns[keys.PROVENANCE] = _provenance(
        slide, replace(spots, pitch_um=pitch_um), checkpoint, settings, device, notices
    )
    return adata


def _scanpy_library(slide: Slide, spots: Spots, pitch_um: float) -> dict[str, Any]:
    """Return what scanpy and squidpy draw behind the spots."""
    image = slide.thumbnail(1000)
    mpp = slide.mpp or 1.0
    return {
        "images": {"hires": image},
        "scalefactors": {
            "tissue_hires_scalef": image.shape[1] / slide.size[0],
            "spot_diameter_fullres": (spots.diameter_um or 0.55 * pitch_um) / mpp,
        },
        "metadata": {"source_image_path": slide.path.name},
    }


def _provenance(
    slide: Slide,
    spots: Spots,
    checkpoint: Checkpoint,
    settings: "SamplerSettings",
    device: str,
    notices: tuple[str, ...],
) -> dict[str, Any]:
    from napari_flag.encoders.registry import find_encoder

    row = find_encoder(checkpoint.encoder)
    told = {
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.SLIDE_NAME: slide.name,
        keys.SLIDE_WIDTH: slide.size[0],
        keys.SLIDE_HEIGHT: slide.size[1],
        keys.MPP: slide.mpp,
        keys.MPP_SOURCE: slide.mpp_source,
        keys.SPOT_DIAMETER_UM: spots.diameter_um,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
        keys.TILE_PX: row.tile_px,
        keys.TILE_UM_PER_PX: row.mpp,
        keys.ENCODER: checkpoint.encoder,
        keys.WEIGHTS_NAME: checkpoint.name,
        keys.WEIGHTS_HASH: checkpoint.sha256,
        keys.TRAINING_SLIDES: [str(s) for s in checkpoint.card.get("sections", [])],
        keys.SAMPLER: settings.solver,
        keys.STEPS: settings.steps,
        keys.SAMPLES: settings.samples,
        keys.SEED: settings.seed,
        keys.DEVICE: device,
        keys.VERSIONS: _versions(),
        keys.NOTICES: list(notices),
        keys.NOT_FOR_DIAGNOSIS: keys.RESEARCH_USE_ONLY,
    }
    return {key: value for key, value in told.items() if value is not None}  # h5ad has no None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("napari-flag", "torch", "numpy", "anndata"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
