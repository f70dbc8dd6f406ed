"""What a prediction starts from: slide, spots, µm/px, counts and notices, for every way in.

The command line, the docks, the demo and a notebook all ask here, so the same slide and the same
weights give the same spots whichever of them is used.  Which slide of a folder, with which spots and
counts, is asked of `discovery` before.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import keys, preflight
from napari_flag.errors import UserError
from napari_flag.formatting import counted, first_of
from napari_flag.model.checkpoint import TrainedArray, trained_array
from napari_flag.progress import Step, Steps
from napari_flag.slide_identity import without_names, without_personal_names
from napari_flag.slides.colours import Colours, colours_of
from napari_flag.slides.file_identity import content_hash
from napari_flag.slides.formats.positions import ST_DIAMETER_UM, ST_PITCH_UM
from napari_flag.slides.formats.space_ranger import VISIUM_PITCH_UM
from napari_flag.slides.slide import SET_BY_HAND, Slide, build_pyramid, open_slide
from napari_flag.slides.spot_tables import measured_at, needs_pooling, read_measured, read_spots
from napari_flag.slides.spots import Lattice, Spots, SpotTable, grid_over, matched, typical_pitch

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.prediction import KnownDepth, Quality
    from napari_flag.slides.pooling import Picture


@dataclass(frozen=True, slots=True)
class Grid:
    """Spots to lay: centre-to-centre distance and diameter in µm, and how rows are arranged."""

    spacing_um: float
    diameter_um: float
    lattice: Lattice


LEGACY_ST: Final = Grid(ST_PITCH_UM, ST_DIAMETER_UM, "square")
"""The array taken where the weights' card states none (Ståhl et al., Science 2016)."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a prediction needs besides the weights.

    Parameters
    ----------
    slide
        Open, with known µm/px.
    spots
        All spots on the tissue, centres (x, y) in level-0 pixels.
    region
        Polygons in level-0 pixels to predict in, or None for all spots.
    genes
        Symbols of the weights to keep, or None for all.
    measured
        Raw counts of the spots, rows named by spot id, or None.
    notices
        Sentences shown to the user so far.
    image_scale
        Level-0 px per px of the full-resolution slide, as of `SpotTable`.
    files
        What was read beside the slide, which notices may name.
    """

    slide: Slide
    spots: Spots
    region: "Sequence[BaseGeometry] | None" = None
    genes: Sequence[str] | None = None
    measured: "AnnData | None" = None
    notices: tuple[str, ...] = ()
    image_scale: float = 1.0
    files: tuple[Path, ...] = ()


def prepare(
    slide: Slide | str | Path,
    checkpoint: "Checkpoint",
    *,
    spots: SpotTable | Spots | str | Path | None = None,
    measured: "AnnData | str | Path | None" = None,
    alignment: str | Path | None = None,
    mpp: float | None = None,
    spacing_um: float | None = None,
    diameter_um: float | None = None,
    region: "Sequence[BaseGeometry] | str | Path | None" = None,
    genes: Iterable[str] | Path | None = None,
    force: bool = False,
    said: Sequence[str] = (),
) -> Steps[Inputs]:
    """Open the slide, settle its scale, find its spots, and read what else is given.

    Parameters
    ----------
    slide
        A slide, or its file.
    checkpoint
        The weights; without `spots`, a grid like their array is laid over the tissue.
    spots
        Spots, or the table they are in (see `slides.spot_tables.read_spots`).
    measured
        Raw counts of these spots, or their file; None takes those of the table.  Transcripts, cells and
        bins (see `slides.spot_tables.located_counts`) are pooled into the spots, also into those of a grid.
    alignment
        Alignment file that places transcripts and cells on the slide; None looks for it beside them.
    mpp
        µm per pixel of the full-resolution slide (`with_given_scale`); None takes the file's, else the
        table's.
    spacing_um, diameter_um
        Of the grid, or of the table's array; None takes the weights' or the table's.
    region
        Polygons in level-0 pixels, or a GeoJSON file.
    genes
        Symbols or aliases, or a text file (a `Path`) with one a line.
    force
        Take counts that look wrong (`analysis.truth.doubts_about`), with a notice.
    said
        Notices of how slide, spots and counts were found (`discovery.source_of`).

    Yields
    ------
    Steps; each notice once.

    Raises
    ------
    UserError
        For anything that would fail later; a slide that was opened here is then closed again.
    """
    from napari_flag.slides.formats.geojson import read_regions

    pooled = isinstance(measured, str | Path) and needs_pooling(measured)
    if measured is not None and spots is None and not pooled:
        raise UserError(
            "Measured counts belong to the spots of a table and not to a grid, so --measured needs "
            "--spots; give the table of these spots too."
        )
    if alignment is not None and measured is None:
        raise UserError(
            "An alignment file places measured transcripts and cells on the image, and none are given; give "
            "them (--measured), or leave --alignment out."
        )
    wanted = None if genes is None else choose_genes(genes, checkpoint)
    polygons = read_regions(Path(region)) if isinstance(region, str | Path) else region
    opened = isinstance(slide, str | Path)
    yield Step("Opening slide", 0)
    for notice in said:
        yield Step("Opening slide", 0, notice=notice)
    if isinstance(slide, str | Path):
        slide = open_slide(slide, mpp=mpp)
    elif mpp is not None:
        slide = slide.with_mpp(mpp, SET_BY_HAND)
    try:
        table: SpotTable | None
        if isinstance(spots, Spots):
            table = SpotTable(spots, None, "spots")
        elif isinstance(spots, str | Path):
            table = yield from read_table(Path(spots), slide)
        else:
            table = spots
        if mpp is not None:
            slide = with_given_scale(slide, mpp, table)
        slide, doubts = settle_scale(slide, table)
        notices = [*slide.notices, *(() if table is None else table.notices), *doubts]
        if slide.mpp is None:
            preflight.check(slide, table).refuse()
        if table is None:
            grid = grid_of(checkpoint.card, spacing_um, diameter_um)
            table = yield from lay_grid(slide, grid, fallback=polygons)
            notices += table.notices
        else:
            table = _with_array(table, spacing_um, diameter_um)
        if measured is not None:
            table, missing = yield from _with_counts(table, measured, slide, alignment)
            notices += missing
        counts = table.measured
        if counts is not None:
            misfit, insisted = _misfit(counts, table.spots, checkpoint, force)
            notices += insisted
            if misfit is not None:
                if measured is not None:
                    raise misfit
                counts = None
                notices.append(f"The table's own measured counts were left out: {misfit}")
        notices = list(dict.fromkeys((*said, *notices)))
        for notice in notices:
            if notice not in said:
                yield Step("Checking spots", 0, notice=notice)
    except BaseException:
        if opened:
            slide.close()
        raise
    given = (spots, measured, alignment, region, genes)
    files = tuple(Path(each) for each in given if isinstance(each, str | Path))
    return Inputs(slide, table.spots, polygons, wanted, counts, tuple(notices), table.image_scale, files)


def read_depth(given: "float | str | Path | AnnData | None") -> "float | AnnData | None":
    """Return a depth as it is given, of a file the raw counts in it, as `known_depth` takes them."""
    return read_measured(given) if isinstance(given, str | Path) else given


def known_depth(
    depth: "float | AnnData | None", spots: Spots, genes: Sequence[str]
) -> "float | KnownDepth | None":
    """Return what a number, or raw counts of some of `spots`, say of the depth of a slide.

    Raises
    ------
    UserError
        When these are no counts, or of no spot or gene that is predicted.
    """
    if depth is None or isinstance(depth, int | float):
        return depth
    import pandas as pd
    from anndata import AnnData

    from napari_flag.analysis.truth import match_names, shared_counts
    from napari_flag.prediction import KnownDepth

    names = AnnData(obs=pd.DataFrame(index=list(spots.ids)), var=pd.DataFrame(index=list(genes)))
    try:
        match = match_names(names, depth, fewest=1)
        counts = shared_counts(depth, match)
    except UserError as error:
        raise UserError(
            f"The counts given for the depth do not say how deep this slide is: {error}"
        ) from error
    return KnownDepth(match.rows, match.columns, float(counts.sum(1).mean()))


def predict_inputs(
    inputs: Inputs,
    checkpoint: "Checkpoint",
    *,
    quality: "Quality" = keys.DEFAULT_QUALITY,
    depth: "float | AnnData | None" = None,
    draws: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    colours: Colours | None = None,
    force: bool = False,
    keep_names: bool = False,
    cluster: str | None = None,
) -> Steps["AnnData"]:
    """Check what stands against it, predict, attach the measured counts, and record every notice.

    Parameters
    ----------
    inputs
        Slide, spots and what else was asked for.
    checkpoint, quality, draws, steps, seed, device, colours
        As `prediction.predict_slide` takes them.
    depth
        As `known_depth` takes it.
    force
        Use weights made for simulated slides on another slide, and counts that look wrong, with a notice.
    keep_names
        Keep names of files that may be a patient's (`slide_identity.without_personal_names`).
    cluster
        Dask workers that read and encode the tiles (`cluster.spread`); None does so here.

    Yields
    ------
    Steps of `prediction.predict_slide`, whose ``partial`` is the preview.

    Returns
    -------
    The prediction, with ``layers["measured"]`` where counts are known.

    Raises
    ------
    UserError
        For options that there are none of, what `preflight.check` finds blocking, and as
        `prediction.predict_slide`.
    """
    _check_options(quality, draws, steps, seed, colours)
    yield Step("Looking at the slide", 0)
    look = preflight.look_at(inputs.slide)
    checked = preflight.check(
        inputs.slide, inputs.spots, checkpoint, look=look, force=force, scale=inputs.image_scale
    )
    checked.refuse()
    warnings = (*checked.warnings, *preflight.off_tissue(inputs.slide, inputs.spots))
    for warning in warnings:
        yield Step("Looking at the slide", 0, notice=warning)
    yield Step("Loading the model", 0)
    from napari_flag import prediction
    from napari_flag.analysis.truth import attach_measured

    adata = yield from prediction.predict_slide(
        inputs.slide,
        inputs.spots,
        checkpoint,
        region=inputs.region,
        genes=inputs.genes,
        quality=quality,
        depth=known_depth(depth, inputs.spots, checkpoint.genes),
        draws=draws,
        steps=steps,
        seed=seed,
        device=device,
        colours=colours,
        cluster=cluster,
    )
    notices = [*inputs.notices, *warnings]
    if inputs.measured is not None:
        try:
            attach_measured(adata, inputs.measured, force=force)
        except UserError as error:  # the prediction is whole without
            notices.append(f"No measured counts were attached to the prediction: {error}")
            yield Step("Attaching counts", 0, notice=notices[-1])
    recorded = adata.uns[keys.PROVENANCE]
    said_of_it = (*notices, *(str(notice) for notice in recorded.get(keys.NOTICES, ())))
    files = (inputs.slide.path, *inputs.files)
    recorded[keys.NOTICES] = [without_names(text, files, keep_names) for text in dict.fromkeys(said_of_it)]
    adata, said = without_personal_names(adata, keep_names)
    for notice in said:
        yield Step("Naming the slide", 0, notice=notice)
    return adata


def check_steps(quality: str, steps: int | None) -> None:
    """Refuse a number of solver steps beside a quality, which says it too."""
    if steps is not None and quality != keys.DEFAULT_QUALITY:
        raise UserError(
            f"The quality {quality} and {counted(steps, 'step')} both say how many solver steps are taken; "
            "leave one of them out."
        )


def _check_options(quality: str, draws: object, steps: int | None, seed: object, colours: object) -> None:
    """Refuse what a notebook may give and the command line and the window do not offer."""
    if quality not in tuple(keys.STEPS_OF):
        raise UserError(f"There is no quality {quality!r}; give one of {', '.join(keys.STEPS_OF)}.")
    colours_of(colours, "colours=")
    for name, value, least in (("draws", draws, 1), ("steps", steps, 1), ("seed", seed, 0)):
        if name != "seed" and value is None:
            continue
        if not isinstance(value, Integral) or value < least:
            raise UserError(f"{name}={value!r} is no whole number from {least} on; give one such as {least}.")
    check_steps(quality, steps)


# --- slide and scale -----------------------------------------------------------------------------


def open_with_pyramid(path: Path) -> Steps[Slide]:
    """Open a slide to look at: one without a useful pyramid gets a cached one; its colours are read."""
    yield Step("Opening slide", 0)
    slide = yield from build_pyramid(open_slide(path))
    yield Step("Looking at the slide", 0)
    with suppress(UserError):  # a damaged level: the prediction says so, where it is needed
        preflight.look_at(slide)
    content_hash(slide.path)  # is kept too: the window asks whether predictions are of this slide
    return slide


def with_given_scale(slide: Slide, mpp: float, table: SpotTable | None) -> Slide:
    """Return the slide at the µm/px that a person gave.

    Parameters
    ----------
    slide
        The slide at hand.
    mpp
        µm per pixel of the full-resolution slide, as a scanner states it.
    table
        Its spots, which tell whether it is a smaller copy, as Space Ranger's hires image; None of none.
    """
    if table is None or table.image_scale == 1:
        return slide.with_mpp(mpp, SET_BY_HAND)
    return slide.with_mpp(mpp / table.image_scale, f"{SET_BY_HAND} for the full-resolution slide")


def settle_scale(slide: Slide, table: SpotTable | None = None) -> tuple[Slide, tuple[str, ...]]:
    """Take the table's µm/px where the slide's is unknown, and doubt what looks wrong.

    Returns
    -------
    slide
        With the µm/px given or in its file, else the table's; never a guess, so perhaps None.
    notices
        A sentence where µm/px is implausible, or differs from what the spots' array suggests.
    """
    from napari_flag.slides.resolution import check_mpp

    if slide.mpp is None and table is not None and table.mpp is not None:
        slide = slide.with_mpp(table.mpp, table.mpp_source)
    if slide.mpp is None:
        return slide, ()
    suggested = None if table is None else preflight.suggested_mpp(table.spots)
    scale = 1.0 if table is None else table.image_scale
    doubt = check_mpp(slide.mpp, slide.mpp_source, suggested, scale)
    return slide, (doubt,) if doubt else ()


# --- spots ---------------------------------------------------------------------------------------


def read_table(path: Path, slide: Slide) -> Steps[SpotTable]:
    """Read the spots of a table, folder or h5ad that belong to `slide`."""
    yield Step("Reading spots", 0)
    table = read_spots(path, slide=slide)
    yield Step("Looking at the spots", 0)
    preflight.suggested_mpp(table.spots)  # all three are kept: the window asks for them, and must not wait
    preflight.placed(table.spots)
    typical_pitch(table.spots.xy)
    return table


def _with_array(table: SpotTable, spacing_um: float | None, diameter_um: float | None) -> SpotTable:
    """Return `table` with the spacing and diameter given instead of its own."""
    spots = table.spots
    if spacing_um is not None:
        spots = replace(spots, pitch_um=spacing_um)
    if diameter_um is not None:
        spots = replace(spots, diameter_um=diameter_um)
    return replace(table, spots=spots)


def grid_of(
    card: Mapping[str, Any], spacing_um: float | None = None, diameter_um: float | None = None
) -> Grid:
    """Return the grid that is like the array the weights were trained on; of several, the finest.

    Where the card states no distance between spots, or several, `prediction.compare_with_training` says so.

    Parameters
    ----------
    card
        The weights' card; its ``array`` states pitch, diameter and lattice.
    spacing_um, diameter_um
        What the user asked for instead, in µm.
    """
    array = trained_array(card)
    spacing = spacing_um or min(array.pitches_um, default=LEGACY_ST.spacing_um)
    diameter = diameter_um or min(*array.diameters_um[:1] or (LEGACY_ST.diameter_um,), spacing)
    return Grid(spacing, diameter, _lattice_of(array))


def _lattice_of(array: TrainedArray) -> Lattice:
    """Return how the training array's rows are arranged.

    Cards of weights made before the lattice was recorded (the shipped ones) name the technology or
    at least the pitch: Visium arrays are hexagonal with 100 µm between spots, legacy ST arrays are
    square with 200 µm; Visium HD is a square raster.
    """
    match array.lattices:
        case ("square",):
            return "square"
        case ("hex",):
            return "hex"
    technology = array.technology.casefold()
    if technology:
        return "hex" if "visium" in technology and "hd" not in technology.split() else "square"
    return "hex" if array.pitches_um[:1] == (VISIUM_PITCH_UM,) else LEGACY_ST.lattice


def lay_grid(
    slide: Slide,
    grid: Grid,
    *,
    polygons: "Sequence[BaseGeometry] | None" = None,
    fallback: "Sequence[BaseGeometry] | None" = None,
) -> Steps[SpotTable]:
    """Lay a grid of spots over the tissue or inside polygons, never off the slide.

    Parameters
    ----------
    slide
        With known µm/px.
    grid
        Distances and lattice.
    polygons
        Level-0 pixels; None lays the grid over all detected tissue.
    fallback
        Polygons to take where no tissue is detected.

    Raises
    ------
    UserError
        When µm/px is unknown, there is no tissue, or no spot fits.
    """
    from napari_flag.slides.tissue import find_tissue

    if slide.mpp is None:
        raise UserError(
            "A grid is laid in µm but the µm/px of this slide are not known; set them first "
            "(--mpp on the command line)."
        )
    area: Any = polygons
    notices: tuple[str, ...] = ()
    if polygons is None:
        yield Step("Finding tissue", 0)
        area = find_tissue(slide)
        if fallback is not None and not area.mask.any():
            area = polygons = fallback
            notices = (
                "No tissue was found on the slide, so the grid covers the regions only, and spots are "
                "judged against these instead of the whole section.",
            )
    yield Step("Laying spots", 0)
    spots = grid_over(
        area, slide.mpp, grid.spacing_um, grid.diameter_um, lattice=grid.lattice, slide_size=slide.size
    )
    where = "tissue" if polygons is None else "drawn regions"
    return SpotTable(spots, None, f"{grid.lattice} grid over {where}", notices)


# --- counts and genes ----------------------------------------------------------------------------


def _with_counts(
    table: SpotTable, measured: "AnnData | str | Path", slide: Slide, alignment: str | Path | None
) -> Steps[tuple[SpotTable, tuple[str, ...]]]:
    """Return `table` with the counts of its spots, and what there is to say of them."""
    if not isinstance(measured, str | Path):
        joined = matched(table, measured, Path("the measured counts"))
        return joined, joined.notices[len(table.notices) :]
    counts, said = yield from counts_at(measured, table.spots, slide.mpp, slide, alignment)
    joined = matched(table, counts, Path(measured))
    # pooling has said which spots have no counts
    return joined, said or joined.notices[len(table.notices) :]


def counts_at(
    measured: str | Path,
    spots: Spots,
    mpp: float | None,
    image: "Slide | Picture",
    alignment: str | Path | None = None,
) -> Steps[tuple["AnnData", tuple[str, ...]]]:
    """Read raw counts of `spots`, as `slides.spot_tables.measured_at`.

    The registration of what is pooled is checked on the tissue of `image` where that is an open slide.
    """
    from napari_flag.slides.tissue import find_tissue

    checked = isinstance(image, Slide) and needs_pooling(measured)
    if checked:
        yield Step("Finding tissue", 0)
    tissue = find_tissue(image) if checked and isinstance(image, Slide) else None
    return (yield from measured_at(measured, spots, mpp, image, tissue=tissue, alignment=alignment))


def _misfit(
    measured: "AnnData", spots: Spots, checkpoint: "Checkpoint", force: bool
) -> tuple[UserError | None, tuple[str, ...]]:
    """Return why `measured` cannot be attached to a prediction of `spots`, None where it can; and doubts."""
    from napari_flag.analysis.truth import (
        match_names,
        refuse_doubts,
        remarks_on,
        repeated_genes,
        shared_counts,
    )

    predicted = _to_be_predicted(spots, checkpoint.genes)
    try:
        match = match_names(predicted, measured)
        shared_counts(measured, match)
        twice = repeated_genes(measured, match)
        doubts = refuse_doubts(predicted, measured, match, force)
        return None, (*doubts, *remarks_on(predicted, measured, match), *(() if twice is None else (twice,)))
    except UserError as error:
        return error, ()


def look_at_counts(measured: "AnnData", spots: Spots) -> tuple[int, tuple[str, ...]]:
    """Return how many of `spots` have raw counts, and why these may be wrong (`truth.doubts_about`).

    Raises
    ------
    UserError
        When the counts cannot be those of these spots, as `truth.match_names`.
    """
    from napari_flag.analysis.truth import doubts_about, match_names

    predicted = _to_be_predicted(spots, measured.var_names.unique())
    match = match_names(predicted, measured)
    return len(match.rows), doubts_about(predicted, measured, match)


def _to_be_predicted(spots: Spots, genes: "Iterable[str]") -> "AnnData":
    """Return a prediction of `spots` as it is named and placed, without values."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    return AnnData(
        obs=pd.DataFrame(index=np.array(spots.ids, dtype=object)),
        var=pd.DataFrame(index=np.array(list(genes), dtype=object)),
        obsm={keys.SPATIAL: spots.xy},
    )


def choose_genes(genes: Iterable[str] | Path, checkpoint: "Checkpoint") -> list[str]:
    """Return the symbols of the weights for symbols and aliases (HER2) given.

    Raises
    ------
    UserError
        When a file cannot be read, the list is empty, or it names genes the weights do not know.
    """
    from napari_flag.gene_names import GeneNames

    source = genes.name if isinstance(genes, Path) else "The list of genes"
    found = GeneNames(checkpoint.genes, checkpoint.name).split(genes)
    if found.unknown:
        names = [name for name, _ in found.unknown]
        raise UserError(
            f"{source} asks for genes that the weights {checkpoint.name} do not know "
            f"({first_of(names, 10)}); take them out, or see what there is with: "
            f"napari-flag weights show {checkpoint.name}"
        )
    if not found.known:
        raise UserError(f"{source} names no genes; write one gene a line.")
    return list(found.known)
