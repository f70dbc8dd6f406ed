"""What a stage of training is made of: a schedule, an objective, batches, and where states are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from flag_training.run_log import RunLog


@dataclass(frozen=True, slots=True)
class Schedule:
    """Values of one stage of training.

    Parameters
    ----------
    stage
        What the stage is doing, as progress says it.
    steps, rate, decay
        Of AdamW: steps of the optimiser, learning rate, weight decay.
    warm
        Steps of linear warm-up; a cosine then falls to 0 at `steps`.
    accumulate
        Batches per step.  The last step of an epoch takes those that are left.
    clip
        Largest norm of a step's gradient.
    ema, early_ema
        Decay of the averaged parameters; `early_ema` in the first 100 steps.
    check_every, patience
        Steps between looks at held-out slides; looks without improvement that end the stage.
    seed
        Keys every draw.
    """

    stage: str
    steps: int
    rate: float
    decay: float
    warm: int
    accumulate: int = 1
    clip: float = 1.0
    ema: float = 0.995
    early_ema: float = 0.9
    check_every: int = 50
    patience: int = 0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Return the learning rate of `step`."""
        cosine = 0.5 * (1 + np.cos(np.pi * step / self.steps))
        return float(self.rate * min(1.0, (step + 1) / max(1, self.warm)) * cosine)


@dataclass(frozen=True, slots=True)
class Draw:
    """Which batch to draw.

    Parameters
    ----------
    epoch, number
        The epoch, and the batch within it.
    key
        Seeds all that is random in the batch; the same in every process.
    process, processes
        The share of the batch this process takes.
    """

    epoch: int
    number: int
    key: int
    process: int
    processes: int


class Batch(Protocol):
    """One process's share of a batch."""

    @property
    def share(self) -> float:
        """Share of the whole batch, in (0, 1]."""

    @property
    def spots(self) -> int:
        """Spots whose loss is computed here."""

    def to(self, device: torch.device) -> Self:
        """Return it on `device`."""


B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


class Source(Protocol[B_co]):
    """Where batches come from."""

    @property
    def batches(self) -> int:
        """Batches in an epoch."""

    def draw(self, draw: Draw) -> B_co:
        """Draw one, on the CPU."""


class Held(Generic[B]):
    """Carries a batch past Fabric, which would turn every number it finds into half precision."""

    __slots__ = ("batch",)

    def __init__(self, batch: B) -> None:
        self.batch = batch


class Objective(nn.Module, Generic[B]):
    """What a stage minimises: ``forward(held)`` gives the loss, and its `parts` as the log names them.

    Parameters
    ----------
    learning
        What is trained and averaged.
    helping
        What is trained along and then dropped.
    """

    parts: ClassVar[tuple[str, ...]]

    def __init__(self, learning: nn.Module, helping: nn.Module) -> None:
        super().__init__()
        self.learning = learning
        self.helping = helping

    def forward(self, held: Held[B]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss over the share of a batch, and its parts."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a stage keeps its state.

    Parameters
    ----------
    place, every
        File, and the steps between states.
    settings
        Values that must be the same when the stage goes on.
    log
        Its CSV files.
    """

    place: Path
    every: int
    settings: Mapping[str, Any]
    log: RunLog


def log_columns(objective: type[Objective[Any]]) -> tuple[str, ...]:
    """Return the columns of the log of a stage with this objective."""
    return (
        "step", "epoch", "loss", *objective.parts, "validation", "learning_rate", "gradient_norm", "seconds",
    )  # fmt: skip
