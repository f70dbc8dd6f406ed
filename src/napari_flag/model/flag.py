"""The FLAG network: a fixed spatial graph encoded once, a gene transformer that denoises under it.

FLAG (Si et al., ICML 2026) in the form that small cohorts bear:

* the mean head — a closed-form ridge branch and graph branches (`SpatialEncoder`), averaged — says what
  the image lets one expect;
* a further `SpatialEncoder` gives H_spatial, encoded once per slide;
* the gene DiT denoises what remains, gene by gene, under H_spatial and the expectation.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from napari_flag.model.diffusion import Preconditioner
from napari_flag.model.frame import Frames
from napari_flag.model.gene_dit import GeneDiT
from napari_flag.model.graph import SpotGraph
from napari_flag.model.spatial_encoder import SpatialEncoder


@dataclass(frozen=True, slots=True)
class FlagConfig:
    """Sizes of the network; written into the weights file.

    Parameters
    ----------
    features, genes, slides
        Feature width, panel size, training slides remembered.
    members
        Graph branches of the mean head.
    mean_width, mean_layers, mean_dropout
        Their size.
    graph_share
        Share of the graph branches in the mean head; the rest is the ridge branch.
    context_width, context_layers, context_heads, context_dropout
        Size of the encoder of H_spatial.
    width, heads, blocks, mlp_ratio, dropout, tap
        Size of the gene DiT; `tap` is the 1-based block that the alignment loss sees.
    diffusion
        False: the same trunk without noise, a regression of the residual (ablation).
    spatial_graph
        False: no spot sees its neighbours (ablation).
    """

    features: int
    genes: int
    slides: int
    members: int = 5
    mean_width: int = 128
    mean_layers: int = 2
    mean_dropout: float = 0.3
    graph_share: float = 0.5
    context_width: int = 64
    context_layers: int = 2
    context_heads: int = 4
    context_dropout: float = 0.25
    width: int = 96
    heads: int = 4
    blocks: int = 3
    mlp_ratio: float = 3.0
    dropout: float = 0.0
    tap: int = 2
    diffusion: bool = True
    spatial_graph: bool = True


@dataclass(frozen=True, slots=True)
class GraphTensors:
    """A `SpotGraph`, or several side by side, as tensors (shapes as there)."""

    neighbours: Tensor
    present: Tensor
    distance: Tensor
    likeness: Tensor

    @classmethod
    def of(cls, *graphs: SpotGraph, device: torch.device | str = "cpu") -> "GraphTensors":
        """Lay `graphs` side by side; no edge joins two slides."""
        offsets = [0]
        for graph in graphs[:-1]:
            offsets.append(offsets[-1] + len(graph))
        return cls(
            torch.cat([torch.from_numpy(g.neighbours) + o for g, o in zip(graphs, offsets, strict=True)]).to(
                device
            ),
            torch.cat([torch.from_numpy(g.present) for g in graphs]).to(device),
            torch.cat([torch.from_numpy(g.distance) for g in graphs]).to(device),
            torch.cat([torch.from_numpy(g.likeness) for g in graphs]).to(device),
        )

    def without_edges(self) -> "GraphTensors":
        """Return the same spots, none of which sees another."""
        return replace(self, present=torch.zeros_like(self.present))

    def to(self, device: torch.device | str) -> "GraphTensors":
        """Return a copy on `device`."""
        return GraphTensors(
            self.neighbours.to(device),
            self.present.to(device),
            self.distance.to(device),
            self.likeness.to(device),
        )

    def ring_mean(self, features: Tensor) -> Tensor:
        """Mean of (n, d) `features` over each spot's first ring (1.5 pitches; itself if alone)."""
        near = self.present & (self.distance < 1.5)
        out = features.clone()
        total = torch.zeros_like(features)
        for column in range(near.shape[1]):  # k gathers of (n, d), never (n, k, d)
            total += near[:, column, None] * features[self.neighbours[:, column]]
        count = near.sum(1, keepdim=True)
        some = count[:, 0] > 0
        out[some] = total[some] / count[some]
        return out


