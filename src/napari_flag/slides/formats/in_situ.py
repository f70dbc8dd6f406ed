"""Xenium and CosMx: transcripts, or cells, as counts at points, placed on the H&E by an alignment file."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import files
from napari_flag.errors import UserError
from napari_flag.formatting import counted, percent
from napari_flag.slides.formats.counts import expression_columns, refuse_not_raw
from napari_flag.slides.formats.positions import numbers
from napari_flag.slides.formats.stored_arrays import DAMAGED, csr_of, opened_h5, refuse_inflated_parquet
from napari_flag.slides.formats.text_tables import frame_of, read_bytes, refuse_longer_rows
from napari_flag.slides.pooling import BATCH_POINTS, Batch, LocatedCounts
from napari_flag.slides.spots import FloatArray, Image, IntArray, refuse_repeated

XENIUM, COSMX = "Xenium", "CosMx"
MOST_SMALL: Final = 2**20
"""Bytes of a file of some numbers: an alignment, the parameters of a run."""
LEAST_QV: Final = 20.0
"""Phred-scaled quality from which 10x counts a transcript in its own matrix of cells."""
CONTROLS: Final = (
    "NegControl", "BLANK", "antisense_", "Unassigned", "Deprecated", "Intergenic",
    "NegPrb", "Negative", "SystemControl", "FalseCode",
)  # fmt: skip
"""How the names of what is no gene begin, in Xenium's and in CosMx's files."""
NO_GENES: Final = frozenset({"fov", "cell_ID", "cell", "cell_id"})
"""Columns of CosMx's expression matrix that are no genes."""
MOST_FIELDS: Final = 10**6
"""Numbers of fields of view; a whole slide has some hundreds."""
CELLS_VALUES: Final = 20_000_000
"""Values of CosMx's dense matrix of cells read at a time."""
MOST_NAMED: Final = 2_000_000
"""Names of transcripts that are kept to see which are listed again: 16 MB."""
MOST_AGAIN: Final = 0.01
"""Share of them that may be."""
ENDINGS: Final = (".parquet", ".csv.gz", ".csv")
_XENIUM_STEMS: Final = ("transcripts", "cells")
"""How Xenium's files of transcripts and of cells are called, without ending."""
_COSMX_STEMS: Final = ("tx_file", "metadata_file")
"""How the names of CosMx's end, without ending."""


@dataclass(frozen=True, slots=True)
class Run:
    """The files of one measured section.

    Parameters
    ----------
    technology
        `XENIUM` or `COSMX`.
    folder
        Its folder.
    transcripts
        One row per transcript, or None.
    cells, matrix
        Centres of the cells and their counts, or None.
    """

    technology: str
    folder: Path
    transcripts: Path | None
    cells: Path | None
    matrix: Path | None


def find_run(path: Path) -> Run | None:
    """Return the Xenium or CosMx run that `path` is; None for anything else.

    Parameters
    ----------
    path
        Its folder, whose transcripts are taken where they are there, or its file of transcripts or of cells.
    """
    if path.is_file():
        if not _may_be_of_run(path):
            return None
        run = find_run(path.parent)
        if run is None or path not in (run.transcripts, run.cells):
            return None
        if path == run.transcripts:
            return replace(run, cells=None)
        return replace(run, transcripts=None)
    if not path.is_dir():
        return None
    matrix = path / "cell_feature_matrix.h5"
    transcripts, cells = _first(path, "transcripts"), _first(path, "cells")
    if (path / "experiment.xenium").is_file() and (transcripts or (cells and matrix.is_file())):
        return Run(XENIUM, path, transcripts, cells, matrix if matrix.is_file() else None)
    tx, expression, metadata = (_ending(path, name) for name in ("tx_file", "exprMat_file", "metadata_file"))
    if tx or (expression and metadata):
        return Run(COSMX, path, tx, metadata, expression)
    return None


def _may_be_of_run(path: Path) -> bool:
    """Return whether a file is called as those of transcripts and of cells are."""
    end = files.ending(path)
    stem = path.name.removesuffix(end)
    if end not in ENDINGS:
        return False
    return stem.endswith(_COSMX_STEMS) or (
        stem in _XENIUM_STEMS and (path.parent / "experiment.xenium").is_file()
    )


