"""Noise, preconditioning, loss and denoiser in one place, so training and sampling cannot drift.

What is diffused is a spot's latent log-rate, or its residual around the mean head, each gene in units of
its own spread.  Its genes are strongly correlated (library size alone is a factor), so the scalar
preconditioning of EDM (Karras et al. 2022, eqs. 7–8) is generalised to the residual's covariance C:

    D(x; σ) = c_skip x + c_out F(c_in x; σ),   c_skip = C (C + σ²)⁻¹,
    c_in = (C + σ²)^(-1/2),   c_out = σ C^(1/2) (C + σ²)^(-1/2)

with symmetric matrix functions, so that every coordinate stays a gene.  For C = 1 these are EDM's.
With F = 0 the sampler draws from N(0, C): the network only has to learn what depends on the image
and what is not Gaussian.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_flag import keys

SIGMA_MIN: Final = 0.02
"""Noise that changes no digit shown: a fiftieth of a gene's residual spread."""
SIGMA_MAX: Final = 20.0
"""Twice the largest standard deviation along any axis of C (about 9 for 200 genes)."""


@dataclass(frozen=True, slots=True)
class Preconditioner:
    """Matrix functions of the residual covariance C = V diag(λ) Vᵀ.

    Parameters
    ----------
    eigenvalues
        (G,) λ > 0.
    eigenvectors
        (G, G) V, columns are the eigenvectors; None for the genes themselves, which with λ = 1 is EDM.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor | None

    def skip(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return c_skip x: the best linear guess of r from (b, G) `x` at (b,) `sigma`."""
        var = sigma[:, None] ** 2
        return self._apply(x, self.eigenvalues / (self.eigenvalues + var))

    def scale_in(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return c_in x, of unit covariance."""
        return self._apply(x, (self.eigenvalues + sigma[:, None] ** 2) ** -0.5)

    def scale_out(self, f: Tensor, sigma: Tensor) -> Tensor:
        """Return c_out f."""
        return self._apply(f, self._out(sigma))

    def target(self, r: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """Return what F should give: c_out⁻¹ (r - c_skip x), of unit covariance."""
        return self._apply(r - self.skip(x, sigma), 1 / self._out(sigma))

    def start(self, noise: Tensor, sigma: float) -> Tensor:
        """Return the marginal at `sigma` that unit `noise` (b, G) stands for: (C + σ²)^(1/2) noise."""
        return self._apply(noise, (self.eigenvalues + sigma**2) ** 0.5)

    def _out(self, sigma: Tensor) -> Tensor:
        var = sigma[:, None] ** 2
        return (self.eigenvalues * var / (self.eigenvalues + var)) ** 0.5

    def _apply(self, x: Tensor, scale: Tensor) -> Tensor:
        if self.eigenvectors is None:
            return x * scale
        return ((x @ self.eigenvectors) * scale) @ self.eigenvectors.T


def precondition(covariance: Tensor, shrinkage: float = 0.1) -> Preconditioner:
    """Decompose a (G, G) residual covariance, shrunk towards its diagonal.

    Parameters
    ----------
    covariance
        Symmetric; with fewer spots than genes its small eigenvalues are noise, hence `shrinkage`.
    shrinkage
        Share of the diagonal matrix in the mixture, in (0, 1].
    """
    shrunk = (1 - shrinkage) * covariance + shrinkage * torch.diag(covariance.diagonal())
    eigenvalues, eigenvectors = torch.linalg.eigh(shrunk.double())
    return Preconditioner(eigenvalues.clamp_min(1e-4).float(), eigenvectors.float())


def noise_levels(n: int, generator: torch.Generator) -> Tensor:
    """Draw (n,) σ, log-uniform between `SIGMA_MIN` and `SIGMA_MAX`, stratified over the batch."""
    strata = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    log_min, log_max = torch.tensor([SIGMA_MIN, SIGMA_MAX]).log()
    return torch.exp(log_min + strata * (log_max - log_min))


TOGETHER: Final = keys.DRAWS_TOGETHER
"""Draws whose noise is spread evenly: each of so many consecutive draws takes another eighth of every
distribution."""


def keyed_uniforms(
    seed: int, draw: int, ids: Sequence[str], width: int, purpose: str
) -> npt.NDArray[np.float64]:
    """Return (len(ids), width) uniform numbers in (0, 1); a row depends on (seed, draw, its id) alone.

    Within one draw they are independent.  Over the draws 0–7, 8–15, … each number takes every eighth of
    (0, 1) once, in an order of its own (Latin hypercube sampling, McKay et al. 1979), so that few draws stand
    for the distribution as well as many independent ones.

    Parameters
    ----------
    seed, draw
        Seed of the prediction, and number of the draw from 0.
    ids
        Spots wanted.
    width
        Numbers per spot: the whole panel, whatever part of it is kept afterwards.
    purpose
        What they are for; numbers of different purposes are independent.
    """
    block, place = divmod(draw, TOGETHER)
    rows = np.empty((len(ids), width))
    for row, spot in enumerate(ids):
        digest = hashlib.blake2b(f"{seed}\0{block}\0{purpose}\0{spot}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        eighth = generator.random((TOGETHER, width)).argsort(0)[place]  # (width,)
        rows[row] = (eighth + generator.random((TOGETHER, width))[place]) / TOGETHER
    return rows.clip(2.0**-40, 1 - 2.0**-40)
