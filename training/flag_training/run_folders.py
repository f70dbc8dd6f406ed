"""File names in a run folder: states of a fit, features of a slide, tile encoders.

A name is a hash of values alone, as JSON with sorted keys, so it depends neither on the names of classes nor
on the order of their fields.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from glob import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.config import RunConfig, SlideEntry
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag.files import place_in, read_text, write_text
from napari_flag.slides.colours import SCANNED, Colours

_FITTED_ON: Final = "features.txt"
"""File in a folder of an earlier version: the hash of the features that its states are of."""

_NOT_KNOWN: Final = (
    "The fit of an earlier version in {} does not say which features it was made on, and they are not known "
    "to be those of this run, so a new one is begun in {}; if you know that they are, stop this, put the "
    "first folder in the place of the second, and run it again."
)
_ADOPTED: Final = (
    "{} is of an earlier version and does not say which images it was trained on, so it is taken as trained "
    "on those of the same names; if one was replaced since, delete the file and run this again."
)
_REPLACED: Final = (
    "The tile encoder {} was trained on other images of the same names, or at other µm per pixel, so another "
    "is trained on those that are there now."
)


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


def trained_folder(run: Path, config: RunConfig, features: str, are_earlier: bool) -> tuple[Path, str | None]:
    """Return the folder of the states of `train`, and a notice where an earlier version's is passed over.

    The name of an earlier version's folder does not say what it was fitted on.  Where the features in use are
    those that the earlier version kept in `run`, it is marked with them, and gone on with on them alone.  Of
    a store none are kept there, so a fit of an earlier version on a store is not gone on with.

    Parameters
    ----------
    run, config
        The run.
    features
        Hash of the features in use.
    are_earlier
        Whether they are those that an earlier version kept in `run`.
    """
    plain, named = states_folder(run, config), states_folder(run, config, features)
    if named.exists() or not plain.exists():
        return named, None
    mark = plain / _FITTED_ON
    if not mark.exists() and not are_earlier:
        return named, _NOT_KNOWN.format(plain.name, named.name)
    return (plain if _is_of(features, mark) else named), None


def _is_of(made_of: str, mark: Path) -> bool:
    """Return whether what lies beside `mark` is of `made_of`, the hash in it, which the first use writes."""
    if not mark.exists():
        write_text(f"{made_of}\n", mark)
    return read_text(mark).strip() == made_of


def features_key(
    name: str,
    image: str,
    xy: npt.NDArray[np.float64],
    mpp: float,
    views: int,
    seed: int,
    encoder: str,
    colours: Colours,
) -> str:
    """Return what the features of a slide are kept under: all that they are made of.

    Parameters
    ----------
    name
        Of the slide, for people who look into the folder.
    image
        Hash of its content.
    xy, mpp
        (n, 2) spot centres in level-0 pixels, and µm per level-0 pixel.
    views, seed
        How many views there are, and what those beyond the first are drawn by.
    encoder
        Fingerprint of the tile encoder.
    colours
        In which the pixels are read.
    """
    values = {
        "image": image,
        "spots": hashlib.sha256(np.ascontiguousarray(xy, "<f8").tobytes()).hexdigest(),
        "mpp": mpp,
        "views": [views, seed],
        "encoder": encoder,
    }
    return place_in(Path(), f"features_{name}_{_digest(values | _coloured(colours))[:24]}").name


def earlier_features_file(run: Path, entry: SlideEntry, views: int, weights: bytes, colours: Colours) -> Path:
    """Return where earlier versions kept features: under names of files, without a hash of any content."""
    values = {"slide": entry, "views": views, "weights": hashlib.sha256(weights).hexdigest()}
    return place_in(run, f"features_{entry.name}_{_digest(values | _coloured(colours))[:12]}", ".npy")


def encoder_file(
    run: Path, slides: Sequence[str], images: Sequence[tuple[str | None, float]], colours: Colours
) -> tuple[Path, str | None]:
    """Return the file of the state of a tile encoder, and a notice where what is kept may be another's.

    One of an earlier version, whose name does not say what it was trained on, is marked with the images that
    it is first used with, and never used with others.

    Parameters
    ----------
    run
        The folder.
    slides
        Those that it is trained on, by name.
    images
        Hash of the content of each one's image, and its µm per level-0 pixel.
    colours
        In which the pixels are read.
    """
    stem = f"tile_encoder_{'-'.join((*_coloured(colours).values(), *slides))}"
    plain, made_of = place_in(run, stem, ".pt"), _digest(images)[:12]
    named = plain.with_name(f"{plain.stem}-{made_of}.pt")
    if named.exists():
        return named, None
    if plain.exists():
        mark = plain.with_suffix(".txt")
        adopted = not mark.exists()
        if _is_of(made_of, mark):
            return plain, _ADOPTED.format(plain) if adopted else None
    of_others = [plain, *sorted(run.glob(f"{escape(plain.stem)}-{'[0-9a-f]' * 12}.pt"))]
    other = next((path.name for path in of_others if path.exists()), None)
    return named, other and _REPLACED.format(other)


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
