import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtWidgets import QFileDialog
from tests.fakes import counts_for, fake_prediction
from tests.gui.predict.fake_work import FakeWork, N, fake_checkpoint, fake_slide, fake_spots

from napari_flag import keys
from napari_flag.encoders import features
from napari_flag.errors import UserError
from napari_flag.gui import samples_dock
from napari_flag.gui.jobs import Job
from napari_flag.gui.predict import steps
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.gui.predict.run import PREVIEW_EVERY_MS, preview_wait_ms
from napari_flag.gui.predict.steps import TABLE
from napari_flag.gui.samples_dock import SamplesDock
from napari_flag.gui.train.train_dock import TrainDock
from napari_flag.layers import ahead, slide_layers
from napari_flag.layers.gene_values import Quantity
from napari_flag.model import checkpoint
from napari_flag.preflight import look_at
from napari_flag.progress import Step
from napari_flag.slides.spots import SpotTable, inside


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


def spots_shown(session):
    """Return how many spots have a value in the map."""
    return int(np.isfinite(session.gene_map.values.values(session.gene, Quantity.PREDICTED)).sum())


def test_previews_are_one_prediction_that_fills_and_whose_maps_are_made_in_the_worker(
    open_dock, qtbot, monkeypatch
):
    made, seen = [], []
    prepare = ahead.prepare_preview
    monkeypatch.setattr(
        ahead, "prepare_preview", lambda adata: (made.append(threading.current_thread()), prepare(adata))
    )
    dock = open_dock(FakeWork(held=True))
    paint = dock.session.preview
    monkeypatch.setattr(
        dock.session, "preview", lambda adata, state: (paint(adata, state), seen.append((adata, state)))
    )
    dock.predict()
    qtbot.waitUntil(lambda: bool(seen), timeout=5_000)
    ((adata, state),) = {id(adata): (adata, state) for adata, state in seen}.values()
    assert len(made) == 1
    assert made[0] is not threading.main_thread()
    before, raster = spots_shown(dock.session), dock.session.gene_map.raster
    gene = dock.session.gene
    adata.X[before] = 1.0
    paint(adata, state)
    assert spots_shown(dock.session) == before + 1
    assert dock.session.gene_map.raster is raster
    assert dock.session.gene == gene
    layer = dock.session.gene_map.layer(Quantity.PREDICTED)
    assert len(np.unique(raster.lookup[np.isfinite(layer.data)])) == before + 1


def test_a_preview_that_takes_long_is_painted_less_often():
    assert preview_wait_ms(0.01) == PREVIEW_EVERY_MS
    assert preview_wait_ms(2.0) == 10_000


def test_predict_previews_then_keeps_the_result_when_the_dock_closes(open_dock, qtbot):
    work = FakeWork(held=True)
    dock = open_dock(work)
    session = dock.session
    dock.predict()
    assert not dock._steps.isEnabled()
    assert dock.strip.cancel.isEnabled()
    qtbot.waitUntil(lambda: session.gene_map.values is not None, timeout=5_000)
    assert 0 < spots_shown(session) < N
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
    qtbot.waitUntil(lambda: spots_shown(dock.session) < N, timeout=5_000)  # a preview
    begun = time.monotonic()
    dock.strip.cancel.click()
    open_dock.rest(dock)
    assert time.monotonic() - begun < 1.0
    qtbot.waitUntil(lambda: work.closed == 1, timeout=30_000)
    qtbot.wait(100)
    assert spots_shown(dock.session) == N
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


class SmallerCopy(FakeWork):
    """A table that says that the picture has a fifth of the full-resolution slide's pixels a side."""

    def read_table(self, path, slide):
        return self._result(SpotTable(fake_spots(), None, "Visium", image_scale=0.2))


def test_a_scale_typed_before_the_table_is_read_is_that_of_the_full_resolution_slide_too(open_dock):
    dock = open_dock(SmallerCopy(mpp=None))
    dock.slide_step.mpp.value = 0.5
    open_dock.rest(dock)  # a grid is laid meanwhile
    assert dock.section.slide.mpp == 0.5
    dock.spots_step.origin.value = TABLE
    dock.spots_step.table.set_path(Path("spots.tsv"))
    open_dock.rest(dock)
    assert dock.section.slide.mpp == 2.5
    assert dock.slide_step.mpp.value == 0.5
    assert "full-resolution" in dock.slide_step.source.text()
    dock.slide_step.estimate.click()
    open_dock.rest(dock)
    dock.spots_step.table.set_path(Path("others.tsv"))
    open_dock.rest(dock)
    assert dock.section.slide.mpp == 0.25  # estimated of this picture since


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


