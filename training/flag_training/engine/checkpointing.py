"""Atomic training states: what a killed run resumes from, and the one before it.

Every draw of a training is keyed by its seed and step, so the step in the file is all there is to know
of the random numbers: a run that goes on draws what it would have drawn.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from napari_flag.errors import UserError
from napari_flag.files import replacing


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


def load_state(path: Path, modules: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Load `modules` from `path` and return the step to resume at; 0 when there is no file.

    Raises
    ------
    UserError
        When the file is damaged, or was written by a run with other values or another version.
    """
    if not path.exists():
        return 0
    saved = _read(path)
    if saved is None:
        raise UserError(_say_damaged(path))
    if saved["config"] != _canonical(config):
        raise UserError(
            f"The training state {path} belongs to a run with other settings "
            f"({_differences(saved['config'], config)}), so the run cannot resume from it; choose another "
            "run folder, or delete the file to start again."
        )
    try:
        for name, module in modules.items():
            module.load_state_dict(saved["states"][name])
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The training state {path} was written by another version of napari-flag "
            f"({str(error).splitlines()[0]}), so the run cannot resume from it; delete the file to start "
            "this stage again."
        ) from error
    return int(saved["step"])


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
    """Return what `path` holds; None when it is damaged, be it by a single bit."""
    try:
        with ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch.load does not compare checksums
                return None
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError, BadZipFile):
        return None
    whole = isinstance(saved, dict) and {"states", "config", "step"} <= saved.keys()
    return saved if whole else None


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
