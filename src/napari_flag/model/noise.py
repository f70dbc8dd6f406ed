"""Noise keyed by (seed, sample, spot id), so that numbers do not depend on how work is cut up."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def keyed_noise(seed: int, sample: int, ids: Sequence[str], genes: int) -> npt.NDArray[np.float32]:
    """Return (len(ids), genes) unit noise; a row depends on (seed, sample, its id) alone.

    Parameters
    ----------
    seed, sample
        Seed of the prediction, and number of the joint sample.
    ids
        Spots wanted.
    genes
        Size of the whole panel, whatever part of it is kept afterwards.
    """
    rows = np.empty((len(ids), genes), np.float32)
    for row, spot in enumerate(ids):
        digest = hashlib.blake2b(f"{seed}\0{sample}\0{spot}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        generator.standard_normal(out=rows[row], dtype=np.float32)
    return rows
