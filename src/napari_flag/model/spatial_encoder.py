"""Spot–spot context, encoded once per slide: H_spatial (FLAG, "Graph as a spatial encoder").

No noisy expression enters, so whatever the sampler does, this runs once.
"""

import torch
from torch import Tensor, nn

_RADII = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Centres, in array pitches, of the radial basis that describes an edge's length."""


class EdgeModulatedAttention(nn.Module):
    """Attention over a spot's neighbours whose logits and messages the edge attributes modulate.

    logit_ij = (1 + m_ij) q_i·k_j / √d + a_ij, message_ij = v_j ⊙ (1 + g_ij), with m, a, g from the
    edge's distance and likeness (after FLAG's edge-modulated attention, on a sparse graph).
    """

    def __init__(self, width: int, heads: int, edge_width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.edge = nn.Linear(edge_width, 3 * heads)
        self.out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.edge.weight)
        nn.init.zeros_(self.edge.bias)

    def forward(self, h: Tensor, neighbours: Tensor, present: Tensor, edges: Tensor) -> Tensor:
        """Return updated `h`.

        Parameters
        ----------
        h
            (n, width).
        neighbours, present
            (n, k) positions and mask; the spot itself is among them, so no row is empty.
        edges
            (n, k, edge_width).
        """
        n, k = neighbours.shape
        normed = self.norm(h)
        query = self.query(normed).view(n, 1, self.heads, -1)  # (n, 1, heads, width / heads)
        key, value = self.key_value(normed)[neighbours].view(n, k, 2, self.heads, -1).unbind(2)
        scale, shift, gate = self.edge(edges).view(n, k, 3, self.heads).unbind(2)  # each (n, k, heads)
        logits = (1 + scale) * (query * key).sum(-1) / key.shape[-1] ** 0.5 + shift  # (n, k, heads)
        weights = logits.masked_fill(~present[..., None], -torch.inf).softmax(1)
        message = (weights * (1 + gate))[..., None] * value  # (n, k, heads, width / heads)
        h = h + self.dropout(self.out(message.sum(1).flatten(1)))  # (n, width)
        out: Tensor = h + self.dropout(self.feed_forward(h))
        return out


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
    """

    def __init__(
        self, features: int, width: int = 128, heads: int = 4, layers: int = 2, dropout: float = 0.2
    ) -> None:
        super().__init__()
        edge_width = 16
        self.embed = nn.Sequential(nn.Dropout(min(0.8, 2 * dropout)), nn.Linear(features, width))
        self.embed_edge = nn.Sequential(nn.Linear(len(_RADII) + 2, edge_width), nn.SiLU())
        self.blocks = nn.ModuleList(
            EdgeModulatedAttention(width, heads, edge_width, dropout) for _ in range(layers)
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
            h = block(h, neighbours, present, edges)
        out: Tensor = self.norm(h)
        return out

    def _edges(self, distance: Tensor, likeness: Tensor) -> Tensor:
        basis = torch.exp(-4 * (distance[..., None] - self.radii) ** 2)  # (n, k, radii)
        own = (distance == 0).to(distance.dtype)  # (n, k), 1 for the spot itself
        edges: Tensor = self.embed_edge(torch.cat([basis, likeness[..., None], own[..., None]], -1))
        return edges
