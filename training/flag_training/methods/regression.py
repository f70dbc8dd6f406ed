"""The regression control, FLAG's "w/o diffusion": the spatial graph encoder with a linear read-out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import (
    Descent,
    Standard,
    descend,
    draw_slide,
    expression_of,
    read_out_from,
)
from flag_training.methods.method import FloatArray, Predictor, pooled
from napari_flag.model.graph import GraphTensors
from napari_flag.model.spatial_encoder import SpatialEncoder
from napari_flag.progress import Steps


class _Network(nn.Module):
    def __init__(self, features: int, values: "Regression", mean: Tensor) -> None:
        super().__init__()
        self.encoder = SpatialEncoder(features, values.width, values.heads, values.layers, values.dropout)
        self.read_out = read_out_from(values.width, mean)

    def forward(self, x: Tensor, graph: GraphTensors) -> Tensor:
        h = self.encoder(x, graph.neighbours, graph.present, graph.distance, graph.likeness)
        out: Tensor = self.read_out(h)
        return out


@dataclass(frozen=True, slots=True)
class Regression:
    """Graph encoder + linear head, mean squared error, one slide a step.

    Parameters
    ----------
    width, heads, layers, dropout
        Size of the graph encoder.
    training
        Steps and rates.
    """

    width: int
    heads: int
    layers: int
    dropout: float
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Train on whole slides, each step on one view of one."""
        torch.manual_seed(seed)  # initial weights and dropout know no generator
        features, expression = pooled(cohort)
        standard = Standard.of(features)
        network = _Network(features.shape[1], self, torch.from_numpy(expression).mean(0))
        graphs = [
            [_graph(slide, view) for view in views]
            for slide, views in zip(cohort.slides, cohort.features, strict=True)
        ]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            out = network(standard(cohort.features[at][view]), graphs[at][view])
            return nn.functional.mse_loss(out, expression_of(cohort.slides[at]))

        yield from descend(network, loss, self.training, seed, "the regression control")

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            raw = torch.from_numpy(features)
            with torch.inference_mode():
                found: FloatArray = network(standard(raw), _graph(slide, raw)).clamp_min(0).numpy()
            return found

        return predict


def _graph(slide: TrainingSlide, view: Tensor) -> GraphTensors:
    return GraphTensors.of(slide.graph(view.numpy()))
