"""What a file or folder that a person drops holds: sections with their tables, results, regions."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag.discovery.kinds import (
    PICTURE_ENDINGS,
    SLIDE_SIDE_PX,
    Kind,
    is_derived,
    is_dicom_slide,
    is_unreadable,
    kind_of,
    rgb_size,
)
from napari_flag.discovery.search import IMAGE_FOLDERS, TABLE_FOLDERS, Search, inside_of, listed, owner_of
from napari_flag.discovery.space_ranger_image import full_resolution_image
from napari_flag.errors import UserError
from napari_flag.files import ending, refuse_missing
from napari_flag.foreign_prediction import holds_prediction, is_zarr_table
from napari_flag.formatting import first_of, px, whole
from napari_flag.slides.formats import in_situ, space_ranger, spatial_data
from napari_flag.slides.formats.bins import bins_of
from napari_flag.slides.slide import slide_name

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots, SpotTable


@dataclass(frozen=True, slots=True)
class FoundSection:
    """One slide and what belongs to it.

    Parameters
    ----------
    slide
        The file, or a folder of DICOM files; as `slides.slide.open_slide` takes it.
    table
        Its spots, as `slides.spot_tables.read_spots` takes them, or None.
    measured
        Raw counts of these spots where they are in a file of their own; None where `table` has them, or none.
    why
        One sentence: which image was taken and why, and where spots and counts come from.
    """

    slide: Path
    table: Path | None
    measured: Path | None
    why: str

    @property
    def name(self) -> str:
        """Name of the slide."""
        return slide_name(self.slide)


@dataclass(frozen=True, slots=True)
class Found:
    """What a file or folder holds.

    Parameters
    ----------
    sections
        Slides with their tables, by name.
    predictions
        Files of `prediction_file`, and tables of SpatialData.
    tables
        Tables of spots or counts that belong to no slide found here.
    regions
        GeoJSON files.
    workspace
        A file of `workspace_file`, or None.
    notices
        Sentences for the user: what was not taken and why.
    unclear
        SpatialData zarrs of which nothing was taken, since several elements may be meant.
    """

    sections: tuple[FoundSection, ...] = ()
    predictions: tuple[Path, ...] = ()
    tables: tuple[Path, ...] = ()
    regions: tuple[Path, ...] = ()
    workspace: Path | None = None
    notices: tuple[str, ...] = ()
    unclear: tuple[spatial_data.Unclear, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to open."""
        held = (self.sections, self.predictions, self.tables, self.regions, self.unclear)
        return any(held) or self.workspace is not None

    def section_of(self, path: Path) -> FoundSection | None:
        """Return the section that a file (regions, a prediction) is named after: C5_x.geojson → C5."""
        owner = owner_of(path.name, [section.name for section in self.sections])
        return next((section for section in self.sections if section.name == owner), None)


def discover(path: str | Path, elements: Mapping[str, str] | None = None) -> Found:
    """Return what `path` holds.

    Parameters
    ----------
    path
        A file: a slide, an h5ad, a table of spots or counts, a GeoJSON, a workspace.  Or a folder: Space
        Ranger's output, legacy ST (``images/``, ``spots/``, ``counts/``), HEST-1k (``wsis/`` or one
        picture, ``st/``), a SpatialData zarr, a Xenium or CosMx run, DICOM files, or slides with tables of
        the same name beside them, also in subfolders one level down.
    elements
        Of a SpatialData zarr that `path` is: names by "image", "shapes" and "table", as `spatial_data.choose`
        takes them.

    Returns
    -------
    Empty (False) where there is nothing to open, then with a notice that says why.

    Raises
    ------
    UserError
        When there is no such file or folder.
    """
    path = Path(path).expanduser()
    path = path if path.name not in ("", "..") else path.resolve()
    refuse_missing(path)
    search = Search()
    if not os.path.isdir(path):
        return _in_file(path)
    if spatial_data.is_store(path):
        holdings = _Holdings()
        _add_store(path, holdings, search, elements)
        return holdings.found(path, search)
    if spatial_data.element_of(path, spatial_data.IMAGES) is not None:
        return Found(sections=(FoundSection(path, None, None, f"{path.name} is the image given."),))
    if spatial_data.element_of(path, spatial_data.TABLES, spatial_data.SHAPES) is not None:
        return Found(predictions=(path,)) if holds_prediction(path) else Found(tables=(path,))
    if is_zarr_table(path):
        return Found(predictions=(path,))
    holdings = _in_folder(path, search)
    return holdings.found(path, search)


