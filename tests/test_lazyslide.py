"""Our weights as models that LazySlide calls: as `predict` computes, and in LazySlide where it is there."""

import numpy as np
import pytest
import torch
from tests.slide_files import pyramid_tiff, tissue_picture

from napari_flag.errors import UserError
from napari_flag.foreign_prediction import read_any_prediction
from napari_flag.lazyslide import Model
from napari_flag.prediction import predict_slide
from napari_flag.progress import finish
from napari_flag.slides.slide import open_slide
from napari_flag.slides.tiles import read_tiles

MPP = 0.683


@pytest.fixture
def model(tiny_weights):
    return Model(tiny_weights, mpp=MPP, device="cpu")


def expected(slide, spots, checkpoint, cache):
    return finish(predict_slide(slide, spots, checkpoint, device="cpu", cache=cache))


@pytest.mark.filterwarnings("ignore:There are only 9 spots")
def test_tiles_and_places_give_what_predict_gives(
    model, tiny_slide, tiny_spots, tiny_checkpoint, feature_cache
):
    encoder = model.encoder
    tiles = read_tiles(tiny_slide, tiny_spots.xy, size_px=encoder.tile_px, mpp=encoder.mpp, batch_size=4)
    read = encoder.get_transform()
    features = np.concatenate(
        [encoder.encode_image(torch.stack([read(tile) for tile in batch])) for batch in tiles]
    )
    found = model.predict(features, tiny_spots.xy - encoder.tile_px / 2)
    ours = expected(tiny_slide, tiny_spots, tiny_checkpoint, feature_cache)
    assert list(found) == list(ours.var_names)
    np.testing.assert_allclose(np.stack(list(found.values()), axis=1), ours.X, atol=1e-4)
    assert (model.stride_px, model.needs_coords, model.whole_slide) == (293, True, True)


def test_tiles_of_another_size_and_features_of_another_encoder_are_refused(model):
    with pytest.raises(UserError, match=r"Tiles are 224 × 224 px.*tile_px=600, mpp=0.683"):
        model.encoder.encode_image(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"1016 features .* but got 1536"):
        model.predict(np.zeros((9, 1536)), np.zeros((9, 2)))
    with pytest.raises(UserError, match="needs the places of all tiles"):
        model.predict(np.zeros((9, 1016)))


def test_doubts_about_the_array_are_warnings(model):
    rows, columns = np.divmod(np.arange(25), 5)
    features = np.random.default_rng(0).normal(size=(25, 1016))
    with pytest.warns(UserWarning, match="distance between spots is .* trained on 200 µm"):
        model.predict(features, np.stack([columns, rows], axis=1) * 100.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lazyslide_calls_it_and_its_zarr_reads_back(model, tiny_checkpoint, tiny_spots, tmp_path):
    zs = pytest.importorskip("lazyslide")
    wsidata = pytest.importorskip("wsidata")
    from wsidata.io import add_tiles

    slide_file = pyramid_tiff(tmp_path / "C5.tif", tissue_picture(1500, 1200, (60, 60, 1440, 1140)), mpp=MPP)
    side = model.encoder.tile_px
    inside = tiny_spots.take(np.flatnonzero((tiny_spots.xy >= 400).all(1)))  # tiles whole on the slide
    wsi = wsidata.open_wsi(str(slide_file))
    spec = wsidata.TileSpec.from_wsidata(wsi, tile_px=side, slide_mpp=MPP, mpp=MPP)
    add_tiles(wsi, "tiles", np.round(inside.xy - side / 2).astype(int), spec, np.zeros(len(inside), int))
    zs.tl.feature_extraction(wsi, model.encoder, device="cpu", pbar=False)
    zs.tl.feature_prediction(wsi, model, device="cpu", pbar=False)
    wsi.write(str(tmp_path / "C5.zarr"))
    read = read_any_prediction(tmp_path / "C5.zarr", "log2p1")
    with open_slide(slide_file) as slide:
        ours = expected(slide, inside, tiny_checkpoint, tmp_path)
    np.testing.assert_allclose(read.obsm["spatial"], inside.xy, atol=1)
    np.testing.assert_allclose(read[:, ours.var_names].X, ours.X, atol=1e-3)
