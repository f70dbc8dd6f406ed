import numpy as np
import pytest
from qtpy.QtCore import QTimer
from tests.fakes import FakeSlide, fake_prediction
from tests.gui.two_slides import named
from vispy.gloo.glir import JUST_DELETED, GlirTexture2D

from napari_flag import keys
from napari_flag.formatting import score
from napari_flag.gui.area import open_area
from napari_flag.gui.session import Session
from napari_flag.gui.side_by_side_dock import MAIN_PX, OTHERS, SideBySideDock
from napari_flag.layers import slide_layers
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.local_map import MapKind


@pytest.fixture
def dock(viewer, qtbot):
    viewer.add_image(FakeSlide().pixels, rgb=True, name="fake", scale=(0.5, 0.5), units=("um", "um"))
    Session.of(viewer).set_prediction(fake_prediction(36))
    dock = SideBySideDock(viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: dock.scores is not None)
    yield dock
    qtbot.waitUntil(lambda: not dock.jobs.running("scores"))
    dock.close()


def names(dock):
    return [la.name for la in dock.canvas.model.layers if la.visible]


def test_the_measured_gene_is_drawn_over_the_same_slide(dock):
    assert names(dock) == ["fake", f"{dock.session.gene} · measured"]


def test_cameras_are_linked_both_ways(dock, viewer):
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 12.0, 34.0), 3.0
    assert tuple(dock.canvas.model.scene.camera.center) == (0, 12.0, 34.0)
    assert dock.canvas.model.scene.camera.zoom == 3.0
    dock.canvas.model.scene.camera.zoom = 5.0
    dock.canvas.model.scene.camera.center = (0, 1.0, 2.0)
    assert viewer.scene.camera.zoom == 5.0
    assert tuple(viewer.scene.camera.center) == (0, 1.0, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [MapKind.EXPRESSION, MapKind.LOCAL])
def test_a_picture_that_is_turned_is_turned_here_with_its_map(qtbot, viewer, kind):
    adata = fake_prediction(36)
    recorded = adata.uns[keys.PROVENANCE]
    session = Session.of(viewer)
    size = recorded[keys.SLIDE_WIDTH], recorded[keys.SLIDE_HEIGHT]
    picture = slide_layers.add_slide(viewer, FakeSlide(*size))
    session.set_prediction(adata)
    session.set_map_kind(kind)
    dock = SideBySideDock(viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: dock.scores is not None)
    picture.rotate = 30.0
    copy, shown = (la for la in dock.canvas.model.layers if la.visible)
    np.testing.assert_allclose(copy.data_to_world((10.0, 20.0)), picture.data_to_world((10.0, 20.0)))
    rows, cols = np.nonzero(dock.canvas.gene_map.raster.index == 7)
    x, y = adata.obsm[keys.SPATIAL][7]
    there = shown.data_to_world((rows.mean(), cols.mean()))
    np.testing.assert_allclose(there, copy.data_to_world((y, x)), atol=5)
    dock.close()


def test_the_slide_is_fitted_to_each_new_size_of_the_canvas_until_a_person_moves_it(dock, viewer, qtbot):
    camera = viewer.scene.camera
    slide_layers.fit(viewer, viewer.layers)
    for size in ((400, 600), (200, 300)):
        viewer.canvas.size = size
        assert not dock.at_rest
        qtbot.waitUntil(lambda: dock.at_rest)
        low, high = slide_layers.extent_of(viewer.layers)
        assert camera.zoom == pytest.approx(slide_layers.FIT * (np.array(size) / (high - low)).min())
    camera.zoom *= 3
    zoom = camera.zoom
    viewer.canvas.size = (500, 700)
    qtbot.waitUntil(lambda: dock.at_rest)
    assert camera.zoom == zoom


def test_gene_colours_and_limits_follow_the_main_canvas(dock, viewer):
    dock.session.select_gene("VIM")
    assert names(dock)[-1] == "VIM · measured"
    dock.session.gene_map.set_colormap("magma")
    main, here = viewer.layers["VIM · predicted"], dock.canvas.model.layers["VIM · measured"]
    assert here.colormap.name == "magma"
    assert here.contrast_limits == main.contrast_limits
    main.contrast_limits = (1.0, 2.0)
    assert list(here.contrast_limits) == [1.0, 2.0]


