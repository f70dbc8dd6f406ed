"""The protocol of compared methods: `fit` on a cohort, then predict slides.

What a method that can be written as weights returns is `Fitted`: it predicts through the very class that
opens the file, so that what is scored is what the file predicts.  A predictor is handed a slide whose
expression is hidden (`blinded`), so no method can score by looking at the truth; the landmarks that do look
take it openly (`methods.controls`).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from flag_training.cohort import Cohort, TrainingSlide
from napari_flag.progress import Steps, finish
from napari_flag.sampling import sample_expression

if TYPE_CHECKING:
    from napari_flag.methods.predictor import EncodedSlide
    from napari_flag.methods.predictor import Predictor as Opened

Sizes = TypeVar("Sizes", bound=Any)
FloatArray: TypeAlias = npt.NDArray[np.float32]
Predictor: TypeAlias = Callable[[TrainingSlide, FloatArray], FloatArray]
"""(slide with hidden expression, its (n, d) features) → (n, G) float32 log2(count + 1)."""


class Method(Protocol):
    """A way to predict expression.

    Values are the fields of the implementing dataclass; nothing of a cohort is kept in it.
    """

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Fit to every slide of `cohort`; whatever is drawn comes from `seed`."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted method that can be written as weights (a `Predictor`).

    Parameters
    ----------
    method
        Its name in `napari_flag.methods.predictor.METHODS`.
    network
        What is written.
    predictor
        The network as the weights file would be opened.
    """

    method: str
    network: Any
    predictor: "Opened"

    def encode(self, slide: TrainingSlide, features: FloatArray) -> "EncodedSlide":
        """Return `slide` as the method sees it under (n, d) `features`."""
        return self.predictor.encode(features, slide.graph(features))

    def __call__(self, slide: TrainingSlide, features: FloatArray) -> FloatArray:
        """Return the (n, G) expectation of `slide`."""
        return expectation(self.predictor, self.encode(slide, features), slide)


def expectation(predictor: "Opened", encoded: "EncodedSlide", slide: TrainingSlide) -> FloatArray:
    """Return the (n, G) expectation of `slide`, which is `encoded` for `predictor`."""
    rows = np.arange(len(slide.spots))
    return finish(sample_expression(predictor, encoded, slide.spots.ids, rows, None)).mean


def sizes_of(method: Any, sizes: type[Sizes], cohort: Cohort, **more: int) -> Sizes:
    """Return the `sizes` of a network: the values of `method`, what the cohort gives, and `more`."""
    own = {f.name: getattr(method, f.name) for f in fields(sizes) if hasattr(method, f.name)}
    given = {"features": cohort.features[0].shape[2], "genes": len(cohort.genes)}
    found: Sizes = sizes(**given | own | more)
    return found


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
