"""Titles of colour bars on the canvas: gene, quantity and unit, since napari's own bar shows numbers only.

A title is a text overlay in the corner of its bar.  napari puts the overlays of a corner below each other,
those of the canvas before those of layers, so that a title stands next to its bar, moves with it and covers
no other.  Only what napari documents is used; before 0.9 it has no such overlays, and there is no title.
"""

import weakref
from collections.abc import Callable
from typing import Any, Final

TITLE: Final = "napari_flag.colour_bar"
"""``layer.metadata`` key: what the colour bar of the layer shows."""
CORNERS: Final = ("top_right", "bottom_right")
"""Where our colour bars stand."""
FONT_SIZE: Final = 10


def title_bar(viewer: Any, layer: Any, *lines: str) -> None:
    """Write `lines` at the colour bar of `layer` from now on, whenever the bar is shown.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy) with `layer` in it.
    layer
        An image layer; its title goes with it.
    lines
        What the bar shows, e.g. "ERBB2 · predicted", "log2(count + 1)".
    """
    if not hasattr(viewer, "canvas"):
        return
    known = TITLE in layer.metadata
    layer.metadata[TITLE] = "\n".join(filter(None, lines))
    if not known:
        refresh = _refreshing(viewer)
        layer.events.visible.connect(refresh)
        layer.colorbar.events.visible.connect(refresh)
        layer.colorbar.events.position.connect(refresh)
    refresh_titles(viewer)


def refresh_titles(viewer: Any) -> None:
    """Show the titles of the colour bars that `viewer` shows now, and no others."""
    for corner in CORNERS:
        text = "\n".join(
            layer.metadata[TITLE] for layer in viewer.layers if _is_shown(layer) and _corner(layer) == corner
        )
        overlay = viewer.canvas.overlays.get(_key(corner))
        if overlay is None:
            if not text:
                continue
            overlay = _add_overlay(viewer, corner)
        if text and overlay.text != text:  # a hidden title keeps its text: napari lays it out anew each time
            overlay.text = text
        if overlay.visible != bool(text):
            overlay.visible = bool(text)


def _add_overlay(viewer: Any, corner: str) -> Any:
    from napari.components.overlays import TextOverlay

    overlay = TextOverlay(position=corner, font_size=FONT_SIZE, box=True)
    if not any(_key(other) in viewer.canvas.overlays for other in CORNERS):  # once in the life of a viewer
        viewer.layers.events.removed.connect(_refreshing(viewer))
    viewer.canvas.overlays[_key(corner)] = overlay
    setattr(viewer.canvas.overlay_tiling, corner, "vertical")
    return overlay


def _refreshing(viewer: Any) -> Callable[[], None]:
    """Return what keeps the titles with their bars when a person hides, moves or deletes one."""
    kept = weakref.ref(viewer)

    def refresh() -> None:
        viewer = kept()
        if viewer is not None:
            refresh_titles(viewer)

    return refresh


def _is_shown(layer: Any) -> bool:
    return TITLE in layer.metadata and layer.visible and layer.colorbar.visible


def _corner(layer: Any) -> str:
    return str(layer.colorbar.position)


def _key(corner: str) -> str:
    return f"napari_flag_{corner}"