def test_counts_are_looked_at_by_the_job_that_reads_them(open_dock, monkeypatch):
    threads, look = [], steps.look_at_counts

    def watched(*given):
        threads.append(threading.current_thread())
        return look(*given)

    monkeypatch.setattr(steps, "look_at_counts", watched)
    dock = open_dock(FakeWork(measured=counts_for(fake_prediction(N))))
    dock.spots_step.origin.value = TABLE
    dock.spots_step.table.set_path(Path("spots.tsv"))
    open_dock.rest(dock)
    dock.spots_step.measured.set_path(Path("counts.tsv"))
    open_dock.rest(dock)
    dock.section.set_mpp(0.25, "set by hand")
    open_dock.rest(dock)
    assert any("Measured expression of 16 spots" in text for text in dock.spots_step.messages.texts)
    assert len(threads) == 2
    assert threading.main_thread() not in threads


class SpeakingCounts(FakeWork):
    """Counts that are read with a notice, or cannot be."""

    def __init__(self, refused):
        super().__init__()
        self.refused = refused

    def counts_at(self, measured, spots, mpp, image, alignment=None):
        yield Step("Reading counts", 0)
        if self.refused:
            raise UserError(f"{measured.name} is damaged; copy it again.")
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


def draw_area(open_dock, dock):
    """Draw a layer with a region, and lay the grid of the slide that is shown in it."""
    layer = dock.session.viewer.add_shapes(np.array([[10, 10], [10, 400], [400, 400]]), shape_type="polygon")
    open_dock.rest(dock)
    dock.spots_step.area.value = layer
    dock.spots_step._settle.stop()
    dock.section.lay_grid()
    open_dock.rest(dock)
    return layer


def test_the_area_of_a_grid_is_kept_with_its_slide_and_no_grid_is_laid_by_looking_at_another(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    (first,) = dock.session.workspace.slides
    layer = draw_area(open_dock, dock)
    slide_layers.add_slide(dock.session.viewer, fake_slide())
    open_dock.rest(dock)
    second, laid = dock.session.state, len(work.grids)
    assert dock.spots_step.grid()[1] is None
    for state, area in ((first, layer), (second, None), (first, layer)):
        dock.session.workspace.show(state)
        open_dock.rest(dock)
        assert dock.spots_step.grid()[1] is area
        assert not dock.spots_step._settle.isActive()
    assert len(work.grids) == laid


def test_a_grid_is_laid_over_all_tissue_once_the_layer_it_was_laid_in_is_removed(open_dock, qtbot):
    work = FakeWork()
    dock = open_dock(work)
    layer, laid = draw_area(open_dock, dock), len(work.grids)
    dock.session.viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: len(work.grids) > laid, timeout=5_000)
    assert dock.spots_step.grid()[1] is None
    open_dock.rest(dock)


def test_a_layer_that_is_renamed_is_offered_by_its_new_name(open_dock):
    dock = open_dock()
    layer = draw_area(open_dock, dock)
    layer.name = "Tumour"
    open_dock.rest(dock)
    assert dock.spots_step.area.current_choice == "Inside “Tumour”"
    assert dock.spots_step.grid()[1] is layer
    assert "Inside “Tumour”" in [text for text, _ in dock.region_step.choice.entries]


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
    dock.opener.open([tmp_path / "out.h5ad"])
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


class FailingSlide(FakeWork):
    """A slide that cannot be opened."""

    def open_with_pyramid(self, path):
        yield Step("Building a pyramid", 0)
        raise UserError("The drive is full; make room there.")


@pytest.mark.parametrize("work", [FakeWork, FailingSlide])
def test_an_image_of_another_reader_is_opened_as_a_slide_when_chosen_and_seen_until_then(
    open_dock, viewer, tmp_path, work
):
    from PIL import Image

    file = tmp_path / "plain.png"
    Image.fromarray(fake_slide().pixels[:64, :64]).save(file)
    (image,) = viewer.open(file, plugin="napari")
    dock = open_dock(work(), slide=False)
    assert dock.section.slide is None
    assert image.visible
    dock.slide_step.choice.value = image
    open_dock.rest(dock)
    opened = work is FakeWork
    assert (dock.section.slide is not None, image.visible) == (opened, not opened)


