"""How well a prediction agrees with the measurement beside it, per gene and over all genes."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.viewer.frame import provenance

FEWEST_SPOTS: Final = 3
MOST_GENES: Final = 3000
"""GSC needs a table of all pairs of genes; beyond this it would stop the window for too long."""


@dataclass(frozen=True, slots=True)
class GeneScore:
    """Scores of one gene across the spots; NaN where the measurement is the same everywhere."""

    pcc: float
    moran_predicted: float
    moran_measured: float


@dataclass(frozen=True, slots=True)
class SectionScores:
    """Scores of one section, read from ``X``; definitions in `napari_flag.statistics`.

    Parameters
    ----------
    overall
        "PCC", "MSE", "GSC", "SSC" over all genes.
    genes
        Scores of each gene.
    spots
        How many spots were compared.
    neighbours
        Which spots count as neighbours for Moran's I.
    trained_on
        Whether the weights have seen this section in training.
    """

    overall: dict[str, float]
    genes: dict[str, GeneScore]
    spots: int
    neighbours: str
    trained_on: bool


MEANING: Final = {
    "PCC": "Pearson correlation of predicted and measured over spots, mean over genes (1 is best)",
    "MSE": "Mean squared error of log2(count + 1) (0 is best)",
    "GSC": "Do the same genes go together? Agreement of gene–gene correlations (1 is best; "
    f"only computed up to {MOST_GENES:,} genes)",
    "SSC": "Are the same genes clustered in space? Agreement of Moran's I (1 is best)",
}


def score_section(adata: Any) -> SectionScores | None:
    """Score ``X`` against ``layers["measured"]``; None when there is nothing to compare."""
    from napari_flag.comparison import spot_neighbours, trained_on
    from napari_flag.matching import dense
    from napari_flag.statistics import accuracy, autocorrelation, coexpression

    if keys.MEASURED not in adata.layers:
        return None
    guess, truth = (dense(values).astype(np.float64) for values in (adata.X, adata.layers[keys.MEASURED]))
    seen = np.asarray(np.isfinite(truth + guess).all(axis=1))
    if seen.sum() < FEWEST_SPOTS:
        return None
    guess, truth = guess[seen], truth[seen]
    unseen = accuracy.constant_genes(truth)
    neighbours = spot_neighbours(adata, seen)
    pcc = accuracy.gene_pearson(guess, truth)
    moran = [autocorrelation.moran_i(values, neighbours.weights) for values in (guess, truth)]
    overall = {
        "PCC": accuracy.mean_over_genes(pcc),
        "MSE": float(accuracy.gene_mse(guess, truth).mean()),
        "GSC": coexpression.gene_structure_correlation(
            coexpression.gene_correlations(guess), coexpression.gene_correlations(truth), unseen
        )
        if len(unseen) <= MOST_GENES
        else float("nan"),
        "SSC": autocorrelation.spatial_structure_correlation(moran[0], moran[1], unseen),
    }
    moran[1][unseen] = np.nan
    rows = zip(adata.var_names, pcc, *moran, strict=True)
    genes = {str(name): GeneScore(*map(float, numbers)) for name, *numbers in rows}
    ours = bool(provenance(adata))
    return SectionScores(overall, genes, int(seen.sum()), neighbours.description, ours and trained_on(adata))
