"""AnnData as it is stored, in an ``.h5ad`` or as a table of a zarr, read piece by piece.

Only what is needed is read, so that a file with unusual other content opens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from napari_flag.errors import UserError
from napari_flag.scratch import refuse_beyond_memory
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    MOST_PER_BYTE,
    MOST_READ_PER_BYTE,
    checked,
    opened_h5,
    refuse_inflated,
    stated_size,
)

T = TypeVar("T")

COUNTS_IN: Final = (("layers/counts", "var"), ("X", "var"), ("raw/X", "raw/var"))
"""Where raw counts may be, and the genes they are of."""
COPIES: Final = 2.5
"""Of an array, while it is read, checked and made sparse: measured on a dense matrix."""
PEEKED: Final = 1_000_000
"""Values looked at to tell counts from other values before a whole matrix is read."""


class H5ad:
    """One open ``.h5ad`` file, read piece by piece."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file, self.path = file, path

    def frame(self, key: str) -> Any:
        """Return ``obs`` or ``var`` as a DataFrame."""
        from anndata.io import read_elem

        with damage_said(self.path):
            self._refuse_large(key, MOST_PER_BYTE)
            found = read_elem(self.file[key])
            if not hasattr(found, "columns"):
                raise ValueError(f"{key} is no table")
            if not found.columns.is_unique:
                raise ValueError(f"{key} names a column twice")
            if "" in found.index:
                raise ValueError(f"{key} has rows without a name")
        return found

    def values(self, key: str) -> Any:
        """Return a dense or sparse matrix, whose indices were checked; None when there is none."""
        from anndata.io import read_elem

        with damage_said(self.path):
            if key not in self.file:
                return None
            self._refuse_large(key, MOST_READ_PER_BYTE)
            return checked(read_elem(self.file[key]))

    def _refuse_large(self, key: str, most_per_byte: int) -> None:
        """Refuse what states more than its bytes can hold, or takes more memory than is free."""
        refuse_inflated(self.file[key], most_per_byte)
        refuse_beyond_memory(
            COPIES * stated_size(self.file[key]),
            f"Reading {key} of {self.path.name}",
            "close other programs, or leave out spots and genes that are not needed",
        )

    def first_values(self, key: str) -> Any:
        """Return the first `PEEKED` stored values of a dense or sparse matrix; None when there is none."""
        with damage_said(self.path):
            if key not in self.file:
                return None
            stored = self.file[key]
            if hasattr(stored, "shape"):
                return stored[: max(PEEKED // max(stored.shape[-1], 1), 1)]
            return stored["data"][:PEEKED]


def with_file(path: Path, use: Callable[[H5ad], T]) -> T:
    """Return what `use` reads of an open ``.h5ad``; what is damaged is a `UserError`."""
    with damage_said(path), opened_h5(path) as file:
        if "obs" not in file or "var" not in file:
            raise UserError(f"{path.name} has no obs or var, so it is no AnnData file; choose an .h5ad file.")
        return use(H5ad(file, path))


@contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """Raise what h5py, zarr and anndata raise on a damaged file, or table of a zarr, as a `UserError`."""
    # anndata gives this error no public name; it means an encoding newer than the installed anndata.
    from anndata._io.specs.registry import IORegistryError

    try:
        yield
    except (*DAMAGED, IORegistryError) as error:
        raise UserError(
            f"{path.name} could not be read as an AnnData file ({error}), so it is damaged or of "
            "an unknown version; write it again with a current anndata."
        ) from error


def refuse_plain_zarr(path: Path) -> None:
    """Raise a `UserError` where a folder is an AnnData stored as a zarr of its own, which is not read."""
    if (path / "obs").is_dir() and any((path / name).is_file() for name in (".zgroup", "zarr.json")):
        raise UserError(
            f"{path.name} is an AnnData stored as zarr, which is read as a table of a SpatialData zarr only; "
            "write it as .h5ad (write_h5ad of anndata)."
        )


def starts_with_counts(h5ad: H5ad) -> bool:
    """Return whether `raw_counts` would find any, by the first values of each matrix."""
    found = (h5ad.first_values(key) for key, _ in COUNTS_IN)
    return any(values is not None and are_counts(values) for values in found)


def are_counts(values: Any) -> bool:
    """Return whether a dense or sparse matrix holds whole numbers from 0 on, and nothing else (no truths)."""
    stored = np.asarray(values.data if hasattr(values, "indptr") else values)
    if stored.dtype.kind not in "iuf" or stored.size == 0:
        return False
    whole = np.isfinite(stored).all() and stored.min() >= 0 and (stored == np.rint(stored)).all()
    return bool(whole)
