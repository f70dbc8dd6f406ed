"""Ridge in each slide's own frame, with the first ring: the strongest linear floor we know.

Stain and library size differ between slides far more than within one, so features are standardised
over the slide, and expression is relative to the level and spread of the training slides that look
most alike.  Written apart from `napari_flag.model.normalization`, so that the floor stays where it is while
the network learns new tricks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.method import FloatArray, Method, Predictor, pooled
from flag_training.stages.frames import assign_folds
from napari_flag.model.graph import GraphTensors
from napari_flag.progress import Step, Steps

BoolArray = npt.NDArray[np.bool_]
Wide = npt.NDArray[np.float64]

_SOFTNESS: Final = 0.3
"""Mean squared feature distance at which a training slide's weight falls to 1/e."""
_FEATURE_FLOOR: Final = 0.2
_GENE_FLOOR: Final = 0.1
"""Added to spreads over one slide, so that what is constant there is not blown up."""


@dataclass(frozen=True, slots=True)
class _Frames:
    """Of the training slides: feature mean, spread (d,); centres (m, d); gene levels, spreads (m, G)."""

    mean: Tensor
    spread: Tensor
    centres: Tensor
    level: Tensor
    scale: Tensor

    @classmethod
    def of(cls, cohort: Cohort, kept: Sequence[BoolArray]) -> "_Frames":
        """Describe the spots `kept` of each slide; slides without any are no training slides."""
        used = [
            (views[0][torch.from_numpy(rows)], torch.from_numpy(slide.expression[rows]))
            for slide, views, rows in zip(cohort.slides, cohort.features, kept, strict=True)
            if rows.any()
        ]
        clean = torch.cat([features for features, _ in used])
        mean, spread = clean.mean(0), clean.std(0, correction=0) + 1e-6
        return cls(
            mean,
            spread,
            torch.stack([((features - mean) / spread).mean(0) for features, _ in used]),
            torch.stack([y.mean(0) for _, y in used]),
            torch.stack([y.std(0, correction=0) + _GENE_FLOOR for _, y in used]),
        )

    def design(self, slide: TrainingSlide, features: Tensor) -> Tensor:
        """Return (n, 2 d) float64: features in the slide's frame, and their mean over the first ring."""
        z = (features - self.mean) / self.spread
        framed = (z - z.mean(0)) / (z.std(0, correction=0) + _FEATURE_FLOOR)
        graph = GraphTensors.of(slide.graph(features.numpy()))
        return torch.cat([framed, graph.ring_mean(framed)], 1).double()

    def expression(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (G,) level and spread expected of a slide with these (n, d) features."""
        centre = ((features - self.mean) / self.spread).mean(0)
        weights = torch.softmax(-((self.centres - centre) ** 2).mean(1) / _SOFTNESS, 0)
        return weights @ self.level, weights @ self.scale


@dataclass(frozen=True, slots=True)
class FramedRidge:
    """Ridge on a spot's features and its first ring's mean, in the slides' frames, over all views.

    Parameters
    ----------
    penalty
        α per view.
    """

    penalty: float = 1000.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Solve the normal equations, accumulated slide by slide and view by view."""
        every = [np.ones(len(slide.spots), np.bool_) for slide in cohort.slides]
        return (yield from self._fit(cohort, every))

    def crossfit(self, cohort: Cohort) -> Steps[FloatArray]:
        """Return the (N, G) residuals of all spots, log2(count + 1), none expected by a fit that saw it.

        Whole sections are left out, or strips of a patient's only one (`assign_folds`).
        """
        folds = assign_folds(cohort.slides)
        residuals = [np.empty_like(slide.expression) for slide in cohort.slides]
        for fold in np.unique(np.concatenate(folds)):
            predict = yield from self._fit(cohort, [own != fold for own in folds])
            for slide, views, own, residual in zip(
                cohort.slides, cohort.features, folds, residuals, strict=True
            ):
                out = own == fold
                if out.any():
                    residual[out] = (slide.expression - predict(slide, views[0].numpy()))[out]
        return np.concatenate(residuals)

    def _fit(self, cohort: Cohort, kept: Sequence[BoolArray]) -> Steps[Predictor]:
        """Fit to the spots `kept` of each slide; a slide's features are framed by all its spots."""
        frames = _Frames.of(cohort, kept)
        gram, cross = torch.zeros(()), torch.zeros(())
        used = [place for place, rows in enumerate(kept) if rows.any()]
        for number, place in enumerate(used):
            slide, rows = cohort.slides[place], torch.from_numpy(kept[place])
            y = torch.from_numpy(slide.expression)[rows]
            target = ((y - frames.level[number]) / frames.scale[number]).double()
            for view in cohort.features[place]:
                x = frames.design(slide, view)[rows]
                gram, cross = gram + x.T @ x, cross + x.T @ target
            yield Step("Fitting ridge in the slides' frames", number + 1, len(used), "slides")
        alpha = len(cohort.features[0]) * self.penalty
        weight = torch.linalg.solve(gram + alpha * torch.eye(len(gram), dtype=torch.float64), cross)

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            raw = torch.from_numpy(features)
            level, scale = frames.expression(raw)
            expected = level + scale * (frames.design(slide, raw) @ weight)
            found: FloatArray = expected.clamp_min(0).float().numpy()
            return found

        return predict


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
"""Name in the tables → floor, with its fixed settings."""