def _first(folder: Path, stem: str) -> Path | None:
    return next((folder / f"{stem}{end}" for end in ENDINGS if (folder / f"{stem}{end}").is_file()), None)


def _ending(folder: Path, name: str) -> Path | None:
    """Return the one file SLIDE_name.csv of a folder; refuse several, which are of several slides."""
    found = sorted(p for end in (".csv", ".csv.gz") for p in folder.glob(f"*{name}{end}"))
    if len({p.name.removesuffix(".gz") for p in found}) > 1:
        raise UserError(
            f"{folder} holds several files *{name} ({', '.join(p.name for p in found[:4])}), so it is not "
            "clear which section is meant; put each section into a folder of its own."
        )
    return found[0] if found else None


def located_run(run: Run, image: Image, alignment: str | Path | None = None) -> LocatedCounts:
    """Return the transcripts, or else the cells, of a run on an H&E image.

    Parameters
    ----------
    run
        The run.
    image
        The H&E.
    alignment
        CSV of a 3 × 3 matrix from level-0 px of the H&E to px of the platform's image; None takes the only
        one beside the run or the H&E.

    Raises
    ------
    UserError
        When the alignment is missing or no such matrix, or a file cannot be read.
    """
    path = _alignment_file(run, image) if alignment is None else Path(alignment).expanduser()
    affine = read_alignment(path)
    um: float | None
    if run.technology == XENIUM:
        pixel = _xenium_pixel(run.folder)
        to_px, um = np.diag([1 / pixel, 1 / pixel, 1.0]), 1.0
    else:
        to_px, um = np.eye(3), _cosmx_pixel(run.folder)
    found = {
        (XENIUM, True): _xenium_transcripts, (XENIUM, False): _xenium_cells,
        (COSMX, True): _cosmx_transcripts, (COSMX, False): _cosmx_cells,
    }[run.technology, run.transcripts is not None](run)  # fmt: skip
    to_image: FloatArray = np.asarray(np.linalg.solve(affine, to_px), np.float64)
    source = run.transcripts or run.cells
    assert source is not None
    return LocatedCounts(
        technology=run.technology,
        noun="transcripts" if run.transcripts else "cells",
        path=source,
        genes=found.genes,
        batches=found.batches,
        to_image=to_image,
        alignment=f"placed on {image.path.name} by {path.name}{_orientation(to_image)}.",
        total=found.total,
        um_per_unit=um,
    )


def _orientation(to_image: FloatArray) -> str:
    """Return the end of a sentence: how an affine turns and mirrors what it places."""
    (xx, xy), (yx, yy) = to_image[:2, :2].tolist()
    if xx * yy - xy * yx < 0:
        return ", mirrored, which is right only where either picture was flipped"
    turned = round(math.degrees(math.atan2(yx - xy, xx + yy))) % 360  # y runs down
    return f", turned by {turned}° clockwise" if turned else ""


# --- alignment -----------------------------------------------------------------------------------


def read_alignment(path: Path) -> FloatArray:
    """Return the (3, 3) affine of an alignment file, as Xenium Explorer exports it."""
    try:
        lines = files.read_text(path, MOST_SMALL).strip().splitlines()
        matrix = np.array([[float(cell) for cell in line.split(",")] for line in lines], np.float64)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} could not be read as an alignment ({error}); give the CSV of a 3 × 3 matrix, as Xenium "
            "Explorer exports it."
        ) from error
    affine = matrix.shape == (3, 3) and np.isfinite(matrix).all() and np.allclose(matrix[2], [0, 0, 1])
    if not affine or abs(np.linalg.det(matrix)) < 1e-12:
        raise UserError(
            f"{path} holds no affine 3 × 3 matrix (last row 0, 0, 1), so it places nothing on the image; "
            "give the CSV that Xenium Explorer exports."
        )
    return matrix


def _alignment_file(run: Run, image: Image) -> Path:
    places = dict.fromkeys(p.resolve() for p in (run.folder, run.folder.parent, image.path.absolute().parent))
    found = sorted({path for place in places for path in place.glob("*alignment*.csv")})
    if len(found) == 1:
        return found[0]
    there = f"{len(found)} are there ({', '.join(p.name for p in found[:4])})" if found else "none is there"
    raise UserError(
        f"An alignment file is needed to place {run.technology}'s {run.folder.name} on {image.path.name}, "
        f"and {there}; put the 3 × 3 matrix that Xenium Explorer exports, one *alignment*.csv, beside the "
        "run or the slide, or name it with --alignment."
    )


