"""FLAG's alignment loss: pull the transformer's gene tokens towards a frozen gene foundation model.

Training only.  Two kinds, each switched on by the targets that the config gives: gene-level, each
token towards the vector of its gene, and cell-level, the mean of a spot's tokens towards the vector
of the spot.  `gene_targets` says what the targets are, and why they may be centred.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import TrainingSlide
from flag_training.config import FitConfig
from flag_training.engine.stage import Draw, Held, Objective
from flag_training.gene_targets.spot_targets import (
    ConstantTargets,
    GeneTargets,
    SpotTargets,
    StaticTargets,
    open_contextual,
    read_vectors,
)
from flag_training.stages.expectation import FramedCohort
from napari_flag.errors import UserError
from napari_flag.model.diffusion import noise_levels
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors

LEFT_OUT = "{left_out}"
"""In the config's paths of gene vectors: the sections that the run leaves out, joined by ``-``."""


def _projector(width: int, out: int) -> nn.Sequential:
    """Return FLAG's projector: three layers, SiLU between them."""
    hidden = 4 * width
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out)
    )


class GeneTerm(nn.Module):
    """-weighted mean cosine between each projected token and the target of its gene in its spot."""

    def __init__(self, targets: GeneTargets, width: int) -> None:
        super().__init__()
        self.targets = targets
        self.projector = _projector(width, targets.width)

    def forward(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of (b, G, width) `tokens` of the spots `rows`."""
        targets, weights = self.targets.genes(rows)
        cosine = F.cosine_similarity(self.projector(tokens), targets, dim=2)
        return -(weights * cosine).sum() / weights.abs().sum().clamp(min=1e-6)


class CellTerm(nn.Module):
    """-mean cosine between the mean of a spot's projected tokens and the target of the spot."""

    def __init__(self, targets: SpotTargets, width: int) -> None:
        super().__init__()
        self.targets = targets
        self.projector = _projector(width, targets.width)

    def forward(self, tokens: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of (b, G, width) `tokens` of the spots `rows`."""
        targets = self.targets.cells(rows)
        known = ~targets.isnan().any(1)
        cosine = F.cosine_similarity(self.projector(tokens).mean(1), targets.nan_to_num(0.0), dim=1)
        return -(known * cosine).sum() / known.sum().clamp(min=1)


class Alignment(nn.Module):
    """Mean of the alignment terms; 0 without any.

    Parameters
    ----------
    terms
        `GeneTerm`, `CellTerm`, both or none.
    """

    def __init__(self, terms: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)

    @classmethod
    def load(
        cls, config: FitConfig, genes: tuple[str, ...], width: int, slides: Sequence[TrainingSlide] = ()
    ) -> "Alignment":
        """Open the targets that `config` names.

        Parameters
        ----------
        config
            Its alignment values.
        genes
            Genes of the tokens, in order.
        width
            Width of the tokens.
        slides
            Training slides, in the order of the rows that `forward` is given.  Needed by everything
            that differs between spots: centred, masked, cell-level or contextual targets.

        Raises
        ------
        UserError
            When targets cannot be read, know none of the genes, or learnt from a section left out.
        """
        terms: list[nn.Module] = []
        if config.alignment_targets:
            path = _path(config.alignment_targets, config)
            terms.append(GeneTerm(_gene_targets(path, config, genes, slides), width))
        if config.alignment_cells:
            path = _path(config.alignment_cells, config)
            terms.append(CellTerm(_spot_targets(path, config, genes, slides), width))
        return cls(terms)

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        tokens
            (b, G, width).
        rows
            (b,) rows of the spots among all spots of the training slides; None where the targets are the
            same in every spot.
        """
        if not self.terms:
            return tokens.new_zeros(())
        if rows is None:
            if not all(isinstance(term.targets, ConstantTargets) for term in self.terms):
                raise ValueError("these targets differ between spots: say which rows the tokens are of")
            rows = torch.zeros(len(tokens), dtype=torch.long, device=tokens.device)
        return torch.stack([term(tokens, rows) for term in self.terms]).mean()


def _path(told: str, config: FitConfig) -> Path:
    return Path(told.replace(LEFT_OUT, "-".join(sorted(config.left_out)) or "nothing"))


def _gene_targets(
    path: Path, config: FitConfig, genes: tuple[str, ...], slides: Sequence[TrainingSlide]
) -> GeneTargets:
    """Return targets of genes: the table as it is, where nothing asks for the spot."""
    if path.is_dir() or config.alignment_centred or config.alignment_present_only:
        return _spot_targets(path, config, genes, slides)
    return ConstantTargets(read_vectors(path, genes, config.left_out, config.left_out_patients))


def _spot_targets(
    path: Path, config: FitConfig, genes: tuple[str, ...], slides: Sequence[TrainingSlide]
) -> SpotTargets:
    """Return targets that differ between spots: contextual from a folder, else from a static table."""
    if not slides:
        raise ValueError("targets that differ between spots need the training slides")
    if path.is_dir():
        return open_contextual(path, genes, slides, centred=config.alignment_centred)
    vectors = read_vectors(path, genes, config.left_out, config.left_out_patients)
    expression = [torch.from_numpy(slide.expression) for slide in slides]
    return StaticTargets(
        vectors,
        expression,
        centred=config.alignment_centred,
        present_only=config.alignment_present_only,
    )


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """Slides of a batch and this process's share of the spots to denoise.

    Parameters
    ----------
    features, graph
        (n, d) features in the slides' frames, and their graphs side by side.
    expected
        (n, G) expectation in units of the residual spread.
    rows
        (b,) positions among the n spots.
    residual, noise
        (b, G) residuals in units of their spread, and unit noise.
    sigma
        (b,) noise levels.
    places
        (b,) rows among all spots of the training slides.
    share
        Share of the batch's spots that are in `rows`.
    """

    features: Tensor
    graph: GraphTensors
    expected: Tensor
    rows: Tensor
    residual: Tensor
    noise: Tensor
    sigma: Tensor
    places: Tensor
    share: float

    @property
    def spots(self) -> int:
        """Spots denoised."""
        return len(self.rows)

    def to(self, device: torch.device) -> Self:
        """Return it on `device`."""
        names = ("features", "graph", "expected", "rows", "residual", "noise", "sigma", "places")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class SlideBatches:
    """Draws batches of whole slides with a sample of their spots; an epoch visits every slide.

    Parameters
    ----------
    cohort
        Training slides in their frames.
    expected
        (views, n, G) what the mean head expects, cross-fitted, in the slides' frames.
    spread
        (G,) of the residuals.
    spots
        Spots to denoise per batch.
    slides
        Slides per batch; 0 takes all.
    seed
        Keys the order of slides.
    """

    def __init__(
        self, cohort: FramedCohort, expected: Tensor, spread: Tensor, spots: int, slides: int, seed: int
    ) -> None:
        self._cohort = cohort
        self._told = expected / spread
        self._residual = (cohort.targets - expected) / spread
        self._spots, self._seed = spots, seed
        self._members = [
            torch.nonzero(cohort.slides == slide)[:, 0] for slide in range(int(cohort.slides.max()) + 1)
        ]
        self._per_batch = slides or len(self._members)

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self._members) / self._per_batch)

    def draw(self, draw: Draw) -> ScoreBatch:
        """Draw slides, a view, spots and noise; then take the process's share of the spots.

        Raises
        ------
        UserError
            When there are more processes than spots to share out.
        """
        generator = torch.Generator().manual_seed(draw.key)
        view = int(torch.randint(len(self._cohort.features), (1,), generator=generator))
        members = self._slides(draw)
        rows = torch.randperm(len(members), generator=generator)[: self._spots]
        noise = torch.randn(len(rows), self._told.shape[2], generator=generator)
        sigma = noise_levels(len(rows), generator)
        if len(rows) < draw.processes:
            raise UserError(
                f"A batch of {len(rows)} spots cannot be shared out to {draw.processes} processes; raise "
                "score_batch in the config, or run fewer."
            )
        mine = slice(draw.process, None, draw.processes)
        places = members[rows[mine]]
        return ScoreBatch(
            features=self._cohort.features[view][members],
            graph=_part(self._cohort.graphs[view], members),
            expected=self._told[view][members],
            rows=rows[mine],
            residual=self._residual[view][places],
            noise=noise[mine],
            sigma=sigma[mine],
            places=places,
            share=len(places) / len(rows),
        )

    def _slides(self, draw: Draw) -> Tensor:
        """Return the (n,) rows of the slides of a batch, slide by slide."""
        if self.batches == 1:
            return torch.cat(self._members)
        order = np.random.default_rng([self._seed, draw.epoch]).permutation(len(self._members))
        first = draw.number * self._per_batch
        return torch.cat([self._members[slide] for slide in order[first : first + self._per_batch]])


