import threading
from pathlib import Path

import pytest
from anndata import AnnData
from napari._qt._qplugins._qnpe2 import _toggle_or_get_widget
from napari.plugins import menu_item_template
from npe2 import PluginManifest
from qtpy.compat import isalive
from qtpy.QtWidgets import QDoubleSpinBox, QPushButton
from tests.fakes import fake_prediction
from tests.gui.predict.fake_work import FakeWork

import napari_flag
from napari_flag.gui.area import AREA, PAGES, PREDICT, FlagArea, open_area, open_genes
from napari_flag.gui.dock import Dock
from napari_flag.gui.jobs import Job
from napari_flag.gui.settings import PLUGIN
from napari_flag.prediction_file import read_prediction
from napari_flag.workspace_file import last_autosave, read_workspace


@pytest.fixture(autouse=True)
def _fake_work(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    FakeWork().install(monkeypatch)


@pytest.fixture
def area(viewer, qtbot):
    area = FlagArea(viewer)
    qtbot.waitUntil(lambda: not area.predict.jobs.active, timeout=30_000)
    yield area
    if isalive(area):
        area.close()
        with qtbot.waitSignal(area.destroyed):
            area.deleteLater()


def test_it_opens_on_predict_and_makes_other_pages_when_they_are_first_shown(area):
    assert area.page == PREDICT
    assert list(area.pages) == [PREDICT]
    for name in PAGES:
        page = area.show_page(name)
        assert isinstance(page, Dock)
        assert area.page == name
        assert area.show_page(name) is page
    assert list(area.pages) == list(PAGES)


def test_a_button_shows_its_page_and_stands_out(area):
    area.switcher.buttons["Compare"].click()
    assert area.page == "Compare"
    assert [name for name, button in area.switcher.buttons.items() if button.isChecked()] == ["Compare"]
    area.show_page("Samples")
    assert [name for name, button in area.switcher.buttons.items() if button.isChecked()] == ["Samples"]


def test_a_hidden_page_sleeps_and_catches_up_once_when_it_is_shown(area):
    page, seen = area.show_page("Genes"), []
    page.listen(area.session.predictionChanged, seen.append)
    area.show_page("Compare")
    first, second = fake_prediction(16), fake_prediction(25, seed=1)
    for adata in (first, second):
        area.session.set_prediction(adata)
    area.session.select_gene("VIM")
    assert not page.awake
    assert not seen
    area.show_page("Genes")
    assert seen == [second]
    assert "VIM" in page.table.table.shown
    area.session.set_prediction(first)
    assert seen == [second, first]


def test_the_predict_page_never_sleeps(area):
    area.show_page("Genes")
    area.session.set_prediction(fake_prediction(16))
    assert "16 spots" in area.predict.run_panel.result.text()


def test_the_pages_of_a_closed_area_follow_no_longer_and_the_result_stays(area, undock):
    session = area.session
    session.set_prediction(fake_prediction(16))
    for name in PAGES:
        area.show_page(name)
    undock(area)
    assert session.receivers(session.predictionChanged) == 0
    assert session.receivers(session.slideChanged) == 0
    assert session.workspace.receivers(session.workspace.listChanged) == 0
    assert session.adata is not None


def test_programs_find_predict_and_cancel_in_this_order_and_the_resolution_by_its_unit(area):
    for name in PAGES:
        area.show_page(name)
    wanted = ("Predict expression", "Cancel")
    found = [button.text() for button in area.findChildren(QPushButton) if button.text() in wanted]
    assert found[:2] == list(wanted)
    (resolution,) = [box for box in area.findChildren(QDoubleSpinBox) if box.suffix() == " µm/px"]
    assert resolution is area.predict.slide_step.mpp.native


def test_the_area_of_a_window_is_opened_once_and_on_the_page_asked_for(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    area = open_area(viewer)
    open_genes(viewer)
    assert area.page == "Genes"
    assert open_area(viewer, "Samples") is area
    assert len(viewer.window._qt_window.findChildren(FlagArea)) == 1
    _, again = viewer.window.add_plugin_dock_widget(PLUGIN, AREA)
    assert again is area
    assert area.page == "Samples"


def test_the_plugins_menu_shows_and_hides_the_area_that_a_command_opened(make_napari_viewer):
    """The menu looks its docks up by the display name of the plugin, programs theirs by its name."""
    viewer = make_napari_viewer()
    open_genes(viewer)
    manifest = PluginManifest.from_file(Path(napari_flag.__file__).with_name("napari.yaml"))
    in_menu = menu_item_template.format(manifest.display_name, AREA)
    assert _toggle_or_get_widget(PLUGIN, AREA, in_menu) is None, "another area was made"
    assert len(viewer.window._qt_window.findChildren(FlagArea)) == 1


def test_what_waits_to_be_kept_is_kept_after_the_area_is_closed_and_does_not_hold_that_up(
    area, undock, qtbot, monkeypatch
):
    released, write = threading.Event(), AnnData.write_h5ad

    def write_late(adata, place, **options):
        released.wait(10)
        write(adata, place, **options)

    monkeypatch.setattr(AnnData, "write_h5ad", write_late)
    prediction = fake_prediction(16)
    area.session.set_prediction(prediction)
    assert last_autosave() is None
    undock(area)
    assert last_autosave() is None
    for job in Job._running:
        job._worker.quit()  # as napari does when it is closed, and Python when it ends
    released.set()
    qtbot.waitUntil(lambda: not Job._running, timeout=30_000)
    [kept] = read_workspace(last_autosave()).slides
    assert read_prediction(kept.predictions[0].path).shape == prediction.shape
