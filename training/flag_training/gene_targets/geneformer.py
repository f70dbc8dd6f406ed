"""Geneformer (Theodoris et al. 2023): its vocabulary, rank-value tokens and static gene vectors.

Everything is read from a local folder in the published layout; the ``geneformer`` package is not needed.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flag_training.gene_targets.gene_table import (
    GeneTable,
    collect,
    ensembl_id,
    refuse_other_species,
)
from flag_training.gene_targets.restricted import Value, read_dictionary
from napari_flag.errors import UserError
from napari_flag.files import ending, parse_json, read_text, sha256_of
from napari_flag.formatting import counted, whole

TARGET_SUM: Final = 10_000.0
"""Counts of a cell are scaled to this sum before the medians divide them."""
WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")
_EMBEDDINGS: Final = ("bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight")
_PLACES: Final = ("", "geneformer", "../geneformer", "../geneformer/gene_dictionaries_30m")
"""Where the published repository keeps dictionaries, seen from a model's folder."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Geneformer's dictionaries: tokens, medians and Ensembl ids of genes.

    Parameters
    ----------
    tokens
        Ensembl id → token; the special ones as ``<pad>``, ``<cls>``, ``<eos>``.
    medians
        Ensembl id → non-zero median of its expression over Geneformer's corpus.
    ids
        Symbol → Ensembl id.
    merged
        Ensembl id in capitals → the id it now goes by; empty for models that do without.
    length
        Longest input in tokens, special ones included.
    """

    tokens: Mapping[str, int]
    medians: Mapping[str, float]
    ids: Mapping[str, str]
    merged: Mapping[str, str]
    length: int

    @property
    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Special tokens before and after the genes: ``<cls>`` and ``<eos>`` in V2, none in V1."""
        if "<cls>" in self.tokens and "<eos>" in self.tokens:
            return (self.tokens["<cls>"],), (self.tokens["<eos>"],)
        return (), ()

    def knowing(self, ids: Mapping[str, str]) -> "Vocabulary":
        """Return it with further symbol → Ensembl id, which count before its own: symbols change."""
        return replace(self, ids={**self.ids, **ids})

    def token(self, gene: str) -> int | None:
        """Return the token of a symbol or Ensembl id, None where the model does not know it."""
        found = self.id(gene)
        return None if found is None else self.tokens[found]

    def id(self, gene: str) -> str | None:
        """Return the id under which the model knows a symbol or Ensembl id."""
        name = ensembl_id(gene, self.ids)
        name = name and self.merged.get(name.upper(), name)
        return name if name in self.tokens else None


def read_vocabulary(folder: Path, dictionaries: Path | None = None) -> Vocabulary:
    """Read the dictionaries that belong to the model in `folder`.

    Parameters
    ----------
    folder
        Model folder with ``config.json``.
    dictionaries
        Folder of ``token_dictionary*``, ``gene_median_dictionary*`` and ``gene_name_id_dict*`` (``.pkl`` or
        ``.json``); None takes the place where the published repository has them.

    Raises
    ------
    UserError
        When none fits the model's vocabulary size, or one is missing or damaged.
    """
    config = _config(folder)
    places = [dictionaries] if dictionaries else [(folder / place) for place in _PLACES]
    seen = []
    for path in _token_files(places):
        tokens = read_dictionary(path)
        seen.append(f"{path.name} ({whole(len(tokens))})")
        if len(tokens) == config["vocab_size"]:
            return _vocabulary(path, tokens, config["max_position_embeddings"])
    raise UserError(
        f"No token dictionary fits the Geneformer model in {folder}, which knows "
        f"{counted(config['vocab_size'], 'token')} (found {', '.join(seen) or 'none'}); give the folder of "
        "its dictionaries (--dictionaries)."
    )


def _token_files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        for path in sorted(place.glob("token_dictionary*")):
            if ending(path) in (".pkl", ".json"):
                yield path


