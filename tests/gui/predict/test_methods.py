"""Weights of every method are a choice in the dock: each predicts the same slide, from pixels to layers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.section_files import write_section
from tests.training.conftest import make_cohort
from tests.training.methods.test_published import SMALL

from flag_training.cohort import Cohort
from flag_training.methods.floors import LEARNED_FLOORS, WRITTEN
from napari_flag import keys
from napari_flag.encoders.embedded import DIM, TileNet
from napari_flag.model.checkpoint import Checkpoint, save_checkpoint
from napari_flag.progress import finish

GENES = ("GENE0", "GENE1", "GENE2", "GENE3", "GENE4")
CARD = {"title": "small", "array": {"pitch_um": 198.0, "diameter_um": 100.0}, "um_per_px": 0.683}


@pytest.fixture(scope="module")
def cohort():
    """Slides with made features of the width that the embedded encoder gives."""
    made = make_cohort()
    draws = torch.Generator().manual_seed(0)
    lift = torch.randn(made.features[0].shape[2], DIM, generator=draws)
    return Cohort(made.slides[:3], tuple(each @ lift for each in made.features[:3]), GENES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("section")
    write_section(folder, "S1", 11)
    return folder


def written(name, cohort, path):
    """Weights of a method after two steps of training; a floor is solved."""
    torch.manual_seed(0)
    method = LEARNED_FLOORS[name] if name in WRITTEN else in_two_steps(SMALL[name])
    fitted = finish(method.fit(cohort, 0))
    card = CARD | {keys.CARD_METHOD: name}
    if fitted.predictor.sampler is not None:
        card["sampler"] = {"solver": fitted.predictor.sampler.name, "steps": fitted.predictor.sampler.steps}
    save_checkpoint(
        path,
        fitted.network,
        TileNet().state_dict(),
        encoder="embedded",
        genes=GENES,
        card=card,
        method=fitted.method,
    )
    return path


def in_two_steps(method):
    return replace(method, training=replace(method.training, steps=2))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *WRITTEN])
def test_weights_of_a_method_predict_in_the_dock(name, cohort, folder, tmp_path, viewer, qtbot):
    from napari_flag.gui.predict.predict_dock import PredictDock

    dock = PredictDock(viewer)
    qtbot.addWidget(dock)

    def rest():
        qtbot.waitUntil(lambda: not dock.jobs.active and dock._watch.settled, timeout=120_000)

    rest()
    path = written(name, cohort, tmp_path / "small.safetensors")
    dock.load_weights(path)
    dock.section.open_slide(folder / "S1.tif")
    rest()
    dock.section.read_spots(folder / "S1.h5ad")
    rest()
    assert dock.run_panel.predict.isEnabled()
    dock.predict()
    rest()
    shown = dock.session.adata
    assert shown is not None, dock.messages.texts
    assert shown.n_obs == 36
    assert tuple(shown.var_names) == GENES
    assert dock.session.gene_map.layer(dock.session.gene_map.quantity).visible
    assert shown.uns[keys.PROVENANCE][keys.METHOD] == Checkpoint.load(path).method_name
    assert np.isfinite(shown.X).all()
    assert (keys.SAMPLE in shown.layers) == (keys.SAMPLER in shown.uns[keys.PROVENANCE])
