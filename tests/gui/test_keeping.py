"""What is not saved is kept, what is saved is not replaced, and closing asks."""

import shutil
import threading

import numpy as np
import pytest
import shapely
from anndata import AnnData
from qtpy.compat import isalive
from qtpy.QtGui import QCloseEvent
from tests.fakes import fake_prediction
from tests.gui.two_slides import named

from napari_flag import keys, workspace_file
from napari_flag.analysis.pathways import bundled
from napari_flag.analysis.truth import attach_measured
from napari_flag.gui.area import open_area
from napari_flag.gui.jobs import Job
from napari_flag.gui.keeping import CloseQuestion, regions_of
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.layers import region_shapes
from napari_flag.layers.gene_values import Quantity
from napari_flag.model import checkpoint
from napari_flag.prediction_file import provenance, read_prediction
from napari_flag.slides.formats.geojson import Annotation
from napari_flag.workspace_file import (
    WorkspaceFile,
    new_autosave,
    prune_autosaves,
    read_workspace,
    write_workspace,
)


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checkpoint, "list_weights", lambda: ())


@pytest.fixture
def start(viewer, qtbot):
    """Return a function that opens the Predict dock at rest."""
    docks = []

    def make():
        dock = PredictDock(viewer)
        docks.append(dock)
        dock.rest = lambda: qtbot.waitUntil(
            lambda: not (dock.jobs.active or dock.keeper._own.active) and dock._watch.settled, timeout=30_000
        )
        dock.rest()
        return dock

    yield make
    for dock in docks:
        if isalive(dock):
            dock.close()
            dock.deleteLater()
    # what a closed dock hands over belongs to this test
    qtbot.waitUntil(lambda: not any(map(isalive, docks)) and not Job._running, timeout=30_000)


@pytest.fixture
def dock(two_slides, start):
    """The Predict dock over the slides A and B, of which B is shown."""
    return start()


@pytest.fixture
def kept(dock):
    """Return a function that keeps the workspace now, and returns what was kept."""

    def keep():
        dock.keeper.autosave()
        dock.rest()
        return autosaved(dock)

    return keep


def autosaved(dock):
    """Return the workspace that `dock` autosaved; None where it has not yet."""
    file = dock.keeper._file
    return read_workspace(file) if file is not None and file.is_file() else None


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


@pytest.mark.parametrize("workspace", [False, True])
def test_saving_that_is_cancelled_replaces_no_file_and_says_so(
    dock, adatas, tmp_path, monkeypatch, qtbot, workspace
):
    begun, released, write = threading.Event(), threading.Event(), AnnData.write_h5ad

    def write_late(adata, place, **options):
        begun.set()
        released.wait(30)
        write(adata, place, **options)

    monkeypatch.setattr(AnnData, "write_h5ad", write_late)
    file = tmp_path / ("both.json" if workspace else "A.h5ad")
    file.write_bytes(b"before")
    dock.session.set_prediction(adatas[0])
    dock.keeper._due.stop()
    dock.keeper.save_workspace(file) if workspace else dock.save(file)
    qtbot.waitUntil(begun.is_set, timeout=10_000)
    dock.strip.stop()
    qtbot.waitUntil(lambda: not dock.jobs.active, timeout=5_000)
    assert dock.messages.texts == (f"Saving was cancelled: {file.name} was not written.",)
    released.set()
    qtbot.waitUntil(lambda: not Job._running, timeout=30_000)
    assert file.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
    assert dock.session.workspace.unsaved == (dock.session.result,)


# --- what is added ---------------------------------------------------------------------------------
def counts_of(adata):
    values = np.random.default_rng(0).poisson(3, adata.shape).astype(np.float32)
    return AnnData(values, obs=adata.obs[[]], var=adata.var[[]])


def holds_counts(path):
    adata = read_prediction(path)
    return bool(np.allclose(adata.layers[keys.MEASURED], np.log2(counts_of(adata).X + 1)))


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


def test_what_the_window_saved_is_no_result_of_the_command_that_predicted(dock, adatas, tmp_path):
    """Or the same `predict` would replace it, with the labels and regions that a person added."""
    made = {keys.COMMAND: "napari-flag predict a.svs", keys.COMMAND_HASH: "f" * 64}
    adatas[0].uns[keys.PROVENANCE] |= made
    dock.session.set_prediction(adatas[0])
    dock.save(tmp_path / "alone.h5ad")
    dock.rest()
    saved_as(dock, tmp_path / "both.json")
    for place in tmp_path.glob("*.h5ad"):
        stated = provenance(read_prediction(place))
        assert stated[keys.COMMAND] == made[keys.COMMAND]
        assert keys.COMMAND_HASH not in stated
    assert provenance(dock.session.result.adata)[keys.COMMAND_HASH] == "f" * 64


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
    assert kept().slides[0] == workspace.slides[0]
    assert holds_counts(prediction.path)


