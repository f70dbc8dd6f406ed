"""HisToGene (Pang et al. 2021): a whole section as one sequence of a vision transformer.

The pixels of a patch give way to the tile's features, as TRIPLEX's authors do when they compare with it.  The
learned position tables stay: this is the one method here that knows where on the array a spot lies, and its
figures are to be read with that in mind.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_flag.errors import UserError
from napari_flag.methods.blocks import Block, Standard, small_read_out
from napari_flag.methods.expected import ExpectingNetwork
from napari_flag.model.graph import Places, SpotGraph


@dataclass(frozen=True, slots=True)
class HisToGeneSizes:
    """Sizes of HisToGene.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    width, layers, heads, mlp_width, dropout
        Of the transformer.
    positions
        Length of the tables; every array index must lie below it.
    """

    features: int
    genes: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    dropout: float
    positions: int


class HisToGene(ExpectingNetwork):
    """Transformer over all spots of a section, with learned tables of array positions."""

    def __init__(self, config: HisToGeneSizes) -> None:
        super().__init__(config)
        width = config.width
        self.standard = Standard(config.features)
        self.embed = nn.Linear(config.features, width)
        self.row, self.column = (nn.Embedding(config.positions, width) for _ in range(2))
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            Block(width, config.heads, config.mlp_width, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.read_out = small_read_out(width, config.genes)

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """(n, d) raw features, (n, 2) `positions` of one section → (n, G)."""
        x = self.embed(self.standard(features))
        h = self.drop(x + self.row(places[:, 0]) + self.column(places[:, 1]))[None]
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.read_out(self.norm(h))[0]
        return out

    def positions(self, places: Places) -> Tensor:
        """Return the (n, 2) rows of the tables that stand for `places`.

        Raises
        ------
        UserError
            When the section spans more array positions than the tables have.
        """
        grid, most = torch.from_numpy(places.grid), self.config.positions
        if int(grid.max()) >= most:
            raise UserError(
                f"HisToGene has tables for {most} array positions, but the section spans "
                f"{int(grid.max()) + 1}; set positions higher in its config and train it, or choose other "
                "weights."
            )
        return grid.to(self.embed.weight.device)

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return the transformer's read-out."""
        out: Tensor = self(features, self.positions(graph.places))
        return out
