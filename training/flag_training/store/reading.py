"""Labels of spots — layers, a pathologist's words — from whatever table holds them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flag_training.store.sources import HUMAN, SlideSource
from napari_flag.errors import UserError
from napari_flag.formatting import TYPED, counted_of, length, resolution
from napari_flag.gene_names import without_version
from napari_flag.preflight import suggested_mpp
from napari_flag.slides.formats.counts import GENE_IDS, counts
from napari_flag.slides.formats.text_tables import (
    IDS,
    column_names,
    frame_of,
    id_column,
    read_bytes,
    separator_of,
)
from napari_flag.slides.resolution import check_mpp
from napari_flag.slides.slide import Slide
from napari_flag.slides.spot_tables import read_spots
from napari_flag.slides.spots import Spots, SpotTable, refuse_outside

if TYPE_CHECKING:
    from anndata import AnnData


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
    named = {
        name: "" if label != label else str(label)  # an empty cell is not a number
        for name, label in zip(names, frame[labels], strict=True)
    }
    found = tuple(named.get(name, "") for name in ids)
    if not any(found):
        raise UserError(
            f"{path.name} labels no spot of {slide} (its ids look like {next(iter(named), 'nothing')!r}, "
            f"the slide's like {ids[0]!r}); choose the labels of this slide."
        )
    return found


def _frame(path: Path) -> Any:
    import pandas

    text = read_bytes(path)
    first = text.partition(b"\n")[0]
    mark = separator_of(first)
    titled = column_names(first.decode("utf-8-sig").split(mark))
    known = not {*LABELS, *IDS}.isdisjoint(titled)
    names = None if known else ["barcode", "sample", "label"]
    try:
        frame = frame_of(path, text, sep=mark, header=0 if known else None, names=names)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} is not a table of labels ({error}); it should have one row per spot, with a header."
        ) from error
    frame.columns = column_names(frame.columns)
    return frame


def _ids(frame: Any) -> list[str] | None:
    column = id_column(frame.columns)
    if column is not None:
        return [str(name) for name in frame[column]]
    if {"x", "y"} <= set(frame.columns):
        places = frame[["x", "y"]].to_numpy(float)  # her2st's tables have rows without a place
        known = np.isfinite(places).all(axis=1)
        rounded = np.rint(np.where(known[:, None], places, 0)).astype(int)
        return [f"{x}x{y}" if there else "" for (x, y), there in zip(rounded.tolist(), known, strict=True)]
    return None


BEYOND: Final = 0.05
"""Share of spots that may lie off a slide known to be theirs; more of them is another slide."""
GENOME: Final = re.compile(r"^(GRCh\d+|GRCm\d+|hg\d+|mm\d+)_+")
"""Genome that some pipelines put before a symbol."""
MOUSE: Final = re.compile(r"^(GRCm\d+_|mm\d+_|ENSMUSG)")


@dataclass(frozen=True, slots=True)
class SlideTables:
    """A slide as it is stored.

    Parameters
    ----------
    spots
        Those with counts.
    counts
        Raw counts of all genes in the order of `spots`; Ensembl ids in ``gene_ids``, "" if unknown.
    labels
        One per spot, or None.
    mpp, mpp_source
        µm per level-0 pixel, and who says so.
    technology
        As a person calls it.
    notices
        What was left out or may be wrong.
    """

    spots: Spots
    counts: "AnnData"
    labels: tuple[str, ...] | None
    mpp: float
    mpp_source: str
    technology: str
    notices: tuple[str, ...]


def read_tables(
    source: SlideSource, slide: Slide, species: str, gene_ids: Mapping[str, str] | None = None
) -> SlideTables:
    """Read all of a slide but its pixels.

    Parameters
    ----------
    source
        Where things are.
    slide
        Its open image, at the source's µm/px where that is known.
    species
        Species of the cohort; only human genes have gene targets and panels here.
    gene_ids
        Symbol → Ensembl id, for tables that have symbols only.

    Raises
    ------
    UserError
        When the slide has no counts, no pitch, no µm/px, another species, or files of another slide.
    """
    table = _spot_table(source, slide)
    measured = table.measured
    if measured is None:
        raise UserError(
            f"{source.name} has no raw counts ({source.spots} holds positions only), so it cannot be "
            "trained on; give its count matrix."
        )
    place = {name: row for row, name in enumerate(table.spots.ids)}
    spots = table.spots.take(np.array([place[name] for name in measured.obs_names], dtype=np.int64))
    spots = replace(
        spots,
        pitch_um=source.pitch_um or spots.pitch_um,
        diameter_um=source.diameter_um or spots.diameter_um,
    )
    if spots.pitch_um is None:
        raise UserError(
            f"{source.spots} does not say how far the spots of {source.name} are apart, so no graph can "
            "be built; state pitch_um in the cohort file."
        )
    mpp, mpp_source, warnings = _scale(source, slide, table, spots)
    named = name_genes(measured, source.name, species, gene_ids or {})
    labels = None if source.labels is None else read_labels(source.labels, source.name, spots.ids)
    notices = (*slide.notices, *table.notices, *warnings)
    return SlideTables(spots, named, labels, mpp, mpp_source, table.technology, notices)


def _spot_table(source: SlideSource, slide: Slide) -> SpotTable:
    """Read spots and counts; a slide known to be the table's may lose a few spots at its border."""
    if not source.level_0:
        return read_spots(source.spots, slide=slide, measured_from=source.counts)
    table = read_spots(source.spots, measured_from=source.counts)
    xy = table.spots.xy
    inside = np.asarray(((xy >= 0) & (xy <= slide.size)).all(axis=1), dtype=np.bool_)
    if inside.all():
        return table
    if (~inside).mean() > BEYOND:
        refuse_outside(xy, slide, source.spots)
    spots = table.spots.take(inside)
    measured = table.measured
    if measured is not None:
        kept = set(spots.ids)
        measured = measured[[name in kept for name in measured.obs_names]].copy()
    notice = f"{counted_of((~inside).sum(), len(inside), 'spot')} lie beyond the image and are left out."
    return replace(table, spots=spots, measured=measured).with_notice(notice)


