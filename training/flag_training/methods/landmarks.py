"""Landmarks: figures that need the truth of the section, so no prediction can be among them."""

import numpy as np

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.floors import Slopes
from flag_training.methods.method import FloatArray, pooled
from napari_flag.statistics.accuracy import constant_genes, pearson
from napari_flag.statistics.autocorrelation import find_neighbours, moran_i
from napari_flag.statistics.coexpression import gene_correlations, gene_structure_correlation


def at_true_depth(cohort: Cohort, slide: TrainingSlide) -> FloatArray:
    """Return (n, G): each gene on its training line at the spot's *true* depth."""
    return Slopes.of(pooled(cohort)[1]).at(slide.expression.mean(1))


def halves(slide: TrainingSlide, seed: int) -> tuple[FloatArray, FloatArray]:
    """Split each spot's counts in two at random and double both: (n, G) log2(count + 1) each.

    Counts are thinned molecule by molecule, so the halves are independent draws of the same spot
    at half the depth.
    """
    counts = np.rint(2.0**slide.expression - 1).astype(np.int64)
    half = np.random.default_rng(seed).binomial(counts, 0.5)
    first, second = (np.log2(2 * part + 1.0).astype(np.float32) for part in (half, counts - half))
    return first, second


def replicates(cohort: Cohort, slide: TrainingSlide) -> dict[str, float]:
    """Return GSC and SSC of the truth of `slide` against that of its patient's other sections.

    No spot is matched: gene–gene correlations and Moran's I are compared as they stand.
    """
    others = [other for other in cohort.slides if other.entry.patient == slide.entry.patient]
    unseen = constant_genes(slide.expression)
    together, clustered = gene_correlations(slide.expression), _moran(slide)
    gsc = [
        gene_structure_correlation(gene_correlations(other.expression), together, unseen) for other in others
    ]
    ssc = [pearson(_moran(other)[~unseen], clustered[~unseen]) for other in others]
    nothing = float("nan")
    return {
        "GSC": float(np.mean(gsc)) if others else nothing,
        "SSC": float(np.mean(ssc)) if others else nothing,
    }


def _moran(slide: TrainingSlide) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    spots = slide.spots
    graph = find_neighbours(spots.xy, spots.array, spots.lattice)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = moran_i(slide.expression, graph.weights)
    return found
