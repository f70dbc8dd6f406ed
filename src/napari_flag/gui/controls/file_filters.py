"""Which files the dialogs of all docks offer, by the endings that readers and writers state."""

import sys
from typing import Final

from napari_flag.discovery.kinds import ENDINGS, REGION_ENDINGS
from napari_flag.figures.gene_figure import FORMATS
from napari_flag.slides.spot_tables import COUNT_ENDINGS, SPOT_ENDINGS, TEXT

ALL_FILES: Final = "All files (*)"
"""Offered besides by every dialog that opens: a file's content decides, not its name."""


def file_filter(what: str, *endings: str) -> str:
    """Return a filter of Qt such as "Weights (*.safetensors)".

    Parameters
    ----------
    what
        What such files are.
    endings
        In lower case.  On Linux those in upper case are named too, since its dialogs compare them as written.
    """
    upper = [ending.upper() for ending in endings] if sys.platform.startswith("linux") else []
    return f"{what} ({' '.join(f'*{ending}' for ending in (*endings, *upper))})"


OPENED_FILES: Final = file_filter("Slides, predictions, tables, regions, workspaces", *ENDINGS)
SPOT_FILES: Final = file_filter("Spot tables", *SPOT_ENDINGS)
COUNT_FILES: Final = file_filter("Measured expression", *COUNT_ENDINGS)
LABEL_FILES: Final = file_filter("Labels", *TEXT)
REGION_FILES: Final = file_filter("GeoJSON", *REGION_ENDINGS)
GENE_SET_FILES: Final = file_filter("Gene sets", ".gmt")
GENE_FILES: Final = file_filter("Genes, one a line", ".txt")
LISTING_FILES: Final = file_filter("List of sections", ".csv")
WEIGHT_FILES: Final = file_filter("Weights", ".safetensors")
RESULT_FILES: Final = file_filter("AnnData", ".h5ad")
WORKSPACE_FILES: Final = file_filter("Workspace", ".json")
TABLE_FILES: Final = file_filter("Table", ".csv")
FIGURE_FILES: Final = ";;".join(
    file_filter({".png": "Picture", ".svg": "Vector graphic"}[ending], ending) for ending in FORMATS
)