class Denoising(Objective[ScoreBatch]):
    """The denoising loss of the network, and λ times the alignment loss.

    Parameters
    ----------
    network
        Whose gene DiT and encoder of H_spatial learn.
    alignment, weight
        The alignment loss and λ.
    """

    parts: ClassVar[tuple[str, ...]] = ("denoising", "alignment")

    def __init__(self, network: Flag, alignment: Alignment, weight: float) -> None:
        learning = {"gene_dit": network.gene_dit, "spatial_encoder": network.spatial_encoder}
        super().__init__(nn.ModuleDict(learning), alignment)
        self.network = network.requires_grad_(False)
        self.learning.requires_grad_(True)
        self._weight = weight

    def forward(self, held: Held[ScoreBatch]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss over the batch's spots, and its parts."""
        batch = held.batch
        spatial = self.network.spatial(batch.features, batch.expected, batch.graph)[batch.rows]
        score, tokens = self.network.score_loss(
            batch.residual, batch.noise, batch.sigma, spatial, batch.expected[batch.rows]
        )
        aligned = self.helping(tokens, batch.places)
        return score + self._weight * aligned, {"denoising": score, "alignment": aligned}


def _part(graph: GraphTensors, members: Tensor) -> GraphTensors:
    """Return the graph of the spots `members` alone: whole slides, so that no edge is cut."""
    place = torch.empty(len(graph.neighbours), dtype=torch.long)
    place[members] = torch.arange(len(members))
    return GraphTensors(
        place[graph.neighbours[members]],
        graph.present[members],
        graph.distance[members],
        graph.likeness[members],
    )
