"""The ways in from napari: files dropped on its canvas, and those of File › Open (the npe2 reader).

What is ours goes to the `Opener` of the FLAG area, which reads it in the background; a script gets layers.
"""

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qtpy.QtCore import QEvent, QObject, QThread
from qtpy.QtGui import QDropEvent

from napari_flag import discovery
from napari_flag.discovery.kinds import PICTURE_ENDINGS
from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.gui.controls.forms import dropped_paths
from napari_flag.gui.opening import Opener
from napari_flag.gui.settings import PLUGIN
from napari_flag.layers import readers, slide_layers
from napari_flag.slides.formats import spatial_data
from napari_flag.slides.slide import needs_pyramid, open_slide

AREA: Final = "Predict expression"
"""The name of the FLAG area in napari's menus: what a person comes for."""
_OPENERS: dict[int, Opener] = {}
"""Of the viewers whose FLAG area is open, by the id of the viewer."""


class DropTarget(QObject):
    """Takes files dropped on napari's canvas that are ours; all others stay napari's.

    napari asks which reader to use where several could; here the files themselves say.

    Parameters
    ----------
    viewer
        With a window.
    opener
        Opens what is ours.
    """

    def __init__(self, viewer: Any, opener: Opener) -> None:
        super().__init__(opener)
        self._opener = opener
        self._canvas: Any = weakref.ref(viewer.window._qt_viewer)
        viewer.window._qt_viewer.installEventFilter(self)

    def remove(self) -> None:
        """Leave all drops to napari again."""
        canvas = self._canvas()
        if canvas is not None:
            canvas.removeEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take a drop whose files are all ours, or are folders, which are looked into in the background."""
        if not isinstance(event, QDropEvent) or event.type() != QEvent.Type.Drop:
            return super().eventFilter(watched, event)
        paths = dropped_paths(event)
        if not paths or not all(path.is_dir() or discovery.kind_of(path) for path in paths):
            return super().eventFilter(watched, event)
        event.acceptProposedAction()
        self._opener.open(paths, otherwise=self._leave_to_napari)
        return True

    def _leave_to_napari(self, path: Path) -> None:
        self._canvas()._qt_open([str(path)], stack=False)


def register(viewer: Any, opener: Opener) -> Callable[[], None]:
    """Let napari's File › Open use `opener` too; return what ends that."""
    _OPENERS[id(viewer)] = opener

    def end() -> None:
        _OPENERS.pop(id(viewer), None)

    return end


def get_reader(path: Any) -> readers.ReaderFunction | None:
    """Return a reader for what is ours (npe2): slides, predictions, regions, workspaces, SpatialData.

    A plain TIFF or picture that is no slide stays napari's.
    """
    if not isinstance(path, str | Path):
        return None
    if os.path.isdir(path):
        return _read_zarr if spatial_data.is_store(Path(path)) else None
    match discovery.kind_of(Path(path)):
        case "slide":
            return _read_slide
        case "prediction" | "annotated":
            return _read_prediction
        case "regions" | "workspace":
            return _read_in_background
    return _napari_reader(Path(path))


def _napari_reader(path: Path) -> readers.ReaderFunction | None:
    if ending(path) not in PICTURE_ENDINGS:
        return None
    from napari_builtins.io import napari_get_reader  # type: ignore[import-untyped]

    reader: readers.ReaderFunction = napari_get_reader(str(path))
    return reader


def _opener() -> Opener | None:
    """Return what opens files in the background; a window that has none gets the FLAG area for it.

    None where nobody looks at a window, or a script waits for the layers: its event loop does not run then.
    """
    import napari

    viewer: Any = napari.current_viewer()
    viewer = getattr(viewer, "__wrapped__", viewer)
    if viewer is None:
        return None
    thread = QThread.currentThread()
    if id(viewer) not in _OPENERS and thread is not None and thread.loopLevel() > 0:
        viewer.window.add_plugin_dock_widget(PLUGIN, AREA)
    return _OPENERS.get(id(viewer))


def _read_in_background(path: Any) -> list[Any]:
    opener = _opener()
    if opener is None:
        from napari.utils.notifications import show_info

        show_info(f"Open {AREA} (Plugins menu) first, then {Path(path).name} again.")
    else:
        opener.open([Path(path)])
    return readers.NOTHING


def _read_prediction(path: Any) -> list[Any]:
    return readers.read_prediction_layers(path) if _opener() is None else _read_in_background(path)


def _read_zarr(path: Any) -> list[Any]:
    """Open a SpatialData zarr; in a script, its image, or else its prediction."""
    if _opener() is not None:
        return _read_in_background(path)
    store = spatial_data.Store(Path(path))
    return readers.read_slide(path) if store.images else readers.read_prediction_layers(path)


def _read_slide(path: Any) -> list[Any]:
    """Open a slide; one that needs a pyramid first is shown in grey while that is built."""
    opener = _opener()
    if opener is None:
        return readers.read_slide(path)
    try:
        slide = open_slide(Path(path))
    except UserError as error:
        return readers.show_error(error)
    if not needs_pyramid(slide):
        return [slide_layers.slide_layer(slide)]
    return [slide_layers.placeholder_layer(slide)]
