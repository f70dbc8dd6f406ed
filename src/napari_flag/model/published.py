"""The networks as the FLAG authors published them, for their checkpoints and for comparison.

Two networks: a graph transformer over the spots of a tissue window whose attention is modulated channel by
channel by edges and by spot features (alone it is the node-only and the joint node–edge diffusion); and FLAG,
where its output is the condition of a transformer over genes.  Both are given noisy expression and return the
score ∇ log p(x_t), under the variance-exploding process σ(t) = σ_min (σ_max / σ_min)^t.  Structure, sizes and
process follow github.com/darkflash03/FLAG (commit 3099d3b), from which numbers, and no code, were taken: what
these networks compute is held equal to vectors made with that code.
"""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from napari_flag.model.gene_dit import GeneBlock, zero_linear

SIGMA_MIN: Final = 0.01
SIGMA_MAX: Final = 10.0
T_MIN: Final = 0.01
"""Time at which sampling ends, and the least that is trained."""
LOG_RATIO: Final = math.log(SIGMA_MAX / SIGMA_MIN)
DROPOUT: Final = 0.1
"""Of the graph's blocks, in training."""
_FREQUENCIES: Final = 256
_LONGEST: Final = 1e4
_EPS: Final = 1e-6
"""Of the layer norms in the gene transformer."""


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """Sizes of a published network.

    Parameters
    ----------
    genes, features
        Panel size, and length of a spot's feature vector.
    width, graph_blocks
        Of the graph transformer.
    head_width
        Of its attention: logits are divided by its root, and nothing else depends on heads.
    adaptive
        Whether time and what is known of the whole window scale and shift its norms.
    edge_conditions
        Known attributes of an edge that enter attention; 0 for none.
    gene_hidden
        Hidden width of the network that makes the spots' condition; 0 where there is no gene transformer.
    tokens, heads, blocks, mlp_ratio
        Size of the gene transformer.
    tap
        1-based block whose output is aligned.
    projector, target
        Hidden width of the alignment projector, and length of the vectors it is aligned to.
    """

    genes: int
    features: int
    width: int = 384
    graph_blocks: int = 6
    head_width: int = 48
    adaptive: bool = False
    edge_conditions: int = 0
    gene_hidden: int = 512
    tokens: int = 384
    heads: int = 6
    blocks: int = 12
    mlp_ratio: float = 4.0
    tap: int = 8
    projector: int = 2048
    target: int = 1152

    @classmethod
    def read(cls, published: Mapping[str, Any], *, gene_transformer: bool) -> "PublishedConfig":
        """Return the sizes that a published ``model_config`` states.

        Parameters
        ----------
        published
            As in the configuration files of the published code, with ``node_dim``.
        gene_transformer
            Whether it is FLAG, or the graph transformer alone.
        """
        graph = cls(
            genes=published["node_dim"],
            features=published["node_cond_dim"],
            width=published["d_model"],
            graph_blocks=published["n_layers"],
            head_width=published["d_model"] // published["n_heads"],
            adaptive=published["ada_norm"],
            edge_conditions=published["edge_cond_dim"] if published["use_cond_e_in_attn"] else 0,
            gene_hidden=0,
        )
        if not gene_transformer:  # whose sizes the configuration of a relative does not state
            return graph
        return replace(
            graph,
            gene_hidden=published["d_gene"],
            tokens=published["hidden_dim"],
            heads=published["num_heads"],
            blocks=published["dit_num_blocks"],
            mlp_ratio=published["mlp_ratio"],
            tap=published["encoder_layer"],
            projector=published["projector_dim"],
            target=published["z_dim"],
        )


def sigma_at(t: Tensor) -> Tensor:
    """Return the noise level σ(t) of times in [0, 1]."""
    return SIGMA_MIN * torch.exp(LOG_RATIO * t)


