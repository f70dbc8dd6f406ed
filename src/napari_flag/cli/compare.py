"""``napari-flag compare``: one prediction, or several models', scored against a measurement."""

import argparse
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import keys
from napari_flag.cli import terminal
from napari_flag.cli.analyse import (
    PREDICTED,
    add_gene_sets,
    add_labels,
    add_unit,
    check_set,
    label,
    read_counts,
    read_gene_sets,
    read_named,
    refuse_unit,
    set_places,
    with_options,
    write_set_map,
    written_of,
)
from napari_flag.cli.predict import add_alignment
from napari_flag.cli.terminal import (
    ProgressLine,
    Words,
    cancelled_as,
    fingerprint,
    recorded,
    say,
    say_columns,
    say_json,
    with_written,
)
from napari_flag.errors import UserError
from napari_flag.files import make_folder
from napari_flag.formatting import (
    UNDEFINED,
    counted,
    first_of,
    in_markdown,
    interval,
    number,
    probability,
    score,
    whole,
)
from napari_flag.progress import finish
from napari_flag.slides.file_identity import name_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.analysis.compare import Comparison
    from napari_flag.analysis.models import ModelComparison
    from napari_flag.analysis.pathways import DomainSets
    from napari_flag.analysis.scores import Scores
    from napari_flag.report.findings import Findings, Labelled


WIDTH: Final = 106
"""Of the description, in characters."""
COMPARE_DESCRIPTION: Final = """\
Spots are matched by id, genes by symbol; expression is log2(count + 1).

X, the expectation, is judged by

{expectation}

and draws, each one expression that could have been measured here, by

{draws}

The last five are proper scores: 0 is best, and nothing but a better distribution lowers them. They need
eight draws. X has GSC and SSC too, since the table of FLAG's paper reads all from one array; an expectation
cannot have the structure of a noisy truth.

In brackets: 95 % bootstrap intervals, over blocks of neighbouring spots or, for GSC, SSC and ES-map, over
genes. A high score in one of them alone means little; compare all of them.

With --measured, several models are scored in one table, over the spots and genes that all have, beside
controls that see the measurement and no image, with the gene sets that each recovers in the domains of the
measurement beside what chance recovers. Their draws are judged by fair proper scores, those of the
distribution and not of so many draws, which need 16 draws of a prediction of napari-flag:

  napari-flag compare ours.h5ad deepspot.h5ad stpath.h5ad --measured C5.tsv.gz
"""
BUNDLED: Final = "bundled"
"""What JSON says of the gene sets where none were given."""
LISTED: Final = 8
"""Unmatched names shown in the text; --json lists all."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Says what the metrics mean, for which numpy is loaded, only where help is asked for."""

    def add_text(self, text: str | None) -> None:
        """Fill in the meanings."""
        if text is not None and "{draws}" in text:
            from napari_flag.analysis.scores import EXPECTATION, PROPER, STRUCTURE

            text = text.format(expectation=_meanings(EXPECTATION), draws=_meanings((*STRUCTURE, *PROPER)))
        super().add_text(text)


def _meanings(names: Sequence[str]) -> str:
    """Return a line, or two, for each metric: its name and what it means."""
    from napari_flag.analysis.scores import MEANING

    lines = (f"  {name:<9}  {MEANING[name]}" for name in names)
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent=13 * " ") for line in lines)


def add_compare(commands: terminal.Commands) -> None:
    """Add ``compare``."""
    parser = terminal.add_command(
        commands,
        "compare",
        run_compare,
        summary="score one prediction, or several models', against measured expression",
        description=COMPARE_DESCRIPTION,
    )
    parser.formatter_class = _Help
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        type=terminal.path,
        help=f"predictions {PREDICTED}; without --measured the second of two files is the measurement",
    )
    parser.add_argument(
        "--measured",
        metavar="COUNTS",
        type=terminal.path,
        help="raw counts: h5ad, Space Ranger folder or matrix, or ST table (.tsv, .tsv.gz); a Visium HD, "
        "Xenium or CosMx folder is pooled into the spots of the prediction",
    )
    add_unit(parser)
    add_alignment(parser)
    parser.add_argument(
        "--spots",
        metavar="TABLE",
        type=terminal.path,
        help="where the measured spots lie: rows of another model's file that are not named like them are "
        "named after the spots they lie on",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=terminal.path,
        help="also write a report (HTML, one file), the scores (JSON) and one row per gene (CSV, for X and "
        "for draw 1) into this folder, of several models their table (JSON, CSV, Markdown); made if needed",
    )
    add_labels(parser, "ARI and NMI then say how far the domains of prediction and truth agree with it")
    add_gene_sets(parser)
    terminal.add_overwrite(parser, "a file in DIR")
    parser.add_argument(
        "--force",
        action="store_true",
        help="compare counts that look scaled or mixed up, spots that look misplaced, or predictions that "
        "state different slides, all the same; it is said in the result",
    )
    terminal.add_keep_names(parser)
    terminal.add_json(parser)


