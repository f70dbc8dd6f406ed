"""Predictions run one after the other; the dock says when most of a slide is unlike the training slides."""

import threading
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import fake_prediction
from tests.gui.predict.fake_work import FakeWork, N
from tests.layers.test_overlays import WARNING, judged

from napari_flag import keys, prediction
from napari_flag.errors import UserError
from napari_flag.gui.predict.run import COMPARING
from napari_flag.gui.slide_list import SlideList
from napari_flag.progress import Step


class JudgingWork(FakeWork):
    """Predicts what it is given; says the warning where the pipeline does."""

    def __init__(self, adata, **options):
        super().__init__(**options)
        self.adata = adata

    def predict_inputs(self, inputs, checkpoint, **options):
        record = self.adata.uns[keys.PROVENANCE].get(keys.FAMILIARITY, {})
        yield Step(COMPARING, N, N, notice=record.get(keys.UNLIKE_WARNING))
        if self.error is not None:
            raise self.error
        yield Step("Predicting expression", N, N)
        return self.adata


@pytest.fixture
def predicted(open_dock, qtbot):
    def run(adata, **options):
        dock = open_dock(JudgingWork(adata, **options))
        dock.predict()
        open_dock.rest(dock)
        return dock

    return run


def test_the_stage_that_warns_is_the_pipelines():
    assert COMPARING == prediction.COMPARING


def test_the_warning_stays_with_the_result_and_hinders_nothing(predicted, open_dock, tmp_path):
    dock = predicted(judged(N))
    assert dock.run_panel.doubt.texts == (WARNING,)
    assert dock.messages.texts == ()
    assert dock.session.unlike_map.layer.visible
    assert dock.run_panel.predict.isEnabled()
    dock.save(tmp_path / "kept.h5ad")
    open_dock.rest(dock)
    assert dock.run_panel.doubt.texts == (WARNING,)
    dock.session.set_prediction(fake_prediction(N))
    assert dock.run_panel.doubt.texts == ()
    dock.opener.open([tmp_path / "kept.h5ad"])
    open_dock.rest(dock)
    assert dock.run_panel.doubt.texts == (WARNING,)


def test_a_familiar_slide_has_the_layer_at_hand_and_no_warning(predicted):
    dock = predicted(judged(N, warning=None))
    assert dock.run_panel.doubt.texts == ()
    assert not dock.session.unlike_map.layer.visible


def test_weights_that_judge_nothing_add_nothing(predicted):
    dock = predicted(fake_prediction(N))
    assert dock.run_panel.doubt.texts == ()
    assert dock.session.unlike_map.layer is None


def test_a_run_that_fails_takes_its_warning_along(predicted):
    dock = predicted(judged(N), error=ValueError("no"))
    assert dock.run_panel.doubt.texts == ()
    assert dock.session.adata is None


def test_hover_names_the_distance(predicted):
    dock = predicted(judged(N))
    xy = dock.session.adata.obsm[keys.SPATIAL][N - 1]
    text = dock.session.gene_map.hover_text(np.array(xy[::-1]) * 0.5)
    assert "farther from the training tissue than 99 % of it" in text


class GatedWork(FakeWork):
    """Each prediction waits half way for a gate of its own; those of `failing` (by number) fail."""

    def __init__(self, failing=()):
        super().__init__()
        self.gates = [threading.Event() for _ in range(3)]
        self.failing = failing

    def predict_inputs(self, inputs, checkpoint, **options):
        number = len(self.predicted)
        self.release = self.gates[number]
        self.error = (
            UserError("The slide is out of focus; scan it again.") if number in self.failing else None
        )
        return (yield from super().predict_inputs(inputs, checkpoint, **options))


def queue_of_two(open_dock, work):
    """Open two slides, of which the second is shown, and ask for predictions of both."""
    dock = open_dock(work)
    dock.section.open_slide(Path("second.svs"))
    open_dock.rest(dock)
    dock.predict_all()
    return dock, *dock.session.workspace.slides


def begun(state):
    return state.status.startswith("predicting")


def test_two_slides_are_predicted_one_after_the_other_and_the_first_is_looked_at_meanwhile(open_dock, qtbot):
    work = GatedWork()
    dock, first, second = queue_of_two(open_dock, work)
    session = dock.session
    assert (begun(first), second.status) == (True, "queued")
    work.gates[0].set()
    qtbot.waitUntil(lambda: first.adata is not None and begun(second), timeout=10_000)
    assert first.status == ""
    session.workspace.show(first)
    assert session.gene_map.values.adata is first.adata
    assert dock._steps.isEnabled()
    session.workspace.show(second)
    assert not dock._steps.isEnabled()
    work.gates[1].set()
    open_dock.rest(dock)
    assert session.adata is second.adata is not None
    assert (first.status, second.status) == ("", "")
    assert [prepared.slide for prepared, _ in work.predicted] == [first.slide, second.slide]


def test_a_result_of_a_slide_that_is_not_shown_is_kept_and_does_not_switch_to_it(open_dock, qtbot):
    work = GatedWork()
    dock, first, second = queue_of_two(open_dock, work)
    work.gates[0].set()
    qtbot.waitUntil(lambda: first.adata is not None, timeout=10_000)
    assert dock.session.state is second
    assert dock.session.adata is None
    for layer in dock.session.workspace.layers_of(first):
        assert not layer.visible
    work.gates[1].set()
    open_dock.rest(dock)


