"""Geneformer's contextual vectors: of each panel gene in each spot, and of the spot as a whole.

What training aligns to where a static table says too little: the same gene has another vector in
another spot.  Kept per slide in a folder of chunks of spots (float16, only genes that a spot has), so
that a killed run goes on and a training step reads only the spots it needs.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flag_training.gene_targets.geneformer import (
    RankValueEncoder,
    Vocabulary,
    embed,
    load_bert,
    read_vocabulary,
    weights_file,
)
from flag_training.gene_targets.panel import refuse_other_species
from flag_training.gene_targets.sections import counts_hash
from flag_training.gene_targets.spot_vectors import (
    CHUNK,
    MANIFEST,
    chunk_path,
    write_chunk,
    write_manifest,
    write_means,
)
from flag_training.gene_targets.table import file_hash
from napari_flag.errors import UserError
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
        Folder of its dictionaries; None looks where the published repository has them.
    panel_only
        Rank the genes of the panel alone, as FLAG does; Geneformer asks for all.
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
            f"Geneformer knows none of the {len(panel)} genes of the panel (such as {', '.join(panel[:3])}); "
            "check that it holds human gene symbols or Ensembl ids."
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
    weights = file_hash(weights_file(request.model))
    told = [_LAYOUT, CHUNK, request.name, request.panel_only, request.panel, request.genes, weights]
    told += [vocabulary.tokens, vocabulary.medians, vocabulary.ids, vocabulary.merged]
    told += [counts_hash(request.counts)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


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
        "sha256": file_hash(weights_file(request.model)),
        "ranked": "panel" if request.panel_only else "whole transcriptome",
        "species": "human",
    }
