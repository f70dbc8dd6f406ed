"""``napari-flag report``: a page on a prediction, with or without a truth."""

import argparse
import shlex
from typing import Final

from napari_flag.cli import arguments
from napari_flag.cli.labelling import add_labels, as_typed, label
from napari_flag.cli.outputs import check_place, make_folder
from napari_flag.cli.terminal import ProgressLine, say
from napari_flag.progress import finish
from napari_flag.reporting import report_name, write_report

DESCRIPTION: Final = """\
One HTML file that loads nothing from elsewhere: maps, Moran's I, co-expression, domains and their
markers, all genes, and how the prediction was made. Where the file carries measured values (predict
--measured), the page says how good the prediction is too, as that of `napari-flag compare --out` does.
"""


def add_commands(commands: arguments.Commands) -> None:
    """Add ``report``."""
    parser = arguments.add_command(
        commands,
        "report",
        run,
        summary="write an HTML page on a prediction, with or without a truth",
        description=DESCRIPTION,
    )
    parser.add_argument("predicted", metavar="PREDICTED.h5ad", type=arguments.path, help="made by predict")
    parser.add_argument(
        "--out", metavar="DIR", type=arguments.path, required=True, help="folder; it is made if needed"
    )
    add_labels(parser, "the report says how far the domains agree with it")
    parser.add_argument("--overwrite", action="store_true", help="replace the report in DIR")


def run(args: argparse.Namespace) -> int:
    """Read the prediction and write the page."""
    from napari_flag import keys
    from napari_flag.comparison import slide_name
    from napari_flag.results import read_prediction
    from napari_flag.viewer.agreement import measured_counts

    predicted = read_prediction(args.predicted)
    label(predicted, args.labels)
    measured = measured_counts(predicted) if keys.MEASURED in predicted.layers else None
    make_folder(args.out)
    check_place(args.out / report_name(slide_name(predicted)), args.overwrite, lambda: False)
    options = ["--out", str(args.out), *as_typed(args.labels)]
    command = shlex.join(["napari-flag", "report", str(args.predicted), *options])
    with ProgressLine() as line:
        place = finish(write_report(predicted, measured, args.out, command=command), line)
    say(f"Wrote {place}")
    return 0
