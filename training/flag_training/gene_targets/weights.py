"""One tensor out of a model's weights file, without running anything the file brings along."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from napari_flag.errors import UserError


def read_tensors(path: Path, *names: str, inside: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of `path` called `names`, those that are there.

    Parameters
    ----------
    path
        ``.safetensors``, or a PyTorch file, which is read with ``weights_only=True``.
    names
        Names of tensors; a leading ``module.`` in the file (a model saved under data parallelism)
        does not count.
    inside
        Entry of the PyTorch file that holds the state dict; None where the file is one.

    Raises
    ------
    UserError
        When it is missing, damaged, or would run code.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names if name in file.keys()}  # noqa: SIM118
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state = saved if inside is None else saved[inside]
        plain = {key.removeprefix("module."): value for key, value in state.items()}
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError, SafetensorError) as error:
        raise UserError(
            f"The weights {path} cannot be read ({str(error).splitlines()[0]}), so they are missing, damaged "
            "or no plain weights file; get them again from the model's own repository."
        ) from error
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} holds no {inside or 'state dict'}, so it is not the model's weights file; check which "
            "file it is."
        ) from error
    return {name: plain[name] for name in names if name in plain}


def read_matrix(path: Path, *names: str, inside: str | None = None) -> Tensor:
    """Return the first of `names` that `path` holds, float32 (rows, d).

    Raises
    ------
    UserError
        As `read_tensors`, and when there is no such matrix.
    """
    found = read_tensors(path, *names, inside=inside)
    for name in names:
        if name in found and found[name].ndim == 2:
            return found[name].float()
    raise UserError(
        f"{path} has no matrix {names[0]}, so it is not the model's weights file; check which file it is."
    )


def refuse_short(matrix: Tensor, rows: int, path: Path) -> None:
    """Refuse a matrix with fewer than `rows` rows: weights and vocabulary are of different models."""
    if len(matrix) < rows:
        raise UserError(
            f"{path} has vectors of {len(matrix)} genes where the vocabulary beside it asks for {rows}; take "
            "both from the same model."
        )
