"""Features + graph + weights → expression, streamed in chunks of spots."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_flag.encoders.features import halve
from napari_flag.errors import UserError
from napari_flag.model.diffusion import SIGMA_MAX, SIGMA_MIN
from napari_flag.model.flag import Context, Flag, GraphTensors
from napari_flag.model.graph import SpotGraph
from napari_flag.model.noise import keyed_noise
from napari_flag.model.samplers import SOLVERS, log_schedule
from napari_flag.progress import Step, Steps

FloatArray = npt.NDArray[np.float32]

_TOKENS_CPU: Final = 16_000
"""Gene tokens per evaluation on the CPU: about a quarter of a second at the shipped size."""
_TOKENS_GPU: Final = 400_000
_LEADING_AXES: Final = 3
"""Chosen on C2-C4, each predicted from B4 and the other two, among 0, 1 and 3."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How expression is drawn.

    Parameters
    ----------
    samples
        Joint samples K; `Expression.mean` averages them.
    steps
        Noise levels, thus evaluations for a multistep solver.
    solver
        A name of `samplers.SOLVERS`.
    seed
        Keys the noise, together with each spot's id.
    """

    samples: int = 4
    steps: int = 10
    solver: str = "dpmpp_2m"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.samples < 1 or self.steps < 2:
            raise UserError(
                f"At least one sample and two solver steps are needed, but {self.samples} and "
                f"{self.steps} were asked for; choose larger numbers."
            )
        if self.solver not in SOLVERS:
            raise UserError(f'There is no solver called "{self.solver}"; choose one of {", ".join(SOLVERS)}.')


@dataclass(frozen=True, slots=True)
class Expression:
    """Sampled expression, log2(count + 1).

    Parameters
    ----------
    mean, sample
        (n, G) float32, mean over the joint samples and the first of them.
    spread
        (n, G) float32, standard deviation over samples (n - 1 in the denominator); None for one sample.
    """

    mean: FloatArray
    sample: FloatArray
    spread: FloatArray | None


@dataclass(frozen=True, slots=True)
class Preview:
    """Chunk of a prediction that can be shown while the rest is computed.

    Parameters
    ----------
    rows
        (b,) int64 positions among the spots predicted.
    values
        (b, G) float32 log2(count + 1), mean of the joint samples.
    genes
        G gene symbols.
    """

    rows: npt.NDArray[np.int64]
    values: FloatArray
    genes: tuple[str, ...]


@torch.inference_mode()
def encode_slide(network: Flag, features: FloatArray, graph: SpotGraph) -> Context:
    """Encode all spots of a slide once.

    Parameters
    ----------
    network
        In evaluation mode.
    features
        (n, d) float32 raw features of every spot on the tissue.
    graph
        Over the same spots.
    """
    device = network.get_buffer("spread").device
    tensors = GraphTensors.of(graph, device=device)
    return network.encode(torch.from_numpy(features).to(device), tensors)


def sample_expression(
    network: Flag,
    context: Context,
    ids: Sequence[str],
    rows: npt.NDArray[np.int64],
    genes: tuple[str, ...],
    settings: SamplerSettings,
) -> Steps[Expression]:
    """Draw joint samples of the expression of spots `rows`, chunk by chunk.

    Parameters
    ----------
    network, context
        The model and what it knows of the slide.
    ids
        Names of all spots of the slide.
    rows
        Positions of the spots to predict.
    genes
        The panel.
    settings
        Number of samples, solver, seed.

    Yields
    ------
    A `Step` per evaluation; when a chunk is done its ``partial`` is a `Preview`.

    Raises
    ------
    UserError
        When GPU memory runs out at one spot at a time.
    """
    n, g = len(rows), len(genes)
    on_gpu = context.expected.device.type == "cuda"
    chunk = max(1, (_TOKENS_GPU if on_gpu else _TOKENS_CPU) // (g * settings.samples))
    mean, sample = np.empty((n, g), np.float32), np.empty((n, g), np.float32)
    spread = np.empty((n, g), np.float32) if settings.samples > 1 else None
    start = 0
    while start < n:
        here = np.arange(start, min(start + chunk, n))
        drawing = _draw(network, context, ids, rows[here], settings)
        try:
            while True:
                yield Step("Predicting expression", start + int(next(drawing) * len(here)), n)
        except StopIteration as stop:
            drawn: FloatArray = stop.value  # (K, b, G)
        except torch.cuda.OutOfMemoryError:
            chunk = halve(chunk, "spots")
            torch.cuda.empty_cache()
            yield Step(
                "Predicting expression",
                start,
                n,
                notice=f"GPU memory ran out; going on with {chunk} spots at a time.",
            )
            continue
        mean[here], sample[here] = drawn.mean(0), drawn[0]
        if spread is not None:
            spread[here] = drawn.std(0, ddof=1)
        start = int(here[-1]) + 1
        yield Step("Predicting expression", start, n, partial=Preview(here, mean[here], genes))
    return Expression(mean, sample, spread)


@torch.inference_mode()
def _draw(
    network: Flag,
    context: Context,
    ids: Sequence[str],
    rows: npt.NDArray[np.int64],
    settings: SamplerSettings,
) -> Generator[float, None, FloatArray]:
    """Draw (K, b, G) joint samples for `rows`; yields the share of the work done."""
    p, k = network.preconditioner, settings.samples
    noise = _paired_noise(settings, [ids[row] for row in rows], p.eigenvectors.cpu())  # (K b, G)
    place = torch.from_numpy(rows).repeat(k).to(context.expected.device)
    spatial, expected = context.spatial[place], context.expected[place]

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return network.denoise(x, sigma, spatial, expected)

    sigmas = log_schedule(settings.steps, SIGMA_MAX, SIGMA_MIN)
    start = p.start(noise.to(place.device), SIGMA_MAX)
    solving = SOLVERS[settings.solver](denoise, start, sigmas)
    total = evaluations(settings)
    while True:
        try:
            yield next(solving) / total
        except StopIteration as stop:
            residual: Tensor = stop.value
            break
    drawn = context.expression(residual, place)
    result: FloatArray = drawn.view(k, len(rows), -1).cpu().numpy()
    return result


def _paired_noise(settings: SamplerSettings, ids: Sequence[str], axes: Tensor) -> Tensor:
    """Return (K b, G) unit noise, samples in pairs that cancel along the leading residual axes.

    Every sample is standard normal on its own.  The leading axes (library size above all) hold most
    of the residual variance and none of the structure between genes, so that averaging them away by
    antithetic pairs (Hammersley & Morton 1956) leaves the mean of K samples more accurate at the
    same co-expression.
    """
    drawn: list[Tensor] = []
    leading = axes[:, -_LEADING_AXES:]  # eigenvalues rise
    for number in range(settings.samples):
        noise = torch.from_numpy(keyed_noise(settings.seed, number, ids, len(axes)))
        if number % 2:
            noise = noise - (noise + drawn[-1]) @ leading @ leading.T
        drawn.append(noise)
    return torch.cat(drawn)


def evaluations(settings: SamplerSettings) -> int:
    """Return how often the network is evaluated per sample."""
    return 2 * settings.steps - 1 if settings.solver == "heun" else settings.steps
