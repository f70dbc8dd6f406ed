"""``napari-flag export`` and ``report``: files and a page on a prediction; options of ``compare`` too."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag.cli import terminal
from napari_flag.cli.terminal import (
    ProgressLine,
    Words,
    add_genes,
    cancelled_as,
    fingerprint,
    recorded,
    say,
    say_json,
    with_written,
)
from napari_flag.errors import UserError
from napari_flag.files import make_folder
from napari_flag.progress import Step, finish

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.analysis.set_maps import SetMap
    from napari_flag.slides.slide import Slide


NAMES: Final = ("h5ad", "spatialdata", "geojson", "ome-tiff", "csv")
"""Of the formats; named here too so that --help loads nothing, and a test holds both equal."""
EXPORT_DESCRIPTION: Final = """\
  h5ad         AnnData with Moran's I and domains in the keys that scanpy and squidpy use
  spatialdata  SpatialData zarr: circles of true radius, the table, the H&E (napari-spatialdata, squidpy)
  geojson      QuPath: spots as detections with a measurement per gene, domains as annotations
  ome-tiff     one channel per gene over the whole slide, µm per pixel and names inside
  csv          a row per spot, a column per gene

Files are named after the slide. All numbers are log2(count + 1). A csv has no room to state the command that
wrote it, and so is replaced with --overwrite only.
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
    add("predicted", metavar="PREDICTED.h5ad", type=terminal.path, help=PREDICTED)
    add_unit(parser)
    add("--to", nargs="+", choices=NAMES, required=True, metavar="FORMAT", help=", ".join(NAMES))
    add("--out", metavar="DIR", type=terminal.path, required=True, help="folder; it is made if needed")
    add_genes(parser, "all")
    add(
        "--measured",
        metavar="COUNTS",
        type=terminal.path,
        help="measured raw counts of these spots, stored in the layer measured; a Visium HD, Xenium or CosMx "
        "folder is pooled into the spots of the prediction",
    )
    add(
        "--slide",
        metavar="SLIDE",
        type=terminal.path,
        help="the slide, whose whole image then goes into the SpatialData zarr; without it, the small "
        "picture of the prediction does",
    )
    add_labels(parser, 'written as obs["label"]')
    add(
        "--gene-sets",
        metavar="FILE.gmt",
        type=terminal.path,
        help='gene sets that obsm["gene_set_scores"] holds a score of in each spot, e.g. of MSigDB (default: '
        "those scored in the file, or the bundled ones)",
    )
    terminal.add_overwrite(parser, "a file in DIR")
    add("--force", action="store_true", help="write spots or counts that look wrong as well, and record it")
    terminal.add_keep_names(parser)
    terminal.add_json(parser)


def run_export(args: argparse.Namespace) -> int:
    """Read, complete and write."""
    from napari_flag.analysis.truth import attach_measured
    from napari_flag.exports.formats import export, find_format, place_of
    from napari_flag.exports.replacing import check_place, repeating
    from napari_flag.slide_identity import doubt_about

    sets = read_gene_sets(args.gene_sets)
    formats = [find_format(name) for name in dict.fromkeys(args.to)]
    for wanted in formats:
        wanted.check()
    adata, said = read_named(args.predicted, args)
    _refuse_unused(args, adata, [wanted.name for wanted in formats])
    refuse_unit(args, adata)
    said = (*said, *label(adata, args.labels))
    places = [(wanted, place_of(adata, wanted, args.out)) for wanted in formats]
    words = ["napari-flag", "export", args.predicted]
    identity = fingerprint(
        with_options(words, args, ("unit", "genes", "gene_sets", "measured", "slide", "labels"))
    )
    for _, place in places:
        check_place(place, args.overwrite, repeating(place, identity), source=args.predicted)
    slide = None if args.slide is None else _open(args.slide, adata)
    written: list[Path] = []

    def on_step(step: Step) -> None:
        if isinstance(step.partial, Path):
            written.append(step.partial)
        line(step)

    try:
        with cancelled_as(lambda: with_written(written)), ProgressLine() as line:
            for sentence in (*said, *([] if slide is None else filter(None, [doubt_about(adata, slide)]))):
                line.notice(sentence)
            if args.measured is not None:
                counts = read_counts(adata, args.measured, args.predicted, line, slide=slide)
                for sentence in attach_measured(adata, counts, force=args.force):
                    line.notice(sentence)
            exporting = export(
                adata,
                places,
                genes=args.genes,
                gene_sets=sets,
                slide=slide,
                force=args.force,
                identity=identity,
            )
            finish(exporting, on_step)
    finally:
        if slide is not None:
            slide.close()
    say_written(written, args)
    return 0


