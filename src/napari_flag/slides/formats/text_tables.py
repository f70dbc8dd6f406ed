"""Tables of text: their bytes, what separates and names their columns, and which hold positions of spots.

Readers of counts, of positions and of labels ask here, so that none takes a table for one of another kind.
"""

import io
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import files
from napari_flag.errors import UserError
from napari_flag.formatting import counted
from napari_flag.scratch import refuse_beyond_memory

if TYPE_CHECKING:
    import pandas as pd


ST_PLACES: Final = ("pixel_x", "pixel_y")
PLAIN_PLACES: Final = ("x_px", "y_px")
SPACE_RANGER_PLACES: Final = ("pxl_row_in_fullres", "pxl_col_in_fullres")
"""Columns of pixels: of legacy ST tables, of plain ones, and of Space Ranger, row before column."""
ST_COLUMNS: Final = ("x", "y", *ST_PLACES)
PLAIN_COLUMNS: Final = ("id", *PLAIN_PLACES)
IDS: Final = ("id", "barcode", "spot", "spot_id", "name")
"""Column names taken for the spots' ids."""
MOST_CELLS: Final = 250_000_000
"""Of a table of text: 2 GB of numbers."""
BYTES_EACH: Final = 20
"""What a cell takes while a table is parsed: measured, with its text and two copies of its number."""


def read_bytes(path: Path) -> bytes:
    """Return the (unzipped) bytes of a table: UTF-8, of no more rows and columns than free memory holds."""
    try:
        data = files.read_bytes(path)
        files.refuse_encoding(path, data)
        header = data[: data.find(b"\n") + 1] or data
        columns = header.count(separator_of(header).encode()) + 1
        if columns * data.count(b"\n") > MOST_CELLS:
            raise UserError(
                f"{path.name} has {counted(columns, 'column')} and {counted(data.count(10), 'row')}, too "
                "many for a text; save it as .h5ad, or leave out what is not needed."
            )
        refuse_beyond_memory(
            BYTES_EACH * columns * data.count(b"\n"),
            f"Reading {path.name}",
            "close other programs, save it as .h5ad, or leave out what is not needed",
        )
        return data
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise UserError(
            f"{path.name} could not be read ({error}), so it is damaged or incomplete; copy it again."
        ) from error


def frame_of(path: Path, text: bytes, **options: Any) -> "pd.DataFrame":
    """Parse the bytes of a table (`read_bytes`), whose rows are numbered; empty cells at their ends are none.

    Parameters
    ----------
    path
        Where they are from, as sentences name it.
    text
        The table.
    options
        Of ``pandas.read_csv``, whose errors are not caught.

    Raises
    ------
    UserError
        When rows have more cells than the heading names: pandas would take the first for names of rows, and
        every column for the next one.
    """
    import pandas as pd

    options = {"encoding": "utf-8-sig", **options}
    frame = pd.read_csv(io.BytesIO(text), **options)
    if isinstance(frame.index, pd.RangeIndex):
        return frame
    refuse_longer_rows(path, frame)
    return pd.read_csv(io.BytesIO(text), index_col=False, **options)


def refuse_longer_rows(path: Path, frame: "pd.DataFrame") -> None:
    """Refuse a table of which pandas took columns for names of rows, unless its last column is empty."""
    import pandas as pd

    names = len(frame.columns)
    if isinstance(frame.index, pd.MultiIndex) or not frame.iloc[:, -1].isna().all():
        raise UserError(
            f"Rows of {path.name} have more cells than its heading has names ({counted(names, 'name')}), so "
            "it is not known which column is which; name every column in the first line."
        )


def separator_of(header: bytes) -> str:
    """Return what separates the columns of a table: tab, comma or (as some Excels do) semicolon.

    Parameters
    ----------
    header
        The first line of the table; marks within quoted names do not count.
    """
    bare = _QUOTED.sub(b"", header)
    return max(("\t", ",", ";"), key=lambda mark: bare.count(mark.encode()))


_QUOTED: Final = re.compile(rb'"[^"]*"')


def column_names(written: Iterable[object]) -> list[str]:
    """Return names of columns as readers look for them: in lower case, without quotes and spaces around.

    Of several that would have one name, the one written so has it, else the first; others stay as written.
    """
    texts = [str(name) for name in written]
    plain = [text.strip().strip('"').strip().lower() for text in texts]
    owners = {name: place for place, name in reversed(list(enumerate(plain)))}
    owners |= {text: place for place, text in enumerate(texts) if text == plain[place]}
    return [
        name if owners[name] == place else text
        for place, (name, text) in enumerate(zip(plain, texts, strict=True))
    ]


def holds_positions(columns: Collection[str]) -> bool:
    """Return whether a table with these columns (`column_names`) is one of spot positions."""
    there = set(columns)
    return there >= set(ST_COLUMNS) or (there >= set(PLAIN_PLACES) and id_column(there) is not None)


def places_in(columns: Collection[str]) -> tuple[str, str] | None:
    """Return which two of the columns (`column_names`) are pixels of spots, as no gene is; None without."""
    kinds = (ST_PLACES, PLAIN_PLACES, SPACE_RANGER_PLACES)
    return next((places for places in kinds if set(columns) >= set(places)), None)


def id_column(columns: Collection[str]) -> str | None:
    """Return which of the columns (`column_names`) holds the spots' ids: the first of `IDS`; None without."""
    return next((name for name in IDS if name in columns), None)