class GraphBranch(nn.Module):
    """A spatial encoder with a linear read-out: (n, d) features → (n, G)."""

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.encoder = SpatialEncoder(
            config.features,
            config.mean_width,
            layers=config.mean_layers,
            dropout=config.mean_dropout,
        )
        self.read_out = nn.Linear(config.mean_width, config.genes)
        nn.init.normal_(self.read_out.weight, std=0.02)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """Return expected expression in the slide's frame."""
        h = self.encoder(features, graph.neighbours, graph.present, graph.distance, graph.likeness)
        out: Tensor = self.read_out(h)
        return out


class MeanHead(nn.Module):
    """What the image lets one expect: ridge on own and first-ring features, and graph branches."""

    def __init__(self, config: FlagConfig) -> None:
        super().__init__()
        self.graph_share = config.graph_share
        self.ridge = nn.Linear(2 * config.features, config.genes)
        self.branches = nn.ModuleList(GraphBranch(config) for _ in range(config.members))

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """Return (n, G) expected expression in the slide's frame from (n, d) features in it."""
        linear = self.ridge(torch.cat([features, graph.ring_mean(features)], 1))
        branches = torch.stack([branch(features, graph) for branch in self.branches]).mean(0)
        out: Tensor = (1 - self.graph_share) * linear + self.graph_share * branches
        return out


@dataclass(frozen=True, slots=True)
class Context:
    """All that sampling needs of a slide, computed once.

    Parameters
    ----------
    spatial
        (n, context_width) H_spatial.
    expected
        (n, G) expectation in the slide's frame, in units of the genes' residual spread.
    location, scale
        (G,) log2(count + 1): the frame's location, and its scale times the residual spread.
    """

    spatial: Tensor
    expected: Tensor
    location: Tensor
    scale: Tensor

    def expression(self, residual: Tensor, rows: Tensor) -> Tensor:
        """Turn (b, G) residuals of spots `rows` into log2(count + 1)."""
        return (self.location + self.scale * (self.expected[rows] + residual)).clamp_min(0)


class Flag(nn.Module):
    """The network with what it remembers of its training slides.

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
            config.features + config.genes,
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
        self.register_buffer("feature_mean", torch.zeros(d))
        self.register_buffer("feature_spread", torch.ones(d))
        self.register_buffer("slide_centres", torch.zeros(m, d))
        self.register_buffer("slide_location", torch.zeros(m, g))
        self.register_buffer("slide_scale", torch.ones(m, g))
        self.register_buffer("spread", torch.ones(g))
        self.register_buffer("eigenvalues", torch.ones(g))
        self.register_buffer("eigenvectors", torch.eye(g))

    @property
    def frames(self) -> Frames:
        """What the network remembers of its training slides."""
        return Frames(
            self.get_buffer("feature_mean"),
            self.get_buffer("feature_spread"),
            self.get_buffer("slide_centres"),
            self.get_buffer("slide_location"),
            self.get_buffer("slide_scale"),
        )

    @property
    def preconditioner(self) -> Preconditioner:
        """Matrix functions of the residual covariance."""
        return Preconditioner(self.get_buffer("eigenvalues"), self.get_buffer("eigenvectors"))

    def encode(self, features: Tensor, graph: GraphTensors) -> Context:
        """Encode a slide once, from its raw (n, d) features and its graph."""
        graph = self.seen(graph)
        framed = self.frames.features(features)
        spread = self.get_buffer("spread")
        expected = self.mean_head(framed, graph) / spread
        location, scale = self.frames.expression(features)
        spatial = self.spatial(framed, expected, graph)
        return Context(spatial, expected, location, scale * spread)

    def seen(self, graph: GraphTensors) -> GraphTensors:
        """Return `graph` as this network sees it."""
        return graph if self.config.spatial_graph else graph.without_edges()

    def spatial(self, framed: Tensor, expected: Tensor, graph: GraphTensors) -> Tensor:
        """Return H_spatial (n, context_width) from framed features and expectation (as in `Context`)."""
        out: Tensor = self.spatial_encoder(
            torch.cat([framed, expected], 1),
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
        return p.skip(x, sigma) + p.scale_out(f, sigma)

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
        return ((f.float() - target) ** 2).mean(), tokens

    def _regress(self, spatial: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, G) residuals that context alone lets one expect, and the tapped tokens."""
        nothing = torch.zeros_like(expected)
        guess, tokens = self.gene_dit(nothing, nothing[:, 0], spatial, expected)
        return guess, tokens