def _xenium_pixel(folder: Path) -> float:
    """Return µm per px of Xenium's own image, in which alignments count."""
    path = folder / "experiment.xenium"
    try:
        pixel = float(files.parse_json(files.read_text(path, MOST_SMALL))["pixel_size"])
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise UserError(
            f"{path} does not state pixel_size ({error}), so the alignment has no scale; copy the file again."
        ) from error
    if not (np.isfinite(pixel) and pixel > 0):
        raise UserError(
            f"{path} states {pixel:g} as pixel_size, which is no size, so the alignment has no scale; copy "
            "the file again."
        )
    return pixel


def _cosmx_pixel(folder: Path) -> float | None:
    """Return µm per global px by the positions of the fields of view in px and mm; None where not stated."""
    path = _ending(folder, "fov_positions_file")
    if path is None:
        return None
    try:
        frame = frame_of(path, read_bytes(path))
    except ValueError as error:
        raise _damaged(path, error) from error
    if not {"x_global_px", "x_global_mm", "y_global_px", "y_global_mm"} <= set(frame):
        return None
    if frame.empty:
        return None
    px = np.ptp(numbers(frame, ("x_global_px", "y_global_px"), path), axis=0)
    mm = np.ptp(numbers(frame, ("x_global_mm", "y_global_mm"), path), axis=0)
    return float(1000 * np.linalg.norm(mm) / np.linalg.norm(px)) if np.linalg.norm(px) > 0 else None


# --- files, batch by batch -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Points:
    genes: list[str]
    batches: Callable[[], Iterator[Batch]]
    total: int | None


class _Transcripts:
    """Names of the transcripts that were read, every one or, of many, one in so many."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: IntArray = np.zeros(0, np.int64)
        self._each = 1

    def add(self, names: Any) -> None:
        """Remember the names of a column; empty cells are none."""
        import pandas as pd

        found = pd.util.hash_array(names.dropna().to_numpy(), categorize=False).astype(np.int64)
        self._kept = np.concatenate([self._kept, found[found % self._each == 0]])
        while len(self._kept) > MOST_NAMED:
            self._each *= 2
            self._kept = self._kept[self._kept % self._each == 0]

    def refuse_repeated(self) -> None:
        """Refuse a file of which more than a few transcripts are listed again, each one molecule."""
        again = len(self._kept) - len(np.unique(self._kept))
        if again > MOST_AGAIN * len(self._kept):
            raise UserError(
                f"{self._path.name} lists {percent(again / len(self._kept))} of its transcripts "
                "(transcript_id) again, so they would be counted twice; copy the file the instrument "
                "wrote again."
            )


class _Codes:
    """Numbers of genes in the order of their list, to which new ones are added; -1 for controls."""

    def __init__(self, genes: Iterable[str]) -> None:
        self.genes = list(dict.fromkeys(genes))
        self._known = {name: code for code, name in enumerate(self.genes)}

    def of(self, names: Any) -> IntArray:
        """Return (n,) codes of an array of names."""
        import pandas as pd

        each, found = pd.factorize(np.asarray(names, dtype=object))
        codes: IntArray = np.array([self._code(name) for name in found], np.int64)[each]
        return codes

    def _code(self, name: Any) -> int:
        text = name.decode() if isinstance(name, bytes) else str(name)
        if is_control(text):
            return -1
        if text not in self._known:
            self._known[text] = len(self.genes)
            self.genes.append(text)
        return self._known[text]


def is_control(name: str) -> bool:
    """Return whether a feature of Xenium or CosMx is no gene."""
    return name.startswith(CONTROLS)


def _frames(path: Path, columns: list[str], optional: list[str], rows: int) -> Iterator[Any]:
    """Yield a table's columns as data frames of at most `rows` rows; what cannot be read is a `UserError`."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as parquet

    files.refuse_special(path)
    try:
        if files.ending(path) == ".parquet":
            refuse_inflated_parquet(path)
            with parquet.ParquetFile(path) as file:
                there = set(file.schema_arrow.names)
                wanted = _wanted(path, there, columns, optional)
                if nested := [n for n in wanted if pa.types.is_nested(file.schema_arrow.field(n).type)]:
                    raise ValueError(f"its column {nested[0]} holds lists")
                for part in file.iter_batches(rows, columns=wanted):
                    yield part.to_pandas()
        else:
            head = pd.read_csv(path, nrows=1)
            there = set(head.columns)
            if not isinstance(head.index, pd.RangeIndex):
                refuse_longer_rows(path, head)
            wanted = _wanted(path, there, columns, optional)
            with pd.read_csv(path, usecols=wanted, chunksize=rows, index_col=False) as parts:
                yield from parts
    except (OSError, EOFError, ValueError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} could not be read ({error}), so it is damaged or incomplete; copy it again.")


