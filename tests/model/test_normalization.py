import pytest
import torch

from napari_flag.model.normalization import SlideNormalization

NEAR, FAR = 0.02, 30.0


@pytest.fixture
def normalization():
    """Two training slides of level 1 and 3, in features of which only the first depends on the level."""
    centres = torch.zeros(2, 4)
    centres[:, 0] = torch.tensor([-0.1, 0.1])
    slope = torch.zeros(4, 3)
    slope[0] = 0.5
    return SlideNormalization(
        mean=torch.zeros(4),
        spread=torch.ones(4),
        axes=torch.eye(4),
        centres=centres,
        location=torch.tensor([[1.0], [3.0]]).repeat(1, 3),
        scale=torch.ones(2, 3),
        moran=torch.full((2, 3), 0.2),
        slope=slope,
        level=torch.full((3,), 2.0),
    )


def at(level):
    """Features of a slide whose spots lie about `level` in the first feature."""
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    features = features - features.mean(0)
    features[:, 0] += level
    return features


def test_a_slide_like_the_training_slides_has_their_location(normalization):
    location, _, _ = normalization.expression(at(NEAR))
    assert 1.0 < float(location[0]) < 3.0
    assert normalization.novelty(at(NEAR)) < 0.01


def test_a_slide_unlike_all_of_them_has_the_location_regressed_on_its_features(normalization):
    location, _, _ = normalization.expression(at(FAR))
    assert normalization.novelty(at(FAR)) > 0.99
    torch.testing.assert_close(location, torch.full((3,), 2.0 + 0.5 * FAR), rtol=1e-4, atol=1e-4)


def test_the_location_of_a_slide_unlike_all_of_them_is_less_certain(normalization):
    assert (normalization.location_variance(at(FAR)) > 10 * normalization.location_variance(at(NEAR))).all()


def test_location_does_not_depend_on_the_order_of_spots(normalization):
    features = at(0.5)
    torch.testing.assert_close(
        normalization.expression(features)[0], normalization.expression(features.flip(0))[0]
    )
