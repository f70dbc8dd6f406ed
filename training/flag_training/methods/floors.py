"""Fits of the floors, which need no deep network; `napari_flag.methods.floors` holds what is fitted.

Ridge in each slide's own frame, with the first ring, is the strongest linear floor we know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import expected_by
from flag_training.methods.method import Fitted, FloatArray, Method, Predictor, pooled
from flag_training.stages.frames import assign_folds, levels_of, prior_of, shares_of
from napari_flag.methods import floors
from napari_flag.methods.floors import FloorSizes, RingRidge
from napari_flag.model.normalization import SlideNormalization
from napari_flag.progress import Step, Steps

BoolArray = npt.NDArray[np.bool_]
Wide = npt.NDArray[np.float64]

_GENE_FLOOR: Final = 0.1
"""Added to spreads over one slide, so that what is constant there is not blown up."""
_EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class FramedRidge:
    """Ridge on a spot's features and its first ring's mean, in the slides' frames, over all views.

    Parameters
    ----------
    penalty
        α per view.
    """

    penalty: float = 1000.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
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

    def _fit(self, cohort: Cohort, kept: Sequence[BoolArray]) -> Steps[Fitted]:
        """Fit to the spots `kept` of each slide; a slide's features are framed by all its spots."""
        used = [place for place, rows in enumerate(kept) if rows.any()]
        network = RingRidge(_sizes(cohort, slides=len(used)))
        self._remember(network, cohort, [(place, kept[place]) for place in used])
        level, scale = network.get_buffer("level"), network.get_buffer("scale")
        gram, cross = torch.zeros(()), torch.zeros(())
        for number, place in enumerate(used):
            slide, rows = cohort.slides[place], torch.from_numpy(kept[place])
            y = torch.from_numpy(slide.expression)[rows]
            target = ((y - level[number]) / scale[number]).double()
            for view in cohort.features[place]:
                x = network.design(view, slide.graph(view.numpy())).double()[rows]
                gram, cross = gram + x.T @ x, cross + x.T @ target
            yield Step("Fitting ridge in the slides' frames", number + 1, len(used), "slides")
        alpha = len(cohort.features[0]) * self.penalty
        weight = torch.linalg.solve(gram + alpha * torch.eye(len(gram), dtype=torch.float64), cross)
        network.get_buffer("weight").copy_(weight)
        return expected_by("ring_ridge", network, cohort)

    def _remember(self, network: RingRidge, cohort: Cohort, used: Sequence[tuple[int, BoolArray]]) -> None:
        """Keep what the spots `used` of each slide look like, and the level and spread of their genes."""
        looks = [cohort.features[place][0].numpy()[rows] for place, rows in used]
        network.standard.measure(np.concatenate(looks), floor=_EPSILON)
        for number, ((place, rows), seen) in enumerate(zip(used, looks, strict=True)):
            y = torch.from_numpy(cohort.slides[place].expression[rows])
            network.get_buffer("centres")[number] = network.standard(torch.from_numpy(seen)).mean(0)
            network.get_buffer("level")[number] = y.mean(0)
            network.get_buffer("scale")[number] = y.std(0, correction=0) + _GENE_FLOOR


@dataclass(frozen=True, slots=True)
class SlideMean:
    """Every spot the mean of the training spots."""

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Average the training spots."""
        yield _fitting("slide mean")
        network = floors.SlideMean(_sizes(cohort))
        network.get_buffer("mean").copy_(torch.from_numpy(pooled(cohort)[1].mean(0)))
        return expected_by("mean", network, cohort)


@dataclass(frozen=True, slots=True)
class PatientMean:
    """Every spot the mean over patients, each alike, those of whom counts alone are known included."""

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Average over patients the means over their sections."""
        yield _fitting("mean of patients")
        level = prior_of(levels_of(cohort))["prior_location"].numpy()
        return lambda slide, features: np.tile(level, (len(features), 1))


