import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.compat import isalive
from tests.fakes import FakeSlide, fake_prediction, fake_xy

from napari_flag import inputs, keys
from napari_flag.encoders import features
from napari_flag.errors import UserError
from napari_flag.gui.jobs import Job
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.model import checkpoint
from napari_flag.progress import Step
from napari_flag.slides import spot_tables
from napari_flag.slides import spots as arrays
from napari_flag.slides.spots import Spots, SpotTable, inside

N = 16


class Slide(FakeSlide):
    notices = ()

    def read_level(self, x, y, width, height, level):
        down = int(self.downsamples[level])
        return self.read_region(x * down, y * down, width, height, level)

    def with_mpp(self, mpp, source):
        other = Slide.__new__(Slide)
        other.__dict__.update(self.__dict__, mpp=mpp, mpp_source=source)
        return other


def fake_slide(mpp=0.5):
    return Slide(2100, 2100, mpp=mpp)


def fake_spots():
    xy, array = fake_xy(N)
    ids = tuple(f"{r}_{c}" for r, c in array)
    return Spots(ids, xy, diameter_um=100.0, pitch_um=200.0, lattice="square", array=array)


class FakeWork:
    """Readers and model in memory, put where the dock finds the real ones.

    Before each step of a prediction `pause` seconds pass.
    """

    def __init__(self, mpp=0.5, pause=0.0, error=None, measured=None):
        self.mpp, self.pause, self.error, self.measured = mpp, pause, error, measured
        self.predicted, self.grids, self.closed = [], [], 0

    def install(self, monkeypatch):
        for name in ("open_with_pyramid", "lay_grid", "read_table", "predict_inputs"):
            monkeypatch.setattr(inputs, name, getattr(self, name))
        monkeypatch.setattr(arrays, "estimate_mpp", lambda spots: 0.25)
        monkeypatch.setattr(spot_tables, "read_measured", lambda path: fake_prediction(N))
        monkeypatch.setattr(features, "list_devices", lambda: (("cpu", "CPU (2 threads)"),))
        monkeypatch.setattr(checkpoint, "list_weights", lambda: (("fake", Path("fake.safetensors")),))
        monkeypatch.setattr(checkpoint.Checkpoint, "load", lambda path: fake_checkpoint())

    def _result(self, result):
        yield Step("Working", 0)
        return result

    def open_with_pyramid(self, path):
        return self._result(fake_slide(self.mpp))

    def lay_grid(self, slide, grid, *, polygons=None):
        self.grids.append(grid)
        return self._result(SpotTable(fake_spots(), None, "square grid"))

    def read_table(self, path, slide):
        table = SpotTable(fake_spots(), self.measured, "ST", ("Two spots were left out.",))
        return self._result(table)

    def predict_inputs(self, prepared, checkpoint, *, quality, seed, device):
        self.predicted.append((prepared, device))
        done = fake_prediction(N)
        try:
            for row in range(N):
                time.sleep(self.pause)
                if self.error is not None and row == 3:
                    raise self.error
                partial = SimpleNamespace(
                    rows=np.array([row]),
                    values=done.X[[row]],
                    genes=tuple(done.var_names),
                )
                yield Step("Predicting expression", row + 1, N, partial=partial)
            yield Step("Predicting expression", N, N, notice="The batch was halved.")
        finally:
            self.closed += 1
        return done


def fake_checkpoint():
    card = {
        "tissue": "breast cancer",
        "sections": ["C2"],
        "array": {"technology": "ST", "pitch_um": 200.0, "diameter_um": 100.0},
        "um_per_px": 0.5,
        "licence": "CC BY 4.0",
    }
    return SimpleNamespace(name="fake", sha256="0", genes=("A", "B"), card=card, encoder="embedded")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def open_dock(make_napari_viewer_proxy, qtbot, monkeypatch):
    """Return a function that opens the dock over fake work and waits until it is at rest."""

    docks = []

    def open_it(work=None, slide=True, viewer=None):
        (work or FakeWork()).install(monkeypatch)
        viewer = viewer or make_napari_viewer_proxy()
        dock = PredictDock(viewer)
        docks.append(dock)
        if slide:
            dock.section.open_slide(Path("fake.svs"))
        rest(dock)
        return dock

    def rest(dock):
        qtbot.waitUntil(lambda: not dock._view.busy and not dock._watch._settle.isActive(), timeout=30_000)

    open_it.rest = rest
    yield open_it
    for dock in docks:
        if isalive(dock):
            dock.deleteLater()


