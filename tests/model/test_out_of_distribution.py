import dataclasses

import numpy as np
import pytest
import torch

from napari_flag.errors import UserError
from napari_flag.model.out_of_distribution import FAR, OutOfDistributionScore

D, P = 12, 3


@pytest.fixture
def fitted():
    """Two slides around 0 and 10 in the first feature, spots of unit spread in all, calibrated on others."""
    centres = torch.zeros(2, D)
    centres[1, 0] = 10.0
    made = OutOfDistributionScore(
        spread=torch.ones(D),
        centres=centres,
        axes=torch.eye(D)[:P],
        variances=torch.ones(P),
        rest=torch.tensor(float(D - P)),
        reach=torch.ones(1),
        reach_aligned=torch.ones(1),
    )
    left_out = torch.from_numpy(spots(2000, seed=7))
    reach, aligned = (f(left_out).sort().values for f in (made.distances, made.aligned_distances))
    return dataclasses.replace(made, reach=reach, reach_aligned=aligned)


def spots(n=400, at=0.0, seed=1):
    drawn = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    drawn[:, 0] += at
    return drawn


@pytest.mark.parametrize("at", [0.0, 10.0])
def test_spots_like_either_training_slide_raise_no_warning(fitted, at):
    scored = fitted.score(spots(at=at))
    assert scored.share == pytest.approx(1 - FAR, abs=0.03)
    assert not scored.mostly_unlike
    assert scored.warning is None
    assert scored.unlike.dtype == scored.distance.dtype == np.float32
    assert scored.unlike.min() >= 0
    assert scored.unlike.max() <= 1


def test_a_slide_between_the_training_slides_is_like_neither(fitted):
    scored = fitted.score(spots(at=5.0))
    assert scored.share > 0.8
    assert scored.share_aligned < 0.1


def test_the_warning_distinguishes_a_slide_shifted_as_a_whole_from_other_tissue(fitted):
    shifted = fitted.score(spots() + 8.0)
    other = fitted.score(6.0 * spots())
    assert "whole slide alike" in shifted.warning
    assert "not by stain or scanner alone" in other.warning
    assert shifted.warning.startswith("All of the spots")
    assert other.share_aligned > 0.5


def test_features_off_the_axes_count_too(fitted):
    off_axis = spots()
    off_axis[:, P:] *= 4.0
    assert fitted.score(off_axis).mostly_unlike


def test_the_distance_is_one_where_unlike_begins(fitted):
    scored = fitted.score(np.concatenate([spots(), spots(at=3.0)]))
    np.testing.assert_array_equal(scored.distance > 1, scored.unlike > FAR - 1e-6)
    assert scored.share == pytest.approx((scored.distance > 1).mean())


def test_the_score_is_the_share_of_left_out_spots_that_lie_nearer(fitted):
    features = torch.from_numpy(spots(5, at=1.0))
    nearer = [(fitted.reach < d).double().mean().item() for d in fitted.distances(features)]
    np.testing.assert_allclose(fitted.score(features.numpy()).unlike, nearer, atol=1e-6)


def test_the_score_of_a_spot_does_not_depend_on_the_others(fitted, monkeypatch):
    features = spots(50, at=2.0)
    together = fitted.score(features).distance
    monkeypatch.setattr("napari_flag.model.out_of_distribution._AT_ONCE", 7)
    np.testing.assert_array_equal(fitted.score(features).distance, together)
    np.testing.assert_allclose(fitted.score(features[3:4]).distance, together[3:4], rtol=1e-6)


def test_a_feature_with_infinite_spread_is_left_out(fitted):
    parts = fitted.tensors()
    parts["spread"] = parts["spread"].clone()
    parts["spread"][4] = torch.inf
    blind = OutOfDistributionScore.from_tensors(parts, D)
    odd = spots()
    odd[:, 4] = 1e6
    assert blind.score(odd).share < 0.1
    assert fitted.score(odd).share == 1.0


def test_it_comes_back_from_its_tensors(fitted):
    again = OutOfDistributionScore.from_tensors(fitted.tensors(), D)
    np.testing.assert_array_equal(again.score(spots()).distance, fitted.score(spots()).distance)


@pytest.mark.parametrize("fault", ["a part is missing", "another size", "features", "no calibration"])
def test_parts_that_do_not_fit_are_refused(fitted, fault):
    parts, features = fitted.tensors(), D
    if fault == "a part is missing":
        del parts["rest"]
    elif fault == "another size":
        parts["axes"] = parts["axes"][:, 1:]
    elif fault == "other features":
        features = D + 1
    else:
        parts["reach"] = torch.empty(0)
    with pytest.raises(UserError, match="out-of-distribution"):
        OutOfDistributionScore.from_tensors(parts, features)