def run_compare(args: argparse.Namespace) -> int:
    """Compare one prediction, or several."""
    if args.out is None and args.overwrite:
        raise UserError("--overwrite replaces files in the folder of the report; give --out DIR too.")
    files, measured = list(args.files), args.measured
    if measured is None:
        if len(files) != 2:
            raise UserError(
                f"{counted(len(files), 'file')} {'was' if len(files) == 1 else 'were'} given, so it is not "
                "clear which is the measurement; give one prediction and then its measured counts, or name "
                "the counts with --measured."
            )
        measured = files.pop()
    if len(files) == 1:
        return _compare_one(args, files[0], measured)
    return _compare_models(args, files, measured)


def _compare_one(args: argparse.Namespace, predicted_path: Path, measured_path: Path) -> int:
    """Compare, print, and write the tables and the report where requested."""
    from napari_flag.analysis.compare import comparing
    from napari_flag.report import write_report
    from napari_flag.report.findings import gather

    words = _words(args, [predicted_path], measured_path)
    files = {
        "predicted": name_of(predicted_path, args.keep_names),
        "measured": name_of(measured_path, args.keep_names),
        keys.COMMAND_HASH: fingerprint(words),
    }
    if args.set is not None and args.out is None:
        raise UserError("--set draws a heat map into the folder of the report; give --out DIR too.")
    findings: Findings | None = None
    sets = read_gene_sets(args.gene_sets)
    check_set(sets, args.set)
    written: list[Path] = []
    with cancelled_as(lambda: with_written(written)), ProgressLine() as line:
        on_step = None if args.json else line  # who reads JSON wants no lines of progress
        predicted, said = read_named(predicted_path, args)
        refuse_unit(args, predicted)
        _refuse_places(args, predicted)
        for sentence in said:
            line.notice(sentence)
        measured = read_counts(
            predicted, measured_path, predicted_path, line, alignment=args.alignment, quiet=args.json
        )
        predicted = _named_by_place(predicted, measured, args)
        for sentence in label(predicted, args.labels):
            line.notice(sentence)
        comparison = finish(comparing(predicted, measured, force=args.force), on_step)
        result = comparison.to_dict() | files
        if any(option is not None for option in (args.labels, args.gene_sets, args.out)):
            gathering = gather(predicted, measured, comparison=comparison, sets=sets, shown_set=args.set)
            findings = finish(gathering, on_step)
            result |= {} if findings.pathways is None else {"gene_sets": findings.pathways.to_dict()}
            if args.labels is not None and findings.labels is not None:
                result |= {
                    "labels": name_of(args.labels, args.keep_names),
                    "label_agreement": findings.labels.to_dict(),
                }
        if args.out is not None:
            for path in _writing(comparison, result, args):
                written.append(path)
            pictures = set_places(comparison.slide, args.set, args.out)
            write_set_map(None if findings is None else findings.set_map, pictures)
            written += pictures
            command = recorded([*words, "--out", args.out], args.keep_names)
            work = write_report(
                predicted, measured, args.out, comparison=comparison, findings=findings, command=command,
                identity=result[keys.COMMAND_HASH],
            )  # fmt: skip
            written.append(finish(work, on_step))
        for notice in comparison.notices:
            line.notice(notice)
    if args.json:
        say_json(result if args.out is None else result | written_of(written))
        return 0
    _print(comparison)
    if findings is not None:
        if findings.labels is not None:
            _print_labels(findings.labels)
        if findings.pathways is not None:
            say(findings.pathways.described())
    for path in written:
        say(f"Wrote {path}")
    return 0


