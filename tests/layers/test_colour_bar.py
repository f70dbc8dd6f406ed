"""Titles of colour bars: on models, and (last) on a real canvas."""

import numpy as np
import pytest
from napari.components import ViewerModel
from tests.fakes import fake_prediction
from tests.layers.overlay_texts import titles_of

from napari_flag.layers.colour_bar import title_bar
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.gene_values import GeneValues, Quantity
from napari_flag.layers.local_map import LocalMap, MapKind

UNIT = "log2(count + 1)"


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def gene_map(viewer):
    drawn = GeneMap(viewer)
    drawn.set_prediction(fake_prediction(64))
    drawn.show(["ERBB2"])
    return drawn


def test_the_colour_bar_names_gene_quantity_and_unit(viewer, gene_map):
    assert titles_of(viewer) == {"top_right": f"ERBB2 · predicted\n{UNIT}"}
    gene_map.show(["ESR1"])
    gene_map.set_quantity(Quantity.DIFFERENCE)
    assert titles_of(viewer) == {"top_right": f"ESR1 · difference\npredicted − measured\n{UNIT}"}
    gene_map.set_quantity(Quantity.SPREAD)
    assert titles_of(viewer) == {"top_right": f"ESR1 · spread\nstandard deviation\n{UNIT}"}


def test_each_gene_of_an_overlay_has_its_title_at_its_own_bar(viewer, gene_map):
    gene_map.show(["ERBB2", "ESR1"])
    assert titles_of(viewer) == {
        "top_right": f"ERBB2 · predicted\n{UNIT}",
        "bottom_right": f"ESR1 · predicted\n{UNIT}",
    }
    gene_map.show(["ERBB2"])
    assert set(titles_of(viewer)) == {"top_right"}


def test_a_local_map_takes_the_place_of_the_gene_in_the_title(viewer, gene_map):
    local = LocalMap(viewer, gene_map)
    local.set_kind(MapKind.LOCAL)
    assert titles_of(viewer) == {"top_right": "ERBB2\nlocal Moran's I\npredicted\nno unit"}
    local.set_kind(MapKind.EXPRESSION)
    assert titles_of(viewer) == {"top_right": f"ERBB2 · predicted\n{UNIT}"}


def test_a_title_goes_with_its_bar_when_a_person_hides_moves_or_deletes_it(viewer, gene_map):
    layer = gene_map.layer(Quantity.PREDICTED)
    layer.colorbar.visible = False
    assert titles_of(viewer) == {}
    layer.colorbar.visible = True
    layer.colorbar.position = "bottom_right"
    assert set(titles_of(viewer)) == {"bottom_right"}
    layer.visible = False
    assert titles_of(viewer) == {}
    layer.visible = True
    viewer.layers.remove(layer)
    assert titles_of(viewer) == {}


def test_maps_that_come_and_go_leave_nothing_connected_to_the_viewer(viewer):
    def connected_after_a_map_came_and_went():
        drawn = GeneMap(viewer)
        drawn.set_prediction(fake_prediction(16))
        drawn.show(["ERBB2"])
        viewer.layers.clear()
        return len(viewer.layers.events.removed.callbacks)

    assert connected_after_a_map_came_and_went() == connected_after_a_map_came_and_went()


def test_two_layers_of_one_corner_are_both_named(viewer):
    for name in ("first", "second"):
        layer = viewer.add_image(np.zeros((4, 4)))
        layer.colorbar.visible = True
        title_bar(viewer, layer, name)
    assert titles_of(viewer) == {"top_right": "first\nsecond"}


def test_a_viewer_of_an_older_napari_has_no_titles():
    class OldViewer:
        layers = ()

    layer = ViewerModel().add_image(np.zeros((4, 4)))
    title_bar(OldViewer(), layer, "ERBB2")
    assert titles_of(OldViewer()) == {}


@pytest.mark.parametrize("quantity", Quantity)
def test_every_quantity_states_its_unit(quantity):
    assert GeneValues(fake_prediction(16)).unit(quantity).endswith(UNIT)


@pytest.mark.slow
def test_napari_draws_titles_and_bars_apart_on_a_canvas(qtbot):
    """Guards what napari documents: overlays of a corner are put below each other."""
    from napari.qt import QtViewer

    model = ViewerModel()
    window = QtViewer(model)
    qtbot.addWidget(window)
    window.resize(400, 700)
    window.show()
    gene_map = GeneMap(model)
    gene_map.set_prediction(fake_prediction(64))
    gene_map.show(["ERBB2", "ESR1"])
    window.screenshot(flash=False)
    drawn = list(window.canvas._get_ordered_visible_canvas_overlays())
    boxes = []
    for _, visual, _ in drawn:
        left, top = visual.node.transform.translate[:2]
        boxes.append((left, top, left + visual.x_size, top + visual.y_size))
    assert len(boxes) == 4
    for nth, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= 400
        for other in boxes[nth + 1 :]:
            assert bottom <= other[1] or other[3] <= top or right <= other[0] or other[2] <= left
    window.close()