def _wanted(path: Path, there: set[str], columns: list[str], optional: list[str]) -> list[str]:
    lacking = [name for name in columns if name not in there]
    if lacking:
        raise UserError(f"{path.name} lacks {', '.join(lacking)}; copy the file the instrument wrote again.")
    return [*columns, *(name for name in optional if name in there)]


def _one_each(xy: FloatArray, codes: IntArray, field: IntArray | None, n_genes: int, read: int) -> Batch:
    """Return a batch of transcripts, without those of code -1."""
    from scipy import sparse

    kept = codes >= 0
    counts = sparse.csr_matrix(
        (np.ones(int(kept.sum()), np.int64), codes[kept], np.arange(int(kept.sum()) + 1)),
        shape=(int(kept.sum()), n_genes),
    )
    return Batch(xy[kept], counts, None if field is None else field[kept], read)


def _xenium_transcripts(run: Run) -> _Points:
    path = run.transcripts
    assert path is not None
    panel = expression_columns(run.matrix).genes if run.matrix is not None else ()
    codes, fields, named = _Codes(panel), _Codes(()), _Transcripts(path)

    def batches() -> Iterator[Batch]:
        needed = ["feature_name", "x_location", "y_location", "qv"]
        for frame in _frames(path, needed, ["is_gene", "fov_name", "transcript_id"], BATCH_POINTS):
            if "transcript_id" in frame:
                named.add(frame["transcript_id"])
            code = codes.of(frame["feature_name"])
            good = numbers(frame, ("qv",), path)[:, 0] >= LEAST_QV
            if "is_gene" in frame:
                good &= _truths(frame["is_gene"], path)
            xy = numbers(frame, ("x_location", "y_location"), path)
            field = fields.of(frame["fov_name"]) if "fov_name" in frame else None
            yield _one_each(xy, np.where(good, code, -1), field, len(codes.genes), len(frame))
        named.refuse_repeated()

    return _Points(codes.genes, batches, _rows_of(path))


def _truths(column: Any, path: Path) -> npt.NDArray[np.bool_]:
    """Return (n,) bool of a column of true and false, as text too."""
    said = column.astype(str).str.casefold()
    true: npt.NDArray[np.bool_] = said.isin(("true", "1", "1.0")).to_numpy(bool)
    if not (true | said.isin(("false", "0", "0.0")).to_numpy(bool)).all():
        raise UserError(
            f"Column {column.name!r} of {path.name} holds something else than true and false, so it is "
            "damaged or incomplete; copy it again."
        )
    return true


def _fields(frame: Any, path: Path) -> IntArray:
    """Return (n,) int64 fields of view."""
    stated = numbers(frame, ("fov",), path)[:, 0]
    if (np.abs(stated) >= MOST_FIELDS).any():
        raise UserError(
            f"{path.name} has {stated[np.abs(stated).argmax()]:g} as a field of view, so it is damaged; copy "
            "it again."
        )
    return stated.astype(np.int64)


