"""``napari-flag compare``, ``export`` and ``report``: scores and files of a prediction."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import keys
from napari_flag.cli import terminal
from napari_flag.cli.predict import add_alignment
from napari_flag.cli.terminal import ProgressLine, check_place, make_folder, say, say_columns, say_json
from napari_flag.errors import UserError
from napari_flag.formatting import interval, number, whole
from napari_flag.progress import finish
from napari_flag.report import report_name, write_report

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.analysis.compare import Comparison
    from napari_flag.analysis.scores import Scores
    from napari_flag.report.findings import Findings
    from napari_flag.slides.slide import Slide


COMPARE_DESCRIPTION = """\
Spots are matched by id, genes by symbol; expression is log2(count + 1).

X, the expectation, is judged by

  PCC        mean over genes of Pearson's r across spots
  MSE        mean squared error
  cPCC       PCC after taking each spot's mean away (what is not depth)

and draws, each one expression that could have been measured here, by

  GSC        agreement of gene-gene correlations (co-expression kept)
  SSC        agreement of Moran's I across genes (spatial pattern kept)
  amplitude  median over genes of var(drawn) / var(measured)
  CRPS       distance of the draws of one value from its measurement
  ES         the same for all genes of a spot (energy score)
  ES-map     the same for the whole map of a gene
  VS-gene    differences between the genes of a spot (variogram score)
  VS-space   differences between neighbouring spots

The last five are proper scores: 0 is best, and nothing but a better distribution lowers them. They need
eight draws. X has GSC and SSC too, since the table of FLAG's paper reads all from one array; an expectation
cannot have the structure of a noisy truth.

In brackets: 95 % bootstrap intervals, over blocks of neighbouring spots or, for GSC, SSC and ES-map, over
genes. A high score in one of them alone means little; compare all of them.
"""
DIGITS: Final = 3
"""Decimals of scores."""
LISTED = 8
"""Unmatched names shown in the text; --json lists all."""


def add_compare(commands: terminal.Commands) -> None:
    """Add ``compare``."""
    parser = terminal.add_command(
        commands,
        "compare",
        run_compare,
        summary="score a prediction against measured expression",
        description=COMPARE_DESCRIPTION,
    )
    parser.add_argument("predicted", metavar="PREDICTED.h5ad", type=terminal.path, help="made by predict")
    parser.add_argument(
        "measured",
        metavar="MEASURED",
        type=terminal.path,
        help="raw counts: h5ad, Space Ranger folder or matrix, or ST table (.tsv, .tsv.gz); a Visium HD, "
        "Xenium or CosMx folder is pooled into the spots of the prediction",
    )
    add_alignment(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=terminal.path,
        help="also write a report (HTML, one file), the scores (JSON) and one row per gene (CSV, for X and "
        "for draw 1) into this folder; it is made if needed",
    )
    add_labels(parser, "ARI and NMI then say how far the domains of prediction and truth agree with it")
    parser.add_argument("--overwrite", action="store_true", help="replace files in DIR")
    terminal.add_json(parser)


def run_compare(args: argparse.Namespace) -> int:
    """Compare, print, and write the tables and the report where requested."""
    from napari_flag.analysis.compare import comparing
    from napari_flag.prediction_file import read_prediction
    from napari_flag.report.findings import gather

    predicted = read_prediction(args.predicted)
    label(predicted, args.labels)
    files = {"predicted": str(args.predicted), "measured": str(args.measured)}
    findings: Findings | None = None
    written: tuple[Path, ...] = ()
    with ProgressLine() as line:
        on_step = None if args.json else line  # who reads JSON wants no lines of progress
        measured = _measured_of(predicted, args, line)
        comparison = finish(comparing(predicted, measured), on_step)
        result = comparison.to_dict() | files
        if args.labels is not None:
            findings = finish(gather(predicted, measured, comparison=comparison), on_step)
            assert findings.labels is not None
            result |= {"labels": str(args.labels), "label_agreement": findings.labels.to_dict()}
        if args.out is not None:
            written = _write(comparison, result, args)
            options = ["--out", str(args.out), *as_typed(args.labels)]
            options += [] if args.alignment is None else ["--alignment", str(args.alignment)]
            command = shlex.join(["napari-flag", "compare", *files.values(), *options])
            work = write_report(
                predicted, measured, args.out, comparison=comparison, findings=findings, command=command
            )
            written += (finish(work, on_step),)
        if args.json:
            for notice in comparison.notices:
                line.notice(notice)
    if args.json:
        say_json(result)
        return 0
    _print(comparison)
    if findings is not None:
        _print_labels(findings)
    for path in written:
        say(f"Wrote {path}")
    return 0


def _measured_of(predicted: "AnnData", args: argparse.Namespace, line: ProgressLine) -> "AnnData":
    """Return the measured counts given, of the prediction's spots; what is pooled is said and checked."""
    from napari_flag.discovery import find_slide
    from napari_flag.prediction_file import slide_name, slide_size, spots_of, um_per_px
    from napari_flag.slides.pooling import Picture
    from napari_flag.slides.slide import open_slide
    from napari_flag.slides.spot_tables import measured_at, needs_pooling, read_measured
    from napari_flag.slides.tissue import find_tissue

    if not needs_pooling(args.measured):
        return read_measured(args.measured)
    size, tissue = slide_size(predicted), None
    if size is None:
        raise UserError(
            f"{args.predicted.name} does not state the size of its slide, so nothing can be placed on it; "
            "predict with --measured instead."
        )
    found = find_slide(predicted, args.predicted)
    if found.path is None:
        line.notice(f"The registration was not checked against the tissue: {found.why}")
    else:
        with open_slide(found.path, mpp=um_per_px(predicted)) as slide:
            tissue = find_tissue(slide)
    picture = Picture(found.path or Path(slide_name(predicted)), size)
    spots, mpp = spots_of(predicted), um_per_px(predicted)
    work = measured_at(args.measured, spots, mpp, picture, tissue=tissue, alignment=args.alignment)
    counts, said = finish(work, None if args.json else line)
    for sentence in said:
        line.notice(sentence)
    return counts


