"""What a file or a folder holds that can be opened, read from names and headers alone.

A person drops a slide, a folder of a sequencing run, a folder of slides or a result; docks and
``napari-flag predict FOLDER`` ask here what is in it, and which picture belongs to which table.  No pixel is
read, and of tables no more than the first values, which tell counts from a prediction.  `source_of` takes the
one slide that is predicted.  `counts_for` reads what a prediction is compared with, for which its slide has
to be found.
"""

from napari_flag.discovery.folders import Found, FoundSection, Source, discover, source_of
from napari_flag.discovery.kinds import Kind, kind_of, looks_like_slide
from napari_flag.discovery.prediction_slide import FoundSlide, counts_for, find_slide
from napari_flag.discovery.search import owner_of

__all__ = [
    "Found",
    "FoundSection",
    "FoundSlide",
    "Kind",
    "Source",
    "counts_for",
    "discover",
    "find_slide",
    "kind_of",
    "looks_like_slide",
    "owner_of",
    "source_of",
]
