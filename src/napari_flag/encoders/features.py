"""Features of spots: tiles read, encoded in batches, and cached on disk."""

import hashlib
import math
import platform
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from napari_flag import __version__, scratch
from napari_flag import cache as kept
from napari_flag.cluster import STARTING, Finished, connected, require_version, spread
from napari_flag.encoders.foundation.loader import FoundationEncoder
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.formatting import counted_of, data_size
from napari_flag.progress import Step, Steps, finish
from napari_flag.slides.colours import Colours
from napari_flag.slides.file_identity import state_of
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.tiles import read_tiles

if TYPE_CHECKING:
    from distributed import Client

FeatureArray = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

BATCH_CPU: Final = 4
"""Tiles per batch on the CPU: about a third of a second, so that Cancel takes effect at once."""
BATCH_CPU_FOUNDATION: Final = 1
"""A ViT-L takes about a second per tile on a core, a ViT-g four."""
BATCH_GPU: Final = 64
"""Tiles per batch on a GPU; halved when its memory runs out."""
BATCHES_OF_PART: Final = 64
"""Batches of a part, which is kept once it is done, and sent to a worker as a whole: some ten seconds of
work, a few megabytes of features."""
FEWEST_PARTS: Final = 8
"""Parts of a small slide, so that several workers share it."""
MOST_PARTS: Final = 512
"""Parts of a large slide: the folder they are kept in is listed for each of them."""
_ROWS: Final = 4096
"""Spots looked at at once."""
READING: Final = "Reading tiles"
READING_KEPT: Final = "Reading kept features"
_KEEPING: Final = "Keeping features"


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
    device
        As `choose_device` takes it; each worker chooses for itself.
    """

    cluster: "str | Client"
    open_encoder: Callable[[str], Encoder]
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class WantedEncoder:
    """An encoder that a worker is to open.

    Parameters
    ----------
    open_encoder, device
        As of `Workers`.
    weights
        Of the encoder here, which the worker's must have too.
    version
        Of napari-flag where the command runs; a worker must have the same.
    """

    open_encoder: Callable[[str], Encoder]
    device: str
    weights: str
    version: str = __version__

    def opened(self) -> tuple[Encoder, torch.device]:
        """Return the encoder on a device of this worker.

        Raises
        ------
        UserError
            When there is no such device, or program or weights are others.
        """
        require_version(self.version)
        try:
            device = choose_device(self.device)
        except UserError as error:
            raise UserError(f"On the worker {platform.node()}: {error}") from error
        encoder = self.open_encoder(str(device))
        if encoder.weights != self.weights:
            raise UserError(
                f"A worker has other weights of the encoder {encoder.name} than this computer; put the same "
                "files there under the same paths."
            )
        return encoder, device


@dataclass(frozen=True, slots=True)
class TilePart:
    """Spots of a slide whose tiles one worker encodes.

    Parameters
    ----------
    slide, mpp, colours
        The slide's file, and how it is read.
    xy
        (n, 2) spot centres in level-0 pixels.
    encoder
        What encodes them.
    fingerprint, kind
        Of the encoder and of the device of the worker that was asked first, which all must have.
    """

    slide: Path
    mpp: float | None
    colours: Colours
    xy: npt.NDArray[np.float64]
    encoder: WantedEncoder
    fingerprint: str
    kind: str


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
    device = _device_called(name)
    if fault := _absence(device):
        raise UserError(fault)
    return device


def choose_beside_workers(name: str) -> tuple[torch.device, str | None]:
    """Return the device for what is computed here while workers encode tiles on the device `name`.

    A computer from which a cluster is used often has no GPU: then the fastest device here is taken, and the
    sentence that is returned says so.

    Raises
    ------
    UserError
        When no device is called so.
    """
    if name == "auto" or not _absence(_device_called(name)):
        return choose_device(name), None
    device, called = list_devices()[0]
    return torch.device(device), (
        f"Workers encode the tiles on {name}, which this computer does not have: the graph and the "
        f"expression are computed here, by the {called}."
    )


def _device_called(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f'There is no device called "{name}"; use auto, cpu, mps, or cuda (or cuda:0, cuda:1, …).'
        ) from error


def _absence(device: torch.device) -> str | None:
    """Return a sentence where `device` is not there."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return (
            "A GPU was requested, but PyTorch sees none on this computer; choose the device "
            '"cpu" (slower, same result), or install a PyTorch built for your GPU.'
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        return (
            "Apple's GPU (mps) was requested, but PyTorch sees none on this computer; choose the "
            'device "cpu" (slower, same result).'
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return (
            f"The GPU {device} was requested, but the last one here is cuda:{torch.cuda.device_count() - 1}; "
            "choose that or a lower number."
        )
    return None


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
    kept_here = _Kept(folder, key, slide.name, kept.most_bytes("features"))
    shape = len(xy), encoder.dim
    if workers is None or workers.device == "auto" or torch.device(workers.device).type == device.type:
        there = yield from kept_here.whole(shape)
        if there is not None:
            return there
    order = _by_place(xy, encoder.tile_px * encoder.mpp / (slide.mpp or encoder.mpp))
    if workers is None:
        batch = first_batch(encoder, device)
        encode = partial(_encode, slide, xy, encoder, batch)
        return (yield from _in_parts(encode, order, encoder, batch, kept_here))
    yield Step(READING, 0, len(xy), detail=STARTING)
    gpu = workers.device.startswith("cuda")
    with connected(workers.cluster, gpu=gpu) as client:
        wanted = WantedEncoder(workers.open_encoder, workers.device, encoder.weights)
        fingerprint, kind, batch = yield from _ask(wanted, client, gpu, len(xy))
        if fingerprint != encoder.fingerprint:
            kept_here = replace(kept_here, key=_key(slide, xy, encoder, fingerprint))
            there = yield from kept_here.whole(shape)
            if there is not None:
                return there
        tiles = TilePart(slide.path.resolve(), slide.mpp, slide.colours, xy, wanted, fingerprint, kind)
        encode = partial(_encode_on, client, gpu, tiles)
        return (yield from _in_parts(encode, order, encoder, batch, kept_here))


def _in_parts(
    encode: Callable[[Sequence[Rows], FeatureArray], Steps[None]],
    order: Rows,
    encoder: Encoder,
    batch: int,
    kept_here: "_Kept",
) -> Steps[FeatureArray]:
    """Return the features that `encode` makes of the spots in `order`, part by part.

    Parts are whole batches, each kept as it is done, so that work that was cancelled continues with those
    that are missing and gives the same features.

    Parameters
    ----------
    encode
        Given the rows of each part and where features go; its steps count the spots that
        are done, and have as ``partial`` the place of a part that is.
    """
    size = batch * max(
        min(BATCHES_OF_PART, -(-len(order) // (FEWEST_PARTS * batch))), -(-len(order) // (MOST_PARTS * batch))
    )
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    features = scratch.empty((len(order), encoder.dim), np.float32)
    missing = yield from kept_here.fill(parts, features)
    before = len(order) - sum(map(len, missing))
    left, lost = len(missing), None
    if missing:
        if said := kept_here.make_room(sum(map(len, missing)), features.shape):
            yield Step(READING, before, len(order), notice=said)
        with closing(encode(missing, features)) as steps:
            for step in steps:
                left -= step.partial is not None
                if step.partial is not None and left:  # after the last all are kept as one
                    said = kept_here.keep_part(missing[step.partial], features)
                    if said and lost is None:
                        yield Step(READING, before + step.done, len(order), notice=said)
                    lost = lost or said
                yield replace(step, done=before + step.done, total=len(order), partial=None)
    wrong = sum(int((~np.isfinite(features[rows]).all(1)).sum()) for rows in parts)
    if wrong:
        raise UserError(
            f"The encoder {encoder.name} returned values that are no numbers for "
            f"{counted_of(wrong, len(order), 'tile')}, so its weights are damaged or do not "
            'suit this device; get them again, or choose the device "cpu".'
        )
    yield from kept_here.keep(features)
    return features


def _encode(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    encoder: Encoder,
    batch: int,
    parts: Sequence[Rows],
    features: FeatureArray,
) -> Steps[None]:
    """Fill `features` of `parts`, spot by spot, reading ahead from each part into the next."""
    order, ends = np.concatenate(parts), np.cumsum([len(part) for part in parts]).tolist()
    done = ended = 0
    while done < len(order):
        try:
            tiles = read_tiles(
                slide, xy[order[done:]], size_px=encoder.tile_px, mpp=encoder.mpp, batch_size=batch
            )
            for tile_batch in tiles:
                features[order[done : done + len(tile_batch)]] = encoder.encode(tile_batch)
                done += len(tile_batch)
                whole = ended if done >= ends[ended] else None
                ended += whole is not None
                yield Step(READING, done, len(order), partial=whole)
        except torch.cuda.OutOfMemoryError:
            batch = halve(batch, "tiles")
            torch.cuda.empty_cache()
            yield Step(
                READING,
                done,
                len(order),
                notice=f"GPU memory ran out; continuing with {batch} tiles at a time.",
            )


def _ask(wanted: WantedEncoder, client: "Client", gpu: bool, total: int) -> Steps[tuple[str, str, int]]:
    """Return what `describe_encoder` says on the first worker that is there."""
    steps = spread(
        describe_encoder, [wanted], client, stage=READING, unit="parts", names=["the encoder"], gpu=gpu
    )
    answer: tuple[str, str, int] | None = None
    for step in steps:
        if isinstance(finished := step.partial, Finished):
            if finished.result is None:
                raise UserError(finished.lost)
            answer = finished.result
        yield Step(READING, 0, total, notice=step.notice, detail=step.detail)
    assert answer is not None
    return answer


def _encode_on(
    client: "Client",
    gpu: bool,
    tiles: TilePart,
    parts: Sequence[Rows],
    features: FeatureArray,
) -> Steps[None]:
    """Fill `features` of `parts` on workers, a part at a time on each."""
    steps = spread(
        encode_part,
        [replace(tiles, xy=tiles.xy[rows]) for rows in parts],
        client,
        stage=READING,
        unit="parts",
        names=[f"part {number + 1}" for number in range(len(parts))],
        gpu=gpu,
    )
    done, whole = 0, None
    for step in steps:
        if isinstance(finished := step.partial, Finished):
            if finished.result is None:
                raise UserError(finished.lost)
            whole = finished.place
            features[parts[whole]] = finished.result
            done += len(parts[whole])
        yield Step(READING, done, len(features), notice=step.notice, detail=step.detail, partial=whole)
        whole = None


def describe_encoder(wanted: WantedEncoder) -> Steps[tuple[str, str, int]]:
    """Return the fingerprint of an encoder on a worker, the kind of its device, and tiles at a time.

    Raises
    ------
    UserError
        As `WantedEncoder.opened`.
    """
    yield Step("Loading the model", 0, 1, "files")
    encoder, device = wanted.opened()
    return encoder.fingerprint, device.type, first_batch(encoder, device)


def encode_part(part: TilePart) -> Steps[FeatureArray]:
    """Encode the tiles of some spots, on a worker.

    Returns
    -------
    (n, dim) float32, in the order of ``part.xy``.

    Raises
    ------
    UserError
        When slide, device or weights are not there under the same name, or the encoder computes otherwise.
    """
    encoder, device = part.encoder.opened()
    if (encoder.fingerprint, device.type) != (part.fingerprint, part.kind):
        raise UserError(
            "Workers encode tiles in different ways, some on a GPU and others on a CPU, or on processors of "
            "different kinds; name the device of all with --device, or start workers of one kind."
        )
    features = np.empty((len(part.xy), encoder.dim), np.float32)
    with open_slide(part.slide, mpp=part.mpp).in_colours(part.colours) as slide:
        everything = np.arange(len(part.xy))
        yield from _encode(slide, part.xy, encoder, first_batch(encoder, device), [everything], features)
    return features


def _by_place(xy: npt.NDArray[np.float64], side: float) -> Rows:
    """Return the order in which tiles of `side` level-0 pixels are read: band by band, from left to right.

    Tiles overlap, so what is decoded for one is then still there for the next, whatever the order of spots.
    """
    order: Rows = np.lexsort((xy[:, 0], xy[:, 1] // side))
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


def _are_numbers(features: FeatureArray) -> bool:
    """Return whether all of (n, d) `features` are numbers, and finite."""
    starts = range(0, len(features), _ROWS)
    return all(bool(np.isfinite(features[start : start + _ROWS]).all()) for start in starts)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The features of one slide that are kept: all of them as one entry, or parts until all are there.

    Parameters
    ----------
    folder, key
        Where, and as what; None keeps nothing.
    name
        Of the slide.
    most
        Bytes of the entries of all slides that may stay.
    """

    folder: Path
    key: str | None
    name: str
    most: int

    def whole(self, shape: tuple[int, int]) -> Steps[FeatureArray | None]:
        """Return the features of all spots; damaged ones are deleted, which is said."""
        entry = None if self.key is None else kept.find(self.folder, self.key)
        if entry is None:
            return None
        said = f"The kept features of {self.name} were damaged and are computed again."
        found = yield from self._read(entry, shape, said)
        if found is not None:
            yield Step(READING, shape[0], shape[0])
        return found

    def fill(self, parts: Sequence[Rows], features: FeatureArray) -> Steps[list[Rows]]:
        """Fill `features` of the parts that are kept, and return the others."""
        if self.key is None or not any(self.folder.glob(f"{self.key}_*")):
            return list(parts)
        said = f"A part of the kept features of {self.name} was damaged and is computed again."
        missing, done = [], 0
        for rows in parts:
            entry = kept.find(self.folder, self._of_part(rows))
            shape = len(rows), features.shape[1]
            found = None if entry is None else (yield from self._read(entry, shape, said))
            if found is None:
                missing.append(rows)
                continue
            features[rows] = found
            done += len(rows)
            yield Step(READING_KEPT, done, len(features))
        return missing

    def make_room(self, spots: int, shape: tuple[int, ...]) -> str | None:
        """Delete features of other slides that those of `spots` more of this one leave no room for.

        Parts of this slide stay, whatever their size.

        Returns
        -------
        A sentence where the features of this slide, of `shape`, are more than may stay of all.
        """
        if self.key is None:
            return None
        kept.make_room(self.folder, self.most, self.key, coming=4 * spots * shape[1])
        size = 4 * shape[0] * shape[1]
        if size <= self.most:
            return None
        return (
            f"The features of {self.name} take about {data_size(size)}, and {data_size(self.most)} of all "
            "slides are kept: they stay until those of the next slide are kept. Set "
            f"{kept.variable_of('features')}={math.ceil(1.1 * size / 1e9)} in the environment to keep more."
        )

    def keep_part(self, rows: Rows, features: FeatureArray) -> str | None:
        """Keep the features of one part, unless they are no numbers; return a sentence where that failed."""
        if self.key is None or not np.isfinite(part := features[rows]).all():
            return None
        if finish(kept.keep_array(part, self.folder, self._of_part(rows), _KEEPING)) is not None:
            return None
        return (
            f"Features of {self.name} could not be kept in {self.folder}, so that a run that is cancelled "
            "computes them again; free space there, or see that it may be written."
        )

    def keep(self, features: FeatureArray) -> Steps[None]:
        """Keep the features of all spots in place of those of parts, and make room for them.

        Where the cache cannot be written, the next run is slower and nothing else.
        """
        if self.key is None:
            return
        if (yield from kept.keep_array(features, self.folder, self.key, _KEEPING)) is not None:
            for part in self.folder.glob(f"{self.key}_*"):
                kept.discard(part)
            kept.make_room(self.folder, self.most, self.key)

    def _of_part(self, rows: Rows) -> str:
        """Return what a part is kept under; another version may lay parts in another way."""
        return f"{self.key}_{hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest()[:16]}"

    def _read(self, entry: Path, shape: tuple[int, int], damaged: str) -> Steps[FeatureArray | None]:
        stored = yield from kept.read_array(entry, READING_KEPT)
        if stored is not None and stored.shape == shape and stored.dtype == np.float32:
            found = scratch.empty(shape, np.float32)
            found[:] = stored
            if _are_numbers(found):
                return found
            del found
        del stored  # an open file stays, on systems that mind
        if not entry.exists():  # another process made room
            return None
        kept.discard(entry)
        yield Step(READING, 0, shape[0], notice=damaged)
        return None
