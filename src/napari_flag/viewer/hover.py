"""What is under the mouse: spot id and values in the status bar, in constant time."""

import weakref
from collections.abc import Callable
from typing import Any

from napari_flag.viewer.gene_map import GeneMap


class Hover:
    """Writes the spot under the mouse to the viewer's status bar.

    napari computes the status of the *active* layer in a thread of its own and would overwrite ours
    a moment later, so the text is put back for as long as the mouse is over the spot.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).
    gene_map
        What is drawn in it.
    told
        Called with the text, or "" beside the spots.
    """

    def __init__(self, viewer: Any, gene_map: GeneMap, told: Callable[[str], None]) -> None:
        self._viewer = weakref.ref(viewer)
        self._map, self._told = gene_map, told
        self.text = ""
        viewer.mouse_move_callbacks.append(self.on_move)
        viewer.events.status.connect(self._on_status)

    def on_move(self, viewer: Any, event: Any) -> None:
        """Look up the spot at the event's position."""
        text = self._map.hover_text(event.position) or ""
        if text != self.text:
            self.text = text
            self._told(text)
        if text:
            viewer.status = text

    def _on_status(self) -> None:
        viewer = self._viewer()
        if viewer is not None and self.text and viewer.status != self.text:
            if viewer.mouse_over_canvas:
                viewer.status = self.text
            else:
                self.text = ""
