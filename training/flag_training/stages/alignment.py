"""FLAG's alignment loss: pull the transformer's gene tokens towards a frozen gene foundation model.

Training only.  Two kinds, each switched on by the targets that the config gives: gene-level, each
token towards the vector of its gene, and cell-level, the mean of a spot's tokens towards the vector
of the spot.

A static vector is the same in every spot, and a token carries a learned embedding of its gene: a
projector can map the one to the other without looking at the spot, and the loss teaches nothing.
`centred` targets subtract each gene's mean.  Then a static vector counts for as much as the
gene stands above its mean in the slide, and against it where it stands below, so that a token must
know the spot to point the right way, and genes that rise together point together.  Contextual
vectors differ between spots already, but little beside their gene's mean; centred, that mean is gone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import TrainingSlide
from flag_training.config import FitConfig
from flag_training.gene_targets.contextual import SlideVectors
from flag_training.gene_targets.gene_table import read_table
from napari_flag.errors import UserError

_LEAST_SPREAD = 0.1
"""Added to a gene's spread over a slide, as in the slide's own frame: nearly constant genes stay small."""


class GeneTargets(Protocol):
    """Targets of genes in spots, given by their rows among all spots of the training slides."""

    width: int

    def genes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets that broadcast to (b, G, z), and signed weights (b, G), 0 without target."""


class SpotTargets(GeneTargets, Protocol):
    """Targets of genes in spots, and of whole spots."""

    def cells(self, rows: Tensor) -> Tensor:
        """Return (b, z) targets of whole spots, NaN without."""


class StaticTargets(nn.Module):
    """One vector per gene, weighted by the spot's expression.

    Parameters
    ----------
    vectors
        (G, z), rows of genes without a vector NaN.
    expression
        Per slide (n, G) log2(count + 1).
    centred
        Whether weights are expression standardised over the slide, else 1 (genes) or log2(count + 1)
        (cells).
    present_only
        Whether genes without counts in a spot are masked there, as FLAG does.
    """

    def __init__(
        self, vectors: Tensor, expression: Sequence[Tensor], *, centred: bool, present_only: bool
    ) -> None:
        super().__init__()
        known = ~vectors.isnan().any(1)
        found = torch.cat(list(expression))
        weights = torch.cat([_standardised(e) for e in expression]) if centred else torch.ones_like(found)
        masked = weights * (found > 0) if present_only else weights
        amount = weights if centred else found
        self.width = vectors.shape[1]
        self.vectors: Tensor
        self.weights: Tensor
        self.spots: Tensor
        self.register_buffer("vectors", vectors.nan_to_num(0.0), persistent=False)
        self.register_buffer("weights", masked * known, persistent=False)
        total = amount[:, known].abs().sum(1, keepdim=True)
        weighted = amount[:, known] @ vectors[known] / total  # NaN in a spot without expression
        self.register_buffer("spots", weighted, persistent=False)

    def genes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, G, z) vectors and (b, G) weights."""
        return self.vectors[None], self.weights[rows]

    def cells(self, rows: Tensor) -> Tensor:
        """Return (b, z) expression-weighted means of the gene vectors."""
        return self.spots[rows]


class ConstantTargets(nn.Module):
    """One vector per gene, the same in every spot, for callers that do not say which spots they have.

    Parameters
    ----------
    vectors
        (G, z), rows of genes without a vector NaN.
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.width = vectors.shape[1]
        self.vectors: Tensor
        self.weights: Tensor
        self.register_buffer("weights", (~vectors.isnan().any(1)).float()[None], persistent=False)
        self.register_buffer("vectors", vectors.nan_to_num(0.0), persistent=False)

    def genes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, G, z) vectors and (b, G) weights."""
        return self.vectors[None], self.weights.expand(len(rows), -1)


class ContextualTargets(nn.Module):
    """Vectors of a foundation model for each gene in each spot, read from disk on demand.

    Parameters
    ----------
    slides
        Per training slide, its stored vectors.
    centred
        Whether the slide's mean of each gene, and of its spots, is taken away.
    """

    def __init__(self, slides: Sequence[SlideVectors], *, centred: bool) -> None:
        super().__init__()
        self._slides = tuple(slides)
        self._centred = centred
        self._first = torch.tensor([0] + [len(slide.spots) for slide in slides]).cumsum(0)
        self.width = len(slides[0].cell_mean)

    def genes(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, G, z) vectors and (b, G) weights, 1 where the spot has the gene."""
        found = self._read(rows)[0]
        known = ~found.isnan().any(2)
        return found.nan_to_num(0.0), known.to(found.dtype)

    def cells(self, rows: Tensor) -> Tensor:
        """Return (b, z) vectors of the spots."""
        return self._read(rows)[1]

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        places = rows.cpu()
        owner = torch.searchsorted(self._first, places, right=True) - 1
        local = places - self._first[owner]
        genes = torch.empty(len(places), *self._slides[0].gene_means.shape)
        cells = torch.empty(len(places), self.width)
        for number in sorted(set(owner.tolist())):
            slide, at = self._slides[number], owner == number
            genes[at], cells[at] = slide.read(local[at])
            if self._centred:
                genes[at] -= slide.gene_means
                cells[at] -= slide.cell_mean
        return genes.to(rows.device), cells.to(rows.device)


