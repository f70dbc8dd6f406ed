"""Ridge in each slide's own frame, with the first ring: the strongest linear floor we know.

Stain and library size differ between slides far more than within one, so features are standardised
over the slide, and expression is relative to the level and spread of the training slides that look
most alike.  Written apart from `napari_flag.model.frame`, so that the floor stays where it is while
the network learns new tricks.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.method import FloatArray, Predictor
from napari_flag.model.graph import GraphTensors
from napari_flag.progress import Step, Steps

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
    def of(cls, cohort: Cohort) -> "_Frames":
        clean = torch.cat([views[0] for views in cohort.features])
        mean, spread = clean.mean(0), clean.std(0, correction=0) + 1e-6
        genes = [torch.from_numpy(slide.expression) for slide in cohort.slides]
        return cls(
            mean,
            spread,
            torch.stack([((views[0] - mean) / spread).mean(0) for views in cohort.features]),
            torch.stack([y.mean(0) for y in genes]),
            torch.stack([y.std(0, correction=0) + _GENE_FLOOR for y in genes]),
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
        frames = _Frames.of(cohort)
        gram, cross = torch.zeros(()), torch.zeros(())
        for number, (slide, views) in enumerate(zip(cohort.slides, cohort.features, strict=True)):
            y = torch.from_numpy(slide.expression)
            target = ((y - frames.level[number]) / frames.scale[number]).double()
            for view in views:
                x = frames.design(slide, view)
                gram, cross = gram + x.T @ x, cross + x.T @ target
            yield Step("Fitting ridge in the slides' frames", number + 1, len(cohort.slides), "slides")
        alpha = len(cohort.features[0]) * self.penalty
        weight = torch.linalg.solve(gram + alpha * torch.eye(len(gram), dtype=torch.float64), cross)

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            raw = torch.from_numpy(features)
            level, scale = frames.expression(raw)
            expected = level + scale * (frames.design(slide, raw) @ weight)
            found: FloatArray = expected.clamp_min(0).float().numpy()
            return found

        return predict
