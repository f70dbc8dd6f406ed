"""File names in a run folder: states of a fit, features of a slide, tile encoders.

A name is a hash of values alone, as JSON with sorted keys, so it depends neither on the names of classes nor
on the order of their fields.  Until version 0.1 names hashed the ``repr`` of dataclasses.  What has
such a name is found and resumed: the functions with ``earlier`` in their names compute it, with class
names and fields spelled out as they were then, so that renaming a class or adding a field changes nothing.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from flag_training.config import RunConfig, SlideEntry
from flag_training.stages.tile_encoder import TileEncoderConfig

_FIELDS: Final = {
    "SlideEntry": ("name", "patient", "image", "spots", "counts", "mpp"),
    "FitConfig": (
        "views", "kernel_penalty", "kernel_penalty_growth", "kernel_sharpness", "location_penalty",
        "branch_steps", "branch_rate", "branch_decay",
        "score_steps", "score_rate", "score_decay", "score_batch",
        "slides_per_batch", "accumulate", "warm_steps", "clip",
        "validation", "validation_share", "check_every", "patience", "ema", "shrinkage",
        "alignment_targets", "alignment_cells", "alignment_weight",
        "alignment_centred", "alignment_present_only",
        "left_out", "left_out_patients", "seed",
    ),
    "StoreConfig": ("path", "encoder", "panel", "split"),
    "TileEncoderConfig": (
        "steps", "schedule_steps", "batch_size", "learning_rate", "weight_decay",
        "shift_px", "stain_jitter", "brightness_jitter", "seed",
    ),
}  # fmt: skip
"""Classes and fields whose ``repr`` earlier names hashed, in the order of then."""


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
    names = [entry.name for entry in config.slides]
    values = {"slides": names, "fit": config.fit, "network": config.network, "store": config.store}
    parts = ", ".join(
        (
            repr(names),
            _earlier_repr("FitConfig", config.fit),
            repr(sorted(config.network.items())),
            _earlier_repr("StoreConfig", config.store) if config.store is not None else "None",
        )
    )
    earlier = hashlib.sha256(f"({parts})".encode()).hexdigest()[:12]
    return _earlier_or(run / f"fit-{earlier}{suffix}", run / f"fit-{_digest(values)[:12]}{suffix}")


def features_file(run: Path, entry: SlideEntry, views: int, weights: bytes) -> Path:
    """Return the file of a slide's features in `views` views under a tile encoder with `weights`."""
    earlier = hashlib.sha256(weights + f"({_earlier_repr('SlideEntry', entry)}, {views})".encode())
    digest = _digest({"slide": entry, "views": views, "weights": hashlib.sha256(weights).hexdigest()})
    return _earlier_or(
        run / f"features_{entry.name}_{earlier.hexdigest()[:12]}.npy",
        run / f"features_{entry.name}_{digest[:12]}.npy",
    )


def encoder_folder(run: Path, config: TileEncoderConfig) -> Path:
    """Return the folder of everything made with a tile encoder of other values than the run's."""
    earlier = hashlib.sha256(_earlier_repr("TileEncoderConfig", config).encode()).hexdigest()
    return _earlier_or(run / f"encoder-{earlier[:8]}", run / f"encoder-{_digest(config)[:8]}")


def _digest(values: Any) -> str:
    """Return the SHA-256 of `values` as JSON; dataclasses count as mappings, tuples as lists."""
    text = json.dumps(values, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()


def _earlier_or(earlier: Path, path: Path) -> Path:
    """Return the path of an earlier name where it exists, else the path under today's name."""
    return earlier if earlier.exists() and not path.exists() else path


def _earlier_repr(name: str, values: Any) -> str:
    """Return what ``repr`` of a dataclass was when its fields were those of `_FIELDS`."""
    return f"{name}({', '.join(f'{field}={getattr(values, field)!r}' for field in _FIELDS[name])})"
