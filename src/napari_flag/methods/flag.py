"""FLAG as a `Predictor`: the slide encoded once, joint samples drawn by denoising under its context."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_flag.errors import UserError
from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import SIGMA_MAX, SIGMA_MIN, keyed_noise
from napari_flag.model.flag import Context, Flag
from napari_flag.model.graph import GraphTensors, SpotGraph
from napari_flag.model.samplers import SOLVERS, SamplerSettings, evaluations, log_schedule

if TYPE_CHECKING:
    from napari_flag.model.checkpoint import Checkpoint

FloatArray = npt.NDArray[np.float32]

_SHARED: Final = -1
"""Number of the sample that keys the noise common to all samples; samples themselves count from 0."""
_MOST_SHARED: Final = 0.95
"""Largest share of the residual's smallest eigenvalue that may be common: 1 - A stays positive definite."""
_PRIOR_SAMPLES: Final = 10
"""Weight of the training slides' residual variance in the moderated spread, in samples."""


class FlagPredictor:
    """FLAG with trained weights (a `methods.predictor.Predictor`).

    Parameters
    ----------
    network
        In evaluation mode.
    genes
        The panel, in the order of the network's outputs.
    """

    def __init__(self, network: Flag, genes: tuple[str, ...]) -> None:
        self.network = network
        self.genes = genes

    @classmethod
    def open(cls, checkpoint: "Checkpoint", device: torch.device | str = "cpu") -> "FlagPredictor":
        """Build the network from `checkpoint` on `device`.

        Raises
        ------
        UserError
            When the tensors do not fit the network of this version.
        """
        try:
            network = Flag(FlagConfig(**checkpoint.config))
            network.load_state_dict(checkpoint.part("flag."))
        except (TypeError, RuntimeError) as error:
            raise UserError(
                f'The weights "{checkpoint.name}" do not fit the network of this napari-flag version '
                f"({str(error).splitlines()[0]}); get matching weights or update napari-flag."
            ) from error
        return cls(network.eval().to(device), checkpoint.genes)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.network.get_buffer("spread").device

    @torch.inference_mode()
    def encode(self, features: FloatArray, graph: SpotGraph) -> "FlagSlide":
        """Encode all spots of a slide once, from raw (n, d) float32 `features` and their `graph`."""
        tensors = GraphTensors.of(graph, device=self.device)
        context = self.network.encode(torch.from_numpy(features).to(self.device), tensors)
        return FlagSlide(self.network, context, SharedNoise.of(self.network, context))


@dataclass(frozen=True, slots=True)
class SharedNoise:
    """How unit noise is composed so that all samples share measurement noise of a given variance.

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
    def of(cls, network: Flag, context: Context) -> "SharedNoise":
        """Return the parts for one slide; no gene shares more than the residual's independent part."""
        p = network.preconditioner.to("cpu")
        most = _MOST_SHARED * p.eigenvalues.min()
        variance = context.shared.cpu().clamp_max(most)  # (G,)
        root = (p.eigenvectors * p.eigenvalues.rsqrt()) @ p.eigenvectors.T  # (G, G) C^(-1/2)
        values, vectors = torch.linalg.eigh(((root * variance) @ root).double())  # of A
        values = values.clamp(0, 1)
        part = (vectors * values.sqrt()) @ vectors.T
        own = (vectors * (1 - values).sqrt()) @ vectors.T
        return cls(part.float(), own.float(), variance)


@dataclass(frozen=True, slots=True)
class FlagSlide:
    """A slide encoded by FLAG (a `methods.predictor.EncodedSlide`).

    Parameters
    ----------
    network
        In evaluation mode.
    context
        What the network computed of the slide.
    shared
        The noise that all samples of this slide share.
    """

    network: Flag
    context: Context
    shared: SharedNoise

    @torch.inference_mode()
    def draw(
        self, rows: npt.NDArray[np.int64], ids: Sequence[str], settings: SamplerSettings
    ) -> Generator[float, None, FloatArray]:
        """Draw (K, b, G) joint samples of the b spots `rows`; yields the share of the work done."""
        p, context, k = self.network.preconditioner, self.context, settings.samples
        place = torch.from_numpy(rows).repeat(k).to(context.expected.device)  # (K b,)
        spatial, expected = context.spatial[place], context.expected[place]

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return self.network.denoise(x, sigma, spatial, expected)

        noise = paired_noise(settings, ids, self.shared).to(place.device)  # (K b, G)
        sigmas = log_schedule(settings.steps, SIGMA_MAX, SIGMA_MIN)
        solving = SOLVERS[settings.solver](denoise, p.start(noise, SIGMA_MAX), sigmas)
        total = evaluations(settings)
        while True:
            try:
                yield next(solving) / total
            except StopIteration as stop:
                residual: Tensor = stop.value  # (K b, G)
                break
        drawn = context.expression(residual, place)
        result: FloatArray = drawn.view(k, len(rows), -1).cpu().numpy()
        return result

    def expectation(self, rows: npt.NDArray[np.int64], draws: FloatArray) -> FloatArray:
        """Return the (b, G) mean of the (K, b, G) `draws`."""
        result: FloatArray = draws.mean(0)
        return result

    def spread(self, rows: npt.NDArray[np.int64], draws: FloatArray) -> FloatArray | None:
        """Return the (b, G) predictive standard deviation from (K, b, G) `draws`; None for a single one.

        The variance over few samples is itself uncertain, so it is moderated by the gene's residual
        variance on the training slides, with the weight of `_PRIOR_SAMPLES` samples (Smyth 2004).  To it is
        added what no sample shows: the measurement noise that all share, and how far the slide's level may
        lie from that of the training slides.
        """
        k, context = len(draws), self.context
        if k == 1:
            return None
        scale, common = context.scale.cpu().square(), self.shared.variance  # (G,) both
        prior = (scale * (1 - common)).numpy()
        # pairs cancel, so that their mean takes no degree of freedom
        over_samples = draws.var(0, ddof=k % 2)
        moderated = (k * over_samples + _PRIOR_SAMPLES * prior) / (k + _PRIOR_SAMPLES)
        hidden = (scale * common + context.location_variance.cpu()).numpy()
        result: FloatArray = np.sqrt(moderated + hidden).astype(np.float32)
        return result


def paired_noise(settings: SamplerSettings, ids: Sequence[str], shared: SharedNoise) -> Tensor:
    """Return (K b, G) unit noise of b spots: a part that all samples share, and pairs that otherwise cancel.

    Every sample is standard normal on its own.  Antithetic pairs (Hammersley & Morton 1956) leave the
    mean of K samples as accurate as the expectation; the shared part of the measurement noise leaves
    every gene as rough as it is measured (`model.mean_head.Sharpening`).
    """
    genes = len(shared.own)
    drawn: list[Tensor] = []
    common = torch.from_numpy(keyed_noise(settings.seed, _SHARED, ids, genes)) @ shared.part  # (b, G)
    for number in range(settings.samples):
        if number % 2:
            drawn.append(2 * common - drawn[-1])
            continue
        noise = torch.from_numpy(keyed_noise(settings.seed, number, ids, genes))
        drawn.append(common + noise @ shared.own)
    return torch.cat(drawn)
