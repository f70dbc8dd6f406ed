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

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

METRICS: Final = ("PCC", "GSC", "SSC")
TRUTH, MEAN = "truth", "mean"


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
    found, total = [], count(adata)
    for number, values in enumerate(draws(adata), start=1):
        yield Step("Comparing draws", number, total, "draws")
        found.append(_Structure.of(values[here], weights))
    table = pd.DataFrame([one.against(base) for one in found])
    table.insert(0, "draw", [str(number) for number in range(1, total + 1)])
    between = []
    for i, one in enumerate(found):
        yield Step("Comparing draws with each other", i, total, "draws")
        between += [other.against(one) for other in found[i + 1 :]]
    mean = {name: float(np.mean([pair[name] for pair in between])) for name in METRICS} if between else {}
    moran = np.full((total, adata.n_vars), np.nan)
    moran[:, columns] = [one.moran for one in found]
    return DrawNumbers(table, against, mean, moran)


@dataclass(frozen=True, slots=True)
class _Structure:
    """Values of one draw, their gene–gene correlations and Moran's I."""

    values: npt.NDArray[np.float64]
    together: npt.NDArray[np.float64]
    moran: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], weights: Any) -> "_Structure":
        from napari_flag.statistics import autocorrelation, coexpression

        return cls(values, coexpression.gene_correlations(values), autocorrelation.moran_i(values, weights))

    def against(self, other: "_Structure") -> dict[str, float]:
        """Return PCC, GSC and SSC with `other` as the truth."""
        from napari_flag.statistics import accuracy, autocorrelation, coexpression

        unseen = accuracy.constant_genes(other.values)
        return {
            "PCC": accuracy.mean_over_genes(accuracy.gene_pearson(self.values, other.values)),
            "GSC": coexpression.gene_structure_correlation(self.together, other.together, unseen),
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
