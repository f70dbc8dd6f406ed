"""Methods that draw expression, and average draws for what they expect: Stem, STFlow, diffusion over windows.

A method is a `DrawingNetwork`; `DrawingPredictor` makes a `methods.predictor.Predictor` of it.  Its noise is
keyed by seed, draw and spot, so that neither chunks nor the order of spots change a draw; that of the draws
that are only averaged depends on the spot alone.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from napari_flag.methods.moments import AVERAGED, FloatArray, Moments, Sampler
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.graph import Places, SpotGraph
from napari_flag.model.samplers import SamplerSettings

Rows: TypeAlias = npt.NDArray[np.int64]


class Noise(Protocol):
    """Uniform numbers in (0, 1) of the b spots that are drawn, each purpose its own."""

    def __call__(self, what: str, width: int | None = None) -> npt.NDArray[np.float64]:
        """Return (b, width) numbers for `what`; None takes the panel's size."""
        ...


def normal(uniform: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    """Return the unit normal numbers that `uniform` ones stand for, on the device of `like`."""
    return torch.from_numpy(ndtri(uniform)).float().to(like.device)


class DrawingNetwork(nn.Module):
    """A network that draws the expression of spots.

    Parameters
    ----------
    config
        Its sizes, a dataclass: ``features``, ``solver_steps``, and ``samples`` that are averaged for X.
    genes
        Panel size.
    """

    solver: ClassVar[str]
    """Name of how it draws."""
    clamped_each: ClassVar[bool] = False
    """Whether each draw is raised to 0 before draws are averaged, and not only their mean."""

    def __init__(self, config: Any, genes: int) -> None:
        super().__init__()
        self.config, self.genes = config, genes

    def see(self, features: Tensor, places: Places) -> Any:
        """Return what every draw of a slide needs of it, from (n, d) raw features."""
        raise NotImplementedError

    def together(self, places: Places) -> Sequence[Rows] | None:
        """Return the rows of the spots that are drawn together; None where each is drawn for itself."""
        raise NotImplementedError

    def sample(self, seen: Any, rows: Rows, noise: Noise) -> Generator[float, None, Tensor]:
        """Draw the spots `rows`, all of one group: (b, G) log2(count + 1), not rounded, maybe below 0.

        Yields the share of the work done.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class DrawingPredictor:
    """A method that draws (a `methods.predictor.Predictor`).

    Parameters
    ----------
    network
        In evaluation mode.
    genes
        The panel, in the order of the network's outputs.
    """

    network: DrawingNetwork
    genes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device

    @property
    def sampler(self) -> Sampler | None:
        """As its weights fix it."""
        return Sampler(self.network.solver, self.network.config.solver_steps)

    @torch.inference_mode()
    def encode(self, features: FloatArray, graph: SpotGraph) -> "DrawnSlide":
        """Encode a slide once, from raw (n, d) float32 `features` and their `graph`."""
        places = graph.places
        seen = self.network.see(torch.from_numpy(features).to(self.device), places)
        groups = self.network.together(places)
        return DrawnSlide(self.network, seen, places, None if groups is None else tuple(groups))


@dataclass(frozen=True, slots=True, eq=False)
class DrawnSlide:
    """A slide of which draws are made (a `methods.predictor.EncodedSlide`).

    Parameters
    ----------
    network
        In evaluation mode.
    seen
        What `DrawingNetwork.see` returned.
    places
        Of all spots.
    groups
        Rows of the spots that are drawn together; None where each is drawn for itself.
    shift
        All counts are ``exp(shift)`` times as high as the network draws them.
    """

    network: DrawingNetwork
    seen: Any
    places: Places
    groups: tuple[Rows, ...] | None
    shift: float = 0.0
    _made: dict[tuple[Any, ...], FloatArray] = field(default_factory=dict, repr=False)
    """(group, purpose, seed, draw) → its spots, so that a chunk does not draw a group again."""

    def expectation(self, rows: Rows, ids: Sequence[str]) -> Generator[float, None, Moments]:
        """Average draws of the spots `rows` that are made for it; their spread is that of a measurement."""
        number = self.network.config.samples
        total = np.zeros((len(rows), self.network.genes))
        drawn = np.empty((number, len(rows), self.network.genes), np.float32)
        for draw in range(number):
            one = yield from _share(self._sampled(rows, ids, 0, draw, AVERAGED), draw, number)
            total += np.maximum(one, 0) if self.network.clamped_each else one
            drawn[draw] = as_counts(one)
        mean = np.maximum(total / number, 0).astype(np.float32)
        return Moments(mean, drawn.std(0) if number > 1 else None)  # draws are spread evenly

    def draw(
        self, rows: Rows, ids: Sequence[str], settings: SamplerSettings
    ) -> Generator[float, None, FloatArray]:
        """Draw (K, b, G) log2(count + 1) of the spots `rows`, rounded to counts."""
        drawn = []
        for place, number in enumerate(settings.numbers):
            drawing = self._sampled(rows, ids, settings.seed, number - 1, "")
            drawn.append(as_counts((yield from _share(drawing, place, settings.draws))))
        return np.stack(drawn)

    def total(self, rows: Rows, columns: npt.NDArray[np.int64]) -> float:
        """Return the expected total count of the genes `columns` in a spot, over the draws averaged for X."""
        ids = [self.places.names[row] for row in rows]
        totals = []
        for draw in range(self.network.config.samples):
            drawing = self._sampled(rows, ids, 0, draw, AVERAGED)
            while True:
                try:
                    next(drawing)
                except StopIteration as stop:
                    counts = np.exp2(np.maximum(stop.value, 0)[:, columns].astype(np.float64)) - 1
                    break
            totals.append(counts.sum(1).mean())
        return float(np.mean(totals))

    def shifted(self, shift: float) -> "DrawnSlide":
        """Return the slide with all its counts ``exp(shift)`` times as high."""
        return DrawnSlide(self.network, self.seen, self.places, self.groups, self.shift + shift, self._made)

    def _sampled(
        self, rows: Rows, ids: Sequence[str], seed: int, draw: int, purpose: str
    ) -> Generator[float, None, FloatArray]:
        """Draw the (b, G) log2(count + 1) of `rows`, not rounded; groups are drawn whole and kept."""
        if self.groups is None:
            return self._moved((yield from self._solved(rows, ids, seed, draw, purpose)))
        group, position = self._membership()
        touched = np.unique(group[rows])
        out = np.empty((len(rows), self.network.genes), np.float32)
        for place, number in enumerate(touched):
            key, members = (int(number), purpose, seed, draw), self.groups[number]
            if key not in self._made:
                names = [self.places.names[row] for row in members]
                work = self._solved(members, names, seed, draw, purpose)
                self._made[key] = yield from _share(work, place, len(touched))
            here = group[rows] == number
            out[here] = self._made[key][position[rows[here]]]
        return self._moved(out)

    @torch.inference_mode()
    def _solved(
        self, rows: Rows, ids: Sequence[str], seed: int, draw: int, purpose: str
    ) -> Generator[float, None, FloatArray]:
        def noise(what: str, width: int | None = None) -> npt.NDArray[np.float64]:
            return keyed_uniforms(seed, draw, ids, width or self.network.genes, f"{purpose}{what}")

        drawn = yield from self.network.sample(self.seen, rows, noise)
        found: FloatArray = drawn.float().cpu().numpy()
        return found

    def _membership(self) -> tuple[Rows, Rows]:
        """Return the group of each spot, and its position in the group."""
        assert self.groups is not None
        group, position = np.empty(len(self.places), np.int64), np.empty(len(self.places), np.int64)
        for number, members in enumerate(self.groups):
            group[members], position[members] = number, np.arange(len(members))
        return group, position

    def _moved(self, drawn: FloatArray) -> FloatArray:
        if not self.shift:
            return drawn
        counts = (np.exp2(np.maximum(drawn, 0).astype(np.float64)) - 1) * np.exp(self.shift)
        moved: FloatArray = np.log2(counts + 1).astype(np.float32)
        return moved


def as_counts(drawn: FloatArray) -> FloatArray:
    """Return log2(count + 1) of the nearest counts."""
    counts = np.rint(np.exp2(np.maximum(drawn, 0).astype(np.float64)) - 1)
    found: FloatArray = np.log2(counts + 1).astype(np.float32)
    return found


def _share(
    work: Generator[float, None, FloatArray], place: int, number: int
) -> Generator[float, None, FloatArray]:
    """Count `work` as one of `number` parts of equal length, after `place` others."""
    while True:
        try:
            yield (place + next(work)) / number
        except StopIteration as stop:
            found: FloatArray = stop.value
            return found
