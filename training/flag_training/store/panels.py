"""Choose the genes a model predicts: highly variable, highly expressed (HMHVG), as FLAG does.

Over all slides that may be seen: genes that are variable in at least one of them, without
mitochondrial and ribosomal ones, that are among the first k both by mean and by standard deviation.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from napari_flag.errors import UserError
from napari_flag.formatting import counted, whole

if TYPE_CHECKING:
    from anndata import AnnData


HOUSEKEEPING: Final = re.compile(r"(MT|RPS|RPL)", re.IGNORECASE)
"""Beginnings of symbols left out, as in the published code: mitochondrial and ribosomal genes, and
with them metallothioneins and a few others that begin alike."""
VARIABLE_GENES: Final = 4096
"""Highly variable genes taken of each slide (FLAG's published code)."""
STEP: Final = 10
"""By how many places k grows until an exact panel is full."""


@dataclass(frozen=True, slots=True)
class PanelRule:
    """Values of one selection.

    Parameters
    ----------
    name
        Name of the panel in the store.
    genes
        N.  The paper takes the first N by mean that are also among the first N by standard
        deviation, which gives fewer than N.
    exact
        Go on until there are exactly `genes`: k grows in steps of `STEP`, and of those found the
        ones with the highest mean are kept.
    on_log_counts
        Rank by mean and standard deviation of log2(count + 1), the scale models see, instead of
        raw counts.
    variable_genes
        Highly variable genes per slide; 0 takes all genes.
    """

    name: str = "hmhvg200"
    genes: int = 200
    exact: bool = False
    on_log_counts: bool = False
    variable_genes: int = VARIABLE_GENES


def select_panel(
    slides: Mapping[str, "AnnData"], rule: PanelRule, known: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Select genes by the counts of `slides` alone.

    Parameters
    ----------
    slides
        Raw counts of the slides that may be seen, all genes, by name.
    rule
        Values of the selection.
    known
        Symbols that every slide of the cohort has; None takes those common to `slides`.

    Returns
    -------
    Symbols, highest mean first.

    Raises
    ------
    UserError
        When there are fewer genes than an exact panel needs, or none.
    """
    common = sorted(set.intersection(*(set(a.var_names) for a in slides.values())))
    if known is not None:
        common = sorted(set(common) & set(known))
    if rule.variable_genes:
        variable = set().union(*(variable_genes(a, rule.variable_genes) for a in slides.values()))
        common = [gene for gene in common if gene in variable]
    genes = [gene for gene in common if not HOUSEKEEPING.match(gene)]
    mean, spread = moments(list(slides.values()), genes, rule.on_log_counts)
    by_mean, by_spread = _places(mean), _places(spread)
    k = rule.genes
    chosen = (by_mean < k) & (by_spread < k)
    while rule.exact and chosen.sum() < rule.genes and k < len(genes):
        k += STEP
        chosen = (by_mean < k) & (by_spread < k)
    rows = sorted(np.flatnonzero(chosen), key=lambda i: int(by_mean[i]))[: rule.genes]
    if not rows or (rule.exact and len(rows) < rule.genes):
        raise UserError(
            f"The slides share only {counted(len(genes), 'gene')} to choose from, so a panel of "
            f"{whole(rule.genes)} cannot be made; ask for fewer genes, or check that all slides name genes "
            "alike."
        )
    return tuple(genes[i] for i in rows)


def variable_genes(counts: "AnnData", n: int) -> tuple[str, ...]:
    """Return the `n` most variable genes of one slide (scanpy's "seurat" dispersion).

    Empty spots and unseen genes are dropped; counts are normalised to the median depth and log1p.

    Raises
    ------
    UserError
        When scanpy is not installed.
    """
    try:
        import scanpy
    except ImportError as error:
        raise UserError(
            "Selecting highly variable genes needs scanpy, which is not installed; run: "
            "pip install 'napari-flag[training]'"
        ) from error

    slide, threads = counts.copy(), torch.get_num_threads()
    try:
        scanpy.pp.filter_cells(slide, min_genes=1)
        scanpy.pp.filter_genes(slide, min_cells=1)
        scanpy.pp.normalize_total(slide)
        scanpy.pp.log1p(slide)
        with warnings.catch_warnings():
            # scanpy fills its own table column by column, and pandas remarks on that.
            warnings.simplefilter("ignore", category=Warning)
            scanpy.pp.highly_variable_genes(slide, n_top_genes=min(n, slide.n_vars))
    finally:  # numba's loops, which scanpy runs, set OpenMP's threads, and so PyTorch's, to all cores
        torch.set_num_threads(threads)
    return tuple(str(gene) for gene in slide.var_names[slide.var["highly_variable"]])


def moments(
    slides: Iterable["AnnData"], genes: list[str], on_log_counts: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of each of `genes` over all spots, (G,) float64 each."""
    total, square, spots = np.zeros(len(genes)), np.zeros(len(genes)), 0
    for slide in slides:
        values = slide[:, genes].X.astype(np.float64)
        if on_log_counts:
            values = values.log1p() / np.log(2)
        total += np.asarray(values.sum(axis=0)).ravel()
        square += np.asarray(values.multiply(values).sum(axis=0)).ravel()
        spots += slide.n_obs
    mean = total / max(spots, 1)
    return mean, np.sqrt(np.maximum(square / max(spots, 1) - mean**2, 0))


def _places(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return each value's place, 0 for the largest; ties in order."""
    places = np.empty(len(values), np.int64)
    places[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return places
