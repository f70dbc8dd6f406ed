import gc
import weakref

import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from tests.fakes import MPP, fake_prediction

from napari_flag.layers import region_shapes
from napari_flag.layers.frame import Frame
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.region_history import MOST_STEPS, State, history_of
from napari_flag.layers.region_shapes import Placement
from napari_flag.slides.formats.geojson import Annotation

RING = shapely.Polygon([(0, 0), (90, 0), (90, 90), (0, 90)], [[(30, 30), (60, 30), (60, 60), (30, 60)]])


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def layer(viewer):
    return region_shapes.add_layer(viewer, Frame(MPP), 1000)


@pytest.fixture
def history(layer):
    return history_of(layer)


@pytest.fixture
def placement(viewer):
    return Placement.of(GeneMap(viewer), fake_prediction(36))


def box(low, high):
    return np.array([[low, low], [low, high], [high, high], [high, low]], float)


def import_front(layer, placement):
    front = Annotation("Front", (RING, shapely.box(200, 200, 220, 230)), "Tumor", (200, 0, 0))
    with history_of(layer).one_step():
        region_shapes.add_annotations(
            layer, [front, Annotation("Two", (shapely.box(1, 1, 5, 5),))], placement
        )


def region(layer, placement, row=0):
    return region_shapes.read_regions([layer], placement)[row]


class Mouse:
    """One mouse as napari's callbacks of a Shapes layer see it."""

    def __init__(self, layer):
        self.layer, self.modifiers, self.type = layer, (), "mouse_press"
        self.view_direction, self.dims_displayed, self.dims_point = None, [0, 1], (0, 0)

    def at(self, position, kind):
        self.position, self.pos, self.type = position, np.array(position), kind
        return self

    def drag(self, mode, path):
        self.layer.mode = mode
        running = [f(self.layer, self.at(path[0], "mouse_press")) for f in self.layer.mouse_drag_callbacks]
        generators = [g for g in running if g is not None]
        for g in generators:
            next(g)
        for place in path[1:]:
            self.at(place, "mouse_move")
            for g in generators:
                next(g, None)
        self.at(path[-1], "mouse_release")
        for g in generators:
            next(g, None)


def test_every_step_is_taken_back_and_done_again_exactly(layer, history, placement):
    states = [State.of(layer)]

    def note():
        states.append(State.of(layer))

    import_front(layer, placement)
    note()
    layer.add([box(300, 400)], shape_type="ellipse")
    region_shapes.read_regions([layer], placement)  # names it
    note()
    region_shapes.rename(region(layer, placement), "Margin")
    note()
    layer.data = [*layer.data[:-1], box(310, 390)]
    note()
    region_shapes.remove(region(layer, placement))
    note()
    for state in reversed(states[:-1]):
        assert history.undo()
        assert State.of(layer).equals(state)
        assert tuple(layer.z_index) == state.z_index
    assert not history.undo()
    for state in states[1:]:
        assert history.redo()
        assert State.of(layer).equals(state)
    assert not history.redo()


def test_a_removed_region_comes_back_with_parts_hole_class_and_colour(layer, history, placement):
    import_front(layer, placement)
    before = region(layer, placement).annotation
    region_shapes.remove(region(layer, placement))
    assert len(layer.data) == 1
    history.undo()
    after = region(layer, placement).annotation
    assert (after.name, after.classification, after.colour) == ("Front", "Tumor", (200, 0, 0))
    assert [a.equals(b) for a, b in zip(before.polygons, after.polygons, strict=True)] == [True, True]


def test_an_import_is_one_step_and_a_name_given_by_itself_is_none(layer, history, placement):
    import_front(layer, placement)
    history.undo()
    assert len(layer.data) == 0
    assert not history.can_undo
    layer.add([box(0, 10)])
    region_shapes.read_regions([layer], placement)
    assert layer.features["name"].tolist() == ["Region 1"]
    history.undo()
    assert len(layer.data) == 0
    history.redo()
    assert layer.features["name"].tolist() == ["Region 1"]


