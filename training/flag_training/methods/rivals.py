"""Draws that need no network: noise of a known form around a given expectation.

What a generative network is worth is how far its draws are ahead of these around the same expectation, in
proper scores.  All share the same evenly spread uniform numbers (`diffusion.keyed_uniforms`), as FLAG's draws
have them, so that no method gains from the numbers alone.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from flag_training.methods.method import FloatArray
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.observation import Observation, expression_at

NOISES: Final = (
    "no noise",
    "independent Gaussian residual",
    "correlated Gaussian residual",
    "counting noise alone",
)
"""Forms of noise, as the tables name them."""
_SHRINKAGE: Final = 0.1
"""Share of the identity in the residuals' correlation: with few spots its small eigenvalues are noise."""


def draws_around(
    expected: FloatArray, residuals: FloatArray, ids: Sequence[str], numbers: Sequence[int], seed: int
) -> dict[str, FloatArray]:
    """Draw around `expected` under each of `NOISES`.

    Parameters
    ----------
    expected
        (n, G) log2(count + 1).
    residuals
        (N, G) measured less expected on the training spots, cross-fitted, log2(count + 1).
    ids
        Names of the n spots, which key the noise.
    numbers
        Of the K draws, from 0 (`diffusion.keyed_uniforms`).
    seed
        Of the noise.

    Returns
    -------
    Noise → (K, n, G) float32 log2(count + 1), never below 0.
    """
    genes = expected.shape[1]
    uniform = np.stack([keyed_uniforms(seed, k, ids, genes, "rival") for k in numbers])
    normal, spread = special.ndtri(uniform), residuals.std(0, dtype=np.float64)
    drawn = {
        NOISES[0]: np.broadcast_to(expected, normal.shape),
        NOISES[1]: expected + spread * normal,
        NOISES[2]: expected + spread * (normal @ _root(residuals)),
        NOISES[3]: _counted(expected, uniform),
    }
    return {noise: np.maximum(values, 0).astype(np.float32) for noise, values in drawn.items()}


def _root(residuals: FloatArray) -> npt.NDArray[np.float64]:
    """Return the (G, G) root of the residuals' shrunk correlation, symmetric: each gene keeps its noise."""
    away = residuals.astype(np.float64) - residuals.mean(0, dtype=np.float64)
    unit = away / np.sqrt((away * away).sum(0)).clip(1e-12)
    correlation = (1 - _SHRINKAGE) * unit.T @ unit
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    root: npt.NDArray[np.float64] = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    return root


def _counted(expected: FloatArray, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return log2(count + 1) of Poisson counts whose log2(count + 1) has the expectation `expected`."""
    known = Observation.of(np.zeros(1), np.zeros(1))  # no residual, and one table for all genes
    latent = known.latent(expected.reshape(-1, 1)).reshape(expected.shape)
    return expression_at(np.broadcast_to(latent, uniform.shape), uniform)