def _write(comparison: "Comparison", result: dict[str, Any], args: argparse.Namespace) -> tuple[Path, ...]:
    """Write scores and tables, after making sure that nothing of someone else's is replaced."""
    from napari_flag.files import write_json, write_table

    folder: Path = args.out
    make_folder(folder)
    scores = folder / f"{comparison.slide}_scores.json"
    tables = {"X": folder / f"{comparison.slide}_genes.csv"}
    tables["sample"] = folder / f"{comparison.slide}_genes_sample.csv"
    same = _is_same(scores, result)
    for path in (scores, *tables.values(), folder / report_name(comparison.slide)):
        check_place(path, args.overwrite, lambda: same)
    for name, path in tables.items():
        write_table(comparison.tables[name], path)
    write_json(result, scores)
    return (scores, *tables.values())


def _is_same(path: Path, result: dict[str, Any]) -> bool:
    """Return whether `path` holds an earlier comparison of the same files."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        same = all(earlier[key] == result[key] for key in ("predicted", "measured"))
        return same and earlier.get("labels") == result.get("labels")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _print(comparison: "Comparison") -> None:
    from napari_flag.analysis.scores import EXPECTATION, FEWEST_DRAWS, STRUCTURE

    for notice in comparison.notices:
        say(f"Note: {notice}")
    say(
        f"{comparison.slide}: {whole(comparison.spots)} spots and {whole(comparison.genes)} genes compared, "
        "log2(count + 1)"
    )
    mean, sample, drawn = comparison.scores["X"], comparison.scores["sample"], comparison.draws
    rows = [["", "X (expectation)", "", "one draw", "", f"mean of {drawn.number} draws"]]
    over_draws = drawn.values
    for metric in (*EXPECTATION, *STRUCTURE):
        of_draws = number(over_draws[metric], DIGITS, unknown="not defined")
        rows.append([metric, *_cells(mean, metric), *_cells(sample, metric), of_draws])
    say_columns([row if drawn.number > 1 else row[:-1] for row in rows], indent="  ")
    say("  Judge X by PCC, MSE and cPCC, draws by GSC, SSC, amplitude and the proper scores (0 is best).")
    say(f"  {drawn.why_not or f'Proper scores of the first {FEWEST_DRAWS} draws:'}")
    say_columns(
        [
            [name, number(value, DIGITS, "not defined"), interval(drawn.intervals[name], DIGITS)]
            for name, value in drawn.proper.items()
        ],
        indent="  ",
    )
    say(f"  Moran's I on the {comparison.neighbours}, row-standardised.")
    if mean.genes_constant_in_truth:
        say(
            f"  {whole(mean.genes_constant_in_truth)} genes are the same in every measured spot and were "
            "left out of all but MSE."
        )
    if mean.genes_predicted_constant:
        say(f"  {whole(mean.genes_predicted_constant)} genes are predicted constant and score 0.")
    _print_unmatched(comparison)


def _print_labels(findings: "Findings") -> None:
    labels = findings.labels
    assert labels is not None
    for key, word in ((keys.DOMAIN, "prediction"), (keys.DOMAIN + keys.OF_MEASURED, "truth")):
        if key in labels.agreements:
            found = labels.agreements[key]
            ari, nmi = number(found.ari, DIGITS), number(found.nmi, DIGITS)
            say(f"  Domains of the {word} to the labels: ARI {ari}, NMI {nmi}")
    if not labels.agreements:
        say("  There are too few spots for domains to be compared with the labels.")


def _cells(scores: "Scores", metric: str) -> list[str]:
    return [
        number(scores.values[metric], DIGITS, unknown="not defined"),
        interval(scores.intervals.get(metric), DIGITS),
    ]


def _print_unmatched(comparison: "Comparison") -> None:
    left = comparison.unmatched
    for names, what in (
        (left.spots_only_predicted, "predicted spots were not measured"),
        (left.spots_only_measured, "measured spots were not predicted"),
        (left.genes_only_predicted, "predicted genes were not measured"),
        (left.genes_only_measured, "measured genes were not predicted"),
    ):
        if names:
            more = ", …" if len(names) > LISTED else ""
            say(f"  {whole(len(names))} {what}: {', '.join(names[:LISTED])}{more}")


NAMES: Final = ("h5ad", "spatialdata", "geojson", "ome-tiff", "csv")
"""Of the formats; named here too so that --help loads nothing, and a test holds both equal."""
EXPORT_DESCRIPTION: Final = """\
  h5ad         AnnData with Moran's I and domains in the keys that scanpy and squidpy use
  spatialdata  SpatialData zarr: circles of true radius, the table, the H&E (napari-spatialdata, squidpy)
  geojson      QuPath: spots as detections with a measurement per gene, domains as annotations
  ome-tiff     one channel per gene over the whole slide, µm per pixel and names inside
  csv          a row per spot, a column per gene

