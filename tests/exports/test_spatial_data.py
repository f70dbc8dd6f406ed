"""The zarr is opened by SpatialData and squidpy themselves."""

import sys

import numpy as np
import pytest
from tests.fakes import DIAMETER_UM, MPP, FakeSlide

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.exports.contents import with_structure
from napari_flag.exports.spatial_data import CHUNK_PX, MICROMETRES, PICTURE, SPOTS, TABLE, write_spatial_data
from napari_flag.progress import finish


@pytest.fixture(scope="module")
def written(predicted, tmp_path_factory):
    """The zarr without the slide; tests only read it."""
    import spatialdata

    path = tmp_path_factory.mktemp("zarr") / "fake.zarr"
    finish(write_spatial_data(predicted, path))
    return spatialdata.read_zarr(path)


def test_the_table_annotates_circles_of_the_true_radius(written, prediction):
    from spatialdata import join_spatialelement_table

    circles = written.shapes[SPOTS]
    np.testing.assert_allclose(circles.radius, DIAMETER_UM / MPP / 2)
    np.testing.assert_allclose(
        np.column_stack([circles.geometry.x, circles.geometry.y]), prediction.obsm["spatial"]
    )
    joined, table = join_spatialelement_table(
        sdata=written, spatial_element_names=SPOTS, table_name=TABLE, how="inner"
    )
    assert list(joined[SPOTS].index) == list(table.obs_names) == list(prediction.obs_names)
    np.testing.assert_array_equal(table.X, prediction.X)
    np.testing.assert_array_equal(table.layers[keys.SPREAD], prediction.layers[keys.SPREAD])


def test_micrometres_are_a_coordinate_system_of_their_own(written, prediction):
    from spatialdata import transform

    in_um = transform(written.shapes[SPOTS], to_coordinate_system=MICROMETRES)
    np.testing.assert_allclose(in_um.radius, DIAMETER_UM / 2)
    np.testing.assert_allclose(in_um.geometry.x, prediction.obsm["spatial"][:, 0] * MPP)


def test_without_micrometres_there_are_only_pixels(prediction, tmp_path):
    import spatialdata

    del prediction.uns[keys.PROVENANCE][keys.MPP]
    finish(write_spatial_data(prediction, tmp_path / "fake.zarr"))
    assert spatialdata.read_zarr(tmp_path / "fake.zarr").coordinate_systems == ["global"]


def test_the_small_picture_lies_under_the_spots(written, prediction):
    from spatialdata import get_extent

    extent = get_extent(written[PICTURE])
    np.testing.assert_allclose(extent["x"][1], prediction.uns[keys.PROVENANCE][keys.SLIDE_WIDTH], rtol=0.01)


@pytest.mark.slow
def test_squidpy_works_on_the_table(written):
    """Slow for squidpy's import."""
    import squidpy as sq

    table = written.tables[TABLE].copy()
    sq.gr.spatial_neighbors_grid(table, n_neighs=4)
    sq.gr.spatial_autocorr(table, mode="moran")
    assert set(table.uns["moranI"].index) == set(table.var_names)
    assert table.uns["moranI"].I.iloc[0] > 0.5


def test_structure_goes_along_without_a_warning_of_zarr(prediction, tmp_path, recwarn):
    import spatialdata

    del prediction.obs[keys.DOMAIN]
    complete = finish(with_structure(prediction))
    finish(write_spatial_data(complete, tmp_path / "fake.zarr"))
    assert not [warning for warning in recwarn if "V3 specification" in str(warning.message)]
    table = spatialdata.read_zarr(tmp_path / "fake.zarr").tables[TABLE]
    assert list(table.obs[keys.DOMAIN]) == list(complete.obs[keys.DOMAIN])
    assert set(table.uns["moranI"].index) == set(prediction.var_names)
    markers = table.uns["markers"]
    assert list(markers[markers.domain == "1"].gene) == list(complete.uns[keys.MARKERS]["names"]["1"])


def test_the_slide_becomes_a_pyramid(prediction, tmp_path):
    import spatialdata

    width, height = 2100, 1100  # two levels, the first of several chunks
    prediction.uns[keys.PROVENANCE] |= {keys.SLIDE_WIDTH: width, keys.SLIDE_HEIGHT: height}
    slide = FakeSlide(width, height)
    steps = []
    finish(write_spatial_data(prediction, tmp_path / "fake.zarr", slide), steps.append)
    picture = spatialdata.read_zarr(tmp_path / "fake.zarr")[PICTURE]
    shapes = [picture[level].image.shape for level in picture.children]
    assert shapes == [(3, height, width), (3, height // 2, width // 2)]
    np.testing.assert_array_equal(picture["scale0"].image.to_numpy(), slide.pixels.transpose(2, 0, 1))
    assert steps[-1].total == -(-width // CHUNK_PX) * -(-height // CHUNK_PX)


def test_cancelled_it_leaves_nothing(prediction, tmp_path):
    work = write_spatial_data(prediction, tmp_path / "fake.zarr", FakeSlide(1500, 1500))
    while next(work).stage != "Writing the SpatialData zarr":
        pass
    work.close()
    assert not list(tmp_path.iterdir())


def test_without_spatialdata_one_sentence_says_what_to_install(prediction, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(UserError, match=r"napari-flag\[spatialdata\]"):
        finish(write_spatial_data(prediction, tmp_path / "fake.zarr"))
