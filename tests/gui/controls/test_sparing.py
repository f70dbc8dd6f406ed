import gc

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_flag.gui.controls.gl_context import spare_loaded


@pytest.fixture
def nothing_spared():
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_is_loaded_is_spared_before_there_are_layers(nothing_spared):
    spare_loaded(ViewerModel())
    assert gc.get_freeze_count()


def test_slides_and_predictions_are_never_spared(nothing_spared):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((4, 4)))
    spare_loaded(viewer, again=True)
    assert not gc.get_freeze_count()
