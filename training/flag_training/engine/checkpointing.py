"""Atomic training states: what a killed run resumes from, and the one before it.

Every draw of a training is keyed by its seed and step, so the step in the file is all there is to know
of the random numbers: a run that goes on draws what it would have drawn.
"""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from napari_flag.errors import UserError
from napari_flag.files import parse_json, refuse_special, replacing

_DAMAGED: Final = (
    OSError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, UnpicklingError, BadZipFile, struct.error, zlib.error,
)  # fmt: skip
"""What Python and PyTorch raise of an archive or a pickle that was changed."""


def save_state(path: Path, modules: Mapping[str, Any], config: Mapping[str, Any], step: int) -> None:
    """Write `modules` (anything with ``state_dict``) after `step` steps, whole or not at all.

    The state that was there is kept as `previous_of` it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    states = {name: module.state_dict() for name, module in modules.items()}
    with replacing(path) as place:
        torch.save({"states": states, "config": _canonical(config), "step": step}, place)
        if path.exists():
            _keep(path)


def load_state(path: Path, modules: Mapping[str, Any], config: Mapping[str, Any], steps: int) -> int:
    """Load `modules` from `path` and return the step to resume at; 0 when there is no file.

    Parameters
    ----------
    path, modules, config
        As of `save_state`.
    steps
        Those of the whole training, which a state cannot be beyond.

    Raises
    ------
    UserError
        When the file is damaged, or was written by a run with other values or another version.
    """
    if not path.exists():
        return 0
    saved = _read(path)
    if saved is None or saved["step"] > steps:
        raise UserError(_say_damaged(path))
    if saved["config"] != _canonical(config):
        raise UserError(
            f"The training state {path} belongs to a run with other settings "
            f"({_differences(saved['config'], config)}), so the run cannot resume from it; choose another "
            "run folder, or delete the file to start again."
        )
    try:
        for name, module in modules.items():
            _refuse_kinds(saved["states"][name], module.state_dict())
            module.load_state_dict(saved["states"][name])
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"The training state {path} was written by another version of napari-flag "
            f"({next(iter(str(error).splitlines()), 'unlike')}), so the run cannot resume from it; delete "
            "the file to start this stage again."
        ) from error
    step: int = saved["step"]
    return step


def _refuse_kinds(state: Any, own: Any) -> None:
    """Raise a `TypeError` where what was saved is of another kind than what it is to replace.

    What is not there yet, such as the moments of an optimiser before its first step, may be of any.
    """
    if isinstance(own, Mapping) and isinstance(state, Mapping):
        for name in own.keys() & state.keys():
            _refuse_kinds(state[name], own[name])
    elif isinstance(own, list | tuple) and isinstance(state, list | tuple) and len(own) == len(state):
        for value, before in zip(state, own, strict=True):
            _refuse_kinds(value, before)
    elif isinstance(own, Tensor) and isinstance(state, Tensor):
        if state.dtype != own.dtype:
            raise TypeError(f"values are {state.dtype} there and {own.dtype} here")
    elif own is not None and _kind(state) is not _kind(own):
        raise TypeError(f"a {type(state).__name__} is there in place of a {type(own).__name__}")


def _kind(value: Any) -> type:
    """Return the type of a value; a whole number is a number."""
    return float if type(value) is int else type(value)


def previous_of(path: Path) -> Path:
    """Return where the state saved before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def use_previous(run: Path) -> tuple[Path, ...]:
    """Put the previous state in the place of every damaged one below `run`, and return those places.

    Sound states stay; a damaged one is renamed to ``….damaged``.
    """
    replaced = []
    for previous in sorted(run.rglob("*.previous.pt")):
        path = previous.with_name(previous.name.replace(".previous.pt", ".pt"))
        if path.exists() and _read(path) is None and _read(previous) is not None:
            os.replace(path, path.with_suffix(".damaged"))
            os.replace(previous, path)
            replaced.append(path)
    return tuple(replaced)


def _keep(path: Path) -> None:
    """Keep `path` as the previous state without a moment in which neither is there."""
    with replacing(previous_of(path)) as place:
        try:
            os.link(path, place)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, place)


def _read(path: Path) -> dict[str, Any] | None:
    """Return what `path` holds; None when it is damaged, be it by a single bit.

    Raises
    ------
    UserError
        When it is a pipe or a device.
    """
    refuse_special(path)
    try:
        with ZipFile(path) as archive:
            if not _is_plain(archive, path) or archive.testzip() is not None:  # PyTorch compares no checksums
                return None
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return saved if _is_state(saved) else None
    except _DAMAGED:
        return None


def _is_plain(archive: ZipFile, path: Path) -> bool:
    """Return whether nothing in an archive is compressed, as PyTorch writes it, or larger than the file."""
    entries = archive.infolist()
    stored = all(one.compress_type == ZIP_STORED and one.compress_size == one.file_size for one in entries)
    return stored and sum(one.file_size for one in entries) <= path.stat().st_size


def _is_state(saved: Any) -> bool:
    """Return whether `saved` is what `save_state` writes; its numbers are numbers, and the step is one."""
    return (
        isinstance(saved, dict)
        and {"states", "config", "step"} <= saved.keys()
        and isinstance(saved["config"], str)
        and isinstance(parse_json(saved["config"]), dict)
        and type(saved["step"]) is int
        and saved["step"] >= 0
        and isinstance(saved["states"], dict)
        and all(isinstance(state, dict) for state in saved["states"].values())
        and _is_sound(saved["states"])
    )


def _is_sound(states: dict[str, Any]) -> bool:
    """Return whether tensors are dense, as large as what is kept of them, and of numbers that are known."""
    waiting: list[Any] = [states]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                return False
            if value.untyped_storage().nbytes() < value.numel() * value.element_size():
                return False
            if not torch.isfinite(value).all():
                return False
        elif isinstance(value, dict | list | tuple):
            if id(value) not in seen:  # what holds itself, or the same thing many times over, is seen once
                seen.add(id(value))
                waiting += value.values() if isinstance(value, dict) else value
        elif not (value is None or isinstance(value, bool | int | float | str)):
            return False
    return True


def _say_damaged(path: Path) -> str:
    previous = previous_of(path)
    if previous.exists() and (saved := _read(previous)) is not None:
        return (
            f"The training state {path} is damaged, so the run cannot resume from it; the one saved before "
            f"it, after step {saved['step']}, is sound: add --use-previous to the command to resume from "
            "there, or delete both to start this stage again."
        )
    return (
        f"The training state {path} is damaged, so the run cannot resume from it; "
        "delete it to start this stage again."
    )


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def _differences(saved: str, config: Mapping[str, Any]) -> str:
    """Say which values differ: "score_rate 0.001 there, 0.0005 here"."""
    there, here = json.loads(saved), json.loads(_canonical(config))
    names = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    return ", ".join(f"{key} {there.get(key)} there, {here.get(key)} here" for key in names)
