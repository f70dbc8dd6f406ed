"""Files that know their own hash: written whole or not at all, refused when a byte has changed."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps, finish

if TYPE_CHECKING:
    from torch import Tensor


PREPARE: Final = "run napari-flag prepare again with the same source and --out"
"""How a remedy that makes something anew ends."""
_OWN: Final = "sha256"
_BLOCK: Final = 32 * 2**20
"""Bytes hashed between two steps: well under half a second from any disk worth training from."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, and move what was written there to `path` once it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_record(path: Path, body: Mapping[str, Any]) -> None:
    """Write `body` as JSON with its own hash in it; the same body gives the same bytes."""
    told = {_OWN: _hash(body), **body}
    with replacing(path) as partial:
        partial.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Parameters
    ----------
    path
        The file.
    remedy
        What to do when it is missing or damaged, as the end of a sentence.

    Raises
    ------
    UserError
        When it is missing or not what was written.
    """
    try:
        body = json.loads(path.read_text("utf-8"))
        told = body.pop(_OWN)
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}; {remedy}") from error
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is damaged (it is no record of a store); {remedy}") from error
    if told != _hash(body):
        raise UserError(f"{path} is damaged (its contents do not have the hash it states); {remedy}")
    return dict(body)


def describe_file(path: Path, stage: str = "Hashing files") -> Steps[dict[str, Any]]:
    """Return ``{"bytes": …, "sha256": …}`` of a file."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            yield Step(stage, done >> 20, total >> 20, "MB")
    return {"bytes": total, "sha256": digest.hexdigest()}


def _hash(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


WEIGHTS: Final = "encoders"
"""Folder of a store."""
_AGAIN: Final = f"delete both and {PREPARE}."


def write_weights(store: Path, encoder: Encoder, tensors: Mapping[str, "Tensor"]) -> Steps[None]:
    """Keep `tensors`, the weights of `encoder`; nothing where everyone can get them.

    Raises
    ------
    UserError
        When the store has features of other weights of that name.
    """
    if not tensors:
        return
    from safetensors.torch import save_file

    path = store / WEIGHTS / f"{encoder.name}.safetensors"
    record = path.with_suffix(".json")
    if record.exists():
        if read_record(record, _AGAIN)["fingerprint"] != encoder.fingerprint:
            raise UserError(
                f"{store} holds features of other weights of the {encoder.name} encoder; give those again "
                "with --weights, or make another store."
            )
        return
    with replacing(path) as partial:
        save_file({key: tensors[key].contiguous() for key in sorted(tensors)}, partial)
    write_record(record, {"fingerprint": encoder.fingerprint, "file": (yield from describe_file(path))})


def read_weights(store: Path, name: str) -> "dict[str, Tensor]":
    """Return the weights of the encoder `name` that a store keeps; {} of one everyone can get.

    Raises
    ------
    UserError
        When they are damaged.
    """
    path = store / WEIGHTS / f"{name}.json"
    if not path.exists():
        return {}
    from safetensors.torch import load_file

    weights, told = path.with_suffix(".safetensors"), read_record(path, _AGAIN)["file"]
    if not weights.exists() or finish(describe_file(weights)) != told:
        raise UserError(f"{weights} is damaged (it does not have the hash it was stored with); {_AGAIN}")
    return dict(load_file(weights))
