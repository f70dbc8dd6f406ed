"""scGPT (Cui et al. 2024): gene vectors from ``best_model.pt`` and ``vocab.json`` of a local folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from torch.nn import functional as F

from flag_training.gene_targets.gene_table import (
    GeneTable,
    collect,
    ensembl_ids,
    refuse_other_species,
)
from flag_training.gene_targets.restricted import read_dictionary, read_matrix, read_tensors, refuse_short
from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text, sha256_of
from napari_flag.formatting import whole

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
    source = {"model": "scGPT", "species": "human", "weights": WEIGHTS, "sha256": sha256_of(weights)}
    return collect(panel, {gene: vectors[row] for gene, row in rows.items()}, source)


_CONFIG: Final = ".config.json"
_CELLPLM_WEIGHTS: Final = ".best.ckpt"
_CELLPLM_EMBEDDING: Final = "embedder.feat_enc.emb"
_STATE: Final = "model_state_dict"


def cellplm_table(folder: Path, panel: Sequence[str], ids: Mapping[str, str]) -> GeneTable:
    """Return CellPLM's vectors of the genes of `panel`.

    Parameters
    ----------
    folder
        Holds one ``PREFIX.config.json``, whose ``gene_list`` names the rows, and ``PREFIX.best.ckpt``.
    panel
        Human gene symbols or Ensembl ids.
    ids
        Symbol → Ensembl id (`gene_table.read_gene_ids`); CellPLM itself knows ids only.

    Raises
    ------
    UserError
        When files are missing, damaged or of different models, or the genes are not human.
    """
    refuse_other_species(panel, "CellPLM")
    names = ensembl_ids(panel, ids)
    if not names:
        raise UserError(
            f"CellPLM names genes by Ensembl id, and none is known for the {whole(len(panel))} genes of "
            "the panel; give a table of symbols and ids (--gene-ids)."
        )
    config = _config(folder)
    genes = _gene_list(config)
    weights = config.with_name(config.name.removesuffix(_CONFIG) + _CELLPLM_WEIGHTS)
    embedding = read_matrix(weights, _CELLPLM_EMBEDDING, inside=_STATE)
    refuse_short(embedding, len(genes), weights)
    row_of = {gene: row for row, gene in enumerate(genes)}
    rows = {gene: row_of[name] for gene, name in names.items() if name in row_of}
    source = {"model": "CellPLM", "species": "human", "weights": weights.name, "sha256": sha256_of(weights)}
    vectors = embedding.numpy()
    return collect(panel, {gene: vectors[row] for gene, row in rows.items()}, source)


def _config(folder: Path) -> Path:
    found = sorted(folder.glob(f"*{_CONFIG}"))
    if len(found) != 1:
        raise UserError(
            f"{folder} holds {len(found)} files *{_CONFIG} where one is needed; give the folder of one "
            "CellPLM model."
        )
    return found[0]


def _gene_list(config: Path) -> list[str]:
    try:
        genes = parse_json(read_text(config))["gene_list"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{config} names no gene_list, so it is not CellPLM's config; get it again."
        ) from error
    return [str(gene) for gene in genes]
