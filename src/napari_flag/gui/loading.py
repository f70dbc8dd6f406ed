"""Reads what files and folders hold, for the workspace: each thing as soon as it is there."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag import discovery, inputs
from napari_flag.analysis.pathways import read_gmt
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import (
    UnitUnknown,
    holds_prediction,
    is_foreign,
    name_by_place,
    read_any_prediction,
)
from napari_flag.layers import ahead
from napari_flag.prediction_doubts import doubts_of
from napari_flag.prediction_file import UNNAMED, read_regions, slide_hash, slide_name
from napari_flag.progress import Step, Steps
from napari_flag.slide_identity import has_content_of, is_made_on
from napari_flag.slides.formats.geojson import Annotation, read_annotations
from napari_flag.slides.formats.spatial_data import IMAGES, SHAPES, TABLES, Unclear, element_of
from napari_flag.slides.spot_tables import needs_pooling, read_measured
from napari_flag.workspace_file import WorkspaceFile, WorkspaceSlide, read_workspace

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots


@dataclass(frozen=True, slots=True)
class KnownSpots:
    """Spots of a slide that is open: its name, the spots, and the table they are from."""

    slide: str
    spots: "Spots"
    source: str


@dataclass(frozen=True, slots=True)
class Opened:
    """Something that was read, for the workspace.

    Parameters
    ----------
    file
        What was opened; tables and regions go to the slide it is named after.
    name
        As the slide is to be listed; "" takes the slide's own.
    slide
        Open, with a pyramid; None where only the rest is known.
    table, measured, grid
        Where its spots and counts are read from; `measured` alone is to be pooled into the spots it gets.
    predictions
        Each with its name ("" for that of its file) and file, None where it is not saved.
    shown
        Which of the predictions to show; None shows the last.
    regions
        In level-0 pixels.
    counts
        Raw counts that belong to the slide shown.
    """

    file: Path
    name: str = ""
    slide: "Slide | None" = None
    table: Path | None = None
    measured: Path | None = None
    grid: inputs.Grid | None = None
    predictions: "tuple[tuple[AnnData, str, Path | None], ...]" = ()
    shown: "AnnData | None" = None
    regions: tuple[Annotation, ...] = ()
    counts: "AnnData | None" = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """What `load` found.

    Parameters
    ----------
    opened
        How many things were read.
    strangers
        Paths that hold nothing of ours.
    workspace
        What was looked at in a workspace that was opened, or None.
    gene_sets
        Those that the workspace names, or None where it names none or they could not be read.
    no_unit
        Predictions of other programs that were not opened, since they do not state the unit of their values.
    unclear
        SpatialData zarrs that were not opened, since several of their elements may be meant.
    """

    opened: int
    strangers: tuple[Path, ...] = ()
    workspace: WorkspaceFile | None = None
    gene_sets: dict[str, tuple[str, ...]] | None = None
    no_unit: tuple[Path, ...] = ()
    unclear: tuple[Unclear, ...] = ()


def load(
    paths: Sequence[Path],
    *,
    known: "Sequence[Slide]" = (),
    unsaved: Path | None = None,
    units: Mapping[Path, str] | None = None,
    tables: Sequence[KnownSpots] = (),
    elements: Mapping[Path, Mapping[str, str]] | None = None,
    images: Sequence[Path] = (),
    warmed: Callable[[], object] = lambda: None,
) -> Steps[Arrived]:
    """Read what `paths` hold; each thing is the ``partial`` of a step, a failure its ``notice``.

    Parameters
    ----------
    paths
        Files and folders, as `discovery.discover` takes them.
    known
        Slides that are open; they are not looked for.
    unsaved
        Folder whose predictions count as not saved (that of an autosave).
    units
        File of another program → unit of its values, where that was asked for.
    tables
        Spots of the slides that are open, that of the slide shown first: files that number their tiles are
        named after them.
    elements
        SpatialData zarr → names of its elements, as `discovery.discover` takes them, where they were asked
        for.
    images
        Of the slides that are open, on which predictions of the same SpatialData zarr lie.
    warmed
        Called once what reading and drawing need is loaded, before anything is read.
    """
    count, strangers, workspace, sets = 0, [], None, None
    asked, no_unit = units or {}, []
    unclear: list[Unclear] = []
    yield from ahead.warm_up()
    warmed()
    for path in paths:
        yield Step(f"Looking into {path.name}", 0)
        try:
            found = discovery.discover(path, (elements or {}).get(path))
            whole = None if found.workspace is None else read_workspace(found.workspace)
        except UserError as error:
            yield Step(f"Opening {path.name}", 0, notice=str(error))
            continue
        if not found:
            strangers.append(path)
        unclear += found.unclear
        for notice in found.notices:
            if notice in map(str, found.unclear):
                continue  # is asked for
            yield Step(f"Opening {path.name}", 0, notice=notice)
        if whole is not None:
            workspace, sets = whole, None
            for missing in whole.missing:
                yield Step(
                    f"Opening {path.name}",
                    0,
                    notice=f"{missing} is not there any more, so it was left out; put it back and open the "
                    "workspace again.",
                )
            if whole.gene_sets is not None and os.path.exists(whole.gene_sets):
                try:
                    sets = read_gmt(whole.gene_sets)
                except UserError as error:
                    yield Step(f"Opening {path.name}", 0, notice=str(error))
        readings: list[tuple[Path, Steps[Opened]]] = []
        for slide in () if whole is None else whole.slides:
            readings.append((slide.slide or path, _load_remembered(slide, unsaved)))
        if found.sections and path.is_dir():
            yield Step(f"Opening {path.name}", 0, notice=_say_sections(path, found.sections))
        readings += [(section.slide, _load_section(section)) for section in found.sections]
        pictures = (*images, *(section.slide for section in found.sections))
        readings += [
            (file, _load_prediction(file, known, asked.get(file), tables, _beside(file, pictures)))
            for file in found.predictions
        ]
        readings += [(file, _load_table(file, known, asked.get(file), tables)) for file in found.tables]
        readings += [(file, _load_regions(file)) for file in found.regions]
        for number, (file, reading) in enumerate(readings):
            try:
                opened = yield from reading
            except UnitUnknown as error:
                no_unit.append(error.path)
                continue
            except UserError as error:
                yield Step(f"Opening {file.name}", number, len(readings), notice=str(error))
                continue
            count += 1
            yield Step(f"Opening {file.name}", number + 1, len(readings), partial=opened)
    return Arrived(count, tuple(strangers), workspace, sets, tuple(no_unit), tuple(unclear))


def _say_sections(folder: Path, sections: Sequence[discovery.FoundSection]) -> str:
    if len(sections) == 1:
        return sections[0].why
    tables = sum(section.table is not None for section in sections)
    counts = sum(section.measured is not None for section in sections)
    counted = f", {counts} with a file of counts" if counts else ""
    return f"{folder.name}: {len(sections)} slides, {tables} with a table of spots{counted}."


def _load_section(section: discovery.FoundSection) -> Steps[Opened]:
    slide = yield from inputs.open_with_pyramid(section.slide)
    return Opened(section.slide, slide=slide, table=section.table, measured=section.measured)


def _beside(file: Path, images: Sequence[Path]) -> Path | None:
    """Return the only one of `images` that is in the zarr that a table or shapes is in."""
    found = element_of(file, TABLES, SHAPES)
    stores = {} if found is None else {image: element_of(image, IMAGES) for image in images}
    same = [image for image, store in stores.items() if store and found and store[0].path == found[0].path]
    return same[0] if len(same) == 1 else None


def _load_prediction(
    file: Path,
    known: "Sequence[Slide]",
    unit: str | None,
    tables: Sequence[KnownSpots],
    image: Path | None = None,
) -> Steps[Opened]:
    yield Step(f"Opening {file.name}", 0)
    adata = _on_spots(read_any_prediction(file, unit, image=image), file, tables)
    for doubt in doubts_of(adata)[:1]:  # the rest is said where it is compared
        yield Step(f"Opening {file.name}", 0, notice=doubt)
    yield from ahead.prepare(adata)
    slide = None
    unnamed = slide_name(adata) == UNNAMED and bool(known)
    here = [slide for slide in known if is_made_on(adata, slide)]
    another = slide_hash(adata) is not None and not any(has_content_of(adata, slide.path) for slide in here)
    if not unnamed and (not here or another):
        found = discovery.find_slide(adata, file)
        if here and (found.path is None or not has_content_of(adata, found.path)):
            pass  # no better than the slide of its name and size that is open
        elif found.path is None:
            yield Step(f"Opening {file.name}", 0, notice=found.why)
        else:
            slide = yield from inputs.open_with_pyramid(found.path)
    regions: tuple[Annotation, ...] = ()
    try:
        regions = tuple(read_regions(adata))
    except UserError as error:
        yield Step(f"Opening {file.name}", 0, notice=str(error))
    return Opened(
        file,
        slide=slide,
        table=None if file.is_dir() else file,
        predictions=((adata, "", file),),
        regions=regions,
    )


def _on_spots(adata: "AnnData", file: Path, tables: Sequence[KnownSpots]) -> "AnnData":
    """Name the rows of another program's file after the spots they lie on, where it does not know these."""
    if not is_foreign(adata) or not tables:
        return adata
    owner = discovery.owner_of(file.name, [table.slide for table in tables])
    table = next((table for table in tables if table.slide == owner), tables[0])
    if adata.obs_names.isin(table.spots.ids).any():
        return adata
    try:
        return name_by_place(adata, table.spots, table.source)
    except UserError:  # tiles of its own, which are shown where they lie
        return adata


