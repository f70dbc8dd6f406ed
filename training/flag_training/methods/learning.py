"""Training of the published baselines: one plain loop, and batches of whole slides.

Each is fitted to the same tile features as FLAG, so that tables compare methods and not encoders.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.engine.loop import update_average
from flag_training.methods.method import Fitted, pooled
from napari_flag.methods.drawn import DrawingNetwork, DrawingPredictor
from napari_flag.methods.expected import ExpectingNetwork, ExpectingPredictor
from napari_flag.progress import Step, Steps

Network = TypeVar("Network", bound=Any)


@dataclass(frozen=True, slots=True)
class Descent:
    """Values of one training with AdamW.

    Parameters
    ----------
    steps
        Optimiser steps.
    rate, decay
        Learning rate, constant as in the published code but for diffusion over windows, where it warms up and
        falls along a cosine (`window_training`); weight decay.
    clip
        Largest norm of a step's gradient; 0 leaves it be.
    ema
        Decay of the averaged weights that predict; 0 takes the last ones.
    """

    steps: int
    rate: float
    decay: float = 0.0
    clip: float = 0.0
    ema: float = 0.0


def descend(
    network: nn.Module, loss: Callable[[torch.Generator], Tensor], values: Descent, seed: int, name: str
) -> Steps[None]:
    """Minimise `loss`, and leave `network` in evaluation mode with the weights that predict.

    Parameters
    ----------
    network
        All that learns.
    loss
        Draws a batch from the generator and returns its loss.
    values
        Steps and rates.
    seed
        Keys the draws.
    name
        Whose training it is.
    """
    draws = torch.Generator().manual_seed(seed)
    averaged = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=values.rate, weight_decay=values.decay)
    network.train()
    for step in range(values.steps):
        found = loss(draws)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(found)
        if values.clip:
            nn.utils.clip_grad_norm_(network.parameters(), values.clip)
        optimiser.step()
        # early on the average follows closely, or it would keep the untrained weights
        update_average(averaged, network, min(values.ema, step / (step + 10)))
        yield Step(f"Training {name}", step + 1, values.steps, "steps", partial=found.item())
    network.load_state_dict(averaged.state_dict())
    network.eval()


def made(build: Callable[[], Network], cohort: Cohort, seed: int) -> Network:
    """Return the network that `build` makes under `seed`, features standardised over the training spots."""
    torch.manual_seed(seed)  # initial weights and dropout know no generator
    network = build()
    network.standard.measure(pooled(cohort)[0])
    return network


def mean_of(cohort: Cohort) -> Tensor:
    """Return the (G,) mean log2(count + 1) of the training spots."""
    return torch.from_numpy(pooled(cohort)[1]).mean(0)


def expected_by(method: str, network: ExpectingNetwork, cohort: Cohort) -> Fitted:
    """Return `network` as the weights of `method` that state an expectation."""
    return Fitted(method, network, ExpectingPredictor(network.eval(), cohort.genes))


def drawn_by(method: str, network: DrawingNetwork, cohort: Cohort) -> Fitted:
    """Return `network` as the weights of `method` that draw."""
    return Fitted(method, network, DrawingPredictor(network.eval(), cohort.genes))


def expression_of(slide: TrainingSlide) -> Tensor:
    """Return the (n, G) log2(count + 1) of `slide`."""
    return torch.from_numpy(slide.expression)


def draw_slide(cohort: Cohort, draws: torch.Generator) -> tuple[int, int]:
    """Draw a slide and one of its views."""
    views = cohort.features[0].shape[0]
    slide = int(torch.randint(len(cohort.slides), (1,), generator=draws))
    return slide, int(torch.randint(views, (1,), generator=draws))
