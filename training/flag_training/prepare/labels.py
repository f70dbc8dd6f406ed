"""Labels of spots — layers, a pathologist's words — from whatever table holds them."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_flag.errors import UserError
from napari_flag.slides.expression import read_bytes, separator_of
from napari_flag.slides.positions import IDS

LABELS: Final = ("label", "layer", "layer_guess", "ground_truth", "annotation")
"""Columns taken for labels, the first of them that is there."""
SECTIONS: Final = ("sample", "sample_name", "sample_id", "library_id", "section")
"""Columns that say which slide a row belongs to, in a table of several."""


def read_labels(path: Path, slide: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Return one label per spot, "" where the table has none.

    Parameters
    ----------
    path
        Tab- or comma-separated, also gzipped: with a header (a column of ids, or x and y of a
        legacy ST array, rounded to join; and one of `LABELS`), or without one as spatialLIBD's
        ``barcode_level_layer_map.tsv``: barcode, slide, label.
    slide
        Name of the slide; picks its rows in a table of several.
    ids
        The spots.

    Raises
    ------
    UserError
        When the table cannot be read, lacks columns, or labels none of these spots.
    """
    frame = _frame(path)
    sections = next((column for column in SECTIONS if column in frame.columns), None)
    if sections is not None:
        frame = frame[frame[sections].astype(str) == slide]
    labels = next((column for column in LABELS if column in frame.columns), None)
    names = _ids(frame)
    if labels is None or names is None:
        raise UserError(
            f"{path.name} has no labels of spots (its columns are {', '.join(frame.columns)}); it needs "
            f"a column of ids ({', '.join(IDS)}, or x and y) and one of {', '.join(LABELS)}."
        )
    told = {
        name: "" if label != label else str(label)  # an empty cell is not a number
        for name, label in zip(names, frame[labels], strict=True)
    }
    found = tuple(told.get(name, "") for name in ids)
    if not any(found):
        raise UserError(
            f"{path.name} labels no spot of {slide} (its ids look like {next(iter(told), 'nothing')!r}, "
            f"the slide's like {ids[0]!r}); choose the labels of this slide."
        )
    return found


def _frame(path: Path) -> Any:
    import pandas

    text = read_bytes(path)
    first = text.partition(b"\n")[0]
    mark = separator_of(first)
    titled = {word.strip().strip('"') for word in first.decode("utf-8-sig").split(mark)}
    known = titled & {*LABELS, *IDS}
    names = None if known else ["barcode", "sample", "label"]
    try:
        frame = pandas.read_csv(
            io.BytesIO(text), sep=mark, header=0 if known else None, names=names, encoding="utf-8-sig"
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} is not a table of labels ({error}); it should have one row per spot, with a header."
        ) from error
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame


def _ids(frame: Any) -> list[str] | None:
    column = next((name for name in IDS if name in frame.columns), None)
    if column is not None:
        return [str(name) for name in frame[column]]
    if {"x", "y"} <= set(frame.columns):
        places = frame[["x", "y"]].to_numpy(float)  # her2st's tables have rows without a place
        known = np.isfinite(places).all(axis=1)
        rounded = np.rint(np.where(known[:, None], places, 0)).astype(int)
        return [f"{x}x{y}" if there else "" for (x, y), there in zip(rounded.tolist(), known, strict=True)]
    return None
