"""Raw counts of spots: text tables, h5 and MEX matrices; gene symbols and Ensembl ids."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import files
from napari_flag.errors import UserError
from napari_flag.formatting import counted, data_size, whole
from napari_flag.slides.formats.stored_arrays import DAMAGED, csr_of, opened_h5
from napari_flag.slides.formats.text_tables import (
    IDS,
    column_names,
    places_in,
    read_bytes,
    separator_of,
)

if TYPE_CHECKING:
    from anndata import AnnData


GENE_IDS: Final = "gene_ids"
"""``var`` column of Ensembl ids, next to the symbols in ``var_names``."""
REPEATED: Final = "repeated"
"""``var`` column: which genes stand over several columns of what was read; not there where none does."""
RESOLUTIONS: Final = "resolutions"
"""``uns`` key of counts whose ``obsm["spatial"]`` counts in an image with copies: px of each copy per px."""
MOST_COLUMNS: Final = 200_000
"""Columns of a table of counts: all transcripts of Ensembl; a million take minutes to tell apart."""
MOST_COUNT: Final = 2**24
"""Molecules of one gene in one spot: float32 holds every whole number up to it, real ones are thousands."""
EXPECTED: Final = "one row per spot and one column per gene, with whole numbers in it"
CORNERS: Final = frozenset({*IDS, "cell", "cell_id", "index", "rownames", "sample", "spots", "unnamed: 0"})
"""What the heading of a table of counts may say over the spots' ids, and no gene is called."""


def read_count_table(path: Path) -> "AnnData":
    """Read raw counts from a legacy ST table.

    Parameters
    ----------
    path
        ``.tsv`` or ``.csv``, also gzipped: one row per spot (``10x13``), one column per gene.

    Returns
    -------
    AnnData of csr float32 counts; ``obs_names`` are the spot ids as written.

    Raises
    ------
    UserError
        When the table holds anything else, such as positions of spots.
    """
    import pandas

    header, _, body = read_bytes(path).partition(b"\n")
    separator = separator_of(header)
    if (columns := header.count(separator.encode())) > MOST_COLUMNS:
        raise UserError(
            f"{path.name} has {whole(columns)} columns, more than there are genes (up to "
            f"{whole(MOST_COLUMNS)}), so it is no table of counts; it should have {EXPECTED}."
        )
    genes = [name.strip().strip('"') for name in header.decode("utf-8-sig").split(separator)]
    if (places := places_in(column_names(genes))) is not None:
        raise positions_not_counts(path, f"its columns {places[0]} and {places[1]} are pixels")
    try:
        frame = pandas.read_csv(
            io.BytesIO(body), sep=separator, header=None, index_col=0, converters={0: str.strip}
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} is not a table of counts ({error}); it should have {EXPECTED}."
        ) from error
    cornered = len(genes) == frame.shape[1] + 1
    genes = genes[1:] if cornered else genes
    values = frame.to_numpy()
    if values.size == 0 or len(genes) != values.shape[1]:
        raise UserError(
            f"{path.name} has {counted(len(genes), 'gene name')} over {counted(values.shape[1], 'column')} "
            f"of counts, so it is no table of counts; it should have {EXPECTED}."
        )
    if "" in genes or (not cornered and genes[0].casefold() in CORNERS):
        raise UserError(
            f"The heading of {path.name} leaves a column of counts without a gene, so it is not known which "
            "counts are of which gene; write the name of every gene over its column."
        )
    if values.dtype.kind not in "iuf":
        held = "True and False" if values.dtype.kind == "b" else "text"
        raise UserError(f"{path.name} holds {held} where counts should be; it should have {EXPECTED}.")
    refuse_not_counts(path, values)
    return counts([str(i) for i in frame.index], genes, values)


def positions_not_counts(path: Path, why: str) -> UserError:
    """Return the sentence on a file of spot positions that was given as counts; `why` it is one."""
    return UserError(
        f"{path.name} says where spots lie ({why}), so it is no table of counts; give it as the table of "
        f"spots, and as measured expression a table with {EXPECTED}."
    )


