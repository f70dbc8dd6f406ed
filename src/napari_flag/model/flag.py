"""The FLAG network: a fixed spatial graph encoded once, a gene transformer that denoises under it.

FLAG (Si et al., ICML 2026), with counts as what is observed.  In both forms (`FlagConfig`)

* a `SpatialEncoder` turns features and graph into H_spatial, once per slide;
* the gene DiT denoises the latent log-rates of a spot's genes under H_spatial, their absolute level and the
  spot's depth;
* counts are drawn around these rates (`model.observation`).

In the residual form a mean head — a kernel branch in closed form and graph branches, averaged — gives the
expectation, and what is denoised is the composition residual around it, under its covariance.  In FLAG proper
there is no mean head, and all of the expression is denoised.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_flag import scratch
from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import Preconditioner
from napari_flag.model.gene_dit import GeneDiT
from napari_flag.model.graph import GraphTensors
from napari_flag.model.mean_head import MeanHead
from napari_flag.model.normalization import SlideNormalization
from napari_flag.model.observation import FloatArray, Observation, mixed_quantiles
from napari_flag.model.spatial_encoder import SpatialEncoder

QUANTILES: Final = 40
"""Equal steps of probability at which the distribution of a slide's depth residuals is kept."""
LEAST: Final = 0.01
"""Smallest expectation, log2(count + 1): one molecule in 144 spots."""
_LN2: Final = float(np.log(2.0))


