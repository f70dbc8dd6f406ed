"""The data card of trained weights: what a run knows of itself, and what its config adds."""

from pathlib import Path
from typing import Any

from flag_training.cohort import Cohort
from flag_training.config import RunConfig, StoreConfig
from flag_training.familiarity import describe_for_card
from flag_training.prepare.store import open_store
from flag_training.validation import split_validation
from napari_flag import keys
from napari_flag.encoders.registry import find_encoder


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
        "array": {"pitch_um": first.spots.pitch_um, "diameter_um": first.spots.diameter_um},
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
    told = {"name": name, "licence": find_encoder(name).licence}
    if store:
        settings = open_store(data / store.path).slide(slide).feature_settings(name)
        told["fingerprint"] = str(settings["fingerprint"])
    return told