def counts(ids: Sequence[str], genes: Sequence[str], values: Any) -> "AnnData":
    """Return csr float32 `values` (spots, genes) with gene names made unique as scanpy does.

    Which genes are named several times is in ``var["repeated"]``.
    """
    import anndata
    from scipy import sparse

    adata = anndata.AnnData(sparse.csr_matrix(values, dtype=np.float32))
    adata.obs_names = list(ids)
    adata.var_names = list(genes)
    if (repeated := adata.var_names.duplicated(keep=False)).any():
        adata.var[REPEATED] = repeated
    adata.var_names_make_unique()
    return adata


def refuse_not_counts(path: Path, values: npt.NDArray[Any]) -> None:
    """Refuse values that cannot be raw counts: empty cells, negative numbers, more than a spot can hold."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise UserError(f"{path.name} has empty cells where counts should be; it should have {EXPECTED}.")
    if values.size and values.min() < 0:
        raise UserError(
            f"{path.name} holds negative numbers, so these are not raw counts; choose the table of "
            "raw counts."
        )
    if values.size and values.max() > MOST_COUNT:
        raise UserError(
            f"{path.name} holds {values.max():.4g} where a count should be, more than a spot has of any gene "
            f"(up to {whole(MOST_COUNT)}), so it is damaged; correct it, or copy the table again."
        )


def refuse_not_raw(path: Path, values: npt.NDArray[Any]) -> None:
    """Refuse values of points that are to be summed: what `refuse_not_counts` does, and fractions."""
    refuse_not_counts(path, values)
    if values.dtype.kind == "f" and (odd := values != np.rint(values)).any():
        raise UserError(
            f"{path.name} holds {values[odd][0]:.4g}, which is not a whole count, so it was already "
            "normalised or logged; give the raw counts."
        )


GENE_EXPRESSION: Final = "Gene Expression"
"""The kind of features that are genes, as Space Ranger and Cell Ranger write it."""
_GENES: Final = re.compile(
    r"|gene|genes|gene[ _-]?expression|expression|gex|m?rna|nan|none"
    r"|protein_coding|(li?nc|mi|sn|sno|sca|r|mt_r|mt_t|misc_|vault_|s)rna|antisense|tec|ribozyme|artifact"
    r"|(\w+_)?pseudogene|(ig|tr)_\w+_gene",
)
"""Kinds of features that are genes: one of a matrix, in any spelling, not stated, or Ensembl's biotypes."""


def is_gene(kind: str) -> bool:
    """Return whether a feature of this kind is a gene, and no antibody, guide, control or peak."""
    return _GENES.fullmatch(kind.strip().casefold()) is not None


def read_10x_h5(path: Path) -> "AnnData":
    """Read counts (spots, genes) from a 10x HDF5 file, of version 3 or the older per-genome layout.

    Only gene expression is kept (not antibodies); symbols are made unique, Ensembl ids are in
    ``var["gene_ids"]``.
    """
    try:
        with opened_h5(path) as file:
            return _from_h5(file, path)
    except DAMAGED as error:
        raise UserError(
            f"{path.name} could not be read as a 10x matrix ({error}), so it is damaged or another "
            "kind of HDF5 file; choose filtered_feature_bc_matrix.h5 of Space Ranger."
        ) from error


def is_10x_h5(file: Any) -> bool:
    """Return whether an open HDF5 file is a 10x matrix, of version 3 or of the older per-genome layout."""
    return "matrix" in file or bool(_genomes(file))


def _genomes(file: Any) -> list[str]:
    """Return the groups of the older layout, one a genome."""
    return [name for name, group in file.items() if hasattr(group, "keys") and "gene_names" in group]


def _from_h5(file: Any, path: Path) -> "AnnData":
    if "matrix" in file:
        group, features = file["matrix"], file["matrix/features"]
        ids, names = features["id"], features["name"]
        kinds = _strings(features["feature_type"]) if "feature_type" in features else None
    else:
        genomes = _genomes(file)
        if len(genomes) != 1:
            raise UserError(
                f"{path.name} holds {len(genomes)} genomes where one is expected; choose "
                "filtered_feature_bc_matrix.h5 of Space Ranger for one genome."
            )
        group = file[genomes[0]]
        ids, names, kinds = group["genes"], group["gene_names"], None
    genes, spots = _size_of(group, names)
    _refuse_lengths(genes, ids, names, kinds)
    # Stored by column as (genes, spots); the same arrays read by row are (spots, genes).
    values = csr_of(group["data"][:], group["indices"][:], group["indptr"][:], (spots, genes))
    return _expression(_strings(group["barcodes"]), _strings(ids), _strings(names), kinds, values)


