"""Gene vectors learnt from co-expression: the substitute for a foundation model that needs no download.

Per section the Pearson correlation of log2(count + 1) between genes, as GSC measures it; averaged in
Fisher's z over the sections of a patient (weight n - 3, z's inverse variance), then over patients
with equal weight, because patients differ far more than sections of one do; shrunk towards
uncorrelated genes by its sampling error (Schäfer & Strimmer 2005, eq. 10); and factored, R ≈ V Vᵀ, by its
leading eigenvectors, so that the cosine of two genes' vectors is their correlation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from flag_training.gene_targets.gene_table import GeneTable, collect
from flag_training.gene_targets.sections import SectionFile, counts_hash
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import constant_genes
from napari_flag.statistics.coexpression import gene_correlations, gene_structure_correlation

if TYPE_CHECKING:
    from anndata import AnnData


Array = npt.NDArray[np.float64]

_LARGEST: Final = 0.999
"""Correlations are clipped here before Fisher's z, which is infinite at 1."""
_FEWEST: Final = 10
"""Spots a section needs for its correlations to say anything."""


@dataclass(frozen=True, slots=True)
class Section:
    """Counts of one section.

    Parameters
    ----------
    name, patient
        Section and patient.
    counts
        (n, G) float64 raw counts of the panel; columns of genes that the section lacks are NaN.
    """

    name: str
    patient: str
    counts: Array


def panel_counts(section: SectionFile, measured: "AnnData", panel: Sequence[str]) -> Section:
    """Return the panel's counts of one section; genes it lacks are NaN."""
    place = {gene: column for column, gene in enumerate(measured.var_names)}
    known = [row for row, gene in enumerate(panel) if gene in place]
    counts = np.full((measured.n_obs, len(panel)), np.nan)
    counts[:, known] = measured[:, [place[panel[row]] for row in known]].X.toarray()
    return Section(section.name, section.patient, counts)


def learn_vectors(
    sections: Sequence[SectionFile],
    panel: Sequence[str],
    *,
    relative: bool = False,
    width: int | None = None,
) -> Steps[GeneTable]:
    """Learn gene vectors from `sections`.

    Parameters
    ----------
    sections
        From `find_sections`.
    panel
        Genes.
    relative
        Correlate each gene's share of the spot's panel counts, so that depth drops out.
    width
        Length of the vectors; None keeps every direction of positive variance.

    Returns
    -------
    The table; its source names the sections, their patients, and the hash of each section's counts.
    """
    read, hashes = [], {}
    for done, section in enumerate(sections, start=1):
        measured = section.read()
        read.append(panel_counts(section, measured, panel))
        hashes[section.name] = counts_hash(measured)
        yield Step("Reading counts", done, len(sections), "sections")
    correlations, known = average_correlations(read, relative=relative)
    vectors = factor(correlations, width)
    source = {
        "model": "co-expression",
        "method": "share of the spot's panel counts" if relative else "log2(count + 1)",
        "species": "as measured",
        "sections": [section.name for section in sections],
        "patients": sorted({section.patient for section in sections}),
        "counts": hashes,
    }
    rows = {gene: vectors[row] for row, gene in enumerate(panel) if known[row]}
    return collect(panel, rows, source)


def section_correlations(section: Section, *, relative: bool = False) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the (G, G) correlations of one section, and (G,) which genes vary in it at all."""
    counts = np.nan_to_num(section.counts)
    if relative:
        total = counts.sum(1)
        counts = counts[total > 0] / total[total > 0, None] * np.median(total[total > 0])
    values = np.log2(counts + 1)
    if len(values) < _FEWEST:
        raise UserError(
            f"Section {section.name} has {len(values)} spots with counts of the panel, too few to learn "
            f"co-expression from (at least {_FEWEST}); leave it out."
        )
    return gene_correlations(values), ~constant_genes(values)


def average_correlations(
    sections: Sequence[Section], *, relative: bool = False
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the shrunk (G, G) correlations over `sections`, and (G,) which genes they know.

    A pair of genes counts in the sections where both vary.
    """
    patients = sorted({section.patient for section in sections})
    size = sections[0].counts.shape[1]
    z, weight = np.zeros((len(patients), size, size)), np.zeros((len(patients), size, size))
    for section in sections:
        correlations, varies = section_correlations(section, relative=relative)
        pairs = np.outer(varies, varies) * (len(section.counts) - 3.0)
        row = patients.index(section.patient)
        z[row] += pairs * np.arctanh(np.clip(correlations, -_LARGEST, _LARGEST))
        weight[row] += pairs
    seen = weight > 0
    z = np.divide(z, weight, out=np.zeros_like(z), where=seen)
    error = np.divide(1.0, weight, out=np.zeros_like(z), where=seen)  # variance of z, Fisher 1921
    number = np.maximum(seen.sum(0), 1)
    mean = np.tanh(z.sum(0) / number)
    known = np.diagonal(seen.any(axis=0)).copy()
    return _shrink(mean, (1 - mean**2) ** 2 * error.sum(0) / number**2), known


def _shrink(correlations: Array, variance: Array) -> Array:
    """Shrink off-diagonal `correlations` with sampling `variance` towards 0; the diagonal is 1."""
    outside = ~np.eye(len(correlations), dtype=bool)
    power = (correlations[outside] ** 2).sum()
    intensity = min(1.0, variance[outside].sum() / power) if power > 0 else 1.0
    shrunk = (1 - intensity) * correlations
    np.fill_diagonal(shrunk, 1.0)
    return shrunk


def factor(correlations: Array, width: int | None = None) -> Array:
    """Return (G, d) vectors V with V Vᵀ ≈ `correlations`: eigenvectors times √eigenvalue, largest first.

    Directions of no positive variance, which averaging in z can leave, are dropped.  Each vector's
    sign is fixed by its largest entry, so that the same counts give the same file.
    """
    values, vectors = np.linalg.eigh(correlations)
    order = np.argsort(values)[::-1][:width]
    order = order[values[order] > 1e-8 * values[order[0]]]
    vectors = vectors[:, order]
    largest = np.abs(vectors).argmax(0)
    signs = np.sign(vectors[largest, np.arange(len(order))])
    factors: Array = vectors * signs * np.sqrt(values[order])
    return factors


def cosines(vectors: npt.NDArray[np.float32]) -> Array:
    """Return the (G, G) cosines between gene vectors."""
    unit = vectors.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found: Array = unit @ unit.T
    return found


def agreement(table: GeneTable, section: Section, *, relative: bool = False) -> float:
    """Return how well a table's cosines predict a section's gene–gene correlations, as GSC does.

    Parameters
    ----------
    table
        Gene vectors.
    section
        Counts in the order of ``table.genes``.
    relative
        Whether depth is removed first (`section_correlations`).
    """
    correlations, varies = section_correlations(section, relative=relative)
    return gene_structure_correlation(cosines(table.vectors), correlations, ~varies)
