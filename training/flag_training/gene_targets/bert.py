"""Geneformer's BERT: loaded from its folder, and run on the tokens of spots."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flag_training.gene_targets.geneformer import Vocabulary
from napari_flag.errors import UserError


@dataclass(frozen=True, slots=True)
class SpotVectors:
    """Vectors of one spot.

    Parameters
    ----------
    genes
        (m,) int32 places in the panel of the genes it has.
    vectors
        (m, D) float32, theirs.
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
    said, drawn = logging.get_verbosity(), logging.is_progress_bar_enabled()
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
        logging.set_verbosity(said)
        if drawn:
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
