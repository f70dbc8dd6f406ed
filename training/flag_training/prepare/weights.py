"""Weights of an encoder that a store keeps, because they must travel with what is trained on its features."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flag_training.prepare.records import PREPARE, describe_file, read_record, replacing, write_record
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.progress import Steps, finish

if TYPE_CHECKING:
    from torch import Tensor

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
