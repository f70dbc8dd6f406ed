"""Training of the published baselines: standardised features, and one plain loop.

Each is fitted to the same tile features as FLAG, so that tables compare methods and not encoders.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.engine.loop import update_average
from flag_training.methods.method import FloatArray
from napari_flag.progress import Step, Steps


@dataclass(frozen=True, slots=True)
class Descent:
    """Values of one training with AdamW.

    Parameters
    ----------
    steps
        Optimiser steps.
    rate, decay
        Learning rate, constant as in the published code; weight decay.
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


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and spread (d,) of every feature, or of every gene, over the training spots."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, values: FloatArray) -> "Standard":
        """Measure (n, d) `values`."""
        both = torch.from_numpy(values)
        return cls(both.mean(0), both.std(0, correction=0) + 1e-3)

    def __call__(self, values: Tensor) -> Tensor:
        """Standardise (..., d)."""
        return (values - self.mean) / self.spread

    def back(self, values: Tensor) -> Tensor:
        """Undo it."""
        return values * self.spread + self.mean


class Block(nn.Module):
    """Pre-LN self-attention and feed-forward net.

    Of our own, because PyTorch's layer returns NaN from its inference path under a mask of numbers.

    Parameters
    ----------
    width, heads, wide, dropout
        `wide` is the width within the feed-forward net.
    """

    def __init__(self, width: int, heads: int, wide: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, wide),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(wide, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return updated (b, t, width) `tokens`; `mask` is added to the (b, heads, t, t) logits."""
        b, t, width = tokens.shape
        parts = self.query_key_value(self.norm(tokens)).view(b, t, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=drop)
        tokens = tokens + self.drop(self.out(seen.transpose(1, 2).reshape(b, t, width)))
        out: Tensor = tokens + self.feed_forward(tokens)
        return out


def expression_of(slide: TrainingSlide) -> Tensor:
    """Return the (n, G) log2(count + 1) of `slide`."""
    return torch.from_numpy(slide.expression)


def draw_slide(cohort: Cohort, draws: torch.Generator) -> tuple[int, int]:
    """Draw a slide and one of its views."""
    views = cohort.features[0].shape[0]
    slide = int(torch.randint(len(cohort.slides), (1,), generator=draws))
    return slide, int(torch.randint(views, (1,), generator=draws))


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Return (b, width) cosines and sines of (b,) `values`, frequencies 1 down to 1e-4."""
    bands = torch.exp(torch.linspace(0, -np.log(1e4), width // 2))
    angles = values[:, None] * bands
    return torch.cat([angles.cos(), angles.sin()], 1)


def read_out_from(width: int, mean: Tensor) -> nn.Linear:
    """Return a linear head that starts at the (G,) training mean, so that no step is spent on it."""
    head = nn.Linear(width, len(mean))
    nn.init.normal_(head.weight, std=0.02)
    with torch.no_grad():
        head.bias.copy_(mean)
    return head
