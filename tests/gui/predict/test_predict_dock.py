import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog
from tests.fakes import fake_prediction
from tests.gui.predict.fake_work import FakeWork, N, fake_checkpoint, fake_slide

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.gui.jobs import Job
from napari_flag.gui.predict.steps import TABLE
from napari_flag.layers import slide_layers
from napari_flag.preflight import look_at
from napari_flag.progress import Step
from napari_flag.slides.spots import inside


def test_opening_a_slide_is_all_that_is_needed_before_predict(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    assert dock.run_panel.predict.isEnabled()
    assert "16 spots" in dock.strip.status.text()
    assert [step.state for step in (dock.slide_step, dock.spots_step, dock.model_step)] == [
        "ready",
        "ready",
        "ready",
    ]
    last = work.grids[-1]
    assert (last.spacing_um, last.diameter_um, last.lattice) == (200.0, 100.0, "square")
    assert "breast cancer" in dock.model_step.card.text()
    assert dock.model_step.caution.text() == keys.RESEARCH_USE_ONLY
    assert {layer.metadata[keys.LAYER_KIND] for layer in dock.session.viewer.layers} == {
        "slide",
        "spots",
    }


def test_a_slide_dragged_into_the_viewer_is_the_one_the_dock_works_on(open_dock):
    dock = open_dock(slide=False)
    assert not dock.run_panel.predict.isEnabled()
    slide = fake_slide()
    slide_layers.add_slide(dock.session.viewer, slide)
    open_dock.rest(dock)
    assert dock.section.slide is slide
    assert dock.run_panel.predict.isEnabled()


def test_a_second_slide_dragged_in_is_the_one_worked_on_then_and_the_first_keeps_its_spots(open_dock):
    dock = open_dock()
    (first,) = dock.session.workspace.slides
    second = fake_slide()
    slide_layers.add_slide(dock.session.viewer, second)
    open_dock.rest(dock)
    assert dock.section.slide is second
    assert dock.run_panel.predict.isEnabled()
    assert len(first.table.spots) == N


def test_predict_previews_then_keeps_the_result_when_the_dock_closes(open_dock, qtbot):
    work = FakeWork(held=True)
    dock = open_dock(work)
    session = dock.session
    dock.predict()
    assert not dock._steps.isEnabled()
    assert dock.strip.cancel.isEnabled()
    qtbot.waitUntil(lambda: session.gene_map.values is not None, timeout=5_000)
    assert 0 < session.gene_map.values.adata.n_obs < N
    work.release.set()
    open_dock.rest(dock)
    assert session.adata.shape == (N, 10)
    assert dock._steps.isEnabled()
    assert f"{session.state.name}: The batch was halved." in dock.messages.texts
    assert dock.run_panel.save.isEnabled()
    assert work.predicted[0][1] == "cpu"
    dock.deleteLater()
    qtbot.wait(10)
    again = open_dock(FakeWork(), slide=False, viewer=session.viewer)
    assert "16 spots" in again.run_panel.result.text()
    assert again.section.slide is session.slide


def test_cancel_frees_the_dock_within_a_second_and_keeps_the_former_result(open_dock, qtbot):
    work = FakeWork(held=True)
    dock = open_dock(work)
    former = fake_prediction(N)
    dock.session.set_prediction(former, dock.section.slide)
    dock.predict()
    qtbot.waitUntil(lambda: dock.session.gene_map.values.adata.n_obs < N, timeout=5_000)  # a preview
    begun = time.monotonic()
    dock.strip.cancel.click()
    open_dock.rest(dock)
    assert time.monotonic() - begun < 1.0
    qtbot.waitUntil(lambda: work.closed == 1, timeout=30_000)
    qtbot.wait(100)
    assert dock.session.gene_map.values.adata.n_obs == N
    assert dock.session.adata is former
    assert dock.run_panel.predict.isEnabled()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("The slide is too coarse; use another."), "The slide is too coarse"),
        (RuntimeError("shapes do not match"), "Something went wrong inside napari-flag"),
    ],
)
def test_a_failing_prediction_says_so_in_the_dock(open_dock, error, words):
    dock = open_dock(FakeWork(error=error))
    dock.predict()
    open_dock.rest(dock)
    assert any(words in text for text in dock.messages.texts)
    assert dock.session.adata is None
    assert dock.run_panel.predict.isEnabled()


