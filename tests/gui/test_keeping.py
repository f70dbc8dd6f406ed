"""What is not saved is kept, what is saved is not replaced, and closing asks."""

import numpy as np
import pytest
from tests.fakes import fake_prediction
from tests.gui.two_slides import named

from napari_flag import workspace_file
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.model import checkpoint


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(workspace_file, "autosave_folder", lambda: tmp_path / "kept")
    monkeypatch.setattr(checkpoint, "list_weights", lambda: ())


@pytest.fixture
def dock(two_slides, viewer, qtbot):
    """The Predict dock at rest, over the slides A and B, of which B is shown."""
    dock = PredictDock(viewer)
    dock.rest = lambda: qtbot.waitUntil(
        lambda: not dock.jobs.active and not dock.keeper._own.active and dock._watch.settled, timeout=30_000
    )
    dock.rest()
    yield dock
    dock.close()


def saved_as(dock, path):
    dock.keeper.save_workspace(path)
    dock.rest()
    return [result.file for state in dock.session.workspace.slides for result in state.results]


def test_a_workspace_saved_again_replaces_no_prediction_saved_before(dock, adatas, tmp_path):
    other = named(fake_prediction(25, seed=9), "A")
    dock.session.set_prediction(adatas[0])
    assert saved_as(dock, tmp_path / "both.json") == [tmp_path / "both_A_1.h5ad"]
    dock.session.set_prediction(other)
    files = saved_as(dock, tmp_path / "both.json")
    assert len(set(files)) == 2
    for state in tuple(dock.session.workspace.slides):
        dock.session.workspace.remove(state)
    dock.opener.open([tmp_path / "both.json"])
    dock.rest()
    first, second = (result.adata for state in dock.session.workspace.slides for result in state.results)
    np.testing.assert_array_equal(first.X, adatas[0].X)
    np.testing.assert_array_equal(second.X, other.X)


def test_a_file_of_the_workspace_that_is_gone_for_now_gives_its_name_to_no_other(dock, adatas, tmp_path):
    dock.session.set_prediction(adatas[0])
    (file,) = saved_as(dock, tmp_path / "both.json")
    file.rename(tmp_path / "elsewhere.h5ad")
    dock.session.set_prediction(named(fake_prediction(25, seed=9), "A"))
    assert saved_as(dock, tmp_path / "both.json") == [file, tmp_path / "both_A_2.h5ad"]
