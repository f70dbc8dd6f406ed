from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import FitConfig, MachineConfig, RunConfig, SlideEntry
from flag_training.stages.fit import fit
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag.model.flag import Flag
from napari_flag.progress import finish
from napari_flag.slides.spots import Spots


def make_slide(name, patient, seed, side=6, genes=5):
    """Spots on a square array whose counts follow two hidden features."""
    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(side * side), side)
    spots = Spots(
        tuple(f"{c}x{r}" for r, c in zip(rows, columns, strict=True)),
        np.stack([columns, rows], 1) * 293.0,
        100.0,
        200.0,
        "square",
        np.stack([rows, columns], 1),
    )
    hidden = np.stack([np.sin(rows / 2), np.cos(columns / 2)], 1)
    features = np.concatenate([hidden, rng.normal(size=(len(rows), 6))], 1).astype(np.float32)
    loading = np.random.default_rng(99).normal(size=(2, genes))
    counts = rng.poisson(np.exp2(5 + hidden @ loading + rng.normal(0, 0.3, (len(rows), genes))))
    expression = np.log2(counts + 1)
    slide = TrainingSlide(SlideEntry(name, patient, "", ""), spots, 0.683, expression.astype(np.float32))
    return slide, torch.from_numpy(np.stack([features, features + 0.05 * seed]))


@pytest.fixture(scope="session")
def cohort():
    return make_cohort()


def make_cohort():
    made = [make_slide(*who) for who in (("B4", "B", 1), ("C2", "C", 2), ("C3", "C", 3), ("C4", "C", 4))]
    return Cohort(tuple(s for s, _ in made), tuple(f for _, f in made), tuple("ABCDE"))


@pytest.fixture(scope="session")
def tiny(cohort):
    """One view of twelve spots of one section: few enough to be learnt by heart."""
    slide, few = cohort.slides[0], np.arange(12)
    small = replace(slide, spots=slide.spots.take(few), expression=slide.expression[few])
    return Cohort((small,), (cohort.features[0][:1, few],), cohort.genes)


def share_of_the_means_error(found, tiny):
    """The squared error of (n, G) `found` on the spots of `tiny`, as a share of that of their mean."""
    truth = tiny.slides[0].expression
    return ((found - truth) ** 2).mean() / ((truth.mean(0) - truth) ** 2).mean()


@dataclass(frozen=True)
class FittedRun:
    """A finished fit of `make_cohort()` under `make_config()`: not to be changed, to be copied."""

    network: Flag
    folder: Path
    losses: list[float]


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted") / "run"
    losses = []
    network = finish(fit(make_cohort(), make_config(), folder), lambda step: losses.append(step.partial))
    return FittedRun(network, folder, [loss for loss in losses if loss is not None])


@pytest.fixture(scope="session")
def learnt(tmp_path_factory):
    """The network of `make_cohort()`, trained for long enough to predict: not to be changed."""
    config = make_config(branch_steps=30, score_steps=10)
    return finish(fit(make_cohort(), config, tmp_path_factory.mktemp("learnt")))


@pytest.fixture(scope="session")
def unseen():
    """A section that `learnt` was not trained on, and its (views, n, d) features."""
    return make_slide("C9", "C", 9)


PROPER = {"mean_head": False, "covariance": False, "attention": "channels", "averaged": 2}
"""Values of the network of FLAG proper."""


def make_config(save_every=2, **fit):
    values = {"branch_steps": 4, "score_steps": 6, "score_batch": 16} | fit
    sizes = {"mean_width": 16, "mean_layers": 1, "context_width": 16, "context_layers": 1}
    sizes |= {"width": 16, "blocks": 2}
    machine = MachineConfig(accelerator="cpu", save_every=save_every)
    return RunConfig("tiny", None, (), (), sizes, FitConfig(**values), TileEncoderConfig(), {}, machine)