def test_a_slide_is_queued_by_the_button_while_another_is_predicted(open_dock, qtbot):
    work = GatedWork()
    dock = open_dock(work)
    (first,) = dock.session.workspace.slides
    dock.run_panel.predict.click()
    assert not dock.run_panel.predict.isEnabled()
    dock.section.open_slide(Path("second.svs"))
    qtbot.waitUntil(dock.run_panel.predict.isEnabled, timeout=10_000)
    second = dock.session.state
    assert second is not first
    dock.run_panel.predict.click()
    assert second.status == "queued"
    assert not dock.run_panel.predict.isEnabled()
    for gate in work.gates:
        gate.set()
    open_dock.rest(dock)
    assert first.adata is not None
    assert second.adata is not None


def test_cancel_empties_the_queue_and_names_what_was_not_begun(open_dock, qtbot):
    work = GatedWork()
    dock, first, second = queue_of_two(open_dock, work)
    qtbot.waitUntil(lambda: bool(work.predicted), timeout=10_000)
    dock.strip.cancel.click()
    open_dock.rest(dock)
    assert (first.status, second.status) == ("", "")
    assert (first.adata, second.adata) == (None, None)
    assert any(text.endswith(f"Not begun: {second.name}.") for text in dock.messages.texts)
    assert len(work.predicted) == 1
    assert dock.run_panel.predict.isEnabled()


def test_a_prediction_asked_for_after_cancel_is_not_cancelled_with_the_one_before(open_dock, qtbot):
    work = GatedWork()
    dock = open_dock(work)
    (first,) = dock.session.workspace.slides
    dock.section.open_slide(Path("second.svs"))
    open_dock.rest(dock)
    second = dock.session.state
    dock.session.workspace.show(first)
    dock.predict()
    qtbot.waitUntil(lambda: bool(work.predicted), timeout=10_000)
    dock.session.workspace.show(second)
    dock.strip.cancel.click()
    dock.run_panel.predict.click()
    assert second.status == "queued"
    for gate in work.gates:
        gate.set()
    open_dock.rest(dock)
    assert (first.adata, first.status) == (None, "")
    assert second.adata is not None
    assert not any("Not begun" in text for text in dock.messages.texts)


def test_a_slide_removed_while_it_waits_is_not_predicted(open_dock, qtbot):
    work = GatedWork()
    dock, first, second = queue_of_two(open_dock, work)
    dock.session.workspace.remove(second)
    work.gates[0].set()
    open_dock.rest(dock)
    assert dock.session.workspace.slides == [first]
    assert len(work.predicted) == 1
    assert second.adata is None


def test_what_failed_of_several_slides_stays_to_be_read_with_their_names(open_dock):
    work = GatedWork(failing=(0, 1))
    for gate in work.gates:
        gate.set()
    dock = open_dock(work)
    for name in ("second.svs", "third.svs"):
        dock.section.open_slide(Path(name))
        open_dock.rest(dock)
    first, second, third = dock.session.workspace.slides
    dock.predict_all()
    open_dock.rest(dock)
    assert (first.adata, second.adata) == (None, None)
    assert third.adata is not None
    failed = "was not predicted: The slide is out of focus; scan it again."
    assert dock.messages.texts == (
        f"{first.name} {failed}",
        f"{second.name} {failed}",
        f"{third.name}: The batch was halved.",
    )


def test_what_runs_said_is_gone_when_others_begin_after_them(open_dock):
    work = GatedWork(failing=(0,))
    for gate in work.gates:
        gate.set()
    dock = open_dock(work)
    dock.predict()
    open_dock.rest(dock)
    assert any("out of focus" in text for text in dock.messages.texts)
    dock.predict()
    open_dock.rest(dock)
    assert not any("out of focus" in text for text in dock.messages.texts)


def test_the_prediction_of_a_slide_that_is_taken_out_meanwhile_is_not_lost(open_dock, qtbot):
    work = GatedWork()
    dock = open_dock(work)
    workspace = dock.session.workspace
    (taken,) = workspace.slides
    dock.predict()
    workspace.remove(taken)
    work.gates[0].set()
    open_dock.rest(dock)
    assert taken not in workspace.slides
    assert [len(state.results) for state in workspace.slides] == [1]


def test_predict_all_can_be_pressed_again_only_for_slides_that_are_left(open_dock, qtbot):
    work = GatedWork()
    dock, _, second = queue_of_two(open_dock, work)
    slides = SlideList(dock.session, dock)
    qtbot.addWidget(slides)
    assert not slides.predict_all.isEnabled(), "one runs, the other waits"
    work.gates[0].set()
    qtbot.waitUntil(lambda: begun(second), timeout=30_000)
    dock.strip.cancel.click()
    qtbot.waitUntil(slides.predict_all.isEnabled, timeout=30_000)
    assert dock.unpredicted == [second]


@pytest.mark.parametrize("unscaled_first", [False, True])
def test_predict_all_says_which_slide_cannot_be_predicted_and_why(open_dock, unscaled_first):
    work = GatedWork()
    for gate in work.gates:
        gate.set()
    work.mpp = None if unscaled_first else 0.5
    dock = open_dock(work)
    work.mpp = 0.5 if unscaled_first else None
    dock.section.open_slide(Path("second.svs"))
    open_dock.rest(dock)
    unscaled, scaled = sorted(dock.session.workspace.slides, key=lambda state: state.slide.mpp or 0)
    dock.predict_all()
    open_dock.rest(dock)
    assert scaled.adata is not None
    assert unscaled.adata is None
    (left_out,) = [text for text in dock.messages.texts if "left out" in text]
    assert left_out.startswith(f"{unscaled.name} is left out:")
    assert "µm/px" in left_out
