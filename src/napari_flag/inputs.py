"""Everything ``predict`` needs before the model runs, checked before any work is done."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag.cli.terminal import ProgressLine
from napari_flag.errors import UserError
from napari_flag.progress import Step
from napari_flag.slides.spots import Spots, estimate_mpp, grid_over

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import SpotTable


DISAGREE: Final = 0.05
"""Relative difference between the slide's µm/px and what its spots suggest that is worth saying."""
GRID: Final = (200.0, 100.0)
"""Spacing and diameter in µm where the weights' card does not say: legacy ST."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is predicted: an open slide of known µm/px, its spots, and what else was asked for.

    Parameters
    ----------
    region
        Polygons in level-0 pixels, or None for the whole slide.
    genes
        Symbols of the weights to keep, or None for all.
    measured
        Raw counts to lay beside, or None.
    notices
        What was said to the user.
    """

    slide: "Slide"
    spots: Spots
    region: list[Any] | None = None
    genes: list[str] | None = None
    measured: "AnnData | None" = None
    notices: tuple[str, ...] = ()


def prepare(args: argparse.Namespace, checkpoint: "Checkpoint", line: ProgressLine) -> Prepared:
    """Open the slide, find its scale and spots, and read what else the arguments name.

    Raises
    ------
    UserError
        For anything that would fail later; the slide is then closed again.
    """
    from napari_flag.slides.formats.geojson import read_regions
    from napari_flag.slides.slide import open_slide

    if args.measured is not None and args.spots is None:
        raise UserError(
            "--measured needs --spots, because measured values belong to the spots of a table and "
            "not to a grid; add --spots with the table of these spots."
        )
    genes = None if args.genes is None else read_genes(args.genes, checkpoint)
    region = None if args.region is None else read_regions(args.region)
    line(Step("Opening slide", 0))
    slide = open_slide(args.slide, mpp=args.mpp)
    try:
        notices = list(slide.notices)
        if args.spots is None:
            slide, notices = _scaled(slide, None, notices)
            spots, measured = _grid(args, checkpoint, slide, region, line, notices), None
        else:
            line(Step("Reading spots", 0))
            table = _read_table(args, slide)
            notices += table.notices
            slide, notices = _scaled(slide, table, notices)
            spots, measured = table.spots, table.measured
        if measured is not None:
            measured = _usable(measured, spots, checkpoint, args, notices)
        for notice in notices:
            line.notice(notice)
    except BaseException:
        slide.close()
        raise
    return Prepared(slide, spots, region, genes, measured, tuple(notices))


def _read_table(args: argparse.Namespace, slide: "Slide") -> "SpotTable":
    from napari_flag.slides.tables import read_spots

    table = read_spots(args.spots, slide=slide, measured_from=args.measured)
    spots = table.spots
    if args.spacing is not None:
        spots = replace(spots, pitch_um=args.spacing)
    if args.diameter is not None:
        spots = replace(spots, diameter_um=args.diameter)
    return replace(table, spots=spots)


def _scaled(slide: "Slide", table: "SpotTable | None", notices: list[str]) -> "tuple[Slide, list[str]]":
    """Settle µm/px: given or the file's, else the table's; never a guess."""
    from napari_flag.slides.resolution import check_mpp

    suggested = None if table is None else _suggested(table.spots)
    if slide.mpp is None and table is not None and table.mpp is not None:
        slide = slide.with_mpp(table.mpp, table.mpp_source)
    if slide.mpp is None:
        raise UserError(_unknown_scale(slide, suggested))
    doubt = check_mpp(slide.mpp)
    if doubt:
        notices = [*notices, doubt]
    if suggested is not None and abs(slide.mpp / suggested - 1) > DISAGREE:
        notices = [
            *notices,
            f"µm/px is {slide.mpp:.4g} ({slide.mpp_source}), but the spots' array suggests "
            f"{suggested:.4g}; if that is right, give --mpp {suggested:.4g}.",
        ]
    return slide, notices


def _suggested(spots: Spots) -> float | None:
    """Return the µm/px that the spots' array suggests, None where it cannot tell."""
    if spots.array is None or spots.pitch_um is None:
        return None
    try:
        return estimate_mpp(spots)
    except UserError:
        return None


def _unknown_scale(slide: "Slide", suggested: float | None) -> str:
    unknown = f"{slide.path.name} does not say how large a pixel is, and guessing would give wrong genes"
    if suggested is not None:
        return (
            f"{unknown}; the spots' array suggests {suggested:.3f} µm per pixel, so if that is "
            f"right add --mpp {suggested:.3f}."
        )
    return f"{unknown}; add --mpp with the µm per pixel, e.g. --mpp 0.5 for most 20× scans."


def _grid(
    args: argparse.Namespace,
    checkpoint: "Checkpoint",
    slide: "Slide",
    region: list[Any] | None,
    line: ProgressLine,
    notices: list[str],
) -> Spots:
    """Lay a hexagonal grid over the tissue, by default as far apart as the weights were trained."""
    from napari_flag.slides.tissue import find_tissue

    array = checkpoint.card.get("array") or {}
    spacing = args.spacing or float(array.get("pitch_um") or GRID[0])
    diameter = args.diameter or min(float(array.get("diameter_um") or GRID[1]), spacing)
    line(Step("Finding tissue", 0))
    area: Any = find_tissue(slide)
    if region is not None and not area.mask.any():
        area = region
        notices.append(
            "No tissue was found on the slide, so the grid covers the regions only, and spots are "
            "judged against these instead of the whole section."
        )
    assert slide.mpp is not None
    return grid_over(area, slide.mpp, spacing, diameter, lattice="hex", slide_size=slide.size)


def _usable(
    measured: "AnnData",
    spots: Spots,
    checkpoint: "Checkpoint",
    args: argparse.Namespace,
    notices: list[str],
) -> "AnnData | None":
    """Return `measured` if it can be laid beside the prediction.

    Counts the user named must fit; counts that only came along with the table are left out, and
    that is said.
    """
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from napari_flag.analysis.truth import match_names, shared_counts

    to_be = AnnData(
        obs=pd.DataFrame(index=np.array(spots.ids, dtype=object)),
        var=pd.DataFrame(index=np.array(checkpoint.genes, dtype=object)),
    )
    try:
        shared_counts(measured, match_names(to_be, measured))
    except UserError as error:
        if args.measured is not None:
            raise
        notices.append(f"The table's own measured values were left out: {error}")
        return None
    return measured


def read_genes(path: Path, checkpoint: "Checkpoint") -> list[str]:
    """Read a list of genes; aliases (HER2) become the symbols of the weights.

    Raises
    ------
    UserError
        When the file cannot be read, is empty, or names genes the weights do not know.
    """
    from napari_flag.gene_names import GeneNames

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} cannot be read as text, so it is no list of genes; give a text file with "
            "one gene a line."
        ) from error
    found = GeneNames(checkpoint.genes, checkpoint.name).split(text)
    if found.unknown:
        names = [name for name, _ in found.unknown]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise UserError(
            f"{path.name} asks for genes that the weights {checkpoint.name} do not know "
            f"({', '.join(names[:10])}{more}); take them out, or see what there is with: "
            f"napari-flag weights show {checkpoint.name}"
        )
    if not found.known:
        raise UserError(f"{path.name} names no genes; write one gene a line.")
    return list(found.known)


def slide_stem(path: Path) -> str:
    """Return the name of a slide file without its ending."""
    from napari_flag.slides.slide import slide_name

    return slide_name(path)
