from pathlib import Path

import pytest
from qtpy.compat import isalive
from tests.gui.predict.fake_work import FakeWork

from napari_flag.gui.predict.predict_dock import PredictDock


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def open_dock(viewer, qtbot, monkeypatch):
    """Return a function that opens the dock over fake work and waits until it is at rest."""

    docks = []

    def open_it(work=None, slide=True, viewer=viewer):
        (work or FakeWork()).install(monkeypatch)
        dock = PredictDock(viewer)
        docks.append(dock)
        if slide:
            dock.section.open_slide(Path("fake.svs"))
        rest(dock)
        return dock

    def rest(dock):
        qtbot.waitUntil(lambda: not dock.jobs.active and dock._watch.settled, timeout=30_000)

    open_it.rest = rest
    yield open_it
    for dock in docks:
        if isalive(dock):
            dock.deleteLater()
