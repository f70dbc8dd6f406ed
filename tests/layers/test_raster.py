import numpy as np
import pytest
from tests.fakes import DIAMETER_UM, fake_prediction

from napari_flag import keys
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.raster import LONGEST_PX, Thumbnails, colour_table, raster_of, spot_raster


def centre_pixel(raster, xy):
    row, col, _ = np.linalg.solve(raster.matrix, (xy[1], xy[0], 1.0))
    return round(row), round(col)


def test_every_spot_is_painted_with_its_own_value_at_its_own_place():
    adata = fake_prediction(100)
    raster = raster_of(adata)
    picture = raster.paint(np.arange(100.0))
    for spot, xy in enumerate(adata.obsm[keys.SPATIAL]):
        assert picture[centre_pixel(raster, xy)] == spot
        assert raster.spot_at(*centre_pixel(raster, xy)) == spot


def test_between_spots_is_transparent_and_holds_no_spot():
    adata = fake_prediction(100)
    raster = raster_of(adata)
    between = adata.obsm[keys.SPATIAL][:2].mean(axis=0)
    assert np.isnan(raster.paint(np.ones(100))[centre_pixel(raster, between)])
    assert raster.spot_at(*centre_pixel(raster, between)) is None
    assert raster.spot_at(-5, 3) is None
    assert raster.index[centre_pixel(raster, between)] == -1


def test_discs_have_the_true_diameter_in_um():
    adata = fake_prediction(100)
    raster = raster_of(adata)
    scale = raster.options(frame_of(adata))["scale"][0]
    area = (raster.index == 0).sum() * scale**2
    assert area == pytest.approx(np.pi * (DIAMETER_UM / 2) ** 2, rel=0.05)


def test_a_missing_value_is_transparent_too():
    raster = raster_of(fake_prediction(4))
    values = np.array([1.0, np.nan, 3.0, 4.0])
    picture = raster.paint(values)
    assert np.isnan(picture[raster.index == 1]).all()
    assert (picture[raster.index == 2] == 3.0).all()


def test_the_raster_stays_bounded_for_200_000_spots():
    side = 448
    rows, cols = np.divmod(np.arange(200_000), side)
    raster = spot_raster(np.column_stack([cols, rows]) * 100.0, diameter_px=55.0, lattice="hex")
    assert max(raster.lookup.shape) <= LONGEST_PX
    assert len(np.unique(raster.lookup)) == 200_001  # every spot has at least a pixel


def test_touching_square_bins_take_one_pixel_each_and_follow_a_turned_array():
    rows, cols = np.divmod(np.arange(40 * 50), 50)
    array = np.column_stack([rows + 7, cols + 3])
    angle = 0.1
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    xy = (array[:, ::-1] * 16.0) @ turn.T + 1000
    raster = spot_raster(xy, diameter_px=16.0, lattice="square", array=array)
    assert raster.lookup.shape == (40, 50)
    assert all(raster.spot_at(*centre_pixel(raster, xy[i])) == i for i in (0, 777, 1999))
    affine = raster.options(Frame(0.5))["affine"]
    row, col = centre_pixel(raster, xy[777])
    assert affine @ (row, col, 1) == pytest.approx((*(xy[777, ::-1] * 0.5), 1.0))


def test_touching_squares_without_array_positions_are_drawn_as_squares():
    rows, cols = np.divmod(np.arange(100), 10)
    raster = spot_raster(np.column_stack([cols, rows]) * 16.0, diameter_px=16.0, lattice="square")
    inner = raster.lookup[20:-20, 20:-20]
    assert (inner > 0).all()


@pytest.mark.parametrize(
    ("xy", "far"), [(np.full((16, 2), 500.0), 0), (np.arange(32.0).reshape(16, 2), 10**6)]
)
def test_squares_whose_places_make_no_array_are_drawn_where_they_lie(xy, far):
    array = np.column_stack([np.arange(16) // 4, np.arange(16) % 4])
    array[-1] += far
    raster = spot_raster(xy, diameter_px=100.0, lattice="square", array=array)
    assert raster.spot_at(*centre_pixel(raster, xy[-1])) is not None
    assert abs(np.linalg.det(raster.matrix)) > 0


def test_the_nearest_centre_wins_where_spots_overlap():
    raster = spot_raster(np.array([[0.0, 0.0], [60.0, 0.0]]), diameter_px=100.0, lattice="none")
    assert raster.spot_at(*centre_pixel(raster, (25.0, 0.0))) == 0
    assert raster.spot_at(*centre_pixel(raster, (35.0, 0.0))) == 1


def test_outlines_follow_the_rims_only():
    raster = raster_of(fake_prediction(4))
    rims = raster.outlines().astype(bool)
    inside = raster.lookup > 0
    assert (rims & ~inside).sum() == 0
    assert 0 < rims.sum() < 0.2 * inside.sum()


def test_one_spot_alone_is_drawn():
    assert (raster_of(fake_prediction(1)).lookup == 1).any()


@pytest.fixture(scope="module")
def thumbnails():
    return Thumbnails(fake_prediction(64).obsm["spatial"], 80)


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
