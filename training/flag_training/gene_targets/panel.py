"""Genes of a panel under other names: human symbols → Ensembl ids; other species are refused."""

import gzip
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from flag_training.gene_targets.restricted import read_dictionary
from napari_flag.errors import UserError

_ENSEMBL: Final = re.compile(r"(ENS[A-Z]*G\d{8,})(\.\d+)?")
_HUMAN: Final = "ENSG"
_ASSEMBLY: Final = re.compile(r"(GRCm\d+|mm\d+|GRCz\d+|rn\d+|mRatBN\S*?)_+", re.IGNORECASE)
"""Prefixes that mixed-species references put before the genes of a species that is not human."""


def read_panel_file(path: Path) -> tuple[str, ...]:
    """Return the genes of a text file, one a line, each once.

    Raises
    ------
    UserError
        When it cannot be read or is empty.
    """
    try:
        genes = tuple(dict.fromkeys(path.read_text("utf-8").split()))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The panel {path} cannot be read ({error}); give a text file of gene symbols, one a line."
        ) from error
    if not genes:
        raise UserError(f"The panel {path} names no genes; give a text file of gene symbols, one a line.")
    return genes


def refuse_other_species(genes: Sequence[str], model: str) -> None:
    """Refuse genes that are not human: every model here was trained on human cells.

    Human symbols are written in capitals (but for ``orf``), those of mouse and rat are not; one or
    two small letters in a human panel are a gene of its own naming, most of them are another species.

    Raises
    ------
    UserError
        When Ensembl ids, assembly prefixes or most symbols belong to another species.
    """
    foreign = [gene for gene in genes if _foreign_id(gene)]
    small = [gene for gene in genes if gene.replace("orf", "ORF") != gene.upper()]
    if foreign or 2 * len(small) > len(genes):
        shown = ", ".join((foreign or small)[:3])
        raise UserError(
            f"{model} knows human genes only, and {shown} are not human genes; take a human panel, or train "
            "without gene vectors (remove alignment_targets from the config)."
        )


def _foreign_id(gene: str) -> bool:
    matched = _ENSEMBL.match(gene)
    return bool(_ASSEMBLY.match(gene)) or (matched is not None and not gene.startswith(_HUMAN))


def ensembl_id(gene: str, ids: Mapping[str, str]) -> str | None:
    """Return the Ensembl id of `gene` without its version, None where `ids` does not have it.

    Parameters
    ----------
    gene
        Symbol, or Ensembl id with or without version.
    ids
        Symbol → Ensembl id.
    """
    matched = _ENSEMBL.fullmatch(gene)
    if matched:
        return matched[1]
    found = ids.get(gene)
    return None if found is None else found.split(".")[0]


def ensembl_ids(genes: Iterable[str], ids: Mapping[str, str]) -> dict[str, str]:
    """Return gene → Ensembl id for those of `genes` that have one."""
    found = {gene: ensembl_id(gene, ids) for gene in genes}
    return {gene: name for gene, name in found.items() if name is not None}


def read_gene_ids(path: Path) -> dict[str, str]:
    """Return symbol → Ensembl id from a dictionary or a table.

    Parameters
    ----------
    path
        ``.json`` or ``.pkl`` as Geneformer's ``gene_name_id_dict``, or a text table (also gzipped) with
        an Ensembl id and a symbol in each line, in either order, as Space Ranger's ``features.tsv.gz``.

    Raises
    ------
    UserError
        When it cannot be read or pairs no symbol with an id.
    """
    if path.suffix in (".json", ".pkl"):
        return {symbol: str(name) for symbol, name in read_dictionary(path).items()}
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"The gene ids {path} cannot be read ({error}); check the path.") from error
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = [word.strip().strip('"') for word in re.split(r"[\t,;]", line)]
        ids = [word for word in words if _ENSEMBL.fullmatch(word)]
        symbols = [word for word in words if word and not _ENSEMBL.fullmatch(word)]
        if ids and symbols:
            found.setdefault(symbols[0], ids[0])
    if not found:
        raise UserError(
            f"{path} pairs no gene symbol with an Ensembl id; give a table with both in each line, such as "
            "Space Ranger's features.tsv.gz."
        )
    return found
