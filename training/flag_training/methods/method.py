"""The protocol of compared methods: `fit` on a cohort, then predict slides.

A predictor is handed a slide whose expression is hidden (`blinded`), so no method can score by
looking at the truth; the landmarks that do look take it openly (`methods.controls`).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from flag_training.cohort import Cohort, TrainingSlide
from napari_flag.progress import Steps

FloatArray: TypeAlias = npt.NDArray[np.float32]
Predictor: TypeAlias = Callable[[TrainingSlide, FloatArray], FloatArray]
"""(slide with hidden expression, its (n, d) features) → (n, G) float32 log2(count + 1)."""


class Method(Protocol):
    """A way to predict expression.

    Values are the fields of the implementing dataclass; nothing of a cohort is kept in it.
    """

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Fit to every slide of `cohort`; whatever is drawn comes from `seed`."""


def blinded(slide: TrainingSlide) -> TrainingSlide:
    """Return `slide` with every expression value NaN: a method that used it would predict NaN."""
    return replace(slide, expression=np.full_like(slide.expression, np.nan))


def pooled(cohort: Cohort) -> tuple[FloatArray, FloatArray]:
    """Concatenate the spots of all slides of `cohort`, as they are (view 0).

    Returns
    -------
    (n, d) float32 features and (n, G) float32 log2(count + 1).
    """
    features = np.concatenate([views[0].numpy() for views in cohort.features])
    return features, np.concatenate([slide.expression for slide in cohort.slides])
