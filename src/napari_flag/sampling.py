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
from napari_flag.model.diffusion import SIGMA_MAX, SIGMA_MIN, keyed_noise
from napari_flag.model.flag import Context, Flag
from napari_flag.model.graph import GraphTensors, SpotGraph
from napari_flag.model.samplers import SOLVERS, log_schedule
from napari_flag.progress import Step, Steps

FloatArray = npt.NDArray[np.float32]

_TOKENS_CPU: Final = 16_000
"""Gene tokens per evaluation on the CPU: about a quarter of a second at the shipped size."""
_TOKENS_GPU: Final = 400_000
_SHARED: Final = -1
"""Number that keys the noise all samples share."""
_MOST_SHARED: Final = 0.95
_PRIOR_SAMPLES: Final = 10


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
        (n, G) float32, predictive standard deviation (see `_spread`); None for one sample.
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


@dataclass(frozen=True, slots=True)
class Shared:
    """How unit noise is put together so that all samples share measurement noise of a given variance.

    With C the residual covariance and S the (diagonal) covariance of the shared noise, a sample's noise is
    A^(1/2) ξ + (1 - A)^(1/2) ζ with A = C^(-1/2) S C^(-1/2): ξ is drawn once, ζ anew, and their sum is of
    unit covariance.

    Parameters
    ----------
    part, own
        (G, G) A^(1/2) and (1 - A)^(1/2), symmetric.
    variance
        (G,) diagonal of S, in units of the residual spread.
    """

    part: Tensor
    own: Tensor
    variance: Tensor

    @classmethod
    def of(cls, network: Flag, context: Context) -> "Shared":
        """Return the parts for one slide; no gene shares more than the residual's independent part."""
        p = network.preconditioner.to("cpu")
        most = _MOST_SHARED * p.eigenvalues.min()
        variance = context.shared.cpu().clamp_max(most)
        root = (p.eigenvectors * p.eigenvalues.rsqrt()) @ p.eigenvectors.T
        values, vectors = torch.linalg.eigh(((root * variance) @ root).double())
        values = values.clamp(0, 1)
        part = (vectors * values.sqrt()) @ vectors.T
        own = (vectors * (1 - values).sqrt()) @ vectors.T
        return cls(part.float(), own.float(), variance)


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
    shared = Shared.of(network, context)
    start = 0
    while start < n:
        here = np.arange(start, min(start + chunk, n))
        drawing = _draw(network, context, ids, rows[here], settings, shared)
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
            spread[here] = _spread(drawn, context, shared)
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
    shared: Shared,
) -> Generator[float, None, FloatArray]:
    """Draw (K, b, G) joint samples for `rows`; yields the share of the work done."""
    p, k = network.preconditioner, settings.samples
    noise = _paired_noise(settings, [ids[row] for row in rows], shared)  # (K b, G)
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


def _spread(drawn: FloatArray, context: Context, shared: Shared) -> FloatArray:
    """Return the (b, G) predictive standard deviation from (K, b, G) samples.

    The variance over few samples is itself uncertain, so it is moderated by the gene's residual variance
    on the training slides, with the weight of `_PRIOR_SAMPLES` samples (Smyth 2004).  To it is added what
    no sample shows: the measurement noise that all share, and how far the slide's level may lie from that
    of the training slides.
    """
    k = len(drawn)
    scale, common = context.scale.cpu().square(), shared.variance
    prior = (scale * (1 - common)).numpy()
    # pairs cancel, so that their mean takes no degree of freedom
    over_samples = drawn.var(0, ddof=k % 2)
    moderated = (k * over_samples + _PRIOR_SAMPLES * prior) / (k + _PRIOR_SAMPLES)
    hidden = (scale * common + context.location_variance.cpu()).numpy()
    result: FloatArray = np.sqrt(moderated + hidden).astype(np.float32)
    return result


def _paired_noise(settings: SamplerSettings, ids: Sequence[str], shared: Shared) -> Tensor:
    """Return (K b, G) unit noise: a part that all samples share, and pairs that otherwise cancel.

    Every sample is standard normal on its own.  Antithetic pairs (Hammersley & Morton 1956) leave the
    mean of K samples as accurate as the expectation; the shared part of the measurement noise leaves
    every gene as rough as it is measured (`mean_head.Sharpening`).
    """
    drawn: list[Tensor] = []
    common = torch.from_numpy(keyed_noise(settings.seed, _SHARED, ids, len(shared.own))) @ shared.part
    for number in range(settings.samples):
        if number % 2:
            drawn.append(2 * common - drawn[-1])
            continue
        noise = torch.from_numpy(keyed_noise(settings.seed, number, ids, len(shared.own)))
        drawn.append(common + noise @ shared.own)
    return torch.cat(drawn)


def evaluations(settings: SamplerSettings) -> int:
    """Return how often the network is evaluated per sample."""
    return 2 * settings.steps - 1 if settings.solver == "heun" else settings.steps