@dataclass(frozen=True, slots=True)
class PlacedRidge:
    """Ridge in the slides' frames, placed as FLAG is: an unlike slide on the mean level of patients.

    Parameters
    ----------
    penalty
        α per view.
    """

    penalty: float = 1000.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Fit the ridge, and keep the levels of all patients."""
        fitted = yield from FramedRidge(self.penalty).fit(cohort, seed)
        ridge, prior = fitted.network, prior_of(levels_of(cohort))
        stored = SlideNormalization(
            mean=ridge.standard.get_buffer("mean"),
            spread=ridge.standard.get_buffer("spread"),
            axes=torch.empty(0),
            centres=ridge.get_buffer("centres"),
            location=ridge.get_buffer("level"),
            scale=ridge.get_buffer("scale"),
            prior_location=prior["prior_location"],
            prior_scale=prior["prior_scale"],
            shares=shares_of([slide.entry.patient for slide in cohort.slides]),
            patients=torch.empty(0),
        )

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            seen = torch.from_numpy(features)
            level, scale = stored.expression(stored.centre(seen))
            framed = ridge.design(seen, slide.graph(features)) @ ridge.get_buffer("weight")
            found: FloatArray = (level + scale * framed).clamp_min(0).numpy()
            return found

        return predict


def fit_linear(features: FloatArray, targets: FloatArray, penalty: float) -> floors.Ridge:
    """Fit ridge regression, (n, d) → (n, G), on standardised features and centred targets.

    The loss is the sum of squared errors plus `penalty` times the squared weights.
    """
    x, y = features.astype(np.float64), targets.astype(np.float64)
    network = floors.Ridge(floors.FloorSizes(x.shape[1], y.shape[1]))
    mean, spread, bias = x.mean(0), x.std(0) + _EPSILON, y.mean(0)
    z = (x - mean) / spread
    gram = z.T @ z + penalty * np.eye(z.shape[1])
    solved = {"standard.mean": mean, "standard.spread": spread, "bias": bias}
    solved["weight"] = np.linalg.solve(gram, z.T @ (y - bias))
    network.load_state_dict({name: torch.from_numpy(values).float() for name, values in solved.items()})
    return network


@dataclass(frozen=True, slots=True)
class Ridge:
    """Ridge regression on features standardised over the training spots.

    Parameters
    ----------
    penalty
        α of the sum-of-squares loss.
    """

    penalty: float = 300.0

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Solve the normal equations."""
        yield _fitting("ridge")
        return expected_by("ridge", fit_linear(*pooled(cohort), self.penalty), cohort)


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

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Keep the training spots."""
        yield _fitting("nearest tiles")
        x, y = (torch.from_numpy(values) for values in pooled(cohort))
        components = min(self.components, *x.shape)
        sizes = _sizes(cohort, bank=len(y), components=components, k=min(self.k, len(y)))
        network = floors.NearestTiles(sizes)
        network.standard.measure(x.numpy(), floor=_EPSILON)
        axes = torch.linalg.svd(network.standard(x), full_matrices=False)[2][:components].T
        network.get_buffer("axes").copy_(axes)
        network.get_buffer("bank_tiles").copy_(network.project(x))
        network.get_buffer("bank_expression").copy_(y)
        return expected_by("knn", network, cohort)


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
        return lambda slide, features: slopes.at(_values(linear, features).mean(1))


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
            residual[out] = expression[out] - _values(part, features[out])
        residual -= residual.mean(0)
        linear = fit_linear(features, expression, self.penalty)

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            drawn = np.random.default_rng(seed).integers(len(residual), size=(self.samples, len(features)))
            found: FloatArray = _values(linear, features) + self.share * residual[drawn].mean(0)
            return found

        return predict


def _fitting(what: str) -> Step:
    return Step(f"Fitting {what}", 0, 1, "fits")


def _sizes(cohort: Cohort, **more: int) -> FloorSizes:
    return FloorSizes(cohort.features[0].shape[2], len(cohort.genes), **more)


def _values(linear: floors.Ridge, features: FloatArray) -> FloatArray:
    """Return the (n, G) values of a ridge, which may lie below 0."""
    found: FloatArray = linear.linear(torch.from_numpy(features)).numpy()
    return found


LEARNED_FLOORS: Final[dict[str, Method]] = {
    "slide mean": SlideMean(),
    "mean of patients": PatientMean(),
    "ridge": Ridge(),
    "ridge, slide frame and first ring": FramedRidge(),
    "ridge, slide frame and first ring, placed by patients": PlacedRidge(),
    "kNN, k = 1": NearestTiles(1),
    "kNN, k = 10": NearestTiles(10),
    "kNN, k = 50": NearestTiles(50),
    "one factor": OneFactor(),
    "ridge + ½ residual, 1 sample": RidgeWithResidual(0.5, 1),
    "ridge + 0.7 residual, mean of 8": RidgeWithResidual(0.7, 8),
}
"""Name in the tables → floor, with its fixed settings."""
READING_LEVELS: Final = tuple(
    name for name, method in LEARNED_FLOORS.items() if isinstance(method, PatientMean | PlacedRidge)
)
"""Names of the floors that read the levels of sections of which counts alone are known, as FLAG does."""
WRITTEN: Final = tuple(
    name
    for name, method in LEARNED_FLOORS.items()
    if isinstance(method, SlideMean | Ridge | FramedRidge | NearestTiles)
)
"""Names of the floors that can be written as weights."""
