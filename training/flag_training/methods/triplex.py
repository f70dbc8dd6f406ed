"""Training of TRIPLEX (`napari_flag.methods.triplex`).

Targets are not smoothed over neighbouring spots, which would be measured as structure.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

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
from napari_flag.methods import triplex
from napari_flag.methods.blocks import start_at
from napari_flag.methods.triplex import BRANCHES, Layout, TriplexSizes
from napari_flag.progress import Steps


@dataclass(frozen=True, slots=True)
class Triplex:
    """Three branches, fused by cross-attention whose query is the spot in its slide.

    Parameters
    ----------
    width, heads, mlp_ratio, dropout
        Of all transformers.
    near_layers, slide_layers
        Depth of the branches of the surroundings and of the slide.
    distilled
        a: share of each branch's loss that pulls it to the fusion.
    training
        Steps (one slide each) and rates.
    """

    width: int
    heads: int
    mlp_ratio: float
    dropout: float
    near_layers: int
    slide_layers: int
    distilled: float
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train on whole slides."""
        sizes = sizes_of(self, TriplexSizes, cohort)
        network = made(lambda: triplex.Triplex(sizes), cohort, seed)
        start_at(mean_of(cohort), *network.read_outs())
        layouts = [Layout.of(slide.places) for slide in cohort.slides]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            y = expression_of(cohort.slides[at])
            found = network(cohort.features[at][view], layouts[at])
            total, a = F.mse_loss(found["fusion"], y), self.distilled
            for name in BRANCHES[1:]:
                near_fusion = F.mse_loss(found[name], found["fusion"].detach())
                total = total + (1 - a) * F.mse_loss(found[name], y) + a * near_fusion
            return total

        yield from descend(network, loss, self.training, seed, "TRIPLEX")
        return expected_by("triplex", network, cohort)