def _scale(
    source: SlideSource, slide: Slide, table: SpotTable, spots: Spots
) -> tuple[float, str, tuple[str, ...]]:
    """Return µm/px, its source and notices: stated by the source, the image, or the table; no guess."""
    suggested = suggested_mpp(spots)
    mpp, mpp_source = (slide.mpp, slide.mpp_source) if source.mpp is None else (source.mpp, source.mpp_source)
    if source.mpp_from_spots:
        if suggested is None or spots.pitch_um is None:
            raise UserError(
                f"The spots of {source.name} form no array whose pitch would give µm per pixel; state it as "
                "mpp in the cohort file instead of mpp_from_spots."
            )
        return suggested, f"the pitch of the spots' array, {length(spots.pitch_um)}, as asked for", ()
    if mpp is None:
        mpp, mpp_source = table.mpp, table.mpp_source
    if mpp is None:
        hint = ""
        if suggested is not None:
            hint = f"; the spots' array suggests {resolution(suggested, TYPED, unit=False)}"
        raise UserError(
            f"Neither {slide.path.name} nor its table says how many µm a pixel of {source.name} is{hint}, "
            "so state it as mpp in the cohort file or with --mpp, or set mpp_from_spots = true there."
        )
    doubt = check_mpp(mpp, mpp_source, suggested)
    return float(mpp), mpp_source, () if doubt is None else (doubt,)


def name_genes(measured: "AnnData", slide: str, species: str, gene_ids: Mapping[str, str]) -> "AnnData":
    """Return the same counts with bare symbols as names and Ensembl ids without version as a column.

    Raises
    ------
    UserError
        When a human cohort has genes that are no human's.
    """
    names = [str(name) for name in measured.var_names]
    known = [str(i) for i in measured.var[GENE_IDS]] if GENE_IDS in measured.var else [""] * len(names)
    if species == HUMAN:
        _refuse_mouse(names, known, slide)
    names = [GENOME.sub("", name) for name in names]
    ids = [
        without_version(GENOME.sub("", i)) or gene_ids.get(name, "")
        for i, name in zip(known, names, strict=True)
    ]
    symbols = {ensembl: symbol for symbol, ensembl in gene_ids.items()}
    for row, name in enumerate(names):
        if found := without_version(name):
            ids[row] = found
            names[row] = symbols.get(found, name)
    named = counts(list(measured.obs_names), names, measured.X)
    named.var[GENE_IDS] = ids
    return named


def _refuse_mouse(names: list[str], ids: list[str], slide: str) -> None:
    marked = [name for name in (*names, *ids) if MOUSE.match(name)]
    written = [name for name in names if not without_version(name)]
    # Human symbols are capitals (but for C1orf112 and the like), a mouse's are written Actb.
    lower_case = [name for name in written if name != name.upper() and "orf" not in name]
    if marked or len(lower_case) > len(written) / 2:
        example = (marked or lower_case)[0]
        raise UserError(
            f"The genes of {slide} are not human ({example}), while the cohort says {HUMAN}; leave the "
            "slide out, or state the cohort's species."
        )
