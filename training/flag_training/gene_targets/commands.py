"""``napari-flag gene-targets …``: make and check gene vectors.  Heavy imports wait for the command."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flag_training.gene_targets.table import GeneTable


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add ``gene-targets``."""
    parser = commands.add_parser(
        "gene-targets",
        help="make the gene vectors that training aligns to",
        description="Make gene vectors for FLAG's alignment loss: from a gene foundation model in a local "
        "folder, or learnt from co-expression, which needs no download. Used in training only.",
    )
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_coexpression(kinds)
    _add_check(kinds)


def _add_coexpression(kinds: "argparse._SubParsersAction[Any]") -> None:
    parser = kinds.add_parser(
        "coexpression",
        help="learn them from the counts of sections",
        description="Learn gene vectors whose cosines are the genes' correlations in the sections given. "
        "A fold's test section must be left out, or its whole patient where a patient is tested.",
    )
    parser.add_argument(
        "--counts", type=Path, required=True, metavar="DIR", help="count tables, one a section (C5.tsv.gz)"
    )
    _add_panel_and_out(parser)
    _add_names(parser, "--sections", "SECTION", "learn from these only (default: all of the folder)")
    _add_names(parser, "--leave-out", "SECTION", "sections not to learn from")
    _add_names(parser, "--leave-out-patient", "PATIENT", "patients not to learn from: C is C1, C2, …")
    parser.add_argument("--relative", action="store_true", help="use each gene's share of the panel's counts")
    parser.add_argument("--width", type=int, metavar="N", help="length of the vectors (default: all)")
    parser.set_defaults(run=run_coexpression)


def _add_check(kinds: "argparse._SubParsersAction[Any]") -> None:
    parser = kinds.add_parser(
        "check",
        help="compare a table's gene–gene similarity with sections",
        description="Print, per section, Pearson's r over pairs of genes between the cosines of their "
        "vectors and their correlation in the section (GSC's way).",
    )
    parser.add_argument("table", type=Path, metavar="TABLE.safetensors", help="gene vectors")
    parser.add_argument("sections", nargs="+", type=Path, metavar="COUNTS", help="count tables of sections")
    parser.add_argument("--relative", action="store_true", help="compare shares of the panel's counts")
    parser.set_defaults(run=run_check)


def _add_panel_and_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--panel", type=Path, required=True, metavar="FILE", help="gene symbols, one a line")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.safetensors", help="gene vectors to write"
    )


def _add_names(parser: argparse.ArgumentParser, flag: str, metavar: str, told: str) -> None:
    parser.add_argument(flag, nargs="+", default=[], metavar=metavar, help=told)


def run_coexpression(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets coexpression``."""
    from flag_training.gene_targets.coexpression import find_sections, learn_from_folder
    from flag_training.gene_targets.panel import read_panel_file
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.progress import finish

    panel = read_panel_file(arguments.panel)
    sections = find_sections(
        arguments.counts, arguments.sections, arguments.leave_out, arguments.leave_out_patient
    )
    with ProgressLine() as line:
        work = learn_from_folder(sections, panel, relative=arguments.relative, width=arguments.width)
        table = finish(work, line)
    _write(arguments.out, table)
    sys.stdout.write(f"Learnt from {', '.join(sections)}.\n")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets check``."""
    from flag_training.gene_targets.coexpression import agreement, read_section
    from flag_training.gene_targets.table import read_table

    table = read_table(arguments.table)
    learnt_from = table.source.get("sections", ())
    for path in arguments.sections:
        section = read_section(path.name.split(".")[0], path, table.genes)
        r = agreement(table, section, relative=arguments.relative)
        note = " (learnt from it)" if section.name in learnt_from else ""
        sys.stdout.write(f"{section.name}\t{r:.3f}{note}\n")
    return 0


def _write(out: Path, table: "GeneTable") -> None:
    from flag_training.gene_targets.table import write_table

    write_table(out, table)
    sys.stdout.write(f"Wrote {out}: {table.coverage}\n")
