"""The numbers behind a gene map: one gene, one quantity, one value per spot, and its limits."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.prediction_file import provenance

Float32Array: TypeAlias = npt.NDArray[np.float32]
Limits: TypeAlias = tuple[float, float]

TRANSPOSE_BYTES: Final = 512 * 2**20
"""Matrices up to this size are kept gene-major, so that a gene is one contiguous read."""

CACHED_GENES: Final = 64
"""Genes of a larger matrix remembered, most recent first: arrow keys go back and forth."""

CHUNK_GENES: Final = 512
"""Genes summarised at a time, which bounds the memory of `GeneValues.summary`."""


class Quantity(Enum):
    """What a gene map shows; the value is the word in layer names and menus."""

    PREDICTED = "predicted"
    SAMPLE = "one sample"
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
    Quantity.PREDICTED: "Predicted expression: the mean over all samples drawn.",
    Quantity.SAMPLE: "One joint sample: as varied between spots as real tissue, but noisier.",
    Quantity.MEASURED: "Measured expression of the same spots.",
    Quantity.DIFFERENCE: "Predicted minus measured: red is predicted too high, blue too low.",
    Quantity.SPREAD: "How far the samples lie apart: high means the model is unsure.",
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
        As in CONTRIBUTING, "The prediction file"; ``X`` and layers dense or sparse.
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
        if quantity in (Quantity.MEASURED, Quantity.DIFFERENCE) and keys.MEASURED not in layers:
            return (
                "There is no measured expression for these spots; predict with a spot table that "
                "comes with counts to compare."
            )
        if quantity is Quantity.SPREAD and keys.SPREAD not in layers:
            return "Only one sample was drawn, so there is no spread; predict with 2 or more samples."
        if quantity is Quantity.SAMPLE and keys.SAMPLE not in layers:
            return "This file holds only the mean, not a single sample."
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
        """Return contrast limits; prediction, sample and measurement of a gene share theirs."""
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
        mean = np.empty(len(self.genes), np.float32)
        variance = np.empty(len(self.genes), np.float32)
        matrix = _matrix(self.adata, quantity)
        for start in range(0, len(self.genes), CHUNK_GENES):
            part = slice(start, start + CHUNK_GENES)
            block = _dense(matrix[:, part])
            seen = np.isfinite(block)
            count = np.maximum(seen.sum(axis=0), 1)
            mean[part] = np.where(seen, block, 0).sum(axis=0) / count
            off = np.where(seen, block - mean[part], 0)
            variance[part] = (off**2).sum(axis=0) / count
        return mean, variance

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
            self._columns[quantity] = _Columns(matrix)
        return self._columns[quantity]


class _Columns:
    """Columns of a (spots, genes) matrix as contiguous float32."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self._cache: OrderedDict[int, Float32Array] = OrderedDict()
        self._read: Callable[[int], Float32Array] = self._cached
        n_spots, n_genes = matrix.shape
        if n_spots * n_genes * 4 <= TRANSPOSE_BYTES:
            gene_major = np.ascontiguousarray(_dense(matrix).T)
            self._read = lambda gene: gene_major[gene]
        elif hasattr(matrix, "tocsc"):
            self._matrix = matrix.tocsc()

    def get(self, gene: int) -> Float32Array:
        """Return the column of one gene."""
        return self._read(gene)

    def _cached(self, gene: int) -> Float32Array:
        if gene not in self._cache:
            column = _dense(self._matrix[:, gene : gene + 1])[:, 0]
            self._cache[gene] = np.ascontiguousarray(column)
            if len(self._cache) > CACHED_GENES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(gene)
        return self._cache[gene]


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
