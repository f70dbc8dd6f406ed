"""``napari-flag gene-targets …``: make and check gene vectors.  Heavy imports wait for the command."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from napari_flag.cli.terminal import Commands, add_command, add_device, at_least, path
from napari_flag.formatting import score

if TYPE_CHECKING:
    from flag_training.gene_targets.gene_table import GeneTable


GENE_TARGETS: Final = """\
Make gene vectors for FLAG's alignment loss: from a gene foundation model in a local folder, or learnt
from co-expression, which needs no download. Used in training only.
"""
COEXPRESSION: Final = """\
Learn gene vectors whose cosines are the genes' correlations in the sections given. A fold's test
section must be left out, or its whole patient where a patient is tested.
"""
CONTEXTUAL: Final = """\
Write Geneformer's vector of each panel gene in each spot, and of the spot. A run that was stopped is
resumed. Give the output folder to training as alignment_targets or alignment_cells.
"""
CHECK: Final = """\
Print, per section, Pearson's r over pairs of genes between the cosines of their vectors and their
correlation in the section (GSC's way).
"""


def add_commands(commands: Commands) -> None:
    """Add ``gene-targets``."""
    parser = add_command(
        commands, "gene-targets", run_check, summary="make the gene vectors that training aligns to",
        description=GENE_TARGETS,
    )  # fmt: skip
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    _add_coexpression(kinds)
    _add_models(kinds)
    _add_contextual(kinds)
    _add_check(kinds)


def _add_coexpression(kinds: Commands) -> None:
    parser = add_command(
        kinds, "coexpression", run_coexpression, summary="learn them from the counts of sections",
        description=COEXPRESSION,
    )  # fmt: skip
    _add_sections(parser)
    _add_names(parser, "--leave-out", "SECTION", "sections not to learn from")
    _add_names(parser, "--leave-out-patient", "PATIENT", "patients not to learn from: C is C1, C2, …")
    _add_panel(parser)
    _add_table(parser)
    parser.add_argument("--relative", action="store_true", help="use each gene's share of the panel's counts")
    parser.add_argument("--width", type=at_least(1), metavar="N", help="length of the vectors (default: all)")


def _add_models(kinds: Commands) -> None:
    parser = add_command(
        kinds, "geneformer", run_geneformer, summary="take them from Geneformer's word embedding"
    )
    _add_geneformer(parser)
    _add_panel(parser)
    _add_table(parser)
    parser = add_command(kinds, "scgpt", run_scgpt, summary="take them from scGPT's gene embedding")
    parser.add_argument("folder", type=path, metavar="FOLDER", help="holds best_model.pt and vocab.json")
    _add_panel(parser)
    _add_table(parser)
    parser = add_command(kinds, "cellplm", run_cellplm, summary="take them from CellPLM's gene embedding")
    parser.add_argument("folder", type=path, metavar="FOLDER", help="holds *.config.json and *.best.ckpt")
    _add_gene_ids(parser, "not needed where the panel holds Ensembl ids")
    _add_panel(parser)
    _add_table(parser)


def _add_contextual(kinds: Commands) -> None:
    parser = add_command(
        kinds, "contextual", run_contextual, summary="run Geneformer on every spot", description=CONTEXTUAL
    )
    _add_geneformer(parser)
    _add_sections(parser)
    _add_names(parser, "--leave-out", "SECTION", "sections to make no vectors of")
    _add_panel(parser)
    parser.add_argument(
        "--out", type=path, required=True, metavar="DIR", help="folder of all slides' vectors"
    )
    add_device(parser)
    parser.add_argument(
        "--batch", type=at_least(1), default=1, metavar="N", help="spots at once (default: 1)"
    )
    parser.add_argument(
        "--panel-only", action="store_true", help="rank the panel's genes alone, as FLAG does, not all genes"
    )


def _add_check(kinds: Commands) -> None:
    parser = add_command(
        kinds, "check", run_check, summary="compare a table's gene–gene similarity with sections",
        description=CHECK,
    )  # fmt: skip
    parser.add_argument("table", type=path, metavar="TABLE.safetensors", help="gene vectors")
    parser.add_argument("sections", nargs="+", type=path, metavar="COUNTS", help="count tables of sections")
    parser.add_argument("--relative", action="store_true", help="compare shares of the panel's counts")


def _add_geneformer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=path, metavar="FOLDER", help="model folder with config.json and model.safetensors"
    )
    parser.add_argument(
        "--dictionaries",
        type=path,
        metavar="DIR",
        help="its token, median and gene name dictionaries (default: geneformer/ beside the folder)",
    )
    _add_gene_ids(parser, "counts before its own dictionary, which may know a gene by a newer symbol")


def _add_gene_ids(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument(
        "--gene-ids",
        type=path,
        metavar="FILE",
        help="symbols with Ensembl ids, e.g. Space Ranger's features.tsv.gz or Geneformer's "
        f"gene_name_id_dict ({help_text})",
    )


def _add_sections(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--counts",
        type=path,
        required=True,
        metavar="DIR",
        help="count tables, one a section (C5.tsv.gz), or a store of napari-flag prepare",
    )
    _add_names(parser, "--sections", "SECTION", "these sections only (default: all)")


def _add_panel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--panel", type=path, required=True, metavar="FILE", help="gene symbols, one a line")


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=path, required=True, metavar="FILE.safetensors", help="gene vectors to write"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace gene vectors that napari-flag wrote"
    )


def _add_names(parser: argparse.ArgumentParser, flag: str, metavar: str, help_text: str) -> None:
    parser.add_argument(flag, nargs="+", default=[], metavar=metavar, help=help_text)


def run_coexpression(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets coexpression``."""
    from flag_training.gene_targets.gene_table import read_panel_file
    from flag_training.gene_targets.learnt_vectors import learn_vectors
    from flag_training.gene_targets.sections import find_sections
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.exports.replacing import check_place
    from napari_flag.progress import finish

    check_place(arguments.out, arguments.overwrite)
    panel = read_panel_file(arguments.panel)
    sections = find_sections(
        arguments.counts, arguments.sections, arguments.leave_out, arguments.leave_out_patient
    )
    with ProgressLine() as line:
        work = learn_vectors(sections, panel, relative=arguments.relative, width=arguments.width)
        table = finish(work, line)
    _write(arguments.out, table)
    sys.stdout.write(f"Learnt from {', '.join(section.name for section in sections)}.\n")
    return 0


def run_geneformer(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets geneformer``."""
    from flag_training.gene_targets.gene_table import read_panel_file
    from flag_training.gene_targets.geneformer import geneformer_table
    from napari_flag.exports.replacing import check_place

    check_place(arguments.out, arguments.overwrite)
    panel, ids = read_panel_file(arguments.panel), _gene_ids(arguments)
    _write(arguments.out, geneformer_table(arguments.folder, panel, arguments.dictionaries, ids))
    return 0


def run_scgpt(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets scgpt``."""
    from flag_training.gene_targets.gene_table import read_panel_file
    from flag_training.gene_targets.static_tables import scgpt_table
    from napari_flag.exports.replacing import check_place

    check_place(arguments.out, arguments.overwrite)
    _write(arguments.out, scgpt_table(arguments.folder, read_panel_file(arguments.panel)))
    return 0


def run_cellplm(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets cellplm``."""
    from flag_training.gene_targets.gene_table import read_panel_file
    from flag_training.gene_targets.static_tables import cellplm_table
    from napari_flag.exports.replacing import check_place

    check_place(arguments.out, arguments.overwrite)
    panel, ids = read_panel_file(arguments.panel), _gene_ids(arguments)
    _write(arguments.out, cellplm_table(arguments.folder, panel, ids))
    return 0


def run_contextual(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets contextual``."""
    from flag_training.gene_targets.contextual import Request, coverage, write_contextual
    from flag_training.gene_targets.gene_table import read_panel_file
    from flag_training.gene_targets.sections import find_sections
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.encoders.features import choose_device
    from napari_flag.progress import finish

    panel, ids = read_panel_file(arguments.panel), _gene_ids(arguments)
    device = str(choose_device(arguments.device))
    for section in find_sections(arguments.counts, arguments.sections, arguments.leave_out):
        request = Request(
            section.name,
            section.read(),
            panel,
            arguments.folder,
            arguments.dictionaries,
            arguments.panel_only,
            ids,
        )
        with ProgressLine() as line:
            work = write_contextual(request, arguments.out, device=device, batch=arguments.batch)
            folder = finish(work, line)
        sys.stdout.write(f"Wrote {folder}: {coverage(folder)}\n")
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag gene-targets check``."""
    from flag_training.gene_targets.gene_table import read_table
    from flag_training.gene_targets.learnt_vectors import agreement, panel_counts
    from flag_training.gene_targets.sections import table_of

    table = read_table(arguments.table)
    learnt_from = table.source.get("sections", ())
    for file in arguments.sections:
        section = table_of(file, file.name.split(".")[0])
        counts = panel_counts(section, section.read(), table.genes)
        r = agreement(table, counts, relative=arguments.relative)
        note = " (learnt from it)" if section.name in learnt_from else ""
        sys.stdout.write(f"{section.name}\t{score(r, 'GSC')}{note}\n")
    return 0


def _gene_ids(arguments: argparse.Namespace) -> dict[str, str]:
    from flag_training.gene_targets.gene_table import read_gene_ids

    return read_gene_ids(arguments.gene_ids) if arguments.gene_ids else {}


def _write(out: Path, table: "GeneTable") -> None:
    from flag_training.gene_targets.gene_table import write_table

    write_table(out, table)
    sys.stdout.write(f"Wrote {out}: {table.coverage}\n")
