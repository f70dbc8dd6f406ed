"""A prediction beside its truth, as the pictures need them: the spots and genes that were measured."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_flag import keys
from napari_flag.comparison import score_values, slide_name
from napari_flag.matching import dense
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.autocorrelation import find_neighbours
from napari_flag.statistics.intervals import neighbouring_blocks

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, slots=True)
class Section:
    """A prediction of one section beside its truth.

    Parameters
    ----------
    name
        Of the section.
    genes
        G symbols.
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
    truth: FloatArray
    predicted: FloatArray
    sample: FloatArray
    spread: FloatArray | None
    moran_truth: FloatArray
    moran_predicted: FloatArray
    scores: dict[str, float]


def section_of(adata: "AnnData") -> Section:
    """Return the spots and genes of `adata` that have a truth, and what the pictures need of them.

    Parameters
    ----------
    adata
        A prediction with ``layers["measured"]`` (see `matching.lay_beside`).
    """
    truth = _float(adata.layers[keys.MEASURED])
    spots, genes = np.isfinite(truth).any(1), np.isfinite(truth).any(0)
    chosen = np.ix_(spots, genes)
    truth, predicted = truth[chosen], _float(adata.X)[chosen]
    symbols = tuple(str(gene) for gene in adata.var_names[genes])
    xy = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[spots]
    array = None
    if keys.ARRAY_ROW in adata.obs and keys.ARRAY_COL in adata.obs:
        array = adata.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy(np.int64)[spots]
    neighbours = find_neighbours(xy, array, adata.uns[keys.PROVENANCE].get(keys.LATTICE, "none"))
    scores, table = score_values(predicted, truth, neighbours, neighbouring_blocks(xy), list(symbols), seed=0)
    spread = _float(adata.layers[keys.SPREAD])[chosen] if keys.SPREAD in adata.layers else None
    return Section(
        slide_name(adata),
        symbols,
        truth,
        predicted,
        _float(adata.layers[keys.SAMPLE])[chosen],
        spread,
        table.moran_measured.to_numpy(),
        table.moran_predicted.to_numpy(),
        scores.values,
    )


def _float(values: object) -> FloatArray:
    return np.asarray(dense(values), np.float64)
