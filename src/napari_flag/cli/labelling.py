"""``--labels`` of the commands that look at domains."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag.cli import arguments

if TYPE_CHECKING:
    from anndata import AnnData


def add_labels(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--labels``; `what` says what comes of it."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=arguments.path,
        help="what a pathologist or a clustering called each spot (her2st's annotations, Loupe's CSV, or a "
        f"table of spot ids and labels); {what}",
    )


def label(adata: "AnnData", path: Path | None) -> None:
    """Write the labels in `path`, where it is given, into ``obs["label"]``.

    Raises
    ------
    UserError
        When the file holds no labels, or none of these spots.
    """
    from napari_flag.slides.labels import read_labels
    from napari_flag.structure import write_labels

    if path is not None:
        write_labels(adata, read_labels(path))


def as_typed(path: Path | None) -> list[str]:
    """Return the option as it stands on a command line."""
    return [] if path is None else ["--labels", str(path)]
