import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import demo, inputs, keys
from napari_flag.errors import UserError
from napari_flag.gui import demo_window
from napari_flag.gui.area import open_area
from napari_flag.gui.demo_window import DemoTour
from napari_flag.gui.dock import Dock
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.model import checkpoint
from napari_flag.progress import Step
from napari_flag.simulation import simulate
from napari_flag.simulation.simulator import write_simulated
from napari_flag.slides.spot_tables import read_measured

WEIGHTS = Path("demo.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    slide, table = write_simulated(tmp_path_factory.mktemp("demo"), "small", simulate(4, size_px=600))
    return demo.DemoFiles(slide, table, WEIGHTS)


@pytest.fixture
def tour_of(make_napari_viewer_proxy, files, tmp_path, monkeypatch):
    """Return a function that makes a tour of a dock which predicts as the function given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card = {"array": {"technology": "Visium", "pitch_um": 100.0, "diameter_um": 55.0}, "um_per_px": 0.7}
    weights = SimpleNamespace(
        name="demo", sha256="0", genes=("ERBB2",), card=card, encoder="embedded", colours="scanned"
    )
    listed = (("other", Path("other.safetensors")), ("demo", WEIGHTS))
    monkeypatch.setattr(checkpoint, "list_weights", lambda: listed)
    monkeypatch.setattr(checkpoint.Checkpoint, "load", lambda path: weights)

    def make(predict):
        monkeypatch.setattr(inputs, "predict_inputs", predict)
        dock = PredictDock(make_napari_viewer_proxy())
        return dock, DemoTour(dock, files)

    return make


def test_the_tour_predicts_the_spots_of_the_table_with_the_demo_weights(tour_of, qtbot):
    predicted = []

    def predict(prepared, weights, **_):
        predicted.append((prepared, weights))
        yield Step("Working", 0)
        return fake_prediction(16)

    dock, tour = tour_of(predict)
    with qtbot.waitSignal(tour.arrived, timeout=60000):
        tour.start()
    ((prepared, weights),) = predicted
    assert weights.name == "demo"
    assert prepared.slide.name == "small"
    assert tuple(prepared.measured.obs_names) == prepared.spots.ids
    assert prepared.spots.pitch_um == 100.0
    assert dock.session.adata is not None


def test_the_tour_attaches_the_truth_of_its_slide(
    make_napari_viewer_proxy, files, tiny_weights, tmp_path, monkeypatch, qtbot
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    dock = PredictDock(make_napari_viewer_proxy())
    tour = DemoTour(dock, replace(files, weights=tiny_weights))
    with qtbot.waitSignal(tour.arrived, timeout=60000):
        tour.start()
    predicted, truth = dock.session.adata, read_measured(files.table)
    assert tuple(predicted.obs_names) == tuple(truth.obs_names)
    counts = truth[:, ["ERBB2"]].X.toarray()
    np.testing.assert_allclose(predicted[:, "ERBB2"].layers[keys.MEASURED], np.log2(counts + 1), rtol=1e-6)


@pytest.mark.slow
def test_the_tour_stops_with_the_docks_messages_when_the_prediction_fails(tour_of, qtbot):
    def predict(*_, **__):
        yield Step("Working", 0)
        raise UserError("The graphics card is on fire; use another.")

    _, tour = tour_of(predict)
    with qtbot.waitSignal(tour.stopped, timeout=60000) as stopped:
        tour.start()
    assert "on fire; use another" in stopped.args[0]


def test_the_picture_waits_for_the_docks_to_finish_their_work(make_napari_viewer, qtbot):
    """The demo's picture used to show the scores of the side-by-side view before they had their place."""
    viewer = make_napari_viewer()
    dock = open_area(viewer, "Samples").pages["Samples"]
    busy, acted = [True], []

    def work():
        while busy:
            yield Step("Working", 0)

    dock.jobs.run("test", work(), "Work", on_result=lambda _: None)
    demo_window.when_docks_rest(viewer, lambda: acted.append(bool(busy)))
    qtbot.wait(3 * demo_window.CHECK_EVERY_MS)
    assert not acted
    busy.clear()
    qtbot.waitUntil(lambda: acted == [False], timeout=60_000)


def test_the_picture_waits_for_work_that_begins_a_moment_later(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    dock = open_area(viewer, "Samples").pages["Samples"]
    docks = viewer.window._qt_window.findChildren(Dock)
    qtbot.waitUntil(lambda: all(page.at_rest for page in docks), timeout=60_000)
    busy, acted = [True], []

    def work():
        while busy:
            yield Step("Working", 0)

    demo_window.when_docks_rest(viewer, lambda: acted.append(bool(busy)), settle_ms=300)
    dock.jobs.run("test", work(), "Work", on_result=lambda _: None)
    qtbot.wait(600)
    assert not acted
    busy.clear()
    qtbot.waitUntil(lambda: acted == [False], timeout=60_000)


def test_an_unwritable_picture_is_refused_before_anything_is_opened(monkeypatch, files, tmp_path):
    monkeypatch.setattr(demo_window, "demo_files", lambda: files)
    monkeypatch.setattr(demo_window, "open_demo", lambda _: pytest.fail("opened napari"))
    with pytest.raises(UserError, match="does not exist"):
        demo_window.run_demo(tmp_path / "nowhere" / "demo.png")


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [(2, UserError, "install it"), (1, RuntimeError, "ended with code 1: .*install it")],
)
def test_a_failure_of_the_hidden_window_reaches_the_user(monkeypatch, tmp_path, code, error, said):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho noise >&2\necho 'It is missing; install it.' >&2\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("DISPLAY", ":77")
    with pytest.raises(error, match=said):
        demo_window._draw_elsewhere(tmp_path / "demo.png")
