"""Where results go: never over someone's file, and never lost for want of a place."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.results import check_writable, write_prediction

if TYPE_CHECKING:
    from anndata import AnnData


def check_place(path: Path, overwrite: bool, is_same: Callable[[], bool]) -> bool:
    """Make sure, before any work, that `path` may and can be written.

    Parameters
    ----------
    path
        The file to be.
    overwrite
        The user allowed any file to be replaced.
    is_same
        Asked only where there is a file: whether it is the result of the very same command, so
        that nothing is lost by replacing it.

    Returns
    -------
    bool
        Whether an earlier result of the same command will be replaced.
    """
    replaces = path.is_file() and not overwrite and is_same()
    if path.is_file() and not overwrite and not replaces:
        raise UserError(
            f"{path} already exists and is not a result of this very command; give another --out, "
            "or add --overwrite to replace it."
        )
    check_writable(path)
    return replaces


def make_folder(folder: Path) -> None:
    """Make `folder` where it is not there yet.

    Raises
    ------
    UserError
        When it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be made ({error.strerror}); choose another --out."
        ) from error


def made_by(path: Path, command: str, weights_sha256: str) -> bool:
    """Tell whether `path` is a prediction of the same command with the same weights."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            made = file["uns"][keys.PROVENANCE]
            stored = [made[key].asstr()[()] for key in (keys.COMMAND, keys.WEIGHTS_HASH)]
    except (OSError, KeyError, TypeError, AttributeError):
        return False
    return stored == [command, weights_sha256]


def write_or_rescue(adata: "AnnData", path: Path) -> None:
    """Write a prediction; if its place fails after all, keep the work in the temporary folder."""
    try:
        write_prediction(adata, path)
    except UserError as error:
        folder = Path(tempfile.mkdtemp(prefix="napari-flag-"))
        rescued = folder / path.name
        try:
            write_prediction(adata, rescued)
        except UserError:
            folder.rmdir()
            raise error from None
        raise UserError(
            f"{str(error).split(';')[0]}, so the prediction was kept as {rescued}; move it to "
            "where you want it."
        ) from error
