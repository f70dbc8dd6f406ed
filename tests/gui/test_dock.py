"""What a closed dock leaves behind: nothing, and everything the person had."""

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag.gui.area import AREA, PAGES, SIDE_BY_SIDE, open_area
from napari_flag.gui.dock import in_turn
from napari_flag.gui.session import Session
from napari_flag.gui.settings import PLUGIN


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer()
    Session.of(viewer).set_prediction(fake_prediction(36))
    return viewer


@pytest.mark.slow
def test_a_closed_dock_is_deleted_and_leaves_no_callback_in_the_viewer(viewer, qtbot):
    session = Session.of(viewer)
    callbacks, keymap = list(viewer.mouse_drag_callbacks), set(viewer.keymap)
    for name in (AREA, SIDE_BY_SIDE):
        _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, name)
        for page in PAGES if name == AREA else ():
            dock.show_page(page)
        with qtbot.waitSignal(dock.destroyed, timeout=3_000):
            viewer.window.remove_dock_widget(dock)
        assert list(viewer.mouse_drag_callbacks) == callbacks, name
        assert set(viewer.keymap) == keymap, name
    assert session.receivers(session.predictionChanged) == 0
    session.select_gene("VIM")
    session.set_prediction(fake_prediction(25, seed=1))
    viewer.add_shapes([np.array([[0.0, 0.0], [0.0, 9.0], [9.0, 9.0]])], shape_type="polygon")
    qtbot.wait(300)  # the docks would read shapes anew by now
    assert session.gene == "VIM"


@pytest.mark.slow
def test_regions_drawn_are_there_again_when_the_dock_is_opened_again(viewer, qtbot):
    area = open_area(viewer, "Regions")
    dock = area.pages["Regions"]
    layer = dock._layer()
    layer.add([np.array([[0, 0], [0, 1500], [1500, 1500], [1500, 0]], float)])
    qtbot.waitUntil(lambda: len(dock.regions.entries) == 1, timeout=3_000)
    dock.regions.list.topLevelItem(0).setText(0, "Stroma")
    with qtbot.waitSignal(dock.destroyed, timeout=3_000):
        viewer.window.remove_dock_widget(area)
    dock = open_area(viewer, "Regions").pages["Regions"]
    assert [entry.region.name for entry in dock.regions.entries] == ["Stroma"]


def test_steps_in_turn_let_the_event_loop_run_between_them(qapp, qtbot):
    class Window:
        window = object()

    from qtpy.QtCore import QObject, QTimer

    done, parent = [], QObject()
    in_turn(Window(), parent, lambda: done.append("first"), lambda: done.append("second"))
    assert done == []
    qtbot.waitUntil(lambda: done == ["first", "second"])
    QTimer.singleShot(0, lambda: done.append("after"))
    qtbot.waitUntil(lambda: done == ["first", "second", "after"])


def test_steps_in_turn_are_taken_at_once_where_there_is_no_window(qapp):
    from qtpy.QtCore import QObject

    done = []
    in_turn(object(), QObject(), lambda: done.append("first"), lambda: done.append("second"))
    assert done == ["first", "second"]
