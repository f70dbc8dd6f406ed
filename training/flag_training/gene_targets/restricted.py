"""Dictionaries of gene names, tokens and medians from ``.json`` or, without running its code, ``.pkl``.

Unpickling calls whatever the file names, so this reader allows three names only, with functions
of its own: a numpy number, that number's type, and its bytes as old pickles write them.  Geneformer's
dictionaries hold nothing else.
"""

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from torch import Tensor

from napari_flag.errors import UserError
from napari_flag.files import ending, parse_json, read_bytes, refuse_special
from napari_flag.formatting import counted, whole

Value = str | int | float

_FORMATS: Final = {
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip
"""numpy's name of a number's type → struct's."""


def read_dictionary(path: Path) -> dict[str, Value]:
    """Return the dictionary of text keys and text or number values that `path` holds.

    Parameters
    ----------
    path
        ``.json``, or ``.pkl`` of a dict of str, int, float and numpy numbers.

    Raises
    ------
    UserError
        When it is missing, damaged, no such dictionary, or loads anything else.
    """
    try:
        content = read_bytes(path)
        found = parse_json(content) if ending(path) == ".json" else _NumbersOnly(io.BytesIO(content)).load()
    except OSError as error:
        raise UserError(
            f"The dictionary {path} cannot be read ({error.strerror}); check the path."
        ) from error
    except _Refused as error:
        raise UserError(
            f"The dictionary {path} was not loaded because it loads {error}, and a dictionary of genes "
            "needs text and numbers only; take the file from the model's own repository, or save it as JSON."
        ) from error
    except _DAMAGE as error:
        raise UserError(f"The dictionary {path} is damaged ({error}); download it again.") from error
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, Value) for key, value in found.items()
    ):
        raise UserError(
            f"{path} holds no dictionary of gene names and values, so it is not one of the model's; "
            "check which file it is."
        )
    return found


class _Refused(Exception):
    """The pickle requests an object that is no number."""


_DAMAGE: Final = (
    pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
    struct.error, MemoryError, OverflowError,
)  # fmt: skip
"""What the unpickler raises on bytes that are no pickle."""


class _NumberType:
    """Stands for ``numpy.dtype``: keeps the name, and the byte order that the pickle sets after it."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or name not in _FORMATS:
            raise _Refused(f"numpy values of type {name!r}")
        self.format = "<" + _FORMATS[name]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.format = (">" if state[1] == ">" else "<") + self.format[1:]


def _number(kind: Any, content: Any) -> Value:
    """Stand for numpy's constructor of one number."""
    if not isinstance(kind, _NumberType) or not isinstance(content, bytes):
        raise _Refused("numpy values that are no numbers")
    value: Value = struct.unpack(kind.format, content)[0]
    return value


def _bytes(text: Any, encoding: Any = None) -> bytes:
    """Stand for ``codecs.encode``, by which pickles before protocol 3 write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("text in another encoding than bytes have")
    return text.encode("latin1")


class _NumbersOnly(pickle.Unpickler):
    """Loads containers, text and numbers; numpy's module moved, so both names are known."""

    _known: Final[dict[tuple[str, str], Callable[..., Any]]] = {
        ("numpy.core.multiarray", "scalar"): _number,
        ("numpy._core.multiarray", "scalar"): _number,
        ("numpy", "dtype"): _NumberType,
        ("_codecs", "encode"): _bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return our own stand-in for a numpy number, and nothing else."""
        try:
            return self._known[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to things outside the file."""
        raise _Refused("something outside the file")


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

    refuse_special(path)
    try:
        if ending(path) == ".safetensors":
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
            f"{path} has vectors of {counted(len(matrix), 'gene')} where the vocabulary beside it asks for "
            f"{whole(rows)}; take both from the same model."
        )
