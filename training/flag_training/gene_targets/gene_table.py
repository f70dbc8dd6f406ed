"""Genes of a panel, their Ensembl ids, and the table of one vector per gene with its provenance."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.gene_targets.restricted import read_dictionary
from napari_flag.errors import UserError
from napari_flag.files import ending, parse_json, read_text, refuse_special, replacing
from napari_flag.formatting import counted_of, whole
from napari_flag.gene_names import names_in, without_version
from napari_flag.slides.formats.counts import GENE_EXPRESSION

_HUMAN: Final = re.compile(r"ENSG\d+")
_ASSEMBLY: Final = re.compile(r"(GRCm\d+|mm\d+|GRCz\d+|rn\d+|mRatBN\S*?)_+", re.IGNORECASE)
"""Prefixes that mixed-species references put before the genes of a species that is not human."""


def read_panel_file(path: Path) -> tuple[str, ...]:
    """Return the genes of a text file, one a line, each once.

    Raises
    ------
    UserError
        When it cannot be read or is empty.
    """
    return tuple(dict.fromkeys(names_in(path)))


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
    found = without_version(gene)
    return bool(_ASSEMBLY.match(gene)) or (bool(found) and not _HUMAN.fullmatch(found))


def ensembl_id(gene: str, ids: Mapping[str, str]) -> str | None:
    """Return the Ensembl id of `gene` without its version, None where `ids` does not have it.

    Parameters
    ----------
    gene
        Symbol, or Ensembl id with or without version.
    ids
        Symbol → Ensembl id.
    """
    return without_version(gene) or without_version(ids.get(gene, "")) or None


def ensembl_ids(genes: Iterable[str], ids: Mapping[str, str]) -> dict[str, str]:
    """Return gene → Ensembl id for those of `genes` that have one."""
    found = {gene: ensembl_id(gene, ids) for gene in genes}
    return {gene: name for gene, name in found.items() if name is not None}


def read_gene_ids(path: Path) -> dict[str, str]:
    """Return symbol → Ensembl id without version from a dictionary or a table.

    Of a symbol that stands in it twice, as some do in 10x references, the first id is taken.

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
    is_dictionary = ending(path) in (".json", ".pkl")
    pairs = read_dictionary(path).items() if is_dictionary else _pairs_of(path)
    found: dict[str, str] = {}
    for symbol, name in pairs:
        if ensembl := without_version(str(name)):
            found.setdefault(symbol, ensembl)
    if not found:
        raise UserError(
            f"{path} pairs no gene symbol with an Ensembl id; give a table with both in each line, such as "
            "Space Ranger's features.tsv.gz."
        )
    return found


def _pairs_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield symbol and id of each line of a text table that has both."""
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"The gene ids {path} cannot be read ({error}); check the path.") from error
    for line in text.splitlines():
        words = [word.strip().strip('"') for word in re.split(r"[\t,;]", line)]
        ids = [word for word in words if without_version(word)]
        symbols = [word for word in words if word not in ("", GENE_EXPRESSION, *ids)]
        if ids and symbols:
            yield symbols[0], ids[0]


FloatArray = npt.NDArray[np.float32]

METADATA_KEY: Final = "napari_flag"
"""Entry of the safetensors header that holds the provenance as JSON."""


@dataclass(frozen=True, slots=True)
class GeneTable:
    """Vectors of the genes of a panel.

    Parameters
    ----------
    genes
        Genes that have a vector, under the panel's names.
    vectors
        (n, d) float32, one row a gene.
    missing
        Genes of the panel without a vector.
    source
        Provenance: model or method, files and their hashes, sections used.
    """

    genes: tuple[str, ...]
    vectors: FloatArray
    missing: tuple[str, ...]
    source: Mapping[str, Any]

    @property
    def coverage(self) -> str:
        """One sentence: how many genes of the panel have a vector, and which have none."""
        total = len(self.genes) + len(self.missing)
        lacking = f"; without: {', '.join(self.missing)}" if self.missing else ""
        share = counted_of(len(self.genes), total, "gene")
        return f"{share} have a vector ({self.vectors.shape[1]} wide){lacking}."


def collect(
    panel: Sequence[str], vectors: Mapping[str, npt.NDArray[Any]], source: Mapping[str, Any]
) -> GeneTable:
    """Return the table of those genes of `panel` that `vectors` knows.

    Raises
    ------
    UserError
        When it knows none.
    """
    found = tuple(gene for gene in panel if gene in vectors)
    if not found:
        raise UserError(
            f"{source['model']} knows none of the {whole(len(panel))} genes of the panel (such as "
            f"{', '.join(panel[:3])}); check that the panel holds human gene symbols or Ensembl ids."
        )
    rows = np.stack([vectors[gene] for gene in found]).astype(np.float32)
    if not np.isfinite(rows).all():
        raise UserError(
            f"{source['model']} holds vectors that are not finite, so its file is damaged; get it again."
        )
    return GeneTable(found, rows, tuple(gene for gene in panel if gene not in vectors), dict(source))


def write_table(path: Path, table: GeneTable) -> None:
    """Write `table` as safetensors, one tensor (d,) a gene; whole or not at all."""
    from safetensors.numpy import save

    metadata = {**table.source, "found": len(table.genes), "missing": list(table.missing)}
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {gene: np.ascontiguousarray(row) for gene, row in zip(table.genes, table.vectors, strict=True)}
    with replacing(path) as place:
        place.write_bytes(save(rows, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)}))


def read_table(path: Path) -> GeneTable:
    """Read a gene table.

    A safetensors file of one vector per gene without our provenance is a table too.

    Raises
    ------
    UserError
        When the file cannot be read or its tensors are no vectors of one width.
    """
    from safetensors import SafetensorError, safe_open

    refuse_special(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = parse_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
            missing = metadata.pop("missing", []) if isinstance(metadata, dict) else None
            if not isinstance(missing, list) or not all(isinstance(gene, str) for gene in missing):
                raise ValueError("what it says of itself is not as gene-targets writes it")
            rows = {gene: file.get_tensor(gene) for gene in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"The gene vectors {path} cannot be read ({error}); check the path, make them again with "
            "napari-flag gene-targets, or remove them from the config."
        ) from error
    widths = {row.shape for row in rows.values()}
    if len(widths) != 1 or len(next(iter(widths))) != 1:
        raise UserError(
            f"{path} holds no table of gene vectors (its tensors are of shapes {sorted(widths)[:3]}); "
            "make one with napari-flag gene-targets."
        )
    vectors = np.stack([row.astype(np.float32) for row in rows.values()])
    return GeneTable(tuple(rows), vectors, tuple(missing), metadata)
