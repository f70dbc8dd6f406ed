"""Normalisation per slide, of features on the way in and of expression on the way out.

Stain, scanner and library size differ between slides far more than between spots of one slide (counts of the
panel four- to fivefold in the mean over spots between two patients of her2st, and more than twentyfold in the
median).  The network therefore sees normalised values only: features
standardised over the slide's tissue, expression relative to a location and scale per gene.  Those two come
from the training slides that look most alike, weighted by how alike they look; on a slide that looks like
none of them, from the mean over patients, whose counts may be known without an image.  How far patients lie
from that mean is part of what is not known of such a slide.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

SOFTNESS: Final = 0.3
"""Mean squared feature distance (in training spreads) at which a slide's weight falls to 1/e.

Sections of one patient of her2st lie at .04 to .11, the two patients at .42 to .59; the weight falls with the
fourth power of that distance, so that the former count alike and the latter next to nothing: so far apart are
the counts of patients B and C that a weight of .04 would move the level."""
_ROWS: Final = 4096
"""Spots normalised at once: a copy of all features is larger than most results."""
_STEEPNESS: Final = 4
_FLOOR: Final = 0.2
"""Added to a slide's feature spread, so that a feature constant on it is not blown up."""


@dataclass(frozen=True, slots=True)
class SlideNormalization:
    """What is stored of the training slides, and the normalisation of a slide by it.

    All that is known of a slide as a whole is asked by its `centre`, which takes a pass over its features.

    Parameters
    ----------
    mean, spread
        (d,) of every feature over all training spots.
    axes
        (d, c) principal components of the training spots' standardised features.
    centres
        (m, d) mean standardised features of each training slide.
    location, scale
        (m, G) mean and spread of log2(count + 1) on each training slide.
    prior_location, prior_scale
        (G,) the same of a patient of whom nothing is known, a mean over patients.
    shares
        (m,) weights, summing to 1, of the training slides where none resembles: every patient counts alike.
    patients
        (p, G) how patients' levels lie around their mean, ln(counts), over √(p - 1): a draw of a patient's
        level is the mean plus these weighted by p unit normals.
    """

    mean: Tensor
    spread: Tensor
    axes: Tensor
    centres: Tensor
    location: Tensor
    scale: Tensor
    prior_location: Tensor
    prior_scale: Tensor
    shares: Tensor
    patients: Tensor

    def centre(self, features: Tensor) -> Tensor:
        """Return the (d,) mean over one slide of its (n, d) features in training spreads."""
        sums = [((rows - self.mean) / self.spread).sum(0) for rows in _blocks(features)]
        return torch.stack(sums).sum(0) / len(features)

    def features(self, features: Tensor, centre: Tensor | None = None) -> Tensor:
        """Return the (n, c) components of one slide's (n, d) features, standardised over that slide.

        `centre` is theirs, where it is known.
        """
        moments = self._moments(features, self.centre(features) if centre is None else centre)
        return torch.cat([self._standardised(rows, *moments) @ self.axes for rows in _blocks(features)])

    def standardise(self, features: Tensor) -> Tensor:
        """Standardise the (n, d) features of one slide over that slide."""
        return self._standardised(features, *self._moments(features, self.centre(features)))

    def _standardised(self, features: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        return ((features - self.mean) / self.spread - centre) / (spread + _FLOOR)

    def _moments(self, features: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (d,) mean and spread over one slide of its (n, d) features in training spreads."""
        squares = [((rows - self.mean) / self.spread - centre).square().sum(0) for rows in _blocks(features)]
        return centre, (torch.stack(squares).sum(0) / len(features)).sqrt()

    def slide_weights(self, centre: Tensor) -> Tensor:
        """Return (m,) weights, summing to 1, of the training slides for a slide of this (d,) centre."""
        return torch.softmax(-self._remoteness(centre), dim=0)

    def novelty(self, centre: Tensor) -> Tensor:
        """Return () from 0, like the nearest training slide, to 1, unlike all of them."""
        return -torch.expm1(-self._remoteness(centre).min())

    def resemblance(self, centre: Tensor) -> Tensor:
        """Return (m,) shares, summing to 1, that residuals of the training slides have in this one's."""
        weights = self.slide_weights(centre)
        return weights + self.novelty(centre) * (self.shares - weights)

    def expression(self, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (G,) location and scale expected of a slide of this (d,) centre."""
        weights, novelty = self.slide_weights(centre), self.novelty(centre)  # (m,), ()
        known = weights @ self.location, weights @ self.scale  # (G,) each
        prior = self.prior_location, self.prior_scale
        location, scale = (a + novelty * (b - a) for a, b in zip(known, prior, strict=True))
        return location, scale

    def level_factors(self, centre: Tensor) -> Tensor:
        """Return (p, G) factors of what is not known of the slide's level, ln(counts)."""
        return self.novelty(centre).sqrt() * self.patients

    def _remoteness(self, centre: Tensor) -> Tensor:
        """Return (m,) how far each training slide lies: its weight is e to the minus this."""
        distance = ((self.centres - centre) ** 2).mean(1)
        return (distance / SOFTNESS) ** _STEEPNESS


def _blocks(features: Tensor) -> list[Tensor]:
    """Return (n, d) features in parts of `_ROWS` spots."""
    return [features[start : start + _ROWS] for start in range(0, max(len(features), 1), _ROWS)]
