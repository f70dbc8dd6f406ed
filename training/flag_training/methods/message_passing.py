"""The published graph transformer by message passing of PyTorch Geometric, over lists of edges.

A twin of `model.published.PublishedGraph` with the same parameters under the same names: what the padded form
computes is held equal to it, and both are timed by ``benchmarks/window_attention.py``.  Importing this module
needs PyTorch Geometric.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import scatter, softmax

from napari_flag.model.published import AdaptiveNorm, PublishedConfig, PublishedGraph, PublishedGraphBlock


class _Gather(MessagePassing):  # type: ignore[misc]  # the package has no types
    """Sum of the values of a spot's neighbours, each channel weighted by a softmax of its own."""

    def __init__(self) -> None:
        super().__init__(aggr="add", flow="target_to_source")  # edge (i, j): i gathers from j

    def forward(self, value: Tensor, similar: Tensor, edge_index: Tensor) -> Tensor:
        """(n, width) values, (E, width) logits → (n, width)."""
        found: Tensor = self.propagate(edge_index, value=value, similar=similar)
        return found

    def message(self, value_j: Tensor, similar: Tensor, index: Tensor, size_i: int) -> Tensor:
        """Return what each edge brings."""
        weighted: Tensor = softmax(similar, index, num_nodes=size_i) * value_j
        return weighted


class MessagePassingBlock(PublishedGraphBlock):
    """`PublishedGraphBlock` over lists of edges."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__(config)
        self.gather = _Gather()  # has no parameters

    def pass_messages(
        self,
        x: Tensor,
        edges: Tensor,
        time: Tensor,
        features: Tensor,
        attributes: Tensor | None,
        edge_index: Tensor,
        of: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the updated spots (n, width) and edges (E, width).

        Parameters
        ----------
        x, edges
            As returned.
        time
            (b, width) of each window.
        features
            (n, features).
        attributes
            (E, attributes) of the edges, where the network knows them.
        edge_index
            (2, E): spots i and j of edge (i, j).
        of
            (n,) window of each spot.
        """
        i, j = edge_index
        window = self._conditions(time, features, attributes, of, of[i])
        normed = _normed(self.norm_spots, x, window, of)
        normed_edges = _normed(self.norm_edges, edges, window, of[i])
        known = self.of_features
        scale = self.edge_scale(normed_edges) + self.beta * (
            known.scale_query(features)[i] * known.scale_key(features)[j]
        )
        shift = self.edge_shift(normed_edges) + self.delta * (
            known.shift_query(features)[i] + known.shift_key(features)[j]
        )
        if self.of_edges is not None:
            scale = scale + self.alpha * self.of_edges.scale(attributes)
            shift = shift + self.gamma * self.of_edges.shift(attributes)
        similar = (1 + scale) * (self.query(normed)[i] * self.key(normed)[j] * self.scale) + shift
        gathered = self.gather(self.value(normed), similar, edge_index)
        gathered = (1 + known.scale_out(features)) * gathered + known.shift_out(features)
        x = x + self.dropout(self.spot_out(gathered))
        written = similar
        if self.of_edges is not None:
            written = (1 + self.of_edges.scale_out(attributes)) * written
            written = written + self.of_edges.shift_out(attributes)
        written = edges + self.dropout(self.edge_out(written))
        x = x + self.spot_feed(_normed(self.norm_spot_feed, x, window, of))
        return x, edges + self.edge_feed(_normed(self.norm_edge_feed, written, window, of[i]))

    def _conditions(
        self, time: Tensor, features: Tensor, attributes: Tensor | None, of: Tensor, of_edge: Tensor
    ) -> Tensor | None:
        if self.window is None:
            return None
        spots = scatter(self.pool_features(features), of, dim_size=len(time), reduce="mean")
        known = torch.zeros_like(spots)
        if attributes is not None:
            known = scatter(self.pool_edges(attributes), of_edge, dim_size=len(time), reduce="mean")
        out: Tensor = self.window(torch.cat([time, spots, known], 1))
        return out


def _normed(norm: nn.Module, x: Tensor, window: Tensor | None, of: Tensor) -> Tensor:
    """Return (m, width) `x`, normed under the condition of each row's window."""
    if not isinstance(norm, AdaptiveNorm):
        return cast(Tensor, norm(x))
    scale, shift = norm.modulation(window).chunk(2, dim=-1)
    return cast(Tensor, norm.norm(x) * (1 + scale[of]) + shift[of])


class MessagePassingGraph(PublishedGraph):
    """`PublishedGraph` over lists of edges.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(MessagePassingBlock(config) for _ in range(config.graph_blocks))

    def pass_messages(
        self, x: Tensor, edges: Tensor | None, time: Tensor, batch: Any
    ) -> tuple[Tensor, Tensor]:
        """Return what it makes of spots, (n, G), and of edges, (E,): symmetric, 0 on the diagonal.

        Parameters
        ----------
        x
            (n, G) noisy expression.
        edges
            (E,) noisy edges, or None for none.
        time
            (b, width) features of each window's time.
        batch
            Windows as `tissue_windows.batches` yields them.
        """
        i, j = batch.edge_index
        noisy = x.new_zeros(len(i)) if edges is None else edges.masked_fill(i == j, 0)
        known = batch.edge_attr if self.config.edge_conditions else None
        h, e, t = self.spots_in(x), self.edges_in(noisy[:, None]), self.time(time)
        for block in self.blocks:
            assert isinstance(block, MessagePassingBlock)
            h, e = block.pass_messages(h, e, t, batch.x, known, batch.edge_index, batch.batch)
        found = self.edges_out(e)[:, 0]
        back = (j * len(x) + i).argsort()  # edges are listed by i, then j: where (j, i) is
        return self.spots_out(h), ((found + found[back]) / 2).masked_fill(i == j, 0)