class HeldModel(FakeWork):
    """Weights that are found late, and then cannot be loaded, or not before they are `let`."""

    def __init__(self, error=None):
        super().__init__()
        self.found, self.let, self.failing = threading.Event(), threading.Event(), error

    def install(self, monkeypatch):
        super().install(monkeypatch)
        monkeypatch.setattr(checkpoint, "list_labels", self._find)
        monkeypatch.setattr(checkpoint.Checkpoint, "load", self._load)

    def _find(self):
        self.found.wait(30)
        return (("fake", Path("fake.safetensors")),)

    def _load(self, path):
        self.let.wait(30)
        if self.failing is not None:
            raise self.failing
        return fake_checkpoint()


def test_cancel_does_not_stop_what_the_dock_cannot_do_without(open_dock, viewer, monkeypatch, qtbot):
    work = HeldModel()
    work.let.set()
    work.install(monkeypatch)
    dock = PredictDock(viewer)
    qtbot.addWidget(dock)
    assert not dock.strip.cancel.isEnabled()
    dock.section.open_slide(Path("fake.svs"))
    assert dock.strip.cancel.isEnabled()
    dock.strip.cancel.click()
    work.found.set()
    open_dock.rest(dock)
    assert dock._checkpoint is not None
    assert dock.run_panel.device.value == "cpu"


def test_the_device_chosen_here_is_that_of_draws_training_and_the_next_predict_page(
    open_dock, viewer, qtbot, monkeypatch
):
    dock = open_dock()
    there = (("cuda", "CUDA: a card"), ("cpu", "CPU"))
    dock.run_panel.set_devices(there)
    train = TrainDock(viewer)
    qtbot.addWidget(train)
    for name in ("cpu", "cuda", "cpu"):
        dock.run_panel.device.value = name
        assert train.settings.device == name
    requests = []

    def draw_more(request):
        requests.append(request)
        yield Step("Draw", 0, None)
        return request.upto

    monkeypatch.setattr(samples_dock, "draw_more", draw_more)
    samples = SamplesDock(viewer)
    qtbot.addWidget(samples)
    dock.session.set_prediction(fake_prediction(N), dock.section.slide)
    samples.draw(2)
    qtbot.waitUntil(lambda: bool(requests), timeout=10_000)
    assert requests[0].device == "cpu"
    monkeypatch.setattr(features, "list_devices", lambda: there)
    again = PredictDock(viewer)
    qtbot.addWidget(again)
    qtbot.waitUntil(lambda: len(again.run_panel.device.entries) == 2, timeout=10_000)
    assert again.run_panel.device.value == "cpu"


def test_a_predict_page_that_nobody_chose_a_device_on_leaves_it_to_preferences(
    plugin_settings, npe2pm, open_dock, viewer, qtbot, monkeypatch
):
    from napari.settings import get_plugin_settings

    there = (("cuda", "CUDA: a card"), ("cpu", "CPU"))
    npe2pm.register(PluginManifest.from_distribution("napari-flag"))
    dock = open_dock()
    dock.run_panel.set_devices(there)
    dock.run_panel.quality.value = "best"
    assert dock.run_panel.device.value == "cuda"
    get_plugin_settings("napari-flag").prediction.device = "cpu"
    assert dock.session.device == "cpu"
    monkeypatch.setattr(features, "list_devices", lambda: there)
    again = PredictDock(viewer)
    qtbot.addWidget(again)
    qtbot.waitUntil(lambda: len(again.run_panel.device.entries) == 2, timeout=10_000)
    assert again.run_panel.device.value == "cpu"


@pytest.mark.parametrize("error", [None, UserError("fake.safetensors is damaged; copy it again.")])
def test_a_model_that_was_cancelled_or_failed_to_load_can_be_chosen_again(
    open_dock, viewer, monkeypatch, qtbot, error
):
    work = HeldModel(error)
    work.found.set()
    work.install(monkeypatch)
    dock = PredictDock(viewer)
    qtbot.addWidget(dock)
    qtbot.waitUntil(lambda: dock.jobs.running("model"), timeout=10_000)
    if error is None:
        dock.strip.cancel.click()
        qtbot.waitUntil(lambda: not dock.jobs.running("model"), timeout=5_000)
    work.let.set()
    open_dock.rest(dock)
    assert (dock._checkpoint, dock.model_step.choice.value) == (None, "")
    assert dock.model_step.messages.texts == (() if error is None else (str(error),))
    work.failing = None
    dock.model_step.choice.value = Path("fake.safetensors")
    open_dock.rest(dock)
    assert dock._checkpoint is not None


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