def _vocabulary(path: Path, tokens: Mapping[str, Value], length: int) -> Vocabulary:
    """Read the dictionaries of the same corpus (``_gc104M``) in the folder of the token dictionary `path`."""
    corpus = path.stem.removeprefix("token_dictionary")

    def sibling(name: str) -> dict[str, Value] | None:
        found = [path.with_name(f"{name}{corpus}{end}") for end in (".json", ".pkl")]
        return next((read_dictionary(file) for file in found if file.exists()), None)

    medians, ids = sibling("gene_median_dictionary"), sibling("gene_name_id_dict")
    if medians is None or ids is None:
        name = "gene_median_dictionary" if medians is None else "gene_name_id_dict"
        raise UserError(
            f"{path.parent} lacks {name}{corpus}.pkl, which belongs to {path.name}; copy it there from the "
            "model's repository."
        )
    merged = sibling("ensembl_mapping_dict") or {}
    return Vocabulary(
        {name: int(token) for name, token in tokens.items()},
        {name: float(median) for name, median in medians.items()},
        {symbol: str(name) for symbol, name in ids.items()},
        {name: str(current) for name, current in merged.items()},
        length,
    )


def _config(folder: Path) -> dict[str, int]:
    path = folder / "config.json"
    try:
        values = parse_json(read_text(path))
        return {name: int(values[name]) for name in ("vocab_size", "max_position_embeddings")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not describe a Geneformer model ({error}); give the folder that holds config.json "
            "and model.safetensors."
        ) from error


def weights_file(folder: Path) -> Path:
    """Return the model's weights file.

    Raises
    ------
    UserError
        When there is none.
    """
    for name in WEIGHTS:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder} holds no {WEIGHTS[0]}; give the folder of a Geneformer model.")


def geneformer_table(
    folder: Path,
    panel: Sequence[str],
    dictionaries: Path | None = None,
    ids: Mapping[str, str] | None = None,
) -> GeneTable:
    """Return Geneformer's static vectors of the genes of `panel`: rows of its word embedding.

    Parameters
    ----------
    folder, dictionaries
        As in `read_vocabulary`.
    panel
        Human gene symbols or Ensembl ids.
    ids
        Further symbol → Ensembl id, for symbols that Geneformer's dictionary calls otherwise.

    Raises
    ------
    UserError
        When files are missing, damaged or of different models, or the genes are not human.
    """
    from flag_training.gene_targets.restricted import read_matrix, refuse_short

    refuse_other_species(panel, "Geneformer")
    vocabulary = read_vocabulary(folder, dictionaries).knowing(ids or {})
    weights = weights_file(folder)
    embedding = read_matrix(weights, *_EMBEDDINGS)
    refuse_short(embedding, max(vocabulary.tokens.values()) + 1, weights)
    vectors = embedding.numpy()
    rows = {gene: token for gene in panel if (token := vocabulary.token(gene)) is not None}
    source = {
        "model": "Geneformer",
        "kind": "word embedding",
        "folder": folder.resolve().name,
        "species": "human",
        "sha256": sha256_of(weights),
    }
    return collect(panel, {gene: vectors[token] for gene, token in rows.items()}, source)


