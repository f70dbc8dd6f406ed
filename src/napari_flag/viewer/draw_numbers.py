"""What stays from one joint draw of a slide to the next, and what moves.

Between draws single spots differ, as far as the slide leaves them open, while which genes go together and
which cluster in space stays: PCC, GSC and SSC of one draw against another say how far.  Holds no Qt.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.progress import Step, Steps
from napari_flag.viewer.joint_draws import count, draws, layer_of
from napari_flag.viewer.section_scores import MOST_GENES

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

METRICS: Final = ("PCC", "GSC", "SSC")
TRUTH, MEAN = "truth", "mean"
ALIKE: Final = 1e-6
"""A column shorter than this, once centred, is constant up to float32 rounding."""


@dataclass(frozen=True, slots=True)
class DrawNumbers:
    """What stays from draw to draw and what moves.

    Parameters
    ----------
    table
        One row per draw: PCC, GSC and SSC against the truth where there is one, else against ``X``.
    against
        `TRUTH` or `MEAN`, what `table` holds the draws against.
    between
        "PCC", "GSC", "SSC" of two draws held against each other, mean over all pairs.
    moran
        (K, G) Moran's I of each gene in each draw.
    """

    table: "pd.DataFrame"
    against: str
    between: dict[str, float]
    moran: npt.NDArray[np.float64]


def compare_draws(adata: "AnnData") -> Steps[DrawNumbers]:
    """Hold the draws of `adata` against the truth (or their mean), and against one another.

    Parameters
    ----------
    adata
        With at least one draw; spots that were not measured are left out of the comparison with truth.
    """
    import pandas as pd

    from napari_flag.comparison import spot_neighbours
    from napari_flag.matching import dense
    from napari_flag.statistics.coexpression import upper_triangle

    yield Step("Comparing draws", 0, None)
    measured = dense(adata.layers[keys.MEASURED]) if keys.MEASURED in adata.layers else None
    known = None if measured is None else np.isfinite(measured)
    if known is None or not known.any():
        rows, columns = np.arange(adata.n_obs), np.arange(adata.n_vars)
        reference, against = dense(adata.X), MEAN
    else:
        rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
        assert measured is not None
        reference, against = measured, TRUTH
    here = np.ix_(rows, columns)
    weights = spot_neighbours(adata, rows).weights
    base = _Structure.of(reference[here].astype(np.float64), weights)
    found, moran, pairs = [], [], {name: _MeanOfPairs() for name in METRICS}
    for number, values in enumerate(draws(adata), start=1):
        yield Step("Comparing draws", number - 1, count(adata), "draws")
        one = _Structure.of(values[here], weights)
        found.append({"draw": str(number), **one.against(base)})
        moran.append(one.moran)
        pairs["PCC"].add(one.values)
        pairs["SSC"].add(one.moran[:, None])
        if one.together is not None:
            pairs["GSC"].add(upper_triangle(one.together)[:, None])
    everywhere = np.full((len(moran), adata.n_vars), np.nan)
    everywhere[:, columns] = moran
    between = {name: pair.mean() for name, pair in pairs.items()} if len(found) > 1 else {}
    return DrawNumbers(pd.DataFrame(found), against, between, everywhere)


class _MeanOfPairs:
    """Mean Pearson correlation over all pairs of arrays added, column by column, without keeping them.

    With z the arrays centred and of length 1, Σ over pairs of zᵢ·zⱼ is (|Σz|² − Σ|z|²) / 2.
    """

    def __init__(self) -> None:
        self._total: npt.NDArray[np.float64] | None = None
        self._squares: Any = 0.0
        self._arrays = 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Add one (m, columns) array; a column that is constant in it correlates 0."""
        z = values - values.mean(axis=0)
        length = np.sqrt((z * z).sum(axis=0))
        z /= np.where(length > ALIKE, length, np.inf)
        self._total = z if self._total is None else self._total + z
        self._squares = self._squares + (z * z).sum(axis=0)
        self._arrays += 1

    def mean(self) -> float:
        """Return the mean over pairs, and over the columns that are not constant in all; NaN if none is."""
        if self._total is None or self._arrays < 2:
            return float("nan")
        known = self._squares > 0
        if not known.any():
            return float("nan")
        pairs = self._arrays * (self._arrays - 1)
        means = ((self._total**2).sum(axis=0) - self._squares)[known] / pairs
        return float(means.mean())


@dataclass(frozen=True, slots=True)
class _Structure:
    """Values of one draw, their gene–gene correlations (None for very many genes) and Moran's I."""

    values: npt.NDArray[np.float64]
    together: npt.NDArray[np.float64] | None
    moran: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], weights: Any) -> "_Structure":
        from napari_flag.statistics import autocorrelation, coexpression

        few = values.shape[1] <= MOST_GENES
        together = coexpression.gene_correlations(values) if few else None
        return cls(values, together, autocorrelation.moran_i(values, weights))

    def against(self, other: "_Structure") -> dict[str, float]:
        """Return PCC, GSC and SSC with `other` as the truth."""
        from napari_flag.statistics import accuracy, autocorrelation, coexpression

        unseen = accuracy.constant_genes(other.values)
        gsc = float("nan")
        if self.together is not None and other.together is not None:
            gsc = coexpression.gene_structure_correlation(self.together, other.together, unseen)
        return {
            "PCC": accuracy.mean_over_genes(accuracy.gene_pearson(self.values, other.values)),
            "GSC": gsc,
            "SSC": autocorrelation.spatial_structure_correlation(self.moran, other.moran, unseen),
        }


def gene_between(adata: "AnnData", gene: str) -> float:
    """Return the mean Pearson correlation of `gene` between two draws; NaN for fewer than two."""
    from napari_flag.matching import dense

    column = [int(adata.var_names.get_loc(gene))]
    names, layers = [layer_of(number) for number in range(1, count(adata) + 1)], adata.layers
    if len(names) < 2:
        return float("nan")
    values = np.stack([dense(layers[name][:, column])[:, 0] for name in names]).astype(np.float64)
    if (np.ptp(values, axis=1) <= 0).any():
        return float("nan")
    together = np.atleast_2d(np.corrcoef(values))
    return float(together[np.triu_indices(len(names), 1)].mean())