@dataclass(frozen=True, slots=True)
class Context:
    """What sampling needs of a slide, computed once.

    Parameters
    ----------
    spatial
        (n, context_width) H_spatial.
    latent
        (n, G) log-rate, ln(counts), that residuals are added to.
    scale
        (G,) ln(counts), one unit of what is diffused.
    factors
        (p, G) what is not known of the slide's level, ln(counts): weights are unit normal.
    observation
        What is known of the residuals: depth, and variance of composition and level.
    expected
        (n, G) float64 expected log2(count + 1); None where it has to be averaged over draws.
    """

    spatial: Tensor
    latent: Tensor
    scale: Tensor
    factors: Tensor
    observation: Observation
    expected: FloatArray | None

    def around(self, expected: FloatArray) -> "Context":
        """Return the context with the same residuals around another (n, G) expectation."""
        latent = torch.from_numpy(self.observation.latent(np.maximum(expected, LEAST)))
        return replace(self, latent=latent.to(self.latent), expected=np.maximum(expected, 0))

    def shifted(self, shift: float) -> "Context":
        """Return the context of the slide when its depth is known, ``exp(shift)`` times the usual.

        What the genes of a patient have in common, weighted as they count in the total, is known then;
        shifts add up.
        """
        latent = self.latent + shift
        weight = self._rates(self._own_variance()).sum(0)
        common = (self.factors.double() * (weight / weight.sum())).sum(1, keepdim=True)
        factors = (self.factors - common).to(self.factors)
        known = replace(self, latent=latent, factors=factors)
        if self.expected is None:
            return known
        variance = self._own_variance() + factors.square().sum(0)
        observation = Observation.of(self.observation.depth, variance.cpu().numpy())
        expected = observation.expected(latent.double().cpu().numpy())
        return replace(known, observation=observation, expected=expected)

    def total(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> float:
        """Return the expected total count of the genes `columns`, a mean over the spots `rows`."""
        rates = self._rates(self._own_variance() + self.factors.square().sum(0))[rows][:, columns]
        return float(rates.sum(1).mean()) * float(np.exp(self.observation.depth).mean())

    def _own_variance(self) -> Tensor:
        """Return the (G,) variance of the composition, ln², without the level's."""
        if self.expected is None:  # what is diffused has unit variance
            return self.scale.square()
        variance = torch.from_numpy(self.observation.variance).to(self.factors)
        return (variance - self.factors.square().sum(0)).clamp_min(0)

    def _rates(self, variance: Tensor) -> Tensor:
        """Return the (n, G) expected counts of spots of the usual depth under a (G,) `variance`."""
        return (self.latent + variance / 2).double().exp()


class Flag(nn.Module):
    """The network with what it stores of its training slides.

    Parameters
    ----------
    config
        Sizes and form.
    """

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.config = config
        self.mean_head = MeanHead(config) if config.mean_head else None
        self.spatial_encoder = SpatialEncoder(
            config.components,
            config.context_width,
            config.context_heads,
            config.context_layers,
            dropout=config.context_dropout,
            attention=config.attention,
        )
        self.gene_dit = GeneDiT(
            config.genes,
            config.context_width,
            config.width,
            config.heads,
            config.blocks,
            config.mlp_ratio,
            config.dropout,
            config.tap,
            config.summaries,
        )
        d, g, m = config.features, config.genes, config.slides
        self.register_buffer("axes", torch.zeros(d, config.components))
        self.register_buffer("lift", torch.ones(config.components))
        self.register_buffer("feature_mean", torch.zeros(d))
        self.register_buffer("feature_spread", torch.ones(d))
        self.register_buffer("slide_centres", torch.zeros(m, d))
        self.register_buffer("slide_location", torch.zeros(m, g))
        self.register_buffer("slide_scale", torch.ones(m, g))
        self.register_buffer("prior_location", torch.zeros(g))
        self.register_buffer("prior_scale", torch.ones(g))
        self.register_buffer("slide_shares", torch.full((m,), 1 / m))
        self.register_buffer("patients", torch.zeros(config.patients, g))
        self.register_buffer("depth", torch.zeros(m, QUANTILES if config.mean_head else 1))
        self.register_buffer("spread", torch.ones(g))
        self.register_buffer("sd_factor", torch.ones(()))
        if config.covariance:
            self.register_buffer("eigenvalues", torch.ones(g))
            self.register_buffer("eigenvectors", torch.eye(g))

    @property
    def normalization(self) -> SlideNormalization:
        """Normalisation by what the network stores of its training slides."""
        return SlideNormalization(
            self.get_buffer("feature_mean"),
            self.get_buffer("feature_spread"),
            self.get_buffer("axes"),
            self.get_buffer("slide_centres"),
            self.get_buffer("slide_location"),
            self.get_buffer("slide_scale"),
            self.get_buffer("prior_location"),
            self.get_buffer("prior_scale"),
            self.get_buffer("slide_shares"),
            self.get_buffer("patients"),
        )

    @property
    def preconditioner(self) -> Preconditioner:
        """Matrix functions of the residual covariance; EDM's scalars without one."""
        if not self.config.covariance:
            return Preconditioner(torch.ones_like(self.get_buffer("spread")), None)
        return Preconditioner(self.get_buffer("eigenvalues"), self.get_buffer("eigenvectors"))

    def encode(self, features: Tensor, graph: GraphTensors) -> Context:
        """Encode a slide once, from its raw (n, d) features and its graph."""
        graph = self.seen(graph)
        centre = self.normalization.centre(features)  # (d,), once: features may be larger than memory
        normalised = self.normalization.features(features, centre)  # (n, c)
        spatial = self.spatial(normalised, graph)  # (n, context_width)
        location, scale = self.normalization.expression(centre)  # (G,) each
        factors = self.normalization.level_factors(centre)  # (p, G)
        spread = self.get_buffer("spread")
        if self.mean_head is None:
            latent, scale = latent_of(location), latent_scale(scale) * spread
            nothing = Observation.of(np.zeros(1), np.zeros(len(spread)))
            return Context(spatial, latent.expand(len(features), -1), scale, factors, nothing, None)
        variance = spread.square() + factors.square().sum(0)
        resemblance = self.normalization.resemblance(centre).cpu().numpy()
        depth = mixed_quantiles(self.get_buffer("depth").cpu().numpy(), resemblance)
        observation = Observation.of(depth, variance.cpu().numpy())
        shape = len(features), len(spread)
        expected, rates = scratch.empty(shape, np.float64), scratch.empty(shape, np.float32)
        novelty = self.normalization.novelty(centre)
        for rows, smooth in self.mean_head.blocks(normalised, self.lifted(normalised), graph, novelty):
            expected[rows] = (location + scale * smooth).clamp_min(LEAST).double().cpu().numpy()
            rates[rows] = observation.latent(expected[rows])
        return Context(spatial, torch.from_numpy(rates).to(spread), spread, factors, observation, expected)

    def seen(self, graph: GraphTensors) -> GraphTensors:
        """Return `graph` as this network sees it."""
        return graph if self.config.spatial_graph else graph.without_edges()

    def lifted(self, normalised: Tensor) -> Tensor:
        """Return (n, c) components whose spreads are evened out, by half on a log scale."""
        return normalised * self.get_buffer("lift")

    def spatial(self, normalised: Tensor, graph: GraphTensors) -> Tensor:
        """Return H_spatial (n, context_width) from (n, c) normalised features."""
        out: Tensor = self.spatial_encoder(
            self.lifted(normalised), graph.neighbours, graph.present, graph.distance, graph.likeness
        )
        return out

    def denoise(self, x: Tensor, sigma: Tensor, condition: Tensor, level: Tensor) -> Tensor:
        """Return D(x; σ): what noisy (b, G) `x` hides, under `GeneDiT.condition` and (b, G) `level`.

        Without diffusion it is the regression, whatever `x`, so that every draw has the same rates.  Autocast
        of the caller holds for the gene transformer alone.
        """
        if not self.config.diffusion:
            return self._regress(condition, level)[0]
        p = self.preconditioner
        with _single_precision(x):
            scaled, guess = p.scale_in(x, sigma), p.skip(x, sigma)
        f, _ = self.gene_dit(scaled, sigma.log() / 4, condition, level)
        with _single_precision(x):
            return guess + p.scale_out(f.float(), sigma)

    def score_loss(
        self, clean: Tensor, noise: Tensor, sigma: Tensor, condition: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the denoising loss and the tokens that the alignment loss sees.

        The loss is the mean squared error of F; 1 is what F = 0 (the Gaussian) scores.  Without
        diffusion it is that of the regression.

        Parameters
        ----------
        clean
            (b, G) what is diffused, of unit variance.
        noise
            (b, G) unit noise.
        sigma
            (b,) noise levels.
        condition, level
            (b, width) and (b, G), as for `GeneDiT`.
        """
        if not self.config.diffusion:
            guess, tokens = self._regress(condition, level)
            return ((guess.float() - clean) ** 2).mean(), tokens
        p = self.preconditioner
        with _single_precision(clean):
            x = clean + sigma[:, None] * noise
            scaled, target = p.scale_in(x, sigma), p.target(clean, x, sigma)
        f, tokens = self.gene_dit(scaled, sigma.log() / 4, condition, level)
        return ((f.float() - target) ** 2).mean(), tokens

    def _regress(self, condition: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, G) values regressed on the context alone, and the tapped tokens."""
        nothing = torch.zeros_like(level)
        guess, tokens = self.gene_dit(nothing, nothing[:, 0], condition, level)
        return guess, tokens


def _single_precision(x: Tensor) -> torch.autocast:
    """Return where matrices of the preconditioner are multiplied: half precision would blur small σ."""
    return torch.autocast(x.device.type, enabled=False)


def latent_of(location: Tensor) -> Tensor:
    """Return the log-rate, ln(counts), whose log2(count + 1) is `location` where nothing varies."""
    return torch.expm1(location.clamp_min(LEAST) * _LN2).log()


def latent_scale(scale: Tensor) -> Tensor:
    """Return `scale` of log2(count + 1) in units of ln(counts)."""
    return scale * _LN2
