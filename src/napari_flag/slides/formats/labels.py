"""Labels of spots by a pathologist or a clustering: text tables of spots and labels.

Layouts known: her2st's annotations (columns x, y, refined array positions, to be rounded, and label), Loupe's
CSV (Barcode and one more column), and any table with a column of spot ids and a column of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import whole
from napari_flag.slides.formats.positions import numbers
from napari_flag.slides.formats.text_tables import column_names, frame_of, id_column, read_bytes, separator_of
from napari_flag.slides.spots import array_from

if TYPE_CHECKING:
    import pandas as pd


MOST_LETTERS: Final = 1_000
"""Of a label: an array of labels has room for the longest in every spot."""
LABEL_COLUMNS: Final = ("label", "labels", "annotation", "pathology", "region", "cluster", "domain")


@dataclass(frozen=True, slots=True)
class SpotLabels:
    """Labels of spots.

    Parameters
    ----------
    by_spot
        Spot id → label.
    column
        The column they were read from.
    """

    by_spot: dict[str, str]
    column: str

    def of(self, spots: Sequence[str]) -> npt.NDArray[np.str_]:
        """Return (n,) labels of the spots named, "" where there is none.

        Raises
        ------
        UserError
            When no spot has a label, most likely because the table is of another slide.
        """
        found = np.array([self.by_spot.get(str(spot), "") for spot in spots], dtype=np.str_)
        if not (found != "").any():
            example = next(iter(self.by_spot))
            raise UserError(
                f"None of the spots (such as {spots[0] if len(spots) else 'none at all'}) has a label in the "
                f"table, whose spots are named like {example}; choose the labels of this slide."
            )
        return found


def read_labels(path: Path) -> SpotLabels:
    """Read a table of labels; tabs, commas or semicolons, plain or gzipped.

    Spots are named by columns x and y where there are both, rounded to "10x13" as Spatial Transcriptomics
    does; else by a column of `text_tables.IDS`; else by the first column.  Labels stand in a column of
    `LABEL_COLUMNS`, or in the only column that is left.

    Raises
    ------
    UserError
        When the file cannot be read as such, or two rows give one spot different labels.
    """
    try:
        text = read_bytes(path)
        separator = separator_of(text.partition(b"\n")[0])
        table = frame_of(path, text, sep=separator, dtype=str)
    except ValueError as fault:  # those of pandas are ValueErrors
        raise UserError(
            f"The labels in {path.name} cannot be read ({fault}); give a table with tabs, commas or "
            "semicolons between its columns."
        ) from fault
    plain = dict(zip(column_names(table.columns), map(str, table.columns), strict=True))
    spots = _spots(table, plain, path)
    column = _label_column(table, plain, path)
    known = spots.notna() & table[column].notna()
    by_spot: dict[str, str] = {}
    for spot, label in zip(spots[known], table[column][known].astype(str).str.strip(), strict=True):
        if len(label) > MOST_LETTERS:
            raise UserError(
                f"{path.name} labels spot {spot} with {whole(len(label))} letters, so its column {column!r} "
                "holds no labels; give a table with a short label for each spot."
            )
        if by_spot.setdefault(spot, label) != label:
            raise UserError(
                f"{path.name} calls spot {spot} both {by_spot[spot]} and {label}; leave one row for each."
            )
    if not by_spot:
        raise UserError(f"{path.name} labels no spot; give a table with a label for each spot.")
    return SpotLabels(by_spot, column)


def _spots(table: "pd.DataFrame", plain: dict[str, str], path: Path) -> "pd.Series":
    import pandas as pd

    if {"x", "y"} <= plain.keys():
        stated = table[[plain["x"], plain["y"]]]
        placed = stated.notna().all(axis=1)
        names = pd.Series([None] * len(table), index=table.index, dtype=object)
        array = array_from(numbers(stated[placed], tuple(stated.columns), path), path.name)
        names[placed] = [f"{column}x{row}" for column, row in array.tolist()]
        return names
    identifier = id_column(plain)
    named = table.columns[0] if identifier is None else plain[identifier]
    return table[named].astype(str).where(table[named].notna())


def _label_column(table: "pd.DataFrame", plain: dict[str, str], path: Path) -> str:
    known = [plain[name] for name in LABEL_COLUMNS if name in plain]
    if known:
        return known[0]
    if len(table.columns) == 2:
        return str(table.columns[1])
    raise UserError(
        f"{path.name} has no column that is called {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}, "
        "so it is not clear where the labels are; name it so."
    )
