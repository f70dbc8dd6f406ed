from dataclasses import replace

import pytest
import torch

from napari_flag.model.normalization import SlideNormalization

NEAR, BETWEEN, FAR = 0.0, 1.0, 30.0


@pytest.fixture
def normalization():
    """Two training slides of level 1 and 3, and a prior of level 7 from three patients."""
    centres = torch.zeros(2, 4)
    centres[:, 0] = torch.tensor([-0.1, 0.1])
    return SlideNormalization(
        mean=torch.zeros(4),
        spread=torch.ones(4),
        axes=torch.eye(4),
        centres=centres,
        location=torch.tensor([[1.0], [3.0]]).repeat(1, 3),
        scale=torch.tensor([[0.5], [1.5]]).repeat(1, 3),
        prior_location=torch.full((3,), 7.0),
        prior_scale=torch.full((3,), 2.0),
        shares=torch.tensor([0.75, 0.25]),
        patients=torch.tensor([[0.5, -0.5, 1.0], [0.0, 0.5, -0.5], [-0.5, 0.0, -0.5]]),
    )


def at(level):
    """Features of a slide whose spots lie about `level` in the first feature."""
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    features = features - features.mean(0)
    features[:, 0] += level
    return features


def test_parts_of_a_slide_are_standardised_over_all_of_it(normalization, monkeypatch):
    features = at(NEAR)
    whole = normalization.features(features)
    by_hand = (features - features.mean(0)) / (features.std(0, correction=0) + 0.2)
    torch.testing.assert_close(whole, by_hand, atol=1e-5, rtol=1e-5)
    level, _ = normalization.expression(normalization.centre(features))
    monkeypatch.setattr("napari_flag.model.normalization._ROWS", 7)
    torch.testing.assert_close(normalization.features(features), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalization.standardise(features), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normalization.expression(normalization.centre(features))[0], level)


def test_a_slide_like_the_training_slides_has_their_level(normalization):
    location, scale = normalization.expression(normalization.centre(at(NEAR)))  # half way between the two
    torch.testing.assert_close(location, torch.full((3,), 2.0), atol=0.01, rtol=0)
    torch.testing.assert_close(scale, torch.ones(3), atol=0.01, rtol=0)
    assert normalization.novelty(normalization.centre(at(NEAR))) < 0.001


def test_the_level_is_that_of_the_training_slide_that_looks_more_alike(normalization):
    apart = replace(normalization, centres=normalization.centres * 20)
    location, scale = apart.expression(apart.centre(at(-2.0)))
    torch.testing.assert_close(location, torch.ones(3))
    torch.testing.assert_close(scale, torch.full((3,), 0.5))


def test_a_slide_unlike_all_of_them_has_the_level_of_a_patient_of_whom_nothing_is_known(normalization):
    location, scale = normalization.expression(normalization.centre(at(FAR)))
    torch.testing.assert_close(location, torch.full((3,), 7.0))
    torch.testing.assert_close(scale, torch.full((3,), 2.0))
    assert normalization.novelty(normalization.centre(at(FAR))) == 1


def test_residuals_come_from_slides_that_look_alike_and_from_every_patient_where_none_does(normalization):
    apart = replace(normalization, centres=normalization.centres * 20)
    torch.testing.assert_close(apart.resemblance(apart.centre(at(-2.0))), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(apart.resemblance(apart.centre(at(FAR))), torch.tensor([0.75, 0.25]))
    assert float(apart.resemblance(apart.centre(at(BETWEEN))).sum()) == pytest.approx(1)


def test_in_between_the_level_lies_between_both(normalization):
    assert 0.05 < normalization.novelty(normalization.centre(at(BETWEEN))) < 0.95
    assert 3.1 < float(normalization.expression(normalization.centre(at(BETWEEN)))[0][0]) < 6.9


def test_how_patients_differ_is_not_known_of_unlike_slides_and_no_matter_on_like_ones(normalization):
    assert normalization.level_factors(normalization.centre(at(NEAR))).abs().max() < 0.03
    torch.testing.assert_close(
        normalization.level_factors(normalization.centre(at(FAR))), normalization.patients
    )


def test_the_level_does_not_depend_on_the_order_of_spots(normalization):
    features = at(0.5)
    torch.testing.assert_close(
        normalization.expression(normalization.centre(features))[0],
        normalization.expression(normalization.centre(features.flip(0)))[0],
    )
