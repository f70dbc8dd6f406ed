"""The slide of a prediction, looked for beside its file, and counts for its spots."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag import prediction_file
from napari_flag.discovery.kinds import PICTURE_ENDINGS, VENDOR_ENDINGS, size_of
from napari_flag.discovery.search import IMAGE_FOLDERS, Search, listed
from napari_flag.errors import UserError
from napari_flag.files import ending, files_ending
from napari_flag.formatting import px
from napari_flag.inputs import counts_at
from napari_flag.progress import Step, Steps
from napari_flag.slide_identity import doubt_about, has_content_of, same_name
from napari_flag.slides.formats import spatial_data
from napari_flag.slides.formats.space_ranger import SPATIAL_FOLDER
from napari_flag.slides.pooling import Picture
from napari_flag.slides.slide import open_slide, slide_name
from napari_flag.slides.spot_tables import needs_pooling, read_measured

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots


MOST_NAMES: Final = 50_000
"""Names compared with that of the slide; only files of that name are opened."""
MOST_HASHED: Final = 200
"""Pictures of other names whose content is compared; each is read in some milliseconds."""


@dataclass(frozen=True, slots=True)
class FoundSlide:
    """The slide of a prediction.

    Parameters
    ----------
    path
        The file, or None where it was not found or is not certain.
    why
        One sentence: why this one, or why none.
    """

    path: Path | None
    why: str


def find_slide(adata: "AnnData", beside: Path) -> FoundSlide:
    """Look for the slide a prediction was made on, by its name and size in pixels, else by its content.

    Parameters
    ----------
    adata
        The prediction.
    beside
        Its h5ad file (or the folder of it); the slide is sought in that folder, in the folder above, and in
        their subfolders for images.
    """
    name, size = prediction_file.slide_name(adata), prediction_file.slide_size(adata)
    if name == prediction_file.UNNAMED:
        return FoundSlide(None, "The prediction does not name its slide, so it was not looked for; open it.")
    folder = beside if beside.is_dir() else beside.parent
    folder = folder.absolute()
    search = Search(MOST_NAMES)
    subfolders = (*IMAGE_FOLDERS, SPATIAL_FOLDER)
    places = [p for top in (folder, folder.parent) for p in (top, *(top / sub for sub in subfolders))]
    entries = [e for place in places for listed_entry in search.look(place) for e in _images_of(listed_entry)]
    named = _once(entry for entry in entries if _is_slide_named(entry, name))
    fitting = [entry for entry in named if size is None or size_of(entry) == size]
    pictures = (entry for entry in entries if ending(entry) in (*PICTURE_ENDINGS, *VENDOR_ENDINGS))
    for entry in fitting or _once(islice(pictures, MOST_HASHED)):
        if has_content_of(adata, entry):
            return FoundSlide(entry, f"{entry.name} has the content of the prediction's slide.")
    if len(fitting) == 1:
        agrees = "" if size is None else f" and has its {px(size)}"
        return FoundSlide(fitting[0], f"{fitting[0].name} is named like the prediction's slide{agrees}.")
    if fitting:
        return FoundSlide(
            None,
            f"The prediction was made on {name}, and {len(fitting)} files are named so "
            f"({listed(fitting, folder)}), so none was taken; open the right one.",
        )
    if named and size is not None:
        return FoundSlide(
            None,
            f"{listed(named, folder)} is named like the prediction's slide but has another size than its "
            f"{px(size)}, so it was not taken; open the image the prediction was made on.",
        )
    return FoundSlide(
        None,
        f"The prediction was made on {name}, which is neither in {folder} nor in the folder above or their "
        "images folders; open the slide to see the map on it.",
    )


def counts_for(
    adata: "AnnData",
    source: str | Path,
    *,
    beside: Path | None = None,
    slide: "Slide | None" = None,
    alignment: str | Path | None = None,
) -> Steps[tuple["AnnData", tuple[str, ...]]]:
    """Read the raw counts that a prediction is compared with, pooling those that are at points of their own.

    Parameters
    ----------
    adata
        The prediction.
    source
        As `slides.spot_tables.measured_at` takes it.
    beside
        File of the prediction, where its slide is looked for to check the registration of what is pooled.
    slide
        The slide, where it is open; it is not looked for then.
    alignment
        As `slides.spot_tables.located_counts` takes it.

    Returns
    -------
    counts
        Rows named by spot id.
    notices
        What was pooled and how.

    Raises
    ------
    UserError
        As `measured_at`; for what is to be pooled, also where the size of the slide is not known.
    """
    if not needs_pooling(source) and alignment is None:
        yield Step("Reading measured counts", 0)
        return read_measured(source), ()
    spots, mpp = prediction_file.spots_of(adata), prediction_file.um_per_px(adata)
    if slide is not None:
        return (yield from _counts_on(adata, slide, source, spots, mpp or slide.mpp, alignment))
    found = FoundSlide(None, "it is not known where the prediction lies.")
    if beside is not None:
        found = find_slide(adata, beside)
    if found.path is not None:
        with open_slide(found.path, mpp=mpp) as opened:
            return (yield from _counts_on(adata, opened, source, spots, mpp, alignment))
    size = prediction_file.slide_size(adata)
    if size is None:
        raise UserError(
            f"The prediction does not state the size of its slide, so {Path(source).name} cannot be placed "
            f"on it ({found.why.rstrip('.')}); open its slide first, or predict with --measured."
        )
    picture = Picture(Path(prediction_file.slide_name(adata)), size)
    counts, said = yield from counts_at(source, spots, mpp, picture, alignment)
    return counts, (*said, f"The registration was not checked against the tissue: {found.why}")


def _counts_on(
    adata: "AnnData",
    slide: "Slide",
    source: str | Path,
    spots: "Spots",
    mpp: float | None,
    alignment: str | Path | None,
) -> Steps[tuple["AnnData", tuple[str, ...]]]:
    """Pool counts into the spots on `slide`; a slide of another content than the prediction's is said."""
    counts, said = yield from counts_at(source, spots, mpp, slide, alignment)
    doubt = doubt_about(adata, slide)
    return counts, said if doubt is None else (*said, doubt)


def _images_of(entry: Path) -> list[Path]:
    """Return an entry of a folder, or the images of the SpatialData zarr that it is."""
    if ending(entry) != ".zarr" or not spatial_data.is_store(entry):
        return [entry]
    return [entry / spatial_data.IMAGES / name for name in spatial_data.Store(entry).images]


def _once(entries: Iterable[Path]) -> list[Path]:
    """Return the files among `entries`, each once however often it is linked."""
    return list({entry.resolve(): entry for entry in reversed(list(entries))}.values())[::-1]


def _is_slide_named(path: Path, name: str) -> bool:
    if not same_name(slide_name(path), name):
        return False
    if spatial_data.element_of(path, spatial_data.IMAGES) is not None:
        return True
    if os.path.isdir(path):
        return bool(files_ending(path, ".dcm"))
    return ending(path) in (*PICTURE_ENDINGS, *VENDOR_ENDINGS, ".dcm")
