"""Tables of spot positions: legacy ST (``x, y, pixel_x, pixel_y``) and plain ``id, x_px, y_px``."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import counted_of, number
from napari_flag.slides.formats.text_tables import (
    IDS,
    PLAIN_COLUMNS,
    ST_COLUMNS,
    ST_PLACES,
    column_names,
    frame_of,
    holds_positions,
    id_column,
    read_bytes,
    separator_of,
)
from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.spots import FloatArray, Spots, SpotTable, array_from

ST_DIAMETER_UM: Final = 100.0
ST_PITCH_UM: Final = 200.0
"""Legacy Spatial Transcriptomics arrays (Ståhl et al., Science 2016)."""


def read_positions(path: Path) -> SpotTable:
    """Read a text table of spot positions.

    Parameters
    ----------
    path
        Tab- or comma-separated with a header: a legacy ST table with columns x, y (array),
        pixel_x, pixel_y and perhaps selected; or id, x_px, y_px and perhaps array_row, array_col.

    Raises
    ------
    UserError
        Naming the columns that are missing.
    """
    frame = _table(path)
    if not holds_positions(frame.columns):
        raise _missing(frame, path)
    return _legacy_st(frame, path) if set(frame.columns) >= set(ST_COLUMNS) else _plain(frame, path)


def _table(path: Path) -> Any:
    import pandas

    text = read_bytes(path)
    separator = separator_of(text.partition(b"\n")[0])
    try:
        written = frame_of(path, text, sep=separator, nrows=0).columns
        # an id stays as it is written: 001 is not 1
        texts = {
            column: str for column, name in zip(written, column_names(written), strict=True) if name in IDS
        }
        frame = frame_of(path, text, sep=separator, dtype=texts)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} is not a table that can be read ({error}); it should be tab- or "
            f"comma-separated with columns {', '.join(ST_COLUMNS)} or {', '.join(PLAIN_COLUMNS)}."
        ) from error
    frame.columns = column_names(frame.columns)
    return frame


def _legacy_st(frame: Any, path: Path) -> SpotTable:
    frame, notices = _in_use(frame, path)
    array = array_from(numbers(frame, ("y", "x"), path), path.name)
    spots = Spots(
        ids=tuple(f"{x}x{y}" for y, x in array.tolist()),
        xy=numbers(frame, ("pixel_x", "pixel_y"), path),
        diameter_um=ST_DIAMETER_UM,
        pitch_um=ST_PITCH_UM,
        lattice="square",
        array=array,
    )
    return SpotTable(spots, None, "Spatial Transcriptomics", notices)


def _plain(frame: Any, path: Path) -> SpotTable:
    frame, notices = _in_use(frame, path)
    identifier = id_column(frame.columns)
    array = None
    if (unnamed := int(frame[identifier].isna().sum())) > 0:
        raise UserError(
            f"{counted_of(unnamed, len(frame), 'row')} of {path.name} have no {identifier}; give every spot "
            "an id, or remove these rows."
        )
    if {"array_row", "array_col"} <= set(frame.columns):
        array = array_from(numbers(frame, ("array_row", "array_col"), path), path.name)
    xy = numbers(frame, ("x_px", "y_px"), path)
    spots = Spots(
        ids=tuple(str(i) for i in frame[identifier]),
        xy=xy,
        lattice="none" if array is None else lattice_of(array),
        array=array,
    )
    return SpotTable(spots, None, "table of positions", (*notices, *_thousands(xy, path)))


def _in_use(frame: Any, path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the rows marked as selected and in tissue, and a notice for each when others were left out."""
    notices = []
    for column in ("selected", "in_tissue"):
        if column in frame.columns:
            keep = numbers(frame, (column,), path)[:, 0] > 0
            out = int((~keep).sum())
            notice = f"{counted_of(out, len(frame), 'spot')} of {path.name} are not {column} and left out."
            notices += [notice] if out else []
            frame = frame[keep]
    return frame, tuple(notices)


EITHER_WAY: Final = 0.05
"""Share of positions that are whole, and of those with three decimals, from which a point groups thousands:
of numbers with three decimals a thousandth is whole by chance."""


def _thousands(xy: FloatArray, path: Path) -> tuple[str, ...]:
    """Return a notice where a point seems to stand for thousands: 1.785 beside 987."""
    whole = xy == np.rint(xy)
    parts = xy[~whole] * 1000
    grouped = (np.abs(parts - np.rint(parts)) < 1e-6) & (parts >= 1000)
    least = EITHER_WAY * xy.size
    if (np.abs(xy) >= 1000).any() or min(whole.sum(), len(parts)) <= least or not grouped.all():
        return ()
    if 2 * (np.rint(parts) % 10 != 0).sum() <= len(parts):  # 12.5 and 0.25
        return ()
    return (
        f"{path.name} has positions with three decimals ({number(xy[~whole][0], 3)}) beside whole ones "
        f"({number(xy[whole][0], 0)}), as if points grouped thousands; if so, write them without.",
    )


def numbers(frame: Any, columns: tuple[str, ...], path: Path) -> FloatArray:
    """Return `columns` of `frame` as (n, k) float64, refusing cells that are not numbers."""
    import pandas

    parts: list[npt.NDArray[np.float64]] = []
    for column in columns:
        try:
            values = pandas.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
        except TypeError:  # lists and dates of a parquet
            values = np.full(len(frame), np.nan)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise UserError(
                f"{counted_of(bad, len(values), 'row')} of {path.name} have no number in column {column!r}; "
                "fill in or remove these rows."
            )
        parts.append(values)
    return np.stack(parts, axis=1)


def _missing(frame: Any, path: Path) -> UserError:
    columns = list(frame.columns)
    if len(columns) > 50:
        return UserError(
            f"{path.name} holds counts ({len(columns) - 1} genes) but no positions; give the table "
            "with the spots' positions (for her2st, spots/…_selection.tsv) and these counts as "
            "measured expression."
        )
    wanted = ST_COLUMNS if set(ST_PLACES) & set(columns) else PLAIN_COLUMNS
    lacking = [name for name in wanted if name not in columns]
    if id_column(columns) is not None and "id" in lacking:
        lacking.remove("id")
    return UserError(
        f"{path.name} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)} (it "
        f"has {', '.join(columns[:8])}); a spot table needs {', '.join(ST_COLUMNS)} or "
        f"{', '.join(PLAIN_COLUMNS)}, where x and y are places in the array, x_px and y_px pixels."
    )