def test_a_shape_drawn_after_an_undo_is_a_region_of_its_own_and_ends_the_redo(layer, history, placement):
    import_front(layer, placement)
    region_shapes.rename(region(layer, placement), "Margin")
    history.undo()
    assert history.can_redo
    layer.add([box(500, 600)])
    assert not history.can_redo
    found = [r.annotation.name for r in region_shapes.read_regions([layer], placement)]
    assert found == ["Front", "Two", "Region 1"]


def test_a_polygon_and_a_vertex_and_a_move_made_with_the_mouse_are_a_step_each(layer, history):
    mouse = Mouse(layer)
    mouse.drag("add_rectangle", [(0, 0), (40, 40), (100, 100)])
    assert len(layer.data) == 1
    drawn = layer.data[0].copy()
    layer.selected_data = {0}
    mouse.drag("select", [(50, 50), (60, 60), (70, 70)])
    moved = layer.data[0].copy()
    assert not np.allclose(drawn, moved)
    layer.selected_data = {0}
    mouse.drag("vertex_insert", [tuple(moved.mean(axis=0) * (1, 0.2))])
    assert len(layer.data[0]) == 5
    history.undo()
    assert layer.data[0] == pytest.approx(moved)
    assert str(layer.shape_type[0]) == "rectangle"
    history.undo()
    assert layer.data[0] == pytest.approx(drawn)
    history.undo()
    assert len(layer.data) == 0
    assert not history.can_undo


def test_a_polygon_given_up_is_no_step_and_leaves_no_name_behind(layer, history, placement):
    layer.add([box(0, 10)])
    region_shapes.read_regions([layer], placement)
    mouse = Mouse(layer)
    mouse.drag("add_polygon", [(50.0, 50.0)])
    assert not history.undo(), "while a corner waits for the next"
    layer._finish_drawing()  # as Escape does
    assert len(layer.features) == len(layer.data) == 1
    layer.add([box(20, 30)])
    names = [r.annotation.name for r in region_shapes.read_regions([layer], placement)]
    assert names == ["Region 1", "Region 2"]
    history.undo()
    history.undo()
    assert not history.can_undo


def test_colours_pulled_along_are_one_step(layer, history):
    layer.add([box(0, 10)])
    before = layer.edge_color.copy()
    layer.selected_data = {0}
    for shade in ("#00ff00", "#00ee00", "#00dd00"):
        layer.current_edge_color = shade
    history.undo()
    assert layer.edge_color == pytest.approx(before)
    assert len(layer.data) == 1


@pytest.mark.slow
def test_the_history_is_bounded(layer, history):
    for step in range(MOST_STEPS + 20):
        layer.add([box(step, step + 10)])
    taken = 0
    while history.undo():
        taken += 1
    assert (taken, len(layer.data)) == (MOST_STEPS, 20)


def test_keys_of_the_active_layer_undo_and_redo_and_none_of_napari_is_taken(viewer, layer, history):
    from napari.utils.shortcuts import default_shortcuts

    layer.add([box(0, 10)])
    by_key = {str(key): act for key, act in layer.keymap.items()}
    assert len(by_key) == 2
    naparis = {str(key) for name, found in default_shortcuts.items() for key in found if "labels" not in name}
    assert not naparis & set(by_key)
    undo, redo = by_key["Ctrl+Z"], by_key["Ctrl+Shift+Z"]
    undo(layer)
    assert len(layer.data) == 0
    redo(layer)
    assert len(layer.data) == 1


@pytest.mark.slow
def test_a_history_does_not_keep_its_layer():
    layer = region_shapes.add_layer(ViewerModel(), Frame(MPP), 1000)
    kept = weakref.ref(layer)
    history_of(layer)
    del layer
    gc.collect()
    assert kept() is None
