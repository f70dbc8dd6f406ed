"""Several slides in one viewer: nothing of one is drawn over another, and nothing is lost."""

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from napari.layers import Layer
from tests.fakes import MPP, fake_prediction
from tests.gui.two_slides import named

from napari_flag import keys
from napari_flag.gui.keeping import regions_of
from napari_flag.gui.regions.regions_dock import RegionsDock
from napari_flag.gui.session import Session
from napari_flag.layers import region_shapes, slide_layers
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.readers import prediction_layer
from napari_flag.slides.formats.geojson import Annotation


@pytest.fixture
def session(two_slides):
    return two_slides


def visible_of(session, state):
    return {layer for layer in session.viewer.layers if layer.visible} & set(
        session.workspace.layers_of(state)
    )


def assert_only_shown(session):
    for layer in session.viewer.layers:
        if layer.visible:
            assert session.workspace.of_layer(layer) is session.state


def test_a_slide_that_is_opened_is_the_one_that_is_shown(session, slides):
    assert session.slide is slides[1]
    assert [state.name for state in session.workspace.slides] == ["A", "B"]
    assert_only_shown(session)


def test_a_prediction_goes_to_its_own_slide_whichever_is_shown(session, adatas):
    a, b = session.workspace.slides
    session.set_prediction(adatas[0])
    assert session.state is a
    assert_only_shown(session)
    session.set_prediction(adatas[1])
    assert (session.state, a.adata, b.adata) == (b, adatas[0], adatas[1])
    assert_only_shown(session)


def test_switching_keeps_gene_and_quantity_and_draws_the_prediction_of_the_slide(session, adatas):
    a, b = session.workspace.slides
    for adata in adatas:
        session.set_prediction(adata)
    session.select_gene("VIM")
    session.show_quantity(Quantity.MEASURED)
    for state, adata in ((a, adatas[0]), (b, adatas[1])):
        session.workspace.show(state)
        assert session.gene == "VIM"
        assert session.gene_map.values.adata is adata
        shown = session.gene_map.layer(Quantity.MEASURED)
        assert shown in visible_of(session, state)
        painted = shown.data[np.isfinite(shown.data)]
        expected = np.asarray(adata[:, "VIM"].layers[keys.MEASURED], float)
        assert painted.max() == pytest.approx(np.nanmax(expected), rel=1e-5)
        assert_only_shown(session)


def test_a_second_prediction_is_kept_beside_the_first(session, adatas):
    state = session.workspace.slides[0]
    first, second = adatas[0], named(fake_prediction(25, seed=5), "A")
    session.set_prediction(first)
    session.set_prediction(second)
    assert [result.adata for result in state.results] == [first, second]
    assert len({result.name for result in state.results}) == 2
    session.show_result(state, state.results[0])
    assert session.adata is first
    assert session.gene_map.values.adata is first


def test_a_prediction_of_a_slide_of_the_same_size_is_not_drawn_over_another(session):
    stranger = named(fake_prediction(25, seed=3), "C")
    session.set_prediction(stranger)
    assert session.state.slide is None
    assert session.state.name == "C"
    assert_only_shown(session)


def test_a_picture_that_is_turned_on_by_hand_is_shown_instead(session):
    a, b = session.workspace.slides
    a.layer.visible = True
    assert session.state is a
    assert not b.layer.visible


def test_any_layer_that_is_turned_on_by_hand_shows_its_slide(session):
    a, b = session.workspace.slides
    session.workspace.show(a)
    drawn = session.viewer.add_points([[10.0, 10.0]], name="mine")
    session.workspace.show(b)
    drawn.visible = True
    assert session.state is a
    assert drawn.visible
    assert_only_shown(session)


def test_maps_are_hidden_with_their_picture_and_shown_with_it(session, adatas):
    session.set_prediction(adatas[1])
    state = session.state
    before = visible_of(session, state)
    state.layer.visible = False
    assert not visible_of(session, state)
    state.layer.visible = True
    assert visible_of(session, state) == before


def test_maps_follow_a_picture_that_is_moved_and_turned(session, adatas):
    session.set_prediction(adatas[1])
    picture = session.state.layer
    picture.affine = np.array([[0.0, -1.0, 40.0], [1.0, 0.0, -7.0], [0.0, 0.0, 1.0]])
    raster = session.gene_map.raster
    for quantity in (Quantity.PREDICTED, Quantity.SPREAD):
        session.show_quantity(quantity)
        layer = session.gene_map.layer(quantity)
        for spot in (0, 24):
            rows, cols = np.nonzero(raster.index == spot)
            x, y = adatas[1].obsm[keys.SPATIAL][spot]
            there = np.asarray(layer.data_to_world((rows.mean(), cols.mean())))[-2:]
            expected = np.asarray(picture.data_to_world((y, x)))[-2:]
            np.testing.assert_allclose(there, expected, atol=2 * MPP * raster.matrix[0, 0])


