"""How well a prediction agrees with the measurement beside it, per gene and over all genes."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.progress import Step, Steps, finish
from napari_flag.viewer.frame import provenance

FEWEST_SPOTS: Final = 3
MOST_GENES: Final = 3000
"""GSC needs a table of all pairs of genes; beyond this it would take gigabytes."""
PARTS: Final = 5


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
    """Return what `scoring_section` ends with, without its signs of life."""
    return finish(scoring_section(adata))


def scoring_section(adata: Any) -> Steps[SectionScores | None]:
    """Score ``X`` against ``layers["measured"]``; None when there is nothing to compare."""
    from napari_flag.comparison import spot_neighbours, trained_on
    from napari_flag.statistics import accuracy, autocorrelation, coexpression

    if keys.MEASURED not in adata.layers:
        return None
    guess, truth = _dense(adata.X), _dense(adata.layers[keys.MEASURED])
    seen = np.asarray(np.isfinite(truth + guess).all(axis=1))
    if seen.sum() < FEWEST_SPOTS:
        return None
    guess, truth = guess[seen], truth[seen]
    unseen = accuracy.constant_genes(truth)
    neighbours = spot_neighbours(adata, seen)
    yield _step(0)
    pcc = accuracy.gene_pearson(guess, truth)
    yield _step(1)
    moran = [autocorrelation.moran_i(values, neighbours.weights) for values in (guess, truth)]
    gsc = float("nan")
    if len(unseen) <= MOST_GENES:
        together = []
        for place, values in enumerate((guess, truth)):
            yield _step(2 + place)
            together.append(coexpression.gene_correlations(values))
        yield _step(4)
        gsc = coexpression.gene_structure_correlation(together[0], together[1], unseen)
    overall = {
        "PCC": accuracy.mean_over_genes(pcc),
        "MSE": float(accuracy.gene_mse(guess, truth).mean()),
        "GSC": gsc,
        "SSC": autocorrelation.spatial_structure_correlation(moran[0], moran[1], unseen),
    }
    moran[1][unseen] = np.nan
    rows = zip(adata.var_names, pcc, *moran, strict=True)
    genes = {str(name): GeneScore(*map(float, numbers)) for name, *numbers in rows}
    ours = bool(provenance(adata))
    return SectionScores(overall, genes, int(seen.sum()), neighbours.description, ours and trained_on(adata))


def _step(done: int) -> Step:
    return Step("Scoring the section", done, PARTS, "parts")


def _dense(matrix: Any) -> npt.NDArray[np.float64]:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, np.float64)
