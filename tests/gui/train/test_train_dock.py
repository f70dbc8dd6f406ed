"""The Train dock over small sections on disk and a training package in memory."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from napari.qt import get_stylesheet
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit
from tests.gui.choices import can_be_chosen
from tests.gui.predict.fake_work import FakeWork
from tests.gui.test_narrow_docks import cut_off
from tests.section_files import listing, write_section

from napari_flag import fitting
from napari_flag.errors import UserError
from napari_flag.fitting import NO_PATIENT, SCORING, TRAINED_HERE, Fitted
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.gui.train import train_dock
from napari_flag.gui.train.section_list import GENES, MPP, NAME, PATIENT, SPOTS
from napari_flag.gui.train.train_dock import RESUMES, TrainDock
from napari_flag.progress import Step
from napari_flag.simulation.simulator import MPP as SIMULATED_MPP


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sections with their counts, and a picture of the first that states no µm/px."""
    place = tmp_path_factory.mktemp("sections") / "lung"
    place.mkdir()
    for seed in (11, 12):
        write_section(place, f"S{seed}", seed)
    return place


def scores(*sections, x=0.4):
    methods = (
        ("FLAG", "X", x, None),
        ("FLAG", "X, tiles shuffled", 0.1, None),
        ("FLAG", "draws", None, 0.5),
        ("rival", "Gaussian around X", None, 0.6),
        ("floor", "ridge", 0.3, None),
        ("image-blind", "one section pasted", 0.2, None),
        ("landmark", "halves of the counts, doubled", 0.9, None),
    )
    rows = [
        {"section": section, "kind": kind, "method": method, "PCC": pcc, "MSE": 1.0, "cPCC": 0.2}
        | {"CRPS": crps, "ES": crps, "SSC": 0.5}
        for section in sections
        for kind, method, pcc, crps in methods
    ]
    return pd.DataFrame(rows).astype({"PCC": float, "CRPS": float, "ES": float})


class FakeTraining:
    """Scores a section after the other, then fits; waits after the first until `release` is set."""

    def __init__(self, *, held=False, error=None, x=0.4):
        self.release, self.error, self.x = threading.Event(), error, x
        if not held:
            self.release.set()
        self.asked, self.closed = [], 0

    def install(self, monkeypatch):
        monkeypatch.setattr(fitting, "why_no_training", lambda: None)
        monkeypatch.setattr(fitting, "load_training", lambda: self)

    def score_and_fit(self, sections, run, settings):
        self.asked.append((sections, run, settings))
        names = [section.name for section in sections]
        try:
            for done in range(len(names)):
                yield Step(SCORING, done, len(names), "sections", detail=f"{names[done]}: Fitting ridge")
                if self.error is not None:
                    raise self.error
                made = scores(*names[: done + 1], x=self.x)
                yield Step(SCORING, done + 1, len(names), "sections", partial=made)
                while not self.release.wait(0.02):
                    yield Step(SCORING, done + 1, len(names), "sections")
        finally:
            self.closed += 1
        return SimpleNamespace(scores=scores(*names, x=self.x), save=self.save)

    def save(self, out, run=None, source=None):
        yield Step("Describing the training tissue", 0, 1)
        out.write_bytes(b"weights")
        page = out.with_suffix(".fit") / "scores.md"
        return Fitted(out, scores("S11"), {"title": out.stem}, ("A",), ("S11", "S12"), page)


@pytest.fixture
def open_dock(viewer, qtbot, monkeypatch):
    """Return a function that opens the dock over a fake training package and waits until it is at rest."""

    def open_it(training=None, source=None):
        (training or FakeTraining()).install(monkeypatch)
        dock = TrainDock(viewer)
        qtbot.addWidget(dock)
        dock.show()
        rest(dock)
        if source is not None:
            dock.source.set_path(source)
            rest(dock)
        return dock

    def rest(dock):
        qtbot.waitUntil(lambda: not dock.jobs.active, timeout=120_000)

    open_it.rest = rest
    return open_it


def cell(dock, name, column):
    return dock.list._item(name).text(column)


def test_without_sections_it_says_what_to_do(open_dock):
    dock = open_dock()
    assert not dock.start.isEnabled()
    assert "step 1" in dock.strip.status.text()
    assert dock.results.isHidden()


