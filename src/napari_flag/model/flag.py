"""The FLAG network: a fixed spatial graph encoded once, a gene transformer that denoises under it.

FLAG (Si et al., ICML 2026) in a form that can be trained on small cohorts:

* the mean head — a kernel branch in closed form and graph branches (`SpatialEncoder`), averaged — predicts
  the expectation from the image, and sharpening gives each gene its own spatial roughness;
* a further `SpatialEncoder` gives H_spatial, encoded once per slide;
* the gene DiT denoises what remains, gene by gene, under H_spatial and the expectation.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import Preconditioner
from napari_flag.model.gene_dit import GeneDiT
from napari_flag.model.graph import GraphTensors
from napari_flag.model.mean_head import MeanHead, Sharpening
from napari_flag.model.normalization import SlideNormalization
from napari_flag.model.spatial_encoder import SpatialEncoder


@dataclass(frozen=True, slots=True)
class Context:
    """What sampling needs of a slide, computed once.

    Parameters
    ----------
    spatial
        (n, context_width) H_spatial.
    expected
        (n, G) normalised expectation, in units of the genes' residual spread.
    location, scale
        (G,) log2(count + 1): the slide's location, and its scale times the residual spread.
    shared
        (G,) variance, in units of the residual spread, of the measurement noise that all samples share.
    location_variance
        (G,) variance of the error of `location`, log2(count + 1) squared.
    """

    spatial: Tensor
    expected: Tensor
    location: Tensor
    scale: Tensor
    shared: Tensor
    location_variance: Tensor

    def expression(self, residual: Tensor, rows: Tensor) -> Tensor:
        """Turn (b, G) residuals of spots `rows` into log2(count + 1)."""
        return (self.location + self.scale * (self.expected[rows] + residual)).clamp_min(0)


class Flag(nn.Module):
    """The network with what it stores of its training slides.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.config = config
        self.mean_head = MeanHead(config)
        self.spatial_encoder = SpatialEncoder(
            config.components + config.genes,
            config.context_width,
            config.context_heads,
            config.context_layers,
            dropout=config.context_dropout,
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
        )
        d, g, m = config.features, config.genes, config.slides
        self.register_buffer("axes", torch.zeros(d, config.components))
        self.register_buffer("feature_mean", torch.zeros(d))
        self.register_buffer("feature_spread", torch.ones(d))
        self.register_buffer("slide_centres", torch.zeros(m, d))
        self.register_buffer("slide_location", torch.zeros(m, g))
        self.register_buffer("slide_scale", torch.ones(m, g))
        self.register_buffer("slide_moran", torch.zeros(m, g))
        self.register_buffer("location_slope", torch.zeros(d, g))
        self.register_buffer("location_level", torch.zeros(g))
        self.register_buffer("spread", torch.ones(g))
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
            self.get_buffer("slide_moran"),
            self.get_buffer("location_slope"),
            self.get_buffer("location_level"),
        )

    @property
    def preconditioner(self) -> Preconditioner:
        """Matrix functions of the residual covariance."""
        return Preconditioner(self.get_buffer("eigenvalues"), self.get_buffer("eigenvectors"))

    def encode(self, features: Tensor, graph: GraphTensors) -> Context:
        """Encode a slide once, from its raw (n, d) features and its graph."""
        graph = self.seen(graph)
        normalised = self.normalization.features(features)  # (n, c)
        spread = self.get_buffer("spread")
        location, scale, moran = self.normalization.expression(features)  # each (G,)
        sharpening = Sharpening(moran, self.config.sharp, self.config.rough)
        expected = self.mean_head(normalised, graph, self.normalization.novelty(features))  # (n, G)
        expected, noise = sharpening.apply(expected, graph)  # (n, G), (G,)
        expected = expected / spread
        spatial = self.spatial(normalised, expected, graph)  # (n, context_width)
        return Context(
            spatial,
            expected,
            location,
            scale * spread,
            noise / spread**2,
            self.normalization.location_variance(features),
        )

    def seen(self, graph: GraphTensors) -> GraphTensors:
        """Return `graph` as this network sees it."""
        return graph if self.config.spatial_graph else graph.without_edges()

    def spatial(self, normalised: Tensor, expected: Tensor, graph: GraphTensors) -> Tensor:
        """Return H_spatial (n, context_width) from normalised features and expectation (as in `Context`)."""
        out: Tensor = self.spatial_encoder(
            torch.cat([normalised * self.mean_head.get_buffer("lift"), expected], 1),  # (n, c + G)
            graph.neighbours,
            graph.present,
            graph.distance,
            graph.likeness,
        )
        return out

    def denoise(self, x: Tensor, sigma: Tensor, spatial: Tensor, expected: Tensor) -> Tensor:
        """Return D(x; σ): the residual that noisy (b, G) `x` hides, in units of `spread`.

        Without diffusion it is the regression, whatever `x`, so that every sample is the mean.
        """
        if not self.config.diffusion:
            return self._regress(spatial, expected)[0]
        p = self.preconditioner
        f, _ = self.gene_dit(p.scale_in(x, sigma), sigma.log() / 4, spatial, expected)
        return p.skip(x, sigma) + p.scale_out(p.gate(f, sigma), sigma)

    def score_loss(
        self, residual: Tensor, noise: Tensor, sigma: Tensor, spatial: Tensor, expected: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the denoising loss and the tokens that the alignment loss sees.

        The loss is the mean squared error of F; 1 is what F = 0 (the Gaussian) scores.  Without
        diffusion it is that of the regressed residual.

        Parameters
        ----------
        residual
            (b, G) clean residuals in units of `spread`.
        noise
            (b, G) unit noise.
        sigma
            (b,) noise levels.
        spatial, expected
            (b, context_width) and (b, G) of the same spots.
        """
        if not self.config.diffusion:
            guess, tokens = self._regress(spatial, expected)
            return ((guess.float() - residual) ** 2).mean(), tokens
        p = self.preconditioner
        with torch.autocast(residual.device.type, enabled=False):  # half precision would blur small σ
            x = residual + sigma[:, None] * noise
            scaled, target = p.scale_in(x, sigma), p.target(residual, x, sigma)
        f, tokens = self.gene_dit(scaled, sigma.log() / 4, spatial, expected)
        return ((p.gate(f.float(), sigma) - target) ** 2).mean(), tokens

    def _regress(self, spatial: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, G) residuals regressed on the context alone, and the tapped tokens."""
        nothing = torch.zeros_like(expected)
        guess, tokens = self.gene_dit(nothing, nothing[:, 0], spatial, expected)
        return guess, tokens