def fourier_features(t: Tensor, width: int) -> Tensor:
    """Return (b, width) features of (b,) times: all that the graph transformer alone knows of the time."""
    bands = torch.linspace(0, 6, width // 2, device=t.device).exp()
    angles = t[:, None] * bands * 2 * 3.14159  # as published, so that features agree to rounding
    return torch.cat([angles.sin(), angles.cos()], 1)


class AdaptiveNorm(nn.Module):
    """Layer norm over the last axis, scaled and shifted by a (b, condition) vector per window."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(condition, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (b, …, width) `x`, normed."""
        by_window = self.modulation(condition).view(len(x), *[1] * (x.dim() - 2), -1)
        scale, shift = by_window.chunk(2, dim=-1)
        out: Tensor = self.norm(x) * (1 + scale) + shift
        return out


class PlainNorm(nn.LayerNorm):
    """Layer norm that takes no notice of the window."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return `x`, normed."""
        return super().forward(x)


class GatedFeedForward(nn.Module):
    """Layer norm, then a feed-forward net of which half gates the other by GELU (GEGLU, Shazeer 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.open = nn.Linear(width, 4 * width)
        self.dropout = nn.Dropout(DROPOUT)
        self.close = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, width)."""
        value, gate = self.open(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = self.close(self.dropout(nn.functional.gelu(gate) * value))
        return out


class FeatureModulation(nn.Module):
    """What a pair of spots' features does to the logits, and a spot's features to what it gathers."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.scale_query, self.scale_key, self.shift_query, self.shift_key, self.scale_out, self.shift_out = (
            nn.Linear(features, width, bias=False) for _ in range(6)
        )


class EdgeModulation(nn.Module):
    """What known attributes of an edge do to its logits, and to what is written back to it."""

    def __init__(self, attributes: int, width: int) -> None:
        super().__init__()
        self.scale, self.shift, self.scale_out, self.shift_out = (
            nn.Linear(attributes, width, bias=False) for _ in range(4)
        )


class PublishedGraphBlock(nn.Module):
    """Edge-modulated attention over all spots of a window, edges updated from its logits.

    s_ij = (1 + m(e_ij) + α m'(a_ij) + β m''(f_i, f_j)) ⊙ q_i ⊙ k_j / √d
           + b(e_ij) + γ b'(a_ij) + δ b''(f_i, f_j),

    each channel a softmax of its own over j; e are learnt edges, a known attributes, f the spots' features.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        width = config.width
        self.scale = config.head_width**-0.5
        self.query, self.key, self.value, self.edge_scale, self.edge_shift = (
            nn.Linear(width, width, bias=False) for _ in range(5)
        )
        self.of_features = FeatureModulation(config.features, width)
        self.of_edges = EdgeModulation(config.edge_conditions, width) if config.edge_conditions else None
        self.alpha, self.beta, self.gamma, self.delta = (nn.Parameter(torch.tensor(0.1)) for _ in range(4))
        self.spot_out, self.edge_out = nn.Linear(width, width), nn.Linear(width, width)
        self.spot_feed, self.edge_feed = (GatedFeedForward(width) for _ in range(2))
        self.dropout = nn.Dropout(DROPOUT)
        self.window: nn.Sequential | None = None
        if config.adaptive:
            self.window = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width))
            self.pool_features = nn.Linear(config.features, width, bias=False)
            nn.init.zeros_(self.pool_features.weight)
            if config.edge_conditions:
                self.pool_edges = nn.Linear(config.edge_conditions, width, bias=False)
                nn.init.zeros_(self.pool_edges.weight)
        self.norm_spots, self.norm_edges, self.norm_spot_feed, self.norm_edge_feed = (
            AdaptiveNorm(width, width) if config.adaptive else PlainNorm(width) for _ in range(4)
        )

    def forward(
        self,
        x: Tensor,
        edges: Tensor,
        time: Tensor,
        features: Tensor,
        attributes: Tensor | None,
        present: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the updated spots (b, n, width) and edges (b, n, n, width).

        Parameters
        ----------
        x, edges
            As returned.
        time
            (b, width).
        features
            (b, n, features).
        attributes
            (b, n, n, attributes) of the edges, where the network knows them.
        present
            (b, n) bool, False for padding; None where there is none.
        """
        window = self._window(time, features, attributes, present)
        normed, normed_edges = self.norm_spots(x, window), self.norm_edges(edges, window)
        of = self.of_features
        scale = self.edge_scale(normed_edges) + self.beta * _pairs(
            of.scale_query(features), of.scale_key(features), torch.mul
        )
        shift = self.edge_shift(normed_edges) + self.delta * _pairs(
            of.shift_query(features), of.shift_key(features), torch.add
        )
        if self.of_edges is not None:
            scale = scale + self.alpha * self.of_edges.scale(attributes)
            shift = shift + self.gamma * self.of_edges.shift(attributes)
        similar = _pairs(self.query(normed), self.key(normed), torch.mul) * self.scale  # (b, n, n, width)
        similar = (1 + scale) * similar + shift
        seen = similar if present is None else similar.masked_fill(~present[:, None, :, None], -torch.inf)
        gathered = (seen.softmax(2) * self.value(normed)[:, None]).sum(2)  # (b, n, width)
        gathered = (1 + of.scale_out(features)) * gathered + of.shift_out(features)
        x = x + self.dropout(self.spot_out(gathered))
        written = similar
        if self.of_edges is not None:
            written = (1 + self.of_edges.scale_out(attributes)) * written + self.of_edges.shift_out(
                attributes
            )
        written = self.dropout(self.edge_out(written))
        x = x + self.spot_feed(self.norm_spot_feed(x, window))
        return x, edges + self.edge_feed(self.norm_edge_feed(edges + written, window))

    def _window(
        self, time: Tensor, features: Tensor, attributes: Tensor | None, present: Tensor | None
    ) -> Tensor | None:
        """Return the (b, width) condition of the norms: time, and means over the window's spots and edges."""
        if self.window is None:
            return None
        here = features.new_ones(features.shape[:2]) if present is None else present.to(features.dtype)
        both = here[:, :, None] * here[:, None]  # (b, n, n)
        spots = torch.einsum("bn,bnc->bc", here, self.pool_features(features)) / here.sum(1)[:, None]
        if attributes is None:
            known = torch.zeros_like(spots)
        else:
            pooled = torch.einsum("bnm,bnmc->bc", both, self.pool_edges(attributes))
            known = pooled / both.sum((1, 2))[:, None]
        out: Tensor = self.window(torch.cat([time, spots, known], 1))
        return out


def _pairs(of: Tensor, by: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return (b, n, n, width): row i of `of` combined with row j of `by`."""
    return combine(of[:, :, None], by[:, None])


class PublishedGraph(nn.Module):
    """The graph transformer over the spots of tissue windows, all of a window connected.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        genes, width = config.genes, config.width
        self.config = config
        self.spots_in, self.edges_in = (
            nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width)) for size in (genes, 1)
        )
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(PublishedGraphBlock(config) for _ in range(config.graph_blocks))
        self.spots_out, self.edges_out = (
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size)) for size in (genes, 1)
        )

    def forward(
        self,
        x: Tensor,
        edges: Tensor | None,
        time: Tensor,
        features: Tensor,
        attributes: Tensor | None = None,
        present: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return what it makes of spots, (b, n, G), and of edges, (b, n, n): symmetric, 0 on the diagonal.

        Parameters
        ----------
        x
            (b, n, G) noisy expression.
        edges
            (b, n, n) noisy edges, of which the diagonal is not looked at; None for none (all 0).
        time
            (b, width) features of the time.
        features, attributes, present
            As for `PublishedGraphBlock`; attributes are not looked at where the network does not know them.
        """
        b, n, _ = x.shape
        diagonal = torch.eye(n, dtype=torch.bool, device=x.device)
        noisy = x.new_zeros(b, n, n) if edges is None else edges.masked_fill(diagonal, 0)
        known = attributes if self.config.edge_conditions else None
        h, e, t = self.spots_in(x), self.edges_in(noisy[..., None]), self.time(time)
        for block in self.blocks:
            h, e = block(h, e, t, features, known, present)
        found = self.edges_out(e)[..., 0]
        return self.spots_out(h), ((found + found.transpose(1, 2)) / 2).masked_fill(diagonal, 0)


class SinusoidalTime(nn.Module):
    """Sinusoids of t, periods up to 10⁴, and a small network → (b, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Return embeddings of (b,) times."""
        half = _FREQUENCIES // 2
        bands = torch.exp(-math.log(_LONGEST) * torch.arange(half, device=t.device) / half)
        angles = t[:, None] * bands
        out: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], 1))
        return out


class PublishedFlag(nn.Module):
    """FLAG as published: the graph transformer's output is the condition of a transformer over genes.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        tokens = config.tokens
        self.graph = PublishedGraph(config)
        self.time = SinusoidalTime(tokens)
        self.condition = nn.Sequential(
            nn.Linear(config.genes, config.gene_hidden), nn.SiLU(), nn.Linear(config.gene_hidden, tokens)
        )
        self.name = nn.Parameter(torch.empty(config.genes, tokens))
        nn.init.kaiming_uniform_(self.name, a=math.sqrt(5))
        self.value = nn.Sequential(nn.Linear(1, tokens), nn.SiLU(), nn.Linear(tokens, tokens))
        self.blocks = nn.ModuleList(
            GeneBlock(tokens, config.heads, config.mlp_ratio, 0.0, eps=_EPS) for _ in range(config.blocks)
        )
        self.projector = nn.Sequential(
            nn.Linear(tokens, config.projector),
            nn.SiLU(),
            nn.Linear(config.projector, config.projector),
            nn.SiLU(),
            nn.Linear(config.projector, config.target),
        )
        self.final_norm = nn.LayerNorm(tokens, elementwise_affine=False, eps=_EPS)
        self.final_modulation = nn.Sequential(nn.SiLU(), zero_linear(tokens, 2 * tokens))
        self.final = zero_linear(tokens, 1)

    def forward(self, x: Tensor, t: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (n, G) score of noisy expression, and what is aligned, (n, G, target).

        Parameters
        ----------
        x
            (n, G) noisy log2(count + 1) of all spots of a window.
        t
            Time, a scalar in [`T_MIN`, 1].
        features
            (n, features).
        """
        out, tapped = self._transform(x, t, features)
        return out, self.projector(tapped)

    def score(self, x: Tensor, t: Tensor, features: Tensor) -> Tensor:
        """Return the (n, G) score alone."""
        return self._transform(x, t, features)[0]

    def under(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (n, G) score of noisy expression and the (n, G, tokens) tapped tokens.

        Parameters
        ----------
        x
            (n, G) noisy log2(count + 1).
        condition
            (n, tokens): time, and what `condition` makes of the graph transformer's output.
        """
        tokens = self.name + self.value(x[..., None])  # (n, G, tokens)
        tapped = tokens
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, condition)
            if number == self.config.tap:
                tapped = tokens
        shift, scale = self.final_modulation(condition)[:, None].chunk(2, dim=2)  # each (n, 1, tokens)
        out: Tensor = self.final(self.final_norm(tokens) * (1 + scale) + shift)[..., 0]
        return out, tapped

    def _transform(self, x: Tensor, t: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        time = self.time(t.view(1))  # (1, tokens)
        seen, _ = self.graph(x[None], None, time, features[None])
        return self.under(x, time + self.condition(seen[0]))  # (n, tokens)


State: TypeAlias = tuple[Tensor, ...]
"""What diffuses together: expression, and edges in the joint form."""
Scores: TypeAlias = Callable[[State, Tensor], State]
"""State and scalar time → score of each of its parts."""


def heun_in_time(
    score: Scores, state: State, steps: int, settle: Callable[[State], State] = lambda state: state
) -> Generator[int, None, State]:
    """Solve dx/dt = −½ g(t)² s(x, t) from t = 1 to `T_MIN` by Heun's method, then denoise (Tweedie).

    Steps are even in t, thus in ln σ; `samplers.heun` steps in σ.

    Parameters
    ----------
    score
        The network.
    state
        At t = 1: noise of standard deviation `SIGMA_MAX`.
    steps
        Two evaluations each, and one at the end.
    settle
        Applied after every step, as the joint form keeps its edges symmetric.

    Yields
    ------
    Number of evaluations made so far.
    """
    times = torch.linspace(1.0, T_MIN, steps + 1, device=state[0].device)
    for number in range(steps):
        here, there = times[number], times[number + 1]
        first = _drift(score, state, here)
        ahead = tuple(x + d * (there - here) for x, d in zip(state, first, strict=True))
        yield 2 * number + 1
        second = _drift(score, ahead, there)
        moved = zip(state, first, second, strict=True)
        state = settle(tuple(x + (a + b) / 2 * (there - here) for x, a, b in moved))
        yield 2 * number + 2
    end = times[-1]
    found = zip(state, score(state, end), strict=True)
    yield 2 * steps + 1
    return settle(tuple(x + sigma_at(end) ** 2 * s for x, s in found))


def _drift(score: Scores, state: State, t: Tensor) -> State:
    half = LOG_RATIO * sigma_at(t) ** 2  # ½ g²
    return tuple(-half * each for each in score(state, t))