def _size_of(group: Any, names: Any) -> tuple[int, int]:
    """Return how many features and barcodes a matrix states, which have to be those it names."""
    features, barcodes = (int(n) for n in group["shape"][:])
    named = len(names), len(group["barcodes"])
    if (features, barcodes) != named:
        raise ValueError(
            f"it states {counted(features, 'feature')} and {counted(barcodes, 'barcode')}, but names "
            f"{whole(named[0])} and {whole(named[1])}"
        )
    return features, barcodes


@dataclass(frozen=True, slots=True)
class ExpressionColumns:
    """Which features of a 10x HDF5 matrix are genes, without its counts.

    Parameters
    ----------
    genes
        Symbols, made unique as scanpy does.
    kept
        (genes,) int64, their places among the features.
    n_features, n_barcodes
        Size of the matrix.
    barcodes
        Of the cells or spots where they were asked for, else empty.
    """

    genes: tuple[str, ...]
    kept: npt.NDArray[np.int64]
    n_features: int
    n_barcodes: int
    barcodes: tuple[str, ...] = ()


def expression_columns(path: Path, *, barcodes: bool = False) -> ExpressionColumns:
    """Return which features of a 10x HDF5 file of version 3 are genes; its counts are not read."""
    try:
        with opened_h5(path) as file:
            group, features = file["matrix"], file["matrix/features"]
            names, kinds = _strings(features["name"]), _strings(features["feature_type"])
            n_features, n_barcodes = _size_of(group, names)
            _refuse_lengths(n_features, names, kinds)
            rows = tuple(_strings(group["barcodes"])) if barcodes else ()
    except DAMAGED as error:
        raise UserError(
            f"{path.name} could not be read as a 10x matrix ({error}), so it is damaged or another kind of "
            "HDF5 file; copy it again."
        ) from error
    kept = np.flatnonzero([is_gene(kind) for kind in kinds])
    genes = counts([], [names[i] for i in kept], np.zeros((0, len(kept)))).var_names
    return ExpressionColumns(tuple(str(g) for g in genes), kept, n_features, n_barcodes, rows)


def _refuse_lengths(features: int, *lists: Any) -> None:
    """Raise a `ValueError` where what is stated of features (None: nothing) is not stated of each."""
    lengths = [len(stated) for stated in lists if stated is not None]
    if set(lengths) - {features}:
        raise ValueError(f"it lists {', '.join(map(str, lengths))} names and kinds of {features} features")


def read_mex(folder: Path) -> "AnnData":
    """Read counts from a MEX folder: matrix.mtx, features.tsv (or genes.tsv), barcodes.tsv."""
    matrix = _one_of(folder, "matrix.mtx")
    features = [line.split("\t") for line in _lines(_one_of(folder, "features.tsv", "genes.tsv"))]
    barcodes = [line.split("\t")[0] for line in _lines(_one_of(folder, "barcodes.tsv"))]
    try:
        shape, body = _matrix_market(matrix)
        if len({len(row) for row in features}) > 1:
            raise ValueError("its features have lines of different lengths")
        if shape[:2] == (len(features), len(barcodes)):
            values = _coordinates(body, shape)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"{matrix.name} in {folder} could not be read ({error}), so it is damaged or "
            "incomplete; copy it again."
        ) from error
    if shape[:2] != (len(features), len(barcodes)):
        raise UserError(
            f"{folder.name} has {counted(len(barcodes), 'barcode')} and {counted(len(features), 'feature')} "
            f"for a matrix of {whole(shape[1])} × {whole(shape[0])}; copy the three files of one run again."
        )
    ids = [row[0] for row in features]
    names = [row[1] if len(row) > 1 else row[0] for row in features]
    kinds = [row[2] for row in features] if features and len(features[0]) > 2 else None
    return _expression(barcodes, ids, names, kinds, values)


