"""Image-blind controls: other sections of the same tumour, aligned and pasted.

Serial sections resemble each other place by place, so pasting one onto another scores high on
every measure of structure.  Whatever leads on structure must also lead on accuracy to mean anything.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.floors import Slopes
from flag_training.methods.method import FloatArray, Method, Predictor, pooled
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.statistics.accuracy import constant_genes
from napari_flag.statistics.coexpression import correlations_for_gsc, gene_structure_correlation
from napari_flag.statistics.moran import moran_i, spatial_structure_correlation
from napari_flag.statistics.neighbours import find_neighbours


@dataclass(frozen=True, slots=True)
class Pasted:
    """Each spot takes the expression at its centred array position in other sections, averaged.

    Sections of the slide's own patient are pasted where the cohort has any, all of it otherwise.

    Parameters
    ----------
    last_only
        Paste only the last of those sections instead of the mean of all.
    mirrored
        Paste them mirrored along the array's columns: tissue that has nothing to do with the spot.
    """

    last_only: bool = False
    mirrored: bool = False

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Keep the sections with their centred positions."""
        yield Step("Aligning sections", 0, len(cohort.slides), "sections")
        if not cohort.slides:
            raise UserError("There is no section left to paste; leave fewer sections out.")
        turn = np.array([1.0, -1.0 if self.mirrored else 1.0])
        trees = [cKDTree(centred_array(slide) * turn) for slide in cohort.slides]

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            every = range(len(cohort.slides))
            own = [i for i in every if cohort.slides[i].entry.patient == slide.entry.patient] or list(every)
            here = centred_array(slide)
            chosen = own[-1:] if self.last_only else own
            pasted = [cohort.slides[i].expression[trees[i].query(here)[1]] for i in chosen]
            mean: FloatArray = np.mean(pasted, axis=0)
            return mean

        return predict


def centred_array(slide: TrainingSlide) -> npt.NDArray[np.float64]:
    """Return (n, 2) array (row, column), less their mean; in pitches where the array is not known."""
    spots = slide.spots
    if spots.array is not None:
        place = spots.array.astype(np.float64)
    else:
        place = spots.xy[:, ::-1] * slide.mpp / slide.pitch_um
    centred: npt.NDArray[np.float64] = place - place.mean(0)
    return centred


IMAGE_BLIND: Final[dict[str, Method]] = {
    "other sections pasted, averaged": Pasted(),
    "one section pasted": Pasted(last_only=True),
    "other sections pasted mirrored": Pasted(mirrored=True),
}


def at_true_depth(cohort: Cohort, slide: TrainingSlide) -> FloatArray:
    """Return (n, G): each gene on its training line at the spot's *true* depth."""
    return Slopes.of(pooled(cohort)[1]).at(slide.expression.mean(1))


def halves(slide: TrainingSlide, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the halves of a slide's counts, as `halved`."""
    return halved(slide.expression, seed)


def halved(expression: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """Split each spot's counts in two at random and double both: (n, G) log2(count + 1) each.

    Counts are thinned molecule by molecule, so the halves are independent draws of the same spot
    at half the depth.
    """
    counts = np.rint(2.0**expression - 1).astype(np.int64)
    half = np.random.default_rng(seed).binomial(counts, 0.5)
    first, second = (np.log2(2 * part + 1.0).astype(np.float32) for part in (half, counts - half))
    return first, second


def replicates(cohort: Cohort, slide: TrainingSlide) -> dict[str, float]:
    """Return GSC and SSC of the truth of `slide` against that of its patient's other sections.

    No spot is matched: gene–gene correlations and Moran's I are compared as they stand.
    """
    names = ("GSC", "SSC")
    others = [other for other in cohort.slides if other.entry.patient == slide.entry.patient]
    each = [Constants.of(replace(cohort, slides=(other,))).scores(slide) for other in others]
    return {name: float(np.mean([one[name] for one in each])) if each else float("nan") for name in names}


@dataclass(frozen=True, slots=True)
class Constants:
    """Gene–gene correlations and Moran's I of the training sections, as constants: no image is involved.

    What a structure score says is how far it beats these.

    Parameters
    ----------
    together
        (G, G) correlations of genes, mean over sections.
    clustered
        (G,) Moran's I, mean over sections.
    """

    together: npt.NDArray[np.float64]
    clustered: npt.NDArray[np.float64]

    @classmethod
    def of(cls, cohort: Cohort) -> "Constants":
        """Average over the sections of `cohort`."""
        n = len(cohort.slides)
        together = sum(correlations_for_gsc(slide.expression) / n for slide in cohort.slides)
        return cls(np.asarray(together), np.mean([_moran(slide) for slide in cohort.slides], axis=0))

    def scores(self, slide: TrainingSlide) -> dict[str, float]:
        """Return GSC and SSC of the constants against the truth of `slide`."""
        unseen, together = constant_genes(slide.expression), correlations_for_gsc(slide.expression)
        return {
            "GSC": gene_structure_correlation(self.together, together, unseen),
            "SSC": spatial_structure_correlation(self.clustered, _moran(slide), unseen),
        }


def _moran(slide: TrainingSlide) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    spots = slide.spots
    graph = find_neighbours(spots.xy, spots.array, spots.lattice)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = moran_i(slide.expression, graph.weights)
    return found
