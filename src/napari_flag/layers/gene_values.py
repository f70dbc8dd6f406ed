"""The numbers behind a gene map: one gene, one quantity, one value per spot, and its limits."""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.truth import MEASURED, PREDICTED, sources
from napari_flag.layers.kept import Kept
from napari_flag.prediction_file import provenance

Float32Array: TypeAlias = npt.NDArray[np.float32]
Limits: TypeAlias = tuple[float, float]

CACHED_GENES: Final = 64
"""Genes remembered, most recent first: arrow keys go back and forth."""

CHUNK_NUMBERS: Final = 2**20
"""Numbers summarised at a time, which bounds the memory of `GeneValues.summary`."""


class Quantity(Enum):
    """What a gene map shows; the value is the word in layer names and menus."""

    PREDICTED = "predicted"
    SAMPLE = "one draw"
    MEASURED = "measured"
    DIFFERENCE = "difference"
    SPREAD = "spread"

    @property
    def meaning(self) -> str:
        """One line that explains the quantity to a person."""
        return _MEANING[self]

    def unit(self, of_values: str) -> str:
        """Return the unit of the quantity, as colour bars, docks, figures and the report write it.

        Parameters
        ----------
        of_values
            Unit of the expression values: `GeneValues.units`.
        """
        return _UNIT.get(self, "{}").format(of_values)

    @property
    def is_expression(self) -> bool:
        """Whether it is an expression level, and so shares limits with the other levels."""
        return self in (Quantity.PREDICTED, Quantity.SAMPLE, Quantity.MEASURED)


_MEANING: Final = {
    Quantity.PREDICTED: "Predicted expression: the expectation, one best value for every spot.",
    Quantity.SAMPLE: "One draw: counts that could have been measured here, noise included.",
    Quantity.MEASURED: "Measured expression of the same spots.",
    Quantity.DIFFERENCE: "Predicted minus measured: red is predicted too high, blue too low.",
    Quantity.SPREAD: "Standard deviation of a measurement: high means that the slide says little.",
}
_UNIT: Final = {
    Quantity.DIFFERENCE: "predicted − measured, {}",
    Quantity.SPREAD: "standard deviation, {}",
}
"""What is said of a unit that is not that of the values alone."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """How limits are chosen.

    Parameters
    ----------
    percentile
        Limits at this percentile and its mirror: 1 means from the 1st to the 99th.
    fixed
        The same (low, high) for every gene; replaces `percentile`.  A difference takes ± high.
    """

    percentile: float = 1.0
    fixed: Limits | None = None


class GeneValues:
    """Values of one prediction, by gene and quantity.

    Parameters
    ----------
    adata
        As docs/prediction-file.md states; ``X`` and layers dense or sparse.
    """

    def __init__(self, adata: Any) -> None:
        self.adata = adata
        self.genes = tuple(str(name) for name in adata.var_names)
        self._row = {gene: i for i, gene in enumerate(self.genes)}
        self._columns: dict[Quantity, _Columns] = {}
        self.sample = keys.SAMPLE

    def set_sample(self, layer: str) -> None:
        """Take another joint draw for `Quantity.SAMPLE`: the ``layers`` key it stands under."""
        if layer != self.sample:
            self.sample = layer
            self._columns.pop(Quantity.SAMPLE, None)

    def __contains__(self, gene: str) -> bool:
        return gene in self._row

    def why_not(self, quantity: Quantity) -> str | None:
        """Return why `quantity` cannot be shown, as a sentence for the user, or None if it can."""
        layers = self.adata.layers
        compared = quantity in (Quantity.MEASURED, Quantity.DIFFERENCE)
        if compared and MEASURED not in sources_of(self.adata):
            return (
                "There is no measured expression for these spots; predict with a spot table that "
                "comes with counts to compare."
            )
        if quantity is Quantity.SPREAD and keys.SPREAD not in layers:
            return "This file states no spread; predict again to have one."
        if quantity is Quantity.SAMPLE and keys.SAMPLE not in layers:
            return "This file holds the expectation only, and no draw of it."
        return None

    def values(self, gene: str, quantity: Quantity) -> Float32Array:
        """Return one float32 per spot; NaN where there is no value.

        Raises
        ------
        KeyError
            When the gene or quantity is not there; ask `why_not` and ``in`` first.
        """
        if quantity is Quantity.DIFFERENCE:
            predicted = self.values(gene, Quantity.PREDICTED)
            return predicted - self.values(gene, Quantity.MEASURED)
        return self._column(quantity).get(self._row[gene])

    def limits(self, gene: str, quantity: Quantity, contrast: Contrast) -> Limits:
        """Return contrast limits; prediction, draw and measurement of a gene share theirs."""
        if contrast.fixed is not None:
            low, high = contrast.fixed
            span = max(abs(low), abs(high))
            return _apart(-span, span) if quantity is Quantity.DIFFERENCE else _apart(low, high)
        if quantity is Quantity.DIFFERENCE:
            sizes = np.abs(self.values(gene, quantity))
            _, high = _percentiles(sizes, contrast.percentile)
            return _apart(-high, high)
        if quantity is Quantity.SPREAD:
            _, high = _percentiles(self.values(gene, quantity), contrast.percentile)
            return _apart(0.0, high)
        levels = (Quantity.PREDICTED, Quantity.MEASURED)
        seen = [self.values(gene, q) for q in levels if self.why_not(q) is None]
        return _apart(*_percentiles(np.concatenate(seen), contrast.percentile))

    def summary(self, quantity: Quantity = Quantity.PREDICTED) -> tuple[Float32Array, Float32Array]:
        """Return mean and variance over spots of every gene, NaN spots left out."""
        matrix = _matrix(self.adata, quantity)
        return _SUMMARIES[quantity].of(self.adata, (matrix,), lambda: _summary(matrix))

    def ranked(self) -> tuple[str, ...]:
        """Return the genes from the most variable over the spots to the least, as predicted."""
        _, variance = self.summary()
        return tuple(self.genes[place] for place in np.argsort(-variance, kind="stable"))

    def warm(self) -> None:
        """Do ahead what reading a gene or the summary would have to do first; may run in a worker."""
        for quantity in Quantity:
            if quantity is not Quantity.DIFFERENCE and self.why_not(quantity) is None:
                _by_gene(self.adata, quantity.value, _matrix(self.adata, quantity))
        self.summary()

    @property
    def units(self) -> str:
        """Units of the expression values, as the file states them."""
        return str(provenance(self.adata).get(keys.UNITS, "units not stated in the file"))

    def unit(self, quantity: Quantity) -> str:
        """Return the unit of `quantity`: "log2(count + 1)", "standard deviation, log2(count + 1)"."""
        return quantity.unit(self.units)

    def _column(self, quantity: Quantity) -> "_Columns":
        if quantity not in self._columns:
            drawn = quantity is Quantity.SAMPLE
            matrix = self.adata.layers[self.sample] if drawn else _matrix(self.adata, quantity)
            name = self.sample if drawn else quantity.value
            self._columns[quantity] = _Columns(_by_gene(self.adata, name, matrix))
        return self._columns[quantity]


_SOURCES: Final[Kept[tuple[str, ...]]] = Kept("sources")


def sources_of(adata: Any) -> tuple[str, ...]:
    """Return which sources `adata` has, as `analysis.truth.sources`, found once."""
    if keys.MEASURED not in adata.layers:
        return (PREDICTED,)
    return _SOURCES.of(adata, (adata.layers[keys.MEASURED],), lambda: sources(adata))


def keep_measured(adata: Any, values: Float32Array) -> None:
    """Have `sources_of` know `values`, made of counts that match, before they are ``layers["measured"]``."""
    _SOURCES.of(adata, (values,), lambda: (PREDICTED, MEASURED))


class _Columns:
    """Columns of a (spots, genes) matrix as contiguous float32; a dense one is read with strides.

    Reading 50,000 rows with strides takes less than a millisecond, keeping the matrix gene-major as well
    ten times as long as the window may be held up.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self._cache: OrderedDict[int, Float32Array] = OrderedDict()

    def get(self, gene: int) -> Float32Array:
        """Return the column of one gene."""
        if gene not in self._cache:
            column = _dense(self._matrix[:, gene : gene + 1])[:, 0]
            self._cache[gene] = np.ascontiguousarray(column)
            if len(self._cache) > CACHED_GENES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(gene)
        return self._cache[gene]


