"""What the overlays of a canvas say: titles of colour bars, and legends."""

from napari_flag.layers.colour_bar import CORNERS, _key
from napari_flag.layers.legend import KEY, overlays_of


def titles_of(viewer):
    """Return the titles shown now: corner → text."""
    overlays = viewer.canvas.overlays if hasattr(viewer, "canvas") else {}
    found = {corner: overlays.get(_key(corner)) for corner in CORNERS}
    return {corner: overlay.text for corner, overlay in found.items() if overlay and overlay.visible}


def lines_on(viewer):
    """Return the text of all legends on the canvas, from top to bottom."""
    return [str(o.text) for name, o in overlays_of(viewer).items() if name.startswith(KEY) and o.visible]