def test_unknown_resolution_asks_and_can_be_typed_or_estimated(open_dock):
    work = FakeWork(mpp=None)
    dock = open_dock(work)
    assert not dock.run_panel.predict.isEnabled()
    assert "µm/px" in dock.strip.status.text()
    assert not work.grids
    dock.spots_step.origin.value = TABLE
    dock.spots_step.table.set_path(Path("spots.tsv"))
    open_dock.rest(dock)
    assert "Two spots were left out." in dock.spots_step.messages.texts
    assert not dock.run_panel.predict.isEnabled()
    dock.slide_step.estimate.click()
    open_dock.rest(dock)
    assert dock.section.slide.mpp == 0.25
    assert "estimated" in dock.slide_step.source.text()
    for layer in dock.session.viewer.layers:
        assert str(layer.units[0]) == "micrometer"
        assert layer.scale[-1] == pytest.approx(0.25)
    assert dock.run_panel.predict.isEnabled()
    dock.slide_step.mpp.value = 9.0
    assert any("array suggests 0.5" in text for text in dock.spots_step.messages.texts)
    assert dock.slide_step.messages.texts == ()
    assert dock.section.slide.mpp_source == "set by hand"


def test_the_scale_typed_is_that_of_the_full_resolution_slide_also_of_a_smaller_copy(open_dock):
    dock = open_dock(FakeWork(mpp=None))
    dock.spots_step.origin.value = TABLE
    dock.spots_step.table.set_path(Path("spots.tsv"))
    open_dock.rest(dock)
    state = dock.session.state
    dock.session.workspace.set_spots(state, replace(state.table, image_scale=0.2))
    dock.slide_step.mpp.value = 0.5
    assert dock.section.slide.mpp == 2.5
    assert dock.slide_step.mpp.value == 0.5
    assert "full-resolution" in dock.slide_step.source.text()


def test_a_slide_unlike_the_training_is_warned_of(open_dock):
    dock = open_dock(FakeWork(mpp=0.8))
    dock.spots_step.pitch.value = 55.0
    open_dock.rest(dock)
    assert any("0.8 µm/px" in text for text in dock.model_step.messages.texts)
    assert dock.run_panel.predict.isEnabled()


def test_weights_of_simulated_slides_wait_until_the_person_insists_on_them(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    look_at(dock.section.slide)
    assert dock.model_step._anyway.isHidden()
    dock.load_weights(Path("fake.safetensors"))
    open_dock.rest(dock)
    assert dock.run_panel.predict.isEnabled()
    simulated = fake_checkpoint()
    simulated.card["tissue"] = "none: synthetic"
    dock._checkpoint = simulated
    dock.model_step.show_checkpoint(simulated)
    dock._refresh()
    assert not dock.run_panel.predict.isEnabled()
    assert "know only simulated slides" in dock.run_panel.predict.toolTip()
    assert not dock.model_step._anyway.isHidden()
    dock.model_step._anyway.click()
    assert dock.run_panel.predict.isEnabled()
    assert any("insisted" in text for text in dock.model_step.messages.texts)
    dock.predict()
    open_dock.rest(dock)
    assert work.insisted == [True]
    dock.load_weights(Path("fake.safetensors"))
    open_dock.rest(dock)
    assert dock.model_step._anyway.isHidden()
    assert not dock.model_step.anyway


def test_a_picture_too_coarse_for_the_model_keeps_predict_shut_and_says_why(open_dock):
    dock = open_dock(FakeWork(mpp=4.667))
    assert not dock.run_panel.predict.isEnabled()
    assert "4.667 µm/px" in dock.run_panel.predict.toolTip()
    assert "0.683 µm/px" in dock.run_panel.predict.toolTip()


def test_measured_expression_is_handed_to_the_prediction(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    dock.spots_step.origin.value = TABLE
    dock.spots_step.table.set_path(Path("spots.tsv"))
    open_dock.rest(dock)
    dock.spots_step.measured.set_path(Path("counts.tsv"))
    open_dock.rest(dock)
    assert any("16 spots" in text for text in dock.spots_step.messages.texts)
    dock.predict()
    open_dock.rest(dock)
    assert work.predicted[0][0].measured.n_obs == N
    dock.spots_step.measured.set_path(None)
    assert dock.section.measured is None


class SpeakingCounts(FakeWork):
    """Counts that are read with a notice, or cannot be."""

    def __init__(self, refused):
        super().__init__()
        self.refused = refused

    def counts_at(self, path, spots, mpp, image, alignment=None):
        yield Step("Reading counts", 0)
        if self.refused:
            raise UserError(f"{path.name} is damaged; copy it again.")
        return fake_prediction(N), ("Three genes were left out.",)


@pytest.mark.parametrize(
    ("refused", "said"),
    [(True, "counts.h5ad is damaged; copy it again."), (False, "Three genes were left out.")],
)
def test_what_is_to_say_of_the_counts_of_a_slide_is_said_whenever_it_is_shown(open_dock, refused, said):
    dock = open_dock(SpeakingCounts(refused))
    dock.section.open_slide(Path("second.svs"))
    open_dock.rest(dock)
    workspace = dock.session.workspace
    first, second = workspace.slides
    dock.section.attach_counts(first, Path("counts.h5ad"))
    open_dock.rest(dock)
    assert workspace.current is second
    assert said not in dock.spots_step.messages.texts
    for _ in range(2):
        workspace.show(first)
        open_dock.rest(dock)
        assert said in dock.spots_step.messages.texts
        workspace.show(second)
        open_dock.rest(dock)
        assert said not in dock.spots_step.messages.texts
    dock.section._read_measured(first, None)
    workspace.show(first)
    assert said not in dock.spots_step.messages.texts


def test_a_drawn_region_selects_spots(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    dock.region_step.draw.click()
    open_dock.rest(dock)
    assert not dock.run_panel.predict.isEnabled()
    layer = dock.region_step.region
    um = np.array([[50, 50], [50, 550], [250, 550], [250, 50]])  # rows 1, columns 1 to 2 …
    layer.add_rectangles(um / np.asarray(layer.scale))
    open_dock.rest(dock)
    assert "2 of 16 spots" in dock.region_step.summary.text()
    dock.predict()
    open_dock.rest(dock)
    prepared, _ = work.predicted[0]
    assert inside(prepared.region, prepared.spots.xy).sum() == 2


@pytest.mark.parametrize(("given", "written"), [("A.H5AD", "A.H5AD"), ("A", "A.h5ad")])
def test_the_ending_of_a_saved_result_is_added_only_where_it_is_lacking(
    open_dock, tmp_path, monkeypatch, given, written
):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / given), ""))
    dock = open_dock()
    dock.session.set_prediction(fake_prediction(N), dock.section.slide)
    dock.run_panel.saveRequested.emit()
    open_dock.rest(dock)
    assert [path.name for path in tmp_path.glob("*.[hH]5*")] == [written]


