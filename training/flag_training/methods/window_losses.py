"""What diffusion over tissue windows minimises, and the loss on windows held out.

FLAG as published and its relatives are trained by denoising score matching, whatever else each adds: the
joint form the loss of its edges and their consistency with the spots, FLAG the alignment to vectors of genes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.engine.loop import Held, Objective
from flag_training.methods.tissue_windows import TrainingWindows
from napari_flag.methods.published import Published
from napari_flag.methods.windowed import Joint, WindowNetwork, Windows
from napari_flag.model.published import T_MIN, State, sigma_at

Centre: TypeAlias = Literal["mean", "sum"]
"""What a spot's genes are less before they are correlated: see `spot_correlation`."""
_HELD_TIMES: Final = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
"""Times at which held-out windows are denoised."""
_HELD_KEY: Final = 7_777_777
"""The same noise at every validation and for every method, so that losses can be compared."""


def spot_correlation(x: Tensor, present: Tensor, centre: Centre = "mean") -> Tensor:
    """Return the (b, n, n) correlation over genes of every two spots; 0 on the diagonal and in padding.

    Parameters
    ----------
    x
        (b, n, G) expression.
    present
        (b, n) bool.
    centre
        What each spot is less: the "mean" of its genes, as Pearson's correlation has it, or their "sum", as
        the published code has it.  The sum moves all spots far to one side, so that correlations tend to 1
        as genes are added, whatever they say.
    """
    genes = x.shape[2]
    own = x.sum(2, keepdim=True) if centre == "sum" else x.mean(2, keepdim=True)
    away = (x - own) * present[..., None]
    share = max(genes - 1, 1)
    spread = (away.square().sum(2) / share).clamp_min(1e-8).sqrt()
    found = away @ away.transpose(1, 2) / share
    found = found / (spread[:, :, None] * spread[:, None] + 1e-8)
    diagonal = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return ((found + found.transpose(1, 2)) / 2).masked_fill(diagonal, 0)


def correlations_of(windows: Sequence[TrainingWindows], centre: Centre) -> Tensor:
    """Return the float64 correlations of all pairs of spots of one window that have one, in a row."""
    found = [spot_correlation(w.expression.double(), w.present, centre)[w.correlated] for w in windows]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *found])


