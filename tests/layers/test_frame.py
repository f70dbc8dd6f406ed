import numpy as np
from tests.fakes import MPP, fake_prediction

from napari_flag import keys
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.raster import raster_of


def test_layers_are_placed_in_um_when_the_resolution_is_known():
    adata = fake_prediction(100)
    raster = raster_of(adata)
    options = raster.options(frame_of(adata))
    middle = np.argwhere(raster.index == 7).mean(axis=0)
    world = middle * options["scale"] + options["translate"]
    expected = adata.obsm[keys.SPATIAL][7][::-1] * MPP
    assert options["units"] == ("um", "um")
    assert options["axis_labels"] == ("y", "x")
    assert np.abs(world - expected).max() <= options["scale"][0]


def test_without_resolution_everything_is_in_pixels_and_a_notice_says_so():
    adata = fake_prediction(9)
    del adata.uns[keys.PROVENANCE][keys.MPP]
    assert raster_of(adata).options(frame_of(adata))["units"] == ("pixel", "pixel")
    assert "not known" in frame_of(adata).notice
    assert Frame(0.5).notice is None


def test_a_layer_tells_of_a_new_place_once_when_it_is_there(qapp):
    from napari.layers import Image

    from napari_flag.layers.frame import Frame, place

    layer = Image(np.zeros((4, 4)), **Frame(0.5).options())
    stated = []
    for name in ("scale", "translate", "affine", "units"):
        getattr(layer.events, name).connect(lambda event, name=name: stated.append((name, list(layer.scale))))
    place(layer, Frame(2.0), Frame())
    assert stated == [("scale", [2.0, 2.0])]
    place(layer, Frame(2.0), Frame())
    assert len(stated) == 1