def _refuse_unused(args: argparse.Namespace, adata: "AnnData", formats: Sequence[str]) -> None:
    """Refuse options that would change nothing in the files asked for."""
    from napari_flag.prediction_doubts import find_misplaced
    from napari_flag.slides.spot_tables import needs_pooling

    if args.force and args.measured is None and find_misplaced(adata) is None:
        raise UserError(
            "--force writes spots and counts that look wrong, and nothing looks wrong here; leave it out, or "
            "give counts with --measured."
        )
    if args.gene_sets is not None and not {"h5ad", "spatialdata"} & set(formats):
        raise UserError(
            f"--gene-sets is for the scores that h5ad and spatialdata hold, and {', '.join(formats)} holds "
            "none; add one of them to --to, or leave --gene-sets out."
        )
    pooled = args.measured is not None and needs_pooling(args.measured)
    if args.slide is not None and "spatialdata" not in formats and not pooled:
        raise UserError(
            f"--slide is the image of a SpatialData zarr, and {', '.join(formats)} holds none; add "
            "spatialdata to --to, or leave --slide out."
        )


def _open(path: Path, adata: "AnnData") -> "Slide":
    """Open the slide, and refuse one of another size than was predicted on."""
    from napari_flag.slide_identity import refuse_other_size
    from napari_flag.slides.slide import open_slide

    slide = open_slide(path)
    try:
        refuse_other_size(adata, slide)
    except UserError:
        slide.close()
        raise
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
    parser.add_argument("predicted", metavar="PREDICTED.h5ad", type=terminal.path, help=PREDICTED)
    add_unit(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=terminal.path, required=True, help="folder; it is made if needed"
    )
    add_labels(parser, "the report says how far the domains agree with it")
    add_gene_sets(parser)
    terminal.add_overwrite(parser, "a report in DIR")
    parser.add_argument(
        "--force", action="store_true", help="report also on spots that look misplaced; the page says so"
    )
    terminal.add_keep_names(parser)
    terminal.add_json(parser)


def run_report(args: argparse.Namespace) -> int:
    """Read the prediction and write the page."""
    from napari_flag.analysis.truth import truth_of
    from napari_flag.exports.replacing import check_place, repeats
    from napari_flag.prediction_file import output_name
    from napari_flag.report import report_place, write_report
    from napari_flag.report.findings import gather

    sets = read_gene_sets(args.gene_sets)
    check_set(sets, args.set)
    predicted, said = read_named(args.predicted, args)
    refuse_unit(args, predicted)
    said = (*said, *label(predicted, args.labels))
    words = with_options(
        ["napari-flag", "report", args.predicted], args, ("labels", "unit", "gene_sets", "set")
    )
    identity = fingerprint(words)
    page = report_place(args.out, output_name(predicted))
    places = set_places(output_name(predicted), args.set, args.out)
    for path in (page, *places):  # the page says what made the pictures beside it
        check_place(path, args.overwrite, lambda: repeats(page, identity))
    command = recorded([*words, "--out", args.out], args.keep_names)
    written: list[Path] = []
    with cancelled_as(lambda: with_written(written)), ProgressLine() as line:
        for sentence in said:
            line.notice(sentence)
        measured = finish(truth_of(predicted), line)
        findings = finish(gather(predicted, measured, sets=sets, shown_set=args.set, force=args.force), line)
        make_folder(args.out)
        write_set_map(findings.set_map, places)
        written += places
        work = write_report(
            predicted, measured, args.out, findings=findings, command=command, identity=identity
        )
        finish(work, line)
    say_written((page, *places), args)
    return 0


PREDICTED: Final = "of predict, or of any model: h5ad with positions, or SpatialData zarr"


def add_unit(parser: argparse.ArgumentParser) -> None:
    """Add ``--unit``."""
    parser.add_argument(
        "--unit",
        choices=("log2p1", "log1p", "counts"),
        help="what another model's file holds where it does not say so: log2(count + 1), "
        "ln(count + 1) or counts; a file that states another unit is refused",
    )


def refuse_unit(args: argparse.Namespace, *predictions: "AnnData") -> None:
    """Refuse ``--unit`` where every file states its own."""
    from napari_flag.foreign_prediction import is_foreign

    if args.unit is not None and not any(map(is_foreign, predictions)):
        raise UserError(
            "--unit is for files of other programs, and napari-flag's own predictions state theirs; leave it "
            "out."
        )


def say_written(paths: Sequence[Path], args: argparse.Namespace) -> None:
    """Say which files were written, as JSON where it is asked for."""
    if args.json:
        say_json(written_of(paths))
    else:
        for path in paths:
            say(f"Wrote {path}")


