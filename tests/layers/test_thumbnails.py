import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag.layers.raster import Thumbnails, colour_table


@pytest.fixture(scope="module")
def thumbnails():
    return Thumbnails(fake_prediction(64), 80)


def test_a_map_is_as_small_as_asked_and_covers_the_tissue(thumbnails):
    picture = thumbnails.paint(np.ones(64, np.float32), (0, 1), colour_table("viridis"))
    assert max(picture.shape[:2]) <= 80
    assert (picture[..., 3] > 0).mean() > 0.75


def test_limits_get_the_ends_of_the_colour_map(thumbnails):
    colours = colour_table("viridis")
    low = thumbnails.paint(np.full(64, -5, np.float32), (0, 1), colours)
    high = thumbnails.paint(np.full(64, 5, np.float32), (0, 1), colours)
    assert np.unique(low[low[..., 3] > 0], axis=0).tolist() == [colours[0].tolist()]
    assert np.unique(high[high[..., 3] > 0], axis=0).tolist() == [colours[-1].tolist()]


def test_what_is_unknown_is_transparent(thumbnails):
    values = np.ones(64, np.float32)
    values[32:] = np.nan
    picture = thumbnails.paint(values, (0, 1), colour_table("viridis"))
    seen = picture[..., 3].any(axis=1)
    assert seen[: len(seen) // 3].all()
    assert not seen[2 * len(seen) // 3 :].any()
