"""Geneformer's contextual vectors: of each panel gene in each spot, and of the spot as a whole.

What training aligns to where a static table says too little: the same gene has another vector in
another spot.  Kept per slide in a folder of chunks of spots (float16, only genes that a spot has), so
that a killed run goes on and a training step reads only the spots it needs.

The folder of one slide, ``NAME-KEY``: ``00000.safetensors …`` hold `CHUNK` spots each; ``means.safetensors``
the means over the slide; ``slide.json``, written last, describes all of it.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from flag_training.gene_targets.gene_table import refuse_other_species
from flag_training.gene_targets.geneformer import (
    RankValueEncoder,
    SpotVectors,
    Vocabulary,
    embed,
    load_bert,
    read_vocabulary,
    weights_file,
)
from flag_training.gene_targets.sections import counts_hash
from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text, replacing, sha256_of
from napari_flag.formatting import counted, counted_of, whole
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.counts import GENE_IDS

if TYPE_CHECKING:
    from anndata import AnnData

_LAYOUT: Final = 1
"""Counts up when the files change their meaning."""


@dataclass(frozen=True, slots=True)
class Request:
    """Contextual vectors of one slide.

    Parameters
    ----------
    name
        Slide, as the training config names it.
    counts
        Raw counts of the whole transcriptome, spots in rows.
    panel
        Genes to keep vectors of.
    model
        Folder of a Geneformer model.
    dictionaries
        Folder of its dictionaries; None takes the place where the published repository has them.
    panel_only
        Rank the genes of the panel alone, as FLAG does; Geneformer is made for all.
    ids
        Further symbol → Ensembl id, for symbols that Geneformer's dictionary calls otherwise.
    """

    name: str
    counts: "AnnData"
    panel: tuple[str, ...]
    model: Path
    dictionaries: Path | None = None
    panel_only: bool = False
    ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def genes(self) -> list[str]:
        """Names of the columns of `counts`: Ensembl ids where the file has them, else symbols."""
        symbols = self.counts.var_names
        pairs = zip(self.counts.var.get(GENE_IDS, symbols), symbols, strict=True)
        return [str(name or symbol) for name, symbol in pairs]


def write_contextual(request: Request, out: Path, *, device: str = "cpu", batch: int = 1) -> Steps[Path]:
    """Write the contextual vectors of one slide, or what of them is not written yet.

    Parameters
    ----------
    request
        Slide, panel and model.
    out
        Folder of all slides' vectors; this slide's are in ``NAME-KEY``, its key the hash of all that
        went into them.
    device, batch
        Where the model runs, and spots at once.

    Returns
    -------
    The slide's folder.

    Raises
    ------
    UserError
        When model and dictionaries do not fit, the genes are not human, none of the panel is known,
        or transformers is not installed.
    """
    refuse_other_species(request.panel, "Geneformer")
    refuse_other_species(request.genes, "Geneformer")
    vocabulary = read_vocabulary(request.model, request.dictionaries).knowing(request.ids)
    place = _panel_tokens(request.panel, vocabulary)
    counts, encoder = _rows(request, vocabulary)
    key = _key(request, vocabulary)
    folder = out / f"{request.name}-{key[:12]}"
    if (folder / MANIFEST).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    model = load_bert(request.model, device)
    total = counts.shape[0]
    for start in range(0, total, CHUNK):
        path = chunk_path(folder, start // CHUNK)
        if path.exists():
            continue
        stop = min(start + CHUNK, total)
        spots = []
        for first in range(start, stop, batch):
            rows = range(first, min(first + batch, stop))
            tokens = [encoder.encode(counts[row].toarray()[0]) for row in rows]
            spots += embed(model, tokens, place, vocabulary)
            yield Step(f"Reading {request.name} with Geneformer", rows.stop, total)
        write_chunk(path, spots)
    write_means(folder, len(request.panel), total)
    write_manifest(folder, _manifest(request, place, key, int(model.config.hidden_size)))
    return folder


def _panel_tokens(panel: Sequence[str], vocabulary: Vocabulary) -> dict[int, int]:
    """Return token → place in the panel."""
    found = {vocabulary.token(gene): place for place, gene in enumerate(panel)}
    known = {token: place for token, place in found.items() if token is not None}
    if not known:
        raise UserError(
            f"Geneformer knows none of the {whole(len(panel))} genes of the panel (such as "
            f"{', '.join(panel[:3])}); check that it holds human gene symbols or Ensembl ids."
        )
    return known


def _rows(request: Request, vocabulary: Vocabulary) -> tuple[Any, RankValueEncoder]:
    """Return csr counts of the genes that are ranked, and their encoder."""
    from scipy import sparse

    genes, counts = request.genes, sparse.csr_matrix(request.counts.X)
    if request.panel_only:
        chosen = set(request.panel)
        names = zip(genes, request.counts.var_names, strict=True)
        keep = [i for i, (gene, symbol) in enumerate(names) if gene in chosen or symbol in chosen]
        genes, counts = [genes[i] for i in keep], counts[:, keep]
    encoder = RankValueEncoder.of(vocabulary, genes)
    if not len(encoder.tokens):
        raise UserError(
            f"Geneformer knows none of the genes that {request.name} was measured for; check that the counts "
            "have human gene symbols or Ensembl ids."
        )
    return counts, encoder


def _key(request: Request, vocabulary: Vocabulary) -> str:
    """Hash everything that the vectors depend on."""
    weights = sha256_of(weights_file(request.model))
    parts = [_LAYOUT, CHUNK, request.name, request.panel_only, request.panel, request.genes, weights]
    parts += [vocabulary.tokens, vocabulary.medians, vocabulary.ids, vocabulary.merged]
    parts += [counts_hash(request.counts)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _manifest(request: Request, place: Mapping[int, int], key: str, width: int) -> dict[str, Any]:
    """Return what the folder holds and where it comes from."""
    known = set(place.values())
    return {
        "name": request.name,
        "key": key,
        "genes": list(request.panel),
        "missing": [gene for row, gene in enumerate(request.panel) if row not in known],
        "spots": [str(name) for name in request.counts.obs_names],
        "width": width,
        "model": request.model.resolve().name,
        "sha256": sha256_of(weights_file(request.model)),
        "ranked": "panel" if request.panel_only else "whole transcriptome",
        "species": "human",
    }


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


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write what the folder holds; it must be the last file, so that a folder with one is whole."""
    with replacing(folder / MANIFEST) as place:
        place.write_text(json.dumps(manifest, indent=1), "utf-8")


