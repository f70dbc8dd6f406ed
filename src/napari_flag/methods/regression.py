"""The regression control, FLAG's "w/o diffusion": the spatial graph encoder with a linear read-out."""

from dataclasses import dataclass

from torch import Tensor

from napari_flag.methods.blocks import Standard, small_read_out
from napari_flag.methods.expected import ExpectingNetwork
from napari_flag.model.graph import GraphTensors, SpotGraph
from napari_flag.model.spatial_encoder import SpatialEncoder


@dataclass(frozen=True, slots=True)
class RegressionSizes:
    """Sizes of the regression control.

    Parameters
    ----------
    features, genes
        Length of a feature vector; panel size.
    width, heads, layers, dropout
        Size of the graph encoder.
    """

    features: int
    genes: int
    width: int
    heads: int
    layers: int
    dropout: float


class Regression(ExpectingNetwork):
    """Graph encoder + linear head."""

    def __init__(self, config: RegressionSizes) -> None:
        super().__init__(config)
        self.standard = Standard(config.features)
        self.encoder = SpatialEncoder(
            config.features, config.width, config.heads, config.layers, config.dropout
        )
        self.read_out = small_read_out(config.width, config.genes)

    def forward(self, features: Tensor, graph: GraphTensors) -> Tensor:
        """(n, d) raw features → (n, G)."""
        x = self.standard(features)
        h = self.encoder(x, graph.neighbours, graph.present, graph.distance, graph.likeness)
        out: Tensor = self.read_out(h)
        return out

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return the read-out."""
        out: Tensor = self(features, GraphTensors.of(graph, device=features.device))
        return out
