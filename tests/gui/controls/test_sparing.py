import gc
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from vispy.visuals.transforms import ChainTransform, NullTransform, STTransform, TransformSystem

from napari_flag.gui.controls.gl_context import forget_removed, spare_loaded


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


def listens_and_is_freed_as_a_visual_is(transform):
    """Within a cycle: then vispy's `ChainTransform.__del__` comes too late to disconnect it."""
    chain = ChainTransform(NullTransform())
    chain.append(transform)
    chain.visual = [chain]


def test_transforms_of_a_canvas_keep_no_listener_of_a_layer_that_is_gone():
    transforms = TransformSystem()
    transforms.framebuffer_transform = STTransform()
    scene = SimpleNamespace(transforms=transforms)
    canvas = type("Canvas", (), {"_scene_canvas": scene})()
    viewer = ViewerModel()
    forget_removed(viewer.layers, canvas)
    kept = (transforms.canvas_transform, transforms.document_transform, transforms.framebuffer_transform)
    before = [len(transform.changed._callbacks) for transform in kept]
    for _ in range(2):
        viewer.add_image(np.zeros((4, 4)))
        for transform in kept:
            listens_and_is_freed_as_a_visual_is(transform)
        gc.collect()
        viewer.layers.clear()
    assert [len(transform.changed._callbacks) for transform in kept] == before
