"""``napari-flag compare``: a prediction against what was measured."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_flag import keys
from napari_flag.cli import arguments
from napari_flag.cli.labelling import add_labels, as_typed, label
from napari_flag.cli.outputs import check_place, make_folder
from napari_flag.cli.terminal import ProgressLine, say, say_columns, say_json
from napari_flag.progress import finish
from napari_flag.reporting import report_name, write_report

if TYPE_CHECKING:
    from napari_flag.comparison import Comparison, Scores
    from napari_flag.reporting.findings import Findings

DESCRIPTION = """\
Spots are matched by id, genes by symbol; expression is log2(count + 1).

  PCC        mean over genes of Pearson's r across spots
  MSE        mean squared error
  GSC        agreement of gene-gene correlations (co-expression kept)
  SSC        agreement of Moran's I across genes (spatial pattern kept)
  cPCC       PCC after taking each spot's mean away (what is not depth)
  amplitude  median over genes of var(predicted) / var(measured)

In brackets: 95 % bootstrap intervals, over blocks of neighbouring spots (PCC, MSE, cPCC) or over
genes (GSC, SSC). A high score in one of them alone means little; look at all together.
"""
LISTED = 8
"""Unmatched names shown in the text; --json lists all."""


def add_commands(commands: arguments.Commands) -> None:
    """Add ``compare``."""
    parser = arguments.add_command(
        commands,
        "compare",
        run,
        summary="score a prediction against measured expression",
        description=DESCRIPTION,
    )
    parser.add_argument("predicted", metavar="PREDICTED.h5ad", type=arguments.path, help="made by predict")
    parser.add_argument(
        "measured",
        metavar="MEASURED",
        type=arguments.path,
        help="raw counts: h5ad, Space Ranger folder or matrix, or ST table (.tsv, .tsv.gz)",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=arguments.path,
        help="also write a report (HTML, one file), the scores (JSON) and one row per gene (CSV, for X and "
        "for the sample) into this folder; it is made if needed",
    )
    add_labels(parser, "ARI and NMI then say how far the domains of prediction and truth agree with it")
    parser.add_argument("--overwrite", action="store_true", help="replace files in DIR")
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print, and write the tables and the report where asked."""
    from napari_flag.comparison import comparing
    from napari_flag.reporting.findings import gather
    from napari_flag.results import read_prediction
    from napari_flag.slides.tables import read_measured

    predicted, measured = read_prediction(args.predicted), read_measured(args.measured)
    label(predicted, args.labels)
    files = {"predicted": str(args.predicted), "measured": str(args.measured)}
    findings: Findings | None = None
    written: tuple[Path, ...] = ()
    with ProgressLine() as line:
        on_step = None if args.json else line  # who reads JSON wants no lines of progress
        comparison = finish(comparing(predicted, measured), on_step)
        result = comparison.to_dict() | files
        if args.labels is not None:
            findings = finish(gather(predicted, measured, comparison=comparison), on_step)
            assert findings.labels is not None
            result |= {"labels": str(args.labels), "label_agreement": findings.labels.to_dict()}
        if args.out is not None:
            written = _write(comparison, result, args)
            options = ["--out", str(args.out), *as_typed(args.labels)]
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


def _write(comparison: "Comparison", result: dict[str, Any], args: argparse.Namespace) -> tuple[Path, ...]:
    """Write scores and tables, after making sure that nothing of someone else's is replaced."""
    from napari_flag.results import write_json, write_table

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
    """Tell whether `path` holds an earlier comparison of the same files."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        same = all(earlier[key] == result[key] for key in ("predicted", "measured"))
        return same and earlier.get("labels") == result.get("labels")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _print(comparison: "Comparison") -> None:
    for notice in comparison.notices:
        say(f"Note: {notice}")
    say(
        f"{comparison.slide}: {comparison.spots:,} spots and {comparison.genes:,} genes compared, "
        "log2(count + 1)"
    )
    mean, sample = comparison.scores["X"], comparison.scores["sample"]
    rows = [["", "X (mean)", "", "one sample", ""]]
    for metric in mean.values:
        rows.append([metric, *_cells(mean, metric), *_cells(sample, metric)])
    say_columns(rows, indent="  ")
    say(f"  Moran's I on the {comparison.neighbours}, row-standardised.")
    if mean.genes_constant_in_truth:
        say(
            f"  {mean.genes_constant_in_truth} genes are the same in every measured spot and were "
            "left out of all but MSE."
        )
    if mean.genes_predicted_constant:
        say(f"  {mean.genes_predicted_constant} genes are predicted constant and score 0.")
    _print_unmatched(comparison)


def _print_labels(findings: "Findings") -> None:
    labels = findings.labels
    assert labels is not None
    for key, word in ((keys.DOMAIN, "prediction"), (keys.DOMAIN + keys.OF_MEASURED, "truth")):
        if key in labels.agreements:
            found = labels.agreements[key]
            say(f"  Domains of the {word} to the labels: ARI {found.ari:.3f}, NMI {found.nmi:.3f}")
    if not labels.agreements:
        say("  There are too few spots for domains to hold against the labels.")


def _cells(scores: "Scores", metric: str) -> list[str]:
    value = scores.values[metric]
    low, high = scores.intervals.get(metric, (float("nan"), float("nan")))
    return [
        "not defined" if value != value else f"{value:.3f}",
        "" if low != low else f"[{low:.3f}, {high:.3f}]",
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
            say(f"  {len(names):,} {what}: {', '.join(names[:LISTED])}{more}")