def test_what_was_drawn_on_a_slide_is_hidden_with_it_and_survives_its_removal(session, qtbot):
    a, b = session.workspace.slides
    corners = np.array([[10.0, 10.0], [10.0, 60.0], [60.0, 60.0]])
    drawn = session.viewer.add_shapes([corners], shape_type="polygon", name="mine")
    session.workspace.show(a)
    assert not drawn.visible
    session.viewer.layers.remove(b.layer)
    qtbot.waitUntil(lambda: drawn not in session.viewer.layers)
    session.workspace.show(b)
    assert drawn in session.viewer.layers
    assert drawn.visible
    np.testing.assert_allclose(drawn.data[0], corners)


def in_turns(session):
    """Have what waits for a later turn of the event loop wait in the list that is returned."""
    turns = []
    session.workspace.later = turns.append
    return turns


def test_a_slide_that_goes_is_hidden_at_once_and_its_layers_go_one_by_one(session, adatas):
    a, b = session.workspace.slides
    session.viewer.add_shapes([np.eye(3, 2)], shape_type="polygon", name="mine")
    turns, going = in_turns(session), len(session.workspace.layers_of(b))
    session.workspace.remove(b)
    assert session.state is a
    assert_only_shown(session)
    assert all(b.number != layer.metadata.get(keys.LAYER_OF) for layer in session.layers)
    assert len(session.workspace.layers_of(b)) == going
    while turns:
        turns.pop(0)()
        assert len(session.workspace.layers_of(b)) >= going - 1
        going = len(session.workspace.layers_of(b))
        assert_only_shown(session)
    assert session.workspace.layers_of(b) == []


def test_a_slide_shown_again_before_all_its_layers_are_gone_has_them_all(session, qtbot):
    a, b = session.workspace.slides
    drawn = [session.viewer.add_shapes([np.eye(3, 2)], shape_type="polygon") for _ in range(3)]
    turns = in_turns(session)
    session.viewer.layers.remove(b.layer)
    qtbot.waitUntil(lambda: session.state is a)
    turns.pop(0)()
    session.workspace.show(b)
    while turns:
        turns.pop(0)()
    assert b.layer in session.viewer.layers
    assert all(layer in session.viewer.layers and layer.visible for layer in drawn)
    assert_only_shown(session)


def test_a_picture_that_was_to_come_stays_away_once_another_slide_is_shown(session, qtbot):
    a, b = session.workspace.slides
    session.set_prediction(fake_prediction(25), b.slide)
    session.viewer.layers.remove(b.layer)
    qtbot.waitUntil(lambda: session.state is a)
    turns = in_turns(session)
    session.workspace.show(b)
    session.workspace.show(a)
    while turns:
        turns.pop(0)()
    assert b.layer is None


def test_a_copy_of_a_map_is_not_seen_on_another_slide_when_its_picture_is_removed(session, adatas, qtbot):
    a, b = session.workspace.slides
    for adata in adatas:
        session.set_prediction(adata)
    copy = session.viewer.add_layer(
        Layer.create(*session.gene_map.layer(session.gene_map.quantity).as_layer_data_tuple())
    )
    assert copy.visible
    session.viewer.layers.remove(b.layer)
    qtbot.waitUntil(lambda: session.state is a)
    qtbot.waitUntil(lambda: copy not in session.viewer.layers)
    assert session.gene_map.layer(session.gene_map.quantity) in visible_of(session, a)
    assert_only_shown(session)


def test_a_region_is_where_it_was_drawn_after_the_picture_was_moved_and_removed(session, qtbot):
    _, b = session.workspace.slides
    b.layer.affine = np.array([[0.0, -1.0, 40.0], [1.0, 0.0, -7.0], [0.0, 0.0, 1.0]])
    layer = region_shapes.add_layer(session.viewer, b.frame, 1000)
    wanted = Annotation("Front", (shapely.box(100, 100, 300, 200),))
    region_shapes.add_annotations(layer, [wanted], region_shapes.Placement.in_frame(b.frame))

    def bounds():
        [region] = regions_of(session, b)
        return region.polygons[0].bounds

    session.viewer.layers.remove(b.layer)
    assert bounds() == pytest.approx((100, 100, 300, 200), abs=0.1), "a file that arrives now compares them"
    qtbot.waitUntil(lambda: layer not in session.viewer.layers)
    assert bounds() == pytest.approx((100, 100, 300, 200), abs=0.1)
    session.workspace.set_slide(b, b.slide.with_mpp(2 * MPP, "set by hand"))
    assert bounds() == pytest.approx((100, 100, 300, 200), abs=0.1)
    session.workspace.show(b)
    assert layer in session.viewer.layers
    assert bounds() == pytest.approx((100, 100, 300, 200), abs=0.1)


def test_of_a_file_opened_twice_the_picture_that_was_chosen_comes_back(session, adatas, qtbot):
    a, b = session.workspace.slides
    slide_layers.add_slide(session.viewer, b.slide)
    second = session.state
    assert second.name == "B (2)"
    session.workspace.add_result(adatas[1], b)
    session.workspace.add_result(named(fake_prediction(25, seed=5), "B"), second)
    for state in (b, second):
        session.viewer.layers.remove(state.layer)
    qtbot.waitUntil(lambda: session.state is a)
    session.workspace.show(second)
    assert second.layer in visible_of(session, second)
    assert b.layer is None