def coverage(folder: Path) -> str:
    """Return one sentence on the finished `folder`: how many genes have vectors, and which have none."""
    manifest = _read_manifest(folder / MANIFEST)
    lacking = f"; without: {', '.join(manifest['missing'])}" if manifest["missing"] else ""
    known = len(manifest["genes"]) - len(manifest["missing"])
    return (
        f"{counted_of(known, len(manifest['genes']), 'gene')} have vectors ({manifest['width']} wide) in "
        f"{counted(len(manifest['spots']), 'spot')}{lacking}."
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder and make it again.") from error
    return manifest


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    with replacing(path) as place:
        place.write_bytes(save(tensors))


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
    """Contextual vectors of one slide, read from disk on demand.

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
        folder, manifest = _find(root, name)
        row = {spot: i for i, spot in enumerate(manifest["spots"])}
        column = {gene: i for i, gene in enumerate(manifest["genes"]) if gene not in set(manifest["missing"])}
        absent = [spot for spot in ids if spot not in row]
        if absent or not set(genes) & set(column):
            lacking = (
                f"spots such as {absent[0]}" if absent else f"all {whole(len(genes))} genes of the panel"
            )
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
    manifests = [(path.parent, _read_manifest(path)) for path in sorted(root.glob(f"*/{MANIFEST}"))]
    found = [(folder, manifest) for folder, manifest in manifests if manifest["name"] == name]
    if len(found) != 1:
        folders = ", ".join(folder.name for folder, _ in found)
        several = f"several sets of contextual vectors of {name} ({folders})"
        raise UserError(
            f"{root} holds {several if found else f'no finished contextual vectors of {name}'}; "
            + ("delete all but one." if found else "make them with napari-flag gene-targets contextual.")
        )
    return found[0]