def _load_table(
    file: Path, known: "Sequence[Slide]", unit: str | None, tables: Sequence[KnownSpots]
) -> Steps[Opened]:
    yield Step(f"Opening {file.name}", 0)
    kind = discovery.kind_of(file)
    if kind == "spots":
        return Opened(file, table=file)
    if kind == "annotated" and (unit is not None or holds_prediction(file)):
        return (yield from _load_prediction(file, known, unit, tables))
    if needs_pooling(file):
        return Opened(file, measured=file)
    return Opened(file, table=file, counts=read_measured(file))


def _load_regions(file: Path) -> Steps[Opened]:
    yield Step(f"Opening {file.name}", 0)
    return Opened(file, regions=tuple(read_annotations(file)))


def _load_remembered(entry: WorkspaceSlide, unsaved: Path | None) -> Steps[Opened]:
    """Read what a workspace names of one slide; what of it cannot be read is said, and the rest returned."""
    yield Step(f"Opening {entry.name}", 0)
    slide = None
    if entry.slide is not None and entry.slide.exists():
        try:
            slide = yield from inputs.open_with_pyramid(entry.slide)
        except UserError as error:
            yield Step(f"Opening {entry.name}", 0, notice=str(error))
    if slide is not None and entry.um_per_px is not None and entry.um_per_px != slide.mpp:
        slide = slide.with_mpp(entry.um_per_px, entry.um_per_px_source)
    predictions, shown = [], None
    for place, prediction in enumerate(entry.predictions):
        path = prediction.path
        yield Step(f"Opening {path.name}", place, len(entry.predictions))
        if not path.exists():
            continue
        image = _beside(path, () if entry.slide is None else (entry.slide,))
        try:
            adata = read_any_prediction(path, prediction.unit or None, image=image)
            yield from ahead.prepare(adata)
        except UserError as error:
            yield Step(f"Opening {path.name}", place, len(entry.predictions), notice=str(error))
            continue
        saved = unsaved is None or not path.is_relative_to(unsaved)
        predictions.append((adata, prediction.name, path if saved else None))
        if place == entry.shown:
            shown = adata
    if slide is None and not predictions:
        raise UserError(
            f"{entry.name} was left out, since neither its slide nor a prediction of it could be opened; put "
            "them back and open the workspace again."
        )
    return Opened(
        entry.slide or Path(entry.name),
        name=entry.name,
        slide=slide,
        table=entry.table,
        measured=entry.measured,
        grid=entry.grid,
        predictions=tuple(predictions),
        shown=shown,
        regions=entry.regions,
    )
