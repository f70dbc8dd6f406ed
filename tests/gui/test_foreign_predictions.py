"""Files of other programs, dropped or opened: shown, asked about once, remembered, and never changed."""

# ruff: noqa: F811  fixtures of test_opening

import hashlib

import numpy as np
import pytest
from tests.fakes import counts_for
from tests.foreign_files import write_deepspot_like, write_hest_like, write_lazyslide_like
from tests.gui.test_opening import (  # noqa: F401
    _apart,
    dock,
    names,
    of_slide,
    prediction_file,
    slide_file,
    start,
    written,
)

from napari_flag.foreign_prediction import unit_read
from napari_flag.layers.gene_values import Quantity


@pytest.fixture
def asked(dock, monkeypatch):
    """The files a person was asked about; each answer is log1p."""
    files = []

    def answer(file):
        files.append(file.name)
        return "log1p"

    monkeypatch.setattr(dock.opener, "ask_unit", answer)
    return files


def opened(dock, qtbot, *paths):
    results = sum(len(state.results) for state in dock.session.workspace.slides)
    dock.opener.open(paths)
    dock.rest()
    qtbot.waitUntil(
        lambda: sum(len(s.results) for s in dock.session.workspace.slides) > results, timeout=10_000
    )
    dock.rest()


def test_a_file_that_states_its_unit_opens_without_a_question(dock, asked, qtbot, tmp_path):
    prediction = of_slide("A")
    opened(dock, qtbot, write_deepspot_like(prediction, tmp_path / "deepspot.h5ad"))
    assert asked == []
    np.testing.assert_allclose(dock.session.adata.X, prediction.X, rtol=1e-6)
    assert names(dock) == ["deepspot"]
    assert any("was not written by napari-flag" in text for text in dock.messages.texts)
    dock.session.select_gene("ESR1")
    dock.session.show_quantity(Quantity.PREDICTED)
    assert dock.session.gene == "ESR1"


@pytest.mark.slow
def test_it_goes_to_the_slide_it_is_named_after_or_that_has_its_spots(
    dock,
    asked,
    qtbot,
    slide_file,
    tmp_path,
):
    prediction = of_slide("A")
    for name, seed in (("A", 0), ("B", 1)):
        dock.opener.open([slide_file(name, seed)])
        dock.rest()
    opened(dock, qtbot, write_deepspot_like(prediction, tmp_path / "A_deepspot.h5ad"))
    opened(dock, qtbot, write_hest_like(prediction, tmp_path / "A_stpath.h5ad"))
    a, b = dock.session.workspace.slides
    assert [result.name for result in a.results] == ["A_deepspot", "A_stpath"]
    assert b.results == []


def test_without_its_slide_it_joins_a_prediction_of_the_same_spots(
    dock,
    asked,
    qtbot,
    tmp_path,
):
    prediction = of_slide("A")
    opened(dock, qtbot, prediction_file(tmp_path / "ours.h5ad", "A"))
    opened(dock, qtbot, write_deepspot_like(prediction, tmp_path / "deepspot.h5ad"))
    opened(dock, qtbot, write_deepspot_like(of_slide("A", n_spots=25), tmp_path / "other.h5ad"))
    first, second = dock.session.workspace.slides
    assert [result.name for result in first.results] == ["ours", "deepspot"]
    assert [result.name for result in second.results] == ["other"]


def test_the_unit_is_asked_for_once_and_remembered_with_the_workspace(
    dock,
    asked,
    qtbot,
    tmp_path,
):
    prediction = of_slide("A")
    path = write_hest_like(prediction, tmp_path / "stpath.h5ad")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    opened(dock, qtbot, path)
    assert asked == ["stpath.h5ad"]
    np.testing.assert_allclose(dock.session.adata.X, prediction.X, rtol=1e-6)
    assert unit_read(dock.session.adata) == "log1p"
    dock.keeper.save_workspace(tmp_path / "all.json")
    dock.rest()
    assert not dock.session.workspace.unsaved
    dock.session.workspace.remove(dock.session.state)
    opened(dock, qtbot, tmp_path / "all.json")
    assert asked == ["stpath.h5ad"], "not asked again"
    np.testing.assert_allclose(dock.session.adata.X, prediction.X, rtol=1e-6)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_who_does_not_know_the_unit_is_left_with_what_was_open(
    dock,
    qtbot,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(dock.opener, "ask_unit", lambda file: None)
    dock.opener.open([write_hest_like(of_slide("A"), tmp_path / "stpath.h5ad")])
    dock.rest()
    qtbot.waitUntil(lambda: bool(dock.messages.texts), timeout=10_000)
    assert any("unit of its values is not known" in text for text in dock.messages.texts)
    assert dock.session.workspace.slides == []


def test_a_zarr_table_opens_as_a_folder(dock, asked, qtbot, tmp_path):
    prediction = of_slide("A")
    opened(dock, qtbot, write_lazyslide_like(prediction, tmp_path / "C5.zarr"))
    assert asked == ["stpath_tiles"]
    np.testing.assert_allclose(dock.session.adata.X, prediction.X, rtol=1e-6)


@pytest.mark.slow
def test_counts_are_attached_and_saving_never_replaces_the_file(
    dock,
    asked,
    qtbot,
    tmp_path,
):
    prediction = of_slide("A")
    path = write_deepspot_like(prediction, tmp_path / "deepspot.h5ad")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    opened(dock, qtbot, path)
    counts_for(prediction).write_h5ad(tmp_path / "counts.h5ad")
    dock.opener.open([tmp_path / "counts.h5ad"])
    dock.rest()
    assert dock.session.measured is not None
    dock.keeper.save_result(path)
    dock.rest()
    assert any("save under another name" in text for text in dock.messages.texts)
    dock.keeper.save_result(tmp_path / "mine.h5ad")
    dock.rest()
    assert (tmp_path / "mine.h5ad").exists()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.mark.slow
def test_numbered_tiles_take_the_names_of_the_spots_of_the_slide(dock, asked, qtbot, slide_file, tmp_path):
    prediction = of_slide("A")
    dock.opener.open([slide_file("A")])
    dock.rest()
    opened(dock, qtbot, prediction_file(tmp_path / "ours.h5ad", "A"))
    opened(dock, qtbot, write_lazyslide_like(prediction, tmp_path / "C5.zarr"))
    (state,) = dock.session.workspace.slides
    assert [len(state.results), state.shown.name] == [2, "stpath_tiles"]
    assert list(dock.session.adata.obs_names) == list(prediction.obs_names)
