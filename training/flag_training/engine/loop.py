"""The loop of one training stage: schedule, batches, objective, and early stopping on held-out slides."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from flag_training.engine.checkpointing import load_state, save_state
from flag_training.engine.devices import peak_memory_mb
from flag_training.engine.run_log import RunLog
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps


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
        Steps between validations on held-out slides; validations without improvement that end the stage.
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
    """Wraps a batch so that Fabric, which casts every number to half precision, leaves it as it is."""

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


class Stopper:
    """Keep the best parameters seen, and decide when to stop.

    Parameters
    ----------
    patience
        Validations without improvement that end the training.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._least = float("inf")
        self._since = 0
        self._best: dict[str, Any] | None = None

    @property
    def stopped(self) -> bool:
        """Whether the held-out loss has not fallen for long enough."""
        return 0 < self._patience <= self._since

    def see(self, loss: float, module: nn.Module) -> float:
        """Record the held-out `loss` of `module`, and return it."""
        self._since += 1
        if loss < self._least:
            self._least, self._since = loss, 0
            self._best = copy.deepcopy(module.state_dict())
        return loss

    def restore(self, module: nn.Module) -> None:
        """Give `module` the best parameters seen, if any was validated."""
        if self._best is not None:
            module.load_state_dict(self._best)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return {"least": self._least, "since": self._since, "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take all of it back."""
        self._least, self._since, self._best = state["least"], state["since"], state["best"]


def run_loop(
    objective: Objective[B],
    source: Source[B],
    schedule: Schedule,
    fabric: Fabric,
    keeping: Keeping,
    validate: Callable[[nn.Module], float] | None = None,
) -> Steps[nn.Module]:
    """Train `objective` and return the averaged parameters of its `learning`.

    Parameters
    ----------
    objective, source, schedule
        What is minimised, on what, and how.
    fabric
        Where.
    keeping
        State and logs.
    validate
        Loss of averaged parameters on held-out slides, for early stopping; the best are then returned.

    Yields
    ------
    A `Step` per batch; when a step of the optimiser is done its ``partial`` is the loss.

    Raises
    ------
    UserError
        When the state cannot be resumed, or the loss is no longer a number.
    """
    run = _Run(objective, source, schedule, fabric, keeping)
    try:
        yield from _take_steps(run, validate)
    finally:
        run.close()
    run.stopper.restore(run.averaged)
    return run.averaged


def _take_steps(run: "_Run[B]", validate: Callable[[nn.Module], float] | None) -> Steps[None]:
    schedule, keeping, fabric = run.schedule, run.keeping, run.fabric
    step = run.resume()
    while step < schedule.steps and not run.stopper.stopped:
        row = yield from run.take(step)
        step += 1
        last = step == schedule.steps
        if validate is not None and (last or step % schedule.check_every == 0):
            seen = fabric.broadcast(validate(run.averaged) if fabric.is_global_zero else 0.0)
            row["validation"] = run.stopper.see(seen, run.averaged)
        run.record(step, row)
        if last or run.stopper.stopped or step % keeping.every == 0:
            run.save(step)
        yield Step(schedule.stage, step, schedule.steps, "steps", partial=row["loss"])


class _Run(Generic[B]):
    """What changes while a stage runs."""

    def __init__(
        self,
        objective: Objective[B],
        source: Source[B],
        schedule: Schedule,
        fabric: Fabric,
        keeping: Keeping,
    ) -> None:
        self.source, self.schedule, self.fabric, self.keeping = source, schedule, fabric, keeping
        self.learning = objective.learning
        self.averaged = copy.deepcopy(objective.learning).to(fabric.device).requires_grad_(False)
        optimiser = torch.optim.AdamW(
            [p for p in objective.parameters() if p.requires_grad],
            lr=schedule.rate,
            weight_decay=schedule.decay,
        )
        self.objective, self.optimiser = fabric.setup(objective, optimiser)
        self.stopper = Stopper(schedule.patience)
        self.modules = {
            "learning": objective.learning,
            "helping": objective.helping,
            "averaged": self.averaged,
            "optimiser": optimiser,
            "precision": fabric.strategy.precision,  # the loss scale of 16-mixed
            "stopper": self.stopper,
        }
        self.names = ("loss", *objective.parts)
        self.per_epoch = math.ceil(source.batches / schedule.accumulate)
        self.started = self.epoch_started = time.perf_counter()
        self.spots = 0.0
        self.reader = ThreadPoolExecutor(1, "next batch")
        self.ahead: tuple[Draw, Future[B]] | None = None

    def resume(self) -> int:
        """Load the state, and return the step to resume at."""
        step = load_state(self.keeping.place, self.modules, self.keeping.settings, self.schedule.steps)
        self.started -= self.keeping.log.resume_after(step)
        return step

    def take(self, step: int) -> Steps[dict[str, float | None]]:
        """Take one step of the optimiser, and return its values for the log."""
        schedule = self.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate_at(step)
        self.objective.train()
        self.optimiser.zero_grad(set_to_none=True)
        draws = self._draws(step)
        losses = torch.zeros(len(self.names), device=self.fabric.device)
        following = [*draws[1:], self._draws(step + 1)[0]]
        for count, (draw, after) in enumerate(zip(draws, following, strict=True), start=1):
            batch = self._batch(draw, after)
            losses += self._add_gradients(draw, batch, 1 / len(draws), last=count == len(draws))
            if count < len(draws):
                yield Step(schedule.stage, step, schedule.steps, "steps")
        norm = self.fabric.clip_gradients(
            self.objective, self.optimiser, max_norm=schedule.clip, error_if_nonfinite=False
        )
        self.optimiser.step()
        update_average(self.averaged, self.learning, schedule.ema if step > 100 else schedule.early_ema)
        total = cast(Tensor, self.fabric.all_reduce(losses, reduce_op="sum"))
        values = dict(zip(self.names, total.tolist(), strict=True))
        _refuse_divergence(values["loss"], step)
        return values | {"learning_rate": schedule.rate_at(step), "gradient_norm": cast(Tensor, norm).item()}

    def _draws(self, step: int) -> list[Draw]:
        """Return the batches of a step, each with a key of its own."""
        epoch, group = divmod(step, self.per_epoch)
        first = group * self.schedule.accumulate
        numbers = range(first, min(first + self.schedule.accumulate, self.source.batches))
        return [
            Draw(
                epoch,
                number,
                self.schedule.seed * 10**6 + step + place * 10**12,
                self.fabric.global_rank,
                self.fabric.world_size,
            )
            for place, number in enumerate(numbers)
        ]

    def _batch(self, draw: Draw, after: Draw) -> B:
        """Return the batch of `draw`; that of the draw `after` it is read while this one is computed."""
        if self.ahead is not None and self.ahead[0] == draw:
            batch = self.ahead[1].result()
        else:
            batch = self.source.draw(draw)
        self.ahead = after, self.reader.submit(self.source.draw, after)
        return batch.to(self.fabric.device)

    def close(self) -> None:
        """End the reading of batches."""
        self.reader.shutdown(wait=True, cancel_futures=True)

    def _add_gradients(self, draw: Draw, batch: B, weight: float, *, last: bool) -> Tensor:
        """Add one batch's gradients; return this process's part of the loss and of its parts."""
        self.spots += batch.spots / batch.share
        torch.manual_seed(draw.key)  # dropout goes on as if never stopped
        with self.fabric.no_backward_sync(self.objective, enabled=not last):
            loss, parts = self.objective(Held(batch))
            # the processes' gradients are averaged, their shares add up
            self.fabric.backward(loss * (weight * batch.share * draw.processes))
        return torch.stack([loss.detach(), *(parts[name].detach() for name in self.names[1:])]) * (
            weight * batch.share
        )

    def record(self, step: int, row: dict[str, float | None]) -> None:
        """Write the logs of the step that made it `step`, and of the epoch that it ended."""
        now, device = time.perf_counter(), self.fabric.device
        epoch, rest = divmod(step, self.per_epoch)
        place: dict[str, float | None] = {"step": step, "epoch": epoch + (rest > 0)}
        self.keeping.log.step(place | row | {"seconds": round(now - self.started, 3)})
        if rest:
            return
        self.keeping.log.epoch(
            place
            | {
                "seconds": round(now - self.epoch_started, 3),
                "spots": round(self.spots),
                "peak_memory_mb": round(peak_memory_mb(device), 1),
            }
        )
        self.epoch_started, self.spots = now, 0.0

    def save(self, step: int) -> None:
        """Save the state, from the first process."""
        if self.fabric.is_global_zero:
            save_state(self.keeping.place, self.modules, self.keeping.settings, step)


@torch.no_grad()
def update_average(averaged: nn.Module, live: nn.Module, decay: float) -> None:
    """Move the exponential moving average of the parameters towards `live`."""
    for kept, new in zip(averaged.parameters(), live.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


def _refuse_divergence(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise UserError(
            f"Training diverged: at step {step + 1} the loss is not a number, so training cannot continue; "
            "lower the learning rate or clip in the config, or compute in 32 bits."
        )