def test_sections_of_a_folder_are_listed_with_what_was_found_and_ticked(open_dock, folder):
    dock = open_dock(source=folder)
    assert dock.list.chosen == ("S11", "S12")
    assert cell(dock, "S11", SPOTS) == "36"
    assert cell(dock, "S11", GENES) == "20"
    assert cell(dock, "S11", MPP) == f"{SIMULATED_MPP:.4g}"
    assert "S11.tif" in dock.list._item("S11").toolTip(0)
    assert "S11.h5ad" in dock.list._item("S11").toolTip(0)
    assert dock.start.isEnabled()
    assert "Will take" in dock.strip.status.text()


def test_looking_can_be_cancelled_and_begun_again(open_dock, folder, qtbot, monkeypatch):
    released = threading.Event()
    look_at_all = fitting.look_at_all

    def slow(sections, encoder):
        while not released.wait(0.02):
            yield Step(fitting.FINDING, 0, len(sections), "sections")
        return (yield from look_at_all(sections, encoder))

    monkeypatch.setattr(fitting, "look_at_all", slow)
    dock = open_dock()
    dock.source.set_path(folder)
    qtbot.waitUntil(lambda: dock.list.topLevelItemCount() == 2, timeout=5_000)
    dock.strip.cancel.click()
    qtbot.waitUntil(lambda: not dock.jobs.active, timeout=1_000)
    assert dock.list.topLevelItemCount() == 0
    assert any("was cancelled" in text for text in dock.section_step.messages.texts)
    released.set()
    dock.source.set_path(folder)
    open_dock.rest(dock)
    assert dock.list.chosen == ("S11", "S12")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_off_in_a_narrow_dock(open_dock, folder, qtbot, theme):
    dock = open_dock(source=folder)
    dock.setStyleSheet(get_stylesheet(theme))
    dock.resize(365, 860)
    dock.fit()
    open_dock.rest(dock)
    for judged in ("expectation", "draws"):
        dock.results.of.value = judged
        qtbot.wait(50)
        assert cut_off(dock) == []


def test_a_folder_that_is_not_there_is_said_in_the_step(open_dock, tmp_path):
    dock = open_dock(source=tmp_path / "gone")
    assert any("gone" in text for text in dock.section_step.messages.texts)
    assert not dock.start.isEnabled()


def test_of_one_section_it_says_why_it_cannot_start(open_dock, folder):
    dock = open_dock(source=listing(folder, "a,,S11.tif,S11.h5ad,,"))
    assert not dock.start.isEnabled()
    assert "left out and scored" in dock.strip.status.text()
    assert dock.section_step.state == "more sections needed"


def row_of(sections, name):
    (item,) = sections.findItems(name, Qt.MatchFlag.MatchStartsWith)  # a section with a problem has a mark
    return item


def type_in(sections, name, column, text):
    """Double-click a cell, type into its editor and press Enter."""
    sections.itemDoubleClicked.emit(row_of(sections, name), column)
    editor = sections.findChild(QLineEdit)
    editor.setText(text)
    QTest.keyClick(editor, Qt.Key.Key_Return)
    QApplication.processEvents()  # Qt commits in the next turn


def untick(sections, name):
    row_of(sections, name).setCheckState(NAME, Qt.CheckState.Unchecked)


def test_unticked_sections_are_left_out(open_dock, folder):
    training = FakeTraining()
    lines = ("a,,S11.tif,S11.h5ad,,", "b,,S12.tif,S12.h5ad,,", "c,,S12.tif,S12.h5ad,,")
    dock = open_dock(training, listing(folder, *lines))
    untick(dock.list, "b")
    dock.fit()
    open_dock.rest(dock)
    assert [section.name for section in training.asked[0][0]] == ["a", "c"]
    untick(dock.list, "c")
    assert not dock.start.isEnabled()


def test_a_section_with_a_problem_is_left_out_until_it_is_solved(open_dock, folder, tmp_path):
    import tifffile

    Image.fromarray(tifffile.imread(folder / "S11.tif")).save(folder / "plain.png")
    try:
        lines = ("a,,S11.tif,S11.h5ad,,", "b,,S12.tif,S12.h5ad,,", "plain,,plain.png,S11.h5ad,,")
        dock = open_dock(source=listing(folder, *lines))
        assert dock.list.chosen == ("a", "b")
        assert any("never guessed" in text for text in dock.section_step.messages.texts)
        type_in(dock.list, "plain", MPP, "nonsense")
        open_dock.rest(dock)
        assert dock.list.chosen == ("a", "b")
        assert any("is not a size" in text for text in dock.section_step.messages.texts)
        type_in(dock.list, "plain", MPP, "0,69")  # as a German keyboard types it
        open_dock.rest(dock)
        assert dock.list.chosen == ("a", "b", "plain")
        assert dock.section_step.messages.texts == ()
        assert dock.used[2].mpp == 0.69
    finally:
        (folder / "plain.png").unlink()


