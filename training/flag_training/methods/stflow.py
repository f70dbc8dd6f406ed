"""Training of STFlow (`napari_flag.methods.stflow`)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flag_training.cohort import Cohort
from flag_training.methods.learning import (
    Descent,
    descend,
    draw_slide,
    drawn_by,
    expression_of,
    made,
    mean_of,
)
from flag_training.methods.method import Fitted, sizes_of
from napari_flag.methods import stflow
from napari_flag.methods.blocks import start_at
from napari_flag.methods.stflow import LN2, Edges, StFlowSizes, starting_noise
from napari_flag.progress import Steps


@dataclass(frozen=True, slots=True)
class StFlow:
    """Flow matching with a spatial transformer over nearest spots.

    Parameters
    ----------
    width, heads, layers, dropout
        Of the denoiser.
    neighbours
        Nearest spots attended to.
    solver_steps, samples
        Euler steps; draws averaged for X.
    training
        Steps (one slide each) and rates.
    """

    width: int
    heads: int
    layers: int
    dropout: float
    neighbours: int
    solver_steps: int
    samples: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train on whole slides: mean squared error of the flow's end."""
        sizes = sizes_of(self, StFlowSizes, cohort)
        network = made(lambda: stflow.StFlow(sizes), cohort, seed)
        start_at(mean_of(cohort) * LN2, *network.read_outs())
        edges = [Edges.of(slide.places, self.neighbours) for slide in cohort.slides]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            end = expression_of(cohort.slides[at]) * LN2
            uniform = torch.rand(2, *end.shape, generator=draws).clamp_min(1e-12)
            start, time = starting_noise(uniform[0], uniform[1]), torch.rand(1, generator=draws).item()
            x = (1 - time) * start + time * end
            return F.mse_loss(network(x, time, cohort.features[at][view], edges[at]), end)

        yield from descend(network, loss, self.training, seed, "STFlow")
        return drawn_by("stflow", network, cohort)
