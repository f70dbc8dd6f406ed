"""Features of spots: tiles read, encoded in batches, and cached on disk."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from platformdirs import user_cache_path

from napari_flag.encoders.foundation.loader import FoundationEncoder
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.files import write_whole
from napari_flag.progress import Step, Steps
from napari_flag.slides.slide import Slide
from napari_flag.slides.tiles import read_tiles

FeatureArray = npt.NDArray[np.float32]

BATCH_CPU: Final = 4
"""Tiles per batch on the CPU: about a third of a second, so that Cancel takes effect at once."""
BATCH_CPU_FOUNDATION: Final = 1
"""A ViT-L takes about a second per tile on a core, a ViT-g four."""
BATCH_GPU: Final = 64
"""Tiles per batch on a GPU; halved when its memory runs out."""


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
            f"The GPU {name} was requested, but there are only {torch.cuda.device_count()}; "
            "choose a lower number."
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

    Returns
    -------
    (n, dim) float32.

    Raises
    ------
    UserError
        µm/px unknown or too coarse, a spot off the slide, or memory exhausted at one tile a batch.
    """
    place = _cache_file(slide, xy, encoder, encoder_hash, cache)
    kept = _read_cache(place, (len(xy), encoder.dim))
    if kept is not None:
        yield Step("Reading tiles", len(xy), len(xy), notice=None)
        return kept
    features = np.empty((len(xy), encoder.dim), np.float32)
    batch = first_batch(encoder, device)
    done = 0
    while done < len(xy):
        try:
            tiles = read_tiles(slide, xy[done:], size_px=encoder.tile_px, mpp=encoder.mpp, batch_size=batch)
            for tile_batch in tiles:
                features[done : done + len(tile_batch)] = encoder.encode(tile_batch)
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
    _write_cache(place, features)
    return features


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


def _cache_file(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    encoder: Encoder,
    encoder_hash: str,
    cache: Path | None,
) -> Path | None:
    """Name of the cache entry: slide (path, size, time), µm/px, spots, encoder."""
    try:
        stat = slide.path.stat()
    except OSError:  # a slide that is no file, e.g. a synthetic one
        return None
    digest = hashlib.sha256()
    identity = (str(slide.path.resolve()), stat.st_size, stat.st_mtime_ns, slide.size, slide.mpp)
    digest.update(repr((identity, encoder.name, encoder.tile_px, encoder.mpp, encoder_hash)).encode())
    digest.update(np.ascontiguousarray(xy, np.float64).tobytes())
    folder = cache if cache is not None else user_cache_path("napari-flag") / "features"
    return folder / f"{digest.hexdigest()[:32]}.npy"


def _read_cache(place: Path | None, shape: tuple[int, int]) -> FeatureArray | None:
    if place is None or not place.exists():
        return None
    try:
        kept: FeatureArray = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # a damaged entry is computed again
    return kept if kept.shape == shape and kept.dtype == np.float32 else None


def _write_cache(place: Path | None, features: FeatureArray) -> None:
    """Store `features`; where the cache cannot be written, the next run is slower and nothing else."""
    if place is None:
        return

    def write(part: Path) -> None:
        with part.open("wb") as file:  # an open file, as np.save appends .npy to other names
            np.save(file, features)

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, write)
    except (OSError, UserError):
        return
