"""Which files this program wrote and may replace: known by a mark in the file, never by its name.

=============  =====================================================================================
``.h5ad``      ``uns["napari_flag"]``, the provenance of every prediction
``.zarr``      a table with that provenance, and no element or file beside what an export writes
``.html``      ``<meta name="generator" content="napari-flag …">``
``.tif``       the OME-XML of a prediction, which says "Research use only, not for diagnosis."
``.geojson``   ``"generator": "napari-flag …"`` beside its features
``.json``      ``"use": "Research use only, not for diagnosis."``; of scores, their command at the head
``.md``        that sentence as its last line; of tables of scores, what wrote them at the head
``.tex``       the same, as a comment
``.csv``       the first columns of its heading, in their order
``.png``       ``Software`` is napari-flag; in ``.svg`` and ``.pdf`` ``Creator``
weights        metadata of that name in the header of the safetensors; gene vectors too
=============  =====================================================================================

An empty file may be replaced by anyone.  What another program changed and saved again has lost the mark, and
stays.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.exports import spatial_data
from napari_flag.files import check_writable, ending, parse_json, read_text
from napari_flag.prediction_file import is_prediction, made_by

GENERATOR: Final = "napari-flag"
HEADINGS: Final = (
    "spot,x_px,y_px,", "gene,pcc,cpcc,", "model,PCC,", "name,status,seconds,", "numbers_of,group,method,"
)  # fmt: skip
"""How the tables of `exports`, `compare`, of several models, of many slides and of scores begin."""
_ENDS: Final = 65_536
"""Bytes read at either end of a file; a PDF names its creator before a list of its objects."""
_STATED: Final = {
    ".html": f'<meta name="{keys.COMMAND_HASH}" content="{{}}">',
    ".geojson": f'"{keys.COMMAND_HASH}": "{{}}"',
    ".tif": f"{keys.COMMAND_HASH}: {{}}",
    ".tiff": f"{keys.COMMAND_HASH}: {{}}",
}
"""How files that hold no provenance state the hash of the command that made them."""
_PICTURES: Final = {
    ".png": f"Software\0{GENERATOR} ",
    ".svg": f"<dc:title>{GENERATOR} ",
    ".pdf": f"/Creator ({GENERATOR} ",
}
"""What stands in a picture of `figures`."""


def written_here(path: Path) -> bool:
    """Return whether a file or folder is this program's own, or is empty."""
    if path.is_dir():
        return spatial_data.written_here(path)
    if not path.is_file():
        return False
    ends = _ends_of(path)
    return ends is not None and (ends == (b"", b"") or _marked(path, *ends))