def test_scores_of_gene_and_section_are_shown(dock):
    scores = dock.scores
    assert f"{score(scores.genes[dock.session.gene].pcc, 'PCC')}" in dock.gene_score.text()
    assert f"{score(scores.overall['cPCC'], 'cPCC')}" in dock._numbers["cPCC"].text()
    assert "10 genes" in dock.summary.text()


def test_without_truth_the_reason_is_said_and_another_quantity_shown(dock):
    dock.session.set_prediction(fake_prediction(36, measured=False))
    assert "no measured expression" in dock.messages.texts[0]
    assert names(dock)[-1].endswith(Quantity.SAMPLE.value)
    assert dock.gene_score.isHidden()


@pytest.mark.slow
def test_a_section_seen_in_training_is_called_so(dock, qtbot):
    adata = fake_prediction(36)
    adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "C2"
    dock.session.set_prediction(adata)
    qtbot.waitUntil(lambda: dock.scores is not None)
    assert any("trained on" in text for text in dock.messages.texts)


def test_without_a_prediction_it_says_so(viewer, qtbot):
    dock = SideBySideDock(viewer)
    qtbot.addWidget(dock)
    assert "No prediction yet" in dock.messages.texts[0]
    dock.close()


def test_a_closed_dock_no_longer_follows_the_viewer(viewer, undock):
    Session.of(viewer).set_prediction(fake_prediction(36))
    dock = SideBySideDock(viewer)
    undock(dock)
    before = dock.canvas.model.scene.camera.zoom
    viewer.scene.camera.zoom = 7.5
    dock.session.select_gene("VIM")
    assert dock.canvas.model.scene.camera.zoom == before
    assert dock.canvas.gene_map.genes == ["ERBB2"]


@pytest.mark.slow
def test_the_slide_goes_when_it_goes_from_the_main_viewer(dock, viewer):
    viewer.layers.remove("fake")
    assert names(dock) == [f"{dock.session.gene} · measured"]


def test_a_pair_shows_its_second_gene_here_in_the_same_quantity_until_the_next_gene(dock):
    dock.session.show_pair("ERBB2", "VIM")
    assert names(dock)[-1] == "VIM · predicted"
    assert "VIM" in dock.title.text()
    assert not dock.quantity.enabled
    dock.session.show_quantity(Quantity.SPREAD)
    assert names(dock)[-1] == "VIM · spread"
    dock.session.select_gene("CDH1")
    assert names(dock)[-1] == "CDH1 · measured"
    assert dock.quantity.enabled


def test_local_moran_of_the_measurement_is_drawn_beside_that_of_the_prediction(dock, viewer):
    dock.session.set_map_kind(MapKind.LOCAL)
    dock.session.select_gene("VIM")
    assert names(dock)[-1] == "VIM · local Moran's I (measured)"
    assert next(la.name for la in viewer.layers[::-1] if la.visible) == "VIM · local Moran's I (predicted)"
    dock.session.set_map_kind(MapKind.EXPRESSION)
    assert names(dock)[-1] == "VIM · measured"


@pytest.fixture
def two(two_slides, adatas, qtbot):
    """The dock over slide B, with A beside it; both are predicted."""
    for adata in adatas:
        two_slides.set_prediction(adata)
    dock = SideBySideDock(two_slides.viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: dock.scores is not None)
    dock.slide.value = two_slides.workspace.slides[0].number
    yield dock
    qtbot.waitUntil(lambda: not dock.jobs.running("scores"))
    dock.close()


def shown_beside(other):
    return [layer.name for layer in other.canvas.model.layers if layer.visible]


@pytest.mark.slow
def test_the_same_gene_is_drawn_on_another_slide_in_its_own_prediction(two, adatas):
    (other,) = two.others
    two.session.select_gene("VIM")
    assert shown_beside(other) == ["A", "VIM · predicted"]
    assert other.canvas.gene_map.values.adata is adatas[0]
    assert other.title.text() == "A: predicted"
    assert two.canvas.isHidden()
    two.session.gene_map.layer(Quantity.PREDICTED).contrast_limits = (1.0, 2.0)
    assert list(other.canvas.gene_map.layer(Quantity.PREDICTED).contrast_limits) == [1.0, 2.0]
    two.session.show_quantity(Quantity.MEASURED)
    assert shown_beside(other) == ["A", "VIM · measured"]


