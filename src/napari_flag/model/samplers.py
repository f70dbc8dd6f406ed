"""Solvers of the probability-flow ODE dx/dσ = (x - D(x; σ)) / σ.  They know no network."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import torch
from torch import Tensor

from napari_flag.errors import UserError

Denoiser: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(b, G) noisy x and (b,) σ → (b, G) estimate of the clean x."""


def log_schedule(steps: int, sigma_max: float, sigma_min: float) -> Tensor:
    """Return `steps` noise levels falling geometrically, then 0: (steps + 1,) float32."""
    levels = torch.linspace(0, 1, steps, dtype=torch.float64)
    sigmas = sigma_max * (sigma_min / sigma_max) ** levels
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Generator[int, None, Tensor]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, one evaluation per step.

    Parameters
    ----------
    denoise
        D(x; σ).
    x
        (b, G) draw of the marginal at ``sigmas[0]``.
    sigmas
        (steps + 1,) falling, the last one 0.

    Yields
    ------
    Number of evaluations made so far; closing the generator stops the work.

    Returns
    -------
    (b, G) solution at σ = 0.
    """
    previous: Tensor | None = None
    for i in range(len(sigmas) - 1):
        now, after = sigmas[i], sigmas[i + 1]
        denoised = denoise(x, now.expand(len(x)).to(x.device))
        if after == 0:
            x = denoised
        else:
            step = torch.log(now / after)  # in λ = -ln σ
            guess = denoised
            if previous is not None:
                ratio = torch.log(sigmas[i - 1] / now) / step
                guess = denoised + (denoised - previous) / (2 * ratio)
            x = (after / now) * x - torch.expm1(-step) * guess
        previous = denoised
        yield i + 1
    return x


def heun(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Generator[int, None, Tensor]:
    """Heun's method as in EDM (Karras et al. 2022, algorithm 1 without churn): two evaluations a step.

    Parameters, yields and returns as for `dpmpp_2m`.
    """
    evaluations = 0
    for now, after in pairwise(sigmas):
        slope = (x - denoise(x, now.expand(len(x)).to(x.device))) / now
        ahead = x + (after - now) * slope
        evaluations += 1
        if after > 0:
            yield evaluations
            end = (ahead - denoise(ahead, after.expand(len(x)).to(x.device))) / after
            ahead = x + (after - now) * (slope + end) / 2
            evaluations += 1
        x = ahead
        yield evaluations
    return x


SOLVERS: Final = {"dpmpp_2m": dpmpp_2m, "heun": heun}
"""Solvers by the name that a weights card may state."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How expression is drawn.

    Parameters
    ----------
    draws
        How many joint draws K.
    first
        Number of the first of them, from 1.
    steps
        Noise levels, thus evaluations for a multistep solver.
    solver
        A name of `SOLVERS`.
    seed
        Keys the noise, together with the number of the draw and each spot's id.
    """

    draws: int = 1
    first: int = 1
    steps: int = 10
    solver: str = "dpmpp_2m"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if min(self.draws, self.first) < 1 or self.steps < 2:
            raise UserError(
                "At least one draw, numbered from 1, and two solver steps are needed, but "
                f"{self.draws} from {self.first} on and {self.steps} were given; choose larger numbers."
            )
        if self.solver not in SOLVERS:
            raise UserError(f'There is no solver called "{self.solver}"; choose one of {", ".join(SOLVERS)}.')

    @property
    def numbers(self) -> range:
        """The numbers of the draws."""
        return range(self.first, self.first + self.draws)


def evaluations(settings: SamplerSettings) -> int:
    """Return how often the denoiser is evaluated per draw."""
    return 2 * settings.steps - 1 if settings.solver == "heun" else settings.steps