def test_opening_a_slide_is_all_that_is_needed_before_predict(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    assert dock.run_panel.predict.isEnabled()
    assert "16 spots" in dock.run_panel.status.text()
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


def test_predict_previews_then_keeps_the_result_when_the_dock_closes(open_dock, qtbot):
    work = FakeWork(pause=0.06)
    dock = open_dock(work)
    session = dock.session
    with qtbot.waitSignal(session.previewArrived) as seen:
        dock.predict()
        assert not dock._steps.isEnabled()
        assert dock.run_panel.cancel.isEnabled()
    assert 0 < seen.args[0].n_obs < N
    open_dock.rest(dock)
    assert session.adata.shape == (N, 10)
    assert dock._steps.isEnabled()
    assert "The batch was halved." in dock.run_panel.messages.texts
    assert dock.run_panel.save.isEnabled()
    assert work.predicted[0][1] == "cpu"
    dock.deleteLater()
    qtbot.wait(10)
    again = open_dock(FakeWork(), slide=False, viewer=session.viewer)
    assert "16 spots" in again.run_panel.result.text()
    assert again.section.slide is session.slide


def test_cancel_frees_the_dock_within_a_second_and_keeps_the_former_result(open_dock, qtbot):
    work = FakeWork(pause=0.05)
    dock = open_dock(work)
    former = fake_prediction(N)
    dock.session.set_prediction(former)
    shown = []
    dock.session.previewArrived.connect(shown.append)
    with qtbot.waitSignal(dock.session.previewArrived):
        dock.predict()
    begun = time.monotonic()
    dock.run_panel.cancel.click()
    open_dock.rest(dock)
    assert time.monotonic() - begun < 1.0
    qtbot.waitUntil(lambda: work.closed == 1, timeout=30_000)
    n = len(shown)
    qtbot.wait(100)
    assert len(shown) == n
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
    assert any(words in text for text in dock.run_panel.messages.texts)
    assert dock.session.adata is None
    assert dock.run_panel.predict.isEnabled()


def test_unknown_resolution_asks_and_can_be_typed_or_estimated(open_dock):
    work = FakeWork(mpp=None)
    dock = open_dock(work)
    assert not dock.run_panel.predict.isEnabled()
    assert "µm/px" in dock.run_panel.status.text()
    assert not work.grids
    dock.spots_step.origin.setCurrentIndex(1)
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
    dock.slide_step.mpp.setValue(9.0)
    assert any("outside" in text for text in dock.slide_step.messages.texts)
    assert dock.section.slide.mpp_source == "set by hand"


def test_a_slide_unlike_the_training_is_warned_of(open_dock):
    dock = open_dock(FakeWork(mpp=0.8))
    dock.spots_step.pitch.setValue(55.0)
    open_dock.rest(dock)
    assert any("0.800 µm/px" in text for text in dock.model_step.messages.texts)
    assert dock.run_panel.predict.isEnabled()


def test_measured_expression_is_handed_to_the_prediction(open_dock):
    work = FakeWork()
    dock = open_dock(work)
    dock.spots_step.origin.setCurrentIndex(1)
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


def test_results_are_saved_and_reopened_and_an_unwritable_folder_loses_nothing(open_dock, tmp_path):
    dock = open_dock()
    dock.session.set_prediction(fake_prediction(N))
    dock.save(tmp_path / "missing" / "out.h5ad")
    open_dock.rest(dock)
    assert len(dock.run_panel.messages.texts) == 1
    assert dock.session.adata is not None
    dock.save(tmp_path / "out.h5ad")
    open_dock.rest(dock)
    assert "Saved" in dock.run_panel.messages.texts[0]
    dock.session.set_prediction(None)
    dock._open_genes = lambda: None
    dock.open_result(tmp_path / "out.h5ad")
    open_dock.rest(dock)
    assert dock.session.adata.shape == (N, 10)


def test_closing_the_dock_in_mid_run_cancels_quietly(open_dock, qtbot, make_napari_viewer_proxy):
    work = FakeWork(pause=0.05)
    dock = open_dock(work)
    session = dock.session
    dock.predict()
    qtbot.wait(100)
    dock.setParent(None)
    dock.deleteLater()
    qtbot.waitUntil(lambda: work.closed == 1 and not Job._running, timeout=30_000)
    session.viewer.add_shapes(ndim=2)  # nothing of the dock may hear of it any more
    assert session.adata is None


def test_an_image_opened_by_another_reader_is_taken_up(open_dock, make_napari_viewer_proxy, tmp_path):
    from PIL import Image

    file = tmp_path / "plain.png"
    Image.fromarray(fake_slide().pixels[:64, :64]).save(file)
    viewer = make_napari_viewer_proxy()
    viewer.open(file, plugin="napari")
    dock = open_dock(FakeWork(), slide=False, viewer=viewer)
    assert dock.section.slide is not None
    assert [layer.visible for layer in viewer.layers if layer.name == "plain"] == [False]


def test_without_slide_the_dock_says_what_to_do(open_dock):
    dock = open_dock(slide=False)
    assert not dock.run_panel.predict.isEnabled()
    assert "Open a slide" in dock.run_panel.status.text()
    dock.spots_step.origin.setCurrentIndex(1)
    dock.spots_step.table.set_path(Path("spots.tsv"))
    assert any("step 1" in text for text in dock.spots_step.messages.texts)
