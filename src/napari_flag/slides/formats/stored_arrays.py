"""Arrays in HDF5 files, zarrs and parquet tables, checked before they are read or used.

A file states how large its arrays are and where the values of a sparse matrix belong.  Compiled code believes
it: an index outside the matrix reads memory that is not its own and ends the process.  Whatever reads such
files opens them with `opened_h5`, and takes sparse matrices from `checked` or `csr_of` only.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.files import refuse_special
from napari_flag.formatting import data_size, whole
from napari_flag.scratch import refuse_beyond_memory
from napari_flag.slides.formats.stored_zarr import refuse_bombs
from napari_flag.slides.formats.trial_reading import refuse_crashing

DAMAGED: Final = (
    OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError, SystemError,
)  # fmt: skip
"""What h5py, zarr and NumPy raise on a file that is not what it says: sizes (of 0 too), kinds, text for
numbers."""
MOST_PER_BYTE: Final = 2000
"""Bytes in memory per byte in the file: twice what deflate can reach; zeros of real counts give 100."""
MOST_READ_PER_BYTE: Final = 250
"""The same of an array whose values are read: with fewer than 1 value in 300 above zero none is dense."""
SMALL: Final = 2**28
"""Bytes up to which an array may be anything."""
MOST_NODES: Final = 10_000
"""Groups and arrays of one file; the largest known have some hundreds."""
DEEPEST: Final = 32
"""Groups within groups."""
COPIES: Final = 2.5
"""Of an array, while it is read, checked and made sparse or a table: measured on a dense matrix."""
MOST_LISTED: Final = 5_000_000
"""Rows of a parquet table of positions or shapes; Visium HD has 700,000 bins of 8 µm."""
MOST_ROWS: Final = 500_000_000
"""Values of a parquet table read whole, columns times rows."""


@contextmanager
def opened_h5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file to read; what it says of itself is checked first.

    Raises
    ------
    UserError
        When `path` is no regular file.
    ValueError
        As `refuse_inflated`, or when reading it ends a process.
    OSError
        When it cannot be opened.
    """
    import h5py

    refuse_special(path)
    refuse_crashing(path)
    with h5py.File(path, "r") as file:
        refuse_inflated(file)
        yield file


def refuse_inflated(node: Any, most_per_byte: int = MOST_PER_BYTE) -> None:
    """Check all arrays in a group of HDF5 or zarr, or one array, by what is stated of them.

    Of their values the texts of a zarr alone are read; its chunks are looked at.

    Parameters
    ----------
    node
        The group or array.
    most_per_byte
        Bytes in memory per byte in the file; above `SMALL`.

    Raises
    ------
    ValueError
        When an array would take far more memory than its bytes can hold, a chunk of a zarr unpacks to more
        than is stated, values lie in other files, or groups are nested without end.
    """
    for array, name in _arrays(node):
        _refuse_array(array, name, most_per_byte)


def stated_size(node: Any) -> int:
    """Return how many bytes all arrays in a group of HDF5 or zarr take once they are read; texts as pointers.

    Raises
    ------
    ValueError
        As `refuse_inflated` of groups without end.
    """
    return sum(_size(array) for array, _ in _arrays(node))


def _arrays(node: Any) -> Iterator[tuple[Any, str]]:
    seen = 0
    waiting: list[tuple[Any, str, int]] = [(node, "", 0)]
    while waiting:
        found, name, depth = waiting.pop()
        seen += 1
        if seen > MOST_NODES or depth > DEEPEST:
            raise ValueError("it has groups in groups without end")
        if hasattr(found, "shape"):
            yield found, name
            continue
        for key, inner in _members(found, name):
            waiting.append((inner, f"{name}/{key}", depth + 1))