def _by_gene(adata: Any, name: str, matrix: Any) -> Any:
    """Return `matrix` so that a column is quick to read: a sparse one as CSC, kept of `adata` as `name`."""
    if not hasattr(matrix, "tocsc"):
        return matrix
    return Kept(f"columns of {name}").of(adata, (matrix,), matrix.tocsc)


_SUMMARIES: Final[dict[Quantity, Kept[tuple[Float32Array, Float32Array]]]] = {
    quantity: Kept(f"summary of {quantity.value}") for quantity in Quantity
}


def _summary(matrix: Any) -> tuple[Float32Array, Float32Array]:
    """Return mean and variance of the columns of (spots, genes) `matrix`, NaN left out."""
    n_spots, n_genes = matrix.shape
    rows = max(CHUNK_NUMBERS // max(n_genes, 1), 1)
    parts = [slice(start, start + rows) for start in range(0, n_spots, rows)]
    total, count = np.zeros(n_genes), np.zeros(n_genes)
    for part in parts:
        block = _dense(matrix[part])
        sums = block.sum(axis=0, dtype=np.float64)
        whole = bool(np.isfinite(sums).all())
        seen = None if whole else np.isfinite(block)
        total += sums if seen is None else np.where(seen, block, 0).sum(axis=0, dtype=np.float64)
        count += len(block) if seen is None else seen.sum(axis=0)
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    squares = np.zeros(n_genes)
    for part in parts:
        off = _dense(matrix[part]) - mean
        more = np.einsum("ij,ij->j", off, off)
        if not np.isfinite(more).all():
            off[~np.isfinite(off)] = 0
            more = np.einsum("ij,ij->j", off, off)
        squares += more
    return mean, (squares / np.maximum(count, 1)).astype(np.float32)


def _matrix(adata: Any, quantity: Quantity) -> Any:
    layer = {
        Quantity.SAMPLE: keys.SAMPLE,
        Quantity.MEASURED: keys.MEASURED,
        Quantity.SPREAD: keys.SPREAD,
    }.get(quantity)
    return adata.X if layer is None else adata.layers[layer]


def _dense(matrix: Any) -> Float32Array:
    dense = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return np.asarray(dense, dtype=np.float32)


def _percentiles(values: Float32Array, percentile: float) -> Limits:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (percentile, 100.0 - percentile))
    return float(low), float(high)


def _apart(low: float, high: float) -> Limits:
    """Keep limits apart: a gene without any variation still needs an interval to be drawn in."""
    return (low, high) if high - low > 1e-6 else (low, low + 1.0)
