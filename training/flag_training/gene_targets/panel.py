"""Genes of a panel under other names: human symbols → Ensembl ids; other species are refused."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

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
