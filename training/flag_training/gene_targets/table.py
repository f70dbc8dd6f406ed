"""The static gene table: one vector per gene symbol, where it comes from, and what it lacks."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError

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
        return f"{len(self.genes)} of {total} genes have a vector ({self.vectors.shape[1]} wide){lacking}."


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
            f"{source['model']} knows none of the {len(panel)} genes of the panel (such as "
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

    told = {**table.source, "found": len(table.genes), "missing": list(table.missing)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    rows = {gene: np.ascontiguousarray(row) for gene, row in zip(table.genes, table.vectors, strict=True)}
    partial.write_bytes(save(rows, metadata={METADATA_KEY: json.dumps(told, sort_keys=True)}))
    os.replace(partial, path)


def read_table(path: Path) -> GeneTable:
    """Read a gene table.

    A safetensors file of one vector per gene without our provenance is a table too.

    Raises
    ------
    UserError
        When the file cannot be read or its tensors are no vectors of one width.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            rows = {gene: file.get_tensor(gene) for gene in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(
            f"The gene vectors {path} cannot be read ({error}); check the path, make them anew with "
            "napari-flag gene-targets, or remove them from the config."
        ) from error
    widths = {row.shape for row in rows.values()}
    if len(widths) != 1 or len(next(iter(widths))) != 1:
        raise UserError(
            f"{path} holds no table of gene vectors (its tensors are of shapes {sorted(widths)[:3]}); "
            "make one with napari-flag gene-targets."
        )
    missing = tuple(told.pop("missing", ()))
    vectors = np.stack([row.astype(np.float32) for row in rows.values()])
    return GeneTable(tuple(rows), vectors, missing, told)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