def test_a_slide_without_anything_leaves_with_its_picture(session, qtbot):
    a, b = session.workspace.slides
    session.viewer.layers.remove(b.layer)
    qtbot.waitUntil(lambda: session.workspace.slides == [a])
    assert session.state is a
    assert a.layer.visible


def test_all_layers_can_be_cleared_at_once(session, adatas, qtbot):
    for adata in adatas:
        session.set_prediction(adata)
    session.viewer.layers.clear()
    qtbot.waitUntil(lambda: session.state is None)
    assert [state.adata for state in session.workspace.slides] == adatas
    session.workspace.show(session.workspace.slides[0])
    assert session.gene_map.values.adata is adatas[0]
    assert_only_shown(session)


def test_a_prediction_opened_before_its_slide_is_taken_up_by_it(qapp, viewer, adatas, slides):
    session = Session.of(viewer)
    viewer.add_layer(Layer.create(*prediction_layer(adatas[0])))
    (state,) = session.workspace.slides
    slide_layers.add_slide(viewer, slides[1])
    assert len(session.workspace.slides) == 2
    slide_layers.add_slide(viewer, slides[0])
    assert len(session.workspace.slides) == 2
    assert (state.slide, state.adata) == (slides[0], adatas[0])


def test_the_view_of_each_slide_is_kept(session, viewer):
    a, b = session.workspace.slides
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 12.0, 34.0), 3.0
    session.workspace.show(a)
    viewer.scene.camera.zoom = 7.0
    session.workspace.show(b)
    assert viewer.scene.camera.zoom == 3.0
    assert tuple(viewer.scene.camera.center) == (0, 12.0, 34.0)
    session.workspace.show(a)
    assert viewer.scene.camera.zoom == 7.0


def test_the_layers_of_a_slide_stand_together_with_those_shown_on_top(session, adatas):
    for adata in adatas:
        session.set_prediction(adata)
    for state in session.workspace.slides:
        session.workspace.show(state)
        owners = [session.workspace.of_layer(layer).number for layer in session.viewer.layers]
        assert owners == sorted(owners, key=lambda number: number == state.number)


def test_regions_are_listed_and_drawn_on_the_slide_that_is_shown_only(session, adatas, qtbot):
    a, b = session.workspace.slides
    for adata in adatas:
        session.set_prediction(adata)
    dock = RegionsDock(session.viewer)
    qtbot.addWidget(dock)
    dock.regions.buttons["Polygon"].click()
    on_b = session.viewer.layers.selection.active
    on_b.add_polygons([np.array([[100.0, 100.0], [100.0, 900.0], [900.0, 900.0]])])
    qtbot.waitUntil(lambda: len(dock.regions.entries) == 1)
    session.workspace.show(a)
    assert not dock.regions.entries
    dock.regions.buttons["Polygon"].click()
    on_a = session.viewer.layers.selection.active
    assert on_a is not on_b
    assert [session.workspace.of_layer(layer) for layer in (on_a, on_b)] == [a, b]
    assert_only_shown(session)
    session.workspace.show(b)
    assert len(dock.regions.entries) == 1
    dock.close()


def test_docks_follow_a_picture_once_after_it_was_dragged_and_maps_at_once(two_slides, adatas, qtbot):
    two_slides.set_prediction(adatas[1])
    layer, heard = two_slides.state.layer, []
    two_slides.slideChanged.connect(heard.append)
    for step in range(5):
        layer.translate = (float(step), 0.0)
        assert two_slides.gene_map.frame == two_slides.frame
    assert heard == []
    qtbot.waitUntil(lambda: bool(heard), timeout=5_000)
    assert heard == [two_slides.state]


def test_a_slide_renamed_as_another_whose_picture_is_gone_gets_a_number(session, adatas):
    a, b = session.workspace.slides
    session.set_prediction(adatas[0])
    session.viewer.layers.remove(a.layer)
    b.layer.name = "A"
    assert (a.name, b.name, b.layer.name) == ("A", "A (2)", "A (2)")
    b.layer.name = "C"
    assert b.name == "C"


def test_a_picture_given_to_a_second_viewer_is_a_slide_of_its_own_there(session, slides, qapp):
    other = ViewerModel()
    second = Session.of(other)
    slide_layers.add_slide(other, slides[1])
    (b,) = second.workspace.slides
    picture = session.workspace.slides[0].layer
    other.add_layer(Layer.create(*picture.as_layer_data_tuple()))
    assert [state.name for state in second.workspace.slides] == ["B", "A"]
    assert second.workspace.layers_of(b) == [b.layer]
    assert_only_shown(second)


def test_a_table_of_a_zarr_that_another_program_wrote_into_is_not_open_already(session, adatas, tmp_path):
    table = tmp_path / "C5.zarr" / "tables" / "table"
    (table / "X").mkdir(parents=True)
    (table / "X" / "0").write_bytes(b"1")
    session.workspace.add_result(adatas[0], file=table)
    assert session.workspace.held(table) is session.workspace.result_of(adatas[0])
    (table / "X" / "0").write_bytes(b"22")
    assert session.workspace.held(table) is None