def _rows_of(path: Path) -> int | None:
    """Return the rows of a parquet file; None for text, whose rows are not counted."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(path).num_rows) if files.ending(path) == ".parquet" else None
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _xenium_cells(run: Run) -> _Points:
    import pandas as pd

    path, matrix = run.cells, run.matrix
    assert path is not None
    assert matrix is not None
    columns = expression_columns(matrix, barcodes=True)

    def batches() -> Iterator[Batch]:
        frames = _frames(path, ["cell_id", "x_centroid", "y_centroid"], [], BATCH_POINTS)
        cells = pd.concat(list(frames), ignore_index=True)
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in cells["cell_id"]]
        refuse_repeated(names, path.name, "cell")
        refuse_repeated(columns.barcodes, matrix.name, "cell")
        rows = pd.Index(names).get_indexer(list(columns.barcodes))
        if (rows < 0).any():
            raise UserError(
                f"{path.name} lacks {counted(int((rows < 0).sum()), 'cell')} of {matrix.name}, so it is not "
                "known where they are; copy both files of one run again."
            )
        xy = numbers(cells, ("x_centroid", "y_centroid"), path)[rows]
        try:
            with opened_h5(matrix) as file:
                group = file["matrix"]
                pointer = group["indptr"][:].astype(np.int64)
                for start in range(0, len(rows), BATCH_POINTS):
                    stop = min(start + BATCH_POINTS, len(rows))
                    low, high = pointer[start], pointer[stop]
                    parts = (
                        group["data"][low:high],
                        group["indices"][low:high],
                        pointer[start : stop + 1] - low,
                    )
                    refuse_not_raw(matrix, np.asarray(parts[0]))
                    values = csr_of(*parts, (stop - start, columns.n_features), group["data"].dtype)
                    yield Batch(xy[start:stop], values[:, columns.kept], None, stop - start)
        except DAMAGED as error:
            raise _damaged(matrix, error) from error

    return _Points(list(columns.genes), batches, columns.n_barcodes)


def _cosmx_transcripts(run: Run) -> _Points:
    path = run.transcripts
    assert path is not None
    codes = _Codes(() if run.matrix is None else _cosmx_genes(run.matrix))

    def batches() -> Iterator[Batch]:
        for frame in _frames(path, ["fov", "x_global_px", "y_global_px", "target"], [], BATCH_POINTS):
            code = codes.of(frame["target"])
            xy = numbers(frame, ("x_global_px", "y_global_px"), path)
            field = _fields(frame, path)
            yield _one_each(xy, code, field, len(codes.genes), len(frame))

    return _Points(codes.genes, batches, None)


def _cosmx_genes(matrix: Path) -> list[str]:
    import pandas as pd

    files.refuse_special(matrix)
    try:
        columns = [str(name) for name in pd.read_csv(matrix, nrows=0).columns]
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(matrix, error) from error
    return [name for name in columns if name not in NO_GENES and not is_control(name)]


def _cosmx_names(frame: Any, path: Path) -> list[str]:
    """Return field of view and number of each cell as one name."""
    both = numbers(frame, ("fov", "cell_ID"), path)
    return [f"{field:g}_{cell:g}" for field, cell in both.tolist()]


def _cosmx_cells(run: Run) -> _Points:
    import pandas as pd
    from scipy import sparse

    path, matrix = run.cells, run.matrix
    assert path is not None
    assert matrix is not None
    genes = _cosmx_genes(matrix)

    def batches() -> Iterator[Batch]:
        needed = ["fov", "cell_ID", "CenterX_global_px", "CenterY_global_px"]
        cells = pd.concat(list(_frames(path, needed, [], BATCH_POINTS)), ignore_index=True)
        names = _cosmx_names(cells, path)
        refuse_repeated(names, path.name, "cell")
        places = pd.Index(names)
        counted_before = np.zeros(len(cells), bool)
        centres = numbers(cells, ("CenterX_global_px", "CenterY_global_px"), path)
        for frame in _frames(
            matrix, ["fov", "cell_ID", *genes], [], max(1, CELLS_VALUES // max(len(genes), 1))
        ):
            named = _cosmx_names(frame, matrix)
            rows = places.get_indexer(named)
            known = rows >= 0  # cell 0 of a field is what lies in no cell, and has no place
            again = [named[i] for i in np.flatnonzero(known) if counted_before[rows[i]]]
            refuse_repeated([named[i] for i in np.flatnonzero(known)] + again, matrix.name, "cell")
            counted_before[rows[known]] = True
            stated = frame[genes].to_numpy()[known]
            stated = stated if stated.dtype.kind in "iuf" else numbers(frame, tuple(genes), matrix)[known]
            refuse_not_raw(matrix, stated)
            values = sparse.csr_matrix(stated)
            yield Batch(centres[rows[known]], values, _fields(frame, matrix)[known], len(frame))

    return _Points(genes, batches, None)
