"""Noise keyed by (seed, spot id, sample), so that numbers do not depend on how work is cut up."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_flag.model.graph import SpotGraph


def keyed_noise(seed: int, sample: int, ids: Sequence[str], genes: int) -> npt.NDArray[np.float32]:
    """Return (len(ids), 2, genes) unit noise; a row depends on (seed, sample, its id) alone.

    The two fields are the spot's own noise and the one that its neighbours share in.
    """
    rows = np.empty((len(ids), 2, genes), np.float32)
    for row, spot in enumerate(ids):
        digest = hashlib.blake2b(f"{seed}\0{sample}\0{spot}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        generator.standard_normal(out=rows[row], dtype=np.float32)
    return rows


def spatial_noise(
    seed: int,
    sample: int,
    ids: Sequence[str],
    rows: npt.NDArray[np.int64],
    graph: SpotGraph,
    eigenvectors: Tensor,
    share: Tensor,
) -> Tensor:
    """Return (len(rows), G) unit noise that neighbouring spots partly share.

    Every spot's noise is standard normal, so a spot's own distribution is what the network learnt;
    but along axis k of the residual covariance a share ρ_k of its variance is a moving average over
    the spatial graph.  Samples then vary over the tissue as smoothly as measured residuals do,
    instead of losing Moran's I to noise that is independent between spots.

    Parameters
    ----------
    seed, sample, ids
        Key of the noise; `ids` names all spots of the graph.
    rows
        Spots wanted, as positions in `ids`.
    graph
        Neighbours over all tissue.
    eigenvectors, share
        (G, G) axes and (G,) ρ.
    """
    members = np.concatenate([rows[:, None], graph.neighbours[rows]], 1)  # (b, k + 1)
    present = np.concatenate([np.ones((len(rows), 1), bool), graph.present[rows]], 1)
    needed, inverse = np.unique(members, return_inverse=True)
    inverse = inverse.reshape(members.shape)
    fields = torch.from_numpy(keyed_noise(seed, sample, [ids[i] for i in needed], len(share)))  # (u, 2, G)
    own = fields[torch.from_numpy(inverse[:, 0]), 0]
    shared = torch.zeros_like(own)
    for column in range(members.shape[1]):
        weight = torch.from_numpy(present[:, column, None].astype(np.float32))
        shared += weight * fields[torch.from_numpy(inverse[:, column]), 1]
    shared /= torch.from_numpy(present.sum(1, keepdims=True).astype(np.float32)).sqrt()
    mixed = (1 - share).sqrt() * (own @ eigenvectors) + share.sqrt() * (shared @ eigenvectors)
    return mixed @ eigenvectors.T