MOST_MATRIX: Final = 2**31
"""Bytes of a matrix of text, unzipped: some hundred million counts."""
MOST_COMMENTS: Final = 2**20
"""Bytes of the comments at its head, which are a line or two."""
_BANNER: Final = re.compile(
    rb"%%MatrixMarket\s+matrix\s+coordinate\s+(integer|real)\s+general\s*", re.IGNORECASE
)


def _matrix_market(path: Path) -> tuple[tuple[int, int, int], bytes]:
    """Return rows, columns and number of values that a Matrix Market file states, and its lines of values."""
    head, _, rest = files.read_bytes(path, MOST_MATRIX).partition(b"\n")
    if _BANNER.fullmatch(head) is None:
        raise ValueError("it does not begin as a Matrix Market file of coordinates")
    begin = 0
    while rest.startswith(b"%", begin):
        begin = rest.find(b"\n", begin, MOST_COMMENTS) + 1
        if not begin:
            raise ValueError(f"it has comments of more than {data_size(MOST_COMMENTS)} before its values")
    sizes, _, body = rest[begin:].partition(b"\n")
    rows, columns, number = (int(word) for word in sizes.split())
    if min(rows, columns, number) < 0:
        raise ValueError("it states a size below 0")
    return (rows, columns, number), body


def _coordinates(body: bytes, shape: tuple[int, int, int]) -> Any:
    """Return the csr matrix (columns, rows) of lines "row column value", counted from 1.

    Not with SciPy's reader, which writes outside its arrays where there are more lines than stated.
    """
    import pandas
    from scipy import sparse

    rows, columns, number = shape
    kinds = {"row": np.int64, "column": np.int64, "value": np.float64}
    lines = io.BytesIO(body)
    if body.strip():
        frame = pandas.read_csv(lines, sep=r"\s+", header=None, names=list(kinds), dtype=kinds)
    else:
        frame = pandas.DataFrame({name: np.zeros(0, kind) for name, kind in kinds.items()})
    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError("it has lines of more than row, column and value")
    if len(frame) != number:
        raise ValueError(f"it states {counted(number, 'value')} and holds {whole(len(frame))}")
    at = (frame["column"].to_numpy() - 1, frame["row"].to_numpy() - 1)
    for places, side in zip(at, (columns, rows), strict=True):
        if len(places) and (places.min() < 0 or places.max() >= side):
            raise ValueError("it names places outside itself")
    values = frame["value"].to_numpy().astype(np.float32)
    matrix = sparse.coo_matrix((values, at), shape=(columns, rows)).tocsr()
    if matrix.nnz < number:
        raise ValueError(f"it states {whole(number - matrix.nnz)} of its values more than once")
    return matrix


MATRICES: Final = ("matrix.mtx", "matrix.mtx.gz")
"""Names of the matrix of a MEX folder."""


def is_mex(path: Path) -> bool:
    """Return whether `path` is a folder that holds a MEX matrix, or that matrix."""
    return path.name in MATRICES if path.is_file() else any((path / name).exists() for name in MATRICES)


def _expression(
    barcodes: list[str], ids: list[str], names: list[str], kinds: list[str] | None, values: Any
) -> "AnnData":
    if kinds and not any(map(is_gene, kinds)):
        raise UserError(
            f"The matrix holds {', '.join(sorted(set(kinds))[:3])} and no {GENE_EXPRESSION}, so no gene was "
            "measured in it; give the matrix of gene expression."
        )
    if kinds is not None:
        keep = [i for i, kind in enumerate(kinds) if is_gene(kind)]
        values = values[:, keep]
        ids, names = [ids[i] for i in keep], [names[i] for i in keep]
    adata = counts(barcodes, names, values)
    adata.var[GENE_IDS] = ids
    return adata


def _strings(dataset: Any) -> list[str]:
    return [s.decode() if isinstance(s, bytes) else str(s) for s in dataset[:]]


def _one_of(folder: Path, *names: str) -> Path:
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.exists():
                return path
    raise UserError(
        f"{folder} lacks {' or '.join(names)}, so its counts cannot be read; copy the whole folder "
        "of Space Ranger."
    )


def _lines(path: Path) -> list[str]:
    text = read_bytes(path).decode("utf-8-sig")
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]
