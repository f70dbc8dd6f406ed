"""The folder of one slide's contextual vectors: chunks of spots, their means, and a manifest.

``NAME-KEY/00000.safetensors …`` hold `CHUNK` spots each, float16, only genes that a spot has;
``means.safetensors`` the means over the slide; ``slide.json``, written last, what all of it is.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from flag_training.gene_targets.geneformer import SpotVectors
from napari_flag.errors import UserError

CHUNK: Final = 32
"""Spots a file."""
MANIFEST: Final = "slide.json"
MEANS: Final = "means.safetensors"
_HALF_LARGEST: Final = float(torch.finfo(torch.float16).max)


def chunk_path(folder: Path, number: int) -> Path:
    """Return the file of spots ``number * CHUNK`` and on."""
    return folder / f"{number:05d}.safetensors"


def write_chunk(path: Path, spots: Sequence[SpotVectors]) -> None:
    """Write `spots`, whole or not at all.

    Raises
    ------
    UserError
        When vectors are not finite in float16.
    """
    vectors = torch.cat([spot.vectors for spot in spots])
    if not (vectors.abs() < _HALF_LARGEST).all():  # nor where it is NaN
        raise UserError(
            "Geneformer returned vectors that are not finite or too large for float16, so its weights are "
            "damaged; get them again."
        )
    ends = np.cumsum([0, *(len(spot.genes) for spot in spots)]).astype(np.int64)
    tensors = {
        "vectors": vectors.half(),
        "genes": torch.from_numpy(np.concatenate([spot.genes for spot in spots])),
        "offsets": torch.from_numpy(ends),
        "cells": torch.stack([spot.cell for spot in spots]).half(),
    }
    _save(path, tensors)


def write_means(folder: Path, genes: int, spots: int) -> None:
    """Write each gene's mean over the spots that have it (NaN where none has), and the spots' mean."""
    sums, seen, cells = torch.zeros(0), torch.zeros(genes), []
    for number in range(-(-spots // CHUNK)):
        chunk = _read(chunk_path(folder, number))
        if not sums.numel():
            sums = torch.zeros(genes, chunk["vectors"].shape[1], dtype=torch.float64)
        places = chunk["genes"].long()
        sums.index_add_(0, places, chunk["vectors"].double())
        seen.index_add_(0, places, torch.ones(len(places)))
        cells.append(chunk["cells"].float())
    means = torch.where(seen[:, None] > 0, sums / seen[:, None], torch.nan)
    _save(folder / MEANS, {"genes": means.float(), "cells": torch.cat(cells).nanmean(0)})


def write_manifest(folder: Path, told: Mapping[str, Any]) -> None:
    """Write what the folder holds; it must be the last file, so that a folder with one is whole."""
    partial = folder / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(told, indent=1), "utf-8")
    os.replace(partial, folder / MANIFEST)


def coverage(folder: Path) -> str:
    """Return one sentence on the finished `folder`: how many genes have vectors, and which have none."""
    told = _manifest(folder / MANIFEST)
    lacking = f"; without: {', '.join(told['missing'])}" if told["missing"] else ""
    known = len(told["genes"]) - len(told["missing"])
    return (
        f"{known} of {len(told['genes'])} genes have vectors ({told['width']} wide) in {len(told['spots'])} "
        f"spots{lacking}."
    )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder and make it again.") from error
    return told


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(save(tensors))
    os.replace(partial, path)


def _read(path: Path) -> dict[str, Tensor]:
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"The contextual vectors {path} are missing or damaged; delete the folder {path.parent} and make "
            "them again (napari-flag gene-targets contextual)."
        ) from error


@dataclass(frozen=True, slots=True)
class SlideVectors:
    """Contextual vectors of one slide, read as asked for.

    Parameters
    ----------
    folder
        The slide's folder.
    spots
        (n,) row in the folder of each spot of the training slide.
    columns
        (G,) place in the folder's panel of each gene; -1 for genes it lacks.
    gene_means, cell_mean
        (G, D) and (D,) float32 means over the slide; NaN for genes without.
    """

    folder: Path
    spots: Tensor
    columns: Tensor
    gene_means: Tensor
    cell_mean: Tensor

    @classmethod
    def open(cls, root: Path, name: str, ids: Sequence[str], genes: Sequence[str]) -> "SlideVectors":
        """Open the vectors of slide `name` with spots `ids` under the folder `root` of all slides.

        Raises
        ------
        UserError
            When there are none or several, or they lack spots or all the genes.
        """
        folder, told = _find(root, name)
        row = {spot: i for i, spot in enumerate(told["spots"])}
        column = {gene: i for i, gene in enumerate(told["genes"]) if gene not in set(told["missing"])}
        absent = [spot for spot in ids if spot not in row]
        if absent or not set(genes) & set(column):
            lacking = f"spots such as {absent[0]}" if absent else f"all {len(genes)} genes of the panel"
            raise UserError(
                f"The contextual vectors of {name} in {folder} lack {lacking}; make them from the counts and "
                "the panel that are trained on (napari-flag gene-targets contextual)."
            )
        means = _read(folder / MEANS)
        columns = torch.tensor([column.get(gene, -1) for gene in genes])
        gene_means = means["genes"][columns.clamp(min=0)]
        gene_means[columns < 0] = torch.nan
        return cls(folder, torch.tensor([row[spot] for spot in ids]), columns, gene_means, means["cells"])

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, G, D) gene vectors, NaN where a spot lacks the gene, and (b, D) of the spots.

        Parameters
        ----------
        rows
            (b,) rows among the training slide's spots.
        """
        stored = self.spots[rows]
        genes = torch.full((len(rows), *self.gene_means.shape), torch.nan)
        cells = torch.full((len(rows), len(self.cell_mean)), torch.nan)
        for number in torch.unique(stored // CHUNK).tolist():
            places = torch.nonzero(stored // CHUNK == number)[:, 0].tolist()
            with _open(chunk_path(self.folder, int(number))) as chunk:
                offsets, owners = chunk.get_tensor("offsets"), chunk.get_tensor("genes")
                vectors, spots = chunk.get_slice("vectors"), chunk.get_slice("cells")
                for place in places:
                    local = int(stored[place]) % CHUNK
                    first, last = offsets[local : local + 2].tolist()
                    genes[place] = self._laid_out(owners[first:last], vectors[first:last])
                    cells[place] = spots[local].float()
        return genes, cells

    def _laid_out(self, places: Tensor, vectors: Tensor) -> Tensor:
        """Return (G, D) with the (m, D) `vectors` at the genes that `places` in the folder's panel name."""
        match = self.columns[:, None] == places[None]  # (G, m)
        out = torch.full_like(self.gene_means, torch.nan)
        gene, stored = torch.nonzero(match, as_tuple=True)
        out[gene] = vectors[stored].float()
        return out


def _find(root: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder of slide `name` under `root`, and its manifest."""
    manifests = [(path.parent, _manifest(path)) for path in sorted(root.glob(f"*/{MANIFEST}"))]
    found = [(folder, told) for folder, told in manifests if told["name"] == name]
    if len(found) != 1:
        folders = ", ".join(folder.name for folder, _ in found)
        several = f"several sets of contextual vectors of {name} ({folders})"
        raise UserError(
            f"{root} holds {several if found else f'no finished contextual vectors of {name}'}; "
            + ("delete all but one." if found else "make them with napari-flag gene-targets contextual.")
        )
    return found[0]
