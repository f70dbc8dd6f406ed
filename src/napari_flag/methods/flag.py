"""FLAG as a `Predictor`: the slide encoded once, counts drawn around log-rates that are denoised under it."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor

from napari_flag.methods.moments import AVERAGED, FloatArray, Moments, Sampler
from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import SIGMA_MAX, SIGMA_MIN, keyed_uniforms
from napari_flag.model.flag import Context, Flag
from napari_flag.model.graph import GraphTensors, SpotGraph
from napari_flag.model.observation import Observation, expression_at
from napari_flag.model.samplers import SOLVERS, SamplerSettings, evaluations, log_schedule

if TYPE_CHECKING:
    from napari_flag.model.checkpoint import Checkpoint


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
        return cls(checkpoint.restore(lambda sizes: Flag(FlagConfig(**sizes)), device), checkpoint.genes)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.network.get_buffer("spread").device

    @property
    def sampler(self) -> Sampler:
        """In as many steps as whoever predicts chooses."""
        return Sampler(SamplerSettings().solver)

    @torch.inference_mode()
    def encode(self, features: FloatArray, graph: SpotGraph) -> "FlagSlide":
        """Encode all spots of a slide once, from raw (n, d) float32 `features` and their `graph`."""
        tensors = GraphTensors.of(graph, device=self.device)
        context = self.network.encode(torch.from_numpy(features).to(self.device), tensors)
        return FlagSlide(self.network, context)


@dataclass(frozen=True, slots=True)
class FlagSlide:
    """A slide encoded by FLAG (a `methods.predictor.EncodedSlide`).

    Parameters
    ----------
    network
        In evaluation mode.
    context
        What the network computed of the slide.
    transformer
        Whether the gene transformer is asked; without it draws come from the Gaussian that it starts from.
    """

    network: Flag
    context: Context
    transformer: bool = True

    @property
    def has_mean_head(self) -> bool:
        """Whether the expectation is there in closed form, with residuals around it."""
        return self.context.expected is not None

    def silenced(self) -> "FlagSlide":
        """Return the same slide with the gene transformer silenced, to see what it is worth."""
        return replace(self, transformer=False)

    def around(self, expected: npt.NDArray[np.floating]) -> "FlagSlide":
        """Return the same residuals around another (n, G) expectation, log2(count + 1)."""
        return replace(self, context=self.context.around(np.asarray(expected, np.float64)))

    def total(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> float:
        """Return the expected total count of the genes `columns` in a spot, a mean over the spots `rows`."""
        return self.context.total(rows, columns)

    def shifted(self, shift: float) -> "FlagSlide":
        """Return the slide with all its counts ``exp(shift)`` times as high: its depth is known."""
        return replace(self, context=self.context.shifted(shift))

    def expectation(self, rows: npt.NDArray[np.int64], ids: Sequence[str]) -> Generator[float, None, Moments]:
        """Return mean and standard deviation of a measurement of the b spots `rows`.

        In closed form with a mean head (`Observation`); otherwise averaged over draws whose noise depends on
        spot and gene alone, each of them as the mean and variance of the counts around its rates.
        """
        factor = float(self.network.get_buffer("sd_factor"))
        if self.context.expected is not None:
            variance = self.context.observation.variance_of(self.context.latent[rows].cpu().numpy())
            mean = self.context.expected[rows]
        else:
            mean, variance = yield from self._averaged(rows, ids)
        deviation = factor * np.sqrt(np.maximum(variance, 0))
        return Moments(mean.astype(np.float32), deviation.astype(np.float32))

    def _averaged(
        self, rows: npt.NDArray[np.int64], ids: Sequence[str]
    ) -> Generator[float, None, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """Return the (b, G) mean and variance over draws that are made for it, a few spots at a time."""
        settings = SamplerSettings(draws=self.network.config.averaged)
        genes = self.context.latent.shape[1]
        around = Observation.of(np.zeros(1), np.zeros(genes))
        mean, variance = np.empty((len(rows), genes)), np.empty((len(rows), genes))
        together = max(1, len(rows) // settings.draws)
        for first in range(0, len(rows), together):
            part = slice(first, first + together)
            drawing = self._latent(rows[part], ids[part], settings, AVERAGED)
            while True:
                try:
                    yield (first + next(drawing) * len(rows[part])) / len(rows)
                except StopIteration as stop:
                    latent = stop.value  # (M, b, G)
                    break
            means = np.stack([around.expected(each) for each in latent])
            mean[part] = means.mean(0)
            variance[part] = np.stack([around.variance_of(each) for each in latent]).mean(0) + means.var(0)
        return mean, variance

    def draw(
        self, rows: npt.NDArray[np.int64], ids: Sequence[str], settings: SamplerSettings
    ) -> Generator[float, None, FloatArray]:
        """Draw (K, b, G) log2(count + 1) of the b spots `rows`; yields the share of the work done."""
        latent = yield from self._latent(rows, ids, settings)
        drawn = np.empty(latent.shape, np.float32)
        for place, number in enumerate(settings.numbers):
            chance = keyed_uniforms(settings.seed, number - 1, ids, latent.shape[2], "counts")
            drawn[place] = expression_at(latent[place], chance)
        return drawn

    def _latent(
        self, rows: npt.NDArray[np.int64], ids: Sequence[str], settings: SamplerSettings, purpose: str = ""
    ) -> Generator[float, None, npt.NDArray[np.float64]]:
        """Draw the (K, b, G) log-rates of `settings.numbers`, keyed by `purpose` beside seed and spot."""
        context = self.context
        genes, k, b = context.latent.shape[1], settings.draws, len(rows)
        noise, depth, level = np.empty((k, b, genes)), np.empty((k, b)), np.empty((k, genes))
        factors = context.factors.double().cpu().numpy()
        for place, number in enumerate(settings.numbers):
            key = settings.seed, number - 1
            noise[place] = ndtri(keyed_uniforms(*key, ids, genes, f"{purpose}latent"))
            depth[place] = context.observation.depth_at(keyed_uniforms(*key, ids, 1, f"{purpose}depth")[:, 0])
            weights = ndtri(keyed_uniforms(*key, [""], len(factors), f"{purpose}level")[0])
            level[place] = weights @ factors
        residual = yield from self._denoise(rows, noise, depth, level, settings)  # (K b, G)
        latent = context.latent[rows].double().cpu().numpy() + level[:, None] + depth[..., None]
        scaled = (residual * context.scale).view(k, b, genes)
        found: npt.NDArray[np.float64] = latent + scaled.double().cpu().numpy()
        return found

    @torch.inference_mode()
    def _denoise(
        self,
        rows: npt.NDArray[np.int64],
        noise: npt.NDArray[np.float64],
        depth: npt.NDArray[np.float64],
        level: npt.NDArray[np.float64],
        settings: SamplerSettings,
    ) -> Generator[float, None, Tensor]:
        """Solve from (K, b, G) unit `noise` to (K b, G) residuals."""
        p, context, device = self.network.preconditioner, self.context, self.context.latent.device
        k, b, genes = noise.shape
        unit = torch.from_numpy(noise).float().to(device).view(k * b, genes)
        if not self.transformer:
            return p.start(unit, 0.0)
        shift = torch.from_numpy(level).float().to(device)[:, None]  # (K, 1, G)
        expected = (context.latent[rows] + shift).view(k * b, genes)
        spatial = context.spatial[rows].repeat(k, 1)
        depths = torch.from_numpy(depth).float().to(device).view(k * b)
        condition = self.network.gene_dit.condition(spatial, depths)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                return self.network.denoise(x, sigma, condition, expected).float()

        sigmas = log_schedule(settings.steps, SIGMA_MAX, SIGMA_MIN)
        solving = SOLVERS[settings.solver](denoise, p.start(unit, SIGMA_MAX), sigmas)
        total = evaluations(settings)
        while True:
            try:
                yield next(solving) / total
            except StopIteration as stop:
                residual: Tensor = stop.value  # (K b, G)
                return residual
