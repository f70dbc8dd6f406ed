"""Moran's I of every gene of a prediction, beside that of the truth where there is one.  Holds no Qt."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

GENES_AT_ONCE: Final = 512
"""Genes of the truth widened at a time: 5,000 spots of them are 20 MB."""


@dataclass(frozen=True, slots=True)
class SpatialScores:
    """How every gene clusters in space.

    Parameters
    ----------
    genes
        Names in the order of the prediction.
    predicted, q
        (G,) Moran's I of ``X`` over all spots, and its q-value (Benjamini–Hochberg over genes).
    measured, predicted_there
        (G,) Moran's I of the truth, and of ``X`` on the spots that were measured; NaN for genes not
        measured or constant in truth.  None without truth.
    ssc
        Pearson's r of these two over genes; NaN without truth or below three genes.
    spots, spots_measured
        How many spots the two were computed on.
    neighbours
        Which spots count as neighbours.
    permutations
        Behind `q`; 0 when it comes from the normal approximation.
    """

    genes: tuple[str, ...]
    predicted: FloatArray
    q: FloatArray
    measured: FloatArray | None
    predicted_there: FloatArray | None
    ssc: float
    spots: int
    spots_measured: int
    neighbours: str
    permutations: int

    def table(self) -> "pd.DataFrame":
        """Return a row per gene: gene, moran_predicted, q_predicted and, with truth, moran_measured."""
        import pandas as pd

        table = pd.DataFrame({"gene": self.genes, "moran_predicted": self.predicted, "q_predicted": self.q})
        if self.measured is not None:
            table["moran_measured"] = self.measured
        return table.sort_values("moran_predicted", ascending=False, kind="stable", ignore_index=True)


def score_spatially(adata: "AnnData", *, permutations: int = 0, seed: int = 0) -> Steps[SpatialScores]:
    """Compute Moran's I of all genes, tested, and of the truth where there is one.

    Parameters
    ----------
    adata
        As CONTRIBUTING, "The prediction file".
    permutations, seed
        Of the test; 0 takes p from the normal approximation.

    Raises
    ------
    UserError
        When there are too few spots to test.
    """
    from napari_flag.analysis.compare import spot_neighbours
    from napari_flag.statistics.moran import moran_test

    graph = spot_neighbours(adata)
    tested = yield from moran_test(adata.X, graph.weights, permutations=permutations, seed=seed)
    measured, there, ssc, spots = yield from _against_truth(adata, tested["I"].to_numpy())
    return SpatialScores(
        genes=tuple(str(name) for name in adata.var_names),
        predicted=tested["I"].to_numpy(),
        q=tested["q"].to_numpy(),
        measured=measured,
        predicted_there=there,
        ssc=ssc,
        spots=adata.n_obs,
        spots_measured=spots,
        neighbours=graph.description,
        permutations=permutations,
    )


def known_truth(adata: "AnnData") -> tuple[BoolArray, BoolArray] | None:
    """Return which (n,) spots and (G,) genes were measured, None where nothing was."""
    if keys.MEASURED not in adata.layers:
        return None
    cells, genes = np.zeros(adata.n_obs, np.int64), np.zeros(adata.n_vars, bool)
    for part in _parts(adata.n_vars):
        known = np.isfinite(_dense(adata.layers[keys.MEASURED][:, part]))
        cells += known.sum(axis=1)
        genes[part] = known.any(axis=0)
    spots = cells == genes.sum()
    return (spots, genes) if spots.any() and genes.any() else None


def _against_truth(
    adata: "AnnData", predicted: FloatArray
) -> Steps[tuple[FloatArray | None, FloatArray | None, float, int]]:
    """Return Moran's I of the truth and of ``X`` there, SSC, and the number of spots measured."""
    from napari_flag.analysis.compare import spot_neighbours
    from napari_flag.statistics.accuracy import constant_genes
    from napari_flag.statistics.moran import moran_i, spatial_structure_correlation

    known = known_truth(adata)
    if known is None:
        return None, None, float("nan"), 0
    spots, genes = known
    weights = spot_neighbours(adata, spots).weights
    measured, there = np.full((2, adata.n_vars), np.nan)
    silent = ~genes
    for part in _parts(adata.n_vars):
        yield Step("Moran's I of the truth", part.start, adata.n_vars, "genes")
        here = np.arange(part.start, part.stop)[genes[part]]
        truth = _dense(adata.layers[keys.MEASURED][:, here])[spots]
        measured[here], silent[here] = moran_i(truth, weights), constant_genes(truth)
        there[here] = predicted[here] if spots.all() else moran_i(_dense(adata.X[:, here])[spots], weights)
    ssc = spatial_structure_correlation(there, measured, silent)
    measured[silent] = np.nan
    return measured, there, ssc, int(spots.sum())


def _parts(n_genes: int) -> Iterator[slice]:
    """Cut the genes into parts, which bounds memory."""
    for start in range(0, n_genes, GENES_AT_ONCE):
        yield slice(start, min(start + GENES_AT_ONCE, n_genes))


def _dense(matrix: Any) -> FloatArray:
    from napari_flag.analysis.truth import dense

    return dense(matrix).astype(np.float64)