def open_contextual(
    root: Path, genes: Sequence[str], slides: Sequence[TrainingSlide], *, centred: bool
) -> ContextualTargets:
    """Open the contextual vectors of training slides under the folder `root`."""
    opened = [SlideVectors.open(root, slide.entry.name, slide.spots.ids, genes) for slide in slides]
    widths = {len(slide.cell_mean) for slide in opened}
    if len(widths) != 1:
        raise UserError(
            f"The contextual vectors in {root} are of several models (widths {sorted(widths)}); make them "
            "with one."
        )
    return ContextualTargets(opened, centred=centred)


def read_vectors(
    path: Path, genes: Sequence[str], left_out: Sequence[str], patients: Sequence[str]
) -> Tensor:
    """Return (G, z) vectors of `genes` from a static table, NaN for genes without.

    Parameters
    ----------
    path
        The table.
    genes
        Genes that are trained on.
    left_out, patients
        Sections, and patients whole, that the run leaves out; a table that has learnt from them is
        refused.

    Raises
    ------
    UserError
        When it cannot be read, knows none of the genes, or has learnt from what is left out.
    """
    table = read_table(path)
    row = {gene: i for i, gene in enumerate(table.genes)}
    if not set(genes) & set(row):
        raise UserError(
            f"The gene vectors {path} know none of the {len(genes)} genes; check that they are keyed by gene "
            "symbol."
        )
    seen = set(left_out) & set(table.source.get("sections", ()))
    seen |= {f"patient {name}" for name in set(patients) & set(table.source.get("patients", ()))}
    if seen:
        raise UserError(
            f"The gene vectors {path} were learnt from {', '.join(sorted(seen))}, which this run leaves out; "
            "make them without (napari-flag gene-targets coexpression --leave-out, --leave-out-patient)."
        )
    vectors = torch.full((len(genes), table.vectors.shape[1]), torch.nan)
    for place, gene in enumerate(genes):
        if gene in row:
            vectors[place] = torch.from_numpy(table.vectors[row[gene]])
    return vectors


def _standardised(expression: Tensor) -> Tensor:
    """Return (n, G) `expression` of one slide, each gene relative to its mean and spread there."""
    return (expression - expression.mean(0)) / (expression.std(0, correction=0) + _LEAST_SPREAD)


LEFT_OUT = "{left_out}"
"""In the config's paths of gene vectors: the sections that the run leaves out, joined by ``-``."""


def _projector(width: int, out: int) -> nn.Sequential:
    """Return FLAG's projector: three layers, SiLU between them, 2,048 wide for tokens of 384."""
    hidden = 16 * width // 3
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out)
    )


class GeneTerm(nn.Module):
    """-weighted mean cosine between each projected token and the target of its gene in its spot."""

    def __init__(self, targets: GeneTargets, width: int) -> None:
        super().__init__()
        self.targets = targets
        self.projector = _projector(width, targets.width)

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets and signed weights of the genes in the spots `rows`, which broadcast."""
        return self.targets.genes(rows)

    def forward(self, tokens: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of (b, G, width) `tokens`, given what `read` returned of their spots."""
        cosine = F.cosine_similarity(self.projector(tokens), targets, dim=2)
        return -(weights * cosine).sum() / weights.abs().sum().clamp(min=1e-6)


class CellTerm(nn.Module):
    """-mean cosine between the mean of a spot's projected tokens and the target of the spot."""

    def __init__(self, targets: SpotTargets, width: int) -> None:
        super().__init__()
        self.targets = targets
        self.projector = _projector(width, targets.width)

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, z) targets of the spots `rows`, and (b,) weights, 0 without target."""
        targets = self.targets.cells(rows)
        known = ~targets.isnan().any(1)
        return targets.nan_to_num(0.0), known.to(targets.dtype)

    def forward(self, tokens: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the loss of (b, G, width) `tokens`, given what `read` returned of their spots."""
        cosine = F.cosine_similarity(self.projector(tokens).mean(1), targets, dim=1)
        return -(weights * cosine).sum() / weights.sum().clamp(min=1)


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
            Training slides, in the order of the rows that `targets` is given.  Needed by everything
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

    def targets(self, rows: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """Read the targets of each term for the spots `rows` (b,) among all spots of the training slides.

        Reading vectors of a foundation model from disk takes time: the loop does it ahead, batch by batch.
        """
        return tuple(cast(GeneTerm | CellTerm, term).read(rows) for term in self.terms)

    def forward(self, tokens: Tensor, targets: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the loss of (b, G, width) `tokens`, given the `targets` of their spots."""
        if not self.terms:
            return tokens.new_zeros(())
        pairs = zip(self.terms, targets, strict=True)
        return torch.stack([term(tokens, *target) for term, target in pairs]).mean()


def _path(template: str, config: FitConfig) -> Path:
    return Path(template.replace(LEFT_OUT, "-".join(sorted(config.left_out)) or "nothing"))


def _gene_targets(
    path: Path, config: FitConfig, genes: tuple[str, ...], slides: Sequence[TrainingSlide]
) -> GeneTargets:
    """Return targets of genes: the table as it is, where targets do not depend on the spot."""
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
