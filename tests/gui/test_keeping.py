"""What is not saved is kept, what is saved is not replaced, and closing asks."""

import numpy as np
import pytest
from anndata import AnnData
from tests.fakes import fake_prediction
from tests.gui.two_slides import named

from napari_flag import keys, workspace_file
from napari_flag.analysis.truth import attach_measured
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.model import checkpoint
from napari_flag.prediction_file import read_prediction
from napari_flag.workspace_file import last_autosave, read_workspace


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


@pytest.fixture
def kept(dock):
    """Return a function that keeps the workspace now, and returns what was kept."""

    def keep():
        dock.keeper.autosave()
        dock.rest()
        return read_workspace(last_autosave())

    return keep


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


# --- what is added ---------------------------------------------------------------------------------
def counts_of(adata):
    return AnnData(np.full(adata.shape, 3.0, np.float32), obs=adata.obs[[]], var=adata.var[[]])


def holds_counts(path):
    return bool(np.allclose(read_prediction(path).layers[keys.MEASURED], 2.0))


def test_counts_attached_to_a_saved_prediction_are_not_saved_until_it_is_saved_again(dock, adatas, tmp_path):
    dock.session.set_prediction(adatas[0])
    result = dock.session.result
    saved_as(dock, tmp_path / "both.json")
    assert (result.label, dock.session.workspace.unsaved) == (result.name, ())
    dock.session.set_measured(counts_of(adatas[0]))
    assert result.label == f"{result.name} (changed, not saved)"
    assert dock.session.workspace.unsaved == (result,)
    assert saved_as(dock, tmp_path / "both.json") == [tmp_path / "both_A_2.h5ad"]
    assert result.label == result.name
    assert holds_counts(result.file)
    dock.session.set_measured(counts_of(adatas[0]))
    dock.save(tmp_path / "alone.h5ad")
    dock.rest()
    assert (result.file, result.unsaved) == (tmp_path / "alone.h5ad", False)


def test_counts_that_came_with_the_slide_or_the_prediction_are_no_change(dock, adatas, tmp_path):
    attach_measured(adatas[0], counts_of(adatas[0]))
    dock.session.set_prediction(adatas[0])
    assert dock.session.result.additions == 0
    dock.session.set_measured(counts_of(adatas[0]), of_slide=True)
    assert dock.session.result.additions == 0


def test_what_is_added_while_the_file_is_written_stays_unsaved(dock, adatas, tmp_path):
    dock.session.set_prediction(adatas[0])
    dock.keeper.save_workspace(tmp_path / "both.json")
    dock.session.workspace.changed(adatas[0])
    dock.rest()
    assert dock.session.result.file is not None
    assert dock.session.result.unsaved


def test_what_is_added_after_a_prediction_was_kept_is_kept_too(dock, adatas, kept):
    dock.session.set_prediction(adatas[0])
    workspace = kept()
    (prediction,) = workspace.slides[0].predictions
    assert not holds_counts(prediction.path)
    dock.session.set_measured(counts_of(adatas[0]))
    assert kept() == workspace
    assert holds_counts(prediction.path)


def test_a_prediction_changed_after_it_was_saved_is_kept_beside_its_file(dock, adatas, tmp_path, kept):
    dock.session.set_prediction(adatas[0])
    (file,) = saved_as(dock, tmp_path / "both.json")
    dock.session.set_measured(counts_of(adatas[0]))
    (prediction,) = kept().slides[0].predictions
    assert prediction.path.is_relative_to(tmp_path / "kept")
    assert holds_counts(prediction.path)
    assert not holds_counts(file)