@dataclass(frozen=True, slots=True)
class Source:
    """What one slide is predicted from, as `inputs.prepare` takes it.

    Parameters
    ----------
    slide, spots, measured
        As given, else as found beside the slide; None for spots that are to be laid, and for no counts.
    notices
        What was found and why, and what was not taken; none where nothing had to be looked for.
    """

    slide: "Slide | Path"
    spots: "SpotTable | Spots | str | Path | None" = None
    measured: "AnnData | str | Path | None" = None
    notices: tuple[str, ...] = ()


def source_of(
    slide: "Slide | str | Path",
    spots: "SpotTable | Spots | str | Path | None" = None,
    measured: "AnnData | str | Path | None" = None,
    *,
    image: str | None = None,
    shapes: str | None = None,
    table: str | None = None,
) -> Source:
    """Return what one slide is predicted from: of a folder, its only slide with the spots and counts of it.

    Parameters
    ----------
    slide
        A slide, its file, a folder as `discover` takes it, or a SpatialData zarr.
    spots, measured
        Stay as given; with other spots the counts that were found are not theirs.
    image, shapes, table
        Names of elements of a SpatialData zarr, as `spatial_data.choose` takes them.

    Raises
    ------
    UserError
        When a file is missing, a folder holds no slide, or several, or elements are named of what is no zarr.
    """
    path = Path(slide).expanduser() if isinstance(slide, str | Path) else slide.path
    for given in (slide, spots, measured):
        if isinstance(given, str | Path):
            refuse_missing(Path(given).expanduser())
    if isinstance(slide, str | Path) and spatial_data.is_store(path):
        chosen = spatial_data.choose(path, image=image, shapes=shapes, table=table)
        taken = chosen.spots if spots is None else spots
        return Source(chosen.image, taken, measured, (f"{path.name}: {chosen.why}.",))
    for name, value in (("image", image), ("shapes", shapes), ("table", table)):
        if value is not None:
            raise UserError(
                f"{name} (--{name}) names an element of a SpatialData zarr, and {path} is none; leave it out."
            )
    if not isinstance(slide, str | Path):
        return Source(slide, spots, measured)
    if not path.is_dir() or spatial_data.element_of(path, spatial_data.IMAGES) is not None:
        return Source(path, spots, measured)
    found = discover(path)
    if not found.sections:
        reason = f" ({found.notices[0].rstrip('.')})" if found.notices else ""
        raise UserError(f"{path} holds no slide to predict{reason}; give the slide file itself.")
    if len(found.sections) > 1:
        names = [section.slide.name for section in found.sections]
        raise UserError(
            f"{path} holds {len(names)} slides ({first_of(names, 8)}); give the file of one, with its spots "
            f"and counts; on the command line, e.g.: {_command_for(found.sections[0])}, or all of them with "
            f"--manifest {shlex.quote(str(path))}"
        )
    section = found.sections[0]
    if spots is None:
        spots, measured = section.table, section.measured if measured is None else measured
    return Source(section.slide, spots, measured, (section.why, *found.notices))


def _command_for(section: FoundSection) -> str:
    words = ["napari-flag", "predict", str(section.slide)]
    words += [] if section.table is None else ["--spots", str(section.table)]
    words += [] if section.measured is None else ["--measured", str(section.measured)]
    return shlex.join(words)


def _in_file(path: Path) -> Found:
    match kind_of(path) if os.path.isfile(path) else "":
        case "slide":
            return Found(sections=(FoundSection(path, None, None, f"{_slide_sentence(path)}."),))
        case "prediction":
            return Found(predictions=(path,))
        case "annotated" | "spots" | "counts":
            return Found(tables=(path,))
        case "regions":
            return Found(regions=(path,))
        case "workspace":
            return Found(workspace=path)
    return Found(notices=(_not_taken(path),))


def _not_taken(path: Path) -> str:
    size = rgb_size(path)
    if size is not None:
        return (
            f"{path.name} is not taken for a slide, since a picture of {px(size)} is smaller than "
            f"{whole(SLIDE_SIDE_PX)} px; choose the full-resolution image."
        )
    if ending(path) in PICTURE_ENDINGS:
        if os.path.isfile(path) and is_unreadable(path):
            return _not_readable([path])
        return (
            f"{path.name} is not taken for a slide, since it is no 8-bit RGB picture; choose an H&E image in "
            "colour."
        )
    return (
        f"{path.name} is nothing napari-flag can open; choose a slide, a table of spots, a prediction "
        "(.h5ad), regions (GeoJSON) or a workspace."
    )


