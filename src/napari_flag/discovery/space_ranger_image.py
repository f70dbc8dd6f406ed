"""The image that the spots of a Space Ranger folder count in, which Space Ranger does not keep."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag.discovery.kinds import (
    PICTURE_ENDINGS,
    VENDOR_ENDINGS,
    is_derived,
    looks_like_slide,
    rgb_size,
    size_of,
)
from napari_flag.discovery.search import IMAGE_FOLDERS, MOST_FILES, Search, owner_of
from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.formatting import px
from napari_flag.slides.formats import space_ranger

if TYPE_CHECKING:
    from napari_flag.slides.spots import Scaling


def full_resolution_image(
    ranger: space_ranger.Folder, scaling: "Scaling", search: Search
) -> tuple[Path | None, str]:
    """Return the image that the spots of a Space Ranger folder count in, and why it is that one.

    Space Ranger does not keep the full-resolution image.  It is sought in the folder, and beside and above
    it, by the size that the small images give; by name where that is not known.
    """
    sample = ranger.outs.parent if ranger.outs.name == "outs" else ranger.outs
    inside = _pictures((ranger.outs, ranger.spatial, sample), search)
    beside = [
        path
        for path in _pictures((sample.parent,), Search())
        if path not in inside and _named_after(path, sample) in (sample.name, None)
    ]
    full = scaling.full_size
    for pictures, near in ((inside, True), (beside, False)):
        fitting = [path for path in pictures if _fits(path, scaling, sample, near=near)]
        named = [path for path in fitting if owner_of(path.name, [sample.name])]
        if len(fitting) == 1 or len(named) == 1:
            chosen = (named if len(named) == 1 else fitting)[0]
            size = rgb_size(chosen) or size_of(chosen)
            reason = (
                "the only image here that can be it"
                if full is None
                else "the size that Space Ranger's small images give"
            )
            return chosen, f"{chosen.name} is the full-resolution image ({px(size)}, {reason})"
        if fitting:
            return None, (
                f"{len(fitting)} images may be the full-resolution one of {sample.name} "
                f"({', '.join(path.name for path in fitting[:5])}), so none was taken; open the right one, "
                "then this folder as its spots."
            )
    others = [path.name for path in inside if looks_like_slide(path)]
    return _small_image(ranger, scaling, sample, others, search)


def _pictures(places: Iterable[Path], search: Search) -> list[Path]:
    """Return the pictures in folders and in their subfolders for images, derived ones left out."""
    looked = dict.fromkeys(p for place in places for p in (place, *(place / sub for sub in IMAGE_FOLDERS)))
    endings = (*PICTURE_ENDINGS, *VENDOR_ENDINGS)
    return [
        path
        for place in looked
        for path in search.look(place)
        if ending(path) in endings and not is_derived(path)
    ]


def _fits(path: Path, scaling: "Scaling", sample: Path, *, near: bool) -> bool:
    """Return whether a picture may be the full-resolution one: by its size, else its name or (near) alone."""
    if scaling.full_size is None:
        return looks_like_slide(path) and (near or owner_of(path.name, [sample.name]) is not None)
    size = rgb_size(path)
    if size is None and ending(path) in VENDOR_ENDINGS:
        size = size_of(path)
    return size is not None and scaling.matches(size)


def _named_after(path: Path, sample: Path) -> str | None:
    """Return which Space Ranger sample, `sample` or one beside it, a picture is named after."""
    try:
        beside = [entry for entry in islice(os.scandir(sample.parent), MOST_FILES) if entry.is_dir()]
    except OSError:
        return None
    alike = [entry for entry in beside if owner_of(path.name, [entry.name])]
    return owner_of(path.name, [entry.name for entry in alike if _is_sample(Path(entry.path))])


def _is_sample(folder: Path) -> bool:
    """Return whether a folder is of Space Ranger: no other, such as one of results, owns a picture."""
    try:
        return space_ranger.find_folder(folder) is not None
    except UserError:  # of Visium HD, with bins to choose from
        return True


def _small_image(
    ranger: space_ranger.Folder, scaling: "Scaling", sample: Path, others: list[str], search: Search
) -> tuple[Path | None, str]:
    """Return Space Ranger's better small image, and say so with its scale; None without one of known scale.

    `others` are the slides in the folder that cannot be the one sought.
    """
    full = scaling.full_size
    expected = "" if full is None else f" of {px(full)}"
    missing = f"The full-resolution image{expected} of {sample.name} is neither in the folder nor beside it"
    if others:
        missing += f" ({', '.join(others[:3])}{', …' if len(others) > 3 else ''} has another size)"
    if not scaling.sizes:
        return None, (
            f"{missing}, nor is there a small image whose scale is known, so only its spots and counts were "
            "found; open the slide, then this folder as its spots."
        )
    name = max(scaling.sizes, key=lambda n: scaling.factors[n])
    image = space_ranger.small_image(ranger.spatial, name)
    factor = f"{scaling.factors[name]:.4g}"
    search.notices.append(
        f"{missing}, so {image.name} is taken, in which positions are scaled by {factor}; put the "
        "full-resolution image into the folder to see more detail."
    )
    shown = f"{px(scaling.sizes[name])}, {factor} of full resolution"
    return image, f"{image.name} is Space Ranger's {name} image ({shown}), the best that is there"
