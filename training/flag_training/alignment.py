"""FLAG's alignment loss: pull the transformer's gene tokens towards a frozen gene foundation model.

Training only.  Two kinds, each switched on by the targets that the config gives: gene-level, each
token towards the vector of its gene, and cell-level, the mean of a spot's tokens towards the vector
of the spot.  `gene_targets` says what the targets are, and why they may be centred.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import TrainingSlide
from flag_training.config import FitConfig
from flag_training.gene_targets.spot_targets import (
    ConstantTargets,
    GeneTargets,
    SpotTargets,
    StaticTargets,
    open_contextual,
    read_vectors,
)

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
