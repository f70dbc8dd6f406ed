"""Score FLAG on a held-out section: X, one sample, its parts alone, and the controls."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from flag_training.cohort import TrainingSlide
from flag_training.config import RunConfig
from flag_training.scoring import FloatArray, Scores, score
from napari_flag import keys
from napari_flag.model.flag import Context, Flag
from napari_flag.model.graph import GraphTensors
from napari_flag.prediction import Expression, SamplerSettings, encode_slide, sample_expression
from napari_flag.progress import Steps
from napari_flag.statistics.calibration import normal_coverage, spread_over_error

SHUFFLED = "X, tiles shuffled"
TURNED = "X, turned and re-stained"


@dataclass(frozen=True, slots=True)
class FlagScores:
    """What FLAG scores on a section.

    Parameters
    ----------
    scores
        What was scored → metrics.  ``X`` also has ``coverage_50``, ``_80``, ``_95``, the shares of truth
        within X ± z · sd, and ``spread/error`` (1 is calibrated), where several samples were drawn.
    expression
        What was drawn.
    """

    scores: dict[str, Scores]
    expression: Expression


def score_flag(
    network: Flag, slide: TrainingSlide, views: FloatArray, config: RunConfig, genes: tuple[str, ...]
) -> Steps[FlagScores]:
    """Draw and score a section that `network` was not trained on.

    Parameters
    ----------
    network
        In evaluation mode.
    slide
        The section with its truth.
    views
        (views, n, d) features; the first as the section is, the others turned and re-stained as a whole.
    config
        Number of samples and seed.
    genes
        The panel.
    """
    features = views[0]
    shuffled = np.random.default_rng(config.fit.seed).permutation(len(features))
    cases = {"X": features, SHUFFLED: features[shuffled]}
    cases |= {f"{TURNED} {i}": view for i, view in enumerate(views[1:], start=1)}
    found: dict[str, Scores] = {}
    kept: Expression | None = None
    for name, seen in cases.items():
        drawn, context = yield from draw(network, slide, seen, config, genes)
        found[name] = score(drawn.mean, slide)
        if kept is None:
            kept = drawn
            found[name] |= _calibration(drawn, slide)
            found["sample"] = score(drawn.sample, slide)
            silent = torch.zeros_like(context.expected)
            expected = context.expression(silent, torch.arange(len(features), device=silent.device))
            found["mean head"] = score(expected.cpu().numpy(), slide)
    found["kernel branch"] = score(_kernel(network, slide, features), slide)
    assert kept is not None  # cases are never empty
    return FlagScores(found, kept)


def draw(
    network: Flag, slide: TrainingSlide, features: FloatArray, config: RunConfig, genes: tuple[str, ...]
) -> Steps[tuple[Expression, Context]]:
    """Draw the config's number of samples for all spots of `slide` under (n, d) `features`."""
    settings = SamplerSettings(samples=config.samples, seed=config.fit.seed)
    context = encode_slide(network, features, slide.graph(features))
    rows = np.arange(len(features))
    drawn = yield from sample_expression(network, context, slide.spots.ids, rows, genes, settings)
    return drawn, context


def _calibration(drawn: Expression, slide: TrainingSlide) -> Scores:
    if drawn.spread is None:
        return {}
    truth = slide.expression
    shares = {
        f"coverage_{level.level * 100:.0f}": level.share
        for level in normal_coverage(drawn.mean, drawn.spread, truth)
    }
    return shares | {"spread/error": spread_over_error(drawn.mean, drawn.spread, truth)}


def _kernel(network: Flag, slide: TrainingSlide, features: FloatArray) -> FloatArray:
    """Return what the closed-form branch expects alone."""
    raw = torch.from_numpy(features).to(network.get_buffer("spread").device)
    with torch.inference_mode():
        graph = network.seen(GraphTensors.of(slide.graph(features), device=raw.device))
        smooth = network.mean_head.kernel(network.frames.features(raw), graph)
        location, scale, _ = network.frames.expression(raw)
        expected: FloatArray = (location + scale * smooth).clamp_min(0).cpu().numpy()
    return expected


def held_out_prediction(
    slide: TrainingSlide,
    expression: Expression,
    genes: tuple[str, ...],
    trained_on: tuple[str, ...],
    config: RunConfig,
) -> AnnData:
    """Return a held-out prediction with its truth in ``layers["measured"]``, as `keys` describes it."""
    spots = slide.spots
    obs = pd.DataFrame(index=pd.Index(spots.ids, dtype=str))
    if spots.array is not None:
        obs[keys.ARRAY_ROW], obs[keys.ARRAY_COL] = spots.array.T
    layers = {keys.SAMPLE: expression.sample, keys.MEASURED: slide.expression}
    if expression.spread is not None:
        layers[keys.SPREAD] = expression.spread
    var = pd.DataFrame(index=pd.Index(genes, dtype=str))
    adata = AnnData(expression.mean, obs=obs, var=var, layers=layers)
    adata.obsm[keys.SPATIAL] = spots.xy.astype(np.float64)
    adata.uns[keys.PROVENANCE] = {
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.SLIDE_NAME: slide.entry.name,
        keys.MPP: slide.mpp,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
        keys.WEIGHTS_NAME: config.name,
        keys.TRAINING_SLIDES: list(trained_on),
        keys.SAMPLES: config.samples,
        keys.SEED: config.fit.seed,
        keys.NOT_FOR_DIAGNOSIS: keys.RESEARCH_USE_ONLY,
    }
    return adata
