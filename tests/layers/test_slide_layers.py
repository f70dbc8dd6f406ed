import numpy as np
import pytest
from napari.layers import Image, Shapes

from napari_flag.layers.slide_layers import region_polygons


class Picture:
    """A slide's layer, turned and scaled, that counts what it is asked."""

    def __init__(self):
        self.asked = 0
        self.layer = Image(np.zeros((9, 9), np.float32), scale=(0.5, 0.25), rotate=20, translate=(3, 4))

    def world_to_data(self, position):
        self.asked += 1
        return self.layer.world_to_data(position)


def star(corners=2_000):
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    away = 100 + 10 * np.cos(7 * angles)
    return np.column_stack([200 + away * np.sin(angles), 300 + away * np.cos(angles)])


@pytest.fixture
def region():
    return Shapes([star()], shape_type="polygon", scale=(2.0, 2.0), shear=[0.1], translate=(-5, 7))


def test_a_region_is_placed_at_once_and_lies_where_each_of_its_corners_lies(region):
    picture = Picture()
    (polygon,) = region_polygons(region, picture, "Region")
    assert picture.asked <= 3
    corners = np.array([picture.world_to_data(region.data_to_world(point)) for point in star()])
    np.testing.assert_allclose(np.array(polygon.exterior.coords)[:-1], corners[:, ::-1], atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda region, picture: region.add([star() + 300], shape_type="polygon"),
        lambda region, picture: setattr(region, "data", [star() + 1]),
        lambda region, picture: setattr(region, "translate", (1, 1)),
        lambda region, picture: setattr(picture.layer, "scale", (1, 1)),
    ],
)
def test_the_polygons_of_a_region_are_kept_until_it_or_the_picture_changes(region, change):
    picture = Picture()
    before = region_polygons(region, picture, "Region")
    assert region_polygons(region, picture, "Region") is before
    change(region, picture)
    after = region_polygons(region, picture, "Region")
    assert [polygon.wkb for polygon in after] != [polygon.wkb for polygon in before]
