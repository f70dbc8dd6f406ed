"""How far a tile lies from the tissue that the weights were trained on: an out-of-distribution score.

The network works on features normalised per slide (`model.normalization`), so it predicts with the same
confidence on any picture.  This score reads the raw features instead: stain and scanner count as much as the
tissue does.

* **Distance.** One Gaussian around the centre of each training slide, all with the covariance that spots
  have within slides, so that two slides far apart do not make everything between them look near.  Features
  are divided by their spread within slides and split into the p leading principal axes, whitened, and what
  they leave: half the mean square along the axes, half the mean square of the rest, to the nearest centre.
  (A Mahalanobis distance under probabilistic PCA, Tipping & Bishop 1999, but with the rest, of many more
  dimensions, not outvoting the axes.)
* **Calibration.** Each training section is left out in turn (a third of it, where a patient has no other;
  whole patients, where there are at least five), the distance refitted without, and the distances of the
  spots left out are kept.  A spot's score is the share of these that are *nearer* than it: 1 minus the
  p-value of a conformal test (Vovk et al. 2005), but against few slides instead of many exchangeable spots.
* **Limits.** Few sections of few patients of one study say little of how patients, stains and scanners
  differ; an encoder trained on the same slides has seen the section left out; and its neighbours, cut from
  the same block, were left in.  The calibration is therefore optimistic: a good slide of another patient
  may well be called unlike, and is, as far as these weights can know.  Nor does a small distance mean a good
  prediction: it means that such tissue was in the training set, not that its genes can be predicted.
"""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_flag.errors import UserError
from napari_flag.formatting import percent_reached

FAR: Final = 0.95
"""A spot is unlike the training tissue when it lies farther than this share of the spots left out.

Measured (``docs/results/familiarity.json``): at 0.99 too few spots of two patients decide; at 0.95
sections left out whose patient is known, turned or mildly re-stained, stay below `MOSTLY`, and B4 of a
patient left out is above.  Patient C left out and a slide read at half its µm/px stay below as well: the
warning is no guarantee.
"""
MOSTLY: Final = 0.5
"""A slide is mostly unlike when more than this share of its spots are."""
_AT_ONCE: Final = 4096
"""Spots computed at once in float64."""
_SIDES: Final = {
    "spread": 1, "centres": 2, "axes": 2, "variances": 1, "rest": 0, "reach": 1, "reach_aligned": 1,
}  # fmt: skip
"""Part of a score → how many sides it has."""

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SlideScore:
    """The out-of-distribution score of one slide: how far its spots lie from the training tissue.

    Parameters
    ----------
    distance
        (n,) float32, 1 is the distance within which the share `FAR` of the left-out training spots lies.
    unlike
        (n,) float32, the share of the left-out training spots that lie nearer, 0–1.
    share
        Share of the spots beyond `FAR`.
    share_aligned
        The same after the slide's centre has been moved to that of the training slides: low where stain,
        scanner, focus or resolution shifts the whole slide, high where its spots differ individually.
    """

    distance: Float32Array
    unlike: Float32Array
    share: float
    share_aligned: float

    @property
    def mostly_unlike(self) -> bool:
        """Whether more than half of the spots are unlike the training tissue."""
        return self.share > MOSTLY

    @property
    def warning(self) -> str | None:
        """Return one sentence for a slide that is mostly unlike, None for any other."""
        if not self.mostly_unlike:
            return None
        begin = f"{_share(self.share)} of the spots look unlike the tissue this model was trained on"
        if self.share_aligned > MOSTLY:
            return (
                f"{begin}, and not by stain or scanner alone: maps of tissue it never saw can look right "
                "and be wrong, so rely on them only where measured counts agree."
            )
        return (
            f"{begin}, the whole slide alike, as by another stain, scanner, focus or µm/px: check the "
            "µm/px and the picture first, and expect less accurate maps."
        )


