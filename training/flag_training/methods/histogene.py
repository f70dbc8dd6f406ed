"""Training of HisToGene (`napari_flag.methods.histogene`)."""

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
from napari_flag.methods import histogene
from napari_flag.methods.blocks import start_at
from napari_flag.methods.histogene import HisToGeneSizes
from napari_flag.progress import Steps


@dataclass(frozen=True, slots=True)
class HisToGene:
    """Transformer over all spots of a section, with learned tables of array positions.

    Parameters
    ----------
    width, layers, heads, mlp_width, dropout
        Of the transformer.
    positions
        Length of the tables; every array index must lie below it.
    training
        Steps (one section each) and rates.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    dropout: float
    positions: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train section by section on the mean squared error."""
        sizes = sizes_of(self, HisToGeneSizes, cohort)
        network = made(lambda: histogene.HisToGene(sizes), cohort, seed)
        start_at(mean_of(cohort), network.read_out)
        places = [network.positions(slide.places) for slide in cohort.slides]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            out = network(cohort.features[at][view], places[at])
            return nn.functional.mse_loss(out, expression_of(cohort.slides[at]))

        yield from descend(network, loss, self.training, seed, "HisToGene")
        return expected_by("histogene", network, cohort)
