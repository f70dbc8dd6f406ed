"""What napari opens or takes as a drop comes to the FLAG area where it is ours."""

# ruff: noqa: F811  fixtures of test_opening

import threading

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QMimeData, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from tests.gui.test_opening import (  # noqa: F401
    _apart,
    prediction_file,
    slide_file,
    window,
    written,
)
from tests.slide_files import plain_image, tissue_picture

from napari_flag import keys
from napari_flag.gui import loading, reader
from napari_flag.gui.session import Session
from napari_flag.layers import slide_layers


@pytest.fixture
def bare_window(make_napari_viewer, qtbot):
    """A window without the FLAG area, and a function that returns the jobs of the one it got."""
    viewer = make_napari_viewer()
    yield viewer
    if (opener := reader._OPENERS.get(id(viewer))) is not None:
        qtbot.waitUntil(lambda: not opener._jobs.active, timeout=30_000)


def cells(path):
    """Write a picture that is no slide: 16-bit and grey."""
    rng = np.random.default_rng(0)
    tifffile.imwrite(path, rng.integers(0, 4000, (300, 200)).astype(np.uint16))
    return path


def test_a_plain_picture_stays_naparis(bare_window, tmp_path):
    stack = cells(tmp_path / "cells.tif")
    (layer,) = bare_window.open(stack, plugin="napari-flag")
    assert layer.data.shape == (300, 200)
    assert keys.LAYER_SLIDE not in layer.metadata


def dropped(paths):
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    action, button = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    event = QDropEvent(QPointF(5, 5), action, mime, button, Qt.KeyboardModifier.NoModifier)
    event.kept = mime  # Qt does not keep it
    return event


@pytest.mark.slow
def test_what_is_ours_is_taken_without_a_question_and_the_rest_left_to_napari(window, slide_file, tmp_path):
    viewer, area, rest = window
    (target,) = area.predict.opener.findChildren(reader.DropTarget)
    event = dropped([slide_file("A")])
    assert target.eventFilter(viewer.window._qt_viewer, event)
    rest()
    assert [state.name for state in area.session.workspace.slides] == ["A"]
    stack = cells(tmp_path / "cells.tif")
    assert not target.eventFilter(viewer.window._qt_viewer, dropped([stack]))


def in_event_loop(qtbot, act):
    """Call `act` as a click does: from within the event loop."""
    done = []
    QTimer.singleShot(0, lambda: done.append(act()))
    qtbot.waitUntil(lambda: bool(done), timeout=30_000)
    return done[0]


def test_a_prediction_opened_in_a_window_without_the_area_is_read_in_the_background(
    bare_window, tmp_path, qtbot, monkeypatch
):
    threads, read = [], loading.read_any_prediction

    def watched(*given, **options):
        threads.append(threading.current_thread())
        return read(*given, **options)

    monkeypatch.setattr(loading, "read_any_prediction", watched)
    file = prediction_file(tmp_path / "A.h5ad", "A")
    assert in_event_loop(qtbot, lambda: bare_window.open(file, plugin="napari-flag")) == []
    session = Session.of(bare_window)
    qtbot.waitUntil(lambda: session.adata is not None, timeout=30_000)
    assert threads
    assert threading.main_thread() not in threads


def test_a_slide_opened_in_a_window_without_the_area_is_there_in_grey_until_it_has_a_pyramid(
    bare_window, tmp_path, qtbot
):
    picture = tissue_picture(4200, 2000, (300, 300, 1800, 1800))
    file = plain_image(tmp_path / "plain.png", picture, compress_level=1)
    (layer,) = in_event_loop(qtbot, lambda: bare_window.open(file, plugin="napari-flag"))
    assert np.asarray(layer.data[0][0:4, 0:4]).min() == slide_layers.PENDING_GREY
    qtbot.waitUntil(lambda: np.asarray(layer.data[0][900:908, 900:908]).std() > 0, timeout=30_000)


def test_a_script_gets_the_layer_of_a_prediction_it_opens(bare_window, tmp_path):
    (layer,) = bare_window.open(prediction_file(tmp_path / "A.h5ad", "A"), plugin="napari-flag")
    assert layer.metadata[keys.LAYER_KIND] == "gene"
    assert id(bare_window) not in reader._OPENERS