@dataclass(frozen=True, slots=True)
class OutOfDistributionScore:
    """Scores slides against the training tissue; fitted in training, stored in the weights file.

    Parameters
    ----------
    spread
        (d,) of every feature within the training slides; infinite leaves a feature out.
    centres
        (m, d) mean raw features of each training slide.
    axes
        (p, d) leading principal axes of features divided by `spread`, unit length.
    variances
        (p,) along them, within slides.
    rest
        () mean square length of what the axes leave of a training spot.
    reach, reach_aligned
        (q,) rising: equally spaced quantiles of the distances of left-out training spots, as they are and
        from the centre of their own slide.
    """

    spread: Tensor
    centres: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor
    reach: Tensor
    reach_aligned: Tensor

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], features: int) -> "OutOfDistributionScore":
        """Build from what `tensors` returned, for feature vectors of this length.

        Raises
        ------
        UserError
            When parts are missing or do not fit each other or the features.
        """
        names = [field.name for field in fields(cls)]
        fits = {name: (each.ndim, each.is_floating_point()) for name, each in tensors.items()} == {
            name: (_SIDES[name], True) for name in names
        }
        if fits:
            d, p = features, len(tensors["variances"])
            fits = tensors["axes"].shape == (p, d) and tensors["centres"].shape[1:] == (d,)
            fits &= tensors["spread"].shape == (d,) and tensors["rest"].shape == ()
            fits &= min(len(tensors["reach"]), len(tensors["reach_aligned"])) > 0
            fits &= all(bool((tensors[name] > 0).all()) for name in ("spread", "variances", "rest"))
        if not fits:
            raise UserError(
                "The out-of-distribution score in these weights does not fit this napari-flag version; "
                "get the weights again or update napari-flag."
            )
        return cls(**{name: tensors[name] for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """Return everything, for a weights file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def distances(self, features: Tensor) -> Tensor:
        """Return the (n,) distance of each of (n, d) raw `features` to its nearest training slide."""
        return self._distances(features, self.centres)

    def aligned_distances(self, features: Tensor) -> Tensor:
        """Return the (n,) distances of one slide's spots to that slide's own centre."""
        return self._distances(features, features.mean(0, keepdim=True))

    def score(self, features: Float32Array) -> SlideScore:
        """Return the score of one slide from the raw (n, d) float32 `features` of all its spots."""
        raw = torch.from_numpy(features)
        distance, aligned = self.distances(raw), self.aligned_distances(raw)
        unlike = _share_nearer(self.reach, distance)
        far = _threshold(self.reach)
        return SlideScore(
            distance=(distance / far).numpy().astype(np.float32),
            unlike=unlike.numpy().astype(np.float32),
            share=float((distance > far).double().mean()),
            share_aligned=float((aligned > _threshold(self.reach_aligned)).double().mean()),
        )

    def _distances(self, features: Tensor, centres: Tensor) -> Tensor:
        anchor = centres[0]  # close to the data, so that squares of differences keep their digits
        targets = ((centres - anchor) / self.spread).double()  # (m, d)
        axes = self.axes.double()
        whitened = targets @ axes.T / self.variances.double().sqrt()  # (m, p)
        along_targets, found = targets @ axes.T, []
        for start in range(0, len(features), _AT_ONCE):
            z = ((features[start : start + _AT_ONCE] - anchor) / self.spread).double()  # (b, d)
            t = z @ axes.T  # (b, p)
            inside = _squares(t / self.variances.double().sqrt(), whitened) / len(self.variances)  # (b, m)
            outside = (_squares(z, targets) - _squares(t, along_targets)).clamp_min(0) / self.rest
            found.append((0.5 * inside + 0.5 * outside).min(1).values.sqrt())
        return torch.cat(found)


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Return (n, m) squared distances between the rows of (n, k) `a` and of (m, k) `b`."""
    return ((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T).clamp_min(0)


def _share_nearer(reach: Tensor, distance: Tensor) -> Tensor:
    return torch.searchsorted(reach.double(), distance).double() / len(reach)


def _threshold(reach: Tensor) -> Tensor:
    """Return the distance within which the share `FAR` of the left-out training spots lie."""
    return torch.quantile(reach.double(), FAR)


def _share(share: float) -> str:
    return "All" if share == 1 else percent_reached(share)