def _not_readable(pictures: Sequence[Path]) -> str:
    names = sorted({path.name for path in pictures})
    several = len(names) > 1
    shown = first_of(names, 5)
    return (
        f"{shown} cannot be read as {'pictures and were' if several else 'a picture and was'} left out; "
        f"{'they' if several else 'it'} may be damaged or cut short, so copy {'them' if several else 'it'} "
        "once more, or ask for permission to read."
    )


# --- folders -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Holdings:
    """What was found so far, by kind; tables of `TABLE_FOLDERS` that belong to no slide are `orphans`."""

    slides: list[Path] = field(default_factory=list)
    spots: list[Path] = field(default_factory=list)
    counts: list[Path] = field(default_factory=list)
    predictions: list[Path] = field(default_factory=list)
    regions: list[Path] = field(default_factory=list)
    workspaces: list[Path] = field(default_factory=list)
    sections: list[FoundSection] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    orphans: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    unclear: list[spatial_data.Unclear] = field(default_factory=list)

    def add(self, kind: Kind, path: Path) -> None:
        """Keep a file where its kind belongs."""
        match kind:
            case "slide":
                self.slides.append(path)
            case "spots" | "annotated":
                self.spots.append(path)
            case "counts":
                self.counts.append(path)
            case "prediction":
                self.predictions.append(path)
            case "regions":
                self.regions.append(path)
            case "workspace":
                self.workspaces.append(path)

    def take(self, other: "_Holdings") -> None:
        """Add what was found in a subfolder, whose slides have their tables already."""
        for name in (
            "predictions",
            "regions",
            "workspaces",
            "sections",
            "tables",
            "orphans",
            "unclear",
            "unreadable",
        ):
            getattr(self, name).extend(getattr(other, name))

    def found(self, folder: Path, search: Search) -> Found:
        """Return all of it, with the notices that are due."""
        notices = list(search.notices)
        if self.orphans:
            names = sorted({_first_word(path.name) for path in self.orphans})
            notices.append(
                f"{len(names)} sections of {folder.name} have tables but no image of their name "
                f"({', '.join(names[:5])}{', …' if len(names) > 5 else ''}) and are left out; put their "
                "images beside the others."
            )
        if self.unreadable:
            notices.append(_not_readable(self.unreadable))
        workspace = self.workspaces[0] if len(self.workspaces) == 1 else None
        if len(self.workspaces) > 1:
            notices.append(
                f"{folder.name} holds {len(self.workspaces)} workspaces "
                f"({listed(self.workspaces, folder)}), "
                "so none was taken; open one of them."
            )
        paired = {section.slide for section in self.sections if section.table is not None}
        sections = [s for s in self.sections if s.table is not None or s.slide not in paired]
        everything = (sections, self.predictions, self.tables, self.regions, self.workspaces)
        if not any(everything) and not notices:
            notices.append(
                f"{folder.name} holds no slide, no prediction and no table that napari-flag knows; choose a "
                "folder with slides, or Space Ranger's outs folder."
            )
        return Found(
            tuple(sorted(sections, key=lambda section: (section.name, section.slide))),
            tuple(self.predictions),
            tuple(self.tables),
            tuple(self.regions),
            workspace,
            tuple(dict.fromkeys(notices)),
            tuple(self.unclear),
        )


def _in_folder(folder: Path, search: Search, *, deeper: bool = True) -> _Holdings:
    """Look into a folder, and (`deeper`) into its subfolders one level down."""
    holdings = _Holdings()
    entries = search.look(folder)
    run = _run_in_bins(folder)
    ranger = _ranger_in(folder, search) if run is None else run
    folders = [entry for entry in entries if os.path.isdir(entry)]
    for store in [entry for entry in folders if ending(entry) == ".zarr"]:
        folders.remove(store)  # what is in a zarr is no file of a person's
        if spatial_data.is_store(store):
            _add_store(store, holdings, search)
    files = [(entry, False) for entry in entries if os.path.isfile(entry)]
    if in_situ.find_run(folder) is not None:
        _sort(files, holdings, pictures=True)
        _add_run(folder, holdings)
        return holdings
    if ranger is not None:
        _sort(files, holdings, pictures=False)
        if ranger.outs != folder:
            _sort(((entry, False) for entry in _files(ranger.outs, search)), holdings, pictures=False)
        holdings.tables += [path for path in holdings.spots if ending(path) == ".h5ad"]
        if run is not None:
            _add_bins(run, holdings, search)
        else:
            _add_ranger(ranger, holdings, search)
        return holdings
    for sub in folders:
        if sub.name.lower() in (*IMAGE_FOLDERS, *TABLE_FOLDERS):
            in_tables = sub.name.lower() in TABLE_FOLDERS
            files += [(entry, in_tables) for entry in _files(sub, search)]
    _sort(files, holdings, pictures=True)
    _pair(holdings, folder)
    if deeper:
        for sub in folders:
            if sub.name.lower() not in (*IMAGE_FOLDERS, *TABLE_FOLDERS):
                holdings.take(_in_folder(sub, search, deeper=False))
        if holdings.sections:  # what lies in folders of its own beside slides is another's: clusters, labels
            holdings.tables = [path for path in holdings.tables if path.parent == folder]
    return holdings