def _refuse_places(args: argparse.Namespace, *predictions: "AnnData") -> None:
    """Refuse ``--spots`` where no prediction is of another program."""
    from napari_flag.foreign_prediction import is_foreign

    if args.spots is not None and not any(map(is_foreign, predictions)):
        raise UserError(
            "--spots names rows of another program's file, and spots of napari-flag's own predictions have "
            "their names; leave it out."
        )


def _words(args: argparse.Namespace, files: Sequence[Path], measured: Path) -> list[str | Path]:
    """Return the command line that gives the same numbers, by which a repetition is known."""
    words: Words = ["napari-flag", "compare", *files, "--measured", measured]
    return with_options(words, args, ("labels", "unit", "spots", "alignment", "gene_sets", "set"))


def _named_by_place(adata: "AnnData", measured: "AnnData", args: argparse.Namespace) -> "AnnData":
    """Return a prediction; rows of another model's that are no measured spots are named by their place."""
    from napari_flag.foreign_prediction import is_foreign, name_by_place
    from napari_flag.slides.spot_tables import read_spots

    if args.spots is None or not is_foreign(adata) or adata.obs_names.isin(measured.obs_names).any():
        return adata
    return name_by_place(adata, read_spots(args.spots).spots, args.spots.name)


def _writing(comparison: "Comparison", result: dict[str, Any], args: argparse.Namespace) -> Iterator[Path]:
    """Write scores and tables, after making sure that nothing of someone else's is replaced; yield each."""
    from napari_flag.exports.replacing import TABLES_HASH, check_place, repeating, repeats, repeats_beside
    from napari_flag.files import place_in, table_digest, write_json, write_table
    from napari_flag.report import report_place

    folder: Path = args.out
    scores = place_in(folder, comparison.slide, "_scores.json")
    ends = {"X": "genes", "sample": "genes_sample"}
    tables = {name: place_in(folder, comparison.slide, f"_{ends[name]}.csv") for name in comparison.tables}
    same = repeats(scores, result[keys.COMMAND_HASH])
    page = report_place(folder, comparison.slide)
    for path in (scores, *set_places(comparison.slide, args.set, folder)):
        check_place(path, args.overwrite, lambda: same)
    for path in tables.values():
        check_place(path, args.overwrite, partial(repeats_beside, path, scores, result[keys.COMMAND_HASH]))
    check_place(page, args.overwrite, repeating(page, result[keys.COMMAND_HASH]))  # may be of `report`
    make_folder(folder)
    digests = {path.name: table_digest(comparison.tables[name]) for name, path in tables.items()}
    write_json(result | {TABLES_HASH: digests}, scores)
    yield scores
    for name, path in tables.items():
        write_table(comparison.tables[name], path)
        yield path


