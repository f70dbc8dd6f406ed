"""Measured expression: raw counts of spots, from whatever file holds them."""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError

if TYPE_CHECKING:
    from anndata import AnnData

GENE_IDS: Final = "gene_ids"
"""``var`` column of Ensembl ids, kept beside the symbols in ``var_names``."""
EXPECTED: Final = "one row per spot and one column per gene, with whole numbers in it"


def read_count_table(path: Path) -> "AnnData":
    """Read raw counts from a legacy ST table.

    Parameters
    ----------
    path
        ``.tsv`` or ``.csv``, also gzipped: one row per spot (``10x13``), one column per gene.

    Returns
    -------
    AnnData of csr float32 counts; ``obs_names`` are the spot ids as written.
    """
    import pandas

    header, _, body = read_bytes(path).partition(b"\n")
    separator = separator_of(header)
    genes = [name.strip().strip('"') for name in header.decode("utf-8-sig").split(separator)]
    try:
        frame = pandas.read_csv(io.BytesIO(body), sep=separator, header=None, index_col=0)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} is not a table of counts ({error}); it should have {EXPECTED}."
        ) from error
    genes = genes[1:] if len(genes) == frame.shape[1] + 1 else genes
    values = frame.to_numpy()
    if values.size == 0 or len(genes) != values.shape[1]:
        raise UserError(
            f"{path.name} has {len(genes)} gene names over {values.shape[1]} columns of counts, so "
            f"it is no table of counts; it should have {EXPECTED}."
        )
    if values.dtype.kind not in "iufb":
        raise UserError(f"{path.name} holds text where counts should be; it should have {EXPECTED}.")
    refuse_not_counts(path, values)
    return counts([str(i) for i in frame.index], genes, values)


def separator_of(header: bytes) -> str:
    """Return what separates the columns of a table: tab, comma or (as some Excels do) semicolon."""
    return max(("\t", ",", ";"), key=lambda mark: header.count(mark.encode()))


def counts(ids: Sequence[str], genes: Sequence[str], values: Any) -> "AnnData":
    """Return csr float32 `values` (spots, genes) with gene names made unique as scanpy does."""
    import anndata
    from scipy import sparse

    adata = anndata.AnnData(sparse.csr_matrix(values, dtype=np.float32))
    adata.obs_names = list(ids)
    adata.var_names = list(genes)
    adata.var_names_make_unique()
    return adata


def refuse_not_counts(path: Path, values: npt.NDArray[Any]) -> None:
    """Refuse values that cannot be raw counts: empty cells, negative numbers."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path.name} has empty cells where counts should be; it should have {EXPECTED}.")
    if values.size and values.min() < 0:
        raise UserError(
            f"{path.name} holds negative numbers, so these are not raw counts; choose the table of "
            "raw counts."
        )


def read_bytes(path: Path) -> bytes:
    """Return the (unzipped) bytes of a table."""
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            return bytes(stream.read())
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path.name} could not be read ({error}), so it is damaged or incomplete; copy it again."
        ) from error
