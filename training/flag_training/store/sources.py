"""Where the slides of a cohort are: their image, spots, counts and labels, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from napari_flag.errors import UserError
from napari_flag.slides.formats.counts import is_mex
from napari_flag.slides.formats.space_ranger import find_folder, find_matrix
from napari_flag.slides.spot_tables import TEXT

HUMAN: Final = "Homo sapiens"
IMAGES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".svs", ".ndpi")


@dataclass(frozen=True, slots=True)
class SlideSource:
    """One slide before it is prepared.

    Parameters
    ----------
    name, patient
        Slide and patient; None where the patient is not known.
    image, spots
        The image, and a table or folder as `napari_flag.slides.spot_tables.read_spots` takes.
    counts
        Raw counts, where they are not with the spots.
    labels
        Table of labels per spot.
    mpp, mpp_source
        µm per level-0 pixel where known better than by the image, and who says so.
    mpp_from_spots
        Take µm/px from the array's pitch: for scans that state none, where the user says so.
    pitch_um, diameter_um
        Of the array, where the technology's nominal ones are not to be taken.
    level_0
        Whether spots are known to count in the image's own level-0 pixels, as HEST-1k's do; a few
        beyond its border are then left out instead of refused.
    facts
        What else is known of the slide: organ, licence, technology.
    """

    name: str
    patient: str | None
    image: Path
    spots: Path
    counts: Path | None = None
    labels: Path | None = None
    mpp: float | None = None
    mpp_source: str = "set by hand"
    mpp_from_spots: bool = False
    pitch_um: float | None = None
    diameter_um: float | None = None
    level_0: bool = False
    facts: tuple[tuple[str, str], ...] = field(default=())

    def files(self) -> tuple[Path, ...]:
        """Return every file the slide is read from."""
        found = [self.image, *_table_files(self.spots)]
        if self.counts is not None:
            found += _table_files(self.counts)
        if self.labels is not None:
            found.append(self.labels)
        return tuple(dict.fromkeys(found))


def require_files(sources: Sequence[SlideSource]) -> None:
    """Refuse sources whose files are not there, before any work is done."""
    missing = [
        path
        for source in sources
        for path in (source.image, source.spots, source.counts, source.labels)
        if path is not None and not path.exists()
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"There is no {', '.join(str(path) for path in missing[:3])}{more}; copy the missing files "
            "there, or give the folder that holds them with --data (for HEST-1k, --hest)."
        )


def find_sources(folder: Path, image: Path | None = None) -> tuple[SlideSource, ...]:
    """Return the slides of a folder that no cohort file describes.

    Parameters
    ----------
    folder
        A Space Ranger folder (one slide), or a folder of
        legacy ST as her2st is laid out: ``spots/NAME_selection.tsv``, ``counts/NAME.tsv.gz`` and
        ``images/NAME.jpg``, with ``pathology/NAME_labeled_coordinates.tsv`` where there is one.
    image
        Full-resolution image of a Space Ranger folder; a folder of legacy ST has its own.

    Raises
    ------
    UserError
        When the folder is neither, or its image is not given.
    """
    if (folder / "spots").is_dir() and (folder / "counts").is_dir():
        found = _legacy_st(folder)
        if found:
            if image is not None:
                raise UserError(
                    f"--image is of a Space Ranger folder, and {folder} has images/; leave it out."
                )
            return found
    ranger = find_folder(folder)
    if ranger is None:
        raise UserError(
            f"{folder} is no source napari-flag knows; give a cohort file (.toml), a Space Ranger "
            "folder, or a folder with spots/, counts/ and images/ of legacy ST."
        )
    if image is None:
        raise UserError(
            f"{folder} is a Space Ranger folder, which does not hold the full-resolution image; give "
            "it with --image."
        )
    name = folder.resolve().name
    name = folder.resolve().parent.name if name in ("outs", "spatial") else name
    return (SlideSource(name, None, image, folder),)


def _legacy_st(folder: Path) -> tuple[SlideSource, ...]:
    """Return the sections that have image, spots and counts; whose they are, a folder does not say."""
    found = []
    for spots in sorted((folder / "spots").glob("*_selection.tsv*")):
        name = spots.name.partition("_selection")[0]
        image = _beside(folder / "images", name, IMAGES)
        counts = _beside(folder / "counts", name, TEXT)
        labels = folder / "pathology" / f"{name}_labeled_coordinates.tsv"
        if image is not None and counts is not None:
            known = labels if labels.exists() else None
            found.append(SlideSource(name, None, image, spots, counts, known))
    return tuple(found)


def _beside(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    return next((folder / f"{name}{end}" for end in endings if (folder / f"{name}{end}").exists()), None)


def _table_files(path: Path) -> list[Path]:
    """Return the files of a table; of a Space Ranger folder those that are read."""
    if path.is_file():
        return [path]
    if is_mex(path):
        return sorted(p for p in path.iterdir() if p.is_file())
    ranger = find_folder(path)
    outs = path if ranger is None else ranger.outs
    found = []
    if ranger is not None:
        factors = ranger.spatial / "scalefactors_json.json"
        found = [ranger.positions, *([factors] if factors.exists() else [])]
    matrix = find_matrix(outs)
    return found if matrix is None else [*found, *_table_files(matrix)]
