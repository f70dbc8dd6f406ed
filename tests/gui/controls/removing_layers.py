"""Removes a gene map under a window, in a process of its own: what goes wrong there ends the process."""

import sys

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from tests.fakes import MPP, FakeSlide, fake_prediction

from napari_flag.gui.session import Session
from napari_flag.layers import slide_layers

REDRAWS = 2
"""Without the context, one was enough to end the process."""


def redraw(viewer):
    canvas = viewer.window._qt_viewer.canvas.native
    for _ in range(REDRAWS):
        canvas.update()
        QApplication.processEvents()


def previewed(viewer):
    """Open a slide whose spots are hidden under the preview of a first prediction."""
    session = Session.of(viewer)
    slide_layers.add_slide(viewer, FakeSlide())
    viewer.add_points(np.full((9, 2), 200.0), size=40, scale=(MPP, MPP), units=("um", "um"), visible=True)
    redraw(viewer)
    viewer.layers[-1].visible = False
    session.preview(fake_prediction(9), session.state)
    redraw(viewer)
    return session


def cancel(viewer):
    """Go back to the result there was before: none."""
    session = previewed(viewer)
    session.set_prediction(session.adata)


def delete(viewer):
    """Delete the gene's layer, as a person does in the layer list."""
    session = previewed(viewer)
    viewer.layers.selection = {session.gene_map.layer(session.gene_map.quantity)}
    viewer.layers.remove_selected()


def main(whats):
    for what in whats:
        viewer = napari.Viewer(show=True)
        viewer.window.resize(500, 400)
        {"cancel": cancel, "delete": delete}[what](viewer)
        redraw(viewer)
        assert len(viewer.layers) == 2
        redraw(viewer)
        viewer.close()
        sys.stdout.write(f"{what}: still there\n")


if __name__ == "__main__":
    main(sys.argv[1:])
