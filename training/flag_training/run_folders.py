"""File names in a run folder: states of a fit, features of a slide, tile encoders.

A name is a hash of values alone, as JSON with sorted keys, so it depends neither on the names of classes nor
on the order of their fields.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flag_training.config import RunConfig, SlideEntry
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag.files import place_in
from napari_flag.slides.colours import SCANNED, Colours


def states_folder(run: Path, config: RunConfig, features: str = "") -> Path:
    """Return the folder of a fit's states: other sections or values never share one.

    Parameters
    ----------
    run
        The run's folder.
    config
        Its values; those of the machine and of the card do not count.
    features
        Hash of the features where the run holds folders of several encoders.
    """
    suffix = f"-{features}" if features else ""
    values = {
        "slides": [entry.name for entry in config.slides],
        "fit": config.fit,
        "network": config.network,
        "store": config.store,
        "prior": config.prior,
    }
    return run / f"fit-{_digest(values | _coloured(config.colours))[:12]}{suffix}"


def features_file(run: Path, entry: SlideEntry, views: int, weights: bytes, colours: Colours) -> Path:
    """Return the file of a slide's features in `views` views under a tile encoder with `weights`."""
    values = {"slide": entry, "views": views, "weights": hashlib.sha256(weights).hexdigest()}
    return place_in(run, f"features_{entry.name}_{_digest(values | _coloured(colours))[:12]}", ".npy")


def encoder_file(run: Path, slides: Sequence[str], colours: Colours) -> Path:
    """Return the file of the state of a tile encoder trained on the images of `slides`."""
    return place_in(run, f"tile_encoder_{'-'.join((*_coloured(colours).values(), *slides))}", ".pt")


def encoder_folder(run: Path, config: TileEncoderConfig) -> Path:
    """Return the folder of everything made with a tile encoder of other values than the run's."""
    return run / f"encoder-{_digest(config)[:8]}"


def _coloured(colours: Colours) -> dict[str, str]:
    """Return what marks states of converted colours; those as scanned bear no mark."""
    return {} if colours == SCANNED else {"colours": colours}


def _digest(values: Any) -> str:
    """Return the SHA-256 of `values` as JSON; dataclasses count as mappings, tuples as lists."""
    text = json.dumps(values, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()
