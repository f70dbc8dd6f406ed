"""A prediction beside its truth, as the pictures need them: the spots and genes that were measured."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.compare import score_values, spot_neighbours
from napari_flag.analysis.truth import dense
from napari_flag.prediction_file import slide_name
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.bootstrap import neighbouring_blocks

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.analysis.compare import Comparison


@dataclass(frozen=True, slots=True)
class Section:
    """A prediction of one section beside its truth.

    Parameters
    ----------
    name
        Of the section.
    genes
        G symbols.
    rows
        (n,) int64, which spots of the prediction were measured.
    truth, predicted, sample
        (n, G) float64 log2(count + 1): measured, ``X``, and one joint sample.
    spread
        (n, G) ``layers["sd"]``, None where one sample was drawn.
    moran_truth, moran_predicted
        (G,) Moran's I on the array's first ring.
    scores
        The six metrics of ``X``.
    """

    name: str
    genes: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    truth: FloatArray
    predicted: FloatArray
    sample: FloatArray
    spread: FloatArray | None
    moran_truth: FloatArray
    moran_predicted: FloatArray
    scores: dict[str, float]

    def only(self, columns: npt.NDArray[np.int64]) -> "Section":
        """Return the same section with some of its genes; the scores stay those of all."""
        return replace(
            self,
            genes=tuple(self.genes[column] for column in columns),
            truth=self.truth[:, columns],
            predicted=self.predicted[:, columns],
            sample=self.sample[:, columns],
            spread=None if self.spread is None else self.spread[:, columns],
            moran_truth=self.moran_truth[columns],
            moran_predicted=self.moran_predicted[columns],
        )


def section_of(adata: "AnnData", comparison: "Comparison | None" = None) -> Section:
    """Return the spots and genes of `adata` that have a truth, and what the pictures need of them.

    Parameters
    ----------
    adata
        A prediction with ``layers["measured"]`` (see `matching.attach_measured`).
    comparison
        Of the same prediction and truth, where it was made already; scores and Moran's I are its.
    """
    truth = _float(adata.layers[keys.MEASURED])
    rows, columns = np.flatnonzero(np.isfinite(truth).any(1)), np.flatnonzero(np.isfinite(truth).any(0))
    chosen = np.ix_(rows, columns)
    truth, predicted = truth[chosen], _float(adata.X)[chosen]
    symbols = tuple(str(gene) for gene in adata.var_names[columns])
    if comparison is None:
        neighbours = spot_neighbours(adata, rows)
        blocks = neighbouring_blocks(np.asarray(adata.obsm[keys.SPATIAL], np.float64)[rows])
        scores, table = score_values(predicted, truth, neighbours, blocks, list(symbols), seed=0)
    else:
        scores, table = comparison.scores["X"], comparison.tables["X"]
    return Section(
        name=slide_name(adata),
        genes=symbols,
        rows=rows,
        truth=truth,
        predicted=predicted,
        sample=_float(adata.layers[keys.SAMPLE])[chosen],
        spread=_float(adata.layers[keys.SPREAD])[chosen] if keys.SPREAD in adata.layers else None,
        moran_truth=table.moran_measured.to_numpy(),
        moran_predicted=table.moran_predicted.to_numpy(),
        scores=scores.values,
    )


def _float(values: object) -> FloatArray:
    return np.asarray(dense(values), np.float64)
