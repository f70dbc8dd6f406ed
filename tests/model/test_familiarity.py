import dataclasses

import numpy as np
import pytest
import torch

from napari_flag.errors import UserError
from napari_flag.model.out_of_distribution import FAR, Familiarity

D, P = 12, 3


@pytest.fixture
def familiarity():
    """Two slides around 0 and 10 in the first feature, spots of unit spread in all, calibrated on others."""
    centres = torch.zeros(2, D)
    centres[1, 0] = 10.0
    made = Familiarity(
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
def test_spots_like_either_training_slide_are_familiar(familiarity, at):
    told = familiarity.judge(spots(at=at))
    assert told.share == pytest.approx(1 - FAR, abs=0.03)
    assert not told.mostly_unlike
    assert told.warning is None
    assert told.unlike.dtype == told.distance.dtype == np.float32
    assert told.unlike.min() >= 0
    assert told.unlike.max() <= 1


def test_a_slide_between_the_training_slides_is_like_neither(familiarity):
    told = familiarity.judge(spots(at=5.0))
    assert told.share > 0.8
    assert told.share_aligned < 0.1


def test_a_slide_shifted_as_a_whole_is_told_from_tissue_of_another_kind(familiarity):
    shifted = familiarity.judge(spots() + 8.0)
    strange = familiarity.judge(6.0 * spots())
    assert "whole slide alike" in shifted.warning
    assert "not by stain or scanner alone" in strange.warning
    assert shifted.warning.startswith("All of the spots")
    assert strange.share_aligned > 0.5


def test_features_beside_the_axes_count_too(familiarity):
    beside = spots()
    beside[:, P:] *= 4.0
    assert familiarity.judge(beside).mostly_unlike


def test_the_distance_is_one_where_unlike_begins(familiarity):
    told = familiarity.judge(np.concatenate([spots(), spots(at=3.0)]))
    np.testing.assert_array_equal(told.distance > 1, told.unlike > FAR - 1e-6)
    assert told.share == pytest.approx((told.distance > 1).mean())


def test_the_score_is_the_share_of_left_out_spots_that_lie_nearer(familiarity):
    features = torch.from_numpy(spots(5, at=1.0))
    nearer = [(familiarity.reach < d).double().mean().item() for d in familiarity.distances(features)]
    np.testing.assert_allclose(familiarity.judge(features.numpy()).unlike, nearer, atol=1e-6)


def test_a_spot_is_judged_alike_alone_and_among_many(familiarity, monkeypatch):
    features = spots(50, at=2.0)
    together = familiarity.judge(features).distance
    monkeypatch.setattr("napari_flag.model.out_of_distribution._AT_ONCE", 7)
    np.testing.assert_array_equal(familiarity.judge(features).distance, together)
    np.testing.assert_allclose(familiarity.judge(features[3:4]).distance, together[3:4], rtol=1e-6)


def test_a_feature_with_infinite_spread_is_left_out(familiarity):
    parts = familiarity.tensors()
    parts["spread"] = parts["spread"].clone()
    parts["spread"][4] = torch.inf
    blind = Familiarity.from_tensors(parts, D)
    odd = spots()
    odd[:, 4] = 1e6
    assert blind.judge(odd).share < 0.1
    assert familiarity.judge(odd).share == 1.0


def test_it_comes_back_from_its_tensors(familiarity):
    again = Familiarity.from_tensors(familiarity.tensors(), D)
    np.testing.assert_array_equal(again.judge(spots()).distance, familiarity.judge(spots()).distance)


@pytest.mark.parametrize("fault", ["a part is missing", "another size", "features", "no calibration"])
def test_parts_that_do_not_fit_are_refused(familiarity, fault):
    parts, features = familiarity.tensors(), D
    if fault == "a part is missing":
        del parts["rest"]
    elif fault == "another size":
        parts["axes"] = parts["axes"][:, 1:]
    elif fault == "other features":
        features = D + 1
    else:
        parts["reach"] = torch.empty(0)
    with pytest.raises(UserError, match="out-of-distribution"):
        Familiarity.from_tensors(parts, features)