def test_the_other_slide_has_the_zoom_of_the_main_canvas_and_is_lined_up_by_hand(two):
    main, beside = two.session.viewer.scene.camera, two.others[0].canvas.model.scene.camera
    main.zoom = 4.0
    assert beside.zoom == 4.0
    place, before = main.center, np.asarray(beside.center)
    two.free.setChecked(True)
    beside.center = tuple(np.add(before, (0.0, 30.0, 40.0)))
    assert main.center == place
    two.free.setChecked(False)
    main.center = tuple(np.add(main.center, (0.0, 5.0, 5.0)))
    np.testing.assert_allclose(np.asarray(beside.center) - before, (0.0, 35.0, 45.0))


def test_a_gene_that_the_other_prediction_lacks_is_named_and_not_drawn(two_slides, adatas, qtbot):
    a, _ = two_slides.workspace.slides
    two_slides.set_prediction(adatas[0][:, ["VIM", "ERBB2"]].copy())
    two_slides.set_prediction(adatas[1])
    dock = SideBySideDock(two_slides.viewer)
    qtbot.addWidget(dock)
    dock.slide.value = a.number
    two_slides.select_gene("CDH1")
    assert dock.others[0].title.text() == "A: not in this prediction: CDH1"
    assert shown_beside(dock.others[0]) == ["A"]
    qtbot.waitUntil(lambda: not dock.jobs.running("scores"))
    dock.close()


@pytest.mark.slow
def test_another_prediction_of_the_other_slide_is_drawn_there_and_the_slides_stay_lined_up(two, two_slides):
    a, b = two_slides.workspace.slides
    beside = two.others[0].canvas.model.scene.camera
    two.free.setChecked(True)
    beside.center = tuple(np.add(beside.center, (0.0, 30.0, 40.0)))
    lined_up = beside.center
    again = named(fake_prediction(25, seed=9), "A")
    two_slides.workspace.add_result(again, a)
    assert two.others[0].canvas.gene_map.values.adata is again
    assert beside.center == lined_up
    assert two_slides.state is b


def test_switching_to_the_other_slide_shows_this_one_here_again(two, two_slides):
    a, b = two_slides.workspace.slides
    two_slides.workspace.show(a)
    assert two.others == []
    assert not two.canvas.isHidden()
    assert names(two)[0] == "A"
    assert b.name in two.slide.native.itemText(1)


def test_a_slide_that_is_taken_out_is_shown_here_no_longer(two, two_slides):
    two_slides.workspace.remove(two_slides.workspace.slides[0])
    assert two.others == []
    assert two.slide.native.isHidden()
    assert not two.canvas.isHidden()


@pytest.fixture
def methods(viewer, qtbot):
    """The dock over a slide with three predictions, of which the first carries the truth."""
    viewer.add_image(FakeSlide().pixels, rgb=True, name="fake", scale=(0.5, 0.5), units=("um", "um"))
    session = Session.of(viewer)
    made = [fake_prediction(36, seed=0), *(fake_prediction(36, seed=k, measured=False) for k in (1, 2))]
    for adata in made:
        session.set_prediction(adata)
    dock = SideBySideDock(viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: not dock.jobs.running("scores"))
    yield dock, made
    qtbot.waitUntil(lambda: not dock.jobs.running("scores"))
    dock.close()