def written_of(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return what JSON says of the files that a command wrote."""
    return {"written": [str(path) for path in paths]}


def read(path: Path, unit: str | None) -> "AnnData":
    """Read a prediction of any model."""
    from napari_flag.foreign_prediction import read_any_prediction

    return read_any_prediction(path, unit)


def read_named(path: Path, args: argparse.Namespace) -> "tuple[AnnData, tuple[str, ...]]":
    """Read a prediction of any model, under the name that results may have; also what is to be said of it."""
    from napari_flag.slide_identity import without_personal_names

    return without_personal_names(read(path, args.unit), args.keep_names)


def read_counts(
    adata: "AnnData",
    source: Path,
    predicted: Path,
    line: ProgressLine,
    *,
    slide: "Slide | None" = None,
    alignment: Path | None = None,
    quiet: bool = False,
) -> "AnnData":
    """Read what a prediction in the file `predicted` is compared with; what was pooled is said."""
    from napari_flag.discovery import counts_for
    from napari_flag.slides.spot_tables import needs_pooling

    reading = counts_for(adata, source, beside=predicted, slide=slide, alignment=alignment)
    counts, said = finish(reading, line if needs_pooling(source) and not quiet else None)
    for sentence in said:
        line.notice(sentence)
    return counts


def add_labels(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--labels``; `what` describes its use."""
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=terminal.path,
        help="what a pathologist or a clustering called each spot (her2st's annotations, Loupe's CSV, or a "
        f"table of spot ids and labels); {what}",
    )


def add_gene_sets(parser: argparse.ArgumentParser) -> None:
    """Add ``--gene-sets``."""
    parser.add_argument(
        "--gene-sets",
        metavar="FILE.gmt",
        type=terminal.path,
        help="gene sets to look for in the domains, e.g. of MSigDB (default: the bundled ones)",
    )
    parser.add_argument(
        "--set",
        metavar="NAME",
        help="gene set whose heat map over the domains the page shows (default: the first with two genes "
        "here); it is then also saved into DIR, as PNG and as SVG",
    )


def read_gene_sets(path: Path | None) -> "dict[str, tuple[str, ...]] | None":
    """Read the gene sets in `path`; None where it was not given, for which there is a default."""
    from napari_flag.analysis.pathways import read_gmt

    return None if path is None else read_gmt(path)


def check_set(sets: "Mapping[str, Sequence[str]] | None", name: str | None) -> None:
    """Refuse the name of a gene set that is in none of the sets (None: the bundled ones), before any work."""
    from napari_flag.analysis.pathways import bundled
    from napari_flag.analysis.set_maps import find_set

    if name is not None:
        find_set(bundled() if sets is None else sets, name)


def set_places(slide: str, name: str | None, folder: Path) -> tuple[Path, ...]:
    """Return where the heat map of the set that was asked for goes; nowhere where none was."""
    from napari_flag.files import place_in

    if name is None:
        return ()
    return tuple(place_in(folder, f"{slide}_{name}", f".{ending}") for ending in ("png", "svg"))


def write_set_map(found: "SetMap | None", places: tuple[Path, ...]) -> None:
    """Write the heat map of a set to each place.

    Raises
    ------
    UserError
        When there are no domains to show it in.
    """
    from napari_flag.figures.heat_maps import save_set_map

    if places and found is None:
        raise UserError("There are too few spots for domains, so there is no heat map; leave --set out.")
    for place in places:
        if found is not None:
            save_set_map(place, found)


def label(adata: "AnnData", path: Path | None) -> tuple[str, ...]:
    """Write the labels in `path`, where it is given, into ``obs["label"]``; say how many spots have one.

    Raises
    ------
    UserError
        When the file holds no labels, or none of these spots.
    """
    from napari_flag import keys
    from napari_flag.analysis.domains import labelled_share, write_labels
    from napari_flag.slides.formats.labels import read_labels

    if path is None:
        return ()
    write_labels(adata, read_labels(path))
    labelled = adata.obs[keys.LABEL].notna().to_numpy()
    if labelled.all():
        return ()
    return (f"Only {labelled_share(labelled)} by {path.name}; the others count as unlabelled.",)


def with_options(words: Words, args: argparse.Namespace, names: Sequence[str]) -> list[str | Path]:
    """Return a command line and those of its options that its numbers depend on, in a fixed order.

    `names` are of arguments as argparse has them; ``--force`` and ``--keep-names`` are added.
    """
    typed = list(words)
    for name in names:
        value = getattr(args, name)
        several = value if isinstance(value, tuple) else (value,)
        typed += [] if value is None else [f"--{name.replace('_', '-')}", *several]
    return [*typed, *["--force"] * args.force, *["--keep-names"] * args.keep_names]
