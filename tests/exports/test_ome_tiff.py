"""The OME-TIFF is opened by tifffile, and its OME-XML read by ome-types."""

import numpy as np
import pytest
from tests.fakes import MPP

from napari_flag import keys
from napari_flag.exports.ome_tiff import LONGEST_PX, write_ome_tiff
from napari_flag.progress import finish


@pytest.fixture
def path(prediction, tmp_path):
    finish(write_ome_tiff(prediction, tmp_path / "fake.ome.tif"))
    return tmp_path / "fake.ome.tif"


def test_each_gene_is_a_channel_that_shows_its_values_at_the_spots(path, prediction):
    import tifffile

    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        maps = file.series[0].asarray()
    width = prediction.uns[keys.PROVENANCE][keys.SLIDE_WIDTH]
    assert maps.shape == (5, LONGEST_PX, LONGEST_PX)
    assert maps.dtype == np.float32
    at = np.floor(prediction.obsm["spatial"] * LONGEST_PX / width).astype(int)
    np.testing.assert_array_equal(maps[:, at[:, 1], at[:, 0]].T, prediction.X)
    assert np.isnan(maps[:, 0, 0]).all()


def test_discs_have_the_true_size(path, prediction):
    import tifffile

    area = np.isfinite(tifffile.imread(path)[0]).mean()
    made = prediction.uns[keys.PROVENANCE]
    radius = made[keys.SPOT_DIAMETER_UM] / made[keys.MPP] / 2
    expected = 36 * np.pi * radius**2 / (made[keys.SLIDE_WIDTH] * made[keys.SLIDE_HEIGHT])
    assert area == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_names_and_physical_size_are_in_the_xml(path, prediction):
    import ome_types

    image = ome_types.from_tiff(path).images[0]
    assert [channel.name for channel in image.pixels.channels] == list(prediction.var_names)
    width = prediction.uns[keys.PROVENANCE][keys.SLIDE_WIDTH]
    assert image.pixels.physical_size_x == pytest.approx(width / LONGEST_PX * MPP)
    assert image.pixels.physical_size_x_unit is ome_types.model.UnitsLength.MICROMETER


def test_without_micrometres_no_size_is_made_up(prediction, tmp_path):
    import ome_types

    del prediction.uns[keys.PROVENANCE][keys.MPP]
    finish(write_ome_tiff(prediction, tmp_path / "fake.ome.tif"))
    assert ome_types.from_tiff(tmp_path / "fake.ome.tif").images[0].pixels.physical_size_x is None


def test_napari_opens_it_as_channels(path):
    from napari_builtins.io import napari_get_reader

    data, *_ = napari_get_reader(str(path))(str(path))[0]
    assert data.shape == (5, LONGEST_PX, LONGEST_PX)


def test_a_control_character_in_the_name_of_a_gene_leaves_xml_that_parses(prediction, tmp_path):
    from xml.etree import ElementTree

    import tifffile

    named = prediction.copy()
    named.var_names = ["A\x1b[31mB\x00\uffff", *named.var_names[1:]]
    finish(write_ome_tiff(named, tmp_path / "a.ome.tif"))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        channels = ElementTree.fromstring(file.ome_metadata).iterfind(".//{*}Channel")
        assert next(channels).get("Name") == "A␛[31mB␀�"
