import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.components import ViewerModel
from PIL import Image
from tests.fakes import MPP, PITCH_UM, FakeSlide, fake_prediction

from napari_flag import keys
from napari_flag.discovery import looks_like_slide
from napari_flag.errors import UserError
from napari_flag.exports.formats import save_csv, save_geojson, save_h5ad
from napari_flag.layers.frame import Frame
from napari_flag.layers.raster import raster_of
from napari_flag.layers.readers import prediction_layer, read_prediction_layers, read_slide
from napari_flag.layers.slide_layers import outlined, show_spots, slide_layer, spots_layer
from napari_flag.prediction_file import drawn_diameter_px, spots_of, write_prediction
from napari_flag.slides.lattice import DEFAULT_FILL
from napari_flag.slides.spots import Spots


@pytest.fixture
def big_tiff(tmp_path):
    path = tmp_path / "big.tif"
    tifffile.imwrite(path, np.full((500, 2048, 3), 200, np.uint8), tile=(256, 256))
    return path


def test_vendor_files_are_ours_by_their_ending(tmp_path):
    for ending in ("svs", "NDPI", "mrxs", "scn"):
        assert looks_like_slide(tmp_path / f"a.{ending}")


def test_large_rgb_pictures_may_be_slides_and_small_ones_are_left_to_napari(tmp_path, big_tiff):
    Image.new("RGB", (3000, 20)).save(tmp_path / "big.png")
    Image.new("RGB", (300, 20)).save(tmp_path / "small.png")
    Image.new("L", (3000, 20)).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((64, 64), np.uint16))
    (tmp_path / "broken.tif").write_bytes(b"II*\0 no tiff")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert looks_like_slide(tmp_path / "big.png")
    assert looks_like_slide(big_tiff)
    for name in ("small.png", "grey.png", "stack.tif", "broken.tif", "broken.jpg", "a.dcm"):
        assert not looks_like_slide(tmp_path / name), name


def test_a_picture_larger_than_pillow_likes_is_a_slide(tmp_path, monkeypatch):
    Image.new("RGB", (3000, 200)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert looks_like_slide(tmp_path / "huge.png")


def test_a_slide_opens_as_one_multiscale_layer(big_tiff, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr("napari.utils.notifications.show_warning", said.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    [(levels, options, kind)] = read_slide(big_tiff)
    assert kind == "image"
    assert "µm per pixel is not known" in said[0]  # this file does not state it
    assert levels[0].shape == (500, 2048, 3)
    assert options["multiscale"]
    assert options["rgb"]
    assert options["metadata"][keys.LAYER_KIND] == "slide"
    options["metadata"][keys.LAYER_SLIDE].close()


def test_slide_and_spots_are_placed_in_the_same_units():

    spots = Spots(ids=("a", "b"), xy=np.array([[10.0, 10.0], [400.0, 10.0]]), diameter_um=100.0)
    _, slide_options, _ = slide_layer(FakeSlide())
    _, spot_options, _ = spots_layer(spots, Frame(0.5))
    assert slide_options["units"] == spot_options["units"] == ("um", "um")
    assert slide_options["scale"] == (0.5, 0.5)
    assert "2" in spot_options["name"]


def test_a_prediction_is_saved_reopened_and_exported(tmp_path):
    adata = fake_prediction(9)
    data, options, _ = prediction_layer(adata)
    assert options["name"] == f"{adata.var_names[0]} · predicted"
    path = str(tmp_path / "p.h5ad")
    assert save_h5ad(path, data, options) == [path]
    [(_, reopened, _)] = read_prediction_layers(path)
    np.testing.assert_array_equal(reopened["metadata"][keys.LAYER_ADATA].X, adata.X)
    save_csv(str(tmp_path / "p.csv"), data, options)
    table = pd.read_csv(tmp_path / "p.csv")
    assert list(table.spot) == list(adata.obs_names)
    np.testing.assert_allclose(table["ESR1"], adata.to_df()["ESR1"], rtol=1e-5)
    save_geojson(str(tmp_path / "p.geojson"), data, options)
    assert len(json.loads((tmp_path / "p.geojson").read_text())["features"]) == adata.n_obs


def test_someone_elses_h5ad_is_refused_with_one_sentence(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("napari.utils.notifications.show_error", said.append)
    other = fake_prediction(9)
    write_prediction(other, tmp_path / "o.h5ad")
    (tmp_path / "text.h5ad").write_text("no hdf5")
    assert read_prediction_layers(tmp_path / "text.h5ad") == [(None,)]
    assert len(said) == 1
    assert "text.h5ad" in said[0]


def test_a_layer_without_prediction_cannot_be_saved_as_one(tmp_path):
    with pytest.raises(UserError, match="select a gene layer"):
        save_csv(str(tmp_path / "x.csv"), np.zeros((2, 2)), {"name": "photo", "metadata": {}})


def test_outlines_of_spots_are_drawn_once_for_each_size_they_have_on_the_slide():
    xy = np.array([[10.0, 10.0], [400.0, 10.0]])
    spots = Spots(ids=("a", "b"), xy=xy, diameter_um=100.0)
    raster, picture = outlined(spots, 0.5)
    assert outlined(spots, 0.5)[1] is picture
    assert spots_layer(spots, Frame(0.5))[0] is picture
    assert outlined(spots, 1.0)[0].lookup.shape != raster.lookup.shape


@pytest.mark.parametrize("stated", [True, False])
def test_spots_of_unknown_diameter_have_one_size_as_rings_as_outlines_and_in_maps(stated):
    adata = fake_prediction(36)
    pitch = PITCH_UM / MPP
    adata.obsm[keys.SPATIAL] += np.random.default_rng(0).normal(0, pitch / 12, (36, 2))
    del adata.uns[keys.PROVENANCE][keys.SPOT_DIAMETER_UM], adata.uns[keys.SPATIAL]
    if not stated:
        del adata.uns[keys.PROVENANCE][keys.SPOT_PITCH_UM]
    viewer, spots = ViewerModel(), spots_of(adata)
    show_spots(viewer, spots, FakeSlide(), Frame(MPP))
    diameter = drawn_diameter_px(adata)
    assert diameter == pytest.approx(DEFAULT_FILL * pitch, rel=1e-9 if stated else 0.05)
    assert (viewer.layers[0].size == diameter).all()
    raster = raster_of(adata)
    np.testing.assert_array_equal(raster.lookup, outlined(spots, MPP)[0].lookup)
    area = np.count_nonzero(raster.lookup == 1) * raster.matrix[0, 0] ** 2
    assert area == pytest.approx(np.pi / 4 * diameter**2, rel=0.05)