def test_a_resolution_that_the_array_contradicts_is_said(open_dock, folder):
    dock = open_dock(source=listing(folder, "a,,S11.tif,S11.h5ad,,0.5", "b,,S12.tif,S12.h5ad,,"))
    assert any("spots' array suggests" in text for text in dock.section_step.messages.texts)


def test_patients_can_be_stated_in_the_list(open_dock, folder):
    training = FakeTraining()
    dock = open_dock(training, folder)
    assert {section.patient for section in dock.used} == {NO_PATIENT}
    type_in(dock.list, "S11", PATIENT, "P1")
    dock.fit()
    open_dock.rest(dock)
    assert [section.patient for section in training.asked[0][0]] == ["P1", NO_PATIENT]
    assert dock.list.chosen == ("S11", "S12")


def test_names_that_look_like_a_patients_are_kept_only_when_it_is_ticked(open_dock, folder):
    training = FakeTraining()
    dock = open_dock(training, folder)
    assert dock.keep_names.isHidden()
    type_in(dock.list, "S11", PATIENT, "Jane Doe 1961-03-04")
    assert not dock.keep_names.isHidden()
    for kept in (False, True):
        dock.keep_names.setChecked(kept)
        dock.fit()
        open_dock.rest(dock)
    assert [settings.keep_names for _, _, settings in training.asked] == [False, True]
    dock.source.set_path(None)
    assert not dock.keep_names.isChecked()


def test_genes_encoder_and_diffusion_reach_the_training(open_dock, folder, tmp_path):
    training = FakeTraining()
    dock = open_dock(training, folder)
    (tmp_path / "genes.txt").write_text("GENE1\n")
    dock.genes.set_path(tmp_path / "genes.txt")
    dock.encoder.value = TRAINED_HERE
    open_dock.rest(dock)
    closed_form = dock.strip.status.text()
    dock.diffusion.setChecked(True)
    assert dock.strip.status.text() != closed_form  # takes longer
    dock.fit()
    open_dock.rest(dock)
    _, run, settings = training.asked[0]
    assert settings.genes == tmp_path / "genes.txt"
    assert (settings.encoder, settings.diffusion) == (TRAINED_HERE, True)
    assert run.is_relative_to(tmp_path / "cache")


def test_foundation_encoders_that_are_not_here_say_how_to_get_them(open_dock):
    dock = open_dock()
    rows = {dock.encoder.native.itemText(row): row for row in range(dock.encoder.native.count())}
    row = next(row for text, row in rows.items() if text.startswith("UNI"))
    assert not can_be_chosen(dock.encoder, row)
    assert "encoders download" in dock.encoder.native.itemData(row, 3)  # its tooltip


def test_scores_are_shown_as_they_come_and_weights_offered_only_after(open_dock, folder, qtbot):
    training = FakeTraining(held=True)
    dock = open_dock(training, folder)
    dock.start.click()
    qtbot.waitUntil(lambda: dock.results.table.table.rowCount() > 0, timeout=5_000)
    assert not dock.save_button.isEnabled()
    assert not dock.start.isEnabled()
    assert "1 of 2 sections" in dock.strip.status.text()
    training.release.set()
    open_dock.rest(dock)
    assert dock.results.table.table.shown[0] == "X: these weights"  # best PCC first
    assert "ridge · simple" in dock.results.table.table.shown
    assert not any("halves" in name for name in dock.results.table.table.shown)
    assert dock.save_button.isEnabled()
    assert not dock.use_button.isEnabled()
    assert any("On 2 sections left out" in text for text in dock.messages.texts)
    dock.results.of.value = "draws"
    assert dock.results.table.table.shown == ["draws: these weights", "Gaussian around X · no network"]
    dock.results.where.value = "S12"
    assert dock.results.table.table.rowCount() == 2