def _print(comparison: "Comparison") -> None:
    from napari_flag.analysis.scores import EXPECTATION, FEWEST_DRAWS, STRUCTURE

    say(
        f"{comparison.slide}: {counted(comparison.spots, 'spot')} and {counted(comparison.genes, 'gene')} "
        "compared, log2(count + 1)"
    )
    mean, drawn = comparison.scores["X"], comparison.draws
    sample, over_draws = comparison.scores.get("sample"), drawn.values
    rows = [["", "X (expectation)", ""]]
    rows[0] += [] if sample is None else ["one draw", ""]
    rows[0] += [drawn.mean_of] if drawn.number > 1 else []
    for metric in (*EXPECTATION, *STRUCTURE):
        row = [metric, *_cells(mean, metric)]
        row += [] if sample is None else _cells(sample, metric)
        row += [score(over_draws[metric], metric, UNDEFINED)] if drawn.number > 1 else []
        rows.append(row)
    say_columns(rows, indent="  ")
    say("  Judge X by PCC, MSE and cPCC, draws by GSC, SSC, amplitude and the proper scores (0 is best).")
    if drawn.number:
        say(f"  {drawn.why_not or f'Proper scores of the first {FEWEST_DRAWS} draws:'}")
    say_columns(
        [
            [name, score(value, name, UNDEFINED), interval(drawn.intervals[name], name)]
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


def _print_labels(labels: "Labelled") -> None:
    from napari_flag.analysis.domains import labelled_share

    for key, word in ((keys.DOMAIN, "prediction"), (keys.DOMAIN + keys.OF_MEASURED, "truth")):
        if key in labels.agreements:
            say(f"  Domains of the {word} to the labels: {labels.agreements[key].described()}")
    say(f"  {labelled_share(labels.codes >= 0)}.")
    if not labels.agreements:
        say("  There are too few spots for domains to be compared with the labels.")


def _cells(scores: "Scores", metric: str) -> list[str]:
    return [
        score(scores.values[metric], metric, UNDEFINED),
        interval(scores.intervals.get(metric), metric),
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
            say(f"  {whole(len(names))} {what}: {first_of(names, LISTED)}")


# --- several models ------------------------------------------------------------------------------
def _compare_models(args: argparse.Namespace, files: Sequence[Path], measured: Path) -> int:
    """Compare several predictions, print the table, and write it where requested."""
    from napari_flag.analysis.models import comparing_models, on_spots_of, placing
    from napari_flag.slides.spot_tables import needs_pooling, read_measured, unaligned

    for option, value in (("--labels", args.labels), ("--set", args.set)):
        if value is not None:
            raise UserError(
                f"{option} is for one prediction; leave it out, or compare the predictions one by one."
            )
    places, sets = _named(files, args.keep_names), read_gene_sets(args.gene_sets)
    read = {name: read_named(path, args) for name, path in places.items()}
    predictions = {name: adata for name, (adata, _) in read.items()}
    refuse_unit(args, *predictions.values())
    _refuse_places(args, *predictions.values())
    with ProgressLine() as line:
        for sentence in (sentence for _, said in read.values() for sentence in said):
            line.notice(sentence)
        if needs_pooling(measured):  # into the spots of one of them, which the others have to have
            first = placing(predictions)
            counts = read_counts(
                predictions[first], measured, places[first], line, alignment=args.alignment, quiet=args.json
            )
            predictions = {
                name: on_spots_of(each, predictions[first], first) for name, each in predictions.items()
            }
        else:
            if args.alignment is not None:
                raise unaligned(measured)
            counts = read_measured(measured)
            predictions = {name: _named_by_place(each, counts, args) for name, each in predictions.items()}
        on_step = None if args.json else line
        found = finish(comparing_models(predictions, counts, sets=sets, force=args.force), on_step)
        for sentence in found.said():
            line.notice(sentence)
    result = found.to_dict() | {
        "predicted": [name_of(path, args.keep_names) for path in files],
        "measured": name_of(measured, args.keep_names),
        "gene_sets": BUNDLED if args.gene_sets is None else name_of(args.gene_sets, args.keep_names),
        keys.COMMAND_HASH: fingerprint(_words(args, files, measured)),
    }
    written = () if args.out is None else _write_models(found, result, args)
    if args.json:
        say_json(result if args.out is None else result | written_of(written))
        return 0
    for text, rows in _tables_of(found):
        say(text)
        say_columns(rows, indent="  ")
    for path in written:
        say(f"Wrote {path}")
    return 0


def _named(files: Sequence[Path], keep_names: bool) -> dict[str, Path]:
    """Return the files by name; those of one name with their folder."""
    stems = [Path(name_of(path, keep_names)).name.removesuffix(".h5ad") for path in files]
    names = [
        stem if stems.count(stem) == 1 else f"{name_of(path.absolute().parent, keep_names)}/{stem}"
        for stem, path in zip(stems, files, strict=True)
    ]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f"{twice} was given more than once; give each prediction once, under a name of its own."
        )
    return dict(zip(names, files, strict=True))


def _tables_of(found: "ModelComparison") -> list[tuple[str, list[list[str]]]]:
    """Return heading and rows of the tables: expectation, structure of draws, proper scores."""
    from napari_flag.analysis.models import CONTROLS
    from napari_flag.analysis.scores import EXPECTATION, FAIR, FEWEST_DRAWS, PROPER, STRUCTURE

    def rows(metrics: Sequence[str], scored: Mapping[str, "Scores"]) -> list[list[str]]:
        return [
            ["", *metrics],
            *(
                [name, *(" ".join(_cells(scores, m)).strip() for m in metrics)]
                for name, scores in scored.items()
            ),
        ]

    scored = {name: comparison.scores["X"] for name, comparison in found.models.items()} | found.controls
    size = f"{whole(found.spots)} spots and {whole(found.genes)} genes of {found.slide}"
    tables = [
        (f"{size}, in all models and the measurement; log2(count + 1)", []),
        ("X, the expectation (PCC and cPCC: 1 is best, MSE: 0)", rows(EXPECTATION, scored)),
        (
            "Structure of X as one array, which an expectation cannot have (1 is best)",
            rows(STRUCTURE, scored),
        ),
    ]
    drawn = {name: c.draws for name, c in found.models.items() if c.draws.number}
    if drawn:
        table = [["", *STRUCTURE, "draws"]]
        for name, draws in drawn.items():
            cells = [score(draws.values[metric], metric, UNDEFINED) for metric in STRUCTURE]
            table.append([name, *cells, whole(draws.averaged)])
        tables.append((f"Structure of draws, mean over the first {FEWEST_DRAWS} or fewer (1 is best)", table))
    proper = {name: draws for name, draws in drawn.items() if draws.proper}
    if proper:
        table = [["", *PROPER, "draws"]]
        for name, draws in proper.items():
            cells = [
                f"{score(draws.proper[m], m, UNDEFINED)} {interval(draws.intervals[m], m)}".strip()
                for m in PROPER
            ]
            table.append([name, *cells, whole(draws.judged)])
        tables.append((f"Proper scores of draws (0 is best), {FAIR}", table))
    if found.pathways:
        tables.append(_recovered(found.pathways))
    controls = [[name, meaning] for name, meaning in CONTROLS.items()]
    tables.append(("Controls see the measurement they are judged by, and no image:", controls))
    return tables


def _recovered(pathways: "Mapping[str, DomainSets]") -> tuple[str, list[list[str]]]:
    """Return heading and rows of the table of gene sets."""
    from napari_flag.analysis.pathways import describe_skipped

    first = next(iter(pathways.values()))
    table = [["", "in the truth", "in the prediction", "in both", "both by chance", "p"]]
    for name, sets in pathways.items():
        found = sets.whole
        numbers = [len(found.measured), len(found.predicted), len(found.shared)]
        table.append([name, *map(whole, numbers), number(found.chance, 1), probability(found.p)])
    said = (
        f"Gene sets raised in {counted(len(first.domains), 'domain')} of the truth, each against the rest, "
        f"added up ({whole(first.whole.tested)} tested). {describe_skipped(first.skipped)}"
    )
    return said.strip(), table


def _write_models(
    found: "ModelComparison", result: dict[str, Any], args: argparse.Namespace
) -> tuple[Path, ...]:
    """Write the table as JSON, CSV and Markdown, after making sure that nothing of others is replaced."""
    from napari_flag.exports.replacing import TABLES_HASH, check_place, repeats, repeats_beside
    from napari_flag.files import place_in, table_digest, write_json, write_table, write_text

    places = tuple(place_in(args.out, found.slide, f"_models{ending}") for ending in (".json", ".csv", ".md"))
    as_json, as_csv, as_markdown = places
    identity, table = result[keys.COMMAND_HASH], found.table()
    same = repeats(as_json, identity)
    for path in (as_json, as_markdown):
        check_place(path, args.overwrite, lambda: same)
    check_place(as_csv, args.overwrite, partial(repeats_beside, as_csv, as_json, identity))
    make_folder(args.out)
    write_json(result | {TABLES_HASH: {as_csv.name: table_digest(table)}}, as_json)
    write_table(table, as_csv)
    write_text(_markdown(found), as_markdown)
    return places


def _markdown(found: "ModelComparison") -> str:
    from napari_flag.exports.replacing import SEALED_LINE

    lines = [f"# {in_markdown(found.slide)}: models compared", ""]
    lines += [f"- {in_markdown(said)}" for said in found.said()]
    for text, rows in _tables_of(found):
        lines += ["", in_markdown(text)]
        if rows:
            escaped = [[in_markdown(cell) for cell in row] for row in rows]
            head, *body = escaped if not rows[0][0] else [[""] * len(rows[0]), *escaped]
            lines += ["", _line(head), _line(["---"] * len(head)), *map(_line, body)]
    return "\n".join([*lines, "", SEALED_LINE + keys.RESEARCH_USE_ONLY, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
