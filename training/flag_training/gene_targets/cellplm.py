"""CellPLM (Wen et al. 2024): gene vectors from ``*.config.json`` and ``*.best.ckpt`` of a local folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from flag_training.gene_targets.panel import ensembl_ids, refuse_other_species
from flag_training.gene_targets.table import GeneTable, collect, file_hash
from flag_training.gene_targets.weights import read_matrix, refuse_short
from napari_flag.errors import UserError

_CONFIG: Final = ".config.json"
_WEIGHTS: Final = ".best.ckpt"
_EMBEDDING: Final = "embedder.feat_enc.emb"
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
        Symbol → Ensembl id (`panel.read_gene_ids`); CellPLM itself knows ids only.

    Raises
    ------
    UserError
        When files are missing, damaged or of different models, or the genes are not human.
    """
    refuse_other_species(panel, "CellPLM")
    names = ensembl_ids(panel, ids)
    if not names:
        raise UserError(
            f"CellPLM names genes by Ensembl id, and none is known for the {len(panel)} genes of the panel; "
            "give a table of symbols and ids (--gene-ids)."
        )
    config = _config(folder)
    genes = _gene_list(config)
    weights = config.with_name(config.name.removesuffix(_CONFIG) + _WEIGHTS)
    embedding = read_matrix(weights, _EMBEDDING, inside=_STATE)
    refuse_short(embedding, len(genes), weights)
    row_of = {gene: row for row, gene in enumerate(genes)}
    rows = {gene: row_of[name] for gene, name in names.items() if name in row_of}
    source = {"model": "CellPLM", "species": "human", "weights": weights.name, "sha256": file_hash(weights)}
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
        genes = json.loads(config.read_text("utf-8"))["gene_list"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{config} names no gene_list, so it is not CellPLM's config; get it again."
        ) from error
    return [str(gene) for gene in genes]