@dataclass(frozen=True, slots=True)
class RankValueEncoder:
    """Counts of a spot → Geneformer's tokens, highest expression relative to the corpus first.

    Parameters
    ----------
    columns
        (m,) columns of the counts that the model knows.
    groups
        (m,) place in `tokens` of each column; columns of one Ensembl id are summed.
    tokens, medians
        (k,) token and corpus median of each id.
    length, frame
        As in `Vocabulary`.
    """

    columns: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    medians: npt.NDArray[np.float64]
    length: int
    frame: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def of(cls, vocabulary: Vocabulary, genes: Sequence[str]) -> "RankValueEncoder":
        """Return the encoder of counts whose columns are `genes` (symbols or Ensembl ids)."""
        place: dict[str, int] = {}
        columns, groups = [], []
        for column, gene in enumerate(genes):
            name = vocabulary.id(gene)
            if name is not None and name in vocabulary.medians:
                columns.append(column)
                groups.append(place.setdefault(name, len(place)))
        return cls(
            np.array(columns, np.int64),
            np.array(groups, np.int64),
            np.array([vocabulary.tokens[name] for name in place], np.int64),
            np.array([vocabulary.medians[name] for name in place]),
            vocabulary.length,
            vocabulary.frame,
        )

    def encode(self, counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the tokens of one spot.

        Counts are scaled to 10,000 over *all* genes, also those the model does not know, divided by the
        corpus median, and sorted; genes without counts are absent.  Ties keep the order of the columns.

        Parameters
        ----------
        counts
            (genes,) raw counts of the whole transcriptome.
        """
        total = float(counts.sum())
        if total <= 0:
            return np.array([*self.frame[0], *self.frame[1]], np.int64)
        known = np.bincount(self.groups, counts[self.columns], minlength=len(self.tokens))
        scaled = known / total * TARGET_SUM / self.medians
        order = np.argsort(-scaled, kind="stable")
        order = order[scaled[order] > 0][: self.length - len(self.frame[0]) - len(self.frame[1])]
        return np.concatenate([self.frame[0], self.tokens[order], self.frame[1]]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class SpotVectors:
    """Vectors of one spot.

    Parameters
    ----------
    genes
        (m,) int32 places in the panel of the genes it has.
    vectors
        (m, D) float32, their vectors.
    cell
        (D,) float32, the mean over all its genes; NaN where it has none.
    """

    genes: npt.NDArray[np.int32]
    vectors: Tensor
    cell: Tensor


def load_bert(folder: Path, device: str) -> Any:
    """Load the BERT of a local Geneformer folder, without its pooler, which was never trained.

    Raises
    ------
    UserError
        When transformers is missing, or the folder's weights are damaged or not this model's.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            "Contextual vectors need the package transformers, which is not installed; install it with "
            "pip install 'napari-flag[training]', or use the static table of gene-targets geneformer."
        ) from error
    from safetensors import SafetensorError

    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = transformers.BertModel.from_pretrained(
            str(folder), add_pooling_layer=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"The Geneformer model in {folder} cannot be loaded ({str(error).splitlines()[0]}); get its "
            "folder again from the model's own repository."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if info["missing_keys"]:
        raise UserError(
            f"The weights in {folder} lack {min(info['missing_keys'])}, so they are not a Geneformer "
            "model's; check which folder it is."
        )
    return model.to(device).eval()


def embed(
    model: Any, tokens: Sequence[npt.NDArray[np.int64]], place: Mapping[int, int], vocabulary: Vocabulary
) -> list[SpotVectors]:
    """Return the last hidden states of spots.

    Parameters
    ----------
    model
        From `load_bert`.
    tokens
        Per spot, its rank-value tokens with the special ones.
    place
        Token → place in the panel; other tokens count in the mean only.
    vocabulary
        The model's.
    """
    longest = max(1, *(len(row) for row in tokens))
    ids = torch.full((len(tokens), longest), vocabulary.tokens.get("<pad>", 0))
    mask = torch.zeros_like(ids)
    for row, found in enumerate(tokens):
        ids[row, : len(found)] = torch.from_numpy(found)
        mask[row, : len(found)] = 1
    device = next(model.parameters()).device
    with torch.inference_mode():
        states = model(input_ids=ids.to(device), attention_mask=mask.to(device))
    hidden = states.last_hidden_state.float().cpu()
    special = {token for part in vocabulary.frame for token in part}
    return [_of_spot(hidden[row], found, place, special) for row, found in enumerate(tokens)]


def _of_spot(
    hidden: Tensor, tokens: npt.NDArray[np.int64], place: Mapping[int, int], special: set[int]
) -> SpotVectors:
    """Pick the panel's genes out of (length, D) `hidden`, and average over all genes."""
    genes = [i for i, token in enumerate(tokens) if int(token) not in special]
    kept = [i for i in genes if int(tokens[i]) in place]
    cell = hidden[genes].mean(0) if genes else torch.full((hidden.shape[1],), torch.nan)
    return SpotVectors(np.array([place[int(tokens[i])] for i in kept], np.int32), hidden[kept], cell)
