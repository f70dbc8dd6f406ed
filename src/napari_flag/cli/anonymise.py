"""``napari-flag anonymise``: takes names and folders out of a prediction of any version."""

import argparse
from pathlib import Path
from typing import Final

from napari_flag.cli import terminal
from napari_flag.cli.analyse import written_of
from napari_flag.cli.terminal import ProgressLine, say, say_json
from napari_flag.errors import UserError
from napari_flag.files import make_folder

DESCRIPTION: Final = """\
Names the slide after the hash of its content, whatever it is called, and takes folders, and names that may
be a patient's, out of the command and notices. The numbers stay, and so does the file given. What
napari-flag does not write is left out and named; columns of spots, labels, gene sets and regions stay as
they are, and are named too. What was made from the file (reports, exports, scores) has to be made again from
the one written. That states no command, since its paths could be guessed from the hash: the same command
once more needs --overwrite.
"""


def add_anonymise(commands: terminal.Commands) -> None:
    """Add ``anonymise``."""
    parser = terminal.add_command(
        commands,
        "anonymise",
        run_anonymise,
        summary="take the slide's name, folders and patients' names out of a prediction",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "predicted", metavar="PREDICTED.h5ad", type=terminal.path, help="of predict, any version"
    )
    parser.add_argument(
        "--out",
        metavar="OUT.h5ad",
        type=terminal.path,
        help="file to write, in a folder that is made if needed (default: anonymous-<hash>_predicted.h5ad in "
        "the current folder)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.h5ad if napari-flag wrote it")
    terminal.add_json(parser)


def run_anonymise(args: argparse.Namespace) -> int:
    """Read, rename and write; say what was left out and what could not be looked into."""
    from napari_flag.anonymous_prediction import anonymised
    from napari_flag.exports.replacing import check_place
    from napari_flag.files import ending, place_in
    from napari_flag.formatting import first_of
    from napari_flag.prediction_file import output_name, read_prediction, write_prediction

    source: Path = args.predicted
    if ending(source) in MADE_FROM_IT or source.is_dir():
        raise UserError(
            f"{source.name} was made from a prediction and cannot be anonymised itself; anonymise the "
            "prediction (.h5ad), and export or report that again."
        )
    clean = anonymised(read_prediction(source))
    adata = clean.adata
    out: Path = args.out or place_in(Path(), output_name(adata), "_predicted.h5ad")
    check_place(out, args.overwrite, source=source)
    make_folder(out.parent)
    write_prediction(adata, out)
    with ProgressLine() as line:
        if clean.left_out:
            named = first_of(clean.left_out, MOST_NAMED)
            line.notice(f"{named} were left out, since napari-flag does not write them so.")
        if clean.as_they_were:
            named = first_of(clean.as_they_were, MOST_NAMED)
            line.notice(f"{named} were written by others and are as they were; look into them yourself.")
    if args.json:
        parts = {"left_out": list(clean.left_out), "as_they_were": list(clean.as_they_were)}
        say_json(written_of([out]) | {"slide": output_name(adata)} | parts)
    else:
        say(f"Wrote {out}: the slide is called {output_name(adata)} in it.")
    return 0


MADE_FROM_IT: Final = (".html", ".json", ".csv", ".md", ".geojson", ".tif", ".tiff", ".png", ".svg", ".zarr")
MOST_NAMED: Final = 30
"""Parts of a prediction that a notice names; ``--json`` names all."""
