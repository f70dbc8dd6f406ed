"""Floors: what a simple method scores on the same features, the same split.

A model that does not lead all of them has learnt nothing worth its weights.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.mean_head import assign_folds
from flag_training.methods.framed_ridge import FramedRidge
from flag_training.methods.method import FloatArray, Method, Predictor, pooled
from napari_flag.progress import Step, Steps

Wide = npt.NDArray[np.float64]

_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class SlideMean:
    """Every spot the mean of the training spots."""

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Average the training spots."""
        yield _fitting("slide mean")
        mean = pooled(cohort)[1].mean(0)
        return lambda slide, features: np.repeat(mean[None], len(features), axis=0)


@dataclass(frozen=True, slots=True)
class Linear:
    """(n, d) features → (n, G): standardise, weigh, shift."""

    mean: Wide
    spread: Wide
    weight: Wide
    bias: Wide

    def __call__(self, slide: TrainingSlide, features: FloatArray) -> FloatArray:
        """Return what the linear model expects."""
        return (((features - self.mean) / self.spread) @ self.weight + self.bias).astype(np.float32)


def fit_linear(features: FloatArray, targets: FloatArray, penalty: float) -> Linear:
    """Fit ridge regression, (n, d) → (n, G), on standardised features and centred targets.

    The loss is the sum of squared errors plus `penalty` times the squared weights.
    """
    x, y = features.astype(np.float64), targets.astype(np.float64)
    mean, spread, bias = x.mean(0), x.std(0) + _EPSILON, y.mean(0)
    z = (x - mean) / spread
    gram = z.T @ z + penalty * np.eye(z.shape[1])
    return Linear(mean, spread, np.linalg.solve(gram, z.T @ (y - bias)), bias)


@dataclass(frozen=True, slots=True)
class Ridge:
    """Ridge regression on features standardised over the training spots.

    Parameters
    ----------
    penalty
        α of the sum-of-squares loss.
    """

    penalty: float = 300.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Solve the normal equations."""
        yield _fitting("ridge")
        return fit_linear(*pooled(cohort), self.penalty)


@dataclass(frozen=True, slots=True)
class NearestTiles:
    """Mean expression of the k training spots whose tiles are most alike (kNN).

    Parameters
    ----------
    k
        Neighbours averaged.
    components
        Principal components of the standardised features in which nearness is measured.
    """

    k: int
    components: int = 30

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Build the tree of training spots."""
        yield _fitting("nearest tiles")
        x, y = pooled(cohort)
        mean, spread = x.mean(0), x.std(0) + _EPSILON
        axes = np.linalg.svd((x - mean) / spread, full_matrices=False)[2][: self.components].T
        tree, k = cKDTree(((x - mean) / spread) @ axes), min(self.k, len(y))

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            near = tree.query(((features - mean) / spread) @ axes, k)[1].reshape(len(features), k)
            found: FloatArray = y[near].mean(1)
            return found

        return predict


@dataclass(frozen=True, slots=True)
class Slopes:
    """How each gene rises with a spot's depth, its mean log2(count + 1) over the panel.

    Parameters
    ----------
    depth
        Mean depth of the training spots.
    bias, slope
        (G,) mean, and least-squares slope on depth, of each gene.
    """

    depth: float
    bias: Wide
    slope: Wide

    @classmethod
    def of(cls, expression: FloatArray) -> "Slopes":
        """Fit to (n, G) training expression."""
        y = expression.astype(np.float64)
        depth = y.mean(1)
        away = depth - depth.mean()
        slope = away @ (y - y.mean(0)) / (away @ away)
        return cls(float(depth.mean()), y.mean(0), slope)

    def at(self, depth: npt.NDArray[np.floating]) -> FloatArray:
        """Return (n, G): each gene on its line at the (n,) depths."""
        return (self.bias + (depth - self.depth)[:, None] * self.slope).astype(np.float32)


@dataclass(frozen=True, slots=True)
class OneFactor:
    """Depth alone: each gene on its line at the depth that a ridge expects.

    Parameters
    ----------
    penalty
        α of that ridge.
    """

    penalty: float = 300.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Fit the ridge, and each gene's slope on depth."""
        yield _fitting("one factor")
        features, expression = pooled(cohort)
        linear, slopes = fit_linear(features, expression, self.penalty), Slopes.of(expression)
        return lambda slide, features: slopes.at(linear(slide, features).mean(1))


@dataclass(frozen=True, slots=True)
class RidgeWithResidual:
    """Ridge plus residuals of whole training spots, drawn anew for each spot, averaged.

    A generative floor: whole residual vectors carry the right covariance of genes and nothing of
    the tissue.  Residuals are cross-fitted, as those of a held-out section would be.

    Parameters
    ----------
    share
        Factor of the residuals.
    samples
        Draws averaged.
    penalty
        α of the ridge.
    """

    share: float
    samples: int
    penalty: float = 300.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Fit the ridge, and collect its residuals fold by fold."""
        features, expression = pooled(cohort)
        folds = np.concatenate(assign_folds(cohort.slides))
        residual = np.empty_like(expression)
        for fold in np.unique(folds):
            out = folds == fold
            yield Step("Collecting residuals", int(fold) + 1, int(folds.max()) + 1, "folds")
            part = fit_linear(features[~out], expression[~out], self.penalty)
            residual[out] = expression[out] - part(cohort.slides[0], features[out])
        residual -= residual.mean(0)
        linear = fit_linear(features, expression, self.penalty)

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            drawn = np.random.default_rng(seed).integers(len(residual), size=(self.samples, len(features)))
            found: FloatArray = linear(slide, features) + self.share * residual[drawn].mean(0)
            return found

        return predict


def _fitting(what: str) -> Step:
    return Step(f"Fitting {what}", 0, 1, "fits")


LEARNED_FLOORS: Final[dict[str, Method]] = {
    "slide mean": SlideMean(),
    "ridge": Ridge(),
    "ridge, slide frame and first ring": FramedRidge(),
    "kNN, k = 1": NearestTiles(1),
    "kNN, k = 10": NearestTiles(10),
    "kNN, k = 50": NearestTiles(50),
    "one factor": OneFactor(),
    "ridge + ½ residual, 1 sample": RidgeWithResidual(0.5, 1),
    "ridge + 0.7 residual, mean of 8": RidgeWithResidual(0.7, 8),
}
"""Name in the tables → floor, with the values of `evaluation.md`'s landmarks."""
