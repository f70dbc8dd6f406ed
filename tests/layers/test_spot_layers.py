import numpy as np
import pytest
from napari.components import ViewerModel
from tests.fakes import fake_prediction

from napari_flag.layers.overlays import DomainMap, Paint
from napari_flag.layers.spot_layers import selection_kept, set_limits, shown_together


class Canvas:
    """Arranges its scene when napari's canvas does."""

    def __init__(self, viewer):
        self.arranged = []
        self._viewer = viewer
        for layer in viewer.layers:
            layer.events.visible.connect(self._update_scenegraph)
        viewer.layers.events.reordered.connect(self._update_scenegraph)

    def _update_scenegraph(self, event=None):
        self.arranged.append([layer.visible for layer in self._viewer.layers])


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    for name in "abc":
        viewer.add_image(np.zeros((4, 4), np.float32), name=name)
    return viewer


def test_the_scene_is_arranged_once_for_all_layers_that_are_shown_and_hidden_together(viewer):
    canvas = Canvas(viewer)
    with shown_together(viewer):
        viewer.layers[0].visible = False
        with shown_together(viewer):
            viewer.layers[1].visible = False
        viewer.layers.move(0, 3)
        assert canvas.arranged == []
    assert canvas.arranged == [[False, True, False]]
    viewer.layers[0].visible = True
    assert len(canvas.arranged) == 2


def test_the_scene_is_not_arranged_where_nothing_changed(viewer):
    canvas = Canvas(viewer)
    with shown_together(viewer):
        viewer.layers[0].visible = False
        viewer.layers[0].visible = True
    assert canvas.arranged == []


def test_others_still_hear_of_each_layer_within(viewer):
    heard = []
    viewer.layers[0].events.visible.connect(lambda event: heard.append(event.source.name))
    with shown_together(viewer):
        viewer.layers[0].visible = False
        assert heard == ["a"]


@pytest.mark.parametrize("chosen", [[], ["a"], ["a", "b"]])
def test_a_layer_that_is_added_leaves_selected_what_was_and_nobody_hears_of_another(viewer, chosen):
    selection = viewer.layers.selection
    selection.clear()
    selection.update(viewer.layers[name] for name in chosen)
    active, heard = selection.active, []
    selection.events.active.connect(heard.append)
    with selection_kept(viewer):
        viewer.add_image(np.zeros((4, 4), np.float32), name="d")
    assert {layer.name for layer in selection} == set(chosen)
    assert selection.active is active
    assert heard == []


@pytest.mark.parametrize("limits", [(2.0, 3.0), (-5.0, 9.0), (0.25, 0.5)])
def test_limits_and_their_span_are_announced_once_and_are_those_that_were_set(viewer, limits):
    layer, heard = viewer.layers[0], []
    layer.events.contrast_limits.connect(lambda: heard.append(tuple(layer.contrast_limits)))
    set_limits(layer, limits, limits)
    assert tuple(layer.contrast_limits) == tuple(layer.contrast_limits_range) == limits
    assert heard == [limits]
    set_limits(layer, limits, limits)
    assert heard == [limits]


def test_a_layer_that_goes_is_hidden_at_once_and_taken_out_in_a_later_turn():
    viewer, turns = ViewerModel(), []
    drawn = DomainMap(viewer)
    adata = fake_prediction(16)
    drawn.show(adata, np.ones(16, np.int64), Paint.FILLED)
    (layer,) = viewer.layers
    drawn.later = turns.append
    drawn.show(adata, None, Paint.FILLED)
    assert drawn.layer is None
    assert not layer.visible
    assert layer in viewer.layers
    viewer.layers.remove(layer)  # by hand, meanwhile
    viewer.layers.append(layer)
    turns.pop()()
    assert len(viewer.layers) == 0
