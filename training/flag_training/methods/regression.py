"""Training of the regression control (`napari_flag.methods.regression`)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort
from flag_training.methods.learning import (
    Descent,
    descend,
    draw_slide,
    expected_by,
    expression_of,
    made,
    mean_of,
)
from flag_training.methods.method import Fitted, sizes_of
from napari_flag.methods import regression
from napari_flag.methods.blocks import start_at
from napari_flag.methods.regression import RegressionSizes
from napari_flag.model.graph import GraphTensors
from napari_flag.progress import Steps


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

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train on whole slides, each step on one view of one."""
        sizes = sizes_of(self, RegressionSizes, cohort)
        network = made(lambda: regression.Regression(sizes), cohort, seed)
        start_at(mean_of(cohort), network.read_out)
        graphs = [
            [GraphTensors.of(slide.graph(view.numpy())) for view in views]
            for slide, views in zip(cohort.slides, cohort.features, strict=True)
        ]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            out = network(cohort.features[at][view], graphs[at][view])
            return nn.functional.mse_loss(out, expression_of(cohort.slides[at]))

        yield from descend(network, loss, self.training, seed, "the regression control")
        return expected_by("regression", network, cohort)
