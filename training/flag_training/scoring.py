"""The six metrics of a prediction on one slide, as ``napari-flag compare`` defines them."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flag_training.cohort import TrainingSlide
from napari_flag.comparison import score_values
from napari_flag.statistics.autocorrelation import find_neighbours
from napari_flag.statistics.intervals import neighbouring_blocks

FloatArray: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = dict[str, float]
"""Metric → value; NaN where it is not defined."""


def score(predicted: FloatArray, slide: TrainingSlide) -> Scores:
    """Return the metrics of (n, G) `predicted` log2(count + 1) on `slide`."""
    spots = slide.spots
    values, _ = score_values(
        predicted.astype(np.float64),
        slide.expression.astype(np.float64),
        find_neighbours(spots.xy, spots.array, spots.lattice),
        neighbouring_blocks(spots.xy),
        [str(gene) for gene in range(predicted.shape[1])],
        seed=0,
    )
    return values.values
