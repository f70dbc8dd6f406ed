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
``.csv``       its heading; of the values of spots, whose columns are not known, the first of it
``.png``       ``Software`` is napari-flag; in ``.svg`` and ``.pdf`` ``Creator``
weights        metadata of that name in the header of the safetensors; gene vectors too
=============  =====================================================================================

All but tables (``.csv``, ``.tex``), pictures and weights state a digest of the rest too (`files.seal`): what
was changed since it was written stays.  Files of earlier versions state none.  An empty file may be replaced
by anyone.
"""

import csv
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from napari_flag import keys, prediction_file
from napari_flag.errors import UserError
from napari_flag.exports import spatial_data
from napari_flag.files import (
    UNSEALED,
    check_writable,
    ending,
    ends_of,
    is_sealed,
    is_sealed_store,
    parse_json,
    read_text,
    safe_cell,
    sha256_of,
)
from napari_flag.formatting import first_of
from napari_flag.prediction_file import is_prediction, made_by

GENERATOR: Final = "napari-flag"
HEADINGS: Final = (
    "spot,x_px,y_px,", "gene,pcc,cpcc,", "model,PCC,", "name,status,seconds,", "numbers_of,group,method,"
)  # fmt: skip
"""How the tables of `exports`, `compare`, of several models, of many slides and of scores begin."""
STATING: Final = (".h5ad", ".zarr", ".html", ".tif", ".tiff", ".geojson", ".json", ".md")
"""What states a digest of its content."""
TABLES_HASH: Final = "tables_sha256"
"""In the scores of `compare`: the tables beside them, by name."""
_LONGEST_HEADING: Final = 4_000_000
"""Letters of the first line of a table; 100,000 names of genes have a million."""
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
    """Return whether a file or folder is this program's own and was not changed since, or is empty.

    A file of an earlier version, which does not say what it held, counts as its own.
    """
    if path.is_dir():
        return spatial_data.written_here(path) and is_unchanged(path) is not False
    if not path.is_file():
        return False
    ends = _ends_of(path)
    if ends is None:
        return False
    return ends == (b"", b"") or (_marked(path, *ends) and is_unchanged(path) is not False)


def is_unchanged(path: Path) -> bool | None:
    """Return whether a file of ours, or a zarr, is as it was written; None where it does not say."""
    kind = ending(path)
    if kind not in STATING:
        return None
    try:
        if path.is_dir():
            return is_sealed_store(path)
        return prediction_file.is_unchanged(path) if kind == ".h5ad" else is_sealed(path)
    except (UserError, OSError):
        return False


def _ends_of(path: Path) -> tuple[bytes, bytes] | None:
    """Return the first and last bytes of a file; None where it cannot be read."""
    try:
        return ends_of(path)
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


def repeats_beside(table: Path, scores: Path, identity: str) -> bool:
    """Return whether a table is as the scores beside it say that the command of this hash wrote it."""
    try:
        stated = parse_json(read_text(scores))[TABLES_HASH][table.name]
        return repeats(scores, identity) and is_unchanged(scores) is True and sha256_of(table) == stated
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return False


def refuse_columns(path: Path, known: Iterable[str]) -> None:
    """Raise a `UserError` where the table at `path` has a column that is none of `known`.

    The values of spots state nothing of what wrote them, so that a column more is a person's.
    """
    if ending(path) != ".csv" or not path.is_file() or not path.stat().st_size:
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        heading = next(csv.reader(iter([stream.readline(_LONGEST_HEADING)])), [])
    ours = {str(safe_cell(name)) for name in known}
    other = [name for name in heading if name not in ours]
    if other:
        raise UserError(
            f"{path} has columns that this export would not write ({first_of(other, 3)}), so it is not "
            "replaced; choose another place, or delete it first."
        )


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


SEALED_LINE: Final = f"<!-- {keys.CONTENT_HASH}: {UNSEALED} -->\n"
"""Of a page of Markdown: where it states the digest of the rest, not shown."""


def refuse_foreign(path: Path) -> None:
    """Raise a `UserError` where something is at `path` that this program did not write."""
    if (path.exists() or path.is_symlink()) and not written_here(path):
        raise UserError(
            f"{path} was not written by napari-flag (or was changed since), so it is not replaced; choose "
            "another place, or delete it first."
        )


def _is_whole(path: Path) -> bool:
    """Return whether what is at `path` says that it was not changed; what can say nothing counts."""
    return ending(path) not in STATING or is_unchanged(path) is True


def refuse_inside_zarr(path: Path, elsewhere: str = "another place") -> None:
    """Refuse a place inside a zarr, into which nothing but a table comes (`spatial_data.add_prediction`)."""
    for holder in path.resolve().parents:
        if ending(holder) == ".zarr" or any((holder / name).is_file() for name in spatial_data.METADATA):
            raise UserError(f"{path} lies inside the zarr {holder.name}; choose {elsewhere}.")


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
        When the source itself is there, something else without `overwrite`, another program's or what was
        changed since it was written, nothing can be written there, or it lies inside a zarr.
    """
    refuse_inside_zarr(path, elsewhere)
    is_store = path.is_dir() and ending(path) == ".zarr"  # a file in all but the form
    there = path.is_file() or is_store
    holders = () if source is None or not there else (source.absolute(), *source.absolute().parents)
    if any(holder.exists() and path.samefile(holder) for holder in holders):
        raise UserError(f"{path} is the prediction itself; choose another place.")
    is_ours = there and not overwrite and is_same is not None and is_same()
    replaces = is_ours and _is_whole(path)
    if is_ours and not replaces:
        refuse_foreign(path)
    if there and not overwrite and not replaces:
        unlike = " and is not a result of this very command on the files as they are now"
        unsaid = " and does not say whether it was changed since it was written"
        what = "" if is_same is None else unsaid if is_ours else unlike
        raise UserError(
            f"{path} already exists{what}; choose {elsewhere}, or add --overwrite (in Python "
            "overwrite=True) to replace it."
        )
    if there or not path.is_dir():  # that it is a folder is said below
        refuse_foreign(path)
    if not is_store:
        check_writable(path, folder_is_made=True)
    return replaces