def _files(folder: Path, search: Search) -> list[Path]:
    return [entry for entry in search.look(folder) if os.path.isfile(entry)]


def _sort(files: Iterable[tuple[Path, bool]], holdings: _Holdings, *, pictures: bool) -> None:
    """Add files by kind; those marked True are tables only, others that are no table being ignored."""
    listed = list(files)
    parts = [
        slide_name(path).lower() for path, _ in listed if ending(path) in (".vms", ".vmu")
    ]  # Hamamatsu's pictures lie beside as .jpg
    dicom: set[Path] = set()
    for path, only_table in listed:
        end = ending(path)
        if end == ".dcm":
            if pictures and path.parent not in dicom and is_dicom_slide(path):
                dicom.add(path.parent)
                holdings.add("slide", path.parent)
            continue
        picture = end in PICTURE_ENDINGS
        of_hamamatsu = end == ".jpg" and path.name.lower().startswith(tuple(parts))
        if picture and (not pictures or only_table or of_hamamatsu or is_derived(path)):
            continue
        kind = kind_of(path)
        if picture and not kind and is_unreadable(path):
            holdings.unreadable.append(path)
        if (kind != "slide" or pictures) and not (only_table and kind in ("slide", "regions", "workspace")):
            holdings.add(kind, path)


def _ranger_in(folder: Path, search: Search) -> space_ranger.Folder | None:
    try:
        return space_ranger.find_folder(folder)
    except UserError as error:  # Visium HD in several bin sizes
        search.notices.append(str(error))
    except OSError:  # a subfolder that may not be read; `Search.look` has said so
        pass
    return None


def _add_ranger(ranger: space_ranger.Folder, holdings: _Holdings, search: Search) -> None:
    """Add the section of a Space Ranger folder, or where it has no picture, its table and the reason."""
    table = ranger.outs if space_ranger.find_folder(ranger.outs) == ranger else ranger.positions
    try:
        scaling = space_ranger.scaling_of(ranger)
    except UserError as error:
        holdings.tables.append(table)
        search.notices.append(str(error))
        return
    matrix = space_ranger.find_matrix(ranger.outs)
    counts = "no count matrix is there" if matrix is None else f"counts are read from {matrix.name}"
    slide, why = full_resolution_image(ranger, scaling, search)
    if slide is None:
        holdings.tables.append(table)
        search.notices.append(why)
        return
    where = inside_of(ranger.positions, ranger.outs)
    holdings.sections.append(
        FoundSection(slide, table, None, f"{why}; spots are read from {where}, {counts}.")
    )


def _run_in_bins(folder: Path) -> space_ranger.Folder | None:
    """Return the finest bins of a Visium HD run as a Space Ranger folder; None for anything else."""
    finest = bins_of(folder)
    if finest is None or finest == folder:  # one bin size is a Space Ranger folder like any other
        return None
    found = space_ranger.find_folder(finest)
    return None if found is None else space_ranger.Folder(found.positions, finest.parent.parent)


def _add_store(
    store: Path, holdings: _Holdings, search: Search, elements: Mapping[str, str] | None = None
) -> None:
    """Add predictions and the section of a SpatialData zarr, or why it is not clear which."""
    held = spatial_data.Store(store)
    tables = [store / spatial_data.TABLES / name for name in held.tables]
    predictions = [table for table in tables if holds_prediction(table)]
    if not predictions or held.images:  # else of a slide that is kept elsewhere
        try:
            chosen = spatial_data.choose(store, **(elements or {}))
        except UserError as error:
            search.notices.append(str(error))
            if isinstance(error, spatial_data.Unclear):
                holdings.unclear.append(error)
            return
        why = f"{store.name}: {chosen.why}."
        holdings.sections.append(FoundSection(chosen.image, chosen.spots, None, why))
    holdings.predictions += predictions


