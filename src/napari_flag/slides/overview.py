"""A whole slide as a small picture, kept in the cache: a slide that was seen before is not decoded for it."""

import hashlib
from typing import Final

import numpy as np

from napari_flag import cache
from napari_flag.progress import finish
from napari_flag.slides.file_identity import state_of
from napari_flag.slides.formats.readers import UInt8Array
from napari_flag.slides.slide import Slide

KIND: Final = "overviews"
VERSION: Final = 1
"""Raised when `Slide.thumbnail` gives other pixels, so that older entries are not taken for them."""
_STAGE: Final = "Looking at the slide"


def overview(slide: Slide, longest: int) -> UInt8Array:
    """Return what ``slide.thumbnail(longest)`` does, from the cache where it was made before.

    Parameters
    ----------
    slide
        Open; its pixels are read only where the cache has none of its file as it is now, or damaged ones.
    longest
        Pixels of the longer side, at most.

    Returns
    -------
    (h, w, 3) uint8.

    Raises
    ------
    UserError
        When a damaged level is read, or the environment sets no sensible size of the cache.
    """
    folder, key, most = cache.cache_folder(KIND), _key(slide, longest), cache.most_bytes(KIND)
    entry = None if key is None else cache.find(folder, key)
    if entry is not None:
        kept = finish(cache.read_array(entry, _STAGE))
        if kept is not None and kept.dtype == np.uint8 and kept.shape == _shape(slide, longest):
            return np.array(kept)
        del kept  # an open file stays, on systems that mind
        cache.discard(entry)
    image = slide.thumbnail(longest)
    if key is not None:
        entry = finish(cache.keep_array(image, folder, key, _STAGE))
        if entry is not None:
            cache.make_room(folder, most, entry.name)
    return np.array(image)


def _shape(slide: Slide, longest: int) -> tuple[int, int, int]:
    width, height = slide.thumbnail_size(longest)
    return height, width, 3


def _key(slide: Slide, longest: int) -> str | None:
    """Return what the picture is kept under: file (path, state), levels that it is made of, colours, size."""
    try:
        state = state_of(slide.path)
    except OSError:  # a slide that is no file, e.g. a synthetic one
        return None
    identity = str(slide.path.resolve()), *state, slide.levels, slide.colours, longest, VERSION
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:32]
