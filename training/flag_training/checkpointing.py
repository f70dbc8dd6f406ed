"""Atomic training states: what a killed run resumes from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from napari_flag.errors import UserError


def save_state(path: Path, modules: Mapping[str, Any], config: Mapping[str, Any], step: int) -> None:
    """Write `modules` (anything with ``state_dict``) after `step` steps, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    states = {name: module.state_dict() for name, module in modules.items()}
    partial = path.with_suffix(".partial")
    torch.save({"states": states, "config": _canonical(config), "step": step}, partial)
    os.replace(partial, path)


def load_state(path: Path, modules: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Load `modules` from `path` and return the step to go on from; 0 when there is no file.

    Raises
    ------
    UserError
        When the file is damaged or was written by a run with other values.
    """
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        states, step = saved["states"], int(saved["step"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        raise UserError(
            f"The training state {path} is damaged, so the run cannot go on from it; "
            "delete it to start this stage again."
        ) from error
    if saved["config"] != _canonical(config):
        raise UserError(
            f"The training state {path} belongs to a run with other settings, so the run cannot "
            "go on from it; choose another run folder, or delete the file to start again."
        )
    for name, module in modules.items():
        module.load_state_dict(states[name])
    return step


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)