def test_results_are_saved_and_reopened_and_an_unwritable_folder_loses_nothing(open_dock, tmp_path):
    dock = open_dock()
    dock.session.set_prediction(fake_prediction(N), dock.section.slide)
    dock.save(tmp_path / "missing" / "out.h5ad")
    open_dock.rest(dock)
    assert len(dock.messages.texts) == 1
    assert dock.session.adata is not None
    dock.save(tmp_path / "out.h5ad")
    open_dock.rest(dock)
    assert "Saved" in dock.messages.texts[0]
    dock.session.set_prediction(None)
    dock.open_result(tmp_path / "out.h5ad")
    open_dock.rest(dock)
    assert dock.session.adata.shape == (N, 10)


def test_closing_the_dock_in_mid_run_cancels_quietly(open_dock, qtbot):
    work = FakeWork(held=True)
    dock = open_dock(work)
    session = dock.session
    dock.predict()
    qtbot.wait(100)
    dock.setParent(None)
    dock.deleteLater()
    qtbot.waitUntil(lambda: work.closed == 1 and not Job._running, timeout=30_000)
    session.viewer.add_shapes(ndim=2)  # nothing of the dock may hear of it any more
    assert session.adata is None


def test_closing_the_dock_in_mid_run_leaves_no_preview_and_no_status(open_dock, qtbot):
    dock = open_dock(FakeWork(held=True))
    session = dock.session
    dock.predict()
    qtbot.waitUntil(lambda: session.gene_map.values is not None, timeout=30_000)
    assert session.state.status
    dock.close()
    assert session.state.status == ""
    assert session.gene_map.values is None
    qtbot.waitUntil(lambda: not Job._running, timeout=30_000)


def test_an_image_opened_by_another_reader_is_opened_as_a_slide(open_dock, viewer, tmp_path):
    from PIL import Image

    file = tmp_path / "plain.png"
    Image.fromarray(fake_slide().pixels[:64, :64]).save(file)
    viewer.open(file, plugin="napari")
    dock = open_dock(FakeWork(), slide=False)
    assert dock.section.slide is not None
    assert [layer.visible for layer in viewer.layers if layer.name == "plain"] == [False]


def test_without_slide_the_dock_says_what_to_do(open_dock):
    dock = open_dock(slide=False)
    assert not dock.run_panel.predict.isEnabled()
    assert "Open a slide" in dock.strip.status.text()
    dock.spots_step.origin.value = TABLE
    dock.spots_step.table.set_path(Path("spots.tsv"))
    assert any("none is open yet" in text for text in dock.spots_step.messages.texts)


def named(name):
    slide = fake_slide()
    slide.name, slide.path = name, Path(f"{name}.svs")
    return slide


def test_the_name_of_a_slide_that_may_be_a_patients_is_kept_only_where_a_person_ticks_it(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    assert dock.model_step._keep_names.isHidden()
    slide_layers.add_slide(dock.session.viewer, named("Smith_John"))
    open_dock.rest(dock)
    assert not dock.model_step._keep_names.isHidden()
    for kept in (False, True):
        dock.model_step._keep_names.setChecked(kept)
        dock.predict()
        open_dock.rest(dock)
    assert work.kept_names == [False, True]
    slide_layers.add_slide(dock.session.viewer, named("C5"))
    open_dock.rest(dock)
    assert dock.model_step._keep_names.isHidden()
    assert not dock.model_step.keep_names
