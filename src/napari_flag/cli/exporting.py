"""``napari-flag export``: a prediction in the formats of other programs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag.cli import arguments
from napari_flag.cli.labelling import add_labels, label
from napari_flag.cli.outputs import make_folder
from napari_flag.cli.terminal import ProgressLine, say, say_json
from napari_flag.errors import UserError
from napari_flag.progress import finish

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide

NAMES: Final = ("h5ad", "spatialdata", "geojson", "ome-tiff", "csv")
"""Of the formats; named here too so that --help loads nothing, and a test holds both equal."""
DESCRIPTION: Final = """\
  h5ad         AnnData with Moran's I and domains in the keys that scanpy and squidpy use
  spatialdata  SpatialData zarr: circles of true radius, the table, the H&E (napari-spatialdata, squidpy)
  geojson      QuPath: spots as detections with a measurement per gene, domains as annotations
  ome-tiff     one channel per gene over the whole slide, µm per pixel and names inside
  csv          a row per spot, a column per gene

Files are named after the slide. All numbers are log2(count + 1).
"""


def add_commands(commands: arguments.Commands) -> None:
    """Add ``export``."""
    parser = arguments.add_command(
        commands,
        "export",
        run,
        summary="write a prediction for squidpy, napari-spatialdata, QuPath, Fiji or a spreadsheet",
        description=DESCRIPTION,
    )
    add = parser.add_argument
    add("predicted", metavar="PREDICTED.h5ad", type=arguments.path, help="made by predict")
    add("--to", nargs="+", choices=NAMES, required=True, metavar="FORMAT", help=", ".join(NAMES))
    add("--out", metavar="DIR", type=arguments.path, required=True, help="folder; it is made if needed")
    add("--genes", nargs="+", metavar="GENE", help="symbols of the genes to keep (default: all)")
    add(
        "--measured",
        metavar="FILE",
        type=arguments.path,
        help="measured raw counts of these spots, written beside the prediction",
    )
    add(
        "--slide",
        metavar="SLIDE",
        type=arguments.path,
        help="the slide, whose whole image then goes into the SpatialData zarr; without it, the small "
        "picture of the prediction does",
    )
    add_labels(parser, 'written as obs["label"]')
    add("--overwrite", action="store_true", help="replace files in DIR")
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Read, complete and write."""
    from napari_flag.exports.formats import export, find_format, place_of
    from napari_flag.matching import lay_beside
    from napari_flag.results import read_prediction
    from napari_flag.slides.tables import read_measured

    adata = read_prediction(args.predicted)
    if args.measured is not None:
        lay_beside(adata, read_measured(args.measured))
    label(adata, args.labels)
    make_folder(args.out)
    formats = [find_format(name) for name in dict.fromkeys(args.to)]
    places = [(wanted, place_of(adata, wanted, args.out)) for wanted in formats]
    for _, place in places:
        _check_place(place, args)
    slide = None if args.slide is None else _open(args.slide, adata)
    try:
        with ProgressLine() as line:
            written = finish(export(adata, places, genes=args.genes, slide=slide), line)
    finally:
        if slide is not None:
            slide.close()
    if args.json:
        say_json({"written": [str(path) for path in written]})
    else:
        for path in written:
            say(f"Wrote {path}")
    return 0


def _check_place(place: Path, args: argparse.Namespace) -> None:
    """Refuse to replace what is there without leave, and the prediction itself even then."""
    if not place.exists():
        return
    if place.samefile(args.predicted):
        raise UserError(f"{place} is the prediction itself; give another --out.")
    if not args.overwrite:
        raise UserError(f"{place} already exists; give another --out, or add --overwrite to replace it.")


def _open(path: Path, adata: "AnnData") -> "Slide":
    """Open the slide, and refuse one of another size than was predicted on."""
    from napari_flag import keys
    from napari_flag.slides.slide import open_slide

    slide = open_slide(path)
    made = adata.uns[keys.PROVENANCE]
    expected = made.get(keys.SLIDE_WIDTH), made.get(keys.SLIDE_HEIGHT)
    if None not in expected and expected != slide.size:
        slide.close()
        raise UserError(
            f"{path.name} is {slide.size[0]} × {slide.size[1]} px, but the prediction was made on "
            f"{expected[0]} × {expected[1]} px; give the slide that was predicted."
        )
    return slide
