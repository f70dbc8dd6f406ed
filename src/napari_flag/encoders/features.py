"""Features of spots: tiles read, encoded in batches, and cached on disk."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from napari_flag import __version__
from napari_flag import cache as kept
from napari_flag.cluster import Finished, require_version, spread
from napari_flag.encoders.foundation.loader import FoundationEncoder
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.files import Unwritable, unfinished
from napari_flag.formatting import counted_of
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import Colours
from napari_flag.slides.file_identity import state_of
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.tiles import read_tiles

if TYPE_CHECKING:
    from distributed import Client

FeatureArray = npt.NDArray[np.float32]

BATCH_CPU: Final = 4
"""Tiles per batch on the CPU: about a third of a second, so that Cancel takes effect at once."""
BATCH_CPU_FOUNDATION: Final = 1
"""A ViT-L takes about a second per tile on a core, a ViT-g four."""
BATCH_GPU: Final = 64
"""Tiles per batch on a GPU; halved when its memory runs out."""
BATCHES_OF_PART: Final = 64
"""Batches that a worker is sent at a time: some ten seconds of work, a few megabytes of features."""
FEWEST_PARTS: Final = 8
"""Parts of a small slide, so that several workers share it."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers that read and encode the tiles of one slide.

    Parameters
    ----------
    cluster
        As `cluster.spread` takes it.
    open_encoder
        Given a device, returns the encoder; a function that workers can import, with its arguments
        (`functools.partial`).
    """

    cluster: "str | Client"
    open_encoder: Callable[[str], Encoder]


@dataclass(frozen=True, slots=True)
class TilePart:
    """Spots of a slide whose tiles one worker encodes.

    Parameters
    ----------
    slide, mpp, colours
        The slide's file, and how it is read.
    xy
        (n, 2) spot centres in level-0 pixels.
    open_encoder, device
        As of `Workers`, and what it is given.
    fingerprint
        Of the encoder here, which the worker's must have too.
    version
        Of napari-flag where the command runs; a worker must have the same.
    """

    slide: Path
    mpp: float | None
    colours: Colours
    xy: npt.NDArray[np.float64]
    open_encoder: Callable[[str], Encoder]
    device: str
    fingerprint: str
    version: str = __version__


def list_devices() -> tuple[tuple[str, str], ...]:
    """Return the devices there are as (PyTorch's name, what to call it), the fastest first."""
    devices = [
        (f"cuda:{i}" if i else "cuda", f"CUDA: {torch.cuda.get_device_name(i)}")
        for i in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append(("mps", "Apple GPU"))
    return (*devices, ("cpu", "CPU"))


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" takes a GPU (CUDA, else Apple's) when there is one.

    Raises
    ------
    UserError
        When a device is named that is not there: the CPU is never used in its place without being named.
    """
    if name == "auto":
        return torch.device(list_devices()[0][0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f'There is no device called "{name}"; use auto, cpu, mps, or cuda (or cuda:0, cuda:1, …).'
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "A GPU was requested, but PyTorch sees none on this computer; choose the device "
            '"cpu" (slower, same result), or install a PyTorch built for your GPU.'
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "Apple's GPU (mps) was requested, but PyTorch sees none on this computer; choose the "
            'device "cpu" (slower, same result).'
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"The GPU {name} was requested, but the last one here is cuda:{torch.cuda.device_count() - 1}; "
            "choose that or a lower number."
        )
    return device


def extract_features(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    encoder: Encoder,
    *,
    encoder_hash: str,
    device: torch.device,
    cache: Path | None = None,
    workers: "Workers | None" = None,
) -> Steps[FeatureArray]:
    """Encode the tile around each spot.

    Parameters
    ----------
    slide
        With known µm/px.
    xy
        (n, 2) spot centres in level-0 pixels.
    encoder, encoder_hash
        The encoder, and the hash that identifies its weights.
    device
        Where `encoder` computes; decides the batch size.
    cache
        Folder for finished features; None takes the user's cache folder.
    workers
        Where tiles are read and encoded, in parts; None does so here.

    Returns
    -------
    (n, dim) float32.

    Raises
    ------
    UserError
        µm/px unknown or too coarse, a spot off the slide, memory exhausted at one tile a batch, or features
        that are no numbers.
    """
    folder = cache if cache is not None else kept.cache_folder("features")
    key = _key(slide, xy, encoder, encoder_hash)
    there = yield from _read_cache(folder, key, (len(xy), encoder.dim), slide.name)
    if there is not None:
        yield Step("Reading tiles", len(xy), len(xy), notice=None)
        return there
    features = np.empty((len(xy), encoder.dim), np.float32)
    order = _by_place(xy, encoder.tile_px * encoder.mpp / (slide.mpp or encoder.mpp))
    if workers is None:
        yield from _encode(slide, xy, order, encoder, device, features)
    else:
        yield from _encode_on(workers, slide, xy, order, encoder, device, features)
    wrong = int((~np.isfinite(features).all(1)).sum())
    if wrong:
        raise UserError(
            f"The encoder {encoder.name} returned values that are no numbers for "
            f"{counted_of(wrong, len(xy), 'tile')}, so its weights are damaged or do not "
            'suit this device; get them again, or choose the device "cpu".'
        )
    yield from _write_cache(folder, key, features)
    return features


def _encode(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    encoder: Encoder,
    device: torch.device,
    features: FeatureArray,
) -> Steps[None]:
    """Fill `features`, spot by spot in `order`."""
    batch = first_batch(encoder, device)
    done = 0
    while done < len(xy):
        try:
            tiles = read_tiles(
                slide, xy[order[done:]], size_px=encoder.tile_px, mpp=encoder.mpp, batch_size=batch
            )
            for tile_batch in tiles:
                features[order[done : done + len(tile_batch)]] = encoder.encode(tile_batch)
                done += len(tile_batch)
                yield Step("Reading tiles", done, len(xy))
        except torch.cuda.OutOfMemoryError:
            batch = halve(batch, "tiles")
            torch.cuda.empty_cache()
            yield Step(
                "Reading tiles",
                done,
                len(xy),
                notice=f"GPU memory ran out; continuing with {batch} tiles at a time.",
            )


def _encode_on(
    workers: Workers,
    slide: Slide,
    xy: npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    encoder: Encoder,
    device: torch.device,
    features: FeatureArray,
) -> Steps[None]:
    """Fill `features` part by part on workers, in the batches in which `_encode` would."""
    batch = first_batch(encoder, device)
    batches = min(BATCHES_OF_PART, -(-len(xy) // (FEWEST_PARTS * batch)))
    places = [order[start : start + batches * batch] for start in range(0, len(xy), batches * batch)]
    whole = TilePart(
        slide.path.resolve(),
        slide.mpp,
        slide.colours,
        xy[:0],
        workers.open_encoder,
        str(device),
        encoder.fingerprint,
    )
    steps = spread(
        encode_part,
        [replace(whole, xy=xy[rows]) for rows in places],
        workers.cluster,
        stage="Reading tiles",
        unit="parts",
        names=[f"part {number + 1}" for number in range(len(places))],
        gpu=device.type == "cuda",
    )
    done = 0
    for step in steps:
        if isinstance(finished := step.partial, Finished):
            if finished.result is None:
                raise UserError(finished.lost)
            rows = places[finished.place]
            features[rows] = finished.result
            done += len(rows)
        yield Step("Reading tiles", done, len(xy), notice=step.notice, detail=step.detail)


def encode_part(part: TilePart) -> Steps[FeatureArray]:
    """Encode the tiles of some spots, on a worker.

    Returns
    -------
    (n, dim) float32, in the order of ``part.xy``.

    Raises
    ------
    UserError
        When slide or weights are not there under the same path, or the encoder is another.
    """
    require_version(part.version)
    encoder = part.open_encoder(part.device)
    if encoder.fingerprint != part.fingerprint:
        raise UserError(
            f"A worker has other weights of the encoder {encoder.name} than this computer; put the same "
            "files there under the same paths."
        )
    features = np.empty((len(part.xy), encoder.dim), np.float32)
    with open_slide(part.slide, mpp=part.mpp).in_colours(part.colours) as slide:
        order = np.arange(len(part.xy))
        yield from _encode(slide, part.xy, order, encoder, torch.device(part.device), features)
    return features


def _by_place(xy: npt.NDArray[np.float64], side: float) -> npt.NDArray[np.int64]:
    """Return the order in which tiles of `side` level-0 pixels are read: band by band, from left to right.

    Tiles overlap, so what is decoded for one is then still there for the next, whatever the order of spots.
    """
    order: npt.NDArray[np.int64] = np.lexsort((xy[:, 0], xy[:, 1] // side))
    return order


def first_batch(encoder: Encoder, device: torch.device) -> int:
    """Return how many tiles to encode at a time, as long as memory lasts."""
    if device.type == "cuda":
        return BATCH_GPU
    return BATCH_CPU_FOUNDATION if isinstance(encoder, FoundationEncoder) else BATCH_CPU


def halve(batch: int, unit: str) -> int:
    """Return half of `batch`.

    Raises
    ------
    UserError
        When it cannot be halved.
    """
    if batch <= 1:
        raise UserError(
            f"GPU memory ran out although {unit} are taken one at a time; close other programs "
            'that use the GPU, or choose the device "cpu".'
        )
    return batch // 2


def _key(slide: Slide, xy: npt.NDArray[np.float64], encoder: Encoder, encoder_hash: str) -> str | None:
    """Return what features are kept under: slide (path, state), µm/px, colours, spots, encoder."""
    try:
        state = state_of(slide.path)
    except OSError:  # a slide that is no file, e.g. a synthetic one
        return None
    digest = hashlib.sha256()
    identity = (
        str(slide.path.resolve()),
        *state,
        slide.size,
        slide.mpp,
        slide.colours,
    )
    digest.update(repr((identity, encoder.name, encoder.tile_px, encoder.mpp, encoder_hash)).encode())
    digest.update(np.ascontiguousarray(xy, np.float64).tobytes())
    return digest.hexdigest()[:32]


def _read_cache(
    folder: Path, key: str | None, shape: tuple[int, int], name: str
) -> Steps[FeatureArray | None]:
    """Return the features kept under `key`; damaged ones are deleted, which is said."""
    entry = None if key is None else kept.find(folder, key)
    if entry is None:
        return None
    if (yield from kept.is_whole(entry, "Reading kept features")):
        with suppress(OSError, ValueError, EOFError):
            found: FeatureArray = np.load(entry, allow_pickle=False)
            if found.shape == shape and found.dtype == np.float32:
                return found
    if not entry.exists():  # another process made room
        return None
    kept.discard(entry)
    said = f"The kept features of {name} were damaged and are computed again."
    yield Step("Reading tiles", 0, shape[0], notice=said)
    return None


def _write_cache(folder: Path, key: str | None, features: FeatureArray) -> Steps[None]:
    """Keep `features`; where the cache cannot be written, the next run is slower and nothing else."""
    if key is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder / f"{key}.npy") as place:
            with place.open("wb") as stream:
                np.save(stream, features)
            entry = yield from kept.store(place, folder, key, ".npy", "Keeping features")
        kept.make_room(entry, kept.MOST_BYTES["features"])
    except (OSError, Unwritable):
        return
