"""scGPT (Cui et al. 2024): gene vectors from ``best_model.pt`` and ``vocab.json`` of a local folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from torch.nn import functional as F

from flag_training.gene_targets.panel import refuse_other_species
from flag_training.gene_targets.table import GeneTable, collect, file_hash
from flag_training.gene_targets.unpickling import read_dictionary
from flag_training.gene_targets.weights import read_matrix, read_tensors, refuse_short
from napari_flag.errors import UserError

WEIGHTS: Final = "best_model.pt"
_EMBEDDING: Final = "encoder.embedding.weight"
_NORM: Final = ("encoder.enc_norm.weight", "encoder.enc_norm.bias")


def scgpt_table(folder: Path, panel: Sequence[str]) -> GeneTable:
    """Return scGPT's vectors of the genes of `panel`: its gene embedding under its layer norm.

    Parameters
    ----------
    folder
        Holds ``best_model.pt`` and ``vocab.json`` (symbol → row).
    panel
        Human gene symbols, as scGPT's vocabulary has them.

    Raises
    ------
    UserError
        When files are missing, damaged or of different models, or the genes are not human.
    """
    refuse_other_species(panel, "scGPT")
    weights = folder / WEIGHTS
    vocabulary = read_dictionary(folder / "vocab.json")
    rows = {gene: row for gene in panel if isinstance(row := vocabulary.get(gene), int)}
    embedding = read_matrix(weights, _EMBEDDING)
    norm = read_tensors(weights, *_NORM)
    if len(norm) != len(_NORM):
        raise UserError(
            f"{weights} has no {_NORM[0]}, so it is not scGPT's weights file; check which file it is."
        )
    refuse_short(embedding, max(rows.values(), default=-1) + 1, weights)
    scale, shift = (norm[name].float() for name in _NORM)
    vectors = F.layer_norm(embedding, embedding.shape[1:], scale, shift).numpy()
    source = {"model": "scGPT", "species": "human", "weights": WEIGHTS, "sha256": file_hash(weights)}
    return collect(panel, {gene: vectors[row] for gene, row in rows.items()}, source)
