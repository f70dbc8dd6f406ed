"""The main dock says when most of a slide is unlike the training slides, and goes on."""

import numpy as np
import pytest
from tests.fakes import fake_prediction
from tests.gui.predict.fake_work import FakeWork, N
from tests.layers.test_overlays import WARNING, judged

from napari_flag import keys, prediction
from napari_flag.gui.predict.run import COMPARING
from napari_flag.progress import Step


class JudgingWork(FakeWork):
    """Predicts what it is given; says the warning where the pipeline does."""

    def __init__(self, adata, **options):
        super().__init__(**options)
        self.adata = adata

    def predict_inputs(self, prepared, checkpoint, **options):
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
    dock.open_result(tmp_path / "kept.h5ad")
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