@pytest.mark.slow
def test_one_gene_is_shown_by_every_prediction_of_the_slide_beside_the_truth(methods, qtbot):
    dock, made = methods
    dock.slide.value = OTHERS
    dock.session.select_gene("VIM")
    qtbot.waitUntil(lambda: all(shown_beside(other)[-1:] for other in dock.others))
    drawn = [(other.canvas.gene_map.values.adata, shown_beside(other)[-1]) for other in dock.others]
    assert [name for _, name in drawn] == ["VIM · predicted", "VIM · predicted", "VIM · measured"]
    assert [adata is expected for (adata, _), expected in zip(drawn, [*made[:2], made[0]], strict=True)] == [
        True, True, True,
    ]  # fmt: skip
    assert dock.others[2].title.text() == "measured"
    assert dock.others[0].title.text() == f"{dock.session.state.results[0].name}: predicted"
    assert not dock.free.isVisibleTo(dock), "they lie alike anyway"
    assert not any(layer.colorbar.visible for other in dock.others for layer in other.canvas.model.layers)
    camera = dock.others[1].canvas.model.scene.camera
    dock.session.viewer.scene.camera.center = (0, 12.0, 34.0)
    assert tuple(camera.center) == (0, 12.0, 34.0)
    dock.session.set_prediction(made[0])
    qtbot.waitUntil(lambda: dock.others[0].canvas.gene_map.values.adata is made[1])
    assert dock.others[1].canvas.gene_map.values.adata is made[2]


@pytest.mark.slow
def test_the_whole_slide_is_fitted_into_the_smallest_of_the_canvases(methods, qtbot):
    dock, _ = methods
    viewer = dock.session.viewer
    slide_layers.fit(viewer, viewer.layers)
    dock.slide.value = OTHERS
    viewer.canvas.size = (700, 800)
    for canvas, (height, width) in zip(dock.followers, ((400, 600), (190, 300), (500, 500)), strict=True):
        canvas.resize(width, height)
    assert not dock.at_rest
    qtbot.waitUntil(lambda: dock.at_rest)
    low, high = slide_layers.extent_of(viewer.layers)
    assert viewer.scene.camera.zoom == pytest.approx(
        slide_layers.FIT * (np.array([190, 300]) / (high - low)).min()
    )
    assert {float(canvas.model.scene.camera.zoom) for canvas in dock.followers} == {
        float(viewer.scene.camera.zoom)
    }


@pytest.mark.slow
def test_a_slide_with_one_prediction_offers_no_others(dock):
    assert dock.slide.native.isHidden()


@pytest.mark.slow
def test_a_window_made_smaller_keeps_both_canvases_in_sight(make_napari_viewer, adatas, slides, qtbot):
    """Qt takes what is lacking from the main canvas alone, which a window no longer maximised had lost."""
    viewer = make_napari_viewer(show=True)
    area, window = open_area(viewer), viewer.window._qt_window
    slide_layers.add_slide(viewer, slides[0])
    area.session.set_prediction(adatas[0])
    qtbot.waitUntil(lambda: area.predict.at_rest, timeout=60_000)
    window.resize(1900, 1000)
    area.show_side_by_side()
    dock = window.findChild(SideBySideDock)
    main = window.centralWidget()
    qtbot.waitUntil(lambda: dock.at_rest and abs(main.width() - dock.width()) < 60, timeout=60_000)
    window.resize(1280, 800)
    qtbot.waitUntil(lambda: window.width() == 1280 and main.width() >= MAIN_PX, timeout=10_000)
    assert dock.width() >= MAIN_PX
    dock.parentWidget().destroyOnClose()
    qtbot.waitUntil(lambda: main.minimumWidth() < MAIN_PX, timeout=10_000)


@pytest.mark.slow
def test_a_second_canvas_that_is_closed_leaves_nothing_in_the_window_or_on_the_graphics_card(
    make_napari_viewer, adatas, slides, qtbot
):
    viewer = make_napari_viewer(show=True)
    area, window = open_area(viewer), viewer.window._qt_window
    slide_layers.add_slide(viewer, slides[0])
    area.session.set_prediction(adatas[0])
    qtbot.waitUntil(lambda: area.predict.at_rest, timeout=60_000)
    timers = len(window.findChildren(QTimer))
    area.show_side_by_side()
    dock = window.findChild(SideBySideDock)
    qtbot.waitUntil(lambda: dock.at_rest and dock.canvas._qt is not None, timeout=60_000)
    parser = dock.canvas._qt.canvas._scene_canvas.context.shared.parser

    def held():
        return [each for each in parser._objects.values() if each != JUST_DELETED]

    qtbot.waitUntil(lambda: any(isinstance(each, GlirTexture2D) for each in held()), timeout=60_000)
    dock.parentWidget().destroyOnClose()
    assert not held()
    qtbot.waitUntil(lambda: len(window.findChildren(QTimer)) <= timers, timeout=60_000)
