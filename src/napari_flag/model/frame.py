"""Where a slide stands among the training slides: its frame.

Stain, scanner and library size differ between slides far more than between spots of one slide (tenfold
in depth between two patients of her2st).  The network therefore works in the slide's own frame: features
standardised over the slide's tissue, expression relative to a location and scale per gene.  Those two come
from the training slides that look most alike, weighted by how alike they look.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SOFTNESS: Final = 0.3
"""Mean squared feature distance (in training spreads) at which a slide's weight falls to 1/e.

Sections of one patient lie at up to 0.2, the two patients of her2st at 0.6; the weight falls with the
square of that distance, so that the former count alike and the latter next to nothing."""
_FLOOR: Final = 0.2
"""Added to a slide's feature spread, so that a feature constant on it is not blown up."""


@dataclass(frozen=True, slots=True)
class Frames:
    """What is remembered of the training slides.

    Parameters
    ----------
    mean, spread
        (d,) of every feature over all training spots.
    axes
        (d, c) principal components of the training spots in their slides' frames.
    centres
        (m, d) mean standardised features of each training slide.
    location, scale
        (m, G) mean and spread of log2(count + 1) on each training slide.
    moran
        (m, G) Moran's I of log2(count + 1) on each training slide.
    """

    mean: Tensor
    spread: Tensor
    axes: Tensor
    centres: Tensor
    location: Tensor
    scale: Tensor
    moran: Tensor

    def features(self, features: Tensor) -> Tensor:
        """Return the (n, c) components of one slide's (n, d) features, standardised over that slide."""
        return self.standardise(features) @ self.axes

    def standardise(self, features: Tensor) -> Tensor:
        """Standardise the (n, d) features of one slide over that slide."""
        z = (features - self.mean) / self.spread
        return (z - z.mean(0)) / (z.std(0, correction=0) + _FLOOR)

    def likeness(self, features: Tensor) -> Tensor:
        """Return (m,) weights, summing to 1, of the training slides for a slide with these features."""
        centre = ((features - self.mean) / self.spread).mean(0)
        distance = ((self.centres - centre) ** 2).mean(1)
        return torch.softmax(-((distance / SOFTNESS) ** 2), dim=0)

    def expression(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the (G,) location, scale and Moran's I expected of a slide with these features."""
        weights = self.likeness(features)
        return weights @ self.location, weights @ self.scale, weights @ self.moran

    def location_variance(self, features: Tensor) -> Tensor:
        """Return the (G,) variance of the error in `expression`'s location.

        That of the training slides' locations about their weighted mean, unbiased for reliability
        weights, plus that of the mean itself; 0 where one slide has all the weight.
        """
        weights = self.likeness(features)
        share = weights.square().sum()
        between = weights @ (self.location - weights @ self.location).square()
        return between / (1 - share).clamp_min(1e-6) * (1 + share) * (share < 0.99)
