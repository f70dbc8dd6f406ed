"""A prediction lies on its slide, whichever was opened first and whenever µm/px became known."""

import numpy as np
import pytest
from napari.layers import Layer
from tests.fakes import MPP, FakeSlide, fake_prediction

from napari_flag import keys
from napari_flag.gui.session import Session
from napari_flag.layers import region_shapes, slide_layers
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.readers import prediction_layer


@pytest.fixture
def adata():
    return fake_prediction(25)


@pytest.fixture
def slide(adata):
    recorded = adata.uns[keys.PROVENANCE]
    return FakeSlide(recorded[keys.SLIDE_WIDTH], recorded[keys.SLIDE_HEIGHT], mpp=None)


def open_prediction(viewer, adata):
    return viewer.add_layer(Layer.create(*prediction_layer(adata)))


def pixels_shown(layer, raster, spot):
    """Return where on the raster a spot is, and its (y, x) in the world."""
    rows, cols = np.nonzero(raster.index == spot)
    return np.asarray(layer.data_to_world((rows.mean(), cols.mean())))[-2:]


def assert_on_the_slide(viewer, adata, slide_layer):
    raster = Session.of(viewer).gene_map.raster
    ours = [layer for layer in viewer.layers if layer.metadata.get(keys.LAYER_ADATA) is adata]
    assert ours
    for layer in ours:
        assert layer.units == slide_layer.units
        low, high = slide_layer.extent.world
        for spot in (0, 7, 24):
            world = pixels_shown(layer, raster, spot)
            x, y = adata.obsm[keys.SPATIAL][spot]
            expected = np.asarray(slide_layer.data_to_world((y, x)))[-2:]
            step = np.asarray(layer.scale)[-1]
            np.testing.assert_allclose(world, expected, atol=2 * step)
            assert (low <= world).all()
            assert (world <= high).all()


@pytest.mark.parametrize("slide_first", [True, False])
def test_a_saved_prediction_lies_on_its_slide_before_and_after_the_resolution_is_set(
    qapp, viewer, adata, slide, slide_first
):
    session = Session.of(viewer)
    if slide_first:
        shown = slide_layers.add_slide(viewer, slide)
        open_prediction(viewer, adata)
    else:
        open_prediction(viewer, adata)
        shown = slide_layers.add_slide(viewer, slide)
    assert_on_the_slide(viewer, adata, shown)
    session.show_quantity(Quantity.MEASURED)
    for mpp in (MPP, 2 * MPP):
        session.workspace.set_slide(session.state, slide.with_mpp(mpp, "set by hand"))
        assert_on_the_slide(viewer, adata, shown)
        assert np.asarray(shown.scale) == pytest.approx(mpp)


def test_maps_made_after_the_resolution_was_set_lie_there_too(qapp, viewer, adata, slide):
    session = Session.of(viewer)
    shown = slide_layers.add_slide(viewer, slide)
    open_prediction(viewer, adata)
    session.workspace.set_slide(session.state, slide.with_mpp(2 * MPP, "set by hand"))
    session.show_quantity(Quantity.SPREAD)
    assert_on_the_slide(viewer, adata, shown)


def test_maps_go_with_the_picture_and_come_back_with_it(qtbot, viewer, adata, slide):
    session = Session.of(viewer)
    shown = slide_layers.add_slide(viewer, slide.with_mpp(MPP, "set by hand"))
    open_prediction(viewer, adata)
    state = session.state
    viewer.layers.remove(shown)
    qtbot.waitUntil(lambda: len(viewer.layers) == 0)
    assert session.workspace.slides == [state]  # its prediction is not lost
    session.workspace.show(state)
    assert session.adata is adata
    assert_on_the_slide(viewer, adata, state.layer)


@pytest.mark.parametrize("how", ["rotate", "translate", "affine"])
def test_a_picture_that_was_moved_keeps_its_maps_when_its_resolution_is_set(viewer, qapp, adata, slide, how):
    session = Session.of(viewer)
    shown = slide_layers.add_slide(viewer, slide.with_mpp(MPP, "set by hand"))
    open_prediction(viewer, adata)
    turned = np.array([[0.0, -1.0, 40.0], [1.0, 0.0, -7.0], [0.0, 0.0, 1.0]])
    setattr(shown, how, {"rotate": 90.0, "translate": (50.0, -30.0), "affine": turned}[how])
    for mpp in (2 * MPP, 3 * MPP):
        direction = np.diff([shown.data_to_world(at) for at in ((0.0, 0.0), (1.0, 0.0))], axis=0)
        session.workspace.set_slide(session.state, slide.with_mpp(mpp, "set by hand"))
        again = np.diff([shown.data_to_world(at) for at in ((0.0, 0.0), (1.0, 0.0))], axis=0)
        np.testing.assert_allclose(again / np.linalg.norm(again), direction / np.linalg.norm(direction))
        gene = session.gene_map.layer(Quantity.PREDICTED)
        for spot in (0, 24):
            x, y = adata.obsm[keys.SPATIAL][spot]
            there = pixels_shown(gene, session.gene_map.raster, spot)
            np.testing.assert_allclose(there, shown.data_to_world((y, x)), atol=10 * mpp)


def test_what_a_person_drew_stays_on_the_tissue(qapp, viewer, adata, slide):
    session = Session.of(viewer)
    slide_layers.add_slide(viewer, slide)
    ours = region_shapes.add_layer(viewer, Session.of(viewer).frame, 1000)
    theirs = viewer.add_shapes([np.array([[10, 10], [10, 40], [40, 40]])], shape_type="polygon")
    scale = viewer.add_points(np.array([[5.0, 5.0]]), units=("um", "um"), scale=(3, 3))
    for mpp in (MPP, 2 * MPP):
        session.workspace.set_slide(session.state, slide.with_mpp(mpp, "set by hand"))
    assert np.asarray(ours.scale) == pytest.approx(2 * MPP)
    assert np.asarray(theirs.scale) == pytest.approx(2 * MPP)
    assert np.asarray(scale.scale) == pytest.approx(6)  # µm/px that were corrected, not first known