def _ends_of(path: Path) -> tuple[bytes, bytes] | None:
    """Return the first and last bytes of a file; None where it cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_ENDS)
            stream.seek(max(path.stat().st_size - _ENDS, 0))
            return head, stream.read(_ENDS)
    except OSError:
        return None


def _marked(path: Path, head: bytes, tail: bytes) -> bool:
    use = keys.RESEARCH_USE_ONLY.encode()
    kind = ending(path)
    if kind == ".html":
        return f'<meta name="generator" content="{GENERATOR} '.encode() in head
    if kind in (".tif", ".tiff"):
        return (use in head or use in tail) and head[:2] in (b"II", b"MM")
    if kind == ".geojson":
        return f'"generator": "{GENERATOR} '.encode() in head
    if kind == ".json":
        stated = f'"use": "{keys.RESEARCH_USE_ONLY}"'.encode() in tail
        return stated or head.startswith(b'{\n  "command": "napari-flag ')
    if kind == ".md":
        return tail.rstrip().endswith(use) or b"\nWritten by `napari-flag tables` from:\n" in head
    if kind == ".tex":
        return head.startswith(b"% Written by napari-flag tables")
    if kind in _PICTURES:
        return _PICTURES[kind].encode() in head + tail
    if kind == ".safetensors":
        return head[8:].startswith(b'{"__metadata__":{"napari_flag":')
    if kind == ".csv":
        return head.decode("utf-8", "replace").startswith(HEADINGS)
    return is_prediction(path)


def repeats(path: Path, identity: str) -> bool:
    """Return whether the file at `path` states that the command of this hash made it (`keys.COMMAND_HASH`).

    Weights state it on their card, a page of tables in its last line, a zarr in its table; what states none
    is of another command.
    """
    from napari_flag.model.checkpoint import card_of

    if path.is_dir():
        return made_by(path / "tables" / spatial_data.TABLE, {keys.COMMAND_HASH: identity})
    kind = ending(path)
    if kind in _STATED:
        return statement(kind, identity).encode() in b"".join(_ends_of(path) or ())
    if kind == ".safetensors":
        return bool(card_of(path).get(keys.COMMAND_HASH) == identity)
    if kind not in (".json", ".md"):
        return made_by(path, {keys.COMMAND_HASH: identity})
    try:
        text = read_text(path)
        if kind == ".md":
            return text.endswith(last_line(identity))
        return bool(parse_json(text)[keys.COMMAND_HASH] == identity)
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return False


def repeating(path: Path, identity: str) -> Callable[[], bool] | None:
    """Return what asks whether the file at `path` is of this command (`repeats`), for `check_place`.

    None of a table (``.csv``), which has no room to state what made it.
    """
    return None if ending(path) == ".csv" else partial(repeats, path, identity)


def statement(kind: str, identity: str | None) -> str:
    """Return how a file of this ending states the hash of its command; nothing where there is none.

    It stands within the first bytes of the file, where `repeats` looks for it.
    """
    return "" if identity is None else _STATED[kind].format(identity)


def last_line(identity: str) -> str:
    """Return the line at the end of a page of Markdown that states the hash of its command, not shown."""
    return f"<!-- {keys.COMMAND_HASH}: {identity} -->\n"


def refuse_foreign(path: Path) -> None:
    """Raise a `UserError` where something is at `path` that this program did not write."""
    if (path.exists() or path.is_symlink()) and not written_here(path):
        raise UserError(
            f"{path} was not written by napari-flag (or was changed since), so it is not replaced; choose "
            "another place, or delete it first."
        )


def check_place(
    path: Path,
    overwrite: bool,
    is_same: Callable[[], bool] | None = None,
    *,
    source: Path | None = None,
    elsewhere: str = "another place",
) -> bool:
    """Make sure, before any work, that `path` may and can be written; its folder need not be there yet.

    Parameters
    ----------
    path
        The file, or the folder of a zarr, to be.
    overwrite
        The user allowed what this program wrote to be replaced.
    is_same
        Asked only where there is a file: whether it is the result of the very same command (`repeats`), so
        that nothing is lost by replacing it; None where that cannot be known.
    source
        The file, or the table of a zarr, that what is written is made of; it is never replaced.
    elsewhere
        What to choose instead.

    Returns
    -------
    bool
        Whether an earlier result of the same command will be replaced.

    Raises
    ------
    UserError
        When the source itself is there, something else without `overwrite`, or another program's, or nothing
        can be written there.
    """
    is_store = path.is_dir() and ending(path) == ".zarr"  # a file in all but the form
    there = path.is_file() or is_store
    holders = () if source is None or not there else (source.absolute(), *source.absolute().parents)
    if any(holder.exists() and path.samefile(holder) for holder in holders):
        raise UserError(f"{path} is the prediction itself; choose another place.")
    replaces = there and not overwrite and is_same is not None and is_same()
    if there and not overwrite and not replaces:
        unlike = " and is not a result of this very command on the files as they are now"
        what = "" if is_same is None else unlike
        raise UserError(
            f"{path} already exists{what}; choose {elsewhere}, or add --overwrite (in Python "
            "overwrite=True) to replace it."
        )
    if there or not path.is_dir():  # that it is a folder is said below
        refuse_foreign(path)
    if not is_store:
        check_writable(path, folder_is_made=True)
    return replaces
