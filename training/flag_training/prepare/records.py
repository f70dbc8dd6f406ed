"""Files that know their own hash: written whole or not at all, refused when a byte has changed."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

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
