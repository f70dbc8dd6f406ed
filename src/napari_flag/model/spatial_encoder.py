"""Spot–spot context, encoded once per slide: H_spatial (FLAG, "Graph as a spatial encoder").

No noisy expression enters, so whatever the sampler does, this runs once.
"""

from typing import Final

import torch
from torch import Tensor, nn

_RADII: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Centres, in array pitches, of the radial basis that describes an edge's length."""
_ROWS: Final = 1024
"""Spots whose neighbours are gathered at once where no gradient is asked for: memory stays bounded."""


def _blocks(spots: int) -> list[slice]:
    """Return the rows of so many spots, in blocks; in one where gradients need all of them anyway."""
    size = max(spots, 1) if torch.is_grad_enabled() else _ROWS
    return [slice(start, min(start + size, spots)) for start in range(0, max(spots, 1), size)]


class EdgeModulatedAttention(nn.Module):
    """Attention over a spot's neighbours whose logits and messages the edge attributes modulate.

    logit_ij = (1 + m_ij) q_i·k_j / √d + a_ij, message_ij = v_j ⊙ (1 + g_ij), with m, a, g from the
    edge's distance and likeness (after FLAG's edge-modulated attention, on a sparse graph).  Edges stay as
    they are, in the `last` block and before.
    """

    def __init__(self, width: int, heads: int, edge_width: int, dropout: float, *, last: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.edge = nn.Linear(edge_width, 3 * heads)
        self.out = nn.Linear(width, width)
        self.feed_forward = _feed_forward(width, dropout)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.edge.weight)
        nn.init.zeros_(self.edge.bias)

    def forward(self, h: Tensor, neighbours: Tensor, present: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Return updated `h`, and the edges as they are.

        Parameters
        ----------
        h
            (n, width).
        neighbours, present
            (n, k) positions and mask; the spot itself is among them, so no row is empty.
        edges
            (n, k, edge_width).
        """
        normed = self.norm(h)
        query, key_value = self.query(normed), self.key_value(normed)  # (n, width), (n, 2 width)
        updated = [
            self._update(h[rows], query[rows], key_value[neighbours[rows]], present[rows], edges[rows])
            for rows in _blocks(len(h))
        ]
        return torch.cat(updated), edges

    def _update(self, h: Tensor, query: Tensor, seen: Tensor, present: Tensor, edges: Tensor) -> Tensor:
        """Return (b, width) of some spots from the (b, k, 2 width) keys and values of their neighbours."""
        n, k = present.shape
        query = query.view(n, 1, self.heads, -1)  # (b, 1, heads, width / heads)
        key, value = seen.view(n, k, 2, self.heads, -1).unbind(2)
        scale, shift, gate = self.edge(edges).view(n, k, 3, self.heads).unbind(2)  # each (b, k, heads)
        logits = (1 + scale) * (query * key).sum(-1) / key.shape[-1] ** 0.5 + shift  # (b, k, heads)
        weights = logits.masked_fill(~present[..., None], -torch.inf).softmax(1)
        message = (weights * (1 + gate))[..., None] * value  # (b, k, heads, width / heads)
        h = h + self.dropout(self.out(message.sum(1).flatten(1)))  # (b, width)
        updated: Tensor = h + self.dropout(self.feed_forward(h))
        return updated


class ChannelwiseAttention(nn.Module):
    """FLAG's edge-modulated attention as published, on a sparse graph: weights per channel, edges that learn.

    s_ij = (1 + m_ij) ⊙ (q_i ⊙ k_j) / √d + a_ij with m and a linear in the edge, each channel a softmax of its
    own over the neighbours; message Σ_j softmax(s)_ij ⊙ v_j; and e_ij ← e_ij + W s_ij, then a feed-forward
    net on it, so that the next block sees what this one made of the edge.  The published network is dense and
    is given the noisy expression; this one sees neighbours only, once.

    Parameters
    ----------
    width, heads, dropout
        Of the spots; d is the width of a head.
    edge_width
        Of the edges.
    last
        Whether no block follows, for which edges would have to learn.
    """

    def __init__(self, width: int, heads: int, edge_width: int, dropout: float, *, last: bool) -> None:
        super().__init__()
        self.scale = (width // heads) ** -0.5
        self.norm, self.edge_norm = nn.LayerNorm(width), nn.LayerNorm(edge_width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.modulation = nn.Linear(edge_width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = _feed_forward(width, dropout)
        self.dropout = nn.Dropout(dropout)
        self.edge_out = None if last else nn.Linear(width, edge_width)
        self.edge_feed_forward = None if last else _feed_forward(edge_width, 0)
        for layer in (self.modulation, self.edge_out):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor, neighbours: Tensor, present: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Return updated `h` (n, width) and `edges` (n, k, edge_width); shapes as in the other attention."""
        normed = self.norm(h)
        query, key_value = self.query(normed), self.key_value(normed)  # (n, width), (n, 2 width)
        updated = [
            self._update(h[rows], query[rows], key_value[neighbours[rows]], present[rows], edges[rows])
            for rows in _blocks(len(h))
        ]
        return torch.cat([spots for spots, _ in updated]), torch.cat([changed for _, changed in updated])

    def _update(
        self, h: Tensor, query: Tensor, seen: Tensor, present: Tensor, edges: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (b, width) and (b, k, edge_width) of some spots, as in the other attention."""
        key, value = seen.chunk(2, dim=2)  # each (b, k, width)
        scale, shift = self.modulation(self.edge_norm(edges)).chunk(2, dim=2)
        similar = (1 + scale) * query[:, None] * key * self.scale + shift  # (b, k, width)
        weights = similar.masked_fill(~present[..., None], -torch.inf).softmax(1)
        h = h + self.dropout(self.out((weights * value).sum(1)))
        h = h + self.dropout(self.feed_forward(h))
        if self.edge_out is None or self.edge_feed_forward is None:
            return h, edges
        edges = edges + self.edge_out(similar)
        return h, edges + self.edge_feed_forward(edges)


def _feed_forward(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 2 * width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(2 * width, width),
    )


ATTENTIONS: Final = {"heads": EdgeModulatedAttention, "channels": ChannelwiseAttention}
"""By the name in `FlagConfig.attention`."""


class SpatialEncoder(nn.Module):
    """Features + graph → H_spatial.

    Parameters
    ----------
    features
        Width of the (standardised) tile features.
    width, heads, layers
        Size of the attention stack.
    dropout
        Within blocks; on the input features it is twice as strong.
    attention
        A name of `ATTENTIONS`.
    """

    def __init__(
        self,
        features: int,
        width: int = 128,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.2,
        attention: str = "heads",
    ) -> None:
        super().__init__()
        edge_width = 16
        self.embed = nn.Sequential(nn.Dropout(min(0.8, 2 * dropout)), nn.Linear(features, width))
        self.embed_edge = nn.Sequential(nn.Linear(len(_RADII) + 2, edge_width), nn.SiLU())
        self.blocks = nn.ModuleList(
            ATTENTIONS[attention](width, heads, edge_width, dropout, last=layer == layers - 1)
            for layer in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.register_buffer("radii", torch.tensor(_RADII), persistent=False)
        self.radii: Tensor

    def forward(
        self,
        features: Tensor,
        neighbours: Tensor,
        present: Tensor,
        distance: Tensor,
        likeness: Tensor,
    ) -> Tensor:
        """Return H_spatial (n, width) of one slide, or of several concatenated.

        Parameters
        ----------
        features
            (n, features) float, standardised.
        neighbours, present, distance, likeness
            (n, k) as in `SpotGraph`.
        """
        own = torch.arange(len(features), device=features.device)[:, None]  # (n, 1)
        neighbours = torch.cat([own, neighbours], 1)  # (n, 1 + k), as all below
        present = torch.cat([torch.ones_like(own, dtype=torch.bool), present], 1)
        edges = self._edges(
            torch.cat([torch.zeros_like(own, dtype=distance.dtype), distance], 1),
            torch.cat([torch.ones_like(own, dtype=likeness.dtype), likeness], 1),
        )
        h = self.embed(features)  # (n, width)
        for block in self.blocks:
            h, edges = block(h, neighbours, present, edges)
        out: Tensor = self.norm(h)
        return out

    def _edges(self, distance: Tensor, likeness: Tensor) -> Tensor:
        basis = torch.exp(-4 * (distance[..., None] - self.radii) ** 2)  # (n, k, radii)
        own = (distance == 0).to(distance.dtype)  # (n, k), 1 for the spot itself
        edges: Tensor = self.embed_edge(torch.cat([basis, likeness[..., None], own[..., None]], -1))
        return edges
