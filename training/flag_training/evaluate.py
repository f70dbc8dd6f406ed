"""Score sections that a run did not train on, beside the controls that keep us honest."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from flag_training.cohort import Cohort, TrainingSlide, load_cohort
from flag_training.config import RunConfig
from flag_training.fit import fit, states_name, tile_encoder
from napari_flag.comparison import score_values
from napari_flag.model.flag import Flag, GraphTensors
from napari_flag.prediction import SamplerSettings, encode_slide, sample_expression
from napari_flag.progress import Steps
from napari_flag.statistics.autocorrelation import find_neighbours
from napari_flag.statistics.intervals import neighbouring_blocks

FloatArray: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = dict[str, float]


def evaluate(
    config: RunConfig, data: Path, run: Path, test: tuple[str, ...], unseen: tuple[str, ...]
) -> Steps[dict[str, dict[str, Scores]]]:
    """Leave each section of `test` out in turn, train on the rest, and score it.

    Parameters
    ----------
    config, data, run
        As for `fit.train`; states and features are shared with it.
    test
        Sections to score, each by weights trained without it.
    unseen
        Sections kept out of everything.

    Returns
    -------
    Section → what was scored → metric → value.  Scored are ``X``, ``sample``, the mean head and the
    kernel branch alone, and ``X`` when the tiles are shuffled between the section's spots, or the whole
    section is turned and re-stained (the views of `cohort.slide_views`).
    """
    kept = config.without(unseen)
    net = yield from tile_encoder(config, data, run)
    cohort = yield from load_cohort(kept, data, run, net)
    names = [slide.entry.name for slide in cohort.slides]
    found: dict[str, dict[str, Scores]] = {}
    for section in test:
        left = [i for i, name in enumerate(names) if name != section]
        rest = Cohort(
            tuple(cohort.slides[i] for i in left), tuple(cohort.features[i] for i in left), cohort.genes
        )
        without = kept.without((section,))
        network = yield from fit(rest, without, run / states_name(without))
        place = names.index(section)
        views = cohort.features[place].numpy()
        found[section] = yield from _score(network, cohort.slides[place], views, config, cohort.genes)
    return found


def _score(
    network: Flag,
    slide: TrainingSlide,
    views: FloatArray,
    config: RunConfig,
    genes: tuple[str, ...],
) -> Steps[dict[str, Scores]]:
    settings = SamplerSettings(samples=config.samples, seed=config.fit.seed)
    features = views[0]
    rows = np.arange(len(features))
    found: dict[str, Scores] = {}
    shuffled = np.random.default_rng(config.fit.seed).permutation(len(features))
    cases = {"X": features, "X, tiles shuffled": features[shuffled]}
    cases |= {f"X, turned and re-stained {i}": view for i, view in enumerate(views[1:], start=1)}
    for name, seen in cases.items():
        context = encode_slide(network, seen, slide.graph(seen))
        drawn = yield from sample_expression(network, context, slide.spots.ids, rows, genes, settings)
        found[name] = score(drawn.mean, slide)
        if name == "X":
            found["sample"] = score(drawn.sample, slide)
            nothing = torch.zeros_like(context.expected)
            found["mean head"] = score(
                context.expression(nothing, torch.arange(len(features))).numpy(), slide
            )
    found["kernel branch"] = score(_kernel(network, slide, features), slide)
    return found


def _kernel(network: Flag, slide: TrainingSlide, features: FloatArray) -> FloatArray:
    """Return what the closed-form branch expects alone."""
    raw = torch.from_numpy(features)
    with torch.inference_mode():
        graph = network.seen(GraphTensors.of(slide.graph(features)))
        smooth = network.mean_head.kernel(network.frames.features(raw), graph)
        location, scale, _ = network.frames.expression(raw)
        expected: FloatArray = (location + scale * smooth).clamp_min(0).numpy()
    return expected


def score(predicted: FloatArray, slide: TrainingSlide) -> Scores:
    """Return the six metrics of (n, G) `predicted` on `slide`, as ``napari-flag compare`` defines them."""
    spots = slide.spots
    values, _ = score_values(
        predicted.astype(np.float64),
        slide.expression.astype(np.float64),
        find_neighbours(spots.xy, spots.array, spots.lattice),
        neighbouring_blocks(spots.xy),
        [str(gene) for gene in range(predicted.shape[1])],
        seed=0,
    )
    return values.values


def rounded(found: dict[str, dict[str, Scores]]) -> dict[str, Any]:
    """Return `found` with three decimals, and the mean over sections where there are several."""
    told: dict[str, Any] = {
        section: {
            what: {metric: round(value, 3) for metric, value in scores.items()}
            for what, scores in by_kind.items()
        }
        for section, by_kind in found.items()
    }
    if len(found) > 1:
        first = next(iter(found.values()))
        told["mean"] = {
            what: {
                metric: round(float(np.mean([found[s][what][metric] for s in found])), 3)
                for metric in first[what]
            }
            for what in first
        }
    return told