def _add_bins(run: space_ranger.Folder, holdings: _Holdings, search: Search) -> None:
    """Add the section of a Visium HD run, whose finest bins are pooled into the spots predicted."""
    finest = run.spatial.parent
    others = sorted(p.name for p in finest.parent.glob("square_*um") if p != finest)
    try:
        slide, why = full_resolution_image(run, space_ranger.scaling_of(run), search)
    except UserError as error:
        search.notices.append(str(error))
        return
    if slide is None:
        search.notices.append(why)
        return
    choice = f"; to predict bins themselves, choose one of {', '.join(others)}" if others else ""
    holdings.sections.append(
        FoundSection(
            slide,
            None,
            finest,
            f"{why}; counts are pooled into the spots predicted from {inside_of(finest, run.outs)}, the "
            f"finest bins{choice}.",
        )
    )


def _add_run(folder: Path, holdings: _Holdings) -> None:
    """Add the section of a Xenium or CosMx run with the only slide in its folder, or else the run alone."""
    slides = _best_of_each_name(holdings.slides)
    holdings.slides, holdings.spots, holdings.counts = [], [], []
    if len(slides) != 1:
        holdings.tables.append(folder)
        return
    [(slide, instead)] = slides.values()
    why = f"{_slide_sentence(slide, instead)}, the only one here; its counts are pooled into spots."
    holdings.sections.append(FoundSection(slide, None, folder, why))


# --- slides and the tables of their name ---------------------------------------------------------


def _pair(holdings: _Holdings, folder: Path) -> None:
    """Make sections of the slides found, each with the tables of its name."""
    best = _best_of_each_name(holdings.slides)
    names = list(best)
    spots, counts = _by_owner(holdings.spots, names), _by_owner(holdings.counts, names)
    for name, (slide, instead) in best.items():
        table, why_table = _choose(spots, name, alone=len(best) == 1)
        measured, why_measured = _choose(counts, name, alone=len(best) == 1)
        sentence = _slide_sentence(slide, instead)
        if table is None:
            measured = None
        else:
            sentence += f"; spots are read from {inside_of(table, folder)} ({why_table})"
        if measured is not None:
            sentence += f", counts from {inside_of(measured, folder)} ({why_measured})"
        taken = {table, measured}
        holdings.sections.append(FoundSection(slide, table, measured, f"{sentence}."))
        holdings.spots = [path for path in holdings.spots if path not in taken]
        holdings.counts = [path for path in holdings.counts if path not in taken]
    for path in (*holdings.spots, *holdings.counts):
        orphan = path.parent != folder and path.parent.name.lower() in TABLE_FOLDERS
        if not orphan:
            holdings.tables.append(path)
        elif owner_of(path.name, names) is None:
            holdings.orphans.append(path)
    holdings.slides, holdings.spots, holdings.counts = [], [], []


def _best_of_each_name(slides: Sequence[Path]) -> dict[str, tuple[Path, list[Path]]]:
    """Return, by name, the slide to take and the others of that name: a scanner's file, else the largest."""
    by_name: dict[str, list[Path]] = {}
    for slide in slides:
        by_name.setdefault(slide_name(slide), []).append(slide)

    def rank(path: Path) -> tuple[bool, int, int]:
        width, height = rgb_size(path) or (0, 0)
        end = ending(path)
        order = PICTURE_ENDINGS.index(end) if end in PICTURE_ENDINGS else 0
        return end in PICTURE_ENDINGS, -width * height, order

    best = {}
    for name, same in by_name.items():
        first, *others = sorted(same, key=rank) if len(same) > 1 else same
        best[name] = first, others
    return best


def _by_owner(tables: Sequence[Path], names: Sequence[str]) -> dict[str | None, list[Path]]:
    found: dict[str | None, list[Path]] = {}
    for path in tables:
        found.setdefault(owner_of(path.name, names), []).append(path)
    return found


def _choose(by_owner: dict[str | None, list[Path]], name: str, *, alone: bool) -> tuple[Path | None, str]:
    """Return the table of a slide and why: of its name, or (`alone`, one slide) the only one there is."""
    own, loose = by_owner.get(name, []), by_owner.get(None, [])
    if own:
        chosen = min(own, key=lambda path: (len(path.name), path))
        return chosen, "same name" if len(own) == 1 else f"the shortest of {len(own)} names alike"
    if alone and len(loose) == 1:
        return loose[0], "the only one"
    return None, ""


def _slide_sentence(slide: Path, instead: Sequence[Path] = ()) -> str:
    size = rgb_size(slide)
    kind = "a slide by its format" if size is None else f"an RGB picture of {px(size)}"
    others = f", taken before {', '.join(path.name for path in instead)}" if instead else ""
    return f"{slide.name} is {kind}{others}"


def _first_word(name: str) -> str:
    return name.partition(".")[0].partition("_")[0]
