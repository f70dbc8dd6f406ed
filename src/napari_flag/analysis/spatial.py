"""Which spots are neighbours, and how every gene clusters in space, in prediction and measurement."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    dense,
    extent_of,
    gene_parts,
    matrix_of,
    measured_extent,
)
from napari_flag.prediction_file import array_coordinates, stated_lattice
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import FloatArray, constant_genes
from napari_flag.statistics.local_moran import CLASSES as CLASSES
from napari_flag.statistics.local_moran import LocalMoran as LocalMoran
from napari_flag.statistics.local_moran import local_moran
from napari_flag.statistics.local_moran import local_values as local_values
from napari_flag.statistics.moran import FEWEST_SPOTS as FEWEST_SPOTS
from napari_flag.statistics.moran import moran_i, moran_test, spatial_structure_correlation
from napari_flag.statistics.neighbours import Neighbours as Neighbours
from napari_flag.statistics.neighbours import find_neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse


Key = TypeVar("Key", bound=Hashable)

ALL: Final = slice(None)


def spot_neighbours(adata: "AnnData", rows: npt.NDArray[Any] | slice = ALL) -> Neighbours:
    """Return which spots are neighbours, from the array where it is known and else from distances.

    Parameters
    ----------
    adata
        With ``obsm["spatial"]``; the lattice is read where napari-flag predicted it.
    rows
        Which of its spots, as mask or positions.
    """
    array = array_coordinates(adata)
    known = None if array is None else array[rows]
    xy = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[rows]
    return find_neighbours(xy, known, stated_lattice(adata))


def source_neighbours(adata: "AnnData", source: str) -> tuple[npt.NDArray[np.bool_], Neighbours]:
    """Return which (n,) spots one source has values of, whatever the gene, and the graph of these spots.

    Parameters
    ----------
    adata
        A prediction.
    source
        `truth.PREDICTED`, all its spots, or `truth.MEASURED`, those of `truth.measured_extent`.
    """
    seen = np.ones(adata.n_obs, bool)
    if source == MEASURED:
        extent = measured_extent(adata)
        seen = np.isin(np.arange(adata.n_obs), () if extent is None else extent.spots)
    return seen, spot_neighbours(adata, seen)


def find_classes(
    wanted: "Iterable[tuple[Key, FloatArray, sparse.csr_array]]",
) -> Steps[dict[Key, LocalMoran]]:
    """Test genes for local clusters, with 999 conditional permutations each.

    Parameters
    ----------
    wanted
        Per gene a key, its (n,) values and the (n, n) CSR weights of its spots.

    Raises
    ------
    UserError
        When there are too few spots to test.
    """
    found = {}
    for key, values, weights in wanted:
        found[key] = yield from local_moran(values, weights, seed=keys.ANALYSIS_SEED)
    return found


def classes_of(found: LocalMoran, *, corrected: bool) -> npt.NDArray[np.int8]:
    """Return (n,) int8 classes as in `CLASSES`.

    Parameters
    ----------
    found
        Of one gene.
    corrected
        Whether spots are significant by q ≤ 0.05 over all spots together, instead of p ≤ 0.05 each.
    """
    return np.where(found.certain, found.quadrants, 0).astype(np.int8) if corrected else found.classes


def gene_moran(adata: "AnnData", source: str = PREDICTED, *, permutations: int = 0) -> Steps["pd.DataFrame"]:
    """Test every gene of one source for clustering in space.

    Parameters
    ----------
    adata
        A prediction.
    source
        `truth.PREDICTED`, over all its spots and genes, or `truth.MEASURED`, over what was measured.
    permutations
        As `moran_test`, which this returns the table of, a row per gene of the source.

    Raises
    ------
    UserError
        When there are too few spots to test, or nothing was measured.
    """
    extent = extent_of(adata, source)
    matrix = matrix_of(adata, source)
    if not extent.is_all_of(adata):
        matrix = matrix[extent.spots][:, extent.genes]
    graph = spot_neighbours(adata, extent.spots)
    return (yield from moran_test(matrix, graph.weights, permutations=permutations, seed=keys.ANALYSIS_SEED))


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


def score_spatially(adata: "AnnData", *, permutations: int = 0) -> Steps[SpatialScores]:
    """Compute Moran's I of all genes, tested, and of the truth where there is one.

    Parameters
    ----------
    adata
        As docs/prediction-file.md states.
    permutations
        Of the test; 0 takes p from the normal approximation.

    Raises
    ------
    UserError
        When there are too few spots to test.
    """
    tested = yield from gene_moran(adata, permutations=permutations)
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
        neighbours=spot_neighbours(adata).description,
        permutations=permutations,
    )


def _against_truth(
    adata: "AnnData", predicted: FloatArray
) -> Steps[tuple[FloatArray | None, FloatArray | None, float, int]]:
    """Return Moran's I of the truth and of ``X`` there, SSC, and the number of spots measured."""
    extent = measured_extent(adata)
    if extent is None:
        return None, None, float("nan"), 0
    spots = extent.spots
    weights = spot_neighbours(adata, spots).weights
    measured, there = np.full((2, adata.n_vars), np.nan)
    silent = np.ones(adata.n_vars, bool)
    for part in gene_parts(adata.n_vars):
        yield Step("Moran's I of the truth", part.start, adata.n_vars, "genes")
        here = extent.genes[(extent.genes >= part.start) & (extent.genes < part.stop)]
        truth = dense(adata.layers[keys.MEASURED][:, here])[spots].astype(np.float64)
        measured[here], silent[here] = moran_i(truth, weights), constant_genes(truth)
        whole = len(spots) == adata.n_obs
        there[here] = predicted[here] if whole else moran_i(dense(adata.X[:, here])[spots], weights)
    ssc = spatial_structure_correlation(there, measured, silent)
    measured[silent] = np.nan
    return measured, there, ssc, len(spots)
