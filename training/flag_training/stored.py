"""Slides of a run from a store that ``napari-flag prepare`` made."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from flag_training.config import RunConfig, SlideEntry, StoreConfig
from flag_training.prepare.store import Store, StoredSlide, open_store
from flag_training.prepare.weights import read_weights
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    from flag_training.cohort import Cohort, TrainingSlide


def with_store(config: RunConfig, data: Path) -> RunConfig:
    """Return `config` with the slides of its store, and those to stop early by.

    A run without a store is returned as it is.  With a split, its validation part is held out for
    early stopping unless the config names sections itself; take `held_out` away before training.

    Parameters
    ----------
    config
        Values of the run.
    data
        Folder that the store's path is relative to.
    """
    if config.store is None:
        return config
    store = open_store(data / config.store.path)
    fit = config.fit
    if config.store.split and not fit.validation:
        fit = replace(fit, validation=store.split(config.store.split).part("validation"))
    return replace(config, slides=tuple(_entry(store.slide(name)) for name in store.names), fit=fit)


def held_out(config: RunConfig, data: Path) -> tuple[str, ...]:
    """Return the test part of the run's split: never trained on, never stopped by; () without a split."""
    if config.store is None or not config.store.split:
        return ()
    return open_store(data / config.store.path).split(config.store.split).part("test")


def load_stored(config: StoreConfig, data: Path, names: Sequence[str], views: int) -> "Steps[Cohort]":
    """Read slides of a store: expression of its panel, and features of its encoder.

    Parameters
    ----------
    config
        Which store, encoder and panel.
    data
        Folder that the store's path is relative to.
    names
        Slides to read.
    views
        Views of each slide to take.

    Raises
    ------
    UserError
        When an entry is damaged, a slide lacks genes or views, or slides were encoded with other weights.
    """
    from flag_training.cohort import Cohort

    store = open_store(data / config.path)
    panel = store.panel(config.panel) if config.panel else ()
    slides, features = [], []
    for number, name in enumerate(names):
        yield Step("Reading the store", number, len(names), "slides")
        stored = store.slide(name)
        found = stored.features(config.encoder)
        if len(found) < views:
            raise UserError(
                f"{name} was encoded in {len(found)} views and the run asks for {views}; set fit.views, or "
                "prepare the store again with --views."
            )
        training, genes = _training_slide(stored, panel)
        if panel and genes != panel:
            raise AssertionError("a slide's genes are the panel's")
        panel = panel or genes
        slides.append(training)
        features.append(torch.from_numpy(np.array(found[:views])))
    _refuse_mixed(store, config.encoder, names)
    return Cohort(tuple(slides), tuple(features), panel)


def stored_encoder(config: StoreConfig, data: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the encoder's name and the weights that must go into the checkpoint with the model."""
    return config.encoder, read_weights(data / config.path, config.encoder)


def _training_slide(stored: StoredSlide, panel: Sequence[str]) -> "tuple[TrainingSlide, tuple[str, ...]]":
    from flag_training.cohort import TrainingSlide

    counts = stored.counts()
    genes = tuple(panel or counts.var_names)
    absent = [gene for gene in genes if gene not in counts.var_names]
    if absent:
        raise UserError(
            f"{stored.name} lacks genes of the panel ({', '.join(absent[:5])}); choose the genes anew with "
            "this slide in the cohort, or leave it out."
        )
    expression = np.log2(np.asarray(counts[:, list(genes)].X.todense(), np.float32) + 1)
    return TrainingSlide(_entry(stored), stored.spots, stored.mpp, expression, stored.graph()), genes


def _entry(stored: StoredSlide) -> SlideEntry:
    """Describe a stored slide; one whose patient is not known counts as a patient of its own."""
    image = str(stored.record["sources"][0]["path"])
    return SlideEntry(stored.name, stored.patient or stored.name, image, image, mpp=stored.mpp)


def _refuse_mixed(store: Store, encoder: str, names: Sequence[str]) -> None:
    """Refuse features made by different weights: a slide's features would tell which slide it is."""
    prints = {store.slide(name).feature_settings(encoder)["fingerprint"]: name for name in names}
    if len(prints) > 1:
        one, other = list(prints.values())[:2]
        raise UserError(
            f"{one} and {other} were encoded with other weights of {encoder}; make the features of one anew "
            f"with: napari-flag prepare … --rebuild {one}/features-{encoder}"
        )