def test_a_prediction_changed_after_it_was_saved_is_kept_beside_its_file(dock, adatas, tmp_path, kept):
    dock.session.set_prediction(adatas[0])
    (file,) = saved_as(dock, tmp_path / "both.json")
    dock.session.set_measured(counts_of(adatas[0]))
    (prediction,) = kept().slides[0].predictions
    assert prediction.path.is_relative_to(tmp_path / "kept")
    assert holds_counts(prediction.path)
    assert not holds_counts(file)


# --- by itself -------------------------------------------------------------------------------------
def draw(session, state, name="Front"):
    """Draw a region on a slide."""
    layer = region_shapes.add_layer(session.viewer, state.frame, 1000)
    wanted = Annotation(name, (shapely.box(100, 100, 300, 200),))
    region_shapes.add_annotations(layer, [wanted], region_shapes.Placement.in_frame(state.frame))


def test_changes_that_follow_one_another_do_not_put_keeping_off(dock, adatas, qtbot):
    dock.keeper._due.setInterval(300)
    dock.session.set_prediction(adatas[0])
    for percent in range(30):
        dock.session.workspace.set_status(dock.session.state, f"predicting {percent} %")
        qtbot.wait(100)
    assert autosaved(dock) is not None


def test_what_changes_while_the_workspace_is_kept_is_kept_after_that(dock, adatas, qtbot, monkeypatch):
    released, write = threading.Event(), workspace_file.write_workspace

    def write_late(workspace, path):
        released.wait(30)
        write(workspace, path)

    monkeypatch.setattr(workspace_file, "write_workspace", write_late)
    dock.keeper._due.setInterval(100)
    dock.session.set_prediction(adatas[0])
    dock.keeper.autosave()
    dock.session.set_prediction(named(fake_prediction(25, seed=9), "A"))
    qtbot.wait(1000)
    released.set()

    def kept():
        workspace = autosaved(dock)
        return workspace is not None and len(workspace.slides[0].predictions) == 2

    qtbot.waitUntil(kept, timeout=10_000)


def test_regions_of_a_prediction_without_its_slide_are_kept(dock, tmp_path, kept):
    dock.session.set_prediction(named(fake_prediction(16, seed=3), "elsewhere"))
    state = dock.session.state
    assert state.slide is None
    dock.session.workspace.saved(state.adata, tmp_path / "elsewhere.h5ad")
    draw(dock.session, state)
    [region] = kept().slides[-1].regions
    assert region.name == "Front"


@pytest.mark.parametrize("begun", [False, True])
def test_what_waits_to_be_kept_is_kept_before_the_window_closes(dock, adatas, begun):
    dock.session.set_prediction(adatas[0])
    assert autosaved(dock) is None
    if begun:
        dock.keeper.autosave()
        draw(dock.session, dock.session.state)
        dock.keeper.autosave_soon()
    dock.keeper.flush()
    (slide, _) = autosaved(dock).slides
    np.testing.assert_array_equal(read_prediction(slide.predictions[0].path).X, adatas[0].X)
    assert len(slide.regions) == begun
    assert not dock.keeper._due.isActive()


def test_where_the_cache_cannot_be_written_closing_says_so_until_it_can(
    make_napari_viewer, adatas, tmp_path, monkeypatch, qtbot
):
    monkeypatch.setattr(workspace_file, "autosave_folder", lambda: tmp_path / "file" / "kept")
    (tmp_path / "file").write_text("in the way")
    viewer = make_napari_viewer()
    area = open_area(viewer)
    question = viewer.window._qt_window.findChild(CloseQuestion)
    area.session.set_prediction(adatas[0])
    assert not question.eventFilter(viewer.window._qt_window, QCloseEvent())
    loss, why = question.say_loss(1)
    assert loss == "1 prediction is not saved."
    assert "could not be written, so the workspace is not kept" in why
    (tmp_path / "file").unlink()
    draw(area.session, area.session.state)
    area.predict.keeper.autosave_soon()
    assert not question.eventFilter(viewer.window._qt_window, QCloseEvent())
    assert "Restore last workspace brings it back" in question.say_loss(1)[1]
    assert len(regions_of(area.session, area.session.state)) == 1
    assert autosaved(area.predict) is not None
    qtbot.waitUntil(lambda: not area.predict.jobs.active, timeout=30_000)


def test_what_a_session_keeps_is_not_deleted_for_newer_ones_until_its_dock_is_closed(
    dock, adatas, kept, undock, qtbot
):
    dock.session.set_prediction(adatas[0])
    (prediction,) = kept().slides[0].predictions
    for _ in range(3):
        write_workspace(WorkspaceFile(()), new_autosave())
    prune_autosaves(keep=1)  # as the session of another napari does
    assert prediction.path.exists()
    undock(dock)
    qtbot.waitUntil(lambda: not isalive(dock), timeout=10_000)
    prune_autosaves(keep=1)
    assert not prediction.path.exists()


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_kept_and_is_gone_is_kept_again(dock, adatas, kept, whole):
    dock.session.set_prediction(adatas[0])
    (prediction,) = kept().slides[0].predictions
    if whole:
        shutil.rmtree(prediction.path.parent)
    else:
        prediction.path.unlink()
    (again,) = kept().slides[0].predictions
    np.testing.assert_array_equal(read_prediction(again.path).X, adatas[0].X)
    assert dock.messages.texts == ()


