"""Training of diffusion over tissue windows: alike for FLAG as published and its relatives.

Matched training is what their comparison needs, so that one loop (`engine.loop`) trains all of them, on
windows that PyTorch Geometric batches.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import MachineConfig
from flag_training.engine.devices import open_fabric
from flag_training.engine.loop import Draw, Keeping, Objective, Schedule, log_columns, run_loop
from flag_training.engine.run_log import RunLog
from flag_training.methods.learning import Descent
from flag_training.methods.method import pooled
from flag_training.methods.tissue_windows import Graph, TrainingWindows, batches, cut_windows, padded
from flag_training.methods.window_losses import Centre, NoisyWindows, correlations_of, held_out_loss
from napari_flag.methods.blocks import Standard
from napari_flag.methods.windowed import Scale, WindowNetwork
from napari_flag.progress import Steps

_WARM: Final = 50
_LEAST_SPREAD: Final = 1e-4
_LEAST_EDGE_SPREAD: Final = 1e-7
"""Of correlations, in single precision; published ones of 800 genes differ in the fifth to sixth digit."""


class Form(Protocol):
    """A method over windows, as its training sees it; a frozen dataclass of its values."""

    @property
    def name(self) -> str:
        """As tables name it."""
        ...

    @property
    def window_um(self) -> float:
        """Side of a window, µm."""
        ...

    @property
    def kernel_um(self) -> float:
        """Width of the kernel of distance, µm."""
        ...

    @property
    def batch(self) -> int:
        """Windows per step."""
        ...

    @property
    def training(self) -> Descent:
        """Steps and rates."""
        ...

    @property
    def correlated(self) -> Centre:
        """Which correlation its edges are."""
        ...

    def network(self, genes: int, features: int) -> WindowNetwork:
        """Return the network, untrained."""
        ...

    def objective(self, network: WindowNetwork, genes: Sequence[str]) -> Objective[NoisyWindows]:
        """Return what training minimises."""
        ...


def cut(form: Form, network: WindowNetwork, slide: TrainingSlide, view: Tensor) -> tuple[Graph, ...]:
    """Cut a slide under (n, d) raw features into the windows that `network` sees."""
    return cut_windows(slide, network.standard(view), form.window_um, form.kernel_um)


def windows_of(form: Form, network: WindowNetwork, cohort: Cohort) -> list[TrainingWindows]:
    """Return the windows of the first view of all slides, a slide at a time."""
    pairs = zip(cohort.slides, cohort.features, strict=True)
    found = [cut(form, network, slide, views[0]) for slide, views in pairs]
    return [padded(batch) for graphs in found for batch in batches(graphs, len(graphs))]


def untrained(form: Form, cohort: Cohort, seed: int) -> WindowNetwork:
    """Return the network of `form` with initial weights of `seed`, scaled by the spots of `cohort`."""
    torch.manual_seed(seed)  # initial weights know no generator
    features, expression = pooled(cohort)
    network = form.network(expression.shape[1], features.shape[1])
    if not isinstance(network.standard, Standard):
        return network
    network.standard.measure(features)
    values, least = torch.from_numpy(expression), torch.tensor(_LEAST_SPREAD)
    mean = values.mean(0)
    network.spots.measure(mean, (values - mean).std().maximum(least))
    if isinstance(edges := getattr(network, "edges", None), Scale):
        every = correlations_of(windows_of(form, network, cohort), form.correlated)
        if len(every) > 1:  # else each window has one spot
            edges.measure(every.mean(), every.std().clamp_min(_LEAST_EDGE_SPREAD))
    return network


class _Source:
    """Batches of windows in an order of each epoch's own, by PyTorch Geometric's loader."""

    def __init__(self, graphs: Sequence[Graph], together: int, seed: int) -> None:
        self._graphs, self._together, self._seed = graphs, together, seed
        self.batches = math.ceil(len(graphs) / together)
        self._at: tuple[int, int] | None = None

    def draw(self, draw: Draw) -> NoisyWindows:
        """Draw the windows of a batch, their times and noise."""
        if self._at is None or draw.number == 0 or self._at != (draw.epoch, draw.number):
            order = torch.Generator().manual_seed(self._seed * 10**6 + draw.epoch)
            self._loaded = iter(batches(self._graphs, self._together, order))
            for _ in range(draw.number):
                next(self._loaded)
        self._at = draw.epoch, draw.number + 1
        return NoisyWindows.draw(padded(next(self._loaded)), torch.Generator().manual_seed(draw.key))


def train(
    form: Form,
    cohort: Cohort,
    seed: int,
    folder: Path,
    held_out: Cohort | None = None,
    check_every: int = 50,
    settings: dict[str, Any] | None = None,
) -> Steps[WindowNetwork]:
    """Train a form on windows of all slides and views of `cohort`; goes on from the state in `folder`.

    Parameters
    ----------
    form
        With its values.
    cohort
        Training slides.
    seed
        Of initial weights, order, times and noise.
    folder
        Gets state and logs, one row per step.
    held_out
        Slides whose denoising loss of the spots is logged; the weights of its least value are kept.
    check_every
        Steps between these validations.
    settings
        Further values that must be the same for the training to go on.

    Returns
    -------
    The network, in evaluation mode.
    """
    network = untrained(form, cohort, seed)
    graphs = [
        graph
        for slide, views in zip(cohort.slides, cohort.features, strict=True)
        for view in views
        for graph in cut(form, network, slide, view)
    ]
    values = form.training
    schedule = Schedule(
        stage=f"Training {form.name}",
        steps=values.steps,
        rate=values.rate,
        decay=values.decay,
        warm=min(_WARM, values.steps // 10),
        clip=values.clip or math.inf,
        ema=values.ema,
        check_every=check_every,
        seed=seed,
    )
    slides = [slide.entry.name for slide in cohort.slides]
    same = {"form": form.name, **asdict(cast(Any, form)), "seed": seed, "slides": slides}
    same["genes"] = len(cohort.genes)
    held = windows_of(form, network, held_out) if held_out is not None else []
    validate: Callable[[nn.Module], float] | None = None
    if held:

        def validate(module: nn.Module) -> float:
            return float(held_out_loss(cast(WindowNetwork, module), held, form.correlated).mean())

    objective = form.objective(network, cohort.genes)
    with RunLog(folder, "train", log_columns(type(objective))) as log:
        keeping = Keeping(folder / "train.pt", 100, same | (settings or {}), log)
        trained = yield from run_loop(
            objective,
            _Source(graphs, form.batch, seed),
            schedule,
            open_fabric(MachineConfig()),
            keeping,
            validate,
        )
    return cast(WindowNetwork, trained.eval())