def test_weights_that_a_simple_method_beats_come_with_a_warning(open_dock, folder):
    dock = open_dock(FakeTraining(x=0.25), folder)
    dock.fit()
    open_dock.rest(dock)
    assert any("is ahead" in text for text in dock.messages.texts)


def test_cancel_frees_the_dock_within_a_second_and_start_goes_on(open_dock, folder, qtbot):
    training = FakeTraining(held=True)
    dock = open_dock(training, folder)
    dock.start.click()
    qtbot.waitUntil(lambda: dock.results.table.table.rowCount() > 0, timeout=5_000)
    dock.strip.cancel.click()
    qtbot.waitUntil(lambda: not dock.jobs.active, timeout=1_000)
    qtbot.waitUntil(lambda: training.closed == 1, timeout=1_000)
    assert RESUMES in dock.messages.texts
    assert not dock.save_button.isEnabled()
    assert dock.start.isEnabled()
    training.release.set()
    dock.start.click()
    open_dock.rest(dock)
    assert training.asked[0][1:] == training.asked[1][1:]  # the same states and settings
    assert dock.save_button.isEnabled()


def test_what_goes_wrong_is_one_sentence_and_nothing_is_offered(open_dock, folder):
    dock = open_dock(FakeTraining(error=UserError("S11 lacks genes; check it.")), folder)
    dock.fit()
    open_dock.rest(dock)
    assert "S11 lacks genes; check it." in dock.messages.texts
    assert not dock.save_button.isEnabled()
    assert dock.start.isEnabled()


@pytest.mark.parametrize(
    ("given", "written"), [("lung", "lung.safetensors"), ("LUNG.SAFETENSORS", "LUNG.SAFETENSORS")]
)
def test_weights_are_saved_and_chosen_in_the_predict_dock(
    open_dock, folder, tmp_path, monkeypatch, given, written
):
    loaded, opened = [], []

    def area(viewer, page):
        opened.append(page)
        return SimpleNamespace(predict=SimpleNamespace(load_weights=loaded.append))

    monkeypatch.setattr(train_dock, "open_area", area)
    monkeypatch.setattr(train_dock, "_share_place", lambda *_: None)  # there is no window
    suggested = []

    def answer(parent, title, name, filters):
        suggested.append(name)
        return str(tmp_path / given), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    dock = open_dock(source=folder)
    dock.fit()
    open_dock.rest(dock)
    dock.save_button.click()
    open_dock.rest(dock)
    assert suggested == ["lung.safetensors"]
    assert (tmp_path / written).exists()
    assert any("scores.md" in text for text in dock.messages.texts)
    dock.use_button.click()
    assert (opened, loaded) == (["Predict"], [tmp_path / written])


def test_weights_chosen_while_a_new_predict_dock_looks_for_others_stay_chosen(viewer, qtbot, monkeypatch):
    FakeWork().install(monkeypatch)
    dock = PredictDock(viewer)
    qtbot.addWidget(dock)
    dock.load_weights(Path("mine.safetensors"))  # before the list of weights has come
    qtbot.waitUntil(lambda: not dock.jobs.active, timeout=60_000)
    assert dock.model_step.choice.value == Path("mine.safetensors")
    assert dock._checkpoint is not None


def test_weights_of_other_settings_are_no_longer_offered(open_dock, folder):
    dock = open_dock(source=folder)
    dock.fit()
    open_dock.rest(dock)
    assert dock.save_button.isEnabled()
    dock.diffusion.setChecked(True)
    assert not dock.save_button.isEnabled()
    assert dock.results.isHidden()


def test_without_the_packages_of_training_it_says_what_to_install(open_dock, folder, monkeypatch):
    why_no_training = fitting.why_no_training
    dock = open_dock()
    monkeypatch.setattr(fitting, "NEEDED", ("flag_training", "no_such_package"))
    monkeypatch.setattr(fitting, "why_no_training", why_no_training)
    dock = TrainDock(dock.session.viewer)
    dock.source.set_path(folder)
    open_dock.rest(dock)
    assert not dock.start.isEnabled()
    assert 'pip install "napari-flag[training]"' in dock.strip.status.text()
    assert dock.list.chosen == ("S11", "S12")  # what there is can still be looked at
    dock.close()


@pytest.mark.slow
def test_napari_outlives_the_first_training_under_a_window_drawn_in_software(qapp):
    """In a process of its own: triton and Mesa each brought an LLVM, and the import ended the process."""
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("training_under_a_window.py"))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "still there"