def test_a_workspace_brings_its_gene_sets_back_and_says_where_they_are_gone(dock, adatas, tmp_path):
    own = tmp_path / "own.gmt"
    own.write_text("OWN\t\tVIM\tCDH1\n")
    dock.session.set_prediction(adatas[0])
    dock.read_sets(own)
    dock.rest()
    saved_as(dock, tmp_path / "both.json")
    own.write_text("OWN\t\tVIM\tERBB2\n")
    dock.opener.open([tmp_path / "both.json"])
    dock.rest()
    assert (dock.session.gene_sets, dock.session.gene_sets_file) == ({"OWN": ("VIM", "ERBB2")}, own)
    own.write_text("OWN\n")
    dock.opener.open([tmp_path / "both.json"])
    dock.rest()
    assert any("Line 1 of own.gmt is no gene set" in text for text in dock.messages.texts)
    own.unlink()
    dock.opener.open([tmp_path / "both.json"])
    dock.rest()
    assert any(f"{own} is not there any more" in text for text in dock.messages.texts)
    assert dock.session.gene_sets == {"OWN": ("VIM", "ERBB2")}


def test_a_workspace_saved_without_gene_sets_takes_those_at_hand_away_and_says_so(dock, adatas, tmp_path):
    dock.session.set_prediction(adatas[0])
    saved_as(dock, tmp_path / "without.json")
    dock.opener.open([tmp_path / "without.json"])
    dock.rest()
    assert not [text for text in dock.messages.texts if "gene sets" in text]
    dock.session.set_gene_sets({"OWN": ("VIM", "CDH1")}, tmp_path / "own.gmt")
    dock.opener.open([tmp_path / "without.json"])
    dock.rest()
    assert (dock.session.gene_sets, dock.session.gene_sets_file) == (bundled(), None)
    assert [text for text in dock.messages.texts if "no longer those of own.gmt" in text]


def test_a_workspace_brings_its_quantity_back_and_its_slide_where_another_has_its_name(
    dock, adatas, tmp_path
):
    workspace, session = dock.session.workspace, dock.session
    session.set_prediction(adatas[0])
    session.show_quantity(Quantity.MEASURED)
    saved_as(dock, tmp_path / "measured.json")
    shown = session.state
    session.show_quantity(Quantity.PREDICTED)
    shown.name = "A (2)"
    other = workspace.add("A")
    workspace.show(other)
    dock.opener.open([tmp_path / "measured.json"])
    dock.rest()
    assert session.state is shown
    assert session.gene_map.quantity is Quantity.MEASURED


# --- restored --------------------------------------------------------------------------------------
@pytest.fixture
def next_session(dock, adatas, kept, start, undock, qtbot):
    """The dock of the next session, where prediction A and a region on it were kept by the one before."""
    dock.session.set_prediction(adatas[0])
    draw(dock.session, dock.session.state)
    kept()
    for state in tuple(dock.session.workspace.slides):
        dock.session.workspace.remove(state)
    undock(dock)
    qtbot.waitUntil(lambda: not isalive(dock), timeout=10_000)
    return start()


def restored(dock):
    dock.keeper.restore(dock.opener.open)
    dock.rest()
    return [len(state.unsaved) for state in dock.session.workspace.slides]


def test_the_last_workspace_comes_back_once_with_its_regions(next_session):
    seen = []
    next_session.keeper.lastChanged.connect(lambda: seen.append(next_session.keeper.last))
    assert restored(next_session) == [1]
    (state,) = next_session.session.workspace.slides
    assert [region.name for region in regions_of(next_session.session, state)] == ["Front"]
    assert seen == [None]
    assert restored(next_session) == [1]


def test_a_last_workspace_that_could_not_be_read_can_be_restored_later(next_session):
    last = next_session.keeper.last
    text = last.read_text()
    last.write_text("{}")
    assert restored(next_session) == []
    assert next_session.keeper.last == last
    last.write_text(text)
    assert restored(next_session) == [1]
    assert next_session.keeper.last is None


def test_restoring_that_was_cancelled_can_be_tried_again(next_session):
    last = next_session.keeper.last
    next_session.keeper.restore(next_session.opener.open)
    assert next_session.keeper.restoring
    next_session.jobs.cancel_all()
    next_session.rest()
    assert (next_session.keeper.last, next_session.keeper.restoring) == (last, False)


def test_a_workspace_not_restored_yet_is_not_deleted_for_newer_ones(next_session, adatas):
    last = next_session.keeper.last
    for _ in range(6):
        write_workspace(WorkspaceFile(()), new_autosave())
    next_session.session.set_prediction(adatas[1])
    next_session.keeper.autosave()
    next_session.rest()
    assert last.exists()
    assert restored(next_session) == [1, 1]
    next_session.session.workspace.changed(adatas[1])
    next_session.keeper.autosave()
    next_session.rest()
    assert not last.exists()