def score_matching(
    score: Tensor, clean: Tensor, noisy: Tensor, sigma: Tensor, counted: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Return the mean of w σ² (s + (noisy − clean) / σ²)² over what is `counted`.

    Where w is 1, as published, a score of 0 loses 1.

    Parameters
    ----------
    score, clean, noisy
        (b, n, m).
    sigma
        (b,).
    counted
        (b, n, m) bool.
    weight
        (b,) w.
    """
    variance = sigma.square()[:, None, None]
    missed = variance * (score + (noisy - clean) / variance).square()
    return _mean(missed if weight is None else weight[:, None, None] * missed, counted)


def consistency(edges: Tensor, spots: Tensor, windows: Windows, centre: Centre) -> Tensor:
    """Return how far estimated edges are from the correlations of estimated spots, which get no gradient.

    Parameters
    ----------
    edges, spots
        (b, n, n) and (b, n, G), both estimated without noise.
    windows
        Whose pairs count.
    centre
        As for `spot_correlation`.
    """
    implied = spot_correlation(spots.detach(), windows.present, centre)
    return _mean((edges - implied).abs(), windows.pairs)


def alignment(aligned: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the negative mean cosine of (…, z) vectors and their targets over the (…) `mask`."""
    return -_mean(F.cosine_similarity(aligned, targets, dim=-1), mask)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp_min(1)


@dataclass(frozen=True, slots=True)
class NoisyWindows:
    """Windows at times of their own, and the noise they get (an `engine.loop.Batch`).

    Parameters
    ----------
    windows
        Clean.
    t
        (b,) times.
    noise, edge_noise
        (b, n, G) and (b, n, n), of unit variance.
    """

    windows: TrainingWindows
    t: Tensor
    noise: Tensor
    edge_noise: Tensor

    @classmethod
    def draw(cls, windows: TrainingWindows, draws: torch.Generator, t: float | None = None) -> Self:
        """Draw the noise, and times unless all have `t`."""
        b, n, genes = windows.expression.shape
        times = T_MIN + (1 - T_MIN) * torch.rand(b, generator=draws)
        if t is not None:
            times = torch.full((b,), t)
        noise = torch.randn(b, n, genes, generator=draws)
        return cls(windows, times, noise, torch.randn(b, n, n, generator=draws))

    @property
    def share(self) -> float:
        """All of it is computed by one process."""
        return 1.0

    @property
    def spots(self) -> int:
        """Spots denoised."""
        return int(self.windows.present.sum())

    @property
    def sigma(self) -> Tensor:
        """(b,) noise levels."""
        return sigma_at(self.t)

    @property
    def spots_at_t(self) -> Tensor:
        """(b, n, G) noisy expression."""
        return self.windows.expression + self.sigma[:, None, None] * self.noise

    def edges_at_t(self, edges: Tensor) -> Tensor:
        """Return (b, n, n) `edges` with their noise."""
        return edges + self.sigma[:, None, None] * self.edge_noise

    def to(self, device: torch.device) -> Self:
        """Return it on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("t", "noise", "edge_noise")}
        return replace(self, windows=self.windows.to(device), **moved)

    def spot_loss(self, network: WindowNetwork, score: Tensor) -> Tensor:
        """Return the denoising loss of the (b, n, G) `score` that `network` gives the spots."""
        counted = self.windows.present[..., None].expand_as(score)
        weight = network.spots.weight(self.sigma)
        return score_matching(score, self.windows.expression, self.spots_at_t, self.sigma, counted, weight)


def node_loss(network: WindowNetwork, batch: NoisyWindows, centre: Centre) -> Tensor:
    """Return the denoising loss of the spots alone; noisy edges are the truth's, where there are any."""
    state: State = (batch.spots_at_t,)
    if isinstance(network, Joint):
        clean = spot_correlation(batch.windows.expression, batch.windows.present, centre)
        state = (*state, batch.edges_at_t(clean))
    return batch.spot_loss(network, network.scores(state, batch.t, batch.windows)[0])


def held_out_loss(
    network: WindowNetwork,
    windows: Sequence[TrainingWindows],
    centre: Centre = "mean",
    times: Sequence[float] = _HELD_TIMES,
) -> npt.NDArray[np.float64]:
    """Return the (times,) denoising loss of the spots of `windows`, at the same noise whatever the network.

    Parameters
    ----------
    network
        Any over windows.
    windows
        With what was measured there.
    centre
        Of the correlations that a joint form sees.
    times
        At which the windows are denoised.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    found = np.zeros(len(times))
    spots = [int(each.present.sum()) for each in windows]
    with torch.no_grad():
        for place, t in enumerate(times):
            draws = torch.Generator().manual_seed(_HELD_KEY + place)
            noisy = [NoisyWindows.draw(each, draws, t).to(device) for each in windows]
            losses = [float(node_loss(network, each, centre)) for each in noisy]
            found[place] = np.average(losses, weights=spots)
    network.train(training)
    return found


class NodeObjective(Objective[NoisyWindows]):
    """The spots' denoising loss.

    Parameters
    ----------
    network
        What learns.
    """

    parts: ClassVar[tuple[str, ...]] = ("node",)

    def __init__(self, network: WindowNetwork) -> None:
        super().__init__(network, nn.Identity())
        self.network = network

    def forward(self, held: Held[NoisyWindows]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and parts."""
        node = node_loss(self.network, held.batch, "mean")
        return node, {"node": node}


class JointObjective(Objective[NoisyWindows]):
    """L_spots + w_edges · L_edges + w_consistency · (distance of edges and the spots' correlations).

    Parameters
    ----------
    network
        What learns.
    centre
        Which correlations the edges are.
    edge_weight, consistency_weight
        w_edges and w_consistency.
    """

    parts: ClassVar[tuple[str, ...]] = ("node", "edge", "consistency")

    def __init__(self, network: Joint, centre: Centre, edge_weight: float, consistency_weight: float) -> None:
        super().__init__(network, nn.Identity())
        self.network, self._centre = network, centre
        self._edge_weight, self._consistency_weight = edge_weight, consistency_weight

    def forward(self, held: Held[NoisyWindows]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and parts."""
        batch, windows, network = held.batch, held.batch.windows, self.network
        clean = spot_correlation(windows.expression, windows.present, self._centre)
        noisy, noisy_edges, sigma = batch.spots_at_t, batch.edges_at_t(clean), batch.sigma
        score, edge_score = network.scores((noisy, noisy_edges), batch.t, windows)
        node = batch.spot_loss(network, score)
        of_edges = network.edges.weight(sigma)
        edge = score_matching(edge_score, clean, noisy_edges, sigma, windows.correlated, of_edges)
        variance = sigma.square()[:, None, None]
        both = consistency(
            noisy_edges + variance * edge_score, noisy + variance * score, windows, self._centre
        )
        loss = node + self._edge_weight * edge + self._consistency_weight * both
        return loss, {"node": node, "edge": edge, "consistency": both}


class FlagObjective(Objective[NoisyWindows]):
    """The spots' denoising loss, and the weighted alignment to vectors of the genes.

    Parameters
    ----------
    network
        What learns.
    vectors
        (G, z), NaN for a gene without; None trains without alignment.
    weight
        Of the alignment.
    """

    parts: ClassVar[tuple[str, ...]] = ("node", "alignment")

    def __init__(self, network: Published, vectors: Tensor | None, weight: float) -> None:
        super().__init__(network, nn.Identity())
        self.network, self._weight = network, weight
        self.vectors: Tensor | None
        self.register_buffer("vectors", vectors, persistent=False)

    def forward(self, held: Held[NoisyWindows]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and parts."""
        batch, windows = held.batch, held.batch.windows
        if self.vectors is None:
            node = node_loss(self.network, batch, "mean")
            return node, {"node": node, "alignment": torch.zeros_like(node)}
        score, aligned = self.network.denoised(batch.spots_at_t, batch.t, windows, align=True)
        node = batch.spot_loss(self.network, score)
        known = self.vectors.isfinite().all(1)  # (G,)
        mask = (windows.expression[windows.present] > 0) & known  # (N, G)
        pull = alignment(aligned, self.vectors.nan_to_num(0.0), mask)
        return node + self._weight * pull, {"node": node, "alignment": pull}
