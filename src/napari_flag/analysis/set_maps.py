"""The genes of one set over regions or domains, predicted beside measured: the numbers of a heat map."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag.analysis.domains import domain_title
from napari_flag.analysis.regions import BoolArray
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    FloatArray,
    Numbers,
    extent_of,
    matrix_of,
    sources,
)
from napari_flag.errors import UserError
from napari_flag.formatting import counted_of, whole
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import composition

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


MOST_GENES: Final = 100
"""Rows of a heat map: of a larger set those that differ most between the regions."""
NAMED: Final = 3
"""Sets named where the one asked for is not there."""
FEWEST: Final = 2
"""Genes of a set that is shown where none was chosen."""
LEAST_LIMIT: Final = 0.1
"""Colours end at this difference at least, log2(count + 1): less is no pattern."""


@dataclass(frozen=True, slots=True, eq=False)
class SetMap:
    """Mean expression of a set's genes in each region, against the section's.

    Parameters
    ----------
    name
        Of the set.
    genes
        (g,) symbols of the set that are predicted, those highest in the first region first.
    size
        How many genes the set has in all.
    regions
        (D,) names.
    values
        Source → (g, D) float64: mean over the region's spots of log2(count + 1) less the mean over all spots,
        after each spot's mean over all genes was taken away (depth).  NaN where a gene, or all of a
        region, was not measured.
    """

    name: str
    genes: tuple[str, ...]
    size: int
    regions: tuple[str, ...]
    values: dict[str, FloatArray]

    @property
    def limit(self) -> float:
        """Where the colours of all sources end: the largest difference, log2(count + 1)."""
        sizes = np.abs(np.concatenate([values.ravel() for values in self.values.values()]))
        known = sizes[np.isfinite(sizes)]
        return max(float(known.max()), LEAST_LIMIT) if known.size else LEAST_LIMIT

    @property
    def described(self) -> str:
        """How much of the set is shown, in words."""
        return f"{counted_of(len(self.genes), self.size, 'gene')} of {self.name}"

    def table(self) -> "pd.DataFrame":
        """Return a row per gene and region: gene, region, and a column per source."""
        import pandas as pd

        columns = {source: values.ravel() for source, values in self.values.items()}
        genes = np.repeat(np.array(self.genes, object), len(self.regions))
        return pd.DataFrame({"gene": genes, "region": list(self.regions) * len(self.genes), **columns})


def map_set(
    adata: "AnnData", name: str, members: Sequence[str], regions: Mapping[str, BoolArray]
) -> Steps[SetMap]:
    """Average the genes of a set over regions, by prediction and truth.

    Parameters
    ----------
    adata
        A prediction, with ``layers["measured"]`` or without.
    name, members
        The set; genes that are not predicted are left out.
    regions
        Name → (n,) bool; they may share spots.

    Raises
    ------
    UserError
        When none of the set's genes is predicted, or there is no region.
    """
    place = {str(gene): column for column, gene in enumerate(adata.var_names)}
    columns = np.array([place[gene] for gene in dict.fromkeys(members) if gene in place], np.int64)
    if not len(columns):
        raise UserError(
            f"None of the {whole(len(members))} genes of {name} is among the {whole(adata.n_vars)} "
            "predicted ones; choose another set, or weights that predict its genes."
        )
    if not regions:
        raise UserError("There is no region to show the set in; draw or find regions first.")
    found = {}
    for source in sources(adata):
        yield Step(f"Averaging {name}, {source}", 0, None)
        found[source] = _means(adata, source, columns, list(regions.values()))
    order = _ordered(found.get(MEASURED, found[PREDICTED]), found[PREDICTED])
    genes = tuple(str(adata.var_names[column]) for column in columns[order])
    values = {source: table[order] for source, table in found.items()}
    return SetMap(name, genes, len(set(members)), tuple(regions), values)


def first_set(sets: Mapping[str, Sequence[str]], adata: "AnnData") -> tuple[str, tuple[str, ...]]:
    """Return name and genes of the first set with two genes or more here; of the first at all without."""
    known = {str(gene) for gene in adata.var_names}
    with_genes = (name for name, members in sets.items() if len(known & set(members)) >= FEWEST)
    name = next(with_genes, next(iter(sets)))
    return name, tuple(sets[name])


def find_set(sets: Mapping[str, Sequence[str]], name: str) -> tuple[str, tuple[str, ...]]:
    """Return the set called `name`: its name as it is written, and its genes.

    Letters and digits count, in whatever case; a set that has the very name comes first.

    Raises
    ------
    UserError
        When there is none.
    """
    for alike in (str, _letters):
        for known, members in sets.items():
            if alike(known) == alike(name):
                return known, tuple(members)
    raise UserError(
        f"There is no gene set {name} among the {whole(len(sets))} at hand ({', '.join(list(sets)[:NAMED])} "
        "…); give a name as it stands in the file."
    )


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


def named_apart(regions: Iterable[tuple[str, BoolArray]]) -> dict[str, BoolArray]:
    """Return name → spots; a name that came before gets a number."""
    found: dict[str, BoolArray] = {}
    for name, mask in regions:
        own, number = name, 1
        while own in found:
            number += 1
            own = f"{name} ({number})"
        found[own] = mask
    return found


def regions_of_domains(numbers: Numbers, names: Sequence[str]) -> dict[str, BoolArray]:
    """Return name → spots of the domains, numbers from 1, 0 for none, called `names` from number 1 on."""
    there = np.unique(numbers[numbers > 0]).tolist()
    return {domain_title(names[number - 1]): numbers == number for number in there}


def _means(adata: "AnnData", source: str, columns: Numbers, regions: Sequence[BoolArray]) -> FloatArray:
    """Return (g, D) means of `columns` by region less those of the section, without depth; NaN if unknown."""
    extent = extent_of(adata, source)
    there = np.isin(columns, extent.genes)
    values = composition(extent.cut(matrix_of(adata, source)))
    values = values[:, np.searchsorted(extent.genes, columns[there])]
    found = np.full((len(columns), len(regions)), np.nan)
    for column, inside in enumerate(regions):
        here = inside[extent.spots]
        if here.any():
            found[there, column] = values[here].mean(axis=0) - values.mean(axis=0)
    return found


def _ordered(shown: FloatArray, otherwise: FloatArray) -> Numbers:
    """Return the rows by the region where each is highest, the clearest first; the most differing ones only.

    Rows unknown in `shown` are placed by `otherwise`.
    """
    known: BoolArray = np.asarray(np.isfinite(shown).any(axis=1))
    values = np.where(known[:, None], shown, otherwise)
    values = np.nan_to_num(values, nan=-np.inf)
    highest, peak = values.argmax(axis=1), values.max(axis=1)
    finite = np.where(np.isfinite(values), values, np.nan)
    spread = np.nanmax(finite, axis=1) - np.nanmin(finite, axis=1)
    kept = np.zeros(len(values), bool)
    kept[np.argsort(-spread, kind="stable")[:MOST_GENES]] = True
    order = np.lexsort((-peak, highest))
    return order[kept[order]].astype(np.int64)
