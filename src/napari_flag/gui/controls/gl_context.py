"""Keeps napari alive and quick when a layer is removed: with its GL context, and little garbage to search."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QTimer


def keep_context(layers: Any, canvas: Any) -> None:
    """Make the GL context of `canvas` current before any of `layers` is removed.

    napari 0.9.2 runs vispy's pending ``glDelete…`` calls as soon as a layer is removed
    (``VispyCanvas._clean_and_update_scenegraph``: ``context.finish()``), outside of any paint event and
    without ``makeCurrent``.  They then reach the context that Qt left current, which shares its objects with
    the canvas, while buffers and programs are still bound in the canvas' own: its second redraw reads freed
    memory and the process dies.  A visible colour bar (its text and ticks) brings enough of them along; so
    does a layer whose units were changed.

    Parameters
    ----------
    layers
        The layer list of a viewer.
    canvas
        What draws it: ``QtViewer.canvas``.
    """
    kept = weakref.ref(canvas)

    def make_current() -> None:
        canvas = kept()
        if canvas is not None and canvas.native.isValid():
            canvas.native.makeCurrent()

    layers.events.removing.connect(make_current)
    if hasattr(layers.events, "end_batch"):  # of removals, after which they are all cleared away
        layers.events.end_batch.connect(make_current)


def keep_context_of(viewer: Any) -> None:
    """Do so for the window of `viewer`, and `forget_removed`; a viewer without a window draws nothing."""
    window = getattr(viewer, "window", None)
    if window is not None:
        spare_loaded(viewer)
        keep_context(viewer.layers, window._qt_viewer.canvas)
        forget_removed(viewer.layers, window._qt_viewer.canvas)


def forget_removed(layers: Any, canvas: Any) -> None:
    """Have the transforms of `canvas` drop what they kept of a layer once another is removed.

    vispy 0.17 records a listener on them for each visual, and drops those of visuals that are gone only when
    the transform itself changes, which these do not in the life of a window.  For `layers` and `canvas` see
    `keep_context`.
    """
    kept = weakref.ref(canvas)

    def update() -> None:
        canvas = kept()
        if canvas is not None:
            transforms = canvas._scene_canvas.transforms
            transforms.canvas_transform.update()
            transforms.document_transform.update()
            transforms.framebuffer_transform.update()

    layers.events.removed.connect(update)


def free_objects(canvas: Any) -> None:
    """Delete the textures, buffers and programs of a canvas that is about to be closed.

    napari 0.9.2 leaves them to the context, whose objects live as long as any context that shares them: that
    of the main canvas.  Each canvas that was closed left its maps and pictures behind, 13 MB and more.

    Parameters
    ----------
    canvas
        What draws it: ``QtViewer.canvas``.
    """
    if canvas.native.isValid():
        canvas.native.makeCurrent()
        parser = canvas._scene_canvas.context.shared.parser
        parser.parse([("DELETE", number) for number in parser._objects])
        canvas.native.doneCurrent()


def later_in(viewer: Any) -> Callable[[Callable[[], Any]], Any]:
    """Return what calls its argument in the next turn of the event loop, or at once without a window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return lambda act: act()
    kept = weakref.ref(window._qt_window)  # what calls it may outlive the window, and must not keep it

    def later(act: Callable[[], Any]) -> None:
        parent = kept()
        if parent is not None and isalive(parent):  # type: ignore[no-untyped-call]
            timer = QTimer(parent)
            timer.setSingleShot(True)
            timer.timeout.connect(act)
            timer.timeout.connect(timer.deleteLater)
            timer.start(0)

    return later


def spare_loaded(viewer: Any, *, again: bool = False) -> None:
    """Take what is loaded by now out of every later search for garbage.

    napari 0.9.2 calls ``gc.collect()`` whenever a layer is removed, which searches all modules and widgets:
    .3 s for half a million objects, and as much whenever Python itself searches them all.  What is spared is
    not freed where it belongs to a cycle, until `spare_no_longer`; so nothing is spared once `viewer` has
    layers, which hold slides and predictions.

    Parameters
    ----------
    viewer
        The viewer that was opened.
    again
        Spare also what was loaded since the first time, such as docks and what reading the first slide
        needs; else once in a process.
    """
    if not len(viewer.layers) and (again or not gc.get_freeze_count()):
        gc.freeze()


def spare_no_longer() -> None:
    """Have what was spared searched again, so that a window that is closed is freed."""
    gc.unfreeze()