Files are named after the slide. All numbers are log2(count + 1).
"""


def add_export(commands: terminal.Commands) -> None:
    """Add ``export``."""
    parser = terminal.add_command(
        commands,
        "export",
        run_export,
        summary="write a prediction for squidpy, napari-spatialdata, QuPath, Fiji or a spreadsheet",
        description=EXPORT_DESCRIPTION,
    )
    add = parser.add_argument
    add("predicted", metavar="PREDICTED.h5ad", type=terminal.path, help="made by predict")
    add("--to", nargs="+", choices=NAMES, required=True, metavar="FORMAT", help=", ".join(NAMES))
    add("--out", metavar="DIR", type=terminal.path, required=True, help="folder; it is made if needed")
    add("--genes", nargs="+", metavar="GENE", help="symbols of the genes to keep (default: all)")
    add(
        "--measured",
        metavar="FILE",
        type=terminal.path,
        help="measured raw counts of these spots, stored in the layer measured",
    )
    add(
        "--slide",
        metavar="SLIDE",
        type=terminal.path,
        help="the slide, whose whole image then goes into the SpatialData zarr; without it, the small "
        "picture of the prediction does",
    )
    add_labels(parser, 'written as obs["label"]')
    add("--overwrite", action="store_true", help="replace files in DIR")
    terminal.add_json(parser)


def run_export(args: argparse.Namespace) -> int:
    """Read, complete and write."""
    from napari_flag.analysis.truth import attach_measured
    from napari_flag.exports.formats import export, find_format, place_of
    from napari_flag.prediction_file import read_prediction
    from napari_flag.slides.spot_tables import read_measured

    formats = [find_format(name) for name in dict.fromkeys(args.to)]
    for wanted in formats:
        wanted.check()
    adata = read_prediction(args.predicted)
    if args.measured is not None:
        attach_measured(adata, read_measured(args.measured))
    label(adata, args.labels)
    make_folder(args.out)
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
    """Refuse to replace a file without ``--overwrite``, and the prediction itself in any case."""
    if not place.exists():
        return
    if place.samefile(args.predicted):
        raise UserError(f"{place} is the prediction itself; give another --out.")
    if not args.overwrite:
        raise UserError(f"{place} already exists; give another --out, or add --overwrite to replace it.")


def _open(path: Path, adata: "AnnData") -> "Slide":
    """Open the slide, and refuse one of another size than was predicted on."""
    from napari_flag.prediction_file import slide_size
    from napari_flag.slides.slide import open_slide

    slide = open_slide(path)
    expected = slide_size(adata)
    if expected is not None and expected != slide.size:
        slide.close()
        raise UserError(
            f"{path.name} is {slide.size[0]} × {slide.size[1]} px, but the prediction was made on "
            f"{expected[0]} × {expected[1]} px; give the slide that was predicted."
        )
    return slide


REPORT_DESCRIPTION: Final = """\
One HTML file that loads nothing from elsewhere: maps, Moran's I, co-expression, domains and their
markers, all genes, and how the prediction was made. Where the file carries measured values (predict
--measured), the page says how good the prediction is too, as that of `napari-flag compare --out` does.
"""


def add_report(commands: terminal.Commands) -> None:
    """Add ``report``."""
    parser = terminal.add_command(
        commands,
        "report",
        run_report,
        summary="write an HTML page on a prediction, with or without a truth",
        description=REPORT_DESCRIPTION,
    )
    parser.add_argument("predicted", metavar="PREDICTED.h5ad", type=terminal.path, help="made by predict")
    parser.add_argument(
        "--out", metavar="DIR", type=terminal.path, required=True, help="folder; it is made if needed"
    )
    add_labels(parser, "the report says how far the domains agree with it")
    parser.add_argument("--overwrite", action="store_true", help="replace the report in DIR")


def run_report(args: argparse.Namespace) -> int:
    """Read the prediction and write the page."""
    from napari_flag import keys
    from napari_flag.analysis.truth import measured_counts
    from napari_flag.prediction_file import read_prediction, slide_name

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


def add_labels(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--labels``; `what` describes its use."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=terminal.path,
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
    from napari_flag.analysis.domains import write_labels
    from napari_flag.slides.formats.labels import read_labels

    if path is not None:
        write_labels(adata, read_labels(path))


def as_typed(path: Path | None) -> list[str]:
    """Return the option as it stands on a command line."""
    return [] if path is None else ["--labels", str(path)]