def _members(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    import h5py

    if not isinstance(group, h5py.Group):
        yield from ((str(key), inner) for key, inner in group.members())
        return
    for key in group:
        link = group.get(key, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{name}/{key} is a link to something elsewhere, which is not followed")
        inner = group.get(key)
        if isinstance(inner, h5py.Group | h5py.Dataset):
            yield str(key), inner


def _refuse_array(array: Any, name: str, most_per_byte: int) -> None:
    size = _size(array)
    if getattr(array, "external", None) or getattr(array, "is_virtual", False):
        raise ValueError(f"the values of {name} lie in other files, which are not read")
    if not hasattr(array, "id"):
        refuse_bombs(array)
        if _is_text(array):
            _refuse_texts(array, name)
    if size <= SMALL:
        return
    stored = array.id.get_storage_size() if hasattr(array, "id") else array.nbytes_stored()
    if size > most_per_byte * max(int(stored), 1):
        raise ValueError(
            f"{name or 'it'} is said to hold {data_size(size)} and is stored in {data_size(int(stored))}, "
            "as almost nothing but zeros is"
        )


def _size(array: Any) -> int:
    return int(np.prod([float(side) for side in array.shape or ()])) * max(_bytes_each(array), 1)


def _bytes_each(array: Any) -> int:
    return int(getattr(np.dtype(array.dtype) if _has_numpy_type(array) else array.dtype, "itemsize", 8))


def _is_text(array: Any) -> bool:
    return not _has_numpy_type(array) or np.dtype(array.dtype).kind in "OT"


def _refuse_texts(array: Any, name: str) -> None:
    """Read the texts of a zarr: their stored bytes say once more how many there are, which may be a lie."""
    try:
        array[...]
    except MemoryError as error:
        raise ValueError(f"{name} is said to hold more texts than its bytes can") from error


def _has_numpy_type(array: Any) -> bool:
    try:
        np.dtype(array.dtype)
    except TypeError:  # text of zarr, which is no type of NumPy
        return False
    return True


def refuse_lost_chunks(stored: Any, positive: Iterable[str], may_be_zero: Iterable[str]) -> None:
    """Raise a `ValueError` where a chunk of an array of a zarr is not there, which zarr reads as zeros.

    Parameters
    ----------
    stored
        A `zarr.Group`; names that are no array of it are passed over.
    positive
        Names of arrays without a chunk of zeros alone, none of which may lack.
    may_be_zero
        Names of arrays with chunks of zeros, which zarr does not write, but not of zeros alone.
    """
    whole = set(positive)
    for name in (*whole, *may_be_zero):
        array = stored.get(name)
        if getattr(array, "nchunks", 0):
            there = array.nchunks_initialized
            if there < (array.nchunks if name in whole else 1):
                raise ValueError(f"{name} has {there} of its {array.nchunks} chunks")


def refuse_inflated_parquet(path: Path, most_rows: int | None = None, texts: bool = False) -> None:
    """Check how much a parquet file holds; runs of one value, and one text in many rows, take no room in it.

    Parameters
    ----------
    path
        The file.
    most_rows
        How many rows may be read.
    texts
        Whether its texts, and other bytes, are read whole too.  Each row group is then read as numbers and a
        list of different texts, which takes no more memory than is stated.

    Raises
    ------
    UserError
        When `path` is no regular file, or reading takes more memory than is free.
    ValueError
        When there are more than a table of spots can have, or the file is no parquet.
    """
    import pyarrow.parquet as parquet

    refuse_special(path)
    stated = parquet.read_metadata(path)
    values = stated.num_rows * stated.num_columns
    if values > MOST_ROWS:
        raise ValueError(f"it is said to hold {whole(values)} values")
    if most_rows is not None and stated.num_rows > most_rows:
        raise ValueError(f"it has {whole(stated.num_rows)} rows, where up to {whole(most_rows)} are read")
    if not texts:
        return
    instead = "close other programs, or leave out rows and columns that are not needed"
    # of whole groups: asked for a column whose statistics are damaged, pyarrow ends the process
    unpacked = sum(max(stated.row_group(i).total_byte_size, 0) for i in range(stated.num_row_groups))
    need = COPIES * (unpacked + 8 * values)
    refuse_beyond_memory(need, f"Reading {path.name}", instead)
    need += COPIES * _text_bytes(path)
    refuse_beyond_memory(need, f"Reading {path.name}", instead)


@contextmanager
def reading_parquet() -> Iterator[None]:
    """Make a `ValueError` of an error of pyarrow, which damage leads to, of no kind of Python's own."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        if isinstance(error, DAMAGED):
            raise
        raise ValueError(str(error)) from error


def _text_bytes(path: Path) -> int:
    """Return how many bytes the texts of a parquet file take once each row has its own."""
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    with parquet.ParquetFile(path) as file:
        fields = [field.name for field in file.schema_arrow if any(kind(field.type) for kind in kinds)]
    total = 0
    with parquet.ParquetFile(path, read_dictionary=fields) as file:
        for group in range(file.num_row_groups):
            for column in file.read_row_group(group, columns=fields).columns:
                for part in column.chunks:
                    lengths = compute.binary_length(part.dictionary).take(part.indices)
                    total += int(compute.sum(lengths).as_py() or 0)
    return total


def checked(values: Any) -> Any:
    """Return a dense or sparse matrix as it is, after making sure that its indices lead nowhere outside it.

    Parameters
    ----------
    values
        As `anndata` or SciPy read it; arrays of NumPy and anything that is no sparse matrix pass.

    Raises
    ------
    ValueError
        When an index is negative or beyond the matrix, rows begin after they end, or a place has two values.
    """
    from scipy import sparse

    if not sparse.issparse(values):
        return values
    if values.format in ("csr", "csc"):
        _refuse_pointers(values.data, values.indices, values.indptr, values.shape, values.format)
        values.check_format(full_check=True)
        if not values.has_canonical_format and _distinct(values) < len(values.indices):
            raise ValueError("a sparse matrix has several values for one place")
    elif values.format == "coo":
        for axis, side in enumerate(values.shape):
            at = values.coords[axis]
            if at.size and (at.min() < 0 or at.max() >= side):
                raise ValueError("a sparse matrix names places outside itself")
    return values


def _distinct(values: Any) -> int:
    """Return how many places of a csr or csc matrix have a value, whatever order they are stored in."""
    copy = values.copy()
    copy.sum_duplicates()
    return len(copy.indices)


def csr_of(data: Any, indices: Any, indptr: Any, shape: Sequence[int], dtype: Any = np.float32) -> Any:
    """Return the csr matrix that three arrays of a file describe, after making sure that they do.

    Parameters
    ----------
    data, indices, indptr
        As `scipy.sparse.csr_matrix` takes them.
    shape
        (rows, columns).
    dtype
        Of the values.

    Raises
    ------
    ValueError
        As `checked`.
    """
    from scipy import sparse

    data, indices, indptr = (np.asarray(part) for part in (data, indices, indptr))
    _refuse_pointers(data, indices, indptr, (int(shape[0]), int(shape[1])), "csr")
    return checked(sparse.csr_matrix((data.astype(dtype), indices, indptr), shape=tuple(shape)))


def _refuse_pointers(
    data: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
    shape: Sequence[int],
    kind: str,
) -> None:
    rows, columns = (shape[0], shape[1]) if kind == "csr" else (shape[1], shape[0])
    if {data.ndim, indices.ndim, indptr.ndim} != {1} or {indices.dtype.kind, indptr.dtype.kind} - {"i", "u"}:
        raise ValueError("a sparse matrix has indices that are no list of whole numbers")
    if data.dtype.kind not in "iufb":
        raise ValueError("a sparse matrix holds something else than numbers")
    if min(rows, columns) < 0 or len(indptr) != rows + 1 or len(indices) != len(data):
        raise ValueError("a sparse matrix has parts of different lengths")
    if indptr[0] != 0 or indptr[-1] > len(data) or (np.diff(indptr.astype(np.int64)) < 0).any():
        raise ValueError("a sparse matrix has rows that begin after they end")
    if len(indices) and (indices.min() < 0 or indices.max() >= columns):
        raise ValueError("a sparse matrix names places outside itself")
