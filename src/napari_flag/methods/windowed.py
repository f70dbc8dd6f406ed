"""Diffusion over tissue windows: squares of a slide in which every spot is connected with every other.

Three methods draw so: FLAG as published (`methods.published`) and, here, its two relatives.  *Node-only*
diffusion denoises the expression of the spots by the graph transformer of `model.published`; *joint*
diffusion denoises the correlation of every two spots along with it.  All solve the variance-exploding process
there by Heun's method.  Training calls the very networks, on windows padded to the largest of a batch.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Final, NamedTuple, Self

import torch
from torch import Tensor, nn

from napari_flag.formatting import counted, length
from napari_flag.methods.blocks import Standard
from napari_flag.methods.drawn import DrawingNetwork, Noise, Rows, normal
from napari_flag.model.graph import Places
from napari_flag.model.published import (
    SIGMA_MAX,
    PublishedConfig,
    PublishedGraph,
    State,
    fourier_features,
    heun_in_time,
    sigma_at,
)
from napari_flag.scratch import refuse_beyond_memory

_PER_PAIR: Final = 70
"""Bytes that attention takes at its peak per pair of spots and unit of width, measured."""


@dataclass(frozen=True, slots=True)
class WindowSizes:
    """Sizes of a network over tissue windows.

    Parameters
    ----------
    features
        Length of a feature vector.
    network
        `PublishedConfig` as a dict.
    window_um
        Side of the windows of the slide whose spots see each other, µm.
    solver_steps, samples
        Heun steps; draws averaged for X.
    kernel_um
        Width of the distance kernel, µm; not used where the network knows nothing of edges.
    scaled
        Whether features are standardised and in- and output of the network scaled (`Scale`); as published
        neither is.
    """

    features: int
    network: dict[str, Any]
    window_um: float
    solver_steps: int = 100
    samples: int = 8
    kernel_um: float = 0.0
    scaled: bool = False


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one batch, padded to the largest.

    Parameters
    ----------
    features
        (b, n, d), as the network sees them.
    attributes
        (b, n, n, 2) known of the edges (`window_attributes`); None where the network knows nothing of them.
    present
        (b, n) bool, False for padding.
    """

    features: Tensor
    attributes: Tensor | None
    present: Tensor

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.present)

    @property
    def pairs(self) -> Tensor:
        """(b, n, n) bool: pairs of two different spots."""
        both = self.present[:, :, None] & self.present[:, None]
        return both & ~torch.eye(both.shape[1], dtype=torch.bool, device=both.device)

    def parts(self) -> list[Tensor]:
        """Return the (n_w,) places of the spots of each window among its padded ones."""
        return [here.nonzero()[:, 0] for here in self.present]

    def to(self, device: torch.device | str) -> Self:
        """Return them on `device`."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: part.to(device) for name, part in held.items() if part is not None})


class SeenSlide(NamedTuple):
    """What the windows of a slide are cut from.

    Parameters
    ----------
    features
        (n, d), as the network sees them.
    xy_um
        (n, 2) float64 spot centres, µm, on the CPU.
    """

    features: Tensor
    xy_um: Tensor


def window_attributes(xy: Tensor, features: Tensor, kernel: float) -> Tensor:
    """Return (n, n, 2) known attributes of a window's edges: exp(−d² / 2w²) and cosine; 0 on the diagonal.

    Parameters
    ----------
    xy
        (n, 2) spot centres.
    features
        (n, d).
    kernel
        w, the length unit of `xy`.
    """
    near = torch.exp(-torch.cdist(xy - xy.mean(0), xy - xy.mean(0)).square() / (2 * kernel**2))
    unit = nn.functional.normalize(features, dim=1)
    attributes = torch.stack([near.to(features), unit @ unit.T], dim=2)
    diagonal = torch.eye(len(xy), dtype=torch.bool, device=features.device)[..., None]
    return attributes.masked_fill(diagonal, 0)


class Scale(nn.Module):
    """What a network sees of noisy values, and the score that its output stands for.

    As published a network sees the values as they are, up to ±30, and its output is the score, up to 100: a
    long training.  Scaled as Karras et al. 2022 do, both have unit variance at all times, an output of 0 is
    the score of a Gaussian, and every time counts alike.

    Parameters
    ----------
    scaled
        Whether anything is.
    values
        Number of means: one per gene; None for one of all edges.
    """

    def __init__(self, scaled: bool, values: int | None = None) -> None:
        super().__init__()
        self.mean: Tensor | None
        self.spread: Tensor | None
        shape = () if values is None else (values,)
        self.register_buffer("mean", torch.zeros(shape) if scaled else None)
        self.register_buffer("spread", torch.ones(()) if scaled else None)

    def measure(self, mean: Tensor, spread: Tensor) -> None:
        """Take mean and spread of clean values: a number or one per gene, and a number."""
        self.get_buffer("mean").copy_(mean)
        self.get_buffer("spread").copy_(spread)

    def into(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network sees of (b, n, m) `x` at (b,) `sigma`."""
        if self.mean is None or self.spread is None:
            return x
        return (x - self.mean) / (self.spread**2 + sigma.square()).sqrt()[:, None, None]

    def score(self, found: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the score of (b, n, m) `x` at (b,) `sigma` where the network answers `found`."""
        if self.mean is None or self.spread is None:
            return found
        total = (self.spread**2 + sigma.square())[:, None, None]
        answer = found * self.spread / (sigma[:, None, None] * total.sqrt())
        return answer - (x - self.mean) / total

    def around(self, noise: Tensor) -> Tensor:
        """Return (…, m) `noise` as training sees it at t = 1: around the values' mean, as published 0."""
        return noise if self.mean is None else noise + self.mean

    def weight(self, sigma: Tensor) -> Tensor:
        """Return the (b,) weights of the loss: scaled, an output of 0 loses 1 at every σ."""
        if self.spread is None:
            return torch.ones_like(sigma)
        return 1 + sigma.square() / self.spread**2


class WindowNetwork(DrawingNetwork):
    """A network that denoises the spots of windows, drawn window by window.

    Parameters
    ----------
    config
        Sizes.
    """

    solver: ClassVar[str] = "heun"
    clamped_each: ClassVar[bool] = True

    def __init__(self, config: WindowSizes) -> None:
        sizes = PublishedConfig(**config.network)
        super().__init__(config, sizes.genes)
        self.sizes = sizes
        self.standard: nn.Module = Standard(config.features) if config.scaled else nn.Identity()
        self.spots = Scale(config.scaled, sizes.genes)

    def scores(self, state: State, t: Tensor, windows: Windows) -> State:
        """Return the score of each part of `state`, (b, n, G) spots first, at (b,) times."""
        raise NotImplementedError

    def start(self, noise: Noise, window: Windows) -> State:
        """Return the state of one window at t = 1."""
        return (self.spots.around(normal(noise("start"), window.features)[None] * SIGMA_MAX),)

    def settle(self, state: State) -> State:
        """Return the state after a step as it is kept."""
        return state

    def see(self, features: Tensor, places: Places) -> SeenSlide:
        """Return the features as the network sees them, and where the spots are."""
        return SeenSlide(self.standard(features), torch.from_numpy(places.xy_um))

    def together(self, places: Places) -> Sequence[Rows]:
        """Spots of a window.

        Raises
        ------
        UserError
            When attention over the largest needs more memory than there is.
        """
        found = places.windows(self.config.window_um)
        most = max(map(len, found))
        need = _PER_PAIR * most**2 * self.sizes.width
        refuse_beyond_memory(
            need,
            f"These weights let all spots of a window of {length(self.config.window_um)} see each other; on "
            f"this slide that is up to {counted(most, 'spot')}, which",
            "predict on coarser spots, or choose weights of another method",
        )
        return found

    def window(self, seen: SeenSlide, rows: Rows) -> Windows:
        """Return the spots `rows` of a slide as one window."""
        at = torch.from_numpy(rows)
        features, attributes = seen.features[at.to(seen.features.device)], None
        if self.sizes.edge_conditions:
            attributes = window_attributes(seen.xy_um[at], features, self.config.kernel_um)[None]
        present = torch.ones(1, len(rows), dtype=torch.bool, device=features.device)
        return Windows(features[None], attributes, present)

    def sample(self, seen: SeenSlide, rows: Rows, noise: Noise) -> Generator[float, None, Tensor]:
        """Solve from noise at σ_max by Heun's method, and denoise at the end."""
        window, steps = self.window(seen, rows), self.config.solver_steps

        def score(state: State, t: Tensor) -> State:
            return self.scores(state, t.expand(1), window)

        solving = heun_in_time(score, self.start(noise, window), steps, self.settle)
        while True:
            try:
                yield next(solving) / (2 * steps + 1)
            except StopIteration as stop:
                drawn: Tensor = stop.value[0][0]
                return drawn


class NodeOnly(WindowNetwork):
    """Diffusion of the spots of a window by the graph transformer, whose edges start empty."""

    def __init__(self, config: WindowSizes) -> None:
        super().__init__(config)
        self.network = PublishedGraph(self.sizes)

    def scores(self, state: State, t: Tensor, windows: Windows) -> State:
        """Return the score of the spots."""
        return (self.denoised(state[0], None, t, windows)[0],)

    def denoised(
        self, spots: Tensor, edges: Tensor | None, t: Tensor, windows: Windows
    ) -> tuple[Tensor, Tensor]:
        """Return the score of (b, n, G) `spots`, and what the network makes of `edges` as it sees them."""
        time, sigma = fourier_features(t, self.sizes.width), sigma_at(t)
        found, of_edges = self.network(
            self.spots.into(spots, sigma), edges, time, windows.features, windows.attributes, windows.present
        )
        return self.spots.score(found, spots, sigma), of_edges


class Joint(NodeOnly):
    """Joint diffusion of the spots of a window and of the correlations of every two of them."""

    def __init__(self, config: WindowSizes) -> None:
        super().__init__(config)
        self.edges = Scale(config.scaled)

    def scores(self, state: State, t: Tensor, windows: Windows) -> State:
        """Return the scores of (b, n, G) spots and (b, n, n) edges."""
        (spots, edges), sigma = state, sigma_at(t)
        of_spots, found = self.denoised(spots, self.edges.into(edges, sigma), t, windows)
        return of_spots, self.edges.score(found, edges, sigma)

    def start(self, noise: Noise, window: Windows) -> State:
        """Return noise at t = 1; the edges' is made symmetric, which as published halves its variance."""
        (spots,) = super().start(noise, window)
        edges = normal(noise("edges", window.present.shape[1]), spots)[None]
        return self.settle((spots, self.edges.around(edges * SIGMA_MAX)))

    def settle(self, state: State) -> State:
        """Make the edges symmetric, and 0 on the diagonal."""
        spots, edges = state
        diagonal = torch.eye(edges.shape[1], dtype=torch.bool, device=edges.device)
        return spots, ((edges + edges.transpose(1, 2)) / 2).masked_fill(diagonal, 0)
